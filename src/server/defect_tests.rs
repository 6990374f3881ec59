//! A panic in each thread: what ends is only what must, and the client is told.

use super::{Listener, Server, ServerConfig};
use crate::sys::defect::plant;
use crate::transport::address::Address;
use crate::transport::admission::Admission;
use crate::transport::auth::Authorizer;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

const DEADLINE: Duration = Duration::from_secs(30);

struct Client {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    session: String,
    /// How the connection was closed.
    code: Option<u16>,
}

fn listen() -> (Arc<Server>, SocketAddr) {
    let server = Server::new(ServerConfig::default());
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let admission = Admission::from(Authorizer::None);
    let listener = Listener::bind(&address, admission.into()).unwrap();
    let Address::Tcp(address) = *listener.address() else {
        panic!("not of TCP")
    };
    listener.serve(server.clone()).unwrap();
    (server, address)
}

fn connect(address: SocketAddr) -> Result<WebSocket<TcpStream>, String> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let connected = tungstenite::client::client(format!("ws://{address}"), stream);
    Ok(connected.map_err(|e| e.to_string())?.0)
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        Client::resume(address, None)
    }

    fn resume(address: SocketAddr, session: Option<&str>) -> Client {
        let start = Instant::now();
        loop {
            let mut client = Client {
                socket: connect(address).unwrap(),
                last_id: 0,
                session: String::new(),
                code: None,
            };
            let params = json!({"clientName": "defects", "resumeSessionId": session});
            match client.ask("initialize", params).unwrap() {
                Ok(opened) => {
                    client.session = opened["sessionId"].as_str().unwrap().into();
                    client.tell(&json!({"method": "initialized"}));
                    return client;
                }
                // The connection before is still ending.
                Err((-32010, _)) if start.elapsed() < DEADLINE => std::thread::park_timeout(Duration::from_millis(5)),
                Err(e) => panic!("{e:?}"),
            }
        }
    }

    fn tell(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).unwrap();
    }

    fn request(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        self.tell(&json!({"id": self.last_id, "method": method, "params": params}));
        self.last_id
    }

    /// The answer; `None` if the connection ends before it.
    fn ask(&mut self, method: &str, params: Value) -> Option<Result<Value, (i64, String)>> {
        let id = self.request(method, params);
        self.until(|message| message["id"] == id).map(|answer| {
            let (error, result) = (&answer["error"], &answer["result"]);
            match error["code"].as_i64() {
                Some(code) => Err((code, error["message"].as_str().unwrap().to_owned())),
                None => Ok(result.clone()),
            }
        })
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.ask(method, params).unwrap().unwrap()
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if wanted(&message) {
                        return Some(message);
                    }
                }
                Ok(Message::Close(frame)) => self.code = frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(tungstenite::Error::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing comes")
                }
                Err(_) => return None,
            }
        }
    }

    fn start(&mut self, id: &str) -> Option<Result<Value, (i64, String)>> {
        let params = json!({"processId": id, "argv": ["sleep", "1000"], "cwd": "file:///", "tty": false,
            "env": {"PATH": "/usr/bin:/bin"}});
        self.ask("process/start", params)
    }

    fn is_fine(&mut self) {
        let listed = self.call("process/list", Value::Null);
        assert!(listed["processes"].is_array());
    }
}

fn is_alive(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

#[test]
fn a_dispatchers_panic_is_the_answer_to_the_request_in_hand() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    plant("dispatcher", "test/defect-in-request");
    let (code, message) = client.ask("test/defect-in-request", Value::Null).unwrap().unwrap_err();
    assert_eq!(
        (code, &message[..]),
        (-32603, "the request failed in an unforeseen way")
    );
    client.is_fine();
    plant("dispatcher", "test/defect-in-notification");
    client.tell(&json!({"method": "test/defect-in-notification"}));
    client.until(|message| message["error"]["code"] == -32603).unwrap();
    client.is_fine();
    server.shut_down();
}

#[test]
fn a_readers_panic_closes_the_connection_and_the_session_can_be_resumed() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    client.start("kept").unwrap().unwrap();
    plant("reader", "defect-in-reader");
    assert!(client.ask("defect-in-reader", Value::Null).is_none());
    assert_eq!(client.code, Some(1011));
    let mut again = Client::resume(address, Some(&client.session));
    assert_eq!(
        again.call("process/terminate", json!({"processId": "kept"})),
        json!({"running": true})
    );
    server.shut_down();
}

#[test]
fn a_writers_panic_cuts_the_connection_and_the_session_can_be_resumed() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    client.start("kept").unwrap().unwrap();
    plant("writer", "defect-in-writer");
    assert!(client.start("defect-in-writer").is_none());
    let mut again = Client::resume(address, Some(&client.session));
    assert_eq!(
        again.call("process/terminate", json!({"processId": "kept"})),
        json!({"running": true})
    );
    again.is_fine();
    server.shut_down();
}

#[test]
fn a_starters_panic_is_the_answer_to_the_start() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    plant("starter", "defect-in-starter");
    let (code, message) = client.start("defect-in-starter").unwrap().unwrap_err();
    assert_eq!(code, -32603);
    assert!(message.contains("unforeseen"), "{message}");
    client.start("defect-in-starter").unwrap().unwrap();
    server.shut_down();
}

#[test]
fn a_supervisors_panic_ends_its_process_and_says_so() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    client.start("other").unwrap().unwrap();
    plant("supervisor", "defect-in-supervisor");
    client.start("defect-in-supervisor").unwrap().unwrap();
    let exited = client.until(|message| message["method"] == "process/exited").unwrap();
    let params = &exited["params"];
    assert_eq!(
        (&params["processId"], &params["exitCode"]),
        (&json!("defect-in-supervisor"), &json!(137))
    );
    assert!(params["failure"].as_str().unwrap().contains("unforeseen"), "{params}");
    client.until(|message| message["method"] == "process/closed").unwrap();
    let read = client.call("process/read", json!({"processId": "defect-in-supervisor"}));
    assert_eq!((&read["closed"], &read["failure"]), (&json!(true), &params["failure"]));
    let listed = client.call("process/list", Value::Null);
    let other = listed["processes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["processId"] == "other");
    let pid = &other.unwrap()["pid"];
    assert!(is_alive(pid));
    server.shut_down();
    assert!(!is_alive(pid));
}

#[test]
fn what_waits_for_a_start_is_answered_even_if_that_panics() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    plant("settling", "defect-in-settling");
    let params = json!({"processId": "defect-in-settling", "argv": ["sleep", "1000"], "cwd": "file:///", "tty": false,
        "env": {"PATH": "/usr/bin:/bin"}});
    client.request("process/start", params);
    // Carried out by the supervisor, or by the dispatcher if the start was faster.
    client
        .ask("process/read", json!({"processId": "defect-in-settling", "waitMs": 1}))
        .unwrap()
        .ok();
    client.until(|message| message["method"] == "process/closed").unwrap();
    let read = client.call("process/read", json!({"processId": "defect-in-settling"}));
    assert!(read["failure"].as_str().unwrap().contains("unforeseen"), "{read}");
    server.shut_down();
}

#[test]
fn a_file_workers_panic_is_the_answer_to_the_call_and_holds_up_no_other() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    let path = json!({"path": "/tmp/defect-in-worker"});
    for _ in 0..3 {
        plant("file worker", "defect-in-worker");
        let (code, message) = client.ask("fs/getMetadata", path.clone()).unwrap().unwrap_err();
        assert_eq!(
            (code, &message[..]),
            (-32603, "the request failed in an unforeseen way")
        );
    }
    plant("file encoder", "/proc/self/stat");
    let (code, message) = client
        .ask("fs/readFile", json!({"path": "/proc/self/stat"}))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (code, &message[..]),
        (-32603, "the request failed in an unforeseen way")
    );
    assert_eq!(client.ask("fs/getMetadata", path).unwrap().unwrap_err().0, -32004);
    server.shut_down();
}

#[test]
fn a_listeners_panic_turns_one_client_away() {
    let (server, address) = listen();
    plant("listener", &format!("ws://{address}"));
    assert!(connect(address).is_err());
    Client::new(address).is_fine();
    server.shut_down();
}

#[test]
fn nobody_is_left_when_a_server_with_defects_is_gone() {
    let (server, address) = listen();
    let mut client = Client::new(address);
    plant("supervisor", "the-last-defect");
    client.start("the-last-defect").unwrap().unwrap();
    client.until(|message| message["method"] == "process/closed").unwrap();
    assert_eq!(server.sessions.all().len(), 1);
    server.shut_down();
    assert!(server.sessions.all().is_empty());
    assert!(client.until(|_| false).is_none());
}
