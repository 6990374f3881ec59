//! The protocol by hand over a WebSocket: one thread, one buffer, a read and a write at a time.

use crate::Result;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A connection with a session and a process `cat` in it.
pub(crate) struct Bare {
    stream: TcpStream,
    /// Received, and not looked at yet.
    received: Vec<u8>,
    last_id: usize,
}

impl Bare {
    pub(crate) fn connect(url: &str) -> Result<Bare> {
        let address = url.strip_prefix("ws://").ok_or("not a WebSocket URL")?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        let mut bare = Bare {
            stream,
            received: Vec::new(),
            last_id: 0,
        };
        let head = loop {
            if let Some(end) = bare.received.windows(4).position(|part| part == b"\r\n\r\n") {
                break bare.received.drain(..end + 4).collect::<Vec<_>>();
            }
            bare.receive()?;
        };
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(String::from_utf8_lossy(&head).into());
        }
        bare.call("initialize", r#"{"clientName":"bench"}"#)?;
        bare.send(r#"{"method":"initialized"}"#)?;
        bare.call(
            "process/start",
            r#"{"processId":"cat","argv":["/bin/cat"],"cwd":"file:///","env":{},"tty":false,"pipeStdin":true}"#,
        )?;
        Ok(bare)
    }

    /// Writes `hello` and waits until it was accepted and is back.
    pub(crate) fn echo(&mut self) -> Result<()> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&format!(
            r#"{{"id":{id},"method":"process/write","params":{{"processId":"cat","writeId":"{id}","chunk":"aGVsbG8K"}}}}"#
        ))?;
        let (mut is_accepted, mut is_back) = (false, false);
        while !(is_accepted && is_back) {
            let message = self.next()?;
            is_accepted |= message.ends_with(r#""result":{"status":"accepted"}}"#);
            is_back |= message.contains(r#""chunk":"aGVsbG8K""#);
        }
        Ok(())
    }

    fn call(&mut self, method: &str, params: &str) -> Result<()> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&format!(r#"{{"id":{id},"method":"{method}","params":{params}}}"#))?;
        let answer = self.next()?;
        match answer.contains(r#""result":"#) {
            true => Ok(()),
            false => Err(answer.into()),
        }
    }

    /// Sends a text frame. Its mask is zero, which leaves the text as it is.
    fn send(&mut self, text: &str) -> Result<()> {
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        Ok(self.stream.write_all(&frame)?)
    }

    /// The text of the next message, which must be less than 64 KiB.
    fn next(&mut self) -> Result<String> {
        loop {
            let (start, len) = match self.received[..] {
                [0x81, len @ 0..=125, ..] => (2, len as usize),
                [0x81, 126, high, low, ..] => (4, u16::from_be_bytes([high, low]) as usize),
                [_] | [0x81, 126, ..] | [] => (2, usize::MAX / 2),
                _ => return Err("another frame than a short text".into()),
            };
            if let Some(text) = self.received.get(start..start + len) {
                let text = String::from_utf8(text.to_vec())?;
                self.received.drain(..start + len);
                return Ok(text);
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<()> {
        let mut piece = [0; 16 * 1024];
        let n = self.stream.read(&mut piece)?;
        self.received.extend_from_slice(&piece[..n]);
        match n {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }
}
