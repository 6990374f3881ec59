//! The `sandbox` object of `process/start` and the `fs/*` methods: what a command or call may do.

use super::path_uri::RequestPath;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

/// What may be done, and what the places in it are relative to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// What may be done.
    pub permissions: Permissions,
    /// What relative patterns count from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<RequestPath>,
    /// What `project_roots` stands for.
    #[serde(default)]
    pub workspace_roots: Vec<RequestPath>,
    /// If there, its fields count and not the two above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_context: Option<PolicyContext>,
    /// The user's home directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_home_dir: Option<RequestPath>,
    /// What `tmpdir` stands for.
    #[serde(default)]
    pub temporary_directories: Vec<RequestPath>,
    /// Clients always say it; it means nothing here.
    pub windows_sandbox_level: WindowsSandboxLevel,
}

/// Where a policy counts from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyContext {
    /// What relative patterns count from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<RequestPath>,
    /// What `project_roots` stands for.
    #[serde(default)]
    pub workspace_roots: Vec<RequestPath>,
}

/// Who keeps the rules.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "wire::Permissions", tag = "type", rename_all = "snake_case")]
pub enum Permissions {
    /// The server.
    Managed {
        /// Which files.
        file_system: FileSystemPolicy,
        /// Whether the network.
        network: NetworkPolicy,
    },
    /// Nobody: everything may be done.
    Disabled,
    /// Somebody around the server, but for the network.
    External {
        /// Whether the network.
        network: NetworkPolicy,
    },
}

/// Which files may be touched.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "wire::FileSystemPolicy", tag = "type", rename_all = "snake_case")]
pub enum FileSystemPolicy {
    /// All.
    Unrestricted,
    /// Those that the entries allow.
    Restricted {
        /// What holds where.
        entries: Vec<FileSystemEntry>,
        /// How deep patterns look.
        #[serde(skip_serializing_if = "Option::is_none")]
        glob_scan_max_depth: Option<NonZeroUsize>,
    },
}

/// What holds at a place and below.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileSystemEntry {
    /// Where.
    pub path: FileSystemPath,
    /// What.
    pub access: Access,
    /// What to do where there is no such path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_path_behavior: Option<MissingPath>,
}

/// What to do about a path that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingPath {
    /// The entry does not count.
    Skip,
}

/// A place or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "wire::FileSystemPath", tag = "type", rename_all = "snake_case")]
pub enum FileSystemPath {
    /// One.
    Path {
        /// Which.
        path: RequestPath,
    },
    /// All that match.
    GlobPattern {
        /// Absolute, relative, or below each workspace root.
        pattern: String,
    },
    /// One that has a name of its own.
    Special {
        /// Which.
        value: SpecialPath,
    },
}

/// Places that have names of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "wire::SpecialPath", tag = "kind", rename_all = "snake_case")]
pub enum SpecialPath {
    /// `/`
    Root,
    /// What a program needs to run at all.
    Minimal,
    /// The workspace roots, or the same place below each.
    ProjectRoots {
        /// Which place.
        #[serde(skip_serializing_if = "Option::is_none")]
        subpath: Option<String>,
    },
    /// The directories for temporary files.
    Tmpdir,
    /// `/tmp`
    SlashTmp,
    /// One that only the client knows; it does not count.
    Unknown {},
}

/// What may be done at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Look.
    Read,
    /// Look and change.
    Write,
    /// Nothing.
    #[serde(alias = "none")]
    Deny,
}

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPolicy {
    /// Not.
    Restricted,
    /// It may.
    Enabled,
}

/// How hard a Windows host tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum WindowsSandboxLevel {
    Disabled,
    RestrictedToken,
    Elevated,
    Mxc,
}

/// The tagged objects with all their fields in one, checked afterwards: what a tag derives by itself keeps the whole
/// object in an intermediate form first, at five times the code.
mod wire {
    use super::{FileSystemEntry, NetworkPolicy, NonZeroUsize, RequestPath};
    use serde::Deserialize;

    fn need<T>(field: Option<T>, name: &str) -> Result<T, String> {
        field.ok_or_else(|| format!("missing field `{name}`"))
    }

    #[derive(Deserialize)]
    pub(super) struct Permissions {
        r#type: PermissionsType,
        #[serde(default)]
        file_system: Option<super::FileSystemPolicy>,
        #[serde(default)]
        network: Option<NetworkPolicy>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum PermissionsType {
        Managed,
        Disabled,
        External,
    }

    impl TryFrom<Permissions> for super::Permissions {
        type Error = String;

        fn try_from(wire: Permissions) -> Result<super::Permissions, String> {
            Ok(match wire.r#type {
                PermissionsType::Disabled => super::Permissions::Disabled,
                PermissionsType::External => super::Permissions::External {
                    network: need(wire.network, "network")?,
                },
                PermissionsType::Managed => super::Permissions::Managed {
                    file_system: need(wire.file_system, "file_system")?,
                    network: need(wire.network, "network")?,
                },
            })
        }
    }

    #[derive(Deserialize)]
    pub(super) struct FileSystemPolicy {
        r#type: FileSystemPolicyType,
        #[serde(default)]
        entries: Option<Vec<FileSystemEntry>>,
        #[serde(default)]
        glob_scan_max_depth: Option<NonZeroUsize>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum FileSystemPolicyType {
        Unrestricted,
        Restricted,
    }

    impl TryFrom<FileSystemPolicy> for super::FileSystemPolicy {
        type Error = String;

        fn try_from(wire: FileSystemPolicy) -> Result<super::FileSystemPolicy, String> {
            Ok(match wire.r#type {
                FileSystemPolicyType::Unrestricted => super::FileSystemPolicy::Unrestricted,
                FileSystemPolicyType::Restricted => super::FileSystemPolicy::Restricted {
                    entries: need(wire.entries, "entries")?,
                    glob_scan_max_depth: wire.glob_scan_max_depth,
                },
            })
        }
    }

    #[derive(Deserialize)]
    pub(super) struct FileSystemPath {
        r#type: FileSystemPathType,
        #[serde(default)]
        path: Option<RequestPath>,
        #[serde(default)]
        pattern: Option<String>,
        #[serde(default)]
        value: Option<super::SpecialPath>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum FileSystemPathType {
        Path,
        GlobPattern,
        Special,
    }

    impl TryFrom<FileSystemPath> for super::FileSystemPath {
        type Error = String;

        fn try_from(wire: FileSystemPath) -> Result<super::FileSystemPath, String> {
            use super::FileSystemPath::{GlobPattern, Path, Special};
            Ok(match wire.r#type {
                FileSystemPathType::Path => Path {
                    path: need(wire.path, "path")?,
                },
                FileSystemPathType::GlobPattern => GlobPattern {
                    pattern: need(wire.pattern, "pattern")?,
                },
                FileSystemPathType::Special => Special {
                    value: need(wire.value, "value")?,
                },
            })
        }
    }

    #[derive(Deserialize)]
    pub(super) struct SpecialPath {
        kind: SpecialPathKind,
        #[serde(default)]
        subpath: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum SpecialPathKind {
        Root,
        Minimal,
        #[serde(alias = "current_working_directory")]
        ProjectRoots,
        Tmpdir,
        SlashTmp,
        Unknown,
    }

    impl From<SpecialPath> for super::SpecialPath {
        fn from(wire: SpecialPath) -> super::SpecialPath {
            match wire.kind {
                SpecialPathKind::Root => super::SpecialPath::Root,
                SpecialPathKind::Minimal => super::SpecialPath::Minimal,
                SpecialPathKind::ProjectRoots => super::SpecialPath::ProjectRoots { subpath: wire.subpath },
                SpecialPathKind::Tmpdir => super::SpecialPath::Tmpdir,
                SpecialPathKind::SlashTmp => super::SpecialPath::SlashTmp,
                SpecialPathKind::Unknown => super::SpecialPath::Unknown {},
            }
        }
    }
}
