//! One client of a soak, whose connections fail, with the commands of its session.

use super::files::FileTask;
use super::job::{Event, Job, Kind, Place, What};
use super::random::Random;
use super::wire::{Result, Stop, Wire};
use super::{Shared, count};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Ticks in which nothing comes until the client asks whether anybody is there, and until it gives the connection up.
const ASK_AFTER: u32 = 50;
const GIVE_UP_AFTER: u32 = 150;

/// Long polls that wait at the same time.
const MOST_POLLS: usize = 10;

/// Ticks of the soak without an event, in which a command does nothing that is expected of it.
const STUCK_AFTER: u64 = 600;

/// What was asked for.
enum Pending {
    Start(String),
    Recovery(String),
    /// With the processes that were to be started before.
    List(Vec<String>),
    Write(String, u64),
    Terminate(String),
    /// A long poll, and what it goes on from.
    Poll(String, Place),
    File,
    /// Of a program that is not there.
    Refusal,
    Other,
}

/// How a client reads.
#[derive(Clone, Copy)]
enum Pace {
    Fast,
    /// Waits so long after each message.
    Slow(Duration),
    /// Stops for a while from time to time.
    Stalls,
}

pub(crate) struct Session<'a> {
    shared: &'a Shared,
    random: Random,
    n: u64,
    id: Option<String>,
    jobs: BTreeMap<String, Job>,
    files: Option<FileTask>,
    pending: HashMap<i64, Pending>,
    last_id: i64,
    made: u64,
    /// The tick of the last start; there is not more than one in each.
    started_at: u64,
    pace: Pace,
    asked: bool,
    /// When the last connection was known to be good.
    heard: Instant,
}

/// What a client does next, when it is not interrupted.
enum Next {
    /// Its connection is to be lost.
    Connect,
    Over,
}

impl<'a> Session<'a> {
    pub(crate) fn new(shared: &'a Shared, n: u64, seed: u64) -> Session<'a> {
        let mut random = Random::new(seed);
        random.next();
        Session {
            shared,
            random,
            n,
            id: None,
            jobs: BTreeMap::new(),
            files: None,
            pending: HashMap::new(),
            last_id: 0,
            made: 0,
            started_at: u64::MAX,
            pace: Pace::Fast,
            asked: false,
            heard: Instant::now(),
        }
    }

    /// Until the round is over, and all that was started has ended.
    pub(crate) fn run(&mut self) {
        let mut failed = 0;
        loop {
            match self.connection() {
                Ok(Next::Over) => return,
                Ok(Next::Connect) => failed = 0,
                Err(Stop::Lost) => {
                    count(&self.shared.counts.lost_connections, 1);
                    failed += 1;
                }
                Err(Stop::Wrong(what)) => {
                    let jobs: Vec<_> = self.jobs.values().map(Job::describe).collect();
                    self.shared.fail(format!("client {}: {what}", self.n), &jobs);
                    self.forget();
                }
            }
            if self.shared.is_hopeless() {
                return;
            }
            if failed > 2_000 {
                self.shared
                    .fail(format!("client {}: the server can't be reached", self.n), &[]);
                return;
            }
            thread::park_timeout(Duration::from_millis(self.random.below(30) as u64));
        }
    }

    /// Opens a session in which a command is left, and goes.
    pub(crate) fn run_one(&mut self) -> Result<()> {
        let mut wire = Wire::connect(self.shared.server)?;
        self.initialize(&mut wire)?;
        self.end(wire).map(drop)
    }

    /// One connection, from its beginning to its end.
    fn connection(&mut self) -> Result<Next> {
        self.pending.clear();
        self.asked = false;
        self.pace = match self.random.below(8) {
            0 => Pace::Slow(Duration::from_millis(1 + self.random.below(20) as u64)),
            1 => Pace::Stalls,
            _ => Pace::Fast,
        };
        let mut wire = Wire::connect(self.address())?;
        self.initialize(&mut wire)?;
        // Killed at some time, or cut off by itself; most are left to the proxy.
        let killed_after = match self.random.below(4) {
            0 => self.random.below(400),
            _ => usize::MAX,
        };
        for step in 0.. {
            self.heard = wire.heard;
            if step == killed_after {
                return Ok(self.die(wire));
            }
            if self.shared.is_hopeless() {
                return Ok(Next::Over);
            }
            self.act(&mut wire)?;
            if self.shared.is_over() && self.jobs.is_empty() && self.files.is_none() {
                return self.end(wire);
            }
            self.listen(&mut wire)?;
        }
        Ok(Next::Over)
    }

    /// Where it connects to: to the server itself now and then.
    fn address(&mut self) -> SocketAddr {
        match self.random.below(3) {
            0 => self.shared.server,
            _ => self.shared.proxy,
        }
    }

    /// The client is killed: either it comes back, or another one comes in its place.
    fn die(&mut self, wire: Wire) -> Next {
        wire.die(self.random.below(2) == 0);
        if self.random.below(3) == 0 {
            count(&self.shared.counts.killed_clients, 1);
            self.forget();
        } else {
            count(&self.shared.counts.dropped_connections, 1);
        }
        Next::Connect
    }

    /// The session is left to the server, to be ended with all that is in it.
    fn forget(&mut self) {
        self.id = None;
        self.jobs.clear();
        self.files = None;
    }

    /// Leaves something behind that ends with the session, so that its end is seen.
    fn end(&mut self, mut wire: Wire) -> Result<Next> {
        let name = format!("last-{}", self.last_id);
        let id = self.request(
            &mut wire,
            "process/start",
            json!({"processId": name, "argv": ["/bin/sleep", "9999"], "cwd": "/", "tty": false,
                   "env": {"EXEC_SERVER_SOAK": self.shared.mark}}),
            Pending::Other,
        )?;
        while self.pending.contains_key(&id) {
            self.listen(&mut wire)?;
        }
        match self.random.below(2) {
            0 => wire.close(),
            _ => wire.die(false),
        }
        Ok(Next::Over)
    }

    /// Opens a session, or takes it up again and asks for what was missed.
    fn initialize(&mut self, wire: &mut Wire) -> Result<()> {
        // The last connection may have been lost between the last event and this.
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            self.forget_if_ended(&name);
        }
        let resumed = self.id.clone();
        let mut params = json!({"clientName": "soak"});
        if let Some(id) = &resumed {
            params["resumeSessionId"] = json!(id);
        }
        for attempt in 0.. {
            self.last_id += 1;
            let id = self.last_id;
            wire.send(&json!({"id": id, "method": "initialize", "params": params}))?;
            let answer = self.answer(wire, id)?;
            let error = &answer["error"];
            match error["code"].as_i64() {
                None => {
                    self.id = answer["result"]["sessionId"].as_str().map(str::to_owned);
                    break;
                }
                Some(-32010) if attempt < 3_000 => {
                    count(&self.shared.counts.busy, 1);
                    thread::park_timeout(Duration::from_millis(30));
                }
                Some(-32600) if self.heard.elapsed() + Duration::from_secs(1) > self.shared.ttl => {
                    count(&self.shared.counts.expired, 1);
                    self.forget();
                    return Err(Stop::Lost);
                }
                _ => {
                    return Err(Stop::Wrong(format!(
                        "a resume after {:?}: {answer:.300}",
                        self.heard.elapsed()
                    )));
                }
            }
        }
        wire.send(&json!({"method": "initialized"}))?;
        if resumed.is_none() {
            count(&self.shared.counts.sessions, 1);
            return Ok(());
        }
        count(&self.shared.counts.resumes, 1);
        for job in self.jobs.values_mut() {
            job.held.get_or_insert_with(Vec::new);
        }
        // Handles end with their connection, so the file is begun anew.
        self.files = None;
        let names = self.jobs.keys().cloned().collect();
        self.request(wire, "process/list", json!({}), Pending::List(names))?;
        Ok(())
    }

    /// The answer to the only request there is. Events of a resumed session may come before it.
    fn answer(&mut self, wire: &mut Wire, id: i64) -> Result<Value> {
        loop {
            match wire.receive()? {
                Some(message) if message["id"] == id => return Ok(message),
                Some(message) => {
                    for job in self.jobs.values_mut() {
                        job.held.get_or_insert_with(Vec::new);
                    }
                    self.notified(&message)?;
                }
                None if wire.silent_ticks > GIVE_UP_AFTER => return Err(Stop::Lost),
                None => {}
            }
        }
    }

    fn request(&mut self, wire: &mut Wire, method: &str, params: Value, pending: Pending) -> Result<i64> {
        self.last_id += 1;
        self.pending.insert(self.last_id, pending);
        wire.send(&json!({"id": self.last_id, "method": method, "params": params}))?;
        Ok(self.last_id)
    }

    /// Does something, or nothing.
    fn act(&mut self, wire: &mut Wire) -> Result<()> {
        if !self.shared.is_over() {
            if self.jobs.len() < self.shared.options.each && self.started_at != self.shared.now() {
                self.started_at = self.shared.now();
                self.start(wire)?;
            }
            if self.files.is_none() && self.random.below(10) == 0 {
                self.made += 1;
                let task = FileTask::new(&self.shared.dir, self.n * 1_000_000 + self.made, &mut self.random);
                self.files = Some(task);
                self.file_call(wire)?;
            }
        }
        if self.jobs.is_empty() {
            return Ok(());
        }
        let i = self.random.below(self.jobs.len());
        let Some(name) = self.jobs.keys().nth(i).cloned() else {
            return Ok(());
        };
        let (over, now) = (self.shared.is_over(), self.shared.now());
        let Some(job) = self.jobs.get_mut(&name) else {
            return Ok(());
        };
        if now - job.seen_at > STUCK_AFTER {
            return Err(Stop::Wrong(format!("nothing more comes: {}", job.describe())));
        }
        // What waits for nobody has its time in which it is only there.
        let holds = job.kind == Kind::Quiet && !over && self.random.below(200) != 0;
        if job.may_write() && !holds {
            let params = job.next_write(&mut self.random);
            let write = job.input.unanswered.back().map_or(0, |write| write.id);
            count(&self.shared.counts.writes, 1);
            self.request(wire, "process/write", params, Pending::Write(name, write))?;
        } else if job.runs && job.held.is_none() && !job.closed && self.random.below(4) == 0 {
            let ends = job.kind == Kind::Tree && (job.has_said_all() || self.random.below(20) == 0);
            if ends || self.random.below(200) == 0 {
                self.terminate(wire, &name)?;
            } else if self.pending.values().filter(|p| matches!(p, Pending::Poll(..))).count() < MOST_POLLS {
                let place = job.place();
                let params = json!({"processId": name, "afterSeq": place.seq, "waitMs": self.random.below(5_000)});
                count(&self.shared.counts.polls, 1);
                self.request(wire, "process/read", params, Pending::Poll(name, place))?;
            }
        }
        Ok(())
    }

    fn start(&mut self, wire: &mut Wire) -> Result<()> {
        self.made += 1;
        let name = format!("p{}", self.made);
        if self.random.below(30) == 0 {
            let params = json!({"processId": name, "argv": ["/nowhere/at/all"], "cwd": "/", "tty": false, "env": {}});
            self.request(wire, "process/start", params, Pending::Refusal)?;
            return Ok(());
        }
        let n = self.n * 100 + self.made;
        let (mark, is_short) = (&self.shared.mark, self.shared.options.is_short);
        let mut job = Job::new(n, &name, mark, is_short, &mut self.random);
        job.seen_at = self.shared.now();
        count(&self.shared.counts.started, 1);
        let params = job.params.clone();
        self.jobs.insert(name.clone(), job);
        self.request(wire, "process/start", params, Pending::Start(name))?;
        Ok(())
    }

    fn terminate(&mut self, wire: &mut Wire, name: &str) -> Result<()> {
        let mut params = json!({"processId": name});
        if self.random.below(2) == 0 {
            params["graceMs"] = self.random.below(300).into();
        }
        if let Some(job) = self.jobs.get_mut(name) {
            job.terminated = true;
        }
        count(&self.shared.counts.terminates, 1);
        self.request(wire, "process/terminate", params, Pending::Terminate(name.to_owned()))?;
        Ok(())
    }

    fn file_call(&mut self, wire: &mut Wire) -> Result<()> {
        match self.files.as_ref().and_then(FileTask::call) {
            Some((method, params)) => {
                count(&self.shared.counts.file_calls, 1);
                self.request(wire, method, params, Pending::File)?;
            }
            None => self.files = None,
        }
        Ok(())
    }

    /// Takes the next message, if one comes, at its own pace.
    fn listen(&mut self, wire: &mut Wire) -> Result<()> {
        let Some(message) = wire.receive()? else {
            if wire.silent_ticks == ASK_AFTER && !self.asked {
                self.asked = true;
                self.request(wire, "environment/status", json!({}), Pending::Other)?;
            }
            if wire.silent_ticks > GIVE_UP_AFTER {
                return Err(Stop::Lost);
            }
            return Ok(());
        };
        if message.get("method").is_some() {
            self.notified(&message)?;
        } else {
            self.answered(wire, &message)?;
        }
        self.acknowledge(wire, &message)?;
        self.forget_ended(&message);
        self.wait();
        Ok(())
    }

    /// As slow as this client is.
    fn wait(&mut self) {
        if self.shared.is_over() {
            return;
        }
        match self.pace {
            Pace::Fast => {}
            Pace::Slow(time) => thread::sleep(time),
            Pace::Stalls if self.random.below(100) == 0 => {
                count(&self.shared.counts.stalls, 1);
                thread::sleep(Duration::from_millis(self.random.below(2_000) as u64));
            }
            Pace::Stalls => {}
        }
    }

    fn notified(&mut self, message: &Value) -> Result<()> {
        let params = &message["params"];
        let wrong = || Stop::Wrong(format!("not understood: {message:.300}"));
        let name = params["processId"].as_str().ok_or_else(wrong)?;
        let seq = params["seq"].as_u64().ok_or_else(wrong)?;
        let what = match message["method"].as_str() {
            Some("process/output") => What::Output {
                is_stderr: params["stream"] == "stderr",
                bytes: BASE64_STANDARD
                    .decode(params["chunk"].as_str().ok_or_else(wrong)?)
                    .map_err(|_| wrong())?,
            },
            Some("process/exited") => What::Exited(params["exitCode"].as_i64().ok_or_else(wrong)?),
            Some("process/closed") => What::Closed,
            _ => return Err(wrong()),
        };
        match self.jobs.get_mut(name) {
            Some(job) => {
                job.seen_at = self.shared.now();
                job.event(Event { seq, what })
            }
            None if name.starts_with("last-") => Ok(()),
            // It was read to its end after a loss of the connection, and the events came behind that.
            None if name
                .get(1..)
                .and_then(|n| n.parse().ok())
                .is_some_and(|n: u64| n <= self.made) =>
            {
                Ok(())
            }
            None => Err(wrong()),
        }
    }

    fn answered(&mut self, wire: &mut Wire, answer: &Value) -> Result<()> {
        if answer["error"]["message"] == "the request was given up" {
            // The server has lost this connection, and the client is about to.
            return Err(Stop::Lost);
        }
        let now = self.shared.now();
        let wrong = |what: &str| Err(Stop::Wrong(format!("{what} was answered {answer:.300}")));
        let pending = answer["id"].as_i64().and_then(|id| self.pending.remove(&id));
        let (result, code) = (&answer["result"], answer["error"]["code"].as_i64());
        match pending {
            None => return wrong("nothing"),
            Some(Pending::Refusal) if code != Some(-32603) => return wrong("a program that is not there"),
            Some(Pending::Refusal) => {}
            Some(Pending::File) => {
                if let Some(files) = &mut self.files {
                    files.answered(answer)?;
                    self.file_call(wire)?;
                }
            }
            Some(Pending::Poll(..)) if code.is_some() => return wrong("a long poll"),
            Some(Pending::Poll(name, place)) => {
                if let Some(job) = self.jobs.get(&name) {
                    job.polled(place, result)?;
                }
            }
            Some(Pending::Start(name)) => {
                let Some(job) = self.jobs.get_mut(&name) else {
                    return Ok(());
                };
                job.runs = true;
                if code.is_some() {
                    return wrong("a start");
                }
            }
            Some(Pending::List(names)) => self.recover(wire, names, result)?,
            Some(Pending::Recovery(name)) => {
                let Some(job) = self.jobs.get_mut(&name) else {
                    return Ok(());
                };
                if code.is_some() {
                    return wrong("a read after a resume");
                }
                let lost = job.lost;
                job.recovered(result)?;
                count(&self.shared.counts.lost_bytes, job.lost - lost);
                if job.acks {
                    job.acked = job.last;
                    let params = json!({"processId": name, "seq": job.last});
                    wire.send(&json!({"method": "process/ack", "params": params}))?;
                }
                self.repeat_writes(wire, &name)?;
                self.forget_if_ended(&name);
            }
            Some(Pending::Write(name, id)) => {
                let Some(job) = self.jobs.get_mut(&name) else {
                    return Ok(());
                };
                job.seen_at = now;
                job.input.unanswered.retain(|write| write.id != id);
                let is_refused = result["status"] != "accepted";
                if is_refused && !job.terminated {
                    return wrong(&format!("write {id} to {}", job.describe()));
                }
            }
            Some(Pending::Terminate(name)) if code.is_some() => return wrong(&format!("the end of {name}")),
            Some(Pending::Other) if code.is_some() => return wrong("a request"),
            Some(Pending::Terminate(_) | Pending::Other) => {}
        }
        Ok(())
    }

    /// Starts anew what was not started, and asks for what the rest has said meanwhile.
    fn recover(&mut self, wire: &mut Wire, names: Vec<String>, list: &Value) -> Result<()> {
        let listed: Vec<&str> = list["processes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|process| process["processId"].as_str())
            .collect();
        for name in names {
            let is_listed = listed.contains(&name.as_str());
            let Some(job) = self.jobs.get_mut(&name) else { continue };
            if !is_listed && job.runs {
                return Err(Stop::Wrong(format!("it is not in the list: {}", job.describe())));
            }
            job.runs = is_listed;
            if is_listed {
                let params = json!({"processId": name, "afterSeq": job.last});
                self.request(wire, "process/read", params, Pending::Recovery(name))?;
            } else {
                job.held = None;
                let params = job.params.clone();
                self.request(wire, "process/start", params, Pending::Start(name))?;
            }
        }
        Ok(())
    }

    /// Whether these writes, and the request to end, came to the server is not known.
    fn repeat_writes(&mut self, wire: &mut Wire, name: &str) -> Result<()> {
        let Some(job) = self.jobs.get(name) else { return Ok(()) };
        if job.closed {
            return Ok(());
        }
        let writes: Vec<_> = job
            .input
            .unanswered
            .iter()
            .map(|w| (w.id, job.write_params(w)))
            .collect();
        let is_terminated = job.terminated;
        for (id, params) in writes {
            self.request(wire, "process/write", params, Pending::Write(name.to_owned(), id))?;
        }
        if is_terminated {
            self.terminate(wire, name)?;
        }
        Ok(())
    }

    /// Says what it has got, of that which the server keeps until then; sometimes late.
    fn acknowledge(&mut self, wire: &mut Wire, message: &Value) -> Result<()> {
        let Some(name) = message["params"]["processId"].as_str() else {
            return Ok(());
        };
        if let Some(job) = self.jobs.get_mut(name)
            && job.acks
            && job.held.is_none()
            && (self.random.below(2) == 0 || job.last >= job.acked + 3)
        {
            job.acked = job.last;
            let params = json!({"processId": name, "seq": job.last});
            wire.send(&json!({"method": "process/ack", "params": params}))?;
        }
        Ok(())
    }

    fn forget_ended(&mut self, message: &Value) {
        if let Some(name) = message["params"]["processId"].as_str() {
            self.forget_if_ended(name);
        }
    }

    fn forget_if_ended(&mut self, name: &str) {
        let is_over = |job: &Job| job.closed && job.runs && job.held.is_none();
        if self.jobs.get(name).is_some_and(is_over)
            && let Some(job) = self.jobs.remove(name)
        {
            let counts = &self.shared.counts;
            count(&counts.ended, 1);
            count(&counts.bytes, job.received);
            count(&counts.incomplete, u64::from(job.lost > 0));
        }
    }
}
