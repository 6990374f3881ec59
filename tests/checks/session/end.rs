//! The end of a session, and what must have become of everything.

use super::{Client, Command, Kind, NAMES, Request, Run, Wire, bytes, mode};
use serde_json::json;
use std::collections::HashSet;
use std::net::Shutdown;

impl Client {
    /// Lets all commands come to their end, and checks what has become of everything.
    pub(super) fn finish(&mut self) {
        // Late or not, now everything is acknowledged as it comes.
        self.mode &= !mode::LATE_ACKS;
        self.synchronize();
        let is_start = |kind: &Kind| matches!(kind, Kind::Start { .. });
        self.wait(|client| {
            !client
                .open
                .values()
                .flatten()
                .any(|n| is_start(&client.requests[*n].kind))
        });
        for run in 0..self.runs.len() {
            let (name, seq) = (self.runs[run].name.clone(), self.runs[run].events.len() as u64);
            if self.named[&name] == run {
                self.send_acknowledgement(&name, seq);
            }
        }
        for run in 0..self.runs.len() {
            self.end(run);
        }
        for name in self.first_wire.keys().cloned().collect::<Vec<_>>() {
            self.request("command/exec/terminate", json!({"processId": name}), Kind::Other);
        }
        self.wait(|client| client.open.is_empty() && client.complaints == 0);
        // One of two of the same name may say no more once the other one runs.
        self.wait(|client| client.first_wire.values().all(|(_, exited)| *exited > 0));
        // Nothing more comes than there should.
        self.synchronize();
        for run in &self.runs {
            self.check_run(run);
        }
        self.check_reads();
    }

    /// Lets a command come to its end: `cat` by the end of its input, others by themselves or by force.
    fn end(&mut self, run: usize) {
        let (name, command) = (self.runs[run].name.clone(), self.runs[run].command);
        let mut ends = command != Command::Terminal;
        if command == Command::Cat(true) && !self.runs[run].closed {
            self.send_write(name.clone(), format!("the last of {run}"), Vec::new(), true);
            let last = self.requests.len() - 1;
            self.wait(|client| client.requests[last].answer.is_some());
            ends = !matches!(self.requests[last].answer, Some(Err(_)));
        }
        if !ends && !self.runs[run].closed {
            self.request("process/terminate", json!({"processId": name}), Kind::Kill { name });
        }
        self.wait(|client| client.runs[run].closed);
    }

    /// Has all commands terminated and says that nothing more comes: everything is answered all the same.
    pub(super) fn half_close(&mut self) {
        for name in NAMES {
            self.request(
                "process/terminate",
                json!({"processId": name}),
                Kind::Kill { name: name.into() },
            );
        }
        match &mut self.wire {
            // In a program there is no such thing.
            Wire::Memory(_) => return,
            Wire::Lines(lines) => lines.get_mut().shutdown(Shutdown::Write).expect("a socket"),
        }
        // What is acknowledged after that is not heard.
        self.mode |= mode::LATE_ACKS;
        while self.receive() {}
        assert!(
            self.open.is_empty() && self.complaints == 0,
            "at the end: {}",
            self.state()
        );
    }

    /// The run that a request was about, if it is known.
    fn run_of(&self, name: &str, request: usize) -> Option<usize> {
        self.runs
            .iter()
            .rposition(|run| run.name == name && run.start < request)
    }

    fn check_run(&self, run: &Run) {
        let shown = (&run.name, run.command, run.exit);
        assert!(run.closed, "{shown:?} has no end");
        let next = self
            .runs
            .iter()
            .find(|other| other.name == run.name && other.start > run.start);
        let mine = run.start..next.map_or(usize::MAX, |next| next.start);
        let requests = self.requests.iter().enumerate().filter(|(n, _)| mine.contains(n));
        let killed =
            |(_, request): (usize, &Request)| matches!(&request.kind, Kind::Kill { name } if *name == run.name);
        let is_killed = requests.clone().any(killed);
        let output = run.events.concat();
        let whole = match run.command {
            Command::True | Command::False | Command::Cat(false) => Vec::new(),
            Command::Zeros(n) => vec![0; n],
            Command::Cat(true) => {
                let mut input = Vec::new();
                let mut ids = HashSet::new();
                for (_, request) in requests {
                    if let (Kind::Write { name, id, content }, Some(Ok(answer))) = (&request.kind, &request.answer)
                        && *name == run.name
                        && answer["status"] != "unknownProcess"
                        // Of what was refused at the end something may have been read all the same.
                        && (answer["status"] == "accepted" || is_killed)
                        && ids.insert(id)
                    {
                        input.extend_from_slice(content);
                    }
                }
                input
            }
            Command::Terminal | Command::Missing => return,
        };
        assert!(whole.starts_with(&output), "{shown:?}: other output");
        if !is_killed {
            assert!(whole == output, "{shown:?}: {} bytes of {}", output.len(), whole.len());
            assert_eq!(run.exit, Some(i64::from(run.command == Command::False)), "{shown:?}");
        }
    }

    /// What was read is what was told.
    fn check_reads(&self) {
        for (number, request) in self.requests.iter().enumerate() {
            let (Kind::Read { name }, Some(Ok(answer))) = (&request.kind, &request.answer) else {
                continue;
            };
            let Some(run) = self.run_of(name, number).map(|run| &self.runs[run]) else {
                continue;
            };
            let mut last = 0;
            for chunk in answer["chunks"].as_array().expect("chunks") {
                let seq = chunk["seq"].as_u64().expect("a number");
                assert!(seq > last, "{answer}");
                last = seq;
                assert!(
                    run.events.get(seq as usize - 1) == Some(&bytes(&chunk["chunk"])),
                    "output {seq} of {name} is another one"
                );
            }
            let next = answer["nextSeq"].as_u64().expect("a number");
            assert!(last < next && next <= run.events.len() as u64 + 1, "{answer}");
        }
    }
}
