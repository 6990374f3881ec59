//! What a sandbox has of its own in `/dev` and `/proc`: only what is harmless, and only the processes of the sandbox.

use super::mounts::{Base, Failure, MountStep, Node, failed, link, make};
use super::tree::{self, Extent};
use crate::sys::raw::{self, Fd};
use nix::libc;
use std::ffi::CStr;
use std::os::fd::RawFd;

/// The devices that are harmless, and that programs need.
pub(in crate::sys) const DEVICES: [(&CStr, &CStr); 6] = [
    (c"dev/null", c"/dev/null"),
    (c"dev/zero", c"/dev/zero"),
    (c"dev/full", c"/dev/full"),
    (c"dev/random", c"/dev/random"),
    (c"dev/urandom", c"/dev/urandom"),
    (c"dev/tty", c"/dev/tty"),
];

/// What else is in `/dev`.
const DEVICE_LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"pts/ptmx", c"dev/ptmx"),
];

/// The host's devices that go into the private `/dev`, as far as it has them.
pub(super) struct Devices {
    nodes: [Option<Fd>; DEVICES.len()],
    /// The program's terminal.
    console: Option<Fd>,
    shared_memory: Option<Fd>,
}

impl Devices {
    /// Clones them. The program's terminal, if it has one, is descriptor 0.
    pub(super) fn take(base: Base, has_terminal: bool) -> Devices {
        let take = |path| tree::clone(libc::AT_FDCWD, path, Extent::Top).ok();
        Devices {
            nodes: DEVICES.map(|(_, path)| take(path)),
            console: has_terminal.then(take_terminal).flatten(),
            // A program that may write everywhere shares memory with the host's as well.
            shared_memory: (base == Base::Writable)
                .then(|| tree::clone(libc::AT_FDCWD, c"/dev/shm", Extent::Whole).ok())
                .flatten(),
        }
    }

    /// Puts them into a `/dev` of their own.
    pub(super) fn put(&self, root: RawFd) -> Result<(), Failure> {
        let create =
            |kind, options: &[_], attributes| tree::make(kind, options, attributes).map_err(failed(MountStep::Create));
        let attach = |tree: &Fd, path| tree::attach(tree, root, path).map_err(failed(MountStep::Attach));
        let dev = create(c"tmpfs", &[(c"mode", c"0755"), (c"size", c"64k")], tree::NO_RIGHTS)?;
        attach(&dev, c"dev")?;
        for (node, (path, _)) in self.nodes.iter().zip(DEVICES) {
            if let Some(node) = node {
                make(root, path, Node::File)?;
                attach(node, path)?;
            }
        }
        // Its own name is one of the host's and not there; programs that look for it find this one.
        if let Some(console) = &self.console {
            make(root, c"dev/console", Node::File)?;
            attach(console, c"dev/console")?;
        }
        for (target, path) in DEVICE_LINKS {
            link(target, root, path)?;
        }
        make(root, c"dev/shm", Node::Directory)?;
        match &self.shared_memory {
            Some(memory) => attach(memory, c"dev/shm")?,
            None => attach(&create(c"tmpfs", &[(c"mode", c"1777")], tree::LIMITED)?, c"dev/shm")?,
        }
        make(root, c"dev/pts", Node::Directory)?;
        // A kernel may have no terminals; whoever asks for one is told then.
        if let Ok(pts) = create(c"devpts", &[(c"mode", c"620"), (c"ptmxmode", c"666")], tree::NO_RIGHTS) {
            attach(&pts, c"dev/pts")?;
        }
        tree::restrict(dev.0, tree::RDONLY, Extent::Top).map_err(failed(MountStep::Restrict))
    }
}

/// The terminal that is descriptor 0, by its name: the descriptor itself is of the mount namespace that was left.
fn take_terminal() -> Option<Fd> {
    let mut name = [0; 64];
    let room = name.len() - 1;
    raw::read_link(libc::AT_FDCWD, c"/proc/self/fd/0", &mut name[..room]).ok()?;
    tree::clone(libc::AT_FDCWD, CStr::from_bytes_until_nul(&name).ok()?, Extent::Top).ok()
}

/// The processes of the own namespace, to be read: through what can be written there, such as `sys`, a program of the
/// root user could reach out. Where the host hides parts of its own, which forbids a new one, it stays empty; never is it
/// the host's, whose processes lead to their roots.
pub(super) fn put_proc(root: RawFd) -> Result<(), Failure> {
    let attributes = tree::RDONLY | tree::LIMITED | tree::NOEXEC;
    let proc = match tree::make(c"proc", &[], attributes) {
        Err(libc::EPERM) => tree::make(c"tmpfs", &[(c"size", c"4k")], attributes),
        made => made,
    };
    let proc = proc.map_err(failed(MountStep::Create))?;
    match tree::attach(&proc, root, c"proc") {
        Err(libc::ENOENT) => Ok(()),
        attached => attached.map_err(failed(MountStep::Attach)),
    }
}
