//! The blocking client on a network that fails.

#![cfg(feature = "client")]

#[path = "checks/random.rs"]
mod random;

mod kit;

use exec_server::client::{ExecServerClient, ExecServerProcess, RemoteExecServerConnectArgs, StartOptions};
use exec_server::server::{Listener, Server, ServerConfig};
use exec_server::transport::address::Address;
use exec_server::transport::admission::Admission;
use exec_server::transport::auth::Authorizer;
use kit::{DEADLINE, Fault, FaultProxy, PATH, until};
use random::Random;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A server in this program, whose clients are found out quickly when they are gone.
struct Here {
    server: Arc<Server>,
    address: SocketAddr,
}

impl Here {
    fn new() -> Here {
        let config = ServerConfig {
            probe_limit: Duration::from_millis(100),
            ..ServerConfig::default()
        };
        let server = Server::new(config);
        let any = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind(&any, Admission::from(Authorizer::None).into()).unwrap();
        let Address::Tcp(address) = *listener.address() else {
            panic!("not of TCP")
        };
        listener.serve(server.clone()).unwrap();
        Here { server, address }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.server.shut_down();
    }
}

/// Impatient, so that a test of silence does not take long; but a busy machine must not look like a dead one.
fn impatient(url: String) -> RemoteExecServerConnectArgs {
    let mut args = RemoteExecServerConnectArgs::new(url);
    args.connect_timeout = Duration::from_secs(1);
    args.options.initialize_timeout = Duration::from_secs(1);
    args.options.recovery_interval = Duration::from_millis(5);
    args.options.ping_interval = Duration::from_millis(150);
    args.options.silence_limit = Duration::from_millis(600);
    args
}

/// A client whose first connection is whole until it is opened.
fn connect(proxy: &FaultProxy) -> ExecServerClient {
    until("a client", || {
        ExecServerClient::connect_websocket(impatient(proxy.url())).ok()
    })
}

fn script(text: &str) -> StartOptions {
    StartOptions::new(["/bin/sh", "-c", text]).env("PATH", PATH)
}

/// The starts of processes are not repeated: one that was on its way when the connection was lost is told as lost.
fn start(client: &ExecServerClient, options: &StartOptions) -> ExecServerProcess {
    until("a start", || match client.start_process(options) {
        Ok(process) => Some(process),
        Err(e) if e.is_disconnected() => None,
        Err(e) => panic!("{e}"),
    })
}

fn read_all(process: &ExecServerProcess) -> Vec<u8> {
    let mut output = Vec::new();
    process.merged_output().unwrap().read_to_end(&mut output).unwrap();
    output
}

/// One client with several processes, whatever happens to its connections.
fn round(here: &Here, seed: u64, faults: &[Fault]) -> usize {
    println!("seed {seed}");
    let faults = faults.to_vec();
    let opened = Arc::new(AtomicUsize::new(0));
    let proxy = FaultProxy::new(here.address, {
        let opened = opened.clone();
        move |n| {
            let mut random = Random::new(seed * 1000 + n as u64 + 1);
            random.next();
            let fault = faults[random.below(faults.len())];
            // Often early, in a handshake or a recovery, and often late.
            let after = match random.below(4) {
                0 => random.below(2_000),
                1 => random.below(50_000),
                _ => random.below(2_000_000),
            };
            let fault = if opened.load(Ordering::SeqCst) == 0 {
                Fault::None
            } else {
                fault
            };
            (fault, after)
        }
    });
    let client = connect(&proxy);
    opened.store(1, Ordering::SeqCst);
    let noisy = start(
        &client,
        &script("i=0; while [ $i -lt 40 ]; do seq 1 20000; i=$((i+1)); done; exit 7"),
    );
    let quiet = start(
        &client,
        &script("i=0; while [ $i -lt 30 ]; do echo line $i; sleep 0.01; i=$((i+1)); done"),
    );
    let echo = start(&client, &StartOptions::new(["/bin/cat"]).pipe_stdin());
    client.drop_connection();
    let input: Vec<u8> = {
        let mut random = Random::new(seed + 77);
        (0..600_000).map(|_| random.next() as u8).collect()
    };
    let (mut said, mut listed, mut echoed) = (Vec::new(), Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(seed + 99);
            let (mut rest, mut stdin) = (&input[..], echo.stdin());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(1 + random.below(30_000)));
                stdin.write_all(piece).unwrap();
                if random.below(8) == 0 {
                    stdin.flush().unwrap();
                }
                rest = more;
            }
            echo.close_stdin().unwrap();
        });
        scope.spawn(|| said = read_all(&noisy));
        scope.spawn(|| listed = read_all(&quiet));
        echoed = read_all(&echo);
    });
    let numbers: String = (1..=20_000).map(|i| format!("{i}\n")).collect();
    assert!(said == numbers.repeat(40).into_bytes(), "{} bytes", said.len());
    let lines: String = (0..30).map(|i| format!("line {i}\n")).collect();
    assert_eq!(String::from_utf8(listed).unwrap(), lines);
    assert!(echoed == input, "{} bytes", echoed.len());
    for (process, code) in [(&noisy, 7), (&quiet, 0), (&echo, 0)] {
        assert_eq!(process.wait(Some(DEADLINE)).unwrap().exit_code, code);
    }
    proxy.faults()
}

const LOUD: [Fault; 6] = [
    Fault::Cut,
    Fault::Cut,
    Fault::HalfDown,
    Fault::HalfUp,
    Fault::Delay,
    Fault::Refuse,
];

const ALL: [Fault; 7] = [
    Fault::Cut,
    Fault::Cut,
    Fault::HalfDown,
    Fault::HalfUp,
    Fault::Delay,
    Fault::Refuse,
    Fault::Silence,
];

/// `EXEC_SERVER_FAULTS=500 cargo test --test client_recovery` for a long run.
#[test]
fn nothing_is_lost_or_doubled_whatever_happens_to_the_connections() {
    let wanted = std::env::var("EXEC_SERVER_FAULTS").map_or(40, |n| n.parse().unwrap());
    let here = Here::new();
    let (mut seen, mut seed) = (0, 1);
    while seen < wanted {
        // Silence takes its time to be noticed.
        let faults: &[Fault] = if seed % 2 == 0 { &ALL } else { &LOUD };
        seen += round(&here, seed, faults);
        seed += 1;
    }
    println!("{seen} faults in {} rounds", seed - 1);
}
