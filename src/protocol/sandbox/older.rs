//! The shapes that sandboxes had with Codex up to 0.142.5, read as today's.
//!
//! - 0.120: `sandboxPolicy` beside the other params, always null as far as was seen.
//! - 0.121 to 0.123: `sandbox.sandboxPolicy` and, from 0.122, `sandbox.sandboxPolicyCwd`.
//! - 0.124: `permissions` and what is in it have no `type`, and `network` is an object.
//! - 0.124 to 0.142.5: no `workspaceRoots`; `project_roots`, once `current_working_directory`, is `cwd`.

use super::{
    Access, FileSystemEntry, FileSystemPath, FileSystemPolicy, NetworkPolicy, Permissions, Sandbox, SpecialPath,
    WindowsSandboxLevel,
};
use crate::protocol::decode::{Decode, DecodeError, Fields, unknown_variant};
use crate::protocol::json::{Kind, Span};
use crate::protocol::path_uri::RequestPath;

/// A policy by the name of its mode.
pub(crate) enum ModePolicy {
    /// All may be done.
    DangerFullAccess,
    /// Somebody around the server keeps the files.
    ExternalSandbox {
        /// Whether the network.
        network: NetworkPolicy,
    },
    /// Files may be read.
    ReadOnly {
        /// Whether the network.
        network: NetworkPolicy,
    },
    /// They may be written in some places.
    WorkspaceWrite {
        /// Whether the network.
        network: NetworkPolicy,
        /// The places beside the workspace.
        writable_roots: Vec<RequestPath>,
        /// Whether `/tmp` is none.
        exclude_slash_tmp: bool,
        /// Whether the directories for temporary files are none.
        exclude_tmpdir: bool,
    },
}

impl Decode<'_> for ModePolicy {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct SandboxPolicy")?;
        let network = |fields: &Fields<'_>| {
            let enabled = fields.optional::<bool>("network_access")?.unwrap_or_default();
            Ok::<_, DecodeError>(network_if(enabled))
        };
        for name in ["access", "read_only_access"] {
            check_full_access(&fields, name)?;
        }
        Ok(match fields.word("type")?.as_ref() {
            "danger-full-access" => Self::DangerFullAccess,
            "external-sandbox" => Self::ExternalSandbox {
                network: fields.optional("network_access")?.unwrap_or(NetworkPolicy::Restricted),
            },
            "read-only" => Self::ReadOnly {
                network: network(&fields)?,
            },
            "workspace-write" => Self::WorkspaceWrite {
                network: network(&fields)?,
                writable_roots: fields.or_default("writable_roots")?,
                exclude_slash_tmp: fields.optional("exclude_slash_tmp")?.unwrap_or_default(),
                exclude_tmpdir: fields.optional("exclude_tmpdir_env_var")?.unwrap_or_default(),
            },
            other => {
                let known = ["danger-full-access", "external-sandbox", "read-only", "workspace-write"];
                return Err(unknown_variant(other, &known));
            }
        })
    }
}

fn network_if(enabled: bool) -> NetworkPolicy {
    match enabled {
        true => NetworkPolicy::Enabled,
        false => NetworkPolicy::Restricted,
    }
}

/// Refuses what restricts reading: no client was seen to send that, so it is not known what it would mean.
fn check_full_access(fields: &Fields<'_>, name: &str) -> Result<(), DecodeError> {
    match fields.get(name) {
        Some(access) if access.kind != Kind::Null => {
            let of_access = Fields::of(access, "struct ReadOnlyAccess")?;
            match of_access.word("type")?.as_ref() {
                "full-access" => Ok(()),
                other => Err(unknown_variant(other, &["full-access"])),
            }
        }
        _ => Ok(()),
    }
}

impl ModePolicy {
    /// The same as permissions. The workspace is writable if it is known where that is.
    pub(crate) fn into_permissions(self, has_workspace: bool) -> Permissions {
        let special = |value, access| FileSystemEntry {
            path: FileSystemPath::Special { value },
            access,
            missing_path_behavior: None,
        };
        let mut entries = vec![special(SpecialPath::Root, Access::Read)];
        let network = match self {
            Self::DangerFullAccess => return Permissions::Disabled,
            Self::ExternalSandbox { network } => return Permissions::External { network },
            Self::ReadOnly { network } => network,
            Self::WorkspaceWrite {
                network,
                writable_roots,
                exclude_slash_tmp,
                exclude_tmpdir,
            } => {
                for (there, place) in [
                    (has_workspace, SpecialPath::ProjectRoots { subpath: None }),
                    (!exclude_slash_tmp, SpecialPath::SlashTmp),
                    (!exclude_tmpdir, SpecialPath::Tmpdir),
                ] {
                    if there {
                        entries.push(special(place, Access::Write));
                    }
                }
                entries.extend(writable_roots.into_iter().map(|path| FileSystemEntry {
                    path: FileSystemPath::Path { path },
                    access: Access::Write,
                    missing_path_behavior: None,
                }));
                network
            }
        };
        Permissions::Managed {
            file_system: FileSystemPolicy::Restricted {
                entries,
                glob_scan_max_depth: None,
            },
            network,
        }
    }
}

impl Sandbox {
    /// What `permissions` allows in the one workspace at `cwd`.
    pub(crate) fn of_workspace(permissions: Permissions, cwd: Option<RequestPath>) -> Self {
        Self {
            permissions,
            workspace_roots: cwd.clone().into_iter().collect(),
            cwd,
            policy_context: None,
            user_home_dir: None,
            temporary_directories: Vec::new(),
            windows_sandbox_level: WindowsSandboxLevel::Disabled,
        }
    }

    /// That of a file call, among its params.
    pub(crate) fn of_file_call(params: &Fields<'_>) -> Result<Option<Self>, DecodeError> {
        match params.optional("sandbox")? {
            Some(sandbox) => Ok(Some(sandbox)),
            None => by_mode(params),
        }
    }
}

/// The sandbox of a `sandboxPolicy` that is among `fields`.
pub(super) fn by_mode(fields: &Fields<'_>) -> Result<Option<Sandbox>, DecodeError> {
    let Some(policy) = fields.optional::<ModePolicy>("sandboxPolicy")? else {
        return Ok(None);
    };
    let cwd: Option<RequestPath> = fields.optional("sandboxPolicyCwd")?;
    let permissions = policy.into_permissions(cwd.is_some());
    Ok(Some(Sandbox::of_workspace(permissions, cwd)))
}

/// Whether the sandbox that `fields` are of knows no workspace roots, so that its `cwd` is the one. Clients that
/// know them stopped to say `windowsSandboxPrivateDesktop` only later.
pub(super) fn cwd_is_workspace(fields: &Fields<'_>) -> bool {
    fields.get("windowsSandboxPrivateDesktop").is_some()
        && fields.get("workspaceRoots").is_none()
        && fields.get("policyContext").is_none()
}

/// Permissions without a type; none if `fields` are something else.
pub(super) fn untyped(fields: &Fields<'_>) -> Result<Option<Permissions>, DecodeError> {
    let (None, Some(files), Some(network)) = (fields.get("type"), fields.get("file_system"), fields.get("network"))
    else {
        return Ok(None);
    };
    let files = Fields::of(files, "struct FileSystemPermissions")?;
    let network = Fields::of(network, "struct NetworkPermissions")?;
    Ok(Some(Permissions::Managed {
        file_system: super::restricted(&files)?,
        network: network_if(network.optional("enabled")?.unwrap_or_default()),
    }))
}

/// A policy for files whose type is its `kind`, or that leaves them to somebody else.
pub(crate) struct KindPolicy(pub(crate) Option<FileSystemPolicy>);

impl Decode<'_> for KindPolicy {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FileSystemSandboxPolicy")?;
        Ok(Self(match fields.word("kind")?.as_ref() {
            "unrestricted" => Some(FileSystemPolicy::Unrestricted),
            "restricted" => Some(super::restricted(&fields)?),
            "external-sandbox" => None,
            other => {
                let known = ["unrestricted", "restricted", "external-sandbox"];
                return Err(unknown_variant(other, &known));
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sandbox;
    use serde_json::{Value, json};

    /// As today's client would say it.
    fn read(sandbox: Value) -> Value {
        let sandbox = Sandbox::parse(sandbox.to_string().as_bytes()).unwrap();
        serde_json::to_value(sandbox).unwrap()
    }

    fn special(kind: &str, access: &str) -> Value {
        json!({"path": {"type": "special", "value": {"kind": kind}}, "access": access})
    }

    fn managed(entries: &[Value], network: &str, cwd: Option<&str>) -> Value {
        let files = json!({"type": "restricted", "entries": entries});
        let mut sandbox = json!({
            "permissions": {"type": "managed", "file_system": files, "network": network},
            "workspaceRoots": [],
            "temporaryDirectories": [],
            "windowsSandboxLevel": "disabled",
        });
        if let Some(cwd) = cwd {
            sandbox["cwd"] = json!(cwd);
            sandbox["workspaceRoots"] = json!([cwd]);
        }
        sandbox
    }

    /// What 0.121 to 0.123 send, here with the cwd that 0.121 leaves out.
    fn by_mode(policy: Value) -> Value {
        json!({
            "sandboxPolicy": policy,
            "sandboxPolicyCwd": "/run/ws",
            "windowsSandboxLevel": "disabled",
            "windowsSandboxPrivateDesktop": true,
            "useLegacyLandlock": false,
            "additionalPermissions": null,
        })
    }

    #[test]
    fn a_policy_by_the_name_of_its_mode() {
        let full = read(by_mode(json!({"type": "danger-full-access"})));
        assert_eq!(full["permissions"], json!({"type": "disabled"}));
        let (root, cwd) = (special("root", "read"), Some("file:///run/ws"));
        assert_eq!(
            read(by_mode(json!({"type": "read-only"}))),
            managed(std::slice::from_ref(&root), "restricted", cwd)
        );
        let mut write = json!({
            "type": "workspace-write",
            "writable_roots": ["/run/client-home/.codex/memories"],
            "network_access": false,
            "exclude_tmpdir_env_var": false,
            "exclude_slash_tmp": false,
        });
        let memories =
            json!({"path": {"type": "path", "path": "file:///run/client-home/.codex/memories"}, "access": "write"});
        let [workspace, tmp, tmpdir] = ["project_roots", "slash_tmp", "tmpdir"].map(|kind| special(kind, "write"));
        let all = [root.clone(), workspace, tmp.clone(), tmpdir.clone(), memories.clone()];
        assert_eq!(read(by_mode(write.clone())), managed(&all, "restricted", cwd));
        // 0.121 does not say where the workspace is.
        let mut nowhere = by_mode(write.clone());
        nowhere.as_object_mut().unwrap().remove("sandboxPolicyCwd");
        assert_eq!(
            read(nowhere),
            managed(&[root.clone(), tmp, tmpdir, memories.clone()], "restricted", None)
        );
        write["network_access"] = json!(true);
        write["exclude_tmpdir_env_var"] = json!(true);
        write["exclude_slash_tmp"] = json!(true);
        assert_eq!(
            read(by_mode(write)),
            managed(&[root, all[1].clone(), memories], "enabled", cwd)
        );
        let external = read(by_mode(
            json!({"type": "external-sandbox", "network_access": "enabled"}),
        ));
        assert_eq!(
            external["permissions"],
            json!({"type": "external", "network": "enabled"})
        );
    }

    #[test]
    fn permissions_without_types() {
        let entries = [special("root", "read"), special("current_working_directory", "write")];
        let old = json!({
            "permissions": {"network": {"enabled": false}, "file_system": {"entries": entries}},
            "cwd": "/run/ws",
            "windowsSandboxLevel": "disabled",
            "windowsSandboxPrivateDesktop": true,
            "useLegacyLandlock": false,
        });
        let today = [special("root", "read"), special("project_roots", "write")];
        assert_eq!(read(old.clone()), managed(&today, "restricted", Some("file:///run/ws")));
        let mut full = old;
        full["permissions"]["network"]["enabled"] = json!(true);
        assert_eq!(read(full)["permissions"]["network"], "enabled");
    }

    #[test]
    fn a_cwd_is_the_workspace_only_for_clients_that_know_no_other() {
        let modern = |more: &[(&str, Value)]| {
            let mut sandbox = managed(
                &[special("project_roots", "write")],
                "restricted",
                Some("file:///run/ws"),
            );
            sandbox.as_object_mut().unwrap().remove("workspaceRoots");
            for (name, value) in more {
                sandbox[name] = value.clone();
            }
            read(sandbox)["workspaceRoots"].clone()
        };
        let desktop = ("windowsSandboxPrivateDesktop", json!(true));
        assert_eq!(modern(&[]), json!([]));
        assert_eq!(modern(std::slice::from_ref(&desktop)), json!(["file:///run/ws"]));
        assert_eq!(modern(&[desktop.clone(), ("workspaceRoots", json!([]))]), json!([]));
        assert_eq!(modern(&[desktop, ("policyContext", json!({}))]), json!([]));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refusal = |sandbox: Value| Sandbox::parse(sandbox.to_string().as_bytes()).unwrap_err().to_string();
        let variants = "expected one of `danger-full-access`, `external-sandbox`, `read-only`, `workspace-write`";
        assert_eq!(
            refusal(by_mode(json!({"type": "all"}))),
            format!("unknown variant `all`, {variants}")
        );
        let limited = json!({"type": "read-only", "access": {"type": "restricted", "readable_roots": []}});
        assert_eq!(
            refusal(by_mode(limited)),
            "unknown variant `restricted`, expected `full-access`"
        );
        assert_eq!(
            refusal(json!({"windowsSandboxLevel": "disabled"})),
            "missing field `permissions`"
        );
        let untyped = |permissions| refusal(json!({"permissions": permissions, "windowsSandboxLevel": "disabled"}));
        assert_eq!(untyped(json!({})), "missing field `type`");
        assert_eq!(untyped(json!({"file_system": {"entries": []}})), "missing field `type`");
        assert_eq!(
            untyped(json!({"file_system": {}, "network": {}})),
            "missing field `entries`"
        );
        let network = untyped(json!({"file_system": {"entries": []}, "network": "restricted"}));
        assert_eq!(
            network,
            "invalid type: string \"restricted\", expected struct NetworkPermissions"
        );
    }
}
