//! What a client does while calls of the system fail: a bit of everything. Each request must have its answer, or the
//! connection must end; nothing may hang.

use crate::kit::children;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tungstenite::{Error, Message, WebSocket};

/// How long an answer may take: far more than it does, on a machine that is busy and under a tracer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The bytes that are sent through commands and files.
const TEXT: &str = "aGVsbG8K";

/// One connection.
pub(crate) trait Wire {
    /// False once the other end is gone.
    fn send(&mut self, text: &str) -> bool;
    /// What comes next.
    fn next(&mut self, until: Instant) -> Next;
}

/// What comes on a connection.
pub(crate) enum Next {
    Message(Value),
    /// The end, and what was said about it.
    End(String),
    /// Nothing until the time was over.
    Nothing,
}

fn is_patient(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// A WebSocket whose reads have a time limit of some milliseconds.
pub(crate) struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// Connects to `address`.
    pub(crate) fn connect(address: &str) -> Result<Socket, String> {
        let stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let upgraded = tungstenite::client::client(format!("ws://{address}"), stream);
        let (socket, _) = upgraded.map_err(|e| e.to_string())?;
        let limit = Some(Duration::from_millis(20));
        socket.get_ref().set_read_timeout(limit).unwrap();
        Ok(Socket(socket))
    }
}

impl Wire for Socket {
    fn send(&mut self, text: &str) -> bool {
        self.0.send(Message::text(text)).is_ok()
    }

    fn next(&mut self, until: Instant) -> Next {
        let mut said = String::new();
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Next::Message(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Close(Some(frame))) => said = format!("{} {}", u16::from(frame.code), frame.reason),
                Ok(_) => {}
                Err(Error::Io(e)) if is_patient(e.kind()) && Instant::now() < until => {}
                Err(Error::Io(e)) if is_patient(e.kind()) => return Next::Nothing,
                Err(e) if said.is_empty() => return Next::End(e.to_string()),
                Err(_) => return Next::End(said),
            }
        }
    }
}

/// How a round went.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Requests that were answered with an error, with its words; but for those that are to fail.
    pub(crate) refused: Vec<String>,
    /// How the connection ended before its time, and after which request.
    pub(crate) ended: Option<String>,
    /// What must never be: no answer, two answers, a lost byte.
    pub(crate) wrong: Option<String>,
}

impl Round {
    /// Whether everything was as it is without a fault.
    pub(crate) fn is_clean(&self) -> bool {
        self.refused.is_empty() && self.ended.is_none() && self.wrong.is_none()
    }
}

/// Why a round stops.
enum Stop {
    Ended(String),
    Wrong(String),
}

type Step<T> = Result<T, Stop>;

struct Talk<'a> {
    wire: &'a mut dyn Wire,
    last_id: u64,
    answered: HashSet<u64>,
    refused: &'a mut Vec<String>,
}

impl Talk<'_> {
    fn tell(&mut self, message: &Value, what: &str) -> Step<()> {
        if self.wire.send(&message.to_string()) {
            return Ok(());
        }
        // There may be word of why.
        match self.wire.next(Instant::now() + PATIENCE) {
            Next::End(how) => Err(Stop::Ended(format!("at {what}: {how}"))),
            _ => Err(Stop::Ended(format!("at {what}: nothing can be sent"))),
        }
    }

    /// Asks, and waits for the one answer.
    fn try_ask(&mut self, method: &str, params: Value) -> Step<Result<Value, String>> {
        self.last_id += 1;
        let id = self.last_id;
        self.tell(&json!({"id": id, "method": method, "params": params}), method)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let message = match self.wire.next(until) {
                Next::Message(message) => message,
                Next::End(how) => return Err(Stop::Ended(format!("at {method}: {how}"))),
                Next::Nothing => return Err(Stop::Wrong(format!("{method} is not answered"))),
            };
            let Some(answered) = message["id"].as_u64() else {
                continue;
            };
            if message.get("method").is_some() {
                continue;
            }
            if answered > id || !self.answered.insert(answered) {
                return Err(Stop::Wrong(format!("an answer too many: {message:.200}")));
            }
            if answered != id {
                continue;
            }
            return Ok(match message.get("error") {
                None => Ok(message["result"].clone()),
                Some(error) => Err(format!(
                    "{} {}",
                    error["code"],
                    error["message"].as_str().unwrap_or("?")
                )),
            });
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Step<Option<Value>> {
        Ok(match self.try_ask(method, params)? {
            Ok(result) => Some(result),
            Err(error) => {
                self.refused.push(format!("{method}: {error}"));
                None
            }
        })
    }

    fn handshake(&mut self, resume: Option<&str>) -> Step<Option<String>> {
        let params = json!({"clientName": "faults", "resumeSessionId": resume});
        let until = Instant::now() + PATIENCE;
        let opened = loop {
            match self.try_ask("initialize", params.clone())? {
                Ok(opened) => break opened,
                // The connection before is still ending.
                Err(e) if e.starts_with("-32010") && Instant::now() < until => {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                Err(e) => {
                    self.refused.push(format!("initialize: {e}"));
                    return Ok(None);
                }
            }
        };
        self.tell(&json!({"method": "initialized"}), "initialized")?;
        Ok(opened["sessionId"].as_str().map(str::to_owned))
    }

    fn start(&mut self, id: &str, argv: &[&str], more: Value) -> Step<bool> {
        let mut params = json!({"processId": id, "argv": argv, "cwd": "file:///tmp", "tty": false, "pipeStdin": true,
            "env": {"PATH": "/usr/bin:/bin"}});
        if let Some(more) = more.as_object() {
            params.as_object_mut().unwrap().extend(more.clone());
        }
        Ok(self.ask("process/start", params)?.is_some())
    }

    /// Reads what a process says until `is_enough`, or it is closed, and returns how many bytes it has said.
    fn read_until(&mut self, id: &str, is_enough: impl Fn(usize) -> bool) -> Step<usize> {
        let (mut after, mut said) = (0, 0);
        let until = Instant::now() + PATIENCE;
        loop {
            let params = json!({"processId": id, "afterSeq": after, "waitMs": 500});
            let Some(read) = self.ask("process/read", params)? else {
                return Ok(said);
            };
            for chunk in read["chunks"].as_array().into_iter().flatten() {
                said += chunk["chunk"].as_str().map_or(0, str::len) * 3 / 4;
            }
            if let Some(failure) = read["failure"].as_str() {
                self.refused.push(format!("process/read failure: {failure}"));
            }
            if read["closed"] == true || is_enough(said) {
                return Ok(said);
            }
            after = read["nextSeq"].as_u64().unwrap_or(1) - 1;
            if Instant::now() > until {
                return Err(Stop::Wrong(format!("{id} says nothing more after {said} bytes")));
            }
        }
    }

    /// Writes, and ends the process if it could not be written to.
    fn write(&mut self, id: &str, write_id: &str) -> Step<()> {
        let params = json!({"processId": id, "writeId": write_id, "chunk": TEXT});
        let written = self.ask("process/write", params)?;
        if written.is_none_or(|written| written["status"] != "accepted") {
            self.refused.push(format!("process/write to {id}: not accepted"));
            self.ask("process/terminate", json!({"processId": id}))?;
        }
        Ok(())
    }

    fn pipes(&mut self) -> Step<()> {
        if self.start("pipes", &["cat"], Value::Null)? {
            self.write("pipes", "1")?;
            // What was accepted comes through, or the command ends.
            self.read_until("pipes", |said| said >= 6)?;
            self.ask("process/signal", json!({"processId": "pipes", "signal": "interrupt"}))?;
            self.read_until("pipes", |_| false)?;
        }
        Ok(())
    }

    fn terminal(&mut self) -> Step<()> {
        if self.start("terminal", &["cat"], json!({"tty": true}))? {
            self.ask(
                "process/resize",
                json!({"processId": "terminal", "size": {"rows": 9, "cols": 9}}),
            )?;
            self.write("terminal", "1")?;
            self.read_until("terminal", |said| said >= 6)?;
            self.ask("process/terminate", json!({"processId": "terminal"}))?;
            self.read_until("terminal", |_| false)?;
        }
        Ok(())
    }

    /// A command with a child that leaves its group.
    fn family(&mut self) -> Step<()> {
        let script = "setsid sleep 1000 & echo hello; wait";
        if self.start("family", &["sh", "-c", script], Value::Null)? {
            self.read_until("family", |said| said >= 6)?;
            self.ask("process/terminate", json!({"processId": "family"}))?;
            self.read_until("family", |_| false)?;
        }
        Ok(())
    }

    fn sandboxed(&mut self, dir: &Path) -> Step<()> {
        let special =
            |kind: &str, access: &str| json!({"path": {"type": "special", "value": {"kind": kind}}, "access": access});
        let files =
            json!({"type": "restricted", "entries": [special("root", "read"), special("project_roots", "write")]});
        let root = format!("file://{}", dir.display());
        let sandbox = json!({"permissions": {"type": "managed", "file_system": files, "network": "restricted"},
            "cwd": root, "workspaceRoots": [root], "windowsSandboxLevel": "disabled"});
        if self.start("sandboxed", &["cat"], json!({"cwd": root, "sandbox": sandbox}))? {
            self.write("sandboxed", "1")?;
            self.read_until("sandboxed", |said| said >= 6)?;
            self.ask("process/terminate", json!({"processId": "sandboxed"}))?;
            self.read_until("sandboxed", |_| false)?;
        }
        Ok(())
    }

    fn files(&mut self, dir: &Path) -> Step<()> {
        let path = |name: &str| dir.join(name).display().to_string();
        let large = "aGVs".repeat(100_000);
        self.ask("fs/createDirectory", json!({"path": path("d/e"), "recursive": true}))?;
        self.ask("fs/writeFile", json!({"path": path("d/f"), "dataBase64": TEXT}))?;
        self.ask("fs/writeFile", json!({"path": path("d/f"), "dataBase64": large}))?;
        for name in ["d/f", "missing"] {
            let params = json!({"path": path(name)});
            match self.try_ask("fs/getMetadata", params)? {
                Err(e) if name == "d/f" => self.refused.push(format!("fs/getMetadata: {e}")),
                _ => {}
            }
        }
        if let Some(read) = self.ask("fs/readFile", json!({"path": path("d/f")}))? {
            let len = read["dataBase64"].as_str().map_or(0, str::len);
            if len != large.len() && self.refused.is_empty() {
                return Err(Stop::Wrong(format!("{len} characters of {} were read", large.len())));
            }
        }
        self.ask("fs/readDirectory", json!({"path": path("d")}))?;
        let options = json!({"maxDepth": 9, "maxDirectories": 99, "maxEntries": 99, "followDirectorySymlinks": false});
        self.ask("fs/walk", json!({"path": path("d"), "options": options}))?;
        self.ask("fs/canonicalize", json!({"path": path("d/e/../f")}))?;
        let copy = |to: &str| json!({"sourcePath": path("d"), "destinationPath": path(to), "recursive": true});
        self.ask("fs/copy", copy("copy"))?;
        let copy = |to: &str| json!({"sourcePath": path("d/f"), "destinationPath": path(to), "recursive": false});
        self.ask("fs/copy", copy("d/g"))?;
        if self
            .ask("fs/open", json!({"handleId": "r", "path": path("d/f")}))?
            .is_some()
        {
            self.ask("fs/readBlock", json!({"handleId": "r", "offset": 0, "len": 1000}))?;
            self.ask("fs/close", json!({"handleId": "r"}))?;
        }
        let open = json!({"handleId": "w", "path": path("d/f"), "mode": "replace"});
        if self.ask("fs/open", open)?.is_some() {
            self.ask("fs/writeBlock", json!({"handleId": "w", "offset": 0, "chunk": TEXT}))?;
            self.ask("fs/close", json!({"handleId": "w"}))?;
        }
        self.ask("fs/watchMissing", json!({"watchId": 1, "missing": [path("nothing")]}))?;
        self.ask(
            "fs/remove",
            json!({"path": dir.display().to_string(), "recursive": true, "force": true}),
        )?;
        Ok(())
    }
}

/// Does a bit of everything on a connection that has not said anything yet. `dir` is not there before, and should not be
/// after. Returns the session, and how it went.
pub(crate) fn round(wire: &mut dyn Wire, dir: &Path, parts: &[Part], resume: Option<&str>) -> (Option<String>, Round) {
    let mut round = Round::default();
    let mut session = None;
    let mut talk = Talk {
        wire,
        last_id: 0,
        answered: HashSet::new(),
        refused: &mut round.refused,
    };
    let outcome = (|| {
        session = talk.handshake(resume)?;
        if session.is_none() {
            return Ok(());
        }
        for part in parts {
            match part {
                Part::Kept => drop(talk.start("kept", &["cat"], Value::Null)?),
                Part::Resumed => {
                    talk.write("kept", "1")?;
                    talk.ask("process/terminate", json!({"processId": "kept"}))?;
                    talk.read_until("kept", |_| false)?;
                }
                Part::Environment => drop(talk.ask("environment/info", Value::Null)?),
                Part::Pipes => talk.pipes()?,
                Part::Terminal => talk.terminal()?,
                Part::Family => talk.family()?,
                Part::Sandboxed => talk.sandboxed(dir.parent().unwrap_or(dir))?,
                Part::Files => talk.files(dir)?,
            }
        }
        Ok(())
    })();
    match outcome {
        Ok(()) => {}
        Err(Stop::Ended(how)) => round.ended = Some(how),
        Err(Stop::Wrong(what)) => round.wrong = Some(what),
    }
    (session, round)
}

/// A part of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Start a command that stays for the connection after this one.
    Kept,
    /// End that command, on a connection that has resumed the session.
    Resumed,
    Environment,
    Pipes,
    Terminal,
    Family,
    Sandboxed,
    Files,
}

/// All parts that one connection has to do with.
pub(crate) const ALL: [Part; 6] = [
    Part::Environment,
    Part::Pipes,
    Part::Terminal,
    Part::Family,
    Part::Sandboxed,
    Part::Files,
];

/// What a server holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// The names of its threads. Those of file workers are left out, which come and go by themselves.
    pub(crate) threads: Vec<String>,
    pub(crate) fds: Vec<String>,
    pub(crate) children: Vec<i32>,
}

impl Footprint {
    pub(crate) fn of(pid: i32) -> Footprint {
        let list = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().flatten();
        let names = list("task").filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        let mut threads: Vec<String> = names.filter(|name| !name.starts_with("file-worker")).collect();
        let links = list("fd").filter_map(|fd| fs::read_link(fd.path()).ok());
        let kind = |link: PathBuf| link.display().to_string().split(":[").next().unwrap().to_owned();
        let mut fds: Vec<String> = links.map(kind).collect();
        threads.sort();
        fds.sort();
        Footprint {
            threads,
            fds,
            children: children(pid),
        }
    }
}

/// Something in the directory that no request has named.
pub(crate) fn leftover(place: &Path) -> Option<String> {
    let mut todo = vec![place.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !["d", "e", "f", "g", "copy"].contains(&&name[..]) {
                return Some(format!("{name} is left behind"));
            }
            todo.push(entry.path());
        }
    }
    None
}
