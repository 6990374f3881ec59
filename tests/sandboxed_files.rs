//! File calls with a sandbox: what they may do, and that nothing leads out of it.

mod kit;

use kit::{Client, Dir, Server, base64, both, bytes, uri};
use nix::libc::{EACCES, EBUSY, EEXIST, EISDIR, ELOOP, ENOENT, ENOTDIR, EROFS};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A directory with a workspace `ws` and another `out` in it.
struct Scene {
    _dir: Dir,
    root: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let dir = Dir::new();
        let root = fs::canonicalize(dir.path("")).unwrap();
        let scene = Scene { _dir: dir, root };
        scene.put("ws/f", "mine");
        scene.put("out/f", "old");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn uri(&self, name: &str) -> String {
        uri(&self.path(name))
    }

    fn put(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn link(&self, target: impl AsRef<Path>, name: &str) {
        symlink(target, self.path(name)).unwrap();
    }

    fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The workspace may be written, everything read; and more entries, `name=access`.
    fn workspace(&self, more: &[&str]) -> Value {
        self.sandbox(&[&["/=read", "ws=write"], more].concat())
    }

    fn sandbox(&self, entries: &[&str]) -> Value {
        let entry = |entry: &&str| {
            let (name, access) = entry.split_once('=').unwrap();
            let path = json!({"type": "path", "path": uri(&self.root.join(name))});
            json!({"path": path, "access": access})
        };
        let entries: Value = entries.iter().map(entry).collect();
        json!({
            "permissions": {
                "type": "managed",
                "network": "restricted",
                "file_system": {"type": "restricted", "entries": entries},
            },
            "cwd": self.uri("ws"),
            "workspaceRoots": [],
            "windowsSandboxLevel": "disabled",
        })
    }
}

fn with(mut params: Value, sandbox: &Value) -> Value {
    params["sandbox"] = sandbox.clone();
    params
}

/// The code and the system's error number with which a call is refused.
#[track_caller]
fn check_refused(client: &mut Client, method: &str, params: Value, errno: i32) {
    let text = format!("{method} {:.200}", params.to_string());
    let id = client.request(method, params);
    let answer = client.answer(id);
    let code = match errno {
        ENOENT => -32004,
        EACCES => -32600,
        _ => -32603,
    };
    let error = &answer["error"];
    assert_eq!(
        (&error["code"], &error["data"]["errno"]),
        (&json!(code), &json!(errno)),
        "{text}: {answer:.300}"
    );
}

fn at(path: &str) -> Value {
    json!({"path": path})
}

fn write(path: &str) -> Value {
    json!({"path": path, "dataBase64": base64("new")})
}

fn copy(from: &str, to: &str) -> Value {
    json!({"sourcePath": from, "destinationPath": to, "recursive": true})
}

fn replace(id: &str, path: &str) -> Value {
    json!({"handleId": id, "path": path, "mode": "replace"})
}

fn open(id: &str, path: &str) -> Value {
    json!({"handleId": id, "path": path})
}

fn walk(path: &str, follow: bool) -> Value {
    let options = json!({"maxDepth": 9, "maxDirectories": 99, "maxEntries": 99, "followDirectorySymlinks": follow});
    json!({"path": path, "options": options})
}

#[test]
fn the_workspace_can_be_written_and_nothing_else() {
    both(|_, client| {
        let scene = Scene::new();
        let sandbox = scene.workspace(&[]);
        scene.put("out/tree/f", "x");
        for (place, allowed) in [("ws", true), ("out", false)] {
            let path = |name: &str| scene.uri(&format!("{place}/{name}"));
            for (method, params) in [
                ("fs/writeFile", write(&path("f"))),
                ("fs/writeFile", write(&path("new"))),
                ("fs/createDirectory", at(&path("d"))),
                ("fs/createDirectory", at(&path("d/e/f"))),
                ("fs/createDirectory", json!({"path": path("g"), "recursive": false})),
                ("fs/copy", copy(&scene.uri("out/f"), &path("copied"))),
                ("fs/copy", copy(&scene.uri("out/tree"), &path("tree2"))),
                ("fs/open", replace(place, &path("opened"))),
                ("fs/open", replace(&format!("{place}2"), &path("f"))),
                ("fs/remove", at(&path("f"))),
                ("fs/remove", at(&path("tree"))),
            ] {
                match allowed {
                    true => drop(client.call(method, with(params, &sandbox))),
                    // Above what is missing there is nothing to be made either.
                    false => check_refused(client, method, with(params, &sandbox), EROFS),
                }
            }
        }
        assert_eq!(scene.names("ws"), ["copied", "d", "g", "new", "opened", "tree2"]);
        assert_eq!(
            (scene.get("ws/new"), scene.get("ws/tree2/f")),
            ("new".into(), "x".into())
        );
        assert_eq!(scene.names("out"), ["f", "tree"]);
        assert_eq!(scene.get("out/f"), "old");
        // Reading is not restricted, nor is what changes nothing.
        client.call("fs/readFile", with(at(&scene.uri("out/f")), &sandbox));
        client.call("fs/createDirectory", with(at(&scene.uri("out/tree")), &sandbox));
        client.call("fs/remove", with(at(&scene.uri("out/none")), &sandbox));
        let once = json!({"path": scene.uri("out/tree"), "recursive": false});
        check_refused(client, "fs/createDirectory", with(once, &sandbox), EEXIST);
        check_refused(
            client,
            "fs/writeFile",
            with(write(&scene.uri("ws/d")), &sandbox),
            EISDIR,
        );
        check_refused(
            client,
            "fs/writeFile",
            with(write(&scene.uri("ws/no/f")), &sandbox),
            ENOENT,
        );
        // Nothing of all this without a sandbox.
        client.call("fs/writeFile", write(&scene.uri("out/f")));
        assert_eq!(scene.get("out/f"), "new");
    });
}

#[test]
fn protected_names_stay_as_they_are() {
    both(|_, client| {
        let scene = Scene::new();
        scene.put("ws/.git/config", "keep");
        scene.put("ws/sub/.git/config", "x");
        scene.put("out/tree/.codex/f", "x");
        scene.put("out/tree/a", "x");
        scene.put("out/flat/.aws", "x");
        scene.link("f", "ws/sub/.agents");
        let sandbox = scene.workspace(&[]);
        let ws = |name: &str| scene.uri(&format!("ws/{name}"));
        for (method, params, errno) in [
            ("fs/writeFile", write(&ws(".git/config")), EROFS),
            ("fs/writeFile", write(&ws(".git/new")), EROFS),
            ("fs/writeFile", write(&ws(".codex")), EROFS),
            ("fs/writeFile", write(&ws(".codex/f")), ENOENT),
            ("fs/createDirectory", at(&ws(".codex")), EROFS),
            ("fs/createDirectory", at(&ws(".aws/deep/er")), EROFS),
            ("fs/copy", copy(&ws("f"), &ws(".agents")), EROFS),
            ("fs/copy", copy(&ws("sub"), &ws(".agents")), EROFS),
            ("fs/copy", copy(&ws("sub"), &ws(".git")), EROFS),
            ("fs/copy", copy(&scene.uri("out/tree"), &ws("")), EROFS),
            ("fs/copy", copy(&scene.uri("out/flat"), &ws("")), EROFS),
            ("fs/copy", copy(&ws("sub"), &ws("")), EROFS),
            ("fs/open", replace("h", &ws(".git/config")), EROFS),
            ("fs/open", replace("h", &ws(".agents")), EROFS),
            ("fs/remove", at(&ws(".git/config")), EROFS),
            ("fs/remove", at(&ws(".git")), EBUSY),
            ("fs/remove", at(&ws("")), EBUSY),
        ] {
            check_refused(client, method, with(params, &sandbox), errno);
        }
        // The tree above all that.
        check_refused(client, "fs/remove", with(at(&uri(&scene.root)), &sandbox), EROFS);
        let outer = scene.sandbox(&["/=read", "=write", "ws=write"]);
        check_refused(client, "fs/remove", with(at(&ws("")), &outer), EBUSY);
        assert_eq!(scene.get("ws/.git/config"), "keep");
        let names = scene.names("ws");
        assert!(
            names == [".git", "f", "sub"] || names == [".git", "a", "f", "sub"],
            "{names:?}"
        );
        client.call("fs/remove", with(at(&ws(".codex")), &sandbox));
        // Only those directly in the workspace are protected.
        client.call("fs/writeFile", with(write(&ws("sub/.git/config")), &sandbox));
        client.call("fs/remove", with(at(&ws("sub")), &sandbox));
    });
}

#[test]
fn a_tree_is_copied_beside_what_may_not_be_changed() {
    both(|_, client| {
        let scene = Scene::new();
        for file in [
            "ws/one/two/f",
            "ws/two/one/f",
            "out/tree/one/x",
            "out/tree/two/x",
            "out/bad/one/two/f",
        ] {
            scene.put(file, "old");
        }
        let sandbox = scene.workspace(&["ws/one/two=read", "ws/two/one=read"]);
        let to_workspace = |name: &str| with(copy(&scene.uri(name), &scene.uri("ws")), &sandbox);
        client.call("fs/copy", to_workspace("out/tree"));
        assert_eq!(
            (scene.names("ws/one"), scene.names("ws/two")),
            (names(["two", "x"]), names(["one", "x"]))
        );
        scene.put("out/bad/one/two/f", "new");
        check_refused(client, "fs/copy", to_workspace("out/bad"), EROFS);
        assert_eq!(scene.get("ws/one/two/f"), "old");
        check_refused(client, "fs/remove", with(at(&scene.uri("ws/one")), &sandbox), EBUSY);
        assert_eq!(scene.names("ws/one"), ["two", "x"]);
    });
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).into()
}

#[test]
fn what_is_hidden_is_neither_told_nor_touched() {
    both(|_, client| {
        let scene = Scene::new();
        scene.put("ws/secret/key", "s3");
        scene.put("ws/.env", "s3");
        scene.put("ws/d/g", "fine");
        for (target, link) in [
            ("secret", "ls"),
            ("secret/key", "lk"),
            (".env", "le"),
            ("secret/none", "ln"),
            ("d", "ld"),
        ] {
            scene.link(target, &format!("ws/{link}"));
        }
        let sandbox = scene.workspace(&["ws/secret=deny", "ws/.env=deny"]);
        let ws = |name: &str| scene.uri(&format!("ws/{name}"));
        let hidden = [
            "secret",
            "secret/key",
            "secret/none",
            "secret/none/x",
            ".env",
            "ls",
            "lk",
            "le",
            "ln",
            "ls/key",
        ];
        for path in hidden.map(ws) {
            for (method, params) in [
                ("fs/getMetadata", at(&path)),
                ("fs/readFile", at(&path)),
                ("fs/open", open("h", &path)),
                ("fs/canonicalize", at(&path)),
                ("fs/readDirectory", at(&path)),
                ("fs/walk", walk(&path, true)),
                ("fs/writeFile", write(&path)),
                ("fs/open", replace("h", &path)),
                ("fs/createDirectory", at(&path)),
            ] {
                check_refused(client, method, with(params, &sandbox), EACCES);
            }
        }
        for (method, params) in [
            ("fs/copy", copy(&ws("secret/key"), &ws("stolen"))),
            ("fs/copy", copy(&ws("secret"), &ws("stolen"))),
            ("fs/copy", copy(&ws(".env"), &ws("stolen"))),
            ("fs/copy", copy(&ws(""), &ws("../ws/stolen"))),
            ("fs/copy", copy(&uri(&scene.root), &ws("stolen"))),
            ("fs/copy", copy(&ws("f"), &ws("secret/f"))),
            ("fs/remove", at(&ws("secret/key"))),
            ("fs/remove", at(&ws("secret/none"))),
            ("fs/remove", at(&ws(".env"))),
        ] {
            check_refused(client, method, with(params, &sandbox), EACCES);
        }
        check_refused(client, "fs/remove", with(at(&ws("secret")), &sandbox), EACCES);
        check_refused(client, "fs/remove", with(at(&ws("")), &sandbox), EBUSY);

        // The names of what is hidden are seen, and that of a link says nothing about where it leads.
        let listed = client.call("fs/readDirectory", with(at(&ws("")), &sandbox));
        let mut listed: Vec<_> = (listed["entries"].as_array().unwrap().iter())
            .map(|e| {
                (
                    e["fileName"].as_str().unwrap(),
                    e["isDirectory"] == true,
                    e["isFile"] == true,
                )
            })
            .collect();
        listed.sort();
        let expected = [
            (".env", false, true),
            ("d", true, false),
            ("f", false, true),
            ("ld", true, false),
            ("le", false, false),
            ("lk", false, false),
            ("ln", false, false),
            ("ls", false, false),
            ("secret", true, false),
        ];
        assert_eq!(listed, expected);
        let walked = client.call("fs/walk", with(walk(&ws(""), true), &sandbox));
        let mut paths: Vec<_> = (walked["entries"].as_array().unwrap().iter())
            .map(|entry| entry["path"].as_str().unwrap().to_owned())
            .collect();
        paths.sort();
        // `ld` leads to a directory that is listed already.
        assert_eq!(paths, [".env", "d", "d/g", "f", "ld", "secret"].map(ws));
        let error = &walked["errors"][0];
        assert_eq!(
            (&error["path"], walked["errors"].as_array().unwrap().len()),
            (&json!(ws("secret")), 1)
        );
        assert!(error["message"].as_str().unwrap().contains("(os error 13)"), "{error}");

        // What is not hidden is as ever.
        let content = client.call("fs/readFile", with(at(&ws("ld/g")), &sandbox));
        assert_eq!(bytes(&content["dataBase64"]), b"fine");
        let metadata = |client: &mut Client, name: &str| client.call("fs/getMetadata", with(at(&ws(name)), &sandbox));
        assert_eq!(metadata(client, "ld")["isSymlink"], true);
        assert_eq!(metadata(client, "ld")["isDirectory"], true);
        assert_eq!(metadata(client, "d")["isSymlink"], false);
        let of_file = metadata(client, "f");
        assert_eq!((&of_file["isFile"], &of_file["size"]), (&json!(true), &json!(4)));
        assert_eq!(of_file, client.call("fs/getMetadata", at(&ws("f"))));
        client.call("fs/copy", with(copy(&ws("d"), &ws("d2")), &sandbox));
        let expected = [".env", "d", "d2", "f", "ld", "le", "lk", "ln", "ls", "secret"];
        assert_eq!(
            (scene.names("ws"), scene.names("ws/secret")),
            (expected.map(String::from).into(), vec!["key".into()])
        );
    });
}

#[test]
fn what_is_not_granted_is_not_there() {
    both(|_, client| {
        let scene = Scene::new();
        scene.put("ws/d/g", "");
        scene.put("other/f", "");
        scene.link("../out/f", "ws/l");
        scene.link("../out", "ws/ld");
        scene.link("../none", "ws/dang");
        let sandbox = scene.sandbox(&["ws=write", "out/g=read"]);
        for name in [
            "out/f", "out/none", "out/f/x", "other", "other/f", "ws/l", "ws/ld/f", "ws/dang",
        ] {
            let path = scene.uri(name);
            for (method, params) in [
                ("fs/getMetadata", at(&path)),
                ("fs/readFile", at(&path)),
                ("fs/open", open("h", &path)),
                ("fs/canonicalize", at(&path)),
                ("fs/readDirectory", at(&path)),
                ("fs/walk", walk(&path, true)),
                ("fs/copy", copy(&path, &scene.uri("ws/copied/x"))),
                ("fs/writeFile", write(&path)),
            ] {
                check_refused(client, method, with(params, &sandbox), ENOENT);
            }
        }
        // To a sandbox there is nothing to remove.
        client.call("fs/remove", with(at(&scene.uri("out/f")), &sandbox));
        assert_eq!(scene.get("out/f"), "old");
        check_refused(
            client,
            "fs/getMetadata",
            with(at("file:///proc/self/environ"), &sandbox),
            ENOENT,
        );
        check_refused(
            client,
            "fs/createDirectory",
            with(at(&scene.uri("new")), &sandbox),
            ENOENT,
        );

        // Above the workspace there is the way to it.
        let listed = client.call("fs/readDirectory", with(at(&uri(&scene.root)), &sandbox));
        assert_eq!(
            listed["entries"],
            json!([{"fileName": "ws", "isDirectory": true, "isFile": false}])
        );
        let walked = client.call("fs/walk", with(walk(&uri(&scene.root), true), &sandbox));
        let entry = |name: &str, kind: &str| json!({"path": scene.uri(name), "kind": kind});
        let expected = json!([
            entry("ws", "directory"),
            entry("ws/d", "directory"),
            entry("ws/f", "file"),
            entry("ws/d/g", "file")
        ]);
        assert_eq!(walked, json!({"entries": expected, "errors": [], "truncated": false}));
        let metadata = client.call("fs/getMetadata", with(at(&uri(&scene.root)), &sandbox));
        assert_eq!(metadata["isDirectory"], true);
        check_refused(
            client,
            "fs/copy",
            with(copy(&uri(&scene.root), &scene.uri("ws/x")), &sandbox),
            EACCES,
        );
        let found = client.call("fs/canonicalize", with(at(&scene.uri("ws/d/../f")), &sandbox));
        assert_eq!(found, json!({"path": scene.uri("ws/f")}));
    });
}

#[test]
fn no_link_leads_out() {
    both(|server, client| {
        let scene = Scene::new();
        for (target, link) in [
            ("../out/f", "file"),
            ("../out", "way"),
            ("../out/none", "dang"),
            ("/dev/stdout", "stdout"),
            ("d/../../out/f", "crooked"),
            ("f", "inner"),
            ("loop", "loop"),
        ] {
            scene.link(target, &format!("ws/{link}"));
        }
        fs::create_dir(scene.path("ws/d")).unwrap();
        let sandbox = scene.workspace(&[]);
        let ws = |name: &str| scene.uri(&format!("ws/{name}"));
        let root = format!("file:///proc/{}/root", server.pid());
        let own_root = format!("file:///proc/self/root{}/out/f", scene.root.display());
        let other_root = format!("{root}{}/out/f", scene.root.display());
        for path in [
            ws("file"),
            ws("way/f"),
            ws("way/new"),
            ws("dang"),
            ws("crooked"),
            own_root,
            other_root,
        ] {
            check_refused(client, "fs/writeFile", with(write(&path), &sandbox), EROFS);
            check_refused(client, "fs/open", with(replace("h", &path), &sandbox), EROFS);
            check_refused(client, "fs/copy", with(copy(&ws("f"), &path), &sandbox), EROFS);
        }
        check_refused(client, "fs/createDirectory", with(at(&ws("way/new")), &sandbox), EROFS);
        check_refused(client, "fs/createDirectory", with(at(&ws("dang")), &sandbox), EEXIST);
        check_refused(client, "fs/createDirectory", with(at(&ws("dang/x")), &sandbox), EEXIST);
        check_refused(client, "fs/remove", with(at(&ws("way/f")), &sandbox), EROFS);
        check_refused(client, "fs/copy", with(copy(&ws("d"), &ws("way")), &sandbox), EROFS);
        check_refused(
            client,
            "fs/copy",
            with(copy(&ws("inner"), &ws("way/l")), &sandbox),
            EROFS,
        );
        check_refused(client, "fs/writeFile", with(write(&ws("loop")), &sandbox), ELOOP);
        // What only the kernel can follow.
        for path in [
            "file:///proc/self/fd/1",
            "file:///dev/stdout",
            &ws("stdout"),
            "file:///dev/tty",
            "file:///dev/kmsg",
        ] {
            check_refused(client, "fs/writeFile", with(write(path), &sandbox), EROFS);
        }
        assert_eq!(
            (scene.get("out/f"), scene.names("out")),
            ("old".into(), vec!["f".into()])
        );

        // Within the workspace links are followed, or not.
        client.call("fs/writeFile", with(write(&ws("inner")), &sandbox));
        assert_eq!(scene.get("ws/f"), "new");
        assert!(scene.path("ws/inner").is_symlink());
        let unfollowed = |mut params: Value| {
            params["followSymlinks"] = json!(false);
            with(params, &sandbox)
        };
        check_refused(client, "fs/writeFile", unfollowed(write(&ws("inner"))), ELOOP);
        check_refused(client, "fs/writeFile", unfollowed(write(&ws("way/f"))), ENOTDIR);
        check_refused(client, "fs/createDirectory", unfollowed(at(&ws("way/x"))), ENOTDIR);
        let refusal = client.refusal("fs/remove", unfollowed(at(&ws("inner"))));
        assert_eq!(refusal, (-32600, "path contains a symbolic link".to_owned()));
        client.call("fs/writeFile", unfollowed(write(&ws("f"))));
        // The link itself lies in the workspace.
        client.call("fs/copy", with(copy(&ws("file"), &ws("file2")), &sandbox));
        client.call("fs/remove", with(at(&ws("file")), &sandbox));
        client.call("fs/remove", with(at(&ws("way")), &sandbox));
        assert_eq!(fs::read_link(scene.path("ws/file2")).unwrap(), Path::new("../out/f"));
        assert_eq!(scene.names("out"), ["f"]);
        client.call("fs/writeFile", with(write("file:///dev/null"), &sandbox));
    });
}

#[test]
fn links_are_told_from_what_they_lead_to() {
    both(|_, client| {
        let scene = Scene::new();
        scene.put("ws/secret", "");
        scene.link("f", "ws/l");
        let sandbox = scene.workspace(&["ws/secret=deny"]);
        let unfollowed = json!({"path": scene.uri("ws/l"), "followSymlinks": false});
        let refusal = client.refusal("fs/getMetadata", with(unfollowed.clone(), &sandbox));
        assert_eq!(refusal, (-32600, "path contains a symbolic link".to_owned()));
        check_refused(client, "fs/readFile", with(unfollowed, &sandbox), ELOOP);
        let found = client.call("fs/getMetadata", with(at(&scene.uri("ws/l")), &sandbox));
        assert_eq!(
            (&found["isSymlink"], &found["isFile"], &found["size"]),
            (&json!(true), &json!(true), &json!(4))
        );
        let refusal = client.refusal("fs/readFile", with(at(&scene.uri("ws")), &sandbox));
        assert_eq!(
            refusal.1,
            format!("path `{}` is not a file", scene.path("ws").display())
        );
    });
}

#[test]
fn a_single_file_that_may_be_written_keeps_its_place() {
    both(|_, client| {
        let scene = Scene::new();
        let sandbox = scene.sandbox(&["/=read", "out/f=write"]);
        let path = scene.uri("out/f");
        let inode = fs::metadata(scene.path("out/f")).unwrap().ino();
        client.call("fs/writeFile", with(write(&path), &sandbox));
        assert_eq!(scene.get("out/f"), "new");
        client.call("fs/copy", with(copy(&scene.uri("ws/f"), &path), &sandbox));
        assert_eq!(scene.get("out/f"), "mine");
        client.call("fs/open", with(replace("h", &path), &sandbox));
        assert_eq!(scene.get("out/f"), "");
        assert_eq!(fs::metadata(scene.path("out/f")).unwrap().ino(), inode);
        check_refused(client, "fs/remove", with(at(&path), &sandbox), EBUSY);
        check_refused(
            client,
            "fs/writeFile",
            with(write(&scene.uri("out/g")), &sandbox),
            EROFS,
        );
        assert_eq!(scene.names("out"), ["f"]);
    });
}

#[test]
fn a_handle_stays_what_it_was_opened_as() {
    both(|_, client| {
        let scene = Scene::new();
        scene.put("ws/secret", "s3");
        let sandbox = scene.workspace(&["ws/secret=deny"]);
        check_refused(
            client,
            "fs/open",
            with(open("r", &scene.uri("ws/secret")), &sandbox),
            EACCES,
        );
        check_refused(
            client,
            "fs/open",
            with(replace("w", &scene.uri("out/f")), &sandbox),
            EROFS,
        );
        client.call("fs/open", with(open("r", &scene.uri("ws/f")), &sandbox));
        client.call("fs/open", with(replace("w", &scene.uri("ws/new")), &sandbox));
        let block = json!({"handleId": "r", "offset": 0, "len": 9});
        assert_eq!(bytes(&client.call("fs/readBlock", block)["chunk"]), b"mine");
        client.call(
            "fs/writeBlock",
            json!({"handleId": "w", "offset": 0, "chunk": base64("text")}),
        );
        assert_eq!((scene.get("ws/new"), scene.get("out/f")), ("text".into(), "old".into()));
    });
}

#[test]
fn wrong_parameters_are_told_before_the_policy() {
    both(|_, client| {
        let scene = Scene::new();
        let mut other_system = scene.workspace(&[]);
        let entries = &mut other_system["permissions"]["file_system"]["entries"];
        entries[0]["path"]["path"] = json!("file:///C:/x");
        let (code, message) = client.refusal(
            "fs/writeFile",
            json!({"path": scene.uri("ws/f"), "sandbox": other_system}),
        );
        assert_eq!((code, message.as_str()), (-32602, "missing field `dataBase64`"));
        let (code, message) = client.refusal("fs/writeFile", with(write(&scene.uri("ws/f")), &other_system));
        assert!(
            code == -32600 && message.starts_with("invalid sandbox permission path URI"),
            "{message}"
        );
        let (code, _) = client.refusal(
            "fs/readFile",
            json!({"path": scene.uri("ws/f"), "sandbox": "read-only"}),
        );
        assert_eq!(code, -32602);
        // A policy that cannot be kept with the files as they are.
        scene.link("../out", "ws/.git");
        let crossing = scene.workspace(&[]);
        let (code, message) = client.refusal("fs/writeFile", with(write(&scene.uri("ws/f")), &crossing));
        assert!(
            code == -32603 && message.contains("crosses writable symlink"),
            "{message}"
        );
        assert_eq!(scene.get("ws/f"), "mine");
    });
}

#[test]
fn the_server_says_that_it_can() {
    let (_server, mut client) = Server::stdio();
    let result = client.call("initialize", json!({"clientName": "test"}));
    assert_eq!(
        result["environmentInfo"]["capabilities"]["sandboxedFileStreaming"],
        true
    );
}

/// Swaps the directory `ws/d` with a link to `target`, over and over, until it is dropped.
struct Racer<'a> {
    stop: &'a AtomicBool,
}

impl Drop for Racer<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn race(scene: &Scene, target: &str, test: impl FnOnce()) {
    fs::create_dir(scene.path("ws/d")).unwrap();
    fs::write(scene.path("ws/d/f"), "mine").unwrap();
    scene.link(scene.path(target), "ws/l");
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let [directory, link, aside] = ["ws/d", "ws/l", "ws/aside"].map(|name| scene.path(name));
            while !stop.load(Ordering::Relaxed) {
                for (from, to) in [
                    (&directory, &aside),
                    (&link, &directory),
                    (&directory, &link),
                    (&aside, &directory),
                ] {
                    fs::rename(from, to).unwrap();
                }
            }
        });
        let _racer = Racer { stop: &stop };
        test();
    });
}

#[test]
fn nothing_arrives_outside_while_a_directory_is_swapped_with_a_link() {
    let (_server, mut client) = Server::stdio();
    client.handshake();
    let scene = Scene::new();
    let sandbox = scene.workspace(&[]);
    race(&scene, "out", || {
        let ids: Vec<i64> = (0..2000)
            .map(|n| {
                let path = scene.uri(&format!("ws/d/{n}"));
                let (method, params) = match n % 5 {
                    0 | 1 => ("fs/writeFile", write(&path)),
                    2 => ("fs/createDirectory", json!({"path": path, "recursive": false})),
                    3 => ("fs/copy", copy(&scene.uri("ws/f"), &path)),
                    _ => ("fs/remove", at(&scene.uri("ws/d/f"))),
                };
                client.request(method, with(params, &sandbox))
            })
            .collect();
        for id in ids {
            let answer = client.answer(id);
            // It was the directory, the link, or nothing.
            let errno = answer["error"]["data"]["errno"].as_i64().map(|errno| errno as i32);
            assert!(matches!(errno, None | Some(EROFS | ENOENT | ENOTDIR)), "{answer:.300}");
        }
    });
    assert_eq!(
        (scene.names("out"), scene.get("out/f")),
        (vec!["f".into()], "old".into())
    );
}

#[test]
fn nothing_hidden_is_read_while_a_directory_is_swapped_with_a_link() {
    let (_server, mut client) = Server::stdio();
    client.handshake();
    let scene = Scene::new();
    scene.put("secret/f", "s3");
    let sandbox = scene.workspace(&["secret=deny"]);
    race(&scene, "secret", || {
        let ids: Vec<i64> = (0..2000)
            .map(|_| client.request("fs/readFile", with(at(&scene.uri("ws/d/f")), &sandbox)))
            .collect();
        for id in ids {
            let answer = client.answer(id);
            match answer.get("result") {
                Some(result) => assert_eq!(bytes(&result["dataBase64"]), b"mine"),
                None => assert!(answer["error"]["code"].is_i64()),
            }
        }
    });
}
