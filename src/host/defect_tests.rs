//! A panic in each thread of the client and of the host: who waits is told, and what can go on goes on.

use super::{InProcessServerEvent, InProcessStartArgs, connect, start};
use crate::client::{ExecServerClient, ExecServerClientConnectOptions, RemoteExecServerConnectArgs, StartOptions};
use crate::server::{Listener, Server, ServerConfig};
use crate::sys::defect::plant;
use crate::transport::address::Address;
use crate::transport::admission::Admission;
use crate::transport::auth::Authorizer;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

fn listen() -> (Arc<Server>, String) {
    let server = Server::new(ServerConfig::default());
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = Listener::bind(&address, Admission::from(Authorizer::None).into()).unwrap();
    let url = listener.address().to_string();
    listener.serve(server.clone()).unwrap();
    (server, url)
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|state| !state.is_empty() && !state.starts_with('Z'))
}

#[test]
fn a_session_goes_on_after_a_panic_of_its_reader() {
    let (server, url) = listen();
    let client = ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(url)).unwrap();
    let sleep = |id: &str| client.start_process(&StartOptions::new(["/bin/sleep", "1000"]).process_id(id));
    let process = sleep("goes-on").unwrap();
    // It is in the answer.
    plant("client reader", "defect-in-client-reader");
    let lost = sleep("defect-in-client-reader").err().unwrap();
    let reason = "exec-server transport disconnected: reading failed in an unforeseen way";
    assert_eq!(lost.to_string(), reason);
    assert!(process.terminate(Duration::ZERO).unwrap());
    assert_eq!(process.wait(None).unwrap().exit_code, 137);
    client.close();
    server.shut_down();
}

#[test]
fn a_panic_of_a_clients_keeper_is_the_end_of_its_session() {
    let (server, url) = listen();
    let client = ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(url)).unwrap();
    let process = client
        .start_process(&StartOptions::new(["/bin/sleep", "1000"]))
        .unwrap();
    plant("client keeper", client.session_id());
    client.drop_connection();
    assert!(process.wait(None).is_err());
    let error = client.environment_info().and(client.environment_status());
    assert!(error.unwrap_err().to_string().contains("failed in an unforeseen way"));
    client.close();
    server.shut_down();
}

#[test]
fn a_panic_of_a_client_within_the_program_concerns_it_alone() {
    let (server, end) = connect(ServerConfig::default()).unwrap();
    let client = ExecServerClient::connect_memory(end, ExecServerClientConnectOptions::default()).unwrap();
    let start = |id: &str| client.start_process(&StartOptions::new(["/bin/sleep", "1000"]).process_id(id));
    let pid = start("first").unwrap().pid().unwrap();
    plant("client reader", "defect-in-client-within");
    let lost = start("defect-in-client-within").err().unwrap();
    assert!(
        lost.to_string().ends_with("reading failed in an unforeseen way"),
        "{lost}"
    );
    assert!(start("other").is_err());
    client.close();
    server.shut_down();
    assert!(!is_alive(pid));
}

#[test]
fn a_panic_of_a_host_ends_it_with_its_server_and_nobody_waits() {
    for defect in ["test/defect-in-hosts-call", "defect-in-hosts-answer"] {
        let mut host = start(InProcessStartArgs::new("defects")).unwrap();
        let sleep = json!({"processId": defect, "argv": ["/bin/sleep", "1000"], "cwd": "/", "env": {}, "tty": false});
        host.request(1, "process/start", &sleep).unwrap().unwrap();
        let list = host.request(2, "process/list", &Value::Null).unwrap().unwrap();
        let pid = list.decode::<Value>().unwrap()["processes"][0]["pid"].as_i64().unwrap();
        plant("host", defect);
        let asked = match defect.starts_with("test/") {
            true => host.request(3, defect, &Value::Null),
            false => host.request(3, "process/list", &Value::Null),
        };
        assert!(!matches!(asked, Ok(Ok(_))));
        while let Some(event) = host.next_event() {
            assert!(matches!(event, InProcessServerEvent::ServerNotification(_)));
        }
        assert!(host.request(4, "process/list", &Value::Null).is_err());
        host.shutdown().unwrap();
        assert!(!is_alive(pid as i32));
    }
}
