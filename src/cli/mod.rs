//! The command line: the only place that prints.

pub(crate) mod args;
mod auth;
pub(crate) mod log_output;
pub(crate) mod serve;
