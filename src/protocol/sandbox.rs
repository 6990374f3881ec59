//! The `sandbox` object of `process/start` and the `fs/*` methods: what a command or call may do.

mod older;

pub(crate) use older::{KindPolicy, ModePolicy};

use super::decode::{Decode, DecodeError, Fields, one_of, unknown_variant};
use super::json::{Scanner, Span};
use super::message::Limits;
use super::path_uri::RequestPath;
use serde::Serialize;
use std::num::NonZeroUsize;

/// What may be done, and what the places in it are relative to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// What may be done.
    pub permissions: Permissions,
    /// What relative patterns count from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<RequestPath>,
    /// What `project_roots` stands for.
    pub workspace_roots: Vec<RequestPath>,
    /// If there, its fields count and not the two above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_context: Option<PolicyContext>,
    /// The user's home directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_home_dir: Option<RequestPath>,
    /// What `tmpdir` stands for.
    pub temporary_directories: Vec<RequestPath>,
    /// Clients always say it; it means nothing here.
    pub windows_sandbox_level: WindowsSandboxLevel,
}

impl Sandbox {
    /// Reads it from JSON text by itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(checked(text)?)
    }
}

/// The value that is all of `text`, which nobody has looked at yet.
pub(crate) fn checked(text: &[u8]) -> Result<Span<'_>, DecodeError> {
    let mut scanner = Scanner::new(text, 0..0, Limits::default());
    let value = scanner.value()?;
    scanner.finish()?;
    Ok(value)
}

impl Decode<'_> for Sandbox {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct Sandbox")?;
        if fields.get("permissions").is_none()
            && let Some(sandbox) = older::by_mode(&fields)?
        {
            return Ok(sandbox);
        }
        let cwd: Option<RequestPath> = fields.optional("cwd")?;
        Ok(Self {
            permissions: fields.required("permissions")?,
            workspace_roots: match older::cwd_is_workspace(&fields) {
                true => cwd.clone().into_iter().collect(),
                false => fields.or_default("workspaceRoots")?,
            },
            cwd,
            policy_context: fields.optional("policyContext")?,
            user_home_dir: fields.optional("userHomeDir")?,
            temporary_directories: fields.or_default("temporaryDirectories")?,
            windows_sandbox_level: fields.required("windowsSandboxLevel")?,
        })
    }
}

/// Where a policy counts from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyContext {
    /// What relative patterns count from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<RequestPath>,
    /// What `project_roots` stands for.
    pub workspace_roots: Vec<RequestPath>,
}

impl Decode<'_> for PolicyContext {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct PolicyContext")?;
        Ok(Self {
            cwd: fields.optional("cwd")?,
            workspace_roots: fields.or_default("workspaceRoots")?,
        })
    }
}

/// Who keeps the rules.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
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

impl Decode<'_> for Permissions {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct Permissions")?;
        if let Some(permissions) = older::untyped(&fields)? {
            return Ok(permissions);
        }
        Ok(match fields.word("type")?.as_ref() {
            "managed" => Self::Managed {
                file_system: fields.required("file_system")?,
                network: fields.required("network")?,
            },
            "disabled" => Self::Disabled,
            "external" => Self::External {
                network: fields.required("network")?,
            },
            other => return Err(unknown_variant(other, &["managed", "disabled", "external"])),
        })
    }
}

/// Which files may be touched.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
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

impl Decode<'_> for FileSystemPolicy {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FileSystemPolicy")?;
        Ok(match fields.word("type")?.as_ref() {
            "unrestricted" => Self::Unrestricted,
            "restricted" => restricted(&fields)?,
            other => return Err(unknown_variant(other, &["unrestricted", "restricted"])),
        })
    }
}

fn restricted(fields: &Fields<'_>) -> Result<FileSystemPolicy, DecodeError> {
    Ok(FileSystemPolicy::Restricted {
        entries: fields.required("entries")?,
        glob_scan_max_depth: fields.optional("glob_scan_max_depth")?,
    })
}

/// What holds at a place and below.
#[derive(Clone, Debug, Serialize)]
pub struct FileSystemEntry {
    /// Where.
    pub path: FileSystemPath,
    /// What.
    pub access: Access,
    /// What to do where there is no such path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_path_behavior: Option<MissingPath>,
}

impl Decode<'_> for FileSystemEntry {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FileSystemEntry")?;
        Ok(Self {
            path: fields.required("path")?,
            access: fields.required("access")?,
            missing_path_behavior: fields.optional("missing_path_behavior")?,
        })
    }
}

/// What to do about a path that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingPath {
    /// The entry does not count.
    Skip,
}

impl Decode<'_> for MissingPath {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        one_of(value, &[("skip", Self::Skip)])
    }
}

/// A place or several.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
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

impl Decode<'_> for FileSystemPath {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FileSystemPath")?;
        Ok(match fields.word("type")?.as_ref() {
            "path" => Self::Path {
                path: fields.required("path")?,
            },
            "glob_pattern" => Self::GlobPattern {
                pattern: fields.required("pattern")?,
            },
            "special" => Self::Special {
                value: fields.required("value")?,
            },
            other => return Err(unknown_variant(other, &["path", "glob_pattern", "special"])),
        })
    }
}

/// Places that have names of their own.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
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

impl Decode<'_> for SpecialPath {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct SpecialPath")?;
        Ok(match fields.word("kind")?.as_ref() {
            "root" => Self::Root,
            "minimal" => Self::Minimal,
            "project_roots" | "current_working_directory" => Self::ProjectRoots {
                subpath: fields.optional("subpath")?,
            },
            "tmpdir" => Self::Tmpdir,
            "slash_tmp" => Self::SlashTmp,
            "unknown" => Self::Unknown {},
            other => {
                let known = [
                    "root",
                    "minimal",
                    "current_working_directory",
                    "project_roots",
                    "tmpdir",
                    "slash_tmp",
                    "unknown",
                ];
                return Err(unknown_variant(other, &known));
            }
        })
    }
}

/// What may be done at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Look.
    Read,
    /// Look and change.
    Write,
    /// Nothing.
    Deny,
}

impl Decode<'_> for Access {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let access = [
            ("read", Self::Read),
            ("write", Self::Write),
            ("deny", Self::Deny),
            ("none", Self::Deny),
        ];
        one_of(value, &access)
    }
}

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPolicy {
    /// Not.
    Restricted,
    /// It may.
    Enabled,
}

impl Decode<'_> for NetworkPolicy {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        one_of(value, &[("restricted", Self::Restricted), ("enabled", Self::Enabled)])
    }
}

/// How hard a Windows host tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum WindowsSandboxLevel {
    Disabled,
    RestrictedToken,
    Elevated,
    Mxc,
}

impl Decode<'_> for WindowsSandboxLevel {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let levels = [
            ("disabled", Self::Disabled),
            ("restricted-token", Self::RestrictedToken),
            ("elevated", Self::Elevated),
            ("mxc", Self::Mxc),
        ];
        one_of(value, &levels)
    }
}
