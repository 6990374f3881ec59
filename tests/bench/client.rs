//! Measures the blocking client together with a server: what a program sees that uses both.
//!
//! ```sh
//! cargo bench --bench client            # over WebSocket, stdio and in process
//! cargo bench --bench client -- memory  # in process only
//! cargo bench --bench client -- ws://127.0.0.1:9400
//! ```

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
    let mut server = Command::new(PROGRAM).stdout(Stdio::piped()).spawn()?;
    let measured = over_websocket(&mut server);
    server.kill()?;
    server.wait()?;
    measured?;
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

fn over_websocket(server: &mut Child) -> Result<()> {
    let mut url = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut url)?;
    let args = RemoteExecServerConnectArgs::new(url.trim_end());
    measure("WebSocket", &ExecServerClient::connect_websocket(args)?)
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
    for _ in 0..2000 {
        let start = Instant::now();
        input.write_all(b"hello\n")?;
        output.read_exact(&mut [0; 6])?;
        echoes.push(start.elapsed().as_secs_f64() * 1e6);
    }
    process.terminate(std::time::Duration::ZERO)?;
    let mut runs = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        client.start_process(&StartOptions::new(["/bin/true"]))?.output()?;
        runs.push(start.elapsed().as_secs_f64() * 1e6);
    }
    println!(
        "{name:12} output {:7.0} MB/s   echo p50 {:5.0} us   /bin/true p50 {:5.0} us",
        median(rates),
        median(echoes),
        median(runs)
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
