//! The file methods as a client sees them.

mod kit;

use kit::{Dir, Server, base64, both, bytes, until, uri};
use nix::libc;
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

#[test]
fn every_method_does_what_its_name_says() {
    both(|_, client| {
        let dir = Dir::new();
        let (d, f, copy) = (dir.uri("d/e"), dir.uri("d/e/f"), dir.uri("d/copy"));
        assert_eq!(client.call("fs/createDirectory", json!({"path": d})), json!({}));
        let content = base64(b"con\0tent\xff");
        assert_eq!(
            client.call("fs/writeFile", json!({"path": f, "dataBase64": content})),
            json!({})
        );
        assert_eq!(
            client.call("fs/readFile", json!({"path": f})),
            json!({"dataBase64": content})
        );
        let metadata = client.call("fs/getMetadata", json!({"path": f}));
        assert_eq!(
            (&metadata["isFile"], &metadata["isDirectory"]),
            (&json!(true), &json!(false))
        );
        assert_eq!((&metadata["isSymlink"], &metadata["size"]), (&json!(false), &json!(9)));
        assert!(metadata["modifiedAtMs"].as_i64().unwrap() > 1_600_000_000_000 && metadata["createdAtMs"].is_i64());
        let params = json!({"sourcePath": d, "destinationPath": copy, "recursive": true});
        assert_eq!(client.call("fs/copy", params), json!({}));
        let listed = client.call("fs/readDirectory", json!({"path": copy}));
        let entry = json!({"fileName": "f", "isDirectory": false, "isFile": true});
        assert_eq!(listed, json!({"entries": [entry]}));
        let options = json!({"maxDepth": 9, "maxDirectories": 9, "maxEntries": 9, "followDirectorySymlinks": false});
        let walked = client.call("fs/walk", json!({"path": dir.uri("d"), "options": options}));
        let entry = |path: &str, kind: &str| json!({"path": dir.uri(path), "kind": kind});
        let entries = json!([
            entry("d/copy", "directory"),
            entry("d/e", "directory"),
            entry("d/copy/f", "file"),
            entry("d/e/f", "file"),
        ]);
        assert_eq!(walked, json!({"entries": entries, "errors": [], "truncated": false}));
        std::os::unix::fs::symlink(dir.path("d"), dir.path("link")).unwrap();
        let params = json!({"path": dir.uri("link/../link/e/./f")});
        let real = fs::canonicalize(dir.path("d/e/f")).unwrap();
        assert_eq!(client.call("fs/canonicalize", params), json!({"path": uri(&real)}));
        assert_eq!(client.call("fs/remove", json!({"path": copy})), json!({}));
        assert!(!dir.path("d/copy").exists() && dir.path("d/e/f").exists());
        // A plain path is as good as a URI.
        let plain = dir.path("d/e/f").display().to_string();
        assert_eq!(
            client.call("fs/readFile", json!({"path": plain})),
            json!({"dataBase64": content})
        );
    });
}

#[test]
fn failures_have_the_codes_that_clients_go_by() {
    both(|_, client| {
        let dir = Dir::new();
        fs::write(dir.path("file"), "x").unwrap();
        fs::create_dir(dir.path("full")).unwrap();
        fs::write(dir.path("full/x"), "x").unwrap();
        let path = |name: &str| json!({"path": dir.uri(name)});
        let with = |name: &str, more: Value| {
            let mut params = path(name);
            params
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            params
        };
        let copy = |from: &str, to: &str| json!({"sourcePath": dir.uri(from), "destinationPath": dir.uri(to), "recursive": false});
        let none = json!({"maxDepth": 1, "maxDirectories": 0, "maxEntries": 1, "followDirectorySymlinks": false});
        for (method, params, code) in [
            ("fs/getMetadata", path("none"), -32004),
            ("fs/readFile", path("none"), -32004),
            ("fs/readFile", path("full"), -32600),
            ("fs/readFile", json!({"path": "relative"}), -32602),
            ("fs/readFile", json!({"path": "file://elsewhere/file"}), -32600),
            ("fs/readFile", json!({}), -32602),
            ("fs/writeFile", with("none/file", json!({"dataBase64": ""})), -32004),
            ("fs/writeFile", with("full", json!({"dataBase64": ""})), -32603),
            ("fs/writeFile", with("file", json!({"dataBase64": "_"})), -32600),
            (
                "fs/createDirectory",
                with("none/a", json!({"recursive": false})),
                -32004,
            ),
            ("fs/createDirectory", path("file"), -32603),
            ("fs/canonicalize", path("none"), -32004),
            ("fs/readDirectory", path("file"), -32603),
            ("fs/readDirectory", path("none"), -32004),
            ("fs/walk", with("full", json!({"options": none})), -32600),
            ("fs/walk", path("full"), -32602),
            ("fs/remove", with("none", json!({"force": false})), -32004),
            ("fs/remove", with("full", json!({"recursive": false})), -32603),
            ("fs/copy", copy("none", "copy"), -32004),
            ("fs/copy", copy("full", "copy"), -32600),
            ("fs/open", with("none", json!({"handleId": "h"})), -32004),
            (
                "fs/open",
                with("file", json!({"handleId": "h", "mode": "append"})),
                -32602,
            ),
            ("fs/readBlock", json!({"handleId": "h", "offset": 0, "len": 1}), -32004),
            (
                "fs/writeBlock",
                json!({"handleId": "h", "offset": 0, "chunk": "eA=="}),
                -32004,
            ),
            ("fs/rename", path("file"), -32601),
        ] {
            let (found, message) = client.refusal(method, params.clone());
            assert_eq!(found, code, "{method} {params}: {message}");
        }
        assert_eq!(client.call("fs/remove", path("none")), json!({}));
        assert_eq!(fs::read(dir.path("file")).unwrap(), b"x");
    });
}

#[test]
fn improper_base64_touches_nothing() {
    both(|_, client| {
        let dir = Dir::new();
        fs::write(dir.path("old"), "old").unwrap();
        // A short text, and one that is long enough to be handled apart from its message.
        for before in ["".to_owned(), "A".repeat(100_000)] {
            for (end, what) in [
                ("!!", "Invalid symbol 33, offset"),
                ("YQ", "Invalid padding"),
                ("aGl=", "Invalid last symbol 108, offset"),
                ("YQ==YQ==", "Invalid symbol 61, offset"),
                ("\n", "Invalid symbol 10, offset"),
            ] {
                let data = before.clone() + end;
                for name in ["old", "new"] {
                    let params = json!({"path": dir.uri(name), "dataBase64": data});
                    let (code, message) = client.refusal("fs/writeFile", params);
                    let what = format!("fs/writeFile requires valid base64 dataBase64: {what}");
                    assert!(code == -32600 && message.starts_with(&what), "{code} {message}");
                }
                let params = json!({"handleId": "none", "offset": 0, "chunk": data});
                let (code, message) = client.refusal("fs/writeBlock", params);
                assert!(code == -32602 && message.starts_with(what), "{code} {message}");
            }
        }
        assert_eq!(fs::read(dir.path("old")).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path(".")).unwrap().count(), 1);
    });
}

#[test]
fn calls_on_one_path_keep_their_order() {
    both(|_, client| {
        let dir = Dir::new();
        let path = dir.uri("file");
        let mut reads = Vec::new();
        for i in 0..50 {
            let content = base64(i.to_string());
            client.request("fs/writeFile", json!({"path": path, "dataBase64": content}));
            let read = client.request("fs/readFile", json!({"path": path}));
            reads.push((read, content));
        }
        client.request("fs/remove", json!({"path": dir.uri("")}));
        let gone = client.request("fs/readFile", json!({"path": path}));
        for (read, content) in reads {
            assert_eq!(client.result(read), json!({"dataBase64": content}));
        }
        assert_eq!(client.error(gone).0, -32004);
    });
}

#[test]
fn a_pipe_holds_up_no_other_call() {
    both(|_, client| {
        let dir = Dir::new();
        for i in 0..10 {
            nix::unistd::mkfifo(&dir.path(&format!("fifo {i}")), Mode::S_IRWXU).unwrap();
            client.request("fs/readFile", json!({"path": dir.path(&format!("fifo {i}"))}));
            let params = json!({"path": dir.path(&format!("fifo {i}")), "dataBase64": "eA=="});
            client.request("fs/writeFile", params);
        }
        fs::write(dir.path("file"), "x").unwrap();
        let read = client.call("fs/readFile", json!({"path": dir.uri("file")}));
        assert_eq!(read, json!({"dataBase64": "eA=="}));
        let code = client.refusal("fs/readFile", json!({"path": dir.path("fifo 0")})).0;
        assert_eq!(code, -32600);
    });
}

#[test]
fn a_write_that_waits_for_a_reader_is_given_up_with_its_connection() {
    let server = Server::websocket(&[]);
    let dir = Dir::new();
    nix::unistd::mkfifo(&dir.path("fifo"), Mode::S_IRWXU).unwrap();
    fs::write(dir.path("file"), "x".repeat(200_000)).unwrap();
    let mut options = fs::File::options();
    let mut reader = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(dir.path("fifo"))
        .unwrap();
    let mut client = server.client();
    let write = json!({"path": dir.uri("fifo"), "dataBase64": base64("x".repeat(200_000))});
    let copy = json!({"sourcePath": dir.uri("file"), "destinationPath": dir.uri("fifo"), "recursive": false});
    let waiting = [client.request("fs/writeFile", write), client.request("fs/copy", copy)];
    let other = client.call("fs/getMetadata", json!({"path": dir.uri("file")}));
    assert_eq!(other["size"], 200_000);
    assert!(!client.is_answered(waiting[0]) && !client.is_answered(waiting[1]));
    let (mut total, mut room) = (0, [0; 10_000]);
    until("something in the FIFO", || {
        total = reader.read(&mut room).unwrap_or(0);
        (total > 0).then_some(())
    });
    // Who only ends the input gets what was asked for before.
    client.websocket().close(None).unwrap();
    drop(client);
    // The FIFO has an end once nobody has it open for writing any more.
    until("the end of the FIFO", || match reader.read(&mut room) {
        Ok(0) => Some(()),
        Ok(n) => {
            total += n;
            None
        }
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::WouldBlock);
            None
        }
    });
    assert!(total < 200_000, "{total}");
}

#[test]
fn a_file_is_read_and_written_in_blocks() {
    both(|_, client| {
        let dir = Dir::new();
        let open = |id: &str, mode: &str| json!({"handleId": id, "path": dir.uri("file"), "mode": mode});
        assert_eq!(client.call("fs/open", open("w", "replace")), json!({"handleId": "w"}));
        let mut writes = Vec::new();
        for (offset, text) in [(0, "abc"), (5, "fgh"), (3, "de")] {
            let params = json!({"handleId": "w", "offset": offset, "chunk": base64(text)});
            writes.push(client.request("fs/writeBlock", params));
        }
        let close = client.request("fs/close", json!({"handleId": "w"}));
        for answer in writes.into_iter().chain([close]) {
            assert_eq!(client.result(answer), json!({}));
        }
        client.call("fs/open", open("r", "read"));
        assert_eq!(client.refusal("fs/open", open("r", "read")).0, -32600);
        let mut block = |offset: u64, len: u64| {
            let block = client.call("fs/readBlock", json!({"handleId": "r", "offset": offset, "len": len}));
            (bytes(&block["chunk"]), block["eof"].as_bool().unwrap())
        };
        assert_eq!(block(0, 6), (b"abcdef".to_vec(), false));
        assert_eq!(block(6, 2), (b"gh".to_vec(), false));
        assert_eq!(block(6, 3), (b"gh".to_vec(), true));
        assert_eq!(block(100, 1), (Vec::new(), true));
        let code = client
            .refusal("fs/readBlock", json!({"handleId": "r", "offset": 0, "len": 0}))
            .0;
        assert_eq!(code, -32600);
        assert_eq!(client.call("fs/close", json!({"handleId": "unknown"})), json!({}));
    });
}

#[test]
fn handles_are_closed_with_their_connection() {
    let server = Server::websocket(&[]);
    let dir = Dir::new();
    fs::write(dir.path("file"), "x").unwrap();
    let is_open = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
        let mut targets = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        targets.any(|target| target == dir.path("file"))
    };
    let mut client = server.client();
    client.call("fs/open", json!({"handleId": "h", "path": dir.uri("file")}));
    assert!(is_open());
    let mut other = server.client();
    let read = json!({"handleId": "h", "offset": 0, "len": 1});
    assert_eq!(other.refusal("fs/readBlock", read).0, -32004);
    drop(client);
    kit::until("the end of the handle", || (!is_open()).then_some(()));
}
