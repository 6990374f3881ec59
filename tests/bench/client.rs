//! Measures the blocking client together with a server: what a program sees that uses both.
//!
//! ```sh
//! cargo bench --bench client            # over WebSocket, stdio and in process
//! cargo bench --bench client -- memory  # in process only
//! cargo bench --bench client -- echo    # what the client adds to an echo over WebSocket
//! cargo bench --bench client -- ws://127.0.0.1:9400
//! ```
//!
//! The echo is compared with that of the bare protocol: frames written and read by hand on a connection to the same
//! server. The two take turns, an echo each, so that a busy machine is busy for both.

mod bare;

use bare::Bare;
use exec_server::client::events::ExecProcessEvent;
use exec_server::client::{
    ExecServerClient, ExecServerClientConnectOptions, ExecServerLaunchCommand, RemoteExecServerConnectArgs,
    StartOptions,
};
use exec_server::host;
use exec_server::server::ServerConfig;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_exec-server");
const ROUNDS: usize = 5;
const BYTES: usize = 1 << 30;
const ECHOES: usize = 2000;
/// The length of input and of a file.
const CONTENT_BYTES: usize = 64 << 20;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let url = std::env::args().skip(1).find(|argument| argument.starts_with("ws://"));
    if let Some(url) = url {
        let client = ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(url))?;
        return measure("that server", &client);
    }
    if std::env::args().any(|argument| argument == "memory") {
        return in_process();
    }
    let only_echo = std::env::args().any(|argument| argument == "echo");
    let mut server = Command::new(PROGRAM).stdout(Stdio::piped()).spawn()?;
    let measured = over_websocket(&mut server, only_echo);
    server.kill()?;
    server.wait()?;
    measured?;
    if only_echo {
        return Ok(());
    }
    let command = ExecServerLaunchCommand {
        program: PROGRAM.into(),
        args: vec!["--listen".into(), "stdio".into()],
        ..ExecServerLaunchCommand::default()
    };
    measure("stdio", &ExecServerClient::spawn(&command)?)?;
    in_process()
}

fn in_process() -> Result<()> {
    let (_server, end) = host::connect(ServerConfig::default())?;
    let options = ExecServerClientConnectOptions::default();
    measure("in process", &ExecServerClient::connect_memory(end, options)?)
}

fn over_websocket(server: &mut Child, only_echo: bool) -> Result<()> {
    let mut url = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut url)?;
    let url = url.trim_end();
    let client = ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(url))?;
    if !only_echo {
        measure("WebSocket", &client)?;
    }
    compare_echoes(&client, url)
}

/// The echo of the client and of the bare protocol, on two processes `cat` of the same server.
fn compare_echoes(client: &ExecServerClient, url: &str) -> Result<()> {
    let process = client.start_process(&StartOptions::new(["/bin/cat"]).pipe_stdin().kill_on_drop())?;
    let (mut input, mut output) = (process.stdin(), process.merged_output().ok_or("no output")?);
    let mut bare = Bare::connect(url)?;
    let (mut clients, mut bares) = (Vec::new(), Vec::new());
    for _ in 0..ECHOES {
        clients.push(micros(|| {
            input.write_all(b"hello\n")?;
            Ok(output.read_exact(&mut [0; 6])?)
        })?);
        bares.push(micros(|| bare.echo())?);
    }
    let (client, bare) = (median(clients), median(bares));
    println!(
        "{:12} echo p50 {client:5.0} us   bare protocol {bare:5.0} us   x {:.2}",
        "",
        client / bare
    );
    Ok(())
}

fn micros(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

fn measure(name: &str, client: &ExecServerClient) -> Result<()> {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let argv = ["head", "-c", &BYTES.to_string(), "/dev/zero"].map(str::to_owned);
        let process = client.start_process(&StartOptions::new(argv).env("PATH", "/usr/bin:/bin"))?;
        let mut bytes = 0;
        for event in process.events().ok_or("no events")? {
            match event? {
                ExecProcessEvent::Output(output) => bytes += output.chunk.len(),
                ExecProcessEvent::Failed(reason) => return Err(reason.into()),
                _ => {}
            }
        }
        assert_eq!(bytes, BYTES);
        rates.push(BYTES as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    let process = client.start_process(&StartOptions::new(["/bin/cat"]).pipe_stdin())?;
    let (mut input, mut output) = (process.stdin(), process.merged_output().ok_or("no output")?);
    let mut echoes = Vec::new();
    for _ in 0..ECHOES {
        echoes.push(micros(|| {
            input.write_all(b"hello\n")?;
            Ok(output.read_exact(&mut [0; 6])?)
        })?);
    }
    process.terminate(std::time::Duration::ZERO)?;
    let mut runs = Vec::new();
    for _ in 0..200 {
        let start = || {
            Ok(client
                .start_process(&StartOptions::new(["/bin/true"]))?
                .output()
                .map(drop)?)
        };
        runs.push(micros(start)?);
    }
    println!(
        "{name:12} output {:7.0} MB/s   through cat {:6.0} MB/s   echo p50 {:5.0} us   /bin/true p50 {:5.0} us   readFile {:6.0} MB/s",
        median(rates),
        round_trip_rate(client)?,
        median(echoes),
        median(runs),
        file_rate(client)?
    );
    Ok(())
}

/// How fast input goes in and comes back.
fn round_trip_rate(client: &ExecServerClient) -> Result<f64> {
    let input = vec![b'x'; CONTENT_BYTES];
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let process = client.start_process(&StartOptions::new(["/bin/cat"]).pipe_stdin())?;
        let mut output = process.merged_output().ok_or("no output")?;
        let start = Instant::now();
        std::thread::scope(|scope| {
            let written = scope.spawn(|| {
                process.stdin().write_all(&input)?;
                process.close_stdin().map_err(std::io::Error::from)
            });
            let read = std::io::copy(&mut output, &mut std::io::sink())?;
            assert_eq!(read, CONTENT_BYTES as u64);
            written.join().map_err(|_| "a panic")??;
            Ok::<(), Box<dyn std::error::Error>>(())
        })?;
        rates.push(CONTENT_BYTES as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    Ok(median(rates))
}

/// How fast a file is read in one call.
fn file_rate(client: &ExecServerClient) -> Result<f64> {
    let path = std::env::temp_dir().join(format!("exec-server-bench-{}", std::process::id()));
    let mut file = client.fs_create(&path)?;
    file.write_all(&vec![b'x'; CONTENT_BYTES])?;
    file.close()?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        assert_eq!(client.fs_read_file(&path)?.len(), CONTENT_BYTES);
        rates.push(CONTENT_BYTES as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    client.fs_remove(&path, false, true)?;
    Ok(median(rates))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
