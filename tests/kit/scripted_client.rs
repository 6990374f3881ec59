//! A client of a scripted server, and what its tests ask it again and again.

#![allow(dead_code)]

use crate::kit::ScriptedServer;
use exec_server::client::events::ExecProcessEvent;
use exec_server::client::{
    ExecServerClient, ExecServerError, ExecServerProcess, RemoteExecServerConnectArgs, StartOptions,
};
use std::time::Duration;

pub(crate) fn args(url: &str) -> RemoteExecServerConnectArgs {
    let mut args = RemoteExecServerConnectArgs::new(url);
    args.options.recovery_interval = Duration::from_millis(1);
    args
}

pub(crate) fn connect(url: &str) -> ExecServerClient {
    ExecServerClient::connect_websocket(args(url)).unwrap()
}

pub(crate) fn start(client: &ExecServerClient) -> ExecServerProcess {
    client
        .start_process(&StartOptions::new(["x"]).process_id("p").pipe_stdin())
        .unwrap()
}

pub(crate) fn seqs(process: &ExecServerProcess) -> Vec<u64> {
    let events = process.events().unwrap().map(Result::unwrap);
    events.filter_map(|event| event.seq()).collect()
}

/// The failure that a process's stream ends with.
pub(crate) fn failure(process: &ExecServerProcess) -> String {
    match process.events().unwrap().map(Result::unwrap).last() {
        Some(ExecProcessEvent::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn message<T>(result: Result<T, ExecServerError>) -> String {
    result.err().map_or_else(|| "no error".into(), |e| e.to_string())
}

/// Reads from a server until the client is gone.
pub(crate) fn until_gone(server: &mut ScriptedServer) {
    while server.socket().read().is_ok() {}
}
