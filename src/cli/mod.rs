//! The command line: the only place that prints.

pub(crate) mod args;
pub(crate) mod attach;
mod auth;
mod client_args;
pub(crate) mod copy;
mod copy_file;
mod failure;
mod flags;
mod foreground;
mod help;
mod input;
pub(crate) mod list;
pub(crate) mod log_output;
mod output;
mod place;
mod progress;
pub(crate) mod run;
pub(crate) mod serve;
mod signals;
mod terminal;

pub(crate) use failure::Failure;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a lock guards is whole whenever it is free, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
