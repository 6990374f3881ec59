//! What can be told of a file without waiting for a disk or a network.

use super::metadata::description;
use crate::protocol::files::FsGetMetadataResponse;
use crate::sys::statx::{Described, describe_known};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, stat};
use nix::sys::statfs::statfs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Only what the kernel has in its cache is looked up, with `EAGAIN` otherwise (linux/openat2.h; Linux 5.12).
const RESOLVE_CACHED: ResolveFlag = ResolveFlag::from_bits_retain(0x20);

/// File systems within this machine, by their numbers in linux/magic.h: what they know of a file that they have in memory is
/// how it is.
const LOCAL: [u32; 8] = [
    0xef53,      // ext2 to ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0xf2f5_2010, // F2FS
    0x794c_7630, // overlayfs
    0x0102_1994, // tmpfs
    0x4d44,      // FAT
    0x8584_58f6, // ramfs, the first root of many small systems
];

/// So many devices are remembered. A machine has a few.
const MAX_DEVICES: usize = 64;

/// Which devices are known to be within this machine.
///
/// One that is mistaken for local, because a network's was given its number, still keeps nobody waiting: at worst what is told of
/// its files is as old as the kernel's cache.
#[derive(Default)]
pub struct LocalDevices(Mutex<Vec<Device>>);

struct Device {
    number: (u32, u32),
    /// None while somebody has yet to find out.
    is_local: Option<bool>,
}

impl LocalDevices {
    /// What [`metadata`](super::metadata()) with links followed would say of `path`, if it can be said without waiting.
    pub fn metadata(&self, path: &Path) -> Option<FsGetMetadataResponse> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(RESOLVE_CACHED);
        let file = openat2(AT_FDCWD, path, how).ok()?;
        let found = describe_known(&file)?;
        let is_link = SFlag::from_bits_truncate(found.mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
        (!is_link && self.is_local(&found)).then(|| description(&found))
    }

    fn is_local(&self, found: &Described) -> bool {
        let mut devices = self.devices();
        if let Some(device) = devices.iter().find(|device| device.number == found.device) {
            return device.is_local == Some(true);
        }
        if devices.len() < MAX_DEVICES {
            devices.push(Device {
                number: found.device,
                is_local: None,
            });
        }
        false
    }

    /// Finds out about the device of `path`, if somebody has wanted to know. May wait.
    pub fn learn(&self, path: &Path) {
        if self.devices().iter().all(|device| device.is_local.is_some()) {
            return;
        }
        let (Ok(file), Ok(system)) = (stat(path), statfs(path)) else {
            return;
        };
        let number = (nix::libc::major(file.st_dev), nix::libc::minor(file.st_dev));
        if let Some(device) = self.devices().iter_mut().find(|device| device.number == number) {
            // A number of 32 bits, in a type that differs between architectures.
            #[allow(clippy::unnecessary_cast)]
            let kind = system.filesystem_type().0 as u32;
            device.is_local = Some(LOCAL.contains(&kind));
        }
    }

    fn devices(&self) -> MutexGuard<'_, Vec<Device>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::TempDir;
    use crate::files::{Links, metadata};

    /// Whether this kernel, and this directory's file system, can do it at all.
    fn is_possible(devices: &LocalDevices, dir: &TempDir) -> bool {
        devices.metadata(dir.root());
        devices.learn(dir.root());
        let possible = devices.metadata(dir.root()).is_some();
        if !possible {
            eprintln!("not tested: nothing is known at once of {}", dir.root().display());
        }
        possible
    }

    #[test]
    fn it_says_the_same_as_one_that_may_wait() {
        let dir = TempDir::new();
        dir.put("f", "12345");
        dir.fifo("p");
        let devices = LocalDevices::default();
        assert!(
            devices.metadata(dir.root()).is_none(),
            "nothing is known of the device yet"
        );
        if !is_possible(&devices, &dir) {
            return;
        }
        for path in [dir.root().to_owned(), dir.path("f"), dir.path("p"), dir.path("./f")] {
            let expected = metadata(&path, Links::Follow).unwrap();
            assert_eq!(
                format!("{:?}", devices.metadata(&path)),
                format!("{:?}", Some(expected))
            );
        }
    }

    #[test]
    fn what_takes_a_closer_look_is_left_to_others() {
        let dir = TempDir::new();
        dir.put("f", "12345");
        dir.link("f", "l");
        let devices = LocalDevices::default();
        is_possible(&devices, &dir);
        for path in ["l", "missing", "f/below"] {
            assert!(devices.metadata(&dir.path(path)).is_none(), "{path}");
        }
    }

    #[test]
    fn a_file_system_of_another_kind_is_not_local() {
        let devices = LocalDevices::default();
        let path = Path::new("/proc/self");
        assert!(devices.metadata(path).is_none());
        devices.learn(path);
        assert!(devices.metadata(Path::new("/proc")).is_none());
    }
}
