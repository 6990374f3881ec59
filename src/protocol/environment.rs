//! What a client says about the environment of a process.

use std::collections::BTreeMap;

use super::decode::{Decode, DecodeError, Fields, one_of};
use super::json::Span;
use super::path_uri::PathUri;
use serde::{Serialize, Serializer};

/// `envPolicy` of `process/start`: how a child's environment is made from the server's.
///
/// All fields are required; without a policy a child gets nothing from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvPolicy {
    /// What of the server's environment to start from.
    pub inherit: EnvInherit,
    /// Whether inherited variables that look like secrets by their names may stay.
    pub ignore_default_excludes: bool,
    /// Patterns of names of inherited variables that may not stay.
    pub exclude: Vec<String>,
    /// Variables to set, also those that a rule above has taken away.
    pub set: BTreeMap<String, String>,
    /// If not empty: patterns of names, and no others stay, inherited or set.
    pub include_only: Vec<String>,
}

impl Decode<'_> for EnvPolicy {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct EnvPolicy")?;
        Ok(Self {
            inherit: fields.required("inherit")?,
            ignore_default_excludes: fields.required("ignoreDefaultExcludes")?,
            exclude: fields.required("exclude")?,
            set: fields.required("set")?,
            include_only: fields.required("includeOnly")?,
        })
    }
}

/// `inherit` of [`EnvPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvInherit {
    /// What nearly every program needs: the search path, the user, the locale.
    Core,
    /// Everything.
    All,
    /// Nothing.
    None,
}

impl Decode<'_> for EnvInherit {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        one_of(value, &[("core", Self::Core), ("all", Self::All), ("none", Self::None)])
    }
}

/// The result of `environment/info`, and part of that of `initialize`: where the commands will run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentInfo {
    /// The user's shell. The one field that clients cannot do without.
    pub shell: ShellInfo,
    /// The version of this server.
    pub executor_version: &'static str,
    /// The directory the server was started in.
    pub cwd: PathUri,
    /// The user's home directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_home_dir: Option<PathUri>,
    /// `linux`.
    pub platform_os: &'static str,
    /// The directory that `TMPDIR` names, if it does.
    pub temporary_directories: Vec<PathUri>,
    /// Where temporary files go.
    pub temp_dir: PathUri,
    /// Whether sandboxes can be enforced. Only `environment/info` tells: to find out takes a few milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxInfo>,
    /// What the server can do beyond what every server can, by the names that clients ask for. What is not named is not
    /// there.
    #[serde(serialize_with = "as_map")]
    pub capabilities: Vec<(&'static str, bool)>,
}

/// Part of [`EnvironmentInfo`].
#[derive(Debug, Clone, Serialize)]
pub struct SandboxInfo {
    /// Whether commands can be started in a sandbox.
    pub available: bool,
    /// What keeps them: `namespaces` every one, `landlock` those that allow reading everything and writing nothing, or
    /// in whole trees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<&'static str>,
    /// Why not, or why not with namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn as_map<S: Serializer>(members: &[(&'static str, bool)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().copied())
}

/// The result of `environment/status`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EnvironmentStatus {
    /// `ready`.
    pub status: &'static str,
}

/// Params of `environmentConfig/read`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentConfigParams {
    /// Where configuration would be looked for; it need not exist.
    pub cwd: PathUri,
    /// Which keys of configuration files are wanted.
    pub config_paths: Vec<Vec<String>>,
    /// Which keys of requirement files are wanted.
    pub requirements_paths: Vec<Vec<String>>,
}

impl Decode<'_> for EnvironmentConfigParams {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct EnvironmentConfigParams")?;
        Ok(Self {
            cwd: fields.required("cwd")?,
            config_paths: fields.required("configPaths")?,
            requirements_paths: fields.required("requirementsPaths")?,
        })
    }
}

/// Result of `environmentConfig/read`. There is no configuration of Codex on this side.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentConfig {
    /// The user's home directory.
    pub user_home_dir: Option<PathUri>,
    /// Where Codex would keep its files.
    pub codex_home_dir: PathUri,
    /// The name of this machine.
    pub hostname: Option<String>,
    /// From configuration files.
    pub config: ConfigLayers,
    /// From requirement files.
    pub requirements: ConfigLayers,
}

/// Layers of configuration, of which there are none.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigLayers {
    /// The lowest first.
    pub layers: [(); 0],
    /// Where layers of the cloud would go.
    pub cloud_insertion_index: usize,
}

/// A shell.
#[derive(Debug, Clone, Serialize)]
pub struct ShellInfo {
    /// What it is called, such as `bash`.
    pub name: String,
    /// Where it is.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::*;

    const FULL: &str =
        r#"{"inherit":"core","ignoreDefaultExcludes":true,"exclude":["A*"],"set":{"B":"1"},"includeOnly":[]}"#;

    #[test]
    fn a_policy_has_the_names_of_the_wire() {
        let policy: EnvPolicy = decode(FULL.as_bytes()).unwrap();
        assert_eq!(policy.inherit, EnvInherit::Core);
        assert_eq!(serde_json::to_string(&policy).unwrap(), FULL);
        let more = FULL.replace("{\"inherit", "{\"more\":1,\"inherit");
        assert_eq!(decode::<EnvPolicy>(more.as_bytes()).unwrap(), policy);
    }

    #[test]
    fn every_field_is_required() {
        let whole: serde_json::Value = serde_json::from_str(FULL).unwrap();
        for name in whole.as_object().unwrap().keys() {
            let mut part = whole.clone();
            part.as_object_mut().unwrap().remove(name);
            let error = decode::<EnvPolicy>(part.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("missing field `{name}`"));
        }
        let error = decode::<EnvPolicy>(FULL.replace("core", "Core").as_bytes()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unknown variant `Core`, expected one of `core`, `all`, `none`"),
            "{error}"
        );
    }
}
