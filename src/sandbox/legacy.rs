//! Command lines of clients that wrap their commands themselves.
//!
//! Codex up to 0.141.0 has its own program make the sandbox: the first word of argv and arg0 name
//! `codex-linux-sandbox` below the client's home directory, where a server elsewhere has nothing. Seen were
//!
//! - 0.117 to 0.125: `--sandbox-policy-cwd P --command-cwd P --sandbox-policy JSON --file-system-sandbox-policy JSON
//!   --network-sandbox-policy JSON -- COMMAND`
//! - 0.128 to 0.141: `--sandbox-policy-cwd P --command-cwd P --permission-profile JSON -- COMMAND`

use super::policy::PolicyError;
use crate::protocol::decode::Decode;
use crate::protocol::path_uri::{self, RequestPath};
use crate::protocol::sandbox::{KindPolicy, ModePolicy, NetworkPolicy, Permissions, Sandbox, checked};
use std::path::{Path, PathBuf};

/// The name of the program that makes the sandbox.
const WRAPPER: &str = "codex-linux-sandbox";

/// What a wrapped command line is about.
#[derive(Clone, Debug)]
pub struct Unwrapped {
    /// The sandbox that is to be made.
    pub sandbox: Sandbox,
    /// The command to run in it, whose arg0 is its own.
    pub argv: Vec<String>,
    /// Where; if `None`, where the wrapper would have been run.
    pub cwd: Option<PathBuf>,
}

/// The options of the wrapper that may be given.
#[derive(Default)]
struct Options<'a> {
    policy_cwd: Option<&'a str>,
    command_cwd: Option<&'a str>,
    mode: Option<&'a str>,
    files: Option<&'a str>,
    network: Option<&'a str>,
    profile: Option<&'a str>,
}

/// Reads the sandbox from a command line that is wrapped in `codex-linux-sandbox`; `None` if it is not.
///
/// The error is that it is, but has other options than the clients above use, or wrong ones. None is ever ignored.
pub fn unwrap(argv: &[String], arg0: Option<&str>) -> Option<Result<Unwrapped, PolicyError>> {
    let is_wrapper = |program: &str| Path::new(program).file_name().is_some_and(|name| name == WRAPPER);
    let first = argv.first()?;
    (is_wrapper(first) || arg0.is_some_and(is_wrapper)).then(|| read(&argv[1..]))
}

fn read(args: &[String]) -> Result<Unwrapped, PolicyError> {
    let end = args.iter().position(|arg| arg == "--");
    let (options, command) = match end {
        Some(end) if end + 1 < args.len() => (&args[..end], &args[end + 1..]),
        _ => return Err(refuse("there is no command after `--`")),
    };
    let options = Options::of(options)?;
    let policy_cwd = match options.policy_cwd {
        Some(cwd) => path("--sandbox-policy-cwd", cwd)?,
        None => return Err(refuse("there is no `--sandbox-policy-cwd`")),
    };
    let cwd = options.command_cwd.map(|cwd| path("--command-cwd", cwd)).transpose()?;
    let permissions = options.permissions()?;
    Ok(Unwrapped {
        sandbox: Sandbox::of_workspace(permissions, Some(RequestPath::from(policy_cwd))),
        argv: command.to_vec(),
        cwd,
    })
}

impl<'a> Options<'a> {
    fn of(args: &'a [String]) -> Result<Self, PolicyError> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (arg.as_str(), None),
            };
            let slot = match name {
                "--sandbox-policy-cwd" => &mut options.policy_cwd,
                "--command-cwd" => &mut options.command_cwd,
                "--sandbox-policy" => &mut options.mode,
                "--file-system-sandbox-policy" => &mut options.files,
                "--network-sandbox-policy" => &mut options.network,
                "--permission-profile" => &mut options.profile,
                _ => return Err(refuse(&format!("`{name}` is not known"))),
            };
            let Some(value) = value.or_else(|| args.next().map(String::as_str)) else {
                return Err(refuse(&format!("`{name}` has no value")));
            };
            if slot.replace(value).is_some() {
                return Err(refuse(&format!("`{name}` is there twice")));
            }
        }
        Ok(options)
    }

    /// The policy: it comes whole, in two parts, or by the name of its mode; that may stand beside the two parts, which say
    /// the same and more.
    fn permissions(&self) -> Result<Permissions, PolicyError> {
        let mode: Option<ModePolicy> = self.mode.map(|text| json("--sandbox-policy", text)).transpose()?;
        match (self.profile, self.files, self.network, mode) {
            (Some(profile), None, None, None) => json("--permission-profile", profile),
            (None, Some(files), Some(network), _) => {
                let KindPolicy(files) = json("--file-system-sandbox-policy", files)?;
                let network: NetworkPolicy = json("--network-sandbox-policy", network)?;
                Ok(match files {
                    Some(file_system) => Permissions::Managed { file_system, network },
                    None => Permissions::External { network },
                })
            }
            (None, None, None, Some(mode)) => Ok(mode.into_permissions(true)),
            (None, None, None, None) => Err(refuse("there is no policy")),
            _ => Err(refuse("these policies do not go together")),
        }
    }
}

fn path(option: &str, text: &str) -> Result<PathBuf, PolicyError> {
    path_uri::parse(text).map_err(|error| refuse(&format!("`{option}`: {error}")))
}

fn json<'a, T: Decode<'a>>(option: &str, text: &'a str) -> Result<T, PolicyError> {
    (checked(text.as_bytes()).and_then(T::decode)).map_err(|error| refuse(&format!("`{option}`: {error}")))
}

#[cold]
fn refuse(why: &str) -> PolicyError {
    PolicyError::params(format!("cannot read the command line of {WRAPPER}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::{FileTree, Files, Network, PolicyErrorKind, Rule, RuleAccess, Surroundings, plan};
    use super::*;

    const PROGRAM: &str = "/home/.codex/tmp/arg0/codex-arg0izlvpV/codex-linux-sandbox";

    fn line(options: &[&str], command: &[&str]) -> Vec<String> {
        let cwds = ["--sandbox-policy-cwd", "/run/ws", "--command-cwd", "/run/ws"];
        let parts = [&[PROGRAM][..], &cwds, options, &["--"], command].concat();
        parts.into_iter().map(str::to_owned).collect()
    }

    const COMMAND: [&str; 3] = ["/bin/bash", "-c", "echo -- --x"];

    fn unwrapped(options: &[&str]) -> Unwrapped {
        let unwrapped = unwrap(&line(options, &COMMAND), Some(PROGRAM)).unwrap().unwrap();
        assert_eq!(unwrapped.argv, COMMAND);
        assert_eq!(unwrapped.cwd, Some("/run/ws".into()));
        unwrapped
    }

    /// What may be written, if the rest may be read, and whether the network is open.
    fn writable(options: &[&str]) -> (Vec<String>, bool) {
        let mut tree = FileTree::default();
        for directory in ["/run", "/run/ws", "/run/ws/.git", "/run/ws/a", "/tmp", "/memories"] {
            assert!(tree.add_directory(directory));
        }
        let surroundings = Surroundings {
            cwd: "/".into(),
            cwd_is_of_request: true,
            temporary_directories: Vec::new(),
            home: None,
        };
        let plan = plan(&unwrapped(options).sandbox, &surroundings, &tree).unwrap();
        let Files::Restricted { rules, .. } = plan.files else {
            return (vec!["all".to_owned()], plan.network == Network::Open);
        };
        let writable = |rule: &Rule| rule.access == RuleAccess::Write;
        let paths = rules
            .iter()
            .filter(|rule| writable(rule))
            .map(|rule| rule.path.display().to_string());
        (paths.collect(), plan.network == Network::Open)
    }

    fn all<const N: usize>(paths: [&str; N], network: bool) -> (Vec<String>, bool) {
        (paths.map(str::to_owned).into(), network)
    }

    #[test]
    fn three_policies_to_0_125() {
        let write = [
            "--sandbox-policy",
            r#"{"type":"workspace-write","writable_roots":["/memories"],"network_access":false,"exclude_tmpdir_env_var":false,"exclude_slash_tmp":false}"#,
            "--file-system-sandbox-policy",
            r#"{"kind":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"},{"path":{"type":"special","value":{"kind":"current_working_directory"}},"access":"write"},{"path":{"type":"special","value":{"kind":"slash_tmp"}},"access":"write"},{"path":{"type":"special","value":{"kind":"tmpdir"}},"access":"write"},{"path":{"type":"path","path":"/memories"},"access":"write"},{"path":{"type":"path","path":"/run/ws/.git"},"access":"read"},{"path":{"type":"path","path":"/run/ws/.agents"},"access":"read"}]}"#,
            "--network-sandbox-policy",
            r#""restricted""#,
        ];
        assert_eq!(writable(&write), all(["/memories", "/run/ws", "/tmp"], false));
        let read = [
            "--sandbox-policy",
            r#"{"type":"read-only"}"#,
            "--file-system-sandbox-policy",
            r#"{"kind":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"}]}"#,
            "--network-sandbox-policy",
            r#""restricted""#,
        ];
        assert_eq!(writable(&read), all([], false));
        // Not seen, but the same with less.
        assert_eq!(writable(&read[..2]), all([], false));
        assert_eq!(writable(&write[..2]), all(["/memories", "/run/ws", "/tmp"], false));
        let open = [
            "--file-system-sandbox-policy",
            r#"{"kind":"unrestricted"}"#,
            "--network-sandbox-policy=\"enabled\"",
        ];
        assert_eq!(writable(&open), all(["all"], true));
        let outside = [
            open[0],
            r#"{"kind":"external-sandbox"}"#,
            "--network-sandbox-policy",
            r#""restricted""#,
        ];
        assert_eq!(writable(&outside), all(["all"], false));
    }

    #[test]
    fn a_profile_to_0_141() {
        let of_0_129 = r#"{"type":"managed","file_system":{"type":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"},{"path":{"type":"special","value":{"kind":"project_roots"}},"access":"write"},{"path":{"type":"special","value":{"kind":"slash_tmp"}},"access":"write"},{"path":{"type":"special","value":{"kind":"tmpdir"}},"access":"write"},{"path":{"type":"special","value":{"kind":"project_roots","subpath":".git"}},"access":"read"},{"path":{"type":"path","path":"/memories"},"access":"write"}]},"network":"restricted"}"#;
        assert_eq!(
            writable(&["--permission-profile", of_0_129]),
            all(["/memories", "/run/ws", "/tmp"], false)
        );
        let of_0_141 = r#"{"type":"managed","file_system":{"type":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"},{"path":{"type":"path","path":"/run/ws"},"access":"write"},{"path":{"type":"special","value":{"kind":"slash_tmp"}},"access":"write"},{"path":{"type":"path","path":"/run/ws/.git"},"access":"read"}]},"network":"restricted"}"#;
        assert_eq!(
            writable(&["--permission-profile", of_0_141]),
            all(["/run/ws", "/tmp"], false)
        );
        let read = r#"{"type":"managed","file_system":{"type":"restricted","entries":[{"path":{"type":"special","value":{"kind":"root"}},"access":"read"}]},"network":"restricted"}"#;
        assert_eq!(writable(&[&format!("--permission-profile={read}")]), all([], false));
    }

    #[test]
    fn only_the_wrapper_is_unwrapped() {
        let wrapped = |program: &str, arg0| {
            let mut line = line(&["--sandbox-policy", r#"{"type":"read-only"}"#], &["true"]);
            line[0] = program.to_owned();
            unwrap(&line, arg0).map(|result| result.is_ok())
        };
        assert_eq!(wrapped("codex-linux-sandbox", None), Some(true));
        assert_eq!(wrapped("/usr/bin/codex", Some("/x/codex-linux-sandbox")), Some(true));
        assert_eq!(wrapped("/bin/sh", None), None);
        assert_eq!(wrapped("/x/codex-linux-sandbox-2", Some("sh")), None);
        assert!(unwrap(&[], Some(PROGRAM)).is_none());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refusal = |options: &[&str], command: &[&str]| {
            let error = unwrap(&line(options, command), None).unwrap().unwrap_err();
            assert_eq!(error.kind, PolicyErrorKind::InvalidParams);
            let text = error
                .message
                .strip_prefix("cannot read the command line of codex-linux-sandbox: ");
            text.unwrap().to_owned()
        };
        let (mode, read) = ("--sandbox-policy", r#"{"type":"read-only"}"#);
        for (options, why) in [
            (
                &[mode, read, "--use-legacy-landlock"][..],
                "`--use-legacy-landlock` is not known",
            ),
            (&[mode, read, "true"], "`true` is not known"),
            (&[mode, read, mode, read], "`--sandbox-policy` is there twice"),
            (&[mode], "`--sandbox-policy` has no value"),
            (&[], "there is no policy"),
            (
                &[mode, read, "--network-sandbox-policy", "\"enabled\""],
                "these policies do not go together",
            ),
            (
                &[mode, read, "--permission-profile", r#"{"type":"disabled"}"#],
                "these policies do not go together",
            ),
            (
                &[mode, "{"],
                "`--sandbox-policy`: EOF while parsing an object at line 1 column 1",
            ),
            (
                &["--permission-profile", "{}"],
                "`--permission-profile`: missing field `type`",
            ),
        ] {
            assert_eq!(refusal(options, &["true"]), why);
        }
        assert_eq!(refusal(&[mode, read], &[]), "there is no command after `--`");
        let relative = ["--sandbox-policy-cwd", "ws", mode, read, "--", "true"].map(str::to_owned);
        let error = unwrap(&[&[PROGRAM.to_owned()][..], &relative].concat(), None)
            .unwrap()
            .unwrap_err();
        assert!(
            error
                .message
                .ends_with("`--sandbox-policy-cwd`: invalid URI: relative URL without a base")
        );
    }
}
