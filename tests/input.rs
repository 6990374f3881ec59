//! Input: in order, once, to its end.

mod kit;

use kit::{Dir, base64, both, on_terminal, program, script, with_stdin, write};
use serde_json::json;

/// More than is queued for a process before the answers to writes wait.
const MUCH: usize = 2 * 1024 * 1024;

#[test]
fn writes_arrive_in_the_order_they_were_sent() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        let numbers: Vec<String> = (0..300).map(|n| format!("{n}\n")).collect();
        let writes = numbers.iter().map(|n| (n, write("a", n, n)));
        let ids: Vec<i64> = writes
            .map(|(_, write)| client.request("process/write", write))
            .collect();
        for id in ids {
            assert_eq!(client.result(id)["status"], "accepted");
        }
        assert_eq!(client.output_until("a", "299\n"), numbers.concat());
    });
}

#[test]
fn a_large_write_arrives_whole() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        let text: String = (0..400_000).map(|n| format!("{n}\n")).collect();
        assert!(text.len() > MUCH);
        client.request("process/write", write("a", "1", &text));
        client.request(
            "process/write",
            json!({"processId": "a", "writeId": "2", "closeStdin": true}),
        );
        assert!(client.finish("a").stdout == text.as_bytes());
    });
}

#[test]
fn a_write_that_is_repeated_counts_once() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        for (id, input) in [
            ("1", "one "),
            ("1", "one "),
            ("1", "other "),
            ("2", "two "),
            ("1", "one "),
            ("3", "end"),
        ] {
            assert_eq!(client.write("a", id, input), "accepted");
        }
        assert_eq!(client.output_until("a", "end"), "one two end");
    });
}

#[test]
fn input_ends_when_the_client_says_so() {
    both(|_, client| {
        client.start(with_stdin(program("pipe", &["/bin/cat"])));
        let mut last = write("pipe", "1", "last words");
        last["closeStdin"] = true.into();
        assert_eq!(client.call("process/write", last.clone())["status"], "accepted");
        assert_eq!(client.call("process/write", last)["status"], "accepted");
        let run = client.finish("pipe");
        assert_eq!((&run.stdout[..], run.code), (&b"last words"[..], 0));

        client.start(on_terminal(script("tty", "stty -echo; echo ready; cat; echo ended")));
        client.output_until("tty", "ready\r\n");
        assert_eq!(client.write("tty", "1", "line\n"), "accepted");
        let end = json!({"processId": "tty", "writeId": "2", "closeStdin": true});
        assert_eq!(client.call("process/write", end)["status"], "accepted");
        let run = client.finish("tty");
        assert_eq!((&run.pty[..], run.code), (&b"line\r\nended\r\n"[..], 0));
    });
}

#[test]
fn a_full_pipe_holds_up_nothing_but_its_own_writes() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/sleep", "1000"])));
        let full = client.request("process/write", write("a", "1", &"x".repeat(MUCH)));
        let behind = client.request("process/write", write("a", "2", "y"));
        assert!(!client.is_answered(full) && !client.is_answered(behind));
        assert_eq!(client.run(program("b", &["/bin/echo", "hi"])).stdout, b"hi\n");
        let terminated = client.call("process/terminate", json!({"processId": "a"}));
        assert_eq!(terminated, json!({"running": true}));
        assert_eq!(client.result(full)["status"], "stdinClosed");
        assert_eq!(client.result(behind)["status"], "stdinClosed");
        assert_eq!(client.finish("a").code, 137);
    });
}

#[test]
fn a_write_beyond_what_is_queued_is_answered_when_the_process_reads() {
    both(|_, client| {
        let dir = Dir::new();
        let fifo = dir.path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = format!("cat {}; wc -c", fifo.display());
        client.start(with_stdin(script("a", &text)));
        let mut much = write("a", "1", &"x".repeat(MUCH));
        much["closeStdin"] = true.into();
        let much = client.request("process/write", much);
        assert!(!client.is_answered(much));
        std::fs::write(&fifo, "").unwrap();
        assert_eq!(client.result(much)["status"], "accepted");
        assert_eq!(client.finish("a").stdout, format!("{MUCH}\n").as_bytes());
    });
}

#[test]
fn a_write_that_nobody_will_read_is_told_so() {
    both(|_, client| {
        assert_eq!(client.write("nobody", "1", "x"), "unknownProcess");
        client.start(program("no stdin", &["/bin/sleep", "1000"]));
        assert_eq!(client.write("no stdin", "1", "x"), "stdinClosed");
        for start in [
            with_stdin(program("pipe", &["/bin/true"])),
            on_terminal(program("tty", &["/bin/true"])),
        ] {
            let id = start["processId"].as_str().unwrap().to_owned();
            client.run(start);
            assert_eq!(client.write(&id, "1", "x"), "stdinClosed");
        }
        client.start(with_stdin(script("closed", "exec 0<&-; echo closed; exec sleep 1000")));
        client.output_until("closed", "closed");
        assert_eq!(client.write("closed", "1", "x"), "stdinClosed");
    });
}

#[test]
fn a_write_must_make_sense() {
    both(|_, client| {
        client.start(with_stdin(program("a", &["/bin/cat"])));
        for params in [
            json!({"processId": "a", "writeId": "", "chunk": base64("x")}),
            json!({"processId": "a", "chunk": base64("x")}),
            json!({"processId": "a", "writeId": "1"}),
            json!({"processId": "a", "writeId": "1", "chunk": "no base64"}),
            json!({"processId": "a", "writeId": "1", "chunk": "eA"}),
        ] {
            assert_eq!(client.refusal("process/write", params).0, -32602);
        }
        assert_eq!(client.write("a", "1", ""), "accepted");
        assert_eq!(client.write("a", "2", "end"), "accepted");
        assert_eq!(client.output_until("a", "end"), "end");
    });
}
