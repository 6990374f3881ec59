//! `exec-server cp`: files from and to a server.

#![cfg(feature = "client")]

mod kit;

use kit::{Cli, Dir, Fault, FaultProxy, Server, cli, command, scripted};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

/// Calls `test` with the arguments that name each kind of server.
fn everywhere(test: impl Fn(&[&str])) {
    let spawn = format!("{} --listen stdio", kit::exec_server());
    let server = Server::websocket(&[]);
    for place in [
        &["cp"][..],
        &["cp", "--spawn", &spawn],
        &["cp", "--connect", server.url()],
    ] {
        println!("{place:?}");
        test(place);
    }
}

fn remote(path: &Path) -> String {
    format!("remote:{}", path.display())
}

fn local(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn copies(place: &[&str], arguments: &[&str]) {
    let ended = cli(&[place, arguments].concat());
    assert_eq!((ended.code, ended.text(), &*ended.stderr), (0, "", ""), "{arguments:?}");
}

/// The message with which a copy fails.
#[track_caller]
fn fails(place: &[&str], arguments: &[&str]) -> String {
    let ended = cli(&[place, arguments].concat());
    assert_eq!((ended.code, ended.text()), (1, ""), "{arguments:?}: {}", ended.stderr);
    ended.stderr
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_of_any_size_arrive_whole() {
    const BLOCK: usize = 1024 * 1024;
    let dir = Dir::new();
    let [from, there, back] = ["from", "there", "back"].map(|name| dir.path(name));
    everywhere(|place| {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 12_345] {
            let content: Vec<u8> = (0..len as u32).map(|n| (n ^ (n >> 11)) as u8).collect();
            fs::write(&from, &content).unwrap();
            copies(place, &[&local(&from), &remote(&there)]);
            assert!(fs::read(&there).unwrap() == content, "{len} bytes sent");
            copies(place, &[&remote(&there), &local(&back)]);
            assert!(fs::read(&back).unwrap() == content, "{len} bytes fetched");
        }
        // What was there before is gone, and its mode is kept.
        fs::set_permissions(&back, PermissionsExt::from_mode(0o640)).unwrap();
        fs::write(&from, "short").unwrap();
        copies(place, &[&remote(&from), &local(&back)]);
        assert_eq!(fs::read(&back).unwrap(), b"short");
        assert_eq!(fs::metadata(&back).unwrap().permissions().mode() & 0o777, 0o640);
    });
    assert_eq!(names(&dir.path("")), ["back", "from", "there"]);
}

#[test]
fn a_directory_as_destination_gets_the_file_into_it() {
    let dir = Dir::new();
    fs::write(dir.path("file"), "content").unwrap();
    for name in ["one", "two"] {
        fs::create_dir(dir.path(name)).unwrap();
    }
    copies(&["cp"], &[&remote(&dir.path("file")), &local(&dir.path("one"))]);
    copies(&["cp"], &[&local(&dir.path("file")), &remote(&dir.path("two"))]);
    assert_eq!(fs::read(dir.path("one/file")).unwrap(), b"content");
    assert_eq!(fs::read(dir.path("two/file")).unwrap(), b"content");
    // Relative paths count from the working directory, which is the server's.
    let mut relative = command(&["cp", "remote:file", "copy"]);
    let ended = Cli::run(relative.stdin(Stdio::null()).current_dir(dir.path("")));
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    assert_eq!(fs::read(dir.path("copy")).unwrap(), b"content");
    for arguments in [
        [remote(&dir.path("file")), format!("{}/", dir.path("no").display())],
        [local(&dir.path("file")), format!("{}/", remote(&dir.path("no")))],
    ] {
        fails(&["cp"], &arguments.each_ref().map(String::as_str));
        assert!(!dir.path("no").exists());
    }
}

#[test]
fn directories_are_copied_with_all_that_is_in_them() {
    let dir = Dir::new();
    let tree = dir.path("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    for (name, content) in [("x", "1"), ("a/y z", "22"), ("a/b/é", "333")] {
        fs::write(tree.join(name), content).unwrap();
    }
    symlink("x", tree.join("link")).unwrap();
    everywhere(|place| {
        let [there, back] = ["there", "back"].map(|name| dir.path(name));
        copies(place, &["-r", &local(&tree), &remote(&there)]);
        copies(place, &["-r", &remote(&there), &local(&back)]);
        for copy in [&there, &back] {
            assert_eq!(names(copy), ["a", "empty", "link", "x"]);
            assert_eq!(fs::read(copy.join("a/b/é")).unwrap(), b"333");
            assert_eq!(fs::read(copy.join("a/y z")).unwrap(), b"22");
            assert_eq!(fs::read(copy.join("link")).unwrap(), b"1");
            fs::remove_dir_all(copy).unwrap();
        }
        assert!(fails(place, &[&remote(&tree), &local(&back)]).contains("a directory; -r copies it"));
        assert!(fails(place, &[&local(&tree), &remote(&back)]).contains("a directory; -r copies it"));
    });
}

#[test]
fn what_cannot_be_copied_is_left_out_and_told() {
    let dir = Dir::new();
    let tree = dir.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    symlink(".", tree.join("loop")).unwrap();
    nix::unistd::mkfifo(&tree.join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    let [there, back] = ["there", "back"].map(|name| dir.path(name));
    for (arguments, copy) in [
        ([local(&tree), remote(&there)], &there),
        ([remote(&tree), local(&back)], &back),
    ] {
        let said = fails(&["cp", "-r"], &arguments.each_ref().map(String::as_str));
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("fifo: neither a file nor a directory"), "{said}");
        assert!(said.contains("loop: a link to a directory"), "{said}");
        assert_eq!(names(copy), ["file"]);
    }
    let missing = dir.path("missing");
    assert!(fails(&["cp"], &[&remote(&missing), &local(&back)]).contains("No such file"));
    assert!(fails(&["cp"], &[&local(&missing), &remote(&back)]).contains("No such file"));
    assert_eq!(cli(&["cp", "a", "b"]).code, 2);
}

#[test]
fn a_pipe_is_copied_as_it_comes() {
    let dir = Dir::new();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ (n >> 7)) as u8).collect();
    let mut send = Cli::start(&["cp", "/dev/stdin", &remote(&dir.path("file"))]);
    send.write(&content);
    send.close_input();
    assert_eq!(send.finish().code, 0);
    assert!(fs::read(dir.path("file")).unwrap() == content);
    let ended = cli(&["cp", &remote(&dir.path("file")), "/dev/stdout"]);
    assert!(ended.code == 0 && ended.stdout == content);
}

#[test]
fn nothing_half_is_left_of_a_copy_that_fails() {
    let server = Server::websocket(&[]);
    let dir = Dir::new();
    fs::write(dir.path("from"), vec![7; 8_000_000]).unwrap();
    fs::create_dir(dir.path("to")).unwrap();
    fs::write(dir.path("to/file"), "before").unwrap();
    let (from, to) = (remote(&dir.path("from")), local(&dir.path("to/file")));
    let proxy = FaultProxy::new(server.address().parse().unwrap(), |n| match n {
        0 => (Fault::Cut, 5_000_000),
        _ => (Fault::None, 0),
    });
    let said = fails(&["cp", "--connect", &proxy.url()], &[&from, &to]);
    assert!(said.contains("disconnected"), "{said}");
    assert_eq!(fs::read(dir.path("to/file")).unwrap(), b"before");
    assert_eq!(names(&dir.path("to")), ["file"]);
}

#[test]
fn a_signal_ends_a_copy_and_leaves_nothing() {
    let dir = Dir::new();
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        let request = server.request("fs/getMetadata");
        let times = json!({"createdAtMs": 0, "modifiedAtMs": 0});
        let mut metadata = json!({"isDirectory": false, "isFile": true, "isSymlink": false, "size": 1});
        metadata
            .as_object_mut()
            .unwrap()
            .extend(times.as_object().unwrap().clone());
        server.answer(&request, metadata);
        let request = server.request("fs/open");
        server.answer(&request, json!({"handleId": request["params"]["handleId"]}));
        // The block never comes.
        server.request("fs/readBlock");
        while server.socket().read().is_ok() {}
    });
    let to = local(&dir.path("file"));
    let copy = Cli::start(&["cp", "--connect", &url, "remote:/from", &to]);
    kit::until("the temporary file", || (names(&dir.path("")).len() == 1).then_some(()));
    copy.signal(Signal::SIGINT);
    assert_eq!(copy.finish().code, 130);
    assert!(names(&dir.path("")).is_empty());
    script.join().unwrap();
}
