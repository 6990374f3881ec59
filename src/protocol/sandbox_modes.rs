//! The policies that Codex's modes stand for.

use super::path_uri::RequestPath;
use super::sandbox::{
    Access, FileSystemEntry, FileSystemPath, FileSystemPolicy, MissingPath, NetworkPolicy, Permissions, Sandbox,
    SpecialPath, WindowsSandboxLevel,
};
use std::path::Path;

/// What a writable root keeps from being changed: repositories and the settings of agents, through which somebody else
/// would run what is written there.
const PROTECTED_NAMES: [&str; 4] = [".git", ".agents", ".codex", ".aws"];

impl Sandbox {
    /// Everything may be read and nothing written.
    pub fn read_only(cwd: &Path, network: NetworkPolicy) -> Sandbox {
        Sandbox::of_mode(cwd, network, vec![special(SpecialPath::Root, Access::Read)])
    }

    /// Everything may be read, and written what is below `cwd`, but for `.git`, `.agents`, `.codex` and
    /// `.aws`, and in the directories for
    /// temporary files.
    pub fn workspace_write(cwd: &Path, network: NetworkPolicy) -> Sandbox {
        let root = |subpath: Option<&str>| SpecialPath::ProjectRoots {
            subpath: subpath.map(str::to_owned),
        };
        let mut entries = vec![
            special(SpecialPath::Root, Access::Read),
            special(root(None), Access::Write),
            special(SpecialPath::SlashTmp, Access::Write),
            special(SpecialPath::Tmpdir, Access::Write),
        ];
        entries.extend(PROTECTED_NAMES.map(|name| FileSystemEntry {
            missing_path_behavior: Some(MissingPath::Skip),
            ..special(root(Some(name)), Access::Read)
        }));
        Sandbox::of_mode(cwd, network, entries)
    }

    fn of_mode(cwd: &Path, network: NetworkPolicy, entries: Vec<FileSystemEntry>) -> Sandbox {
        let cwd = RequestPath::from(cwd.to_owned());
        Sandbox {
            permissions: Permissions::Managed {
                file_system: FileSystemPolicy::Restricted {
                    entries,
                    glob_scan_max_depth: None,
                },
                network,
            },
            cwd: Some(cwd.clone()),
            workspace_roots: vec![cwd],
            policy_context: None,
            user_home_dir: None,
            temporary_directories: Vec::new(),
            windows_sandbox_level: WindowsSandboxLevel::Disabled,
        }
    }
}

fn special(value: SpecialPath, access: Access) -> FileSystemEntry {
    FileSystemEntry {
        path: FileSystemPath::Special { value },
        access,
        missing_path_behavior: None,
    }
}
