//! File calls.

use super::percentile;
use crate::Result;
use crate::connection::payload;
use crate::results::Values;
use crate::server::{Server, TMP, is_websocket};
use std::fs;
use std::time::Instant;

const MIB: usize = 1 << 20;

pub(super) fn metadata(command: &[String], values: &mut Values) -> Result<()> {
    const COUNT: usize = 20_000;
    let mut server = Server::start(command)?;
    let begin = Instant::now();
    let request = |_| ("fs/getMetadata", r#"{"path":"file:///etc/passwd"}"#.to_owned());
    server.call_many(COUNT, 32, request, |_| ())?;
    values.put(
        "fs/getMetadata, 32 at a time",
        "1/s",
        COUNT as f64 / begin.elapsed().as_secs_f64(),
    );
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        server.call("fs/getMetadata", r#"{"path":"file:///etc/passwd"}"#)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    values.put("fs/getMetadata, one at a time, p50", "us", percentile(&mut times, 0.5));
    Ok(())
}

pub(super) fn read(command: &[String], values: &mut Values) -> Result<()> {
    let file = Scratch::new();
    let size = 32 * MIB;
    fs::write(&file.path, b"0123456789abcdef".repeat(size / 16))?;
    let params = format!(r#"{{"path":"{}"}}"#, file.url());
    let mut server = Server::start(command)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        server.call("fs/readFile", &params)?;
        times.push(start.elapsed().as_secs_f64());
        let read = payload(server.text(), r#""dataBase64":""#);
        if read != Some(size) {
            return Err(format!("{read:?} bytes were read, not {size}").into());
        }
    }
    values.put(
        "fs/readFile of 32 MiB",
        "MB/s",
        size as f64 / 1e6 / percentile(&mut times, 0.5),
    );
    Ok(())
}

pub(super) fn write(command: &[String], values: &mut Values) -> Result<()> {
    let file = Scratch::new();
    // Some servers take no frame of more than 16 MiB.
    let size = if is_websocket(command) { 8 * MIB } else { 32 * MIB };
    let params = format!(
        r#"{{"path":"{}","dataBase64":"{}"}}"#,
        file.url(),
        "QUJDREVG".repeat(size / 6)
    );
    let mut server = Server::start(command)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        server.call("fs/writeFile", &params)?;
        times.push(start.elapsed().as_secs_f64());
    }
    let (written, sent) = (fs::metadata(&file.path)?.len(), (size / 6 * 6) as u64);
    if written != sent {
        return Err(format!("{written} bytes were written, not {sent}").into());
    }
    values.put(
        "fs/writeFile of 32 MiB (ws: 8 MiB)",
        "MB/s",
        size as f64 / 1e6 / percentile(&mut times, 0.5),
    );
    Ok(())
}

/// A file that is removed at the end.
struct Scratch {
    path: String,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch {
            path: format!("{TMP}/wire-{}", std::process::id()),
        }
    }

    fn url(&self) -> String {
        format!("file://{}", self.path.replace('%', "%25").replace(' ', "%20"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
