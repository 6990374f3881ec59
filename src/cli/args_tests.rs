use super::*;
use exec_server::transport::auth::Authorizer;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

fn command(line: &str) -> Result<Command, UsageError> {
    parse(&mut line.split_whitespace().map(OsString::from))
}

#[track_caller]
fn serve(line: &str) -> ServeArgs {
    match command(line) {
        Ok(Command::Serve(args)) => args,
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

fn address(text: &str) -> Listen {
    Listen::At(Address::Tcp(text.parse().unwrap()))
}

#[test]
fn nothing_has_to_be_given() {
    for line in ["", "serve"] {
        assert_eq!(serve(line).listen, [address("127.0.0.1:0")]);
    }
    let args = serve("");
    assert_eq!(args.listen, [address("127.0.0.1:0")]);
    assert!(!args.insecure_no_auth && args.uids.is_empty());
    assert!(matches!(args.auth, AuthArgs::None));
    assert!(matches!(args.auth.authorizer(), Ok(Authorizer::None)));
    assert_eq!(args.config.session_ttl, Duration::from_secs(80));
    assert_eq!(args.config.retain_bytes, 1_048_576);
    assert_eq!(args.log_level, LevelFilter::Warn);
}

#[test]
fn values_come_after_a_space_or_an_equals_sign() {
    for line in [
        "--listen stdio --session-ttl 5 --retain-bytes 64k --log-level debug --concurrent-requests 4",
        "--listen=stdio:// --session-ttl=5 --retain-bytes=65536 --log-level=DEBUG --concurrent-requests=1",
    ] {
        let args = serve(line);
        assert_eq!(args.listen, [Listen::Stdio]);
        assert_eq!(args.config.session_ttl, Duration::from_secs(5));
        assert_eq!(args.config.retain_bytes, 65_536);
        assert_eq!(args.log_level, LevelFilter::Debug);
    }
}

#[test]
fn help_and_version_are_commands() {
    for line in ["-h", "--help", "--listen stdio --help", "-h --nonsense"] {
        assert!(matches!(command(line), Ok(Command::Help(SERVE))), "{line}");
    }
    for line in ["-V", "--version", "--version --help"] {
        assert!(matches!(command(line), Ok(Command::Version)), "{line}");
    }
    assert_eq!(error("--help=x"), "--help takes no value");
    assert_eq!(error("--nonsense --help"), "unknown flag `--nonsense`");
}

#[test]
fn what_is_not_known_is_refused() {
    for flag in [
        "-c",
        "--enable",
        "--disable",
        "--strict-config",
        "-q",
        "--",
        "-",
        "--Listen",
    ] {
        assert_eq!(error(&format!("{flag} x")), format!("unknown flag `{flag}`"));
    }
    assert_eq!(error("--config=x"), "unknown flag `--config`");
    assert_eq!(error("--listen stdio serve"), "unexpected argument `serve`");
    assert_eq!(error("serve serve"), "unexpected argument `serve`");
    assert_eq!(error("serve -t"), "unknown flag `-t`");
    assert_eq!(error("a=b"), "unexpected argument `a=b`");
    assert_eq!(error("--insecure-no-auth yes"), "unexpected argument `yes`");
}

#[test]
fn values_are_needed_once() {
    for flag in [
        "--listen",
        "--session-ttl",
        "--retain-bytes",
        "--log-level",
        "--ws-auth",
        "--ws-token-file",
    ] {
        let needs = format!("{flag} needs a value");
        assert_eq!(error(flag), needs);
        assert_eq!(error(&format!("{flag}=")), needs);
        assert_eq!(error(&format!("{flag} --help")), needs);
    }
    assert_eq!(
        error("--insecure-no-auth --insecure-no-auth"),
        "--insecure-no-auth is given twice"
    );
    assert_eq!(error("--insecure-no-auth=1"), "--insecure-no-auth takes no value");
}

#[test]
fn listen_urls_are_literal_addresses() {
    for (url, at) in [
        ("ws://127.0.0.1:0", "127.0.0.1:0"),
        ("ws://127.1.2.3:65535", "127.1.2.3:65535"),
        ("ws://[::1]:4500", "[::1]:4500"),
        ("ws://[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1"),
    ] {
        assert_eq!(serve(&format!("--listen {url}")).listen, [address(at)]);
    }
    for url in [
        "ws://localhost:1",
        "ws://127.0.0.1",
        "ws://127.0.0.1:99999",
        "ws://127.0.0.1:1/",
        "ws://127.0.0.1:1/x",
        "ws://",
    ] {
        assert_eq!(
            error(&format!("--listen {url}")),
            format!("invalid websocket --listen URL `{url}`; expected `ws://IP:PORT`")
        );
    }
    for url in [
        "http://127.0.0.1:1",
        "wss://127.0.0.1:1",
        "unix:/x",
        "127.0.0.1:1",
        "stdio:",
        "STDIO",
        "systemd:",
        "systemd://",
    ] {
        assert_eq!(
            error(&format!("--listen {url}")),
            format!(
                "unsupported --listen URL `{url}`; expected `ws://IP:PORT`, `stdio`, `unix:///PATH`, \
                 `vsock://CID:PORT`, `fd://NUMBER` or `systemd`"
            )
        );
    }
}

#[test]
fn there_may_be_several_ways_in() {
    let args = serve(
        "--listen unix:///run/x --listen fd://3 --listen ws://[::1]:1 --listen systemd --listen systemd://web \
         --listen vsock://1:9 --allow-uid 7 --allow-uid 1000",
    );
    let vsock = Address::Vsock { cid: 1, port: 9 };
    assert_eq!(
        args.listen,
        [
            Listen::At(Address::File("/run/x".into())),
            Listen::Inherited(3),
            address("[::1]:1"),
            Listen::Systemd(None),
            Listen::Systemd(Some("web".into())),
            Listen::At(vsock),
        ]
    );
    assert_eq!(args.uids, [7, 1000]);
    for (url, expected) in [
        ("unix://x", "unix:///PATH"),
        ("vsock://1", "vsock://CID:PORT"),
        ("fd://", "fd://NUMBER"),
        ("fd://-1", "fd://NUMBER"),
        ("fd://x", "fd://NUMBER"),
    ] {
        let says = format!("invalid --listen URL `{url}`; expected `{expected}`");
        assert_eq!(error(&format!("--listen {url}")), says);
    }
    for others in ["stdio", "ws://127.0.0.1:0", "fd://3"] {
        let text = error(&format!("--listen {others} --listen stdio"));
        assert!(text.contains("cannot be given with another --listen"), "{text}");
    }
    assert_eq!(
        error("--allow-uid me"),
        "--allow-uid must be the number of a user, not `me`"
    );
}

#[test]
fn an_open_address_needs_auth_or_a_word_that_it_is_meant() {
    for url in [
        "ws://0.0.0.0:1",
        "ws://[::]:1",
        "ws://10.0.0.1:1",
        "ws://[::ffff:10.0.0.1]:1",
        "vsock://any:1",
        "vsock://3:1",
    ] {
        let text = error(&format!("--listen {url}"));
        assert!(text.starts_with(&format!("--listen {url} can be reached")), "{text}");
        serve(&format!("--listen {url} --insecure-no-auth"));
        serve(&format!("--listen {url} --ws-auth capability-token --ws-token-file /t"));
    }
    let text = error("--listen unix:///x --listen vsock://:1");
    assert!(text.starts_with("--listen vsock://any:1 can be reached"), "{text}");
    serve("--listen unix:///x --listen vsock://1:1");
    serve("--insecure-no-auth");
    serve("--insecure-no-auth --listen stdio");
    assert_eq!(
        error("--insecure-no-auth --ws-auth capability-token --ws-token-file /t"),
        "--insecure-no-auth and --ws-auth are mutually exclusive"
    );
}

#[test]
fn numbers_have_their_ranges() {
    for (flag, least, values) in [
        ("--session-ttl", "0ns", "x -1 1.5 31536001 18446744073709551616 1m ms s"),
        ("--ping-interval", "1ms", "0 0ms 0s 31536001s 1s1"),
    ] {
        for value in values.split(' ') {
            let says =
                format!("{flag} must be a time from {least} to 31536000s, in seconds or such as 500ms, not `{value}`");
            assert_eq!(error(&format!("{flag}={value}")), says);
        }
    }
    for (value, time) in [("5", 5000), ("5s", 5000), ("5ms", 5), ("0", 0)] {
        let time = Duration::from_millis(time);
        assert_eq!(serve(&format!("--session-ttl={value}")).config.session_ttl, time);
    }
    assert_eq!(serve("--session-ttl=0").config.session_ttl, Duration::ZERO);
    for (value, bytes) in [
        ("1", 1),
        ("65536", 65_536),
        ("1k", 1024),
        ("1K", 1024),
        ("2KiB", 2048),
        ("3m", 3 << 20),
        ("3MIB", 3 << 20),
        ("1g", 1 << 30),
        ("1GiB", 1 << 30),
    ] {
        assert_eq!(serve(&format!("--retain-bytes={value}")).config.retain_bytes, bytes);
    }
    for value in [
        "0",
        "0k",
        "k",
        "1kb",
        "1t",
        "-1",
        "1.5m",
        "99999999999999999999",
        "18446744073709551615k",
    ] {
        assert_eq!(
            error(&format!("--retain-bytes={value}")),
            format!("--retain-bytes must be a number of bytes, at least 1, not `{value}`")
        );
    }
    for flag in ["--concurrent-requests", "--max-sessions"] {
        for value in ["0", "x", "-1"] {
            assert_eq!(
                error(&format!("{flag}={value}")),
                format!("{flag} must be a number of at least 1, not `{value}`")
            );
        }
    }
    assert_eq!(
        error("--ping-interval=90"),
        "--silence-limit must be more than --ping-interval, or clients are cut off before they are pinged"
    );
    assert_eq!(
        error("--log-level loud"),
        "--log-level must be off, error, warn, info, debug or trace, not `loud`"
    );
}

#[test]
fn values_that_are_no_text_are_paths_only() {
    let odd = |prefix: &str| OsString::from_vec([prefix.as_bytes(), b"\xff"].concat());
    let auth = ["--ws-auth", "capability-token"].map(OsString::from);
    let mut args = auth.into_iter().chain([odd("--ws-token-file=")]);
    match parse(&mut args) {
        Ok(Command::Serve(ServeArgs {
            auth: AuthArgs::TokenFile(path),
            ..
        })) => {
            assert_eq!(path.into_os_string(), odd(""));
        }
        other => panic!("{other:?}"),
    }
    let error = parse(&mut [odd("--listen=")].into_iter()).unwrap_err();
    assert_eq!(error.to_string(), "the value of --listen is not UTF-8");
    let error = parse(&mut [odd("x")].into_iter()).unwrap_err();
    assert_eq!(error.to_string(), "unexpected argument `x\u{fffd}`");
}

#[test]
fn auth_flags_must_fit_together() {
    let without = "websocket auth flags require `--ws-auth capability-token` or `--ws-auth signed-bearer-token`";
    let required = "`--ws-token-file` or `--ws-token-sha256` is required when `--ws-auth capability-token` is set";
    assert_eq!(error("--ws-token-file /t"), without);
    assert_eq!(error("--ws-auth capability-token"), required);
    assert_eq!(
        error("--ws-auth password"),
        "--ws-auth must be capability-token or signed-bearer-token, not `password`"
    );
    assert_eq!(
        error("--listen stdio --ws-auth capability-token --ws-token-file /t"),
        "WebSocket auth requires a WebSocket listener, not stdio"
    );
}

#[cfg(not(feature = "signed-tokens"))]
#[test]
fn flags_that_need_sha256_say_so() {
    for flag in [
        "--ws-token-sha256",
        "--ws-shared-secret-file",
        "--ws-issuer",
        "--ws-audience",
        "--ws-max-clock-skew-seconds",
    ] {
        assert_eq!(
            error(&format!("{flag} x")),
            format!("{flag} needs a build with the feature signed-tokens")
        );
    }
    assert_eq!(
        error("--ws-auth signed-bearer-token"),
        "--ws-auth signed-bearer-token needs a build with the feature signed-tokens"
    );
}

#[cfg(feature = "signed-tokens")]
#[test]
fn flags_that_need_sha256_must_fit_together() {
    let hex = "0123456789abcdefABCDEF0123456789abcdefabcdef0123456789abcdef0123";
    assert!(matches!(
        serve(&format!("--ws-auth capability-token --ws-token-sha256 {hex}")).auth,
        AuthArgs::TokenSha256(_)
    ));
    match serve("--ws-auth signed-bearer-token --ws-shared-secret-file /s").auth {
        AuthArgs::SignedBearer { secret_file, claims } => {
            assert_eq!(secret_file.as_os_str(), "/s");
            assert_eq!((claims.issuer, claims.audience), (None, None));
            assert_eq!(claims.max_clock_skew, Duration::from_secs(30));
        }
        other => panic!("{other:?}"),
    }
    let line = "--ws-auth signed-bearer-token --ws-shared-secret-file /s --ws-issuer i --ws-audience a --ws-max-clock-skew-seconds 5";
    match serve(line).auth {
        AuthArgs::SignedBearer { claims, .. } => {
            assert_eq!(
                (claims.issuer.as_deref(), claims.audience.as_deref()),
                (Some("i"), Some("a"))
            );
            assert_eq!(claims.max_clock_skew, Duration::from_secs(5));
        }
        other => panic!("{other:?}"),
    }
    let signed_only = "`--ws-shared-secret-file`, `--ws-issuer`, `--ws-audience`, and `--ws-max-clock-skew-seconds` require `--ws-auth signed-bearer-token`";
    let token_only =
        "`--ws-token-file` and `--ws-token-sha256` require `--ws-auth capability-token`, not `signed-bearer-token`";
    let without = "websocket auth flags require `--ws-auth capability-token` or `--ws-auth signed-bearer-token`";
    let table = [
        (format!("--ws-token-sha256 {hex}"), without),
        ("--ws-issuer x".to_owned(), without),
        (
            "--ws-token-sha256 abc".to_owned(),
            "--ws-token-sha256 must be a 64-character hex SHA-256 digest",
        ),
        (
            format!("--ws-auth capability-token --ws-token-sha256 {hex} --ws-token-file /t"),
            "`--ws-token-file` and `--ws-token-sha256` are mutually exclusive",
        ),
        (
            "--ws-auth capability-token --ws-token-file /t --ws-audience x".to_owned(),
            signed_only,
        ),
        (
            "--ws-auth signed-bearer-token --ws-token-file /t".to_owned(),
            token_only,
        ),
        (
            "--ws-auth signed-bearer-token --ws-issuer x".to_owned(),
            "`--ws-shared-secret-file` is required when `--ws-auth signed-bearer-token` is set",
        ),
    ];
    for (line, text) in table {
        assert_eq!(error(&line), text);
    }
}

#[test]
fn errors_are_one_line() {
    let odd = parse(&mut [OsString::from("a\nb\u{1b}")].into_iter()).unwrap_err();
    assert_eq!(odd.to_string(), "unexpected argument `a\\nb\\u{1b}`");
    for line in [
        "--listen x",
        "--ws-auth x",
        "--listen ws://0.0.0.0:1",
        "--ws-auth capability-token",
        "--x",
    ] {
        let error = error(line);
        assert!(!error.contains('\n') && !error.contains("  "), "{error}");
    }
}

#[test]
fn help_names_every_flag_and_fits_a_terminal() {
    assert!(SERVE.lines().all(|line| line.chars().count() <= 80));
    let flags = SERVE
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| {
            line.split([' ', ','])
                .take_while(|word| word.is_empty() || word.starts_with('-'))
        })
        .filter(|word| !word.is_empty());
    let mut known = 0;
    for flag in flags {
        known += 1;
        if let Err(error) = command(flag) {
            assert!(!error.to_string().starts_with("unknown"), "{error}");
        }
    }
    assert_eq!(known, 48);
}

/// Each limit in the help page with what it says is the default.
fn limits() -> impl Iterator<Item = (&'static str, &'static str)> {
    let (_, limits) = SERVE.split_once("\nLimits").unwrap();
    let (limits, _) = limits.split_once("\n\n").unwrap();
    limits.split("\n  --").skip(1).map(|text| {
        let (name, text) = text.split_once(' ').unwrap();
        let (_, default) = text.split_once('[').unwrap();
        (name, default.split_once(']').unwrap().0)
    })
}

#[test]
fn limits_are_fields_of_the_configuration() {
    let text = |args: ServeArgs| format!("{:?}", args.config);
    let usual = text(serve(""));
    let mut known = 0;
    for (name, default) in limits() {
        known += 1;
        assert_eq!(text(serve(&format!("--{name} {default}"))), usual, "--{name} {default}");
        let (other, field) = (serve(&format!("--{name} 70")), name.replace('-', "_"));
        let changed = text(other);
        let at = changed.bytes().zip(usual.bytes()).position(|(a, b)| a != b).unwrap();
        let (before, _) = changed[..at].rsplit_once(": ").unwrap();
        assert!(before.ends_with(&format!(" {field}")), "{before}");
        let twice = error(&format!("--{name} {default} --{name} {default}"));
        assert_eq!(twice, format!("--{name} is given twice"));
    }
    assert_eq!(known, 29);
}
