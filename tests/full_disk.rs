//! Files on a disk that is full.

mod kit;

use kit::{Client, Dir, Server, base64, bytes, server_where};
use serde_json::{Value, json};

/// A server that sees a file system of 1 MiB on `dir`; `None`, and why, where there can't be any.
fn server(dir: &Dir) -> Option<(Server, Client)> {
    server_where("mount -t tmpfs -o size=1m none \"$0\"", dir)
}

#[test]
fn what_was_there_is_still_there() {
    let dir = Dir::new();
    let Some((_server, mut client)) = server(&dir) else {
        return;
    };
    let path = |name: &str| dir.path(name).display().to_string();
    let old = "old ".repeat(100_000);
    let write = |name: &str, text: &str| json!({"path": path(name), "dataBase64": base64(text)});
    let read =
        |client: &mut Client, name: &str| bytes(&client.call("fs/readFile", json!({"path": path(name)}))["dataBase64"]);
    let is_full = |client: &mut Client, method: &str, params: Value| {
        let id = client.request(method, params);
        let error = client.answer(id)["error"].take();
        assert_eq!(
            (&error["code"], &error["data"]["errno"]),
            (&json!(-32603), &json!(28)),
            "{error}"
        );
    };
    client.call("fs/writeFile", write("old", &old));
    let link = format!("ln {} {}", path("old"), path("linked"));
    client.call("fs/writeFile", write("filler", &"x".repeat(500_000)));

    // Beside the old file, and a new file.
    is_full(&mut client, "fs/writeFile", write("old", &"new ".repeat(75_000)));
    is_full(&mut client, "fs/writeFile", write("new", &"new ".repeat(75_000)));
    let copy = |to: &str| json!({"sourcePath": path("filler"), "destinationPath": path(to), "recursive": false});
    is_full(&mut client, "fs/copy", copy("copy"));
    is_full(&mut client, "fs/copy", copy("old"));
    assert!(read(&mut client, "old") == old.as_bytes());
    // In place, because it has another name.
    assert_eq!(client.run(kit::script("ln", &link)).code, 0);
    is_full(&mut client, "fs/writeFile", write("linked", &"new ".repeat(200_000)));
    assert!(read(&mut client, "old") == old.as_bytes());

    let listed = client.call("fs/readDirectory", json!({"path": path("")}));
    let mut names: Vec<&str> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["fileName"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["filler", "linked", "old"]);
    client.call("fs/remove", json!({"path": path("filler")}));
    client.call("fs/writeFile", write("old", &"new ".repeat(75_000)));
    assert!(read(&mut client, "linked") == "new ".repeat(75_000).as_bytes());
}
