//! The mount namespace of a confined program: which of the host's files are there, and what may be done with them.
//!
//! Everything is prepared where memory may be had, and carried out in the new process, where only system calls may be
//! made. Trees are cloned from the host's before anything is changed, so that what is writable stays so under a
//! read-only whole, and then put in place, one over the other. Needs Linux 5.12, for `mount_setattr(2)`.

use super::devices::{Devices, put_proc};
use super::guard::{Guard, Guards};
use super::tree::{self, Extent};
use crate::sys::raw::{self, Fd};
use nix::libc::{self, c_int};
use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// What a confined program sees of the host's files.
pub struct Mounts {
    base: Base,
    places: Vec<Place>,
    guards: Guards,
}

/// What is there before the places are put in place. `/proc` is private in each, and `/dev` in all but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The host's whole tree as it is, with its devices.
    Unrestricted,
    /// The host's whole tree, to be read.
    ReadOnly,
    /// The host's whole tree.
    Writable,
    /// Nothing.
    Empty,
}

/// What a place is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// The host's, to be read.
    Read,
    /// The host's.
    Write,
    /// A directory with nothing in it but places that come later. Nobody may list it, nor enter it without those.
    HiddenDirectory,
    /// A file that nobody may open.
    HiddenFile,
    /// A symbolic link to that; in an empty base or a hidden directory only.
    Link(CString),
}

struct Place {
    /// Relative to the root.
    path: CString,
    kind: PlaceKind,
    /// What has to be made where there is nothing: the directories above, outermost first, and where to put it.
    above: Vec<CString>,
    make: Option<Node>,
    /// Of a hidden directory: whether there are places in it.
    is_passed: bool,
    /// The descriptor of what was taken of the host's, in the process that takes it.
    tree: AtomicI32,
}

/// What is made for something to be put over it.
#[derive(Clone, Copy)]
pub(super) enum Node {
    File,
    Directory,
}

/// What was being done when the mounts could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountStep {
    /// Cutting the ties to the host's mounts.
    Private,
    /// Taking the host's files.
    Take,
    /// Making files read-only.
    Restrict,
    /// Making a file system.
    Create,
    /// Putting files in place.
    Attach,
    /// Making the private root the root.
    Root,
    /// Watching for names that must not come to be.
    Guard,
    /// Having the private `/proc` that it takes to do so.
    Proc,
}

impl MountStep {
    const ALL: [MountStep; 8] = [
        MountStep::Private,
        MountStep::Take,
        MountStep::Restrict,
        MountStep::Create,
        MountStep::Attach,
        MountStep::Root,
        MountStep::Guard,
        MountStep::Proc,
    ];

    pub(super) fn from_number(number: i32) -> Option<MountStep> {
        MountStep::ALL.into_iter().find(|step| *step as i32 == number)
    }

    /// What it does, after "failed to".
    pub fn describe(self) -> &'static str {
        match self {
            MountStep::Private => "cut the ties to the host's mounts",
            MountStep::Take => "take the host's files",
            MountStep::Restrict => "restrict the host's files",
            MountStep::Create => "make a private file system",
            MountStep::Attach => "put files in place",
            MountStep::Root => "change the root",
            MountStep::Guard => "guard the names that must not come to be",
            MountStep::Proc => "mount the /proc that guarding names that must not come to be takes",
        }
    }
}

/// What failed: the step, the place by its index, the error number.
pub(super) struct Failure {
    pub(super) step: MountStep,
    pub(super) place: Option<usize>,
    pub(super) errno: c_int,
}

impl Mounts {
    /// Without places yet.
    pub fn new(base: Base) -> Mounts {
        Mounts {
            base,
            places: Vec::new(),
            guards: Guards::default(),
        }
    }

    /// Keeps the program from giving a file that name, at an absolute path without symbolic links and without NUL. Its
    /// directory has to be there and be a place, and so can't be renamed. The name is one of those that Codex protects;
    /// with another one the program does not start. If somebody else makes it, it is to be read only.
    ///
    /// Each call that makes or renames a file is made by the init in the program's place then, which takes some
    /// microseconds more.
    pub fn guard(&mut self, path: &[u8]) {
        self.guards.add(path);
    }

    /// The names that must not come to be, by directory.
    ///
    /// # Errors
    /// A name can't be guarded: its path.
    pub(super) fn guards(&self) -> Result<&[Guard], String> {
        match &self.guards.impossible {
            Some(path) => Err(String::from_utf8_lossy(path).into_owned()),
            None => Ok(&self.guards.list),
        }
    }

    /// Adds a place, to be put over those before it. Its path is absolute, without symbolic links and without NUL;
    /// `is_directory` says what the host has there.
    pub fn add(&mut self, path: &[u8], kind: PlaceKind, is_directory: bool) {
        let path = match path.strip_prefix(b"/").unwrap_or(path) {
            b"" => b".",
            path => path,
        };
        let c_string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        // What lies in a tree of the host's is there, and nothing may be made in that.
        let around = self.places.iter_mut().rev().find(|place| place.is_above(path));
        let (make, outside) = match around {
            Some(place) => {
                place.is_passed = true;
                (
                    place.kind == PlaceKind::HiddenDirectory,
                    place.path.as_bytes().len() + 1,
                )
            }
            // The private `/dev/shm` is empty, whatever the base is.
            None => (self.base == Base::Empty || path.starts_with(b"dev/shm/"), 0),
        };
        let slashes = path
            .iter()
            .enumerate()
            .filter(|(i, b)| make && *i >= outside && **b == b'/');
        let above = slashes.map(|(i, _)| c_string(&path[..i])).collect();
        let node = if is_directory { Node::Directory } else { Node::File };
        let is_link = matches!(kind, PlaceKind::Link(_));
        self.places.push(Place {
            path: c_string(path),
            kind,
            above,
            make: (make && !is_link && path != b".").then_some(node),
            is_passed: false,
            tree: AtomicI32::new(-1),
        });
    }

    /// The path of a place, or behind them of a directory with guarded names, for an error.
    pub fn path(&self, index: usize) -> Option<String> {
        match self.places.get(index) {
            Some(place) => Some(format!("/{}", place.path.to_string_lossy())),
            None => {
                let guard = self.guards.list.get(index - self.places.len())?;
                Some(guard.directory.to_string_lossy().into_owned())
            }
        }
    }

    /// The index of a directory with guarded names, for [`path`](Mounts::path).
    pub(super) fn guard_index(&self, index: usize) -> usize {
        self.places.len() + index
    }

    /// Carries it out, in the mount namespace that is to be changed, which has to be this process's own. Makes system calls
    /// only. The program's terminal, if it has one, is descriptor 0.
    pub(super) fn set_up(&self, has_terminal: bool) -> Result<(), Failure> {
        tree::cut_ties().map_err(failed(MountStep::Private))?;
        let flags = raw::NAME | libc::O_DIRECTORY;
        let host = raw::open(libc::AT_FDCWD, c"/", flags, 0).map_err(failed(MountStep::Take))?;
        let devices = (self.base != Base::Unrestricted).then(|| Devices::take(self.base, has_terminal));
        for (i, place) in self.places.iter().enumerate() {
            place.take(host.0).map_err(at(i))?;
        }
        let root = self.make_root(host)?;
        if let Some(devices) = devices {
            devices.put(root.0)?;
        }
        put_proc(root.0)?;
        for (i, place) in self.places.iter().enumerate() {
            place.put(root.0).map_err(at(i))?;
        }
        // Now that all is in them that belongs there.
        for (i, place) in self.places.iter().enumerate() {
            if place.kind == PlaceKind::HiddenDirectory {
                place.close(root.0).map_err(at(i))?;
            }
        }
        if self.base == Base::Empty {
            tree::restrict(root.0, tree::RDONLY, Extent::Top).map_err(failed(MountStep::Restrict))?;
            tree::enter(root.0).map_err(failed(MountStep::Root))?;
        }
        Ok(())
    }

    /// The directory that all places are relative to.
    fn make_root(&self, host: Fd) -> Result<Fd, Failure> {
        let read_only = match self.base {
            Base::Unrestricted => return Ok(host),
            Base::ReadOnly => tree::RDONLY,
            Base::Writable => 0,
            Base::Empty => {
                let root = tree::make(c"tmpfs", &[(c"mode", c"0755"), (c"size", c"1m")], tree::LIMITED)
                    .map_err(failed(MountStep::Create))?;
                // Over the host's root, which is the one place that is always there. It is entered at the end.
                tree::attach(&root, libc::AT_FDCWD, c"/").map_err(failed(MountStep::Attach))?;
                make(root.0, c"proc", Node::Directory)?;
                make(root.0, c"dev", Node::Directory)?;
                return Ok(root);
            }
        };
        tree::restrict(host.0, read_only | tree::LIMITED, Extent::Whole).map_err(failed(MountStep::Restrict))?;
        Ok(host)
    }
}

impl Place {
    /// Whether `path` is below it.
    fn is_above(&self, path: &[u8]) -> bool {
        let own = self.path.as_bytes();
        own == b"." || path.strip_prefix(own).is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// Clones what the host has there, while it is as the host has it.
    fn take(&self, host: RawFd) -> Result<(), Failure> {
        let attributes = match self.kind {
            PlaceKind::Read => tree::RDONLY | tree::LIMITED,
            PlaceKind::Write => tree::LIMITED,
            PlaceKind::HiddenFile | PlaceKind::HiddenDirectory | PlaceKind::Link(_) => return Ok(()),
        };
        // Unless a link has been put in its place since it was looked at.
        let taken = tree::name(host, &self.path).and_then(|place| tree::clone(place.0, c"", Extent::Whole));
        let taken = taken.map_err(failed(MountStep::Take))?;
        tree::restrict(taken.0, attributes, Extent::Whole).map_err(failed(MountStep::Restrict))?;
        self.tree.store(taken.into_raw(), Ordering::Relaxed);
        Ok(())
    }

    /// Puts it in place.
    fn put(&self, root: RawFd) -> Result<(), Failure> {
        for directory in &self.above {
            make(root, directory, Node::Directory)?;
        }
        if let Some(node) = self.make {
            make(root, &self.path, node)?;
        }
        let tree = match &self.kind {
            PlaceKind::Link(target) => return link(target, root, &self.path),
            PlaceKind::Read | PlaceKind::Write => Fd(self.tree.load(Ordering::Relaxed)),
            // Only now, because there may be more of them than descriptors can be had.
            PlaceKind::HiddenDirectory => {
                // Who may pass through a directory may not list it.
                let mode = if self.is_passed { c"0111" } else { c"0000" };
                tree::make(c"tmpfs", &[(c"mode", mode), (c"size", c"64k")], tree::LIMITED)
                    .map_err(failed(MountStep::Create))?
            }
            // A device where there are no devices: nobody can open it, nor make it so that it can be.
            PlaceKind::HiddenFile => {
                let null = tree::clone(root, c"dev/null", Extent::Top).map_err(failed(MountStep::Take))?;
                let attributes = tree::RDONLY | tree::LIMITED;
                tree::restrict(null.0, attributes, Extent::Top).map_err(failed(MountStep::Restrict))?;
                null
            }
        };
        let attached = tree::name(root, &self.path).and_then(|place| tree::attach(&tree, place.0, c""));
        attached.map_err(failed(MountStep::Attach))
    }

    /// Has nothing more made in it.
    fn close(&self, root: RawFd) -> Result<(), Failure> {
        let closed = tree::name(root, &self.path).and_then(|place| tree::restrict(place.0, tree::RDONLY, Extent::Top));
        closed.map_err(failed(MountStep::Restrict))
    }
}

/// That a step has failed, not at a place.
pub(super) fn failed(step: MountStep) -> impl Fn(c_int) -> Failure {
    move |errno| Failure {
        step,
        place: None,
        errno,
    }
}

/// Adds the place to a failure.
fn at(index: usize) -> impl Fn(Failure) -> Failure {
    move |failure| Failure {
        place: Some(index),
        ..failure
    }
}

/// Makes something to put a tree over, if it is not there.
pub(super) fn make(directory: RawFd, path: &CStr, node: Node) -> Result<(), Failure> {
    made_or_there(match node {
        Node::Directory => raw::make_directory(directory, path, 0o755),
        Node::File => raw::make_node(directory, path, libc::S_IFREG | 0o444, 0),
    })
}

/// Makes a symbolic link, if it is not there.
pub(super) fn link(target: &CStr, directory: RawFd, path: &CStr) -> Result<(), Failure> {
    made_or_there(raw::make_symlink(target, directory, path))
}

fn made_or_there(made: Result<usize, c_int>) -> Result<(), Failure> {
    match made {
        Err(libc::EEXIST) => Ok(()),
        made => made.map(drop).map_err(failed(MountStep::Create)),
    }
}
