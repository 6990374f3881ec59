//! Threads: nothing unsafe, but what starts one is several KiB of code, and here it is once for all of them.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with a stack of that many bytes.
///
/// # Errors
/// There is no thread, or no memory for its stack, to be had.
pub fn start(name: &str, stack_bytes: usize, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(run)
}
