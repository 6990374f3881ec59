//! What a client is told, and that it may be told that now.

use super::{Client, Command, Event, Kind, Run, bytes, mode};
use serde_json::Value;

impl Client {
    pub(super) fn received(&mut self, message: Value) {
        if let Some(method) = message["method"].as_str() {
            assert!(message.get("id").is_none(), "the server asks: {message}");
            return self.notified(method, &message["params"]);
        }
        let id = message["id"].to_string();
        let answer = match (message.get("result"), message.get("error")) {
            (Some(result), None) => Ok(result.clone()),
            (None, Some(error)) => {
                assert!(error["code"].is_i64() && error["message"].is_string(), "{message}");
                Err(error.clone())
            }
            _ => panic!("no answer: {message}"),
        };
        if id == "-1" {
            assert!(self.complaints > 0 && answer.is_err(), "out of the blue: {message}");
            self.complaints -= 1;
            return;
        }
        let Some(open) = self.open.get_mut(&id) else {
            panic!("not asked, or answered before: {message}");
        };
        let number = open.remove(0);
        if open.is_empty() {
            self.open.remove(&id);
        }
        self.answered(number, answer);
    }

    fn answered(&mut self, number: usize, answer: Result<Value, Value>) {
        if let (Kind::Start { name, command }, Ok(result)) = (&self.requests[number].kind, &answer) {
            assert_eq!(result["processId"], **name);
            if name.starts_with('f') {
                self.first_wire.entry(name.clone()).or_default().0 += 1;
            } else {
                assert!(*command != Command::Missing, "nothing was started");
                self.named.insert(name.clone(), self.runs.len());
                self.runs.push(Run {
                    name: name.clone(),
                    command: *command,
                    start: number,
                    events: Vec::new(),
                    exit: None,
                    closed: false,
                });
            }
        }
        self.requests[number].answer = Some(answer);
    }

    fn notified(&mut self, method: &str, params: &Value) {
        let name = params["processId"].as_str().unwrap_or_default();
        let seq = params["seq"].as_u64().unwrap_or_default();
        match method {
            "process/output" => self.event(name, seq, Event::Output(bytes(&params["chunk"]))),
            "process/exited" => self.event(name, seq, Event::Exited(params["exitCode"].as_i64().expect("a code"))),
            "process/closed" => self.event(name, seq, Event::Closed),
            "command/exec/outputDelta" => assert!(self.first_wire.contains_key(name), "not started: {name}"),
            "command/exec/exited" => {
                let (started, exited) = self.first_wire.get_mut(name).expect("not started");
                *exited += 1;
                assert!(exited <= started, "{name} has exited twice");
            }
            "fs/missingChanged" => {}
            _ => panic!("{method} {params}"),
        }
    }

    pub(super) fn event(&mut self, name: &str, seq: u64, event: Event) {
        let Some(run) = self.named.get(name) else {
            panic!("an event of {name}, which is not started");
        };
        let run = &mut self.runs[*run];
        assert_eq!(seq, run.events.len() as u64 + 1, "{name} has a gap");
        assert!(!run.closed, "{name} goes on after its end");
        let mut output = Vec::new();
        match event {
            Event::Output(bytes) => output = bytes,
            Event::Exited(code) => assert_eq!(run.exit.replace(code), None, "{name} exits twice"),
            Event::Closed => {
                assert!(run.exit.is_some(), "{name} is closed before it exits");
                run.closed = true;
            }
        }
        run.events.push(output);
        if self.mode & mode::LATE_ACKS == 0 {
            self.send_acknowledgement(name, seq);
        }
    }
}
