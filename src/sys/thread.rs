//! Threads, made by the C library's own means.
//!
//! The standard library's take a second, small stack for each thread, to say so when the first has overflowed; and when
//! there is no memory for that, they end the whole program. Nor is what they do besides needed here, which is several KiB
//! of code and four system calls a thread.

use nix::libc;
use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// A thread that was started. It goes on by itself when this is dropped.
#[derive(Debug)]
pub struct Thread(Option<libc::pthread_t>);

// SAFETY: it names a thread, and any thread may join or detach another. It is not copied, so that happens once.
unsafe impl Send for Thread {}
// SAFETY: as above; `&self` gives nothing.
unsafe impl Sync for Thread {}

/// A thread has panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

struct Start {
    name: [u8; NAME_BYTES],
    run: Box<dyn FnOnce() + Send>,
}

/// What the kernel keeps of a thread's name, with a NUL.
const NAME_BYTES: usize = 16;

/// Starts a thread with a stack of that many bytes. A panic ends it and nothing else.
///
/// # Errors
/// There is no thread, or no memory for its stack, to be had.
pub fn start(name: &str, stack_bytes: usize, run: Box<dyn FnOnce() + Send>) -> io::Result<Thread> {
    super::reserve::renew()?;
    let mut start = Box::new(Start {
        name: [0; NAME_BYTES],
        run,
    });
    let len = name.len().min(NAME_BYTES - 1);
    start.name[..len].copy_from_slice(&name.as_bytes()[..len]);
    let start = Box::into_raw(start);
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the attributes are initialized before they are used, and given up after that; `begin` gets what it takes
    // back, and if it is not called that is done here.
    unsafe {
        let mut failed = libc::pthread_attr_init(attributes.as_mut_ptr());
        if failed == 0 {
            failed = libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack_bytes);
            if failed == 0 {
                failed = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), begin, start.cast());
            }
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
        if failed != 0 {
            drop(Box::from_raw(start));
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(Thread(Some(thread.assume_init())))
    }
}

extern "C" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: it is what `start` has let go of for this.
    let start = unsafe { Box::from_raw(start.cast::<Start>()) };
    // SAFETY: the name ends with NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, start.name.as_ptr()) };
    let name = start.name;
    match catch_unwind(AssertUnwindSafe(start.run)) {
        Ok(()) => ptr::null_mut(),
        Err(_) => {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            log::error!("the thread `{}` has failed in an unforeseen way", name.escape_ascii());
            ptr::dangling_mut()
        }
    }
}

impl Thread {
    /// Waits for its end.
    ///
    /// # Errors
    /// It has panicked.
    pub fn join(mut self) -> Result<(), Panicked> {
        let mut result = ptr::null_mut();
        if let Some(thread) = self.0.take() {
            // SAFETY: it was neither joined nor detached, and will not be again. It can only fail for a thread that would
            // wait for itself, which is given up then as if it were dropped.
            if unsafe { libc::pthread_join(thread, &mut result) } != 0 {
                // SAFETY: as above.
                unsafe { libc::pthread_detach(thread) };
            }
        }
        if result.is_null() { Ok(()) } else { Err(Panicked) }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // SAFETY: it was neither joined nor detached, and will not be again.
            unsafe { libc::pthread_detach(thread) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Panicked, start};
    use std::sync::mpsc;

    const STACK_BYTES: usize = 128 * 1024;

    #[test]
    fn a_thread_has_its_name_and_stack_and_can_be_waited_for() {
        let (tell, told) = mpsc::channel();
        let run = move || {
            let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            let room = [1u8; STACK_BYTES / 2];
            tell.send((name, std::hint::black_box(&room).len())).unwrap();
        };
        let thread = start("with a long name for one", STACK_BYTES, Box::new(run)).unwrap();
        assert_eq!(told.recv().unwrap(), ("with a long nam\n".into(), STACK_BYTES / 2));
        assert_eq!(thread.join(), Ok(()));
    }

    #[test]
    fn a_panic_ends_only_the_thread() {
        let thread = start("panics", STACK_BYTES, Box::new(|| panic!("on purpose"))).unwrap();
        assert_eq!(thread.join(), Err(Panicked));
    }

    #[test]
    fn what_was_to_run_is_dropped_if_there_is_no_thread() {
        let (tell, told) = mpsc::channel::<()>();
        assert!(start("too large", usize::MAX / 2, Box::new(move || drop(tell))).is_err());
        assert!(told.recv().is_err());
    }
}
