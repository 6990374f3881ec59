//! `exec-server cp`: files from or to a server.

use super::args::{CopyArgs, Direction};
use super::copy_file::{Problem, fetch, send};
use super::failure::Failure;
use super::foreground::spawn;
use super::place::{Connected, connect};
use super::signals::{Caught, Signals};
use exec_server::client::ExecServerClient;
use exec_server::client::ExecServerError;
use exec_server::protocol::error::NOT_FOUND;
use exec_server::protocol::files::FsReadDirectoryEntry;
use exec_server::protocol::path_uri;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;

/// Copies what it was asked to. Returns 1 if something was left out.
pub(crate) fn copy(args: &CopyArgs) -> Result<u8, Failure> {
    let interruption = Interruption::watch()?;
    let connected = connect(&args.common, None).map_err(Failure::plain)?;
    let _ = interruption.client.set(connected.client.clone());
    let mut copy = Copy {
        client: &connected.client,
        recursive: args.recursive,
        left_out: false,
    };
    let copied = copy.run(&args.direction, &connected);
    let left_out = copy.left_out;
    connected.end();
    if let Some(code) = interruption.code.get() {
        return Ok(*code);
    }
    copied.map(|()| left_out.into())
}

/// A signal ends the connection, and with it the copy, which removes what is not whole.
#[derive(Default)]
struct Interruption {
    client: OnceLock<ExecServerClient>,
    code: OnceLock<u8>,
}

impl Interruption {
    fn watch() -> Result<Arc<Interruption>, Failure> {
        let signals = Signals::block().map_err(Failure::plain)?;
        let interruption = Arc::new(Interruption::default());
        let watching = interruption.clone();
        let watch = move || {
            loop {
                let _ = poll(
                    &mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::NONE,
                );
                while let Some(caught) = signals.next() {
                    if let Caught::PassOn(signal, _) = caught {
                        let code = *watching.code.get_or_init(|| 128 + signal as u8);
                        match watching.client.get() {
                            Some(client) => client.close(),
                            // There is nothing to remove.
                            None => std::process::exit(code.into()),
                        }
                    }
                }
            }
        };
        spawn("signals", watch).map_err(Failure::plain)?;
        Ok(interruption)
    }
}

struct Copy<'a> {
    client: &'a ExecServerClient,
    recursive: bool,
    left_out: bool,
}

impl Copy<'_> {
    fn run(&mut self, direction: &Direction, connected: &Connected) -> Result<(), Failure> {
        match direction {
            Direction::Fetch { from, to } => {
                let from = connected.path(from).map_err(Failure::plain)?;
                let mut to = to.clone();
                match fs::metadata(&to) {
                    Ok(there) if there.is_dir() => to.extend(from.file_name()),
                    Ok(_) => {}
                    Err(e) if ends_with_slash(&to) => return Err(Problem::of_file(&to, &e).into()),
                    Err(_) => {}
                }
                Ok(self.fetch(&from, &to, false)?)
            }
            Direction::Send { from, to } => {
                let is_directory = ends_with_slash(to);
                let mut to = connected.path(to).map_err(Failure::plain)?;
                match self.client.fs_metadata(&to) {
                    Ok(there) if there.is_directory => to.extend(from.file_name()),
                    Ok(_) => {}
                    Err(ExecServerError::Server { code: NOT_FOUND, .. }) if !is_directory => {}
                    Err(e) => return Err(Problem::of_server(&to, &e).into()),
                }
                Ok(self.send(from, &to, false)?)
            }
        }
    }

    /// Copies from the server what is at `from`, which may be part of a directory.
    fn fetch(&mut self, from: &Path, to: &Path, is_part: bool) -> Result<(), Problem> {
        let found = self
            .client
            .fs_metadata(from)
            .map_err(|e| Problem::of_server(from, &e))?;
        if !found.is_directory {
            return fetch(self.client, from, found.size, to);
        }
        self.check_directory(from, is_part && found.is_symlink)?;
        let entries = self.client.fs_read_directory(from);
        let entries = entries.map_err(|e| Problem::of_server(from, &e))?;
        make_directory(to)?;
        for entry in entries {
            let path = match path_of(from, &entry) {
                Some(path) if entry.is_file || entry.is_directory => path,
                _ => {
                    let path = from.join(&entry.file_name);
                    self.leave_out(Problem::new(&path, "neither a file nor a directory"))?;
                    continue;
                }
            };
            let mut to = to.to_owned();
            to.extend(path.file_name());
            if let Err(problem) = self.fetch(&path, &to, true) {
                self.leave_out(problem)?;
            }
        }
        Ok(())
    }

    /// Copies to the server what is at `from`, which may be part of a directory.
    fn send(&mut self, from: &Path, to: &Path, is_part: bool) -> Result<(), Problem> {
        let of_file = |e: std::io::Error| Problem::of_file(from, &e);
        let found = fs::metadata(from).map_err(of_file)?;
        if !found.is_dir() {
            if is_part && !found.is_file() {
                return Err(Problem::new(from, "neither a file nor a directory"));
            }
            return send(self.client, from, to);
        }
        self.check_directory(
            from,
            is_part && fs::symlink_metadata(from).map_err(of_file)?.is_symlink(),
        )?;
        let entries = fs::read_dir(from).map_err(of_file)?;
        let made = self.client.fs_create_directory(to, true);
        made.map_err(|e| Problem::of_server(to, &e))?;
        for entry in entries {
            let name = entry.map_err(of_file)?.file_name();
            if let Err(problem) = self.send(&from.join(&name), &to.join(&name), true) {
                self.leave_out(problem)?;
            }
        }
        Ok(())
    }

    fn check_directory(&self, path: &Path, is_link: bool) -> Result<(), Problem> {
        match (self.recursive, is_link) {
            // It might lead back here.
            (_, true) => Err(Problem::new(path, "a link to a directory")),
            (false, _) => Err(Problem::new(path, "a directory; -r copies it")),
            (true, false) => Ok(()),
        }
    }

    /// Says what was left out and goes on, if that makes sense.
    fn leave_out(&mut self, problem: Problem) -> Result<(), Problem> {
        if problem.is_final {
            return Err(problem);
        }
        log::error!("left out {}", problem.message);
        self.left_out = true;
        Ok(())
    }
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// The path of an entry of a directory on the server. `None` if its name leads elsewhere: whatever a server says,
/// nothing is written but below the destination.
fn path_of(directory: &Path, entry: &FsReadDirectoryEntry) -> Option<PathBuf> {
    let path = match &entry.uri {
        Some(uri) => path_uri::parse(uri).ok()?,
        None => {
            let mut parts = Path::new(&entry.file_name).components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(name)), None) => directory.join(name),
                _ => return None,
            }
        }
    };
    matches!(path.components().next_back(), Some(Component::Normal(_))).then_some(path)
}

fn make_directory(path: &Path) -> Result<(), Problem> {
    match fs::create_dir(path) {
        Err(e) if !path.is_dir() => Err(Problem::of_file(path, &e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let path = |name: &str, uri: Option<&str>| {
            let entry = FsReadDirectoryEntry {
                file_name: name.into(),
                is_directory: false,
                is_file: true,
                uri: uri.map(str::to_owned),
            };
            path_of(Path::new("/a"), &entry)
        };
        assert_eq!(path("b", None), Some("/a/b".into()));
        for name in ["..", ".", "", "/", "/b", "b/c", "../b"] {
            assert_eq!(path(name, None), None, "{name}");
        }
        assert!(path("x", Some("file:///a/%FF")).is_some());
        assert_eq!(path("x", Some("file:///")), None);
    }
}
