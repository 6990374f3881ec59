//! The wire types: plain data and its JSON form, no I/O.

pub mod base64_run;
pub mod bytes;
pub mod decode;
pub mod environment;
pub mod error;
pub mod files;
pub mod first_wire;
pub(crate) mod json;
pub mod message;
pub mod path_uri;
pub mod process;
pub mod sandbox;
mod sandbox_modes;
