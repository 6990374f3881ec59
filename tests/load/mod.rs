//! A soak: many clients with many commands on one server, over connections that fail, for as long as one likes. All that
//! comes is compared with what must come, and what the server holds is looked at when all of them have gone.

mod commands;
#[allow(dead_code)] // Shared with the tests, which use more of it.
#[path = "../kit/fault_proxy.rs"]
mod fault_proxy;
mod figures;
mod files;
mod job;
mod numbers;
#[path = "../checks/random.rs"]
mod random;
mod session;
mod wire;

use fault_proxy::{Fault, FaultProxy};
use figures::{Figures, marked};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use random::Random;
use session::Session;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The built program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_exec-server");

/// How often the server is looked at.
const TICK: Duration = Duration::from_millis(100);

/// A tick that takes so long is a pause: somebody has stopped all of this for a while.
const PAUSE: Duration = Duration::from_secs(2);

/// Ticks in which what is left of a round must have gone.
const DRAIN_TICKS: u32 = 1_200;

/// Ticks until the memory of what has gone is given back: the server waits a second with that.
const MEMORY_TICKS: u32 = 20;

/// After more failures than that it ends.
const MOST_FAILURES: usize = 20;

/// How much a soak does.
pub(crate) struct Options {
    /// The server's program; also that of the clients that are processes.
    pub(crate) program: String,
    pub(crate) seed: u64,
    /// So many rounds, unless so many ticks of the whole are over before the next one could be.
    pub(crate) rounds: u64,
    pub(crate) all_ticks: u64,
    /// Each round goes on until so many ticks are over, or so many processes have ended.
    pub(crate) ticks: u64,
    pub(crate) ended: u64,
    /// Clients, and processes of each at a time.
    pub(crate) clients: u64,
    pub(crate) each: usize,
    /// Clients that are processes, each with one command at a time.
    pub(crate) commands: u64,
    /// Nothing that takes long: connections fail early, but none falls silent, which the server takes most of a minute to
    /// find out, and what commands write from time to time comes faster.
    pub(crate) is_short: bool,
    /// How long the server keeps a session without a client, in seconds.
    pub(crate) ttl: u64,
    /// Where the server's log goes, with all details.
    pub(crate) log: Option<PathBuf>,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    started: AtomicU64,
    ended: AtomicU64,
    bytes: AtomicU64,
    lost_bytes: AtomicU64,
    incomplete: AtomicU64,
    writes: AtomicU64,
    polls: AtomicU64,
    file_calls: AtomicU64,
    terminates: AtomicU64,
    sessions: AtomicU64,
    resumes: AtomicU64,
    busy: AtomicU64,
    expired: AtomicU64,
    lost_connections: AtomicU64,
    dropped_connections: AtomicU64,
    killed_clients: AtomicU64,
    stalls: AtomicU64,
    commands: AtomicU64,
    killed_commands: AtomicU64,
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What all clients of a soak have in common.
pub(crate) struct Shared {
    options: Options,
    server: SocketAddr,
    proxy: SocketAddr,
    /// One without the faults that a client takes long to find out, and that lets it start its command first: starts are not
    /// repeated.
    quiet_proxy: SocketAddr,
    /// The value of a variable that all commands have.
    mark: String,
    dir: PathBuf,
    ttl: Duration,
    counts: Counts,
    is_over: AtomicBool,
    /// Ticks until now.
    ticks: AtomicU64,
    /// Clients that are not done with the round.
    active: AtomicU64,
    pauses: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn now(&self) -> u64 {
        self.ticks.load(Ordering::SeqCst)
    }

    fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::SeqCst)
    }

    fn fail(&self, what: String, more: &[String]) {
        let ticks = self.now();
        println!("WRONG, at tick {ticks}: {what}");
        for line in more {
            println!("  {line}");
        }
        self.failures.lock().unwrap().push(what);
    }

    /// Whether so much is wrong that there is no sense in going on.
    fn is_hopeless(&self) -> bool {
        self.failures.lock().unwrap().len() > MOST_FAILURES
    }

    /// One tick of the time in which this process is not stopped.
    fn tick(&self) {
        let start = Instant::now();
        thread::sleep(TICK);
        self.ticks.fetch_add(1, Ordering::SeqCst);
        if start.elapsed() > PAUSE {
            self.pauses.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The server, killed when it goes out of scope.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it all, prints what has happened, and says whether all was as it must be.
pub(crate) fn soak(options: Options) -> Result<(), Vec<String>> {
    println!("seed {}", options.seed);
    let mut command = Command::new(&options.program);
    command.args([
        "--listen",
        "ws://127.0.0.1:0",
        "--session-ttl",
        &options.ttl.to_string(),
    ]);
    if let Some(log) = &options.log {
        command
            .args(["--log-level", "debug"])
            .stderr(File::create(log).unwrap());
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let mut server = Server(child);
    let address = url.trim().strip_prefix("ws://").unwrap().parse().unwrap();
    let (proxy, quiet_proxy) = (spoil(address, &options, true), spoil(address, &options, false));
    let mark = format!("{}-{}", std::process::id(), options.seed);
    let dir = std::env::temp_dir().join(format!("exec-server-soak-{mark}"));
    std::fs::create_dir(&dir).unwrap();
    let shared = Shared {
        server: address,
        proxy: proxy.address(),
        quiet_proxy: quiet_proxy.address(),
        mark,
        dir,
        ttl: Duration::from_secs(options.ttl),
        counts: Counts::default(),
        is_over: AtomicBool::new(false),
        ticks: AtomicU64::new(0),
        active: AtomicU64::new(0),
        pauses: AtomicU64::new(0),
        failures: Mutex::default(),
        options,
    };
    rounds(&shared, server.0.id());
    drop((proxy, quiet_proxy));
    let _ = std::fs::remove_dir_all(&shared.dir);
    end(&shared, &mut server);
    let failures = shared.failures.into_inner().unwrap();
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// The server ends when it is asked to, and well.
fn end(shared: &Shared, server: &mut Server) {
    let _ = kill(Pid::from_raw(server.0.id() as i32), Signal::SIGTERM);
    for _ in 0..300 {
        if let Ok(Some(status)) = server.0.try_wait() {
            if !status.success() {
                shared.fail(format!("the server ended with {status}"), &[]);
            }
            return;
        }
        shared.tick();
    }
    shared.fail("the server does not end".to_owned(), &[]);
}

/// A network between that fails in some way for most connections, at any moment.
fn spoil(server: SocketAddr, options: &Options, at_once: bool) -> FaultProxy {
    let with_silence = at_once && !options.is_short;
    let latest = if options.is_short { 500_000 } else { 20_000_000 };
    let seed = options.seed.wrapping_add(u64::from(!at_once));
    FaultProxy::new(server, move |n| {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(n as u64 * 2 + 1));
        random.next();
        let fault = match random.below(12) {
            0 => Fault::None,
            1 | 2 => Fault::HalfDown,
            3 | 4 => Fault::HalfUp,
            5 if at_once => Fault::Refuse,
            6 => Fault::Delay,
            7 if with_silence => Fault::Silence,
            _ => Fault::Cut,
        };
        let after = match random.below(4) {
            0 => random.below(3_000),
            1 => random.below(300_000),
            _ => random.below(latest),
        };
        (fault, if at_once { after } else { after + 6_000 })
    })
}

fn rounds(shared: &Shared, pid: u32) {
    let options = &shared.options;
    println!(
        "{} clients with {} processes each at a time, {} more with a command each; what the server holds at most, and when a \
         round has gone",
        options.clients, options.each, options.commands
    );
    println!(
        "{:>6}{:>9}{:>10}{:>9} |{:>12}{:>9}{:>6}{:>10} |{:>10}{:>12}{:>9}{:>5}{:>10}",
        "round",
        "ended",
        "MB",
        "running",
        "RSS KiB",
        "threads",
        "fds",
        "children",
        "RSS KiB",
        "RssAnon KiB",
        "threads",
        "fds",
        "children"
    );
    let Some(idle) = idle(shared, pid) else { return };
    print_row("start", [0, 0, 0], idle, idle);
    let mut drained: Vec<Figures> = Vec::new();
    for round in 0..options.rounds {
        let (ended, bytes) = (
            shared.counts.ended.load(Ordering::Relaxed),
            shared.counts.bytes.load(Ordering::Relaxed),
        );
        let (most, running) = one_round(shared, pid, round);
        if shared.is_hopeless() {
            break;
        }
        let Some(mut rest) = drain(shared, pid, &idle) else {
            break;
        };
        if !options.is_short {
            (0..MEMORY_TICKS).for_each(|_| shared.tick());
            rest = Figures::of(pid);
        }
        let counts = [
            shared.counts.ended.load(Ordering::Relaxed) - ended,
            (shared.counts.bytes.load(Ordering::Relaxed) - bytes) / 1_000_000,
            running,
        ];
        print_row(&(round + 1).to_string(), counts, most, rest);
        drained.push(rest);
        if shared.now().saturating_add(options.ticks) > options.all_ticks {
            break;
        }
    }
    judge_memory(shared, &drained);
    println!("{:#?}", shared.counts);
    println!("{} pauses", shared.pauses());
}

fn print_row(name: &str, [ended, megabytes, running]: [u64; 3], most: Figures, rest: Figures) {
    println!(
        "{name:>6}{ended:>9}{megabytes:>10}{running:>9} |{:>12}{:>9}{:>6}{:>10} |{:>10}{:>12}{:>9}{:>5}{:>10}",
        most.rss,
        most.threads,
        most.fds,
        most.children,
        rest.rss,
        rest.anonymous,
        rest.threads,
        rest.fds,
        rest.children
    );
}

/// Lets all clients do what they do for a while, and then end what they have begun. What the server held at most, and how
/// many processes ran in the mean.
fn one_round(shared: &Shared, pid: u32, round: u64) -> (Figures, u64) {
    let options = &shared.options;
    shared.is_over.store(false, Ordering::SeqCst);
    let before = shared.counts.ended.load(Ordering::Relaxed);
    let (mut most, mut children, mut samples) = (Figures::default(), 0, 0);
    shared
        .active
        .store(options.clients + options.commands, Ordering::SeqCst);
    thread::scope(|scope| {
        for n in 0..options.clients {
            let seed = options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (round << 32 | n << 8);
            scope.spawn(move || {
                Session::new(shared, round * options.clients + n + 1, seed).run();
                shared.active.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for n in 0..options.commands {
            let seed = options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (round << 32 | n << 8 | 1);
            scope.spawn(move || {
                commands::run_commands(shared, 4_000 + n * 300, seed);
                shared.active.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for _ in 0..options.ticks {
            shared.tick();
            let figures = Figures::of(pid);
            (most, children, samples) = (most.max(figures), children + figures.children, samples + 1);
            if shared.is_hopeless()
                || shared.counts.ended.load(Ordering::Relaxed) >= before.saturating_add(options.ended)
            {
                break;
            }
        }
        shared.is_over.store(true, Ordering::SeqCst);
        while shared.active.load(Ordering::SeqCst) > 0 {
            shared.tick();
        }
    });
    (most, children / samples.max(1))
}

/// What the server holds when it has had a client with a command, and their session is over: it keeps some things from the
/// first command on, such as the process that ends all others should it be killed.
fn idle(shared: &Shared, pid: u32) -> Option<Figures> {
    if let Err(stop) = Session::new(shared, 0, shared.options.seed).run_one() {
        shared.fail(format!("the first client: {stop:?}"), &[]);
        return None;
    }
    // The command lasts for as long as the session, and the rest of it for a moment more.
    let variable = format!("EXEC_SERVER_SOAK={}", shared.mark);
    let (mut figures, mut same) = (Figures::of(pid), 0);
    for _ in 0..DRAIN_TICKS {
        shared.tick();
        let now = Figures::of(pid);
        let is_same = now.holds_as_much_as(&figures) && marked(&variable).is_empty();
        (figures, same) = (now, if is_same { same + 1 } else { 0 });
        if same == 5 {
            return Some(figures);
        }
    }
    shared.fail(format!("the server does not come to rest: {figures:?}"), &[]);
    None
}

/// Waits until the sessions have expired with all that was left in them, and the server is as idle as before.
fn drain(shared: &Shared, pid: u32, idle: &Figures) -> Option<Figures> {
    let mut rest = Figures::of(pid);
    let mut left = Vec::new();
    for _ in 0..DRAIN_TICKS {
        rest = Figures::of(pid);
        left = marked(&format!("EXEC_SERVER_SOAK={}", shared.mark));
        if left.is_empty() && rest.holds_as_much_as(idle) {
            return Some(rest);
        }
        shared.tick();
    }
    shared.fail(
        format!("what is left does not go: {rest:?}, idle it had {idle:?}, processes {left:?}"),
        &[],
    );
    None
}

/// Whether what stays in memory grows from round to round. The first ones are left out: memory is taken then that is kept.
fn judge_memory(shared: &Shared, drained: &[Figures]) {
    let median = |figures: &[Figures]| {
        let mut values: Vec<u64> = figures.iter().map(|f| f.anonymous).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let n = drained.len();
    if n < 6 || shared.is_hopeless() {
        return;
    }
    let (early, late) = (median(&drained[1..n / 2]), median(&drained[n - n / 3..]));
    println!("memory between rounds: median of the early ones {early} KiB, of the late ones {late} KiB");
    if late > early + early / 4 + 2_048 {
        shared.fail("memory grows from round to round".to_owned(), &[]);
    }
}
