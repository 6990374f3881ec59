//! The environment a child starts with.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::pattern::Pattern;
use crate::protocol::environment::{EnvInherit, EnvPolicy};
use crate::transport::auth::TOKEN_VARIABLE;

/// What [`EnvInherit::Core`] lets through; the list of Codex's exec-server.
const CORE: [&str; 11] = [
    "PATH", "SHELL", "TMPDIR", "TEMP", "TMP", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "USER",
];

/// Names that are taken for secrets unless the policy says otherwise; Codex's exec-server has
/// the same three.
const SECRETS: [&str; 3] = ["*KEY*", "*SECRET*", "*TOKEN*"];

/// Meant for the server itself, so no child gets to see them, not even when the client asks.
const SERVER_ONLY: [&str; 2] = [
    "CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE",
    "CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN",
];

/// Meant for the server itself, which is a service: how it is to tell that it goes, and which sockets it has. A client may
/// set them for a command.
const SERVICE: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// Makes a child's environment, sorted by name, from that of the server, the policy and what
/// the request asks for.
///
/// In this order: what `inherit` lets through of the server's, less what looks like a secret,
/// less `exclude`; then `set`; of all that, what matches `includeOnly`; then the request's own
/// variables, which win over everything. Without a policy only the last step is left.
pub fn child_environment(
    server: impl IntoIterator<Item = (OsString, OsString)>,
    policy: Option<&EnvPolicy>,
    request: &BTreeMap<String, String>,
) -> Vec<(OsString, OsString)> {
    let mut variables = BTreeMap::new();
    if let Some(policy) = policy {
        apply(policy, server, &mut variables);
    }
    variables.extend(owned(request));
    let is_for_children = |name: &OsStr| !SERVER_ONLY.iter().any(|own| name == *own);
    variables
        .into_iter()
        .filter(|(name, _)| is_for_children(name))
        .collect()
}

fn apply(
    policy: &EnvPolicy,
    server: impl IntoIterator<Item = (OsString, OsString)>,
    variables: &mut BTreeMap<OsString, OsString>,
) {
    let mut exclude = patterns(&policy.exclude);
    if !policy.ignore_default_excludes {
        exclude.extend(patterns(&SECRETS));
    }
    let is_inherited = |name: &OsStr| match policy.inherit {
        _ if name == TOKEN_VARIABLE || SERVICE.iter().any(|own| name == *own) => false,
        EnvInherit::All => true,
        EnvInherit::Core => CORE.iter().any(|core| name == *core),
        EnvInherit::None => false,
    };
    let include = patterns(&policy.include_only);
    let included = |name: &OsStr| include.is_empty() || matches_any(&include, name);
    let inherited = server
        .into_iter()
        .filter(|(name, _)| is_inherited(name) && !matches_any(&exclude, name));
    for (name, value) in inherited.chain(owned(&policy.set)) {
        if included(&name) {
            variables.insert(name, value);
        }
    }
}

fn owned(variables: &BTreeMap<String, String>) -> impl Iterator<Item = (OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into()))
}

fn patterns(texts: &[impl AsRef<str>]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text.as_ref())).collect()
}

fn matches_any(patterns: &[Pattern], name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    patterns.iter().any(|pattern| pattern.matches(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "PATH=/bin HOME=/root SHELL=/bin/sh USER=u LOGNAME=l TMPDIR=/t TEMP=/t TMP=/t LANG=C \
        LC_ALL=C LC_CTYPE=C TERM=dumb PWD=/ TZ=UTC path=x CONF_A=a CONF_TOKEN=t MONKEY=m KEYBOARD=k \
        TOKENIZER=z my_secret=s PASSWORD=p CREDENTIALS=c CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE=1 EMPTY=";

    fn map(text: &str) -> BTreeMap<String, String> {
        text.split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn policy(inherit: EnvInherit) -> EnvPolicy {
        EnvPolicy {
            inherit,
            ignore_default_excludes: true,
            exclude: Vec::new(),
            set: BTreeMap::new(),
            include_only: Vec::new(),
        }
    }

    #[track_caller]
    fn check(policy: Option<EnvPolicy>, request: &str, expected: &str) {
        let server: Vec<_> = owned(&map(SERVER)).collect();
        let made = child_environment(server, policy.as_ref(), &map(request));
        let expected: Vec<_> = owned(&map(expected)).collect();
        assert_eq!(made, expected);
    }

    #[test]
    fn without_a_policy_nothing_is_inherited() {
        check(None, "", "");
        check(None, "A=1 EMPTY= E=a=b", "A=1 EMPTY= E=a=b");
    }

    #[test]
    fn none_inherits_nothing() {
        let policy = EnvPolicy {
            set: map("S=s"),
            ..policy(EnvInherit::None)
        };
        check(Some(policy), "E=e", "E=e S=s");
    }

    #[test]
    fn core_inherits_a_few_by_exact_name() {
        check(
            Some(policy(EnvInherit::Core)),
            "",
            "PATH=/bin HOME=/root SHELL=/bin/sh USER=u LOGNAME=l TMPDIR=/t TEMP=/t TMP=/t LANG=C LC_ALL=C LC_CTYPE=C",
        );
    }

    #[test]
    fn all_inherits_everything_and_the_request_wins() {
        let mut expected = map(SERVER);
        expected.remove("CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE");
        expected.extend(map("CONF_A=mine NEW=n"));
        let server: Vec<_> = owned(&map(SERVER)).collect();
        let made = child_environment(server, Some(&policy(EnvInherit::All)), &map("CONF_A=mine NEW=n"));
        assert_eq!(made, owned(&expected).collect::<Vec<_>>());
    }

    #[test]
    fn secrets_stay_out_unless_set_or_asked_for() {
        let policy = EnvPolicy {
            ignore_default_excludes: false,
            exclude: list("LC_* PA?H t* ????"),
            set: map("API_KEY=set TERM=set"),
            ..policy(EnvInherit::All)
        };
        check(
            Some(policy),
            "MY_TOKEN=asked",
            "SHELL=/bin/sh LOGNAME=l PWD=/ CONF_A=a PASSWORD=p CREDENTIALS=c EMPTY= API_KEY=set TERM=set MY_TOKEN=asked",
        );
    }

    #[test]
    fn include_only_filters_set_but_not_the_request() {
        let policy = EnvPolicy {
            set: map("CONF_S=s OTHER=o"),
            include_only: list("conf_* home"),
            ..policy(EnvInherit::All)
        };
        check(
            Some(policy.clone()),
            "E=e",
            "CONF_A=a CONF_TOKEN=t HOME=/root CONF_S=s E=e",
        );
        let nothing = EnvPolicy {
            include_only: vec![String::new()],
            ..policy
        };
        check(Some(nothing), "E=e", "E=e");
    }

    #[test]
    fn the_servers_own_variables_never_get_through() {
        let policy = EnvPolicy {
            set: map("CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN=x"),
            ..policy(EnvInherit::None)
        };
        let request = "CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE=1 CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN=x A=1";
        check(Some(policy), request, "A=1");
        check(None, request, "A=1");
    }

    #[test]
    fn odd_names_pass_through() {
        let request = BTreeMap::from([("", "empty"), ("A=B", "c")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let made = child_environment([], None, &request);
        assert_eq!(made, [("".into(), "empty".into()), ("A=B".into(), "c".into())]);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_are_inherited_too() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"A\xff".to_vec());
        let server = [(odd.clone(), "1".into())];
        let made = child_environment(server.clone(), Some(&policy(EnvInherit::All)), &BTreeMap::new());
        assert_eq!(made, server);
        let excluding = EnvPolicy {
            exclude: list("a?"),
            ..policy(EnvInherit::All)
        };
        assert_eq!(child_environment(server, Some(&excluding), &BTreeMap::new()), []);
    }
}
