//! Clients that are silent: pinged, cut off, and their sessions free for whoever resumes them.

mod kit;

use kit::{DEADLINE, Fault, FaultProxy, Server, until};
use serde_json::json;
use tungstenite::Message;

/// Reads until a ping comes; it is answered by the next read.
fn read_ping(client: &mut kit::Client) {
    let socket = client.websocket();
    socket.get_ref().set_read_timeout(Some(DEADLINE)).unwrap();
    while !matches!(socket.read().unwrap(), Message::Ping(_)) {}
}

#[test]
fn a_silent_client_is_pinged() {
    let server = Server::websocket(&["--ping-interval", "20ms"]);
    let mut client = server.client();
    for _ in 0..3 {
        read_ping(&mut client);
    }
}

#[test]
fn a_client_that_answers_no_pings_is_cut_off_and_one_that_does_is_not() {
    let server = Server::websocket(&[
        "--ping-interval",
        "20ms",
        "--silence-limit",
        "1s",
        "--probe-limit",
        "1000",
    ]);
    let (mut alive, silent) = (server.client(), server.client());
    let mut other = server.connect();
    let params = json!({"clientName": "test", "resumeSessionId": silent.session});
    until("the session of the silent client", || {
        read_ping(&mut alive);
        let id = other.request("initialize", params.clone());
        other.answer(id).get("result").map(drop)
    });
    assert_eq!(alive.call("environment/status", json!(null))["status"], "ready");
}

#[test]
fn the_session_of_a_half_open_connection_is_free_after_the_probe() {
    let server = Server::websocket(&["--probe-limit", "100ms"]);
    let proxy = FaultProxy::new(server.address().parse().unwrap(), |_| (Fault::Silence, 20_000));
    let mut lost = kit::Client::of_websocket(&proxy.url());
    lost.handshake();
    lost.start(kit::script("a", "head -c 100000 /dev/zero; exec sleep 1000"));
    until("the fault", || (proxy.faults() == 1).then_some(()));
    let mut other = server.connect();
    let params = json!({"clientName": "test", "resumeSessionId": lost.session});
    let mut refused = 0;
    until("the session of the lost client", || {
        let id = other.request("initialize", params.clone());
        let answer = other.answer(id);
        refused += usize::from(answer["error"]["code"] == -32010);
        answer.get("result").map(drop)
    });
    // It had its chance to answer.
    assert!(refused > 0);
    other.continue_at(&lost.session);
    other.send(&json!({"method": "initialized"}));
    let read = other.call("process/read", json!({"processId": "a"}));
    assert_eq!(read["lostBytes"], 0);
    let ended = other.call("process/terminate", json!({"processId": "a"}));
    assert_eq!(ended, json!({"running": true}));
}
