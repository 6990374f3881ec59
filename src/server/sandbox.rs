//! What is done about a sandbox that is asked for.

use crate::protocol::error::RpcError;
use crate::protocol::sandbox::{FileSystemPolicy, NetworkPolicy, Permissions, Sandbox};

/// Lets a request through whose sandbox would restrict nothing.
///
/// # Errors
/// Everything else: a sandbox that cannot be enforced is refused, never ignored.
pub(super) fn check(sandbox: Option<&Sandbox>) -> Result<(), RpcError> {
    let unrestricted = match sandbox.map(|sandbox| &sandbox.permissions) {
        None | Some(Permissions::Disabled) => true,
        // Whoever is outside keeps the files; the network would be for us to restrict.
        Some(Permissions::External { network }) => *network == NetworkPolicy::Enabled,
        Some(Permissions::Managed { file_system, network }) => {
            matches!(file_system, FileSystemPolicy::Unrestricted) && *network == NetworkPolicy::Enabled
        }
    };
    if unrestricted {
        return Ok(());
    }
    Err(RpcError::internal(
        "the sandbox cannot be enforced by this exec-server, so the request is refused",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::decode::decode;
    use serde_json::{Value, json};

    fn verdict(permissions: Value) -> bool {
        let sandbox = json!({"permissions": permissions, "windowsSandboxLevel": "disabled"});
        check(Some(&decode(sandbox.to_string().as_bytes()).unwrap())).is_ok()
    }

    #[test]
    fn only_what_restricts_nothing_is_let_through() {
        assert!(check(None).is_ok());
        assert!(verdict(json!({"type": "disabled"})));
        assert!(verdict(json!({"type": "external", "network": "enabled"})));
        assert!(!verdict(json!({"type": "external", "network": "restricted"})));
        let managed = |files: &str, network: &str| {
            verdict(json!({"type": "managed", "file_system": {"type": files, "entries": []}, "network": network}))
        };
        assert!(managed("unrestricted", "enabled"));
        assert!(!managed("unrestricted", "restricted"));
        assert!(!managed("restricted", "enabled"));
    }

    #[test]
    fn what_does_not_fit_the_schema_is_no_sandbox() {
        let fits = |sandbox: Value| decode::<Sandbox>(sandbox.to_string().as_bytes()).is_ok();
        let whole = json!({"permissions": {"type": "managed", "network": "restricted", "file_system": {
            "type": "restricted", "glob_scan_max_depth": 3, "entries": [
                {"path": {"type": "path", "path": "file:///a"}, "access": "write"},
                {"path": {"type": "glob_pattern", "pattern": "**/*.env"}, "access": "none"},
                {"path": {"type": "special", "value": {"kind": "root"}}, "access": "read"},
                {"path": {"type": "special", "value": {"kind": "unknown", "path": "x"}}, "access": "deny"},
                {"path": {"type": "special", "value": {"kind": "current_working_directory", "subpath": ".git"}},
                 "access": "read", "missing_path_behavior": "skip"}]}},
            "cwd": "file:///a", "workspaceRoots": ["/a"], "windowsSandboxLevel": "restricted-token", "more": 1});
        assert!(fits(whole.clone()));
        for (place, wrong) in [
            ("/permissions/type", json!("nonsense")),
            ("/permissions/network", json!("maybe")),
            ("/permissions/file_system/entries/0/access", json!("all")),
            ("/permissions/file_system/entries/0/path/path", json!("relative")),
            ("/permissions/file_system/glob_scan_max_depth", json!(0)),
            ("/windowsSandboxLevel", Value::Null),
            ("/permissions", json!({})),
        ] {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = wrong;
            assert!(!fits(changed), "{place}");
        }
        assert!(!fits(json!("read-only")) && !fits(json!({})));
    }
}
