//! Starts commands by the library itself, with sandboxes that make do without namespaces.

use exec_server::process::{
    Confine, Exit, Limits, Owner, Process, Retention, StartError, StartSpec, Started, Stdio, Stream,
};
use exec_server::protocol::sandbox::Sandbox;
use exec_server::sandbox::{Enforcer, Surroundings};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What is told of a command.
enum Told {
    Started(Result<Started, StartError>),
    Ended,
}

struct Teller(Sender<Told>);

impl Owner for Teller {
    fn started(&mut self, outcome: Result<Started, StartError>) {
        let _ = self.0.send(Told::Started(outcome));
    }

    fn settled(&mut self) {}

    fn exited(&mut self, _: &Arc<Process>) {}

    fn ended(&mut self, _: &Arc<Process>) {
        let _ = self.0.send(Told::Ended);
    }
}

/// A command that runs.
pub(crate) struct Unshared {
    pub(crate) process: Arc<Process>,
    told: Receiver<Told>,
}

/// How it ended.
pub(crate) struct UnsharedEnd {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Exit,
}

impl Unshared {
    /// Starts a shell script in `cwd`.
    pub(crate) fn start(
        cwd: &Path,
        sandbox: Sandbox,
        env: &[(&str, String)],
        script: &str,
    ) -> Result<Self, StartError> {
        let mut spec = StartSpec::new(["/bin/bash", "--norc", "-c", script]);
        spec.cwd = cwd.to_owned();
        spec.env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        spec.env.push(("PATH".into(), super::PATH.into()));
        let surroundings = Surroundings {
            cwd: cwd.to_owned(),
            cwd_is_of_request: true,
            temporary_directories: Vec::new(),
            home: None,
        };
        let enforcer = Enforcer::without_namespaces();
        spec.confine = Some(Confine(Arc::new(move || enforcer.enforcement(&sandbox, &surroundings))));
        let limits = Limits {
            retention: Retention {
                bytes: 1 << 20,
                events: 1000,
                credit: 1 << 20,
                ack_window: None,
            },
            stdin_soft: 1000,
            stdin_hard: 1000,
            totals: None,
        };
        let (tell, told) = channel();
        let process = Process::new("p", Stdio::Pipes { stdin: false }, limits, None, Box::new(Teller(tell)));
        process.launch(spec);
        match told.recv_timeout(super::DEADLINE).unwrap() {
            Told::Started(Err(e)) => return Err(e),
            Told::Started(Ok(started)) => assert!(started.is_confined),
            Told::Ended => panic!("it ended before it started"),
        }
        Ok(Unshared { process, told })
    }

    /// Waits until it has ended and nobody can write any more.
    pub(crate) fn finish(self) -> UnsharedEnd {
        assert!(matches!(self.told.recv_timeout(super::DEADLINE), Ok(Told::Ended)));
        UnsharedEnd {
            stdout: self.output(Stream::Stdout),
            stderr: self.output(Stream::Stderr),
            exit: self.process.snapshot().exit.unwrap(),
        }
    }

    /// What it has written until now.
    pub(crate) fn output(&self, stream: Stream) -> String {
        let replay = self.process.replay(0, None);
        let chunks = replay.chunks.iter().filter(|chunk| chunk.1 == stream);
        let bytes: Vec<u8> = chunks.flat_map(|chunk| chunk.2.to_vec()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
