//! Output: complete, unchanged, in order, and to be read again.

mod kit;

use kit::{Client, Dir, Server, both, bytes, on_terminal, program, script, until, wait_until_blocked, with_stdin};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn pid_of(client: &mut Client, id: &str) -> i32 {
    let list = client.call("process/list", Value::Null);
    let listed = list["processes"].as_array().unwrap();
    listed.iter().find(|p| p["processId"] == id).unwrap()["pid"]
        .as_i64()
        .unwrap() as i32
}

fn read(client: &mut Client, params: Value) -> Value {
    client.call("process/read", params)
}

fn output_of(read: &Value) -> Vec<u8> {
    let chunks = read["chunks"].as_array().unwrap().iter();
    chunks.flat_map(|chunk| bytes(&chunk["chunk"])).collect()
}

#[test]
fn every_byte_comes_unchanged() {
    both(|_, client| {
        let dir = Dir::new();
        let all: Vec<u8> = (0..10_000).map(|i| (i % 256) as u8).collect();
        std::fs::write(dir.path("all"), &all).unwrap();
        let file = dir.path("all").display().to_string();
        let run = client.run(script("a", &format!("cat {file}; cat {file} >&2")));
        assert!(run.stdout == all && run.stderr == all);
        let run = client.run(on_terminal(script("b", &format!("stty raw; cat {file}"))));
        assert!(run.pty == all);
    });
}

#[test]
fn a_client_that_pauses_misses_nothing_and_costs_no_memory() {
    both(|server, client| {
        client.start(with_stdin(script("a", "read x; exec seq 1 3000000")));
        let pid = pid_of(client, "a");
        client.write("a", "1", "\n");
        wait_until_blocked(pid);
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        let kilobytes: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kilobytes < 32 * 1024, "{resident}");
        let run = client.finish("a");
        let expected: String = (1..=3_000_000).map(|n| format!("{n}\n")).collect();
        assert!(run.stdout == expected.as_bytes());
    });
}

#[test]
fn a_noisy_process_holds_up_no_other() {
    both(|_, client| {
        client.start(program("noisy", &["/usr/bin/yes"]));
        for i in 0..10 {
            assert_eq!(
                client.run(program(&format!("p{i}"), &["/bin/echo", "hi"])).stdout,
                b"hi\n"
            );
        }
        client.call("process/terminate", json!({"processId": "noisy"}));
        client.finish("noisy");
    });
}

#[test]
fn a_waiting_read_is_woken_by_output_exit_and_close_and_holds_up_nothing() {
    both(|_, client| {
        let dir = Dir::new();
        let fifo = dir.path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = format!("cat {} & read x; echo $x; read x", fifo.display());
        client.start(with_stdin(script("a", &text)));
        let wait = |client: &mut Client, after: u64, then: &dyn Fn(&mut Client)| {
            let poll = json!({"processId": "a", "afterSeq": after, "waitMs": u64::MAX});
            let poll = client.request("process/read", poll);
            assert!(!client.is_answered(poll));
            then(client);
            client.result(poll)
        };
        let woken = wait(client, 0, &|client| drop(client.write("a", "1", "hi\n")));
        assert_eq!((output_of(&woken), &woken["exited"]), (b"hi\n".to_vec(), &json!(false)));
        let woken = wait(client, 1, &|client| drop(client.write("a", "2", "\n")));
        assert_eq!((&woken["exitCode"], &woken["closed"]), (&json!(0), &json!(false)));
        let woken = wait(client, 2, &|_| std::fs::write(&fifo, "").unwrap());
        assert_eq!((&woken["closed"], &woken["nextSeq"]), (&json!(true), &json!(4)));
        let at_once = json!({"processId": "a", "afterSeq": 99, "waitMs": u64::MAX});
        assert_eq!(read(client, at_once)["nextSeq"], 4);
    });
}

#[test]
fn a_waiting_read_ends_when_its_time_is_over() {
    both(|_, client| {
        client.start(program("a", &["/bin/sleep", "1000"]));
        let start = Instant::now();
        let poll = read(client, json!({"processId": "a", "waitMs": 60}));
        assert!(start.elapsed() >= Duration::from_millis(60));
        let expected = json!({"chunks": [], "nextSeq": 1, "exited": false, "exitCode": null, "closed": false,
            "failure": null, "sandboxDenied": false, "firstSeq": 1, "lostBytes": 0});
        assert_eq!(poll, expected);
        assert_eq!(
            client
                .refusal("process/read", json!({"processId": "nobody", "waitMs": 60}))
                .0,
            -32600
        );
    });
}

#[test]
fn many_reads_may_wait_and_too_many_are_refused() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        let poll = json!({"processId": "a", "waitMs": u64::MAX});
        let polls: Vec<i64> = (0..1024)
            .map(|_| client.request("process/read", poll.clone()))
            .collect();
        assert_eq!(client.refusal("process/read", poll).0, -32603);
        assert!(!client.is_answered(polls[0]));
        client.write("a", "1", "hi");
        for poll in polls {
            assert_eq!(output_of(&client.result(poll)), b"hi");
        }
    });
}

#[test]
fn a_read_with_a_limit_gives_whole_chunks_and_where_to_go_on() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        for n in 0..5 {
            assert_eq!(client.write("a", &n.to_string(), &format!("chunk {n}\n")), "accepted");
            client.output_until("a", "\n");
        }
        let mut page = |after: u64, max: u64| {
            let page = read(client, json!({"processId": "a", "afterSeq": after, "maxBytes": max}));
            let output = String::from_utf8(output_of(&page)).unwrap();
            (output, page["nextSeq"].as_u64().unwrap())
        };
        assert_eq!(page(0, 0), ("chunk 0\n".into(), 2));
        assert_eq!(page(1, 15), ("chunk 1\n".into(), 3));
        assert_eq!(page(1, 16), ("chunk 1\nchunk 2\n".into(), 4));
        assert_eq!(page(3, 1000), ("chunk 3\nchunk 4\n".into(), 6));
        assert_eq!(page(5, 1000), (String::new(), 6));
        let code = client
            .refusal("process/read", json!({"processId": "a", "maxBytes": -1}))
            .0;
        assert_eq!(code, -32602);
    });
}

#[test]
fn what_a_detached_process_says_is_kept_from_its_end_and_the_loss_is_counted() {
    const SAID: u64 = 5 * 1024 * 1024;
    let server = Server::websocket(&[]);
    let dir = Dir::new();
    let fifo = dir.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut client = server.client();
    client.start(script(
        "a",
        &format!("echo first; cat {}; head -c {SAID} /dev/zero", fifo.display()),
    ));
    client.output_until("a", "first");
    let session = client.session.clone();
    drop(client);
    // The cut is noticed by the time the session can be resumed.
    let mut between = until("a free session", || {
        let mut client = server.connect();
        let params = json!({"clientName": "test", "resumeSessionId": session});
        let id = client.request("initialize", params);
        client.answer(id).get("result").is_some().then_some(client)
    });
    between.websocket().close(None).unwrap();
    assert!(between.rest().is_empty());
    std::fs::write(&fifo, "").unwrap();
    let mut client = server.connect();
    client.resume(&session);
    let mut after = 1;
    while !{
        let poll = read(
            &mut client,
            json!({"processId": "a", "afterSeq": after, "waitMs": u64::MAX}),
        );
        after = poll["nextSeq"].as_u64().unwrap() - 1;
        poll["closed"].as_bool().unwrap()
    } {}
    let all = read(&mut client, json!({"processId": "a"}));
    let kept = output_of(&all).len() as u64;
    assert!((900_000..=1024 * 1024).contains(&kept), "{kept}");
    assert_eq!(all["lostBytes"], 6 + SAID - kept);
    let first = all["firstSeq"].as_u64().unwrap();
    assert_eq!(all["chunks"][0]["seq"], first);
    let seen = read(&mut client, json!({"processId": "a", "afterSeq": 1}));
    assert_eq!(seen["lostBytes"], SAID - kept);
    let tail = read(&mut client, json!({"processId": "a", "afterSeq": first - 1}));
    assert_eq!((&tail["lostBytes"], output_of(&tail).len() as u64), (&json!(0), kept));
}
