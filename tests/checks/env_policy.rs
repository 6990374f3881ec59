//! What environment a command must get, told variable by variable by somebody who reads the policy as it is written.

use exec_server::process::env_policy::child_environment;
use exec_server::process::pattern::Pattern;
use exec_server::protocol::environment::{EnvInherit, EnvPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

const CORE: &str = "PATH SHELL TMPDIR TEMP TMP HOME LANG LC_ALL LC_CTYPE LOGNAME USER";
const SECRETS: [&str; 3] = ["*KEY*", "*SECRET*", "*TOKEN*"];
const SERVER_ONLY: [&str; 2] = [
    "CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE",
    "CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN",
];

/// What the server was told as a service, or by its own client: for a command only if it is set for it.
const INHERITED_BY_NONE: &str =
    "EXEC_SERVER_TOKEN NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_PID LISTEN_PIDFDID LISTEN_FDS LISTEN_FDNAMES";

/// Longer patterns and names take too long to be compared slowly.
const LONG: usize = 200;

/// Makes the environment that `input` describes, a line for each part of it, and panics if that is not what the policy
/// says. A line is a letter and what it is about: `p` which policy, `x` a pattern to exclude, `i` one to include, `s` a
/// variable to set, `v` one of the server's, `r` one of the request.
pub(crate) fn check_input(input: &[u8]) {
    let mut policy = EnvPolicy {
        inherit: EnvInherit::All,
        ignore_default_excludes: true,
        exclude: Vec::new(),
        set: BTreeMap::new(),
        include_only: Vec::new(),
    };
    let mut has_policy = true;
    let mut server: Vec<(OsString, OsString)> = Vec::new();
    let mut request = BTreeMap::new();
    for line in input.split(|byte| *byte == b'\n').take(60) {
        let Some((kind, rest)) = line.split_first() else {
            continue;
        };
        let text = String::from_utf8_lossy(rest).into_owned();
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        match kind {
            b'p' => {
                has_policy = !text.contains('-');
                policy.ignore_default_excludes = !text.contains('d');
                policy.inherit = match text.chars().last() {
                    Some('c') => EnvInherit::Core,
                    Some('n') => EnvInherit::None,
                    _ => EnvInherit::All,
                };
            }
            b'x' if rest.len() < LONG => policy.exclude.push(text),
            b'i' if rest.len() < LONG => policy.include_only.push(text),
            b's' if rest.len() < LONG => drop(policy.set.insert(name.into(), value.into())),
            b'r' => drop(request.insert(name.into(), value.into())),
            b'v' if rest.len() < LONG => {
                let mut parts = rest.splitn(2, |byte| *byte == b'=').map(<[u8]>::to_vec);
                let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                server.push((OsString::from_vec(name), OsString::from_vec(value)));
            }
            _ => {}
        }
    }
    let policy = has_policy.then_some(&policy);
    let made = child_environment(server.clone(), policy, &request);
    let mut names: BTreeSet<OsString> = server.iter().map(|(name, _)| name.clone()).collect();
    names.extend(policy.iter().flat_map(|policy| policy.set.keys()).map(OsString::from));
    names.extend(request.keys().map(OsString::from));
    let expected: Vec<_> = names
        .into_iter()
        .filter_map(|name| Some((name.clone(), value(&name, &server, policy, &request)?)))
        .collect();
    assert_eq!(made, expected);
}

/// What a command finds under a name.
fn value(
    name: &OsString,
    server: &[(OsString, OsString)],
    policy: Option<&EnvPolicy>,
    request: &BTreeMap<String, String>,
) -> Option<OsString> {
    let text = name.to_string_lossy();
    let key = name.to_str();
    if SERVER_ONLY.iter().any(|own| name == own) {
        return None;
    }
    if let Some(value) = key.and_then(|key| request.get(key)) {
        return Some(value.into());
    }
    let policy = policy?;
    let is_like = |pattern: &str| like(pattern, &text);
    if !policy.include_only.is_empty() && !policy.include_only.iter().any(|pattern| is_like(pattern)) {
        return None;
    }
    if let Some(value) = key.and_then(|key| policy.set.get(key)) {
        return Some(value.into());
    }
    let inherits = match policy.inherit {
        _ if INHERITED_BY_NONE.split(' ').any(|own| name == own) => false,
        EnvInherit::None => false,
        EnvInherit::Core => CORE.split(' ').any(|core| name == core),
        EnvInherit::All => true,
    };
    let is_secret = !policy.ignore_default_excludes && SECRETS.into_iter().any(is_like);
    if !inherits || is_secret || policy.exclude.iter().any(|pattern| is_like(pattern)) {
        return None;
    }
    let (_, value) = server.iter().rfind(|(other, _)| other == name)?;
    Some(value.clone())
}

/// Whether a name is like a pattern, worked out for all their beginnings. The pattern itself must say the same.
fn like(pattern: &str, name: &str) -> bool {
    let (symbols, letters): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Row by row: whether so many symbols are like so many letters.
    let mut row = vec![false; letters.len() + 1];
    row[0] = true;
    for symbol in &symbols {
        let mut next = vec![*symbol == '*' && row[0]];
        for (n, letter) in letters.iter().enumerate() {
            next.push(match symbol {
                '*' => row[n + 1] || next[n],
                '?' => row[n],
                symbol => row[n] && lower(*symbol) == lower(*letter),
            });
        }
        row = next;
    }
    let is_like = !symbols.is_empty() && row[letters.len()];
    assert_eq!(Pattern::new(pattern).matches(name), is_like, "{pattern:?} {name:?}");
    is_like
}

/// A letter in lower case, if that is one letter.
fn lower(letter: char) -> char {
    let lower: Vec<char> = letter.to_lowercase().collect();
    if let [lower] = lower[..] { lower } else { letter }
}
