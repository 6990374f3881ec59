//! A case for every rule of a policy.

use super::*;
use crate::protocol::sandbox::Sandbox;
use serde_json::{Value, json};
use std::path::Path;

/// `/dir/ /file /link->target`
fn tree(nodes: &str) -> FileTree {
    let mut tree = FileTree::default();
    for node in nodes.split_whitespace() {
        let added = match (node.split_once("->"), node.strip_suffix('/'), node.strip_suffix('!')) {
            (Some((link, target)), ..) => tree.add_link(link, target),
            (None, Some(directory), _) => tree.add_directory(directory),
            (None, None, Some(directory)) => tree.add_closed_directory(directory),
            _ => tree.add_file(node),
        };
        assert!(added, "{node}");
    }
    tree
}

/// `/path=w root=r roots/.git=r glob:**/*.env=d`
fn entries(text: &str) -> Value {
    let entry = |entry: &str| {
        let (place, access) = entry.rsplit_once('=').unwrap();
        let special = |kind: &str| json!({"type": "special", "value": {"kind": kind}});
        let path = match place {
            "roots" => special("project_roots"),
            "root" | "minimal" | "tmpdir" | "slash_tmp" => special(place),
            "unknown" => json!({"type": "special", "value": {"kind": "unknown", "path": "/a", "subpath": "b"}}),
            _ => match (place.strip_prefix("roots/"), place.strip_prefix("glob:")) {
                (Some(subpath), _) => {
                    json!({"type": "special", "value": {"kind": "project_roots", "subpath": subpath}})
                }
                (_, Some(pattern)) => json!({"type": "glob_pattern", "pattern": pattern}),
                _ => json!({"type": "path", "path": format!("file://{place}")}),
            },
        };
        let access = match access {
            "r" => "read",
            "w" => "write",
            "d" => "deny",
            access => access,
        };
        json!({"path": path, "access": access, "missing_path_behavior": "skip"})
    };
    text.split_whitespace().map(entry).collect()
}

pub(super) fn sandbox(policy: &str) -> Value {
    json!({
        "permissions": {
            "type": "managed",
            "network": "restricted",
            "file_system": {"type": "restricted", "entries": entries(policy)},
        },
        "cwd": "file:///ws",
        "workspaceRoots": ["file:///ws"],
        "windowsSandboxLevel": "disabled",
    })
}

fn surroundings() -> Surroundings {
    Surroundings {
        cwd: "/elsewhere".into(),
        cwd_is_of_request: false,
        temporary_directories: vec!["/var/tmp".into()],
        home: Some("/home/me".into()),
    }
}

pub(super) fn planned(sandbox: &Value, nodes: &str) -> Result<Plan, PolicyError> {
    let sandbox = Sandbox::parse(sandbox.to_string().as_bytes()).unwrap();
    plan(&sandbox, &surroundings(), &tree(nodes))
}

/// `read-only: /dir=w /secret=d /file=x /new=- /link->target`; without what is absent unless `absent`.
fn shown(plan: Plan, absent: bool) -> String {
    let Files::Restricted { base, rules } = plan.files else {
        return "open".to_owned();
    };
    let mut text = match base {
        Base::ReadOnly => "read-only:",
        Base::Writable => "writable:",
        Base::Empty => "empty:",
    }
    .to_owned();
    for rule in rules {
        let access = match rule.access {
            RuleAccess::Read => "=r",
            RuleAccess::Write => "=w",
            RuleAccess::HiddenDirectory => "=d",
            RuleAccess::HiddenFile => "=x",
            RuleAccess::Absent if absent => "=-",
            RuleAccess::Absent => continue,
            RuleAccess::Link(target) => &format!("->{}", target.display()),
        };
        text += &format!(" {}{access}", rule.path.display());
    }
    text
}

#[track_caller]
fn check(policy: &str, nodes: &str, expected: &str) {
    let plan = planned(&sandbox(policy), nodes).map(|plan| shown(plan, false));
    assert_eq!(plan.as_deref(), Ok(expected), "{policy} on {nodes}");
}

#[track_caller]
fn check_refused(sandbox: &Value, nodes: &str, kind: PolicyErrorKind, message: &str) {
    let error = planned(sandbox, nodes).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (kind, message));
}

#[test]
fn the_base_is_what_holds_at_the_root() {
    check("root=r", "/ws/", "read-only:");
    check("root=w /a=d", "/a/", "writable: /a=d");
    check("", "/ws/", "empty:");
    check("root=d /a=r", "/a/", "empty: /a=r");
    check("/=r", "/ws/", "read-only:");
    check("root=r root=d", "/ws/", "empty:");
}

#[test]
fn nothing_is_restricted_where_everything_may_be_written() {
    check("root=w", "/ws/", "open");
    check("root=w roots=w /a=w slash_tmp=w", "/ws/", "open");
    check("root=w root=r /a=w /a=r unknown=w unknown=d", "/a/", "open");
    // Also a place that is not there, or is none yet, takes something away.
    check("root=w /a=d", "/ws/", "writable:");
    check("root=w /a=r", "/ws/", "writable:");
    check("root=w glob:*.env=d", "/ws/", "writable:");
    check("root=w glob:a=r /ws/a=w", "/ws/ /ws/a", "writable:");
    check("root=w /a=d /a=w", "/a/", "writable: /a=d");
    let mut without_roots = sandbox("root=w roots=r");
    without_roots["workspaceRoots"] = json!([]);
    assert_eq!(shown(planned(&without_roots, "").unwrap(), false), "writable:");
}

#[test]
fn places_with_names_of_their_own() {
    check("root=r roots=w", "/ws/", "read-only: /ws=w");
    check(
        "root=r roots=w roots/a/b=r",
        "/ws/ /ws/a/ /ws/a/b",
        "read-only: /ws=w /ws/a=w /ws/a/b=r",
    );
    check(
        "root=r slash_tmp=w tmpdir=w",
        "/tmp/ /var/ /var/tmp/",
        "read-only: /tmp=w /var/tmp=w",
    );
    check("root=r unknown=d", "/a/", "read-only:");
    check(
        "minimal=r",
        "/usr/ /usr/bin/ /usr/lib/ /bin->usr/bin /lib->/usr/lib /etc/ /lib64/ /home/",
        "empty: /bin->/usr/bin /etc=r /lib->/usr/lib /lib64=r /usr=r",
    );
    let mut more = sandbox("root=r roots=w tmpdir=w");
    more["workspaceRoots"] = json!(["file:///a", "file:///missing", "file:///b"]);
    more["temporaryDirectories"] = json!(["file:///t", "file:///u"]);
    let plan = planned(&more, "/a/ /b/ /t/ /u/ /var/ /var/tmp/").unwrap();
    assert_eq!(shown(plan, false), "read-only: /a=w /b=w /t=w /u=w");
}

#[test]
fn a_directory_for_temporary_files_that_is_not_absolute_is_none() {
    let sandbox = Sandbox::parse(sandbox("root=r tmpdir=w").to_string().as_bytes()).unwrap();
    let surroundings = Surroundings {
        temporary_directories: vec!["".into(), "tmp".into(), ".".into()],
        ..surroundings()
    };
    let plan = plan(&sandbox, &surroundings, &tree("/tmp/")).unwrap();
    assert_eq!(shown(plan, false), "read-only:");
}

#[test]
fn the_policy_context_wins() {
    let mut both = sandbox("root=r roots=w glob:*.env=d");
    both["policyContext"] = json!({"cwd": "file:///a", "workspaceRoots": ["file:///a"]});
    let plan = planned(&both, "/ws/ /ws/.env /a/ /a/.env").unwrap();
    assert_eq!(
        (plan.cwd.as_path(), shown(plan.clone(), false)),
        (Path::new("/a"), "read-only: /a=w /a/.env=x".into())
    );
    both["policyContext"] = json!({"cwd": "file:///a", "workspaceRoots": []});
    assert_eq!(shown(planned(&both, "/ws/ /a/").unwrap(), false), "read-only:");
}

#[test]
fn a_cwd_alone_makes_nothing_writable() {
    let mut alone = sandbox("root=r roots=w");
    alone["workspaceRoots"] = json!([]);
    assert_eq!(shown(planned(&alone, "/ws/").unwrap(), false), "read-only:");
}

#[test]
fn the_most_specific_place_wins_whatever_the_order() {
    let nodes = "/a/ /a/b/ /a/b/c/ /a/b/c/d/ /a/b/c/d/e";
    let expected = "read-only: /a=w /a/b=r /a/b/c=d /a/b/c/d=w /a/b/c/d/e=x";
    check("root=r /a=w /a/b=r /a/b/c=d /a/b/c/d=w /a/b/c/d/e=d", nodes, expected);
    check("/a/b/c/d/e=d /a/b/c/d=w /a/b/c=d /a/b=r /a=w root=r", nodes, expected);
}

#[test]
fn at_the_same_place_deny_wins_over_write_over_read() {
    for policy in ["/a=r /a=w /a=none", "/a=d /a=w /a=r", "/l=w /a=d"] {
        check(&format!("root=r {policy}"), "/a/ /l->a", "read-only: /a=d");
    }
    check("root=r /a=w /a=r", "/a/", "read-only: /a=w");
    check("root=r /a=r /l=w", "/a/ /l->a", "read-only: /a=w");
}

#[test]
fn what_changes_nothing_is_left_out() {
    check("root=r /a=r", "/a/", "read-only:");
    check("root=r /a=w /a/b=w", "/a/ /a/b", "read-only: /a=w");
    check("root=r /a=d /a/b=d", "/a/ /a/b", "read-only: /a=d");
    check("/a=d /b=r", "/a/ /b", "empty: /b=r");
}

#[test]
fn what_leads_to_something_restricted_is_held_in_place() {
    check(
        "root=r slash_tmp=w roots=w /tmp/a/b/c=r",
        "/ws/ /tmp/ /tmp/a/ /tmp/a/b/ /tmp/a/b/c /tmp/d/",
        "read-only: /tmp=w /tmp/a=w /tmp/a/b=w /tmp/a/b/c=r /ws=w",
    );
    check("root=w /a/b=d", "/a/ /a/b", "writable: /a=w /a/b=x");
    // A workspace in a writable place, for the sake of its `.git`.
    check(
        "root=r slash_tmp=w /tmp/ws=w",
        "/tmp/ /tmp/ws/ /tmp/ws/.git/",
        "read-only: /tmp=w /tmp/ws=w /tmp/ws/.git=r",
    );
}

#[test]
fn what_is_missing_does_not_count() {
    check("root=r /a=w /b=r /c=d /l=w /f/x=w", "/l->nothing /f", "read-only:");
    check("root=r /a=r /a/b=w", "/a/ /a/b->b", "read-only:");
}

#[test]
fn protected_names_are_read_only_in_every_writable_directory() {
    let plan = planned(
        &sandbox("root=r roots=w slash_tmp=w"),
        "/ws/ /ws/.git/ /ws/.aws /ws/sub/ /ws/sub/.git/ /tmp/",
    );
    let expected = "read-only: /tmp=w /tmp/.agents=- /tmp/.aws=- /tmp/.codex=- /tmp/.git=- \
                    /ws=w /ws/.agents=- /ws/.aws=r /ws/.codex=- /ws/.git=r";
    assert_eq!(shown(plan.unwrap(), true), expected);
    let plan = planned(&sandbox("root=w /a=d"), "/a/ /.codex/").unwrap();
    assert_eq!(shown(plan, true), "writable: /.agents=- /.aws=- /.codex=r /.git=- /a=d");
    // A file has nothing in it.
    check("root=r /f=w", "/f", "read-only: /f=w");
    // Nor does a directory that is writable only as a part of another count.
    check("root=r /a=w", "/a/ /a/b/ /a/b/.git/", "read-only: /a=w");
    check(
        "root=r /a=w /a/b=w",
        "/a/ /a/b/ /a/b/.git/",
        "read-only: /a=w /a/b=w /a/b/.git=r",
    );
}

#[test]
fn a_protected_name_is_what_the_policy_says_of_that_very_place() {
    let nodes = "/ws/ /ws/.git/ /ws/.git/hooks/";
    check("root=r roots=w roots/.git=w", nodes, "read-only: /ws=w /ws/.git=w");
    check("root=r roots=w /ws/.git=w", nodes, "read-only: /ws=w /ws/.git=w");
    check("root=r roots=w roots/.git=d", nodes, "read-only: /ws=w /ws/.git=d");
    check(
        "root=r roots=w roots/.git/hooks=w",
        nodes,
        "read-only: /ws=w /ws/.git=r /ws/.git/hooks=w",
    );
    // A pattern means no place in particular.
    check("root=r roots=w glob:.*=w", nodes, "read-only: /ws=w /ws/.git=r");
    let plan = planned(&sandbox("root=r roots=w roots/.git=w"), "/ws/").unwrap();
    assert_eq!(
        shown(plan, true),
        "read-only: /ws=w /ws/.agents=- /ws/.aws=- /ws/.codex=-"
    );
}

#[test]
fn a_git_file_is_read_only_itself() {
    check("root=r roots=w", "/ws/ /ws/.git", "read-only: /ws=w /ws/.git=r");
}

#[test]
fn a_link_that_could_be_changed_protects_nothing() {
    let internal = PolicyErrorKind::Internal;
    let crossed = |word: &str, path: &str, link: &str| {
        format!("cannot enforce sandbox {word} path {path} because it crosses writable symlink {link}")
    };
    let git = &crossed("read-only", "/ws/.git", "/ws/.git");
    for nodes in [
        "/ws/ /git/ /ws/.git->/git",
        "/ws/ /ws/.git->nothing",
        "/ws/ /ws/git/ /ws/.git->git",
    ] {
        check_refused(&sandbox("root=r roots=w"), nodes, internal, git);
    }
    let nodes = "/ws/ /a/ /a/b/ /ws/l->/a";
    check_refused(
        &sandbox("root=r roots=w roots/l/b=d"),
        nodes,
        internal,
        &crossed("denied", "/ws/l/b", "/ws/l"),
    );
    check_refused(
        &sandbox("root=r roots=w roots/l=r"),
        nodes,
        internal,
        &crossed("read-only", "/ws/l", "/ws/l"),
    );
    // By way of another link.
    let nodes = "/ws/ /a/ /ws/m->/a /l->/ws/m";
    check_refused(
        &sandbox("root=r roots=w /l=d"),
        nodes,
        internal,
        &crossed("denied", "/l", "/ws/m"),
    );
    // One that cannot be changed is as good as a directory.
    check("root=r roots=w /l=d", "/ws/ /a/ /l->/a", "read-only: /a=d /ws=w");
    // What a pattern finds is what is there now.
    check(
        "root=r roots=w glob:*.env=d",
        "/ws/ /a /ws/.env->../a",
        "read-only: /a=x /ws=w",
    );
}

#[test]
fn a_writable_link_counts_where_it_leads() {
    let mut linked = sandbox("root=r slash_tmp=w roots=w roots/.git=r");
    linked["workspaceRoots"] = json!(["file:///tmp/ws"]);
    let plan = planned(&linked, "/tmp/ /data/ /data/ws/ /data/ws/.git/ /tmp/ws->/data/ws").unwrap();
    assert_eq!(shown(plan, false), "read-only: /data/ws=w /data/ws/.git=r /tmp=w");
}

#[test]
fn what_is_granted_is_found_by_its_name() {
    check(
        "/tmp/ws=w",
        "/tmp/ /data/ /data/ws/ /again->data /tmp/ws->../again/ws",
        "empty: /data/ws=w /tmp/ws->/data/ws",
    );
    check("/a/l/x=r", "/a/ /b/ /b/x /a/l->/b", "empty: /a/l->/b /b/x=r");
    // It is seen anyway.
    check("/a=r /a/l=r", "/a/ /b /a/l->/b", "empty: /a=r /b=r");
    check("/a/l=r /b=d", "/a/ /b /a/l->/b", "empty:");
    check(
        "root=r /a=d /a/l=w",
        "/a/ /b/ /a/l->/b",
        "read-only: /a=d /a/l->/b /b=w",
    );
}

#[test]
fn patterns() {
    let nodes = "/ws/ /ws/.env /ws/a/ /ws/a/b.env /home/ /home/me/ /home/me/.env /v/ /v/.env";
    check(
        "root=r roots=w glob:codex-project-roots://**/*.env=d",
        nodes,
        "read-only: /ws=w /ws/.env=x /ws/a=w /ws/a/b.env=x",
    );
    check("root=r glob:**/*.env=d", nodes, "read-only: /ws/.env=x /ws/a/b.env=x");
    check(
        "root=r glob:/**/*.env=d",
        nodes,
        "read-only: /home/me/.env=x /v/.env=x /ws/.env=x /ws/a/b.env=x",
    );
    check("root=r glob:~/.e*=d", nodes, "read-only: /home/me/.env=x");
    check("root=r glob:*=w", nodes, "read-only: /ws/.env=w /ws/a=w");
    check("glob:{a,../v}/[!x]*=r", nodes, "empty: /v/.env=r /ws/a/b.env=r");
    let mut shallow = sandbox("root=r glob:**/*.env=d");
    shallow["permissions"]["file_system"]["glob_scan_max_depth"] = json!(1);
    assert_eq!(shown(planned(&shallow, nodes).unwrap(), false), "read-only: /ws/.env=x");
}

#[test]
fn a_pattern_is_expanded_wholly_or_not_at_all() {
    let mut many = "/ws/ ".to_owned();
    for n in 0..9000 {
        many += &format!("/ws/{n}.env ");
    }
    let message = "the sandbox policy stands for more than 8192 places";
    check_refused(
        &sandbox("root=r glob:*.env=d"),
        &many,
        PolicyErrorKind::Internal,
        message,
    );
    // Where it cannot be looked, everything is denied.
    check(
        "root=r roots=w glob:**/*.env=d",
        "/ws/ /ws/a!",
        "read-only: /ws=w /ws/a=d",
    );
    check("root=r roots=w glob:**/*.env=r", "/ws/ /ws/a!", "read-only: /ws=w");
}

#[test]
fn what_cannot_be_looked_at_is_refused_where_it_matters() {
    let message = "cannot enforce sandbox denied path /ws/a/b: permission denied";
    check_refused(
        &sandbox("root=r roots=w roots/a/b=d"),
        "/ws/ /ws/a!",
        PolicyErrorKind::Internal,
        message,
    );
    check("root=r /a/b=d /a/c=r /a/d=w", "/a!", "read-only:");
    let message = "cannot enforce sandbox read-only path /a/.git: permission denied";
    check_refused(&sandbox("root=r /a=w"), "/a!", PolicyErrorKind::Internal, message);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (params, request) = (PolicyErrorKind::InvalidParams, PolicyErrorKind::InvalidRequest);
    let dynamic = "file system sandbox context with dynamic permissions requires cwd";
    for policy in [
        "roots=w",
        "roots/.git=r",
        "glob:*.env=d",
        "glob:codex-project-roots://*=d",
    ] {
        let mut nowhere = sandbox(policy);
        nowhere.as_object_mut().unwrap().remove("cwd");
        check_refused(&nowhere, "/ws/", params, dynamic);
        let sandbox = Sandbox::parse(nowhere.to_string().as_bytes()).unwrap();
        let of_request = Surroundings {
            cwd_is_of_request: true,
            ..surroundings()
        };
        let plan = plan(&sandbox, &of_request, &tree("/ws/")).unwrap();
        assert_eq!(plan.cwd, Path::new("/elsewhere"));
    }
    let glob = |pattern: &str, why: &str| format!("invalid sandbox glob pattern `{pattern}`: {why}");
    for (pattern, why) in [
        ("[a", "a `[` is not closed"),
        ("file:///ws/*", "it is no path"),
        ("", "it is no path"),
    ] {
        let sandbox = sandbox(&format!("glob:{pattern}=d"));
        check_refused(&sandbox, "/ws/", params, &glob(pattern, why));
    }
    let foreign = "invalid sandbox permission path URI: 'file://server/x' is invalid on 'linux'";
    check_refused(&sandbox("server/x=r"), "", request, foreign);
    let long = sandbox(&format!("/{}=r", "a/".repeat(2100)));
    check_refused(
        &long,
        "",
        params,
        "a path in the sandbox policy is longer than 4096 bytes",
    );
    let mut mxc = sandbox("root=r");
    mxc["windowsSandboxLevel"] = json!("mxc");
    let message =
        "failed to prepare fs sandbox: failed to prepare MXC sandbox: native MXC is unavailable on this executor";
    check_refused(&mxc, "", request, message);
}

#[test]
fn what_has_to_be_enforced_at_all() {
    let verdict = |permissions: Value, nodes: &str| {
        let sandbox = json!({"permissions": permissions, "windowsSandboxLevel": "disabled", "cwd": "file:///ws"});
        let plan = planned(&sandbox, nodes).unwrap();
        (
            plan.restricts_nothing(),
            plan.restricts_reads(),
            plan.restricts_writes(),
        )
    };
    let managed = |policy: &str, network: &str| {
        let files = json!({"type": "restricted", "entries": entries(policy)});
        verdict(
            json!({"type": "managed", "network": network, "file_system": files}),
            "/a/",
        )
    };
    let (nothing, network_only) = ((true, false, false), (false, false, false));
    assert_eq!(verdict(json!({"type": "disabled"}), ""), nothing);
    assert_eq!(verdict(json!({"type": "external", "network": "enabled"}), ""), nothing);
    assert_eq!(
        verdict(json!({"type": "external", "network": "restricted"}), ""),
        network_only
    );
    let unrestricted = json!({"type": "managed", "network": "enabled", "file_system": {"type": "unrestricted"}});
    assert_eq!(verdict(unrestricted, ""), nothing);
    assert_eq!(managed("root=w", "enabled"), nothing);
    assert_eq!(managed("root=w", "restricted"), network_only);
    assert_eq!(managed("root=r", "enabled"), (false, false, true));
    assert_eq!(managed("root=w /a=r", "enabled"), (false, false, true));
    assert_eq!(managed("root=r /a=d", "enabled"), (false, true, true));
    assert_eq!(managed("/a=w", "enabled"), (false, true, true));
}

#[test]
fn the_files_of_this_machine() {
    let sandbox = Sandbox::parse(sandbox("minimal=r root=r slash_tmp=d").to_string().as_bytes()).unwrap();
    let plan = plan(&sandbox, &surroundings(), &RealFiles).unwrap();
    let tmp = std::fs::canonicalize("/tmp").unwrap();
    assert_eq!(shown(plan, false), format!("read-only: {}=d", tmp.display()));
}
