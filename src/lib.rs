//! Runs commands and touches files for a client that lives elsewhere.

#[cfg(feature = "client")]
pub mod client;
pub mod files;
#[cfg(feature = "client")]
pub mod host;
mod metrics;
pub mod process;
pub mod protocol;
pub mod sandbox;
pub mod server;
pub mod sys;
pub mod transport;
