//! What `environment/info` tells.

use crate::protocol::environment::{ConfigLayers, EnvironmentConfig, EnvironmentInfo, SandboxInfo, ShellInfo};
use crate::protocol::path_uri::PathUri;
use crate::sandbox::{Enforcer, Means};
use nix::unistd::{AccessFlags, Uid, access};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What Codex's exec-server may have and a client asks for. Each is true once it is here.
const KNOWN_CAPABILITIES: [(&str, bool); 15] = [
    ("networkProxyLaunch", false),
    ("networkProxyReviewDomains", false),
    ("credentialMasking", false),
    ("credentialMaskingCustomProviders", false),
    ("capabilityDiscoverySandbox", false),
    ("fsWatchMissing", true),
    ("capabilityDiscoveryV2", false),
    ("environmentConfigRead", true),
    ("httpHeaderEnvVars", false),
    ("sandboxedFileStreaming", true),
    ("fileWriteStreaming", true),
    ("shellSnapshotV2", false),
    ("linuxRootWritePreservesDevices", false),
    ("linuxApprovedRootWritePreservesRestrictions", false),
    ("windowsMxc", false),
];

/// What only this server has.
const OWN_CAPABILITIES: [&str; 9] = [
    "absolutePaths",
    "extendedSignals",
    "processAck",
    "processCloseStdin",
    "processGracefulTerminate",
    "processLimits",
    "processList",
    "processResize",
    "processTerminalSize",
];

/// Looks around.
pub(super) fn examine() -> EnvironmentInfo {
    let account = Account::of(Uid::current());
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .or(account.home)
        .filter(|home| home.is_absolute());
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let temporary = absolute("TMPDIR");
    EnvironmentInfo {
        shell: shell(account.shell),
        executor_version: env!("CARGO_PKG_VERSION"),
        cwd: PathUri(std::env::current_dir().unwrap_or_else(|_| "/".into())),
        user_home_dir: home.map(PathUri),
        platform_os: "linux",
        temporary_directories: temporary.iter().cloned().map(PathUri).collect(),
        temp_dir: PathUri(temporary.unwrap_or_else(|| "/tmp".into())),
        sandbox: None,
        capabilities: KNOWN_CAPABILITIES
            .into_iter()
            .chain(OWN_CAPABILITIES.map(|name| (name, true)))
            .collect(),
    }
}

/// Tries whether sandboxes can be enforced.
pub(super) fn examine_sandboxes(sandboxes: &Enforcer) -> SandboxInfo {
    match sandboxes.check() {
        Ok(Means::Namespaces) => SandboxInfo {
            available: true,
            mechanism: Some("namespaces"),
            reason: None,
        },
        Ok(Means::Landlock(why)) => SandboxInfo {
            available: true,
            mechanism: Some("landlock"),
            reason: Some(why.to_string()),
        },
        Err(e) => SandboxInfo {
            available: false,
            mechanism: None,
            reason: Some(e.to_string()),
        },
    }
}

/// What `environmentConfig/read` answers.
pub(super) fn configuration(environment: &EnvironmentInfo) -> EnvironmentConfig {
    let home = environment.user_home_dir.clone();
    let codex_home = std::env::var_os("CODEX_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let beside_others = || {
        home.as_ref()
            .map_or_else(|| "/".into(), |home| home.0.clone())
            .join(".codex")
    };
    EnvironmentConfig {
        codex_home_dir: PathUri(codex_home.unwrap_or_else(beside_others)),
        user_home_dir: home,
        hostname: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()),
        config: ConfigLayers::default(),
        requirements: ConfigLayers::default(),
    }
}

/// The first that can be executed of the account's shell, the environment's, and the usual ones.
fn shell(of_account: Option<PathBuf>) -> ShellInfo {
    let of_environment = std::env::var_os("SHELL").map(PathBuf::from);
    let usual = ["/bin/bash", "/usr/bin/bash", "/bin/sh"].map(PathBuf::from);
    let candidates = of_account.into_iter().chain(of_environment).chain(usual);
    let usable = |path: &PathBuf| path.is_absolute() && is_shell(path) && access(path, AccessFlags::X_OK).is_ok();
    let path = candidates.into_iter().find(usable).unwrap_or_else(|| "/bin/sh".into());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ShellInfo {
        name,
        path: path.to_string_lossy().into_owned(),
    }
}

/// The accounts of services have programs here that only say no.
fn is_shell(path: &Path) -> bool {
    !path
        .file_name()
        .is_some_and(|name| name == "nologin" || name == "false" || name == "true")
}

#[derive(Default)]
struct Account {
    home: Option<PathBuf>,
    shell: Option<PathBuf>,
}

impl Account {
    /// From `/etc/passwd` itself: the C library's way loads whatever name services are configured, and costs a static
    /// program a megabyte.
    fn of(uid: Uid) -> Account {
        let Ok(accounts) = std::fs::read("/etc/passwd") else {
            return Account::default();
        };
        Account::find(&accounts, uid.as_raw()).unwrap_or_default()
    }

    fn find(accounts: &[u8], uid: u32) -> Option<Account> {
        use std::os::unix::ffi::OsStringExt;
        accounts.split(|b| *b == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
            let number = std::str::from_utf8(fields.get(2)?).ok()?.parse::<u32>().ok()?;
            let field = |i: usize| {
                let bytes = fields.get(i).filter(|field| !field.is_empty())?;
                Some(PathBuf::from(OsString::from_vec(bytes.to_vec())))
            };
            (number == uid).then(|| Account {
                home: field(5),
                shell: field(6),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_number() {
        let accounts = b"root:x:0:0:root:/root:/bin/bash\n# nothing\nbob:x:1000:1000::/home/bob:\n";
        let root = Account::find(accounts, 0).unwrap();
        assert_eq!(
            (root.home, root.shell),
            (Some("/root".into()), Some("/bin/bash".into()))
        );
        let bob = Account::find(accounts, 1000).unwrap();
        assert_eq!((bob.home, bob.shell), (Some("/home/bob".into()), None));
        assert!(Account::find(accounts, 1).is_none());
    }

    #[test]
    fn the_shell_exists() {
        let shell = shell(Some("/nowhere/zsh".into()));
        assert!(access(Path::new(&shell.path), AccessFlags::X_OK).is_ok(), "{shell:?}");
        assert!(shell.path.ends_with(&shell.name));
    }
}
