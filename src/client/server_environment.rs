//! What a server says about itself.

use crate::protocol::decode::{Decode, DecodeError, Fields};
use crate::protocol::json::Span;
use std::collections::BTreeMap;

/// Where the commands run: what `environment/info` and `initialize` answer. What a server does not say is `None` or empty.
#[derive(Clone, Debug)]
pub struct ServerEnvironment {
    /// The user's shell.
    pub shell: ServerShell,
    /// The version of the server.
    pub executor_version: Option<String>,
    /// The directory the server was started in, a `file:` URI.
    pub cwd: Option<String>,
    /// The user's home directory, a `file:` URI.
    pub user_home_dir: Option<String>,
    /// Such as `linux`.
    pub platform_os: Option<String>,
    /// Where temporary files go, a `file:` URI.
    pub temp_dir: Option<String>,
    /// What the server can do beyond what every server can.
    pub capabilities: BTreeMap<String, bool>,
}

impl Decode<'_> for ServerEnvironment {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ServerEnvironment")?;
        Ok(Self {
            shell: fields.required("shell")?,
            executor_version: fields.optional("executorVersion")?,
            cwd: fields.optional("cwd")?,
            user_home_dir: fields.optional("userHomeDir")?,
            platform_os: fields.optional("platformOs")?,
            temp_dir: fields.optional("tempDir")?,
            capabilities: fields.or_default("capabilities")?,
        })
    }
}

/// A shell.
#[derive(Clone, Debug)]
pub struct ServerShell {
    /// What it is called, such as `bash`.
    pub name: String,
    /// Where it is.
    pub path: String,
}

impl Decode<'_> for ServerShell {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ServerShell")?;
        Ok(Self {
            name: fields.required("name")?,
            path: fields.required("path")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::decode::decode;

    #[test]
    fn a_server_need_not_say_more_than_its_shell() {
        let said: ServerEnvironment = decode(br#"{"shell":{"name":"sh","path":"/bin/sh"},"cwd":null}"#).unwrap();
        assert_eq!((said.shell.name.as_str(), said.shell.path.as_str()), ("sh", "/bin/sh"));
        assert!(said.cwd.is_none() && said.executor_version.is_none() && said.capabilities.is_empty());
        let said = decode::<ServerEnvironment>(br#"{"capabilities":{"a":true,"b":false}}"#).map(drop);
        assert_eq!(said.unwrap_err().to_string(), "missing field `shell`");
        let json = br#"{"shell":{"name":"sh","path":"/bin/sh"},"tempDir":"file:///tmp","capabilities":{"a":true}}"#;
        let said: ServerEnvironment = decode(json).unwrap();
        assert_eq!(said.temp_dir.as_deref(), Some("file:///tmp"));
        assert_eq!(said.capabilities.get("a"), Some(&true));
    }
}
