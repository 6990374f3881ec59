//! What a server says about itself.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Where the commands run: what `environment/info` and `initialize` answer. What a server does not say is `None` or empty.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerEnvironment {
    /// The user's shell.
    pub shell: ServerShell,
    /// The version of the server.
    #[serde(default)]
    pub executor_version: Option<String>,
    /// The directory the server was started in, a `file:` URI.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The user's home directory, a `file:` URI.
    #[serde(default)]
    pub user_home_dir: Option<String>,
    /// Such as `linux`.
    #[serde(default)]
    pub platform_os: Option<String>,
    /// Where temporary files go, a `file:` URI.
    #[serde(default)]
    pub temp_dir: Option<String>,
    /// What the server can do beyond what every server can.
    #[serde(default)]
    pub capabilities: BTreeMap<String, bool>,
}

/// A shell.
#[derive(Clone, Debug, Deserialize)]
pub struct ServerShell {
    /// What it is called, such as `bash`.
    pub name: String,
    /// Where it is.
    pub path: String,
}
