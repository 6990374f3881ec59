use super::*;
use crate::cli::args::parse;
use std::os::unix::ffi::OsStringExt;

fn command(line: &str) -> Result<Command, UsageError> {
    parse(&mut line.split_whitespace().map(OsString::from))
}

#[track_caller]
fn run(line: &str) -> RunArgs {
    match command(&format!("run {line}")) {
        Ok(Command::Client(ClientCommand::Run(args))) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn error(line: &str) -> String {
    match command(line) {
        Ok(other) => panic!("{line}: {other:?}"),
        Err(error) => error.to_string(),
    }
}

fn remote(token_file: Option<&str>) -> Place {
    Place::Remote("ws://box:1".into(), token_file.map(PathBuf::from))
}

#[test]
fn the_command_begins_where_the_flags_end() {
    for line in ["ls -t --cwd x", "-- ls -t --cwd x"] {
        let args = run(line);
        assert_eq!(args.argv, ["ls", "-t", "--cwd", "x"]);
        assert_eq!((args.common.place, args.common.verbose), (Place::Here, false));
        assert!(!args.tty && !args.clear_env && !args.detach && args.cwd.is_none() && args.env.is_empty());
        assert_eq!(args.timeout, None);
    }
    assert_eq!(run("-- -x -- y").argv, ["-x", "--", "y"]);
    let args = run("-t --cwd /d --env A=b=c --env=D= --clear-env --timeout 5 -v --spawn s x");
    assert_eq!(args.env, [("A".into(), "b=c".into()), ("D".into(), String::new())]);
    assert_eq!(
        (args.cwd, args.timeout),
        (Some("/d".into()), Some(Duration::from_secs(5)))
    );
    assert_eq!(args.common.place, Place::Spawned("s".into()));
    assert!(args.tty && args.clear_env && args.common.verbose);
    let args = run("--connect ws://box:1 --token-file /t --detach --tty x");
    assert_eq!(args.common.place, remote(Some("/t")));
    assert!(args.detach && args.tty);
}

#[test]
fn a_sandbox_has_a_mode_and_perhaps_a_network() {
    let sandbox = |line| {
        let args = run(line);
        (args.sandbox, args.network)
    };
    assert_eq!(sandbox("x"), (SandboxMode::Full, false));
    assert_eq!(sandbox("--sandbox read-only x"), (SandboxMode::ReadOnly, false));
    assert_eq!(
        sandbox("--network --sandbox workspace-write x"),
        (SandboxMode::WorkspaceWrite, true)
    );
    assert_eq!(
        error("run --sandbox open x"),
        "--sandbox must be read-only, workspace-write or danger-full-access, not `open`"
    );
    assert_eq!(
        error("run --network x"),
        "--network needs --sandbox read-only or workspace-write"
    );
}

#[test]
fn sessions_are_those_of_other_servers() {
    let session = "--connect ws://box:1 --session s";
    for (line, name) in [("", None), (" p", Some("p")), (" -- -p", Some("-p"))] {
        match command(&format!("attach {session}{line}")) {
            Ok(Command::Client(ClientCommand::Attach(args))) => {
                assert_eq!((args.common.place, args.session), (remote(None), "s".into()));
                assert_eq!(args.process.as_deref(), name);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        matches!(command(&format!("ps {session}")), Ok(Command::Client(ClientCommand::List(args))) if args.session == "s")
    );
}

#[test]
fn one_side_of_a_copy_is_remote() {
    for (line, expected, recursive) in [
        (
            "remote:a b",
            Direction::Fetch {
                from: "a".into(),
                to: "b".into(),
            },
            false,
        ),
        (
            "-r a remote:",
            Direction::Send {
                from: "a".into(),
                to: ".".into(),
            },
            true,
        ),
    ] {
        match command(&format!("cp {line}")) {
            Ok(Command::Client(ClientCommand::Copy(args))) => {
                assert_eq!((args.direction, args.recursive), (expected, recursive))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let table = [
        ("run", "run needs a command"),
        ("run --", "run needs a command"),
        ("run --nonsense ls", "unknown flag `--nonsense`"),
        ("run -r ls", "unknown flag `-r`"),
        ("run --session s ls", "unknown flag `--session`"),
        ("run --env A ls", "--env must be NAME=VALUE, not `A`"),
        ("run --env =a ls", "--env must be NAME=VALUE, not `=a`"),
        (
            "run --timeout 1.5 ls",
            "--timeout must be a number of seconds from 0 to 31536000, not `1.5`",
        ),
        ("run --cwd", "--cwd needs a value"),
        ("run -t -t ls", "-t is given twice"),
        ("run -t --tty ls", "--tty is given twice"),
        (
            "run --connect a --spawn b ls",
            "--connect and --spawn are mutually exclusive",
        ),
        ("run --token-file a ls", "--token-file needs --connect"),
        (
            "run --detach ls",
            "--detach needs --connect: another server ends with this command",
        ),
        ("attach --session s", "attach needs --connect and --session"),
        ("attach --connect a", "attach needs --connect and --session"),
        ("attach --spawn a", "unknown flag `--spawn`"),
        ("attach --connect a --session s p q", "unexpected argument `q`"),
        ("ps --connect a", "ps needs --connect and --session"),
        ("ps --connect a --session s p", "unexpected argument `p`"),
        ("ps -t", "unknown flag `-t`"),
        ("cp a", "cp needs a source and a destination"),
        ("cp a b remote:c", "cp needs a source and a destination"),
        ("cp a b", "one of source and destination must begin with `remote:`"),
        (
            "cp remote:a remote:b",
            "one of source and destination must begin with `remote:`",
        ),
        ("cp --detach a", "unknown flag `--detach`"),
    ];
    for (line, text) in table {
        assert_eq!(error(line), text, "{line}");
    }
    let odd = ["run".into(), OsString::from_vec(b"\xff".to_vec())];
    let error = parse(&mut odd.into_iter()).unwrap_err();
    assert_eq!(error.to_string(), "the command and its arguments must be UTF-8");
}

#[test]
fn paths_may_be_any_bytes() {
    let odd = |prefix: &str| OsString::from_vec([prefix.as_bytes(), b"\xff"].concat());
    match parse(&mut ["cp".into(), odd("remote:"), odd("/")].into_iter()) {
        Ok(Command::Client(ClientCommand::Copy(args))) => {
            let (from, to) = (odd("").into(), odd("/").into());
            assert_eq!(args.direction, Direction::Fetch { from, to });
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn help_names_every_flag_and_fits_a_terminal() {
    for (name, page, n) in [
        ("run", RUN, 16),
        ("attach", ATTACH, 7),
        ("ps", LIST, 7),
        ("cp", COPY, 9),
    ] {
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{name}");
        assert!(matches!(command(&format!("{name} --help")), Ok(Command::Help(p)) if p == page));
        assert!(matches!(command(&format!("{name} -V")), Ok(Command::Version)));
        let lines = page.lines().filter_map(|line| line.strip_prefix("  "));
        let flags = lines.filter(|line| line.starts_with('-')).flat_map(|line| {
            line.split([' ', ','])
                .take_while(|word| word.is_empty() || word.starts_with('-'))
        });
        let mut known = 0;
        for flag in flags.filter(|word| !word.is_empty()) {
            known += 1;
            if let Err(error) = command(&format!("{name} {flag}")) {
                assert!(!error.to_string().starts_with("unknown"), "{error}");
            }
        }
        assert_eq!(known, n, "{name}");
    }
}
