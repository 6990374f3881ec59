//! What a client takes and gives back. Alone in its program, whose threads and descriptors it counts.

#![cfg(feature = "client")]

mod kit;

use exec_server::client::{ExecServerClient, ExecServerLaunchCommand, RemoteExecServerConnectArgs, StartOptions};
use kit::Server;

fn own() -> (usize, usize) {
    kit::threads_and_fds(std::process::id() as i32)
}

#[test]
fn a_client_has_two_threads_whatever_it_does_and_leaves_nothing() {
    let server = Server::websocket(&[]);
    let url = format!("ws://{}", server.address());
    let command = ExecServerLaunchCommand {
        program: kit::exec_server().into(),
        args: vec!["--listen".into(), "stdio".into()],
        ..ExecServerLaunchCommand::default()
    };
    let connect: [&dyn Fn() -> ExecServerClient; 2] = [
        &|| ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(&url)).unwrap(),
        &|| ExecServerClient::spawn(&command).unwrap(),
    ];
    for connect in connect {
        let before = own();
        let client = connect();
        let sleep = StartOptions::new(["/bin/sleep", "1000"]).kill_on_drop();
        let processes: Vec<_> = (0..20).map(|_| client.start_process(&sleep).unwrap()).collect();
        assert_eq!(own().0, before.0 + 2);
        drop((processes, client));
        assert_eq!(own(), before);
    }
}
