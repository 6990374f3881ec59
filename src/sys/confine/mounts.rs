//! The mount namespace of a confined program: which of the host's files are there, and what may be done with them.
//!
//! Everything is prepared where memory may be had, and carried out in the new process, where only system calls may be
//! made. Trees are cloned from the host's before anything is changed, so that what is writable stays so under a
//! read-only whole, and then put in place, one over the other. Needs Linux 5.12, for `mount_setattr(2)`.

use super::guard::{Guard, Guards};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
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
    /// What was taken of the host's, or made.
    tree: AtomicI32,
}

#[derive(Clone, Copy)]
enum Node {
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

    /// Carries it out, in the mount namespace that is to be changed. The program's terminal, if it has one, is descriptor 0.
    ///
    /// # Safety
    /// To be called in a process of its own that has a mount namespace of its own and may change it. Makes system calls
    /// only.
    pub(super) unsafe fn set_up(&self, has_terminal: bool) -> Result<(), Failure> {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        // SAFETY: system calls on integers and on strings that live as long as `self`, as in all that is called.
        unsafe {
            let cut = libc::mount(none, c"/".as_ptr(), none, private, none.cast());
            check(MountStep::Private, cut.into())?;
            let host = open_root()?;
            let devices = match self.base {
                Base::Unrestricted => None,
                _ => Some(Devices::take(self.base, has_terminal)?),
            };
            for (i, place) in self.places.iter().enumerate() {
                place.take(host).map_err(at(i))?;
            }
            let root = self.root(host)?;
            if let Some(devices) = devices {
                devices.put(root)?;
            }
            put_proc(root)?;
            for (i, place) in self.places.iter().enumerate() {
                place.put(root).map_err(at(i))?;
            }
            // Now that all is in them that belongs there.
            for (i, place) in self.places.iter().enumerate() {
                if place.kind == PlaceKind::HiddenDirectory {
                    restrict(place.tree.load(Ordering::Relaxed), ATTR_RDONLY, 0).map_err(at(i))?;
                }
            }
            if self.base == Base::Empty {
                restrict(root, ATTR_RDONLY, 0)?;
                enter(root)?;
            }
        }
        Ok(())
    }

    /// The directory that all places are relative to.
    unsafe fn root(&self, host: RawFd) -> Result<RawFd, Failure> {
        // SAFETY: as `set_up`.
        unsafe {
            let read_only = match self.base {
                Base::Unrestricted => return Ok(host),
                Base::ReadOnly => ATTR_RDONLY,
                Base::Writable => 0,
                Base::Empty => {
                    let root = file_system(c"tmpfs", &[(c"mode", c"0755"), (c"size", c"1m")], LIMITED)?;
                    // Over the host's root, which is the one place that is always there. It is entered at the end.
                    attach(root, libc::AT_FDCWD, c"/")?;
                    make(root, c"proc", Node::Directory)?;
                    make(root, c"dev", Node::Directory)?;
                    return Ok(root);
                }
            };
            restrict(host, read_only | LIMITED, RECURSIVE)?;
        }
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
    unsafe fn take(&self, host: RawFd) -> Result<(), Failure> {
        // SAFETY: as `Mounts::set_up`.
        let tree = unsafe {
            match self.kind {
                PlaceKind::Read => restricted(self.clone(host)?, ATTR_RDONLY | LIMITED)?,
                PlaceKind::Write => restricted(self.clone(host)?, LIMITED)?,
                // A device where there are no devices: nobody can open it, nor make it so that it can be.
                PlaceKind::HiddenFile => restricted(open_tree(host, c"dev/null", 0)?, ATTR_RDONLY | LIMITED)?,
                PlaceKind::HiddenDirectory | PlaceKind::Link(_) => return Ok(()),
            }
        };
        self.tree.store(tree, Ordering::Relaxed);
        Ok(())
    }

    /// The host's tree there, unless a link has been put in its place since it was looked at.
    unsafe fn clone(&self, host: RawFd) -> Result<RawFd, Failure> {
        // SAFETY: as `Mounts::set_up`.
        unsafe {
            let place = open_without_links(MountStep::Take, host, &self.path)?;
            let tree = open_tree(place, c"", RECURSIVE | libc::AT_EMPTY_PATH);
            libc::close(place);
            tree
        }
    }

    /// Puts it in place.
    unsafe fn put(&self, root: RawFd) -> Result<(), Failure> {
        // SAFETY: as `Mounts::set_up`.
        unsafe {
            for directory in &self.above {
                make(root, directory, Node::Directory)?;
            }
            if let Some(node) = self.make {
                make(root, &self.path, node)?;
            }
            let tree = match &self.kind {
                PlaceKind::Link(target) => return link(target, root, &self.path),
                PlaceKind::HiddenDirectory => {
                    // Who may pass through a directory may not list it.
                    let mode = if self.is_passed { c"0111" } else { c"0000" };
                    let tree = file_system(c"tmpfs", &[(c"mode", mode), (c"size", c"64k")], LIMITED)?;
                    self.tree.store(tree, Ordering::Relaxed);
                    tree
                }
                _ => self.tree.load(Ordering::Relaxed),
            };
            let place = open_without_links(MountStep::Attach, root, &self.path)?;
            let attached = attach(tree, place, c"");
            libc::close(place);
            attached
        }
    }
}

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

/// The host's devices that go into the private `/dev`; -1 for those that it has not.
struct Devices {
    nodes: [RawFd; DEVICES.len()],
    /// The program's terminal.
    console: RawFd,
    shared_memory: RawFd,
}

impl Devices {
    unsafe fn take(base: Base, has_terminal: bool) -> Result<Devices, Failure> {
        let mut nodes = [-1; DEVICES.len()];
        // SAFETY: as `Mounts::set_up`.
        unsafe {
            for (node, (_, path)) in nodes.iter_mut().zip(DEVICES) {
                *node = open_tree(libc::AT_FDCWD, path, 0).unwrap_or(-1);
            }
            let console = match has_terminal {
                true => open_terminal().unwrap_or(-1),
                false => -1,
            };
            // A program that may write everywhere shares memory with the host's as well.
            let shared_memory = match base {
                Base::Writable => open_tree(libc::AT_FDCWD, c"/dev/shm", RECURSIVE).unwrap_or(-1),
                _ => -1,
            };
            Ok(Devices {
                nodes,
                console,
                shared_memory,
            })
        }
    }

    unsafe fn put(&self, root: RawFd) -> Result<(), Failure> {
        // SAFETY: as `Mounts::set_up`.
        unsafe {
            let dev = file_system(c"tmpfs", &[(c"mode", c"0755"), (c"size", c"64k")], ATTR_NOSUID)?;
            attach(dev, root, c"dev")?;
            for (node, (path, _)) in self.nodes.iter().zip(DEVICES) {
                if *node >= 0 {
                    make(root, path, Node::File)?;
                    attach(*node, root, path)?;
                }
            }
            // Its own name is one of the host's and not there; programs that look for it find this one.
            if self.console >= 0 {
                make(root, c"dev/console", Node::File)?;
                attach(self.console, root, c"dev/console")?;
            }
            for (target, path) in DEVICE_LINKS {
                link(target, root, path)?;
            }
            make(root, c"dev/shm", Node::Directory)?;
            let shm = match self.shared_memory {
                -1 => file_system(c"tmpfs", &[(c"mode", c"1777")], LIMITED)?,
                shm => shm,
            };
            attach(shm, root, c"dev/shm")?;
            make(root, c"dev/pts", Node::Directory)?;
            // A kernel may have no terminals; whoever asks for one is told then.
            if let Ok(pts) = file_system(c"devpts", &[(c"mode", c"620"), (c"ptmxmode", c"666")], ATTR_NOSUID) {
                attach(pts, root, c"dev/pts")?;
            }
            restrict(dev, ATTR_RDONLY, 0)
        }
    }
}

/// The processes of the own namespace, to be read: through what can be written there, such as `sys`, a program of the
/// root user could reach out. Where the host hides parts of its own, which forbids a new one, it stays empty; never is it
/// the host's, whose processes lead to their roots.
unsafe fn put_proc(root: RawFd) -> Result<(), Failure> {
    let attributes = ATTR_RDONLY | LIMITED | ATTR_NOEXEC;
    // SAFETY: as `Mounts::set_up`.
    unsafe {
        let proc = match file_system(c"proc", &[], attributes) {
            Err(Failure { errno: libc::EPERM, .. }) => file_system(c"tmpfs", &[(c"size", c"4k")], attributes)?,
            proc => proc?,
        };
        match attach(proc, root, c"proc") {
            Err(Failure {
                errno: libc::ENOENT, ..
            }) => Ok(()),
            attached => attached,
        }
    }
}

/// Makes `root`, which lies over the host's root, the root, and forgets the host's.
unsafe fn enter(root: RawFd) -> Result<(), Failure> {
    // SAFETY: as `Mounts::set_up`.
    unsafe {
        check(MountStep::Root, libc::fchdir(root).into())?;
        let here = c".".as_ptr();
        check(MountStep::Root, libc::syscall(libc::SYS_pivot_root, here, here))?;
        check(MountStep::Root, libc::umount2(here, libc::MNT_DETACH).into())?;
        check(MountStep::Root, libc::chdir(c"/".as_ptr()).into())?;
    }
    Ok(())
}

// From linux/mount.h; the numbers of the calls, which are the same on all architectures, are in nix's libc.
pub(super) const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;
const ATTR_NOEXEC: u64 = 8;
/// What holds for all files of the host's.
pub(super) const LIMITED: u64 = ATTR_NOSUID | ATTR_NODEV;
const OPEN_TREE_CLONE: c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_int = 4;
const MOVE_MOUNT_T_EMPTY_PATH: c_int = 0x40;
const RESOLVE_NO_SYMLINKS: u64 = 4;
const FSOPEN_CLOEXEC: c_int = 1;
const FSMOUNT_CLOEXEC: c_int = 1;
const FSCONFIG_SET_STRING: c_int = 1;
const FSCONFIG_CMD_CREATE: c_int = 6;
pub(super) const RECURSIVE: c_int = 0x8000;

/// `struct mount_attr`
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn check(step: MountStep, result: c_long) -> Result<c_long, Failure> {
    match result {
        0.. => Ok(result),
        _ => Err(Failure {
            step,
            place: None,
            errno: Errno::last_raw(),
        }),
    }
}

/// Adds the place to a failure.
fn at(index: usize) -> impl Fn(Failure) -> Failure {
    move |failure| Failure {
        place: Some(index),
        ..failure
    }
}

unsafe fn open_root() -> Result<RawFd, Failure> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: as `Mounts::set_up`.
    check(MountStep::Take, unsafe { libc::open(c"/".as_ptr(), flags) }.into()).map(|fd| fd as RawFd)
}

/// Opens what is there, if no link is on the way nor at the end.
unsafe fn open_without_links(step: MountStep, directory: RawFd, path: &CStr) -> Result<RawFd, Failure> {
    // `struct open_how`: flags, mode, how to go there.
    let how = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, RESOLVE_NO_SYMLINKS];
    // SAFETY: as `Mounts::set_up`; `how` is a live local of the size that is given.
    let fd = unsafe {
        let (path, how, size) = (path.as_ptr(), how.as_ptr(), size_of_val(&how));
        libc::syscall(libc::SYS_openat2, directory, path, how, size)
    };
    check(step, fd).map(|fd| fd as RawFd)
}

unsafe fn open_tree(directory: RawFd, path: &CStr, recursive: c_int) -> Result<RawFd, Failure> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | recursive;
    // SAFETY: as `Mounts::set_up`.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) };
    check(MountStep::Take, fd).map(|fd| fd as RawFd)
}

/// The terminal that is descriptor 0, by its name: the descriptor itself is of the mount namespace that was left.
unsafe fn open_terminal() -> Result<RawFd, Failure> {
    let mut name = [0; 64];
    // SAFETY: as `Mounts::set_up`; `name` is a live local of the size that is given, less an end.
    unsafe {
        let room = (name.as_mut_ptr(), name.len() - 1);
        let read = libc::readlink(c"/proc/self/fd/0".as_ptr(), room.0, room.1);
        check(MountStep::Take, read as c_long)?;
        open_tree(libc::AT_FDCWD, CStr::from_ptr(name.as_ptr()), 0)
    }
}

unsafe fn restrict(tree: RawFd, attributes: u64, recursive: c_int) -> Result<(), Failure> {
    let attr = MountAttr {
        set: attributes,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | recursive;
    // SAFETY: as `Mounts::set_up`; `attr` is a live local of the size that is given.
    let result = unsafe {
        let size = size_of::<MountAttr>();
        libc::syscall(
            libc::SYS_mount_setattr,
            tree,
            c"".as_ptr(),
            flags,
            &raw const attr,
            size,
        )
    };
    check(MountStep::Restrict, result).map(drop)
}

/// The same for a whole tree, which it gives back.
unsafe fn restricted(tree: RawFd, attributes: u64) -> Result<RawFd, Failure> {
    // SAFETY: as `Mounts::set_up`.
    unsafe { restrict(tree, attributes, RECURSIVE)? };
    Ok(tree)
}

unsafe fn attach(tree: RawFd, directory: RawFd, path: &CStr) -> Result<(), Failure> {
    // SAFETY: as `Mounts::set_up`.
    let result = unsafe {
        let (from, to) = (c"".as_ptr(), path.as_ptr());
        let flags = match path.is_empty() {
            true => MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
            false => MOVE_MOUNT_F_EMPTY_PATH,
        };
        libc::syscall(libc::SYS_move_mount, tree, from, directory, to, flags)
    };
    check(MountStep::Attach, result).map(drop)
}

unsafe fn file_system(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Result<RawFd, Failure> {
    // SAFETY: as `Mounts::set_up`.
    unsafe {
        let context = check(
            MountStep::Create,
            libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC),
        )?;
        for (key, value) in options {
            let (key, value) = (key.as_ptr(), value.as_ptr());
            let set = libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0);
            check(MountStep::Create, set)?;
        }
        let none: *const u8 = std::ptr::null();
        let created = libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, none, none, 0);
        check(MountStep::Create, created)?;
        let mount = libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes as c_int);
        let mount = check(MountStep::Create, mount)?;
        libc::close(context as RawFd);
        Ok(mount as RawFd)
    }
}

unsafe fn make(directory: RawFd, path: &CStr, node: Node) -> Result<(), Failure> {
    // SAFETY: as `Mounts::set_up`.
    let made = unsafe {
        match node {
            Node::Directory => libc::mkdirat(directory, path.as_ptr(), 0o755),
            Node::File => libc::mknodat(directory, path.as_ptr(), libc::S_IFREG | 0o444, 0),
        }
    };
    made_or_there(made)
}

unsafe fn link(target: &CStr, directory: RawFd, path: &CStr) -> Result<(), Failure> {
    // SAFETY: as `Mounts::set_up`.
    made_or_there(unsafe { libc::symlinkat(target.as_ptr(), directory, path.as_ptr()) })
}

fn made_or_there(result: c_int) -> Result<(), Failure> {
    match check(MountStep::Create, result.into()) {
        Err(Failure {
            errno: libc::EEXIST, ..
        }) => Ok(()),
        made => made.map(drop),
    }
}
