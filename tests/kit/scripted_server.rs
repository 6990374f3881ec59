//! A server that does what a test says.

use super::DEADLINE;
use serde_json::{Value, json};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use tungstenite::{Message, WebSocket};

/// The script's end of it: takes connections one after the other.
pub(crate) struct ScriptedServer {
    listener: TcpListener,
    socket: Option<WebSocket<TcpStream>>,
}

/// Runs a script against clients of the URL that is returned. The script's failure is the joiner's.
pub(crate) fn scripted(script: impl FnOnce(&mut ScriptedServer) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let script = thread::spawn(move || {
        let socket = None;
        script(&mut ScriptedServer { listener, socket });
    });
    (url, script)
}

impl ScriptedServer {
    /// Takes the next connection; the one before is closed.
    pub(crate) fn accept(&mut self) {
        self.socket = None;
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        self.socket = Some(tungstenite::accept(stream).unwrap());
    }

    /// Takes the next connection and says nothing until the client is gone.
    pub(crate) fn ignore_one(&mut self) {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = [0; 1024];
        while matches!(stream.read(&mut rest), Ok(1..)) {}
    }

    /// Closes the connection.
    pub(crate) fn cut(&mut self) {
        self.socket = None;
    }

    /// Takes the next connection up to `initialized`, and returns the params of `initialize`.
    pub(crate) fn open(&mut self, session: &str, capabilities: Value) -> Value {
        self.accept();
        let request = self.request("initialize");
        self.answer(
            &request,
            json!({
                "sessionId": session,
                "environmentInfo": {"shell": {"name": "sh", "path": "/bin/sh"}, "capabilities": capabilities},
            }),
        );
        assert_eq!(self.next()["method"], "initialized");
        request["params"].clone()
    }

    pub(crate) fn socket(&mut self) -> &mut WebSocket<TcpStream> {
        self.socket.as_mut().unwrap()
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Value {
        loop {
            match self.socket().read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next message, which must be a request of that method.
    pub(crate) fn request(&mut self, method: &str) -> Value {
        let message = self.next();
        assert_eq!(message["method"], method, "{message}");
        assert!(message["id"].is_i64(), "{message}");
        message
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.socket().send(Message::text(text)).unwrap();
    }

    pub(crate) fn answer(&mut self, request: &Value, result: Value) {
        self.send(&json!({"id": request["id"], "result": result}));
    }

    pub(crate) fn refuse(&mut self, request: &Value, code: i64, message: &str) {
        self.send(&json!({"error": {"code": code, "message": message}, "id": request["id"]}));
    }

    /// Takes the start of a process and answers it.
    pub(crate) fn start(&mut self) -> Value {
        let request = self.request("process/start");
        let id = request["params"]["processId"].clone();
        self.answer(&request, json!({"processId": id, "sandboxType": "none"}));
        request["params"].clone()
    }

    /// Sends an event of process `p`: `out`, `exited` with code 3, or `closed`.
    pub(crate) fn event(&mut self, kind: &str, seq: u64) {
        let mut params = json!({"processId": "p", "seq": seq});
        let method = match kind {
            "exited" | "closed" => kind,
            text => {
                params["stream"] = "stdout".into();
                params["chunk"] = super::base64(text).into();
                "output"
            }
        };
        if kind == "exited" {
            params["exitCode"] = 3.into();
        }
        self.send(&json!({"method": format!("process/{method}"), "params": params}));
    }
}
