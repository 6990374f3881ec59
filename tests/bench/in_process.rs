//! How fast output comes within one program: `cargo bench --bench in_process`.

use exec_server::host::{InProcessServerEvent, InProcessStartArgs, start};
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::io::Read;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

fn main() {
    for (name, argv, bytes) in [
        ("head -c 1G /dev/zero", &["head", "-c", "1G", "/dev/zero"][..], 1 << 30),
        ("seq 20000000", &["seq", "20000000"], 168_888_897),
    ] {
        let rates: Vec<f64> = (0..ROUNDS).map(|_| rate(argv, bytes)).collect();
        println!("{name}: {} MB/s in process", list(&rates));
        let rates: Vec<f64> = (0..ROUNDS).map(|_| pipe_rate(argv, bytes)).collect();
        println!("{name}: {} MB/s from a bare pipe, reads of 64 KiB", list(&rates));
    }
}

fn list(rates: &[f64]) -> String {
    let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    rates.join(" ")
}

fn rate(argv: &[&str], expected: usize) -> f64 {
    let mut host = start(InProcessStartArgs::new("bench")).expect("a host");
    let params = json!({"processId": "p", "argv": argv, "cwd": "/", "env": {"PATH": "/usr/bin:/bin"}, "tty": false});
    let (began, used) = (Instant::now(), processor_time());
    host.request(1, "process/start", &params)
        .expect("a host")
        .expect("a process");
    let (mut bytes, mut events) = (0, 0);
    while let Some(event) = host.next_event() {
        match event {
            InProcessServerEvent::Output(output) => {
                bytes += output.chunk.len();
                events += 1;
            }
            InProcessServerEvent::ServerNotification(n) if n.method == "process/closed" => break,
            _ => {}
        }
    }
    assert_eq!(bytes, expected);
    let took = began.elapsed();
    println!("  {events} events, {took:?}, CPU {:?}", processor_time() - used);
    host.shutdown().expect("an end");
    expected as f64 / took.as_secs_f64() / 1e6
}

fn pipe_rate(argv: &[&str], expected: usize) -> f64 {
    let began = Instant::now();
    let mut child = std::process::Command::new(argv[0])
        .args(&argv[1..])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a process");
    let mut pipe = child.stdout.take().expect("a pipe");
    let (mut buffer, mut bytes) = (vec![0; 64 * 1024], 0);
    loop {
        match pipe.read(&mut buffer).expect("output") {
            0 => break,
            n => bytes += n,
        }
    }
    let took = began.elapsed();
    assert_eq!(bytes, expected);
    let _ = child.wait();
    expected as f64 / took.as_secs_f64() / 1e6
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .expect("a clock")
        .into()
}
