//! The plan of a sandbox against somebody who follows the policy word by word.

#[path = "checks/random.rs"]
mod random;
#[path = "checks/sandbox_policy.rs"]
mod sandbox_policy;

use random::Random;
use sandbox_policy::NAMES;

/// A path of up to three names, mostly one that there is.
fn path(random: &mut Random) -> String {
    let common = [
        "/", "/a", "/b", "/ws", "/ws/a", "/ws/.git", "/tmp", "/usr", "/usr/bin", "/a/b",
    ];
    if random.below(2) == 0 {
        return random.pick(&common).to_owned();
    }
    let depth = 1 + random.below(3);
    (0..depth).map(|_| format!("/{}", random.pick(&NAMES))).collect()
}

fn place(random: &mut Random) -> String {
    let special = |value: &str| format!(r#"{{"type":"special","value":{{"kind":"{value}"}}}}"#);
    match random.below(16) {
        0 | 1 => special("root"),
        2 => special("minimal"),
        3 | 4 => special("project_roots"),
        5 => special("tmpdir"),
        6 => special("slash_tmp"),
        7 => special("unknown"),
        8 => format!(
            r#"{{"type":"special","value":{{"kind":"project_roots","subpath":"{}"}}}}"#,
            random.pick(&[".git", ".codex", "a", "a/b", "../a", "/b"])
        ),
        9..=11 => {
            let patterns = [
                "**/*.env",
                "*",
                "**",
                "/ws/**",
                "a/*",
                "*/*",
                "{a,b}/**/c",
                "/**/.git",
                "[ab]",
                "?",
                "[!a-b]*",
                "~/*",
                "codex-project-roots://**/*.env",
                "codex-project-roots:///.git",
                "../*/{.e*,[x].env}",
                "**/b/**/a",
                "*/a/*",
                "/tmp/{a,{b,c}/*}",
                "\\\\a",
                "{/ws,a}/.*",
            ];
            format!(r#"{{"type":"glob_pattern","pattern":"{}"}}"#, random.pick(&patterns))
        }
        _ => format!(r#"{{"type":"path","path":"file://{}"}}"#, path(random)),
    }
}

fn sandbox(random: &mut Random) -> String {
    let entries: Vec<String> = (0..random.below(7))
        .map(|_| {
            let access = random.pick(&["read", "write", "write", "deny", "none"]);
            format!(r#"{{"path":{},"access":"{access}"}}"#, place(random))
        })
        .collect();
    let depth = match random.below(4) {
        0 => format!(r#","glob_scan_max_depth":{}"#, 1 + random.below(3)),
        _ => String::new(),
    };
    let network = random.pick(&["restricted", "enabled"]);
    let roots: Vec<String> = (0..random.below(3))
        .map(|_| format!(r#""file://{}""#, path(random)))
        .collect();
    let roots = roots.join(",");
    let mut more = String::new();
    if random.below(8) > 0 {
        more += &format!(r#","cwd":"file://{}""#, path(random));
    }
    if random.below(4) == 0 {
        more += &format!(r#","temporaryDirectories":["file://{}"]"#, path(random));
    }
    more += &match random.below(6) {
        0 => format!(r#","policyContext":{{"cwd":"file:///ws","workspaceRoots":[{roots}]}}"#),
        _ => format!(r#","workspaceRoots":[{roots}]"#),
    };
    let entries = entries.join(",");
    format!(
        r#"{{"permissions":{{"type":"managed","file_system":{{"type":"restricted","entries":[{entries}]{depth}}},"network":"{network}"}},"windowsSandboxLevel":"disabled"{more}}}"#
    )
}

#[test]
fn carried_out_the_rules_do_what_the_policy_says() {
    let mut random = Random::new(11);
    let mut planned = 0;
    const RUNS: usize = 6_000;
    for _ in 0..RUNS {
        let mut input = sandbox(&mut random).into_bytes();
        input.push(0);
        input.push(random.next() as u8);
        // Some that the policies speak of, and some more.
        for common in [(0, 11), (0, 10), (0, 0), (0, 12)] {
            input.extend([common.0, common.1, (random.next() as u8) & 0xdf, random.next() as u8]);
        }
        for _ in 0..random.below(20) {
            let node = [
                random.next() as u8,
                random.next() as u8,
                random.next() as u8,
                random.next() as u8,
            ];
            input.extend(node.map(|byte| if byte == 255 { 0 } else { byte }));
        }
        let text = String::from_utf8_lossy(&input).into_owned();
        let shown = std::panic::catch_unwind(|| sandbox_policy::check_input(&input));
        match shown {
            Ok(restricts) => planned += usize::from(restricts),
            Err(_) => panic!("for {}", &text[..text.find('\0').unwrap_or(text.len())]),
        }
    }
    assert!(planned > RUNS / 2, "only {planned} of {RUNS} policies make a plan");
}
