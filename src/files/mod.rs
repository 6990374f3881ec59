//! The file-system engine: what the `fs/*` methods do, without a word of JSON-RPC.
//!
//! A path is taken apart once: its directory is opened, and what happens to the entry in it happens
//! relative to that descriptor, so that a link put in the way meanwhile can't lead a call elsewhere. New content
//! is written beside the old and renamed over it. Trees are gone through with a bounded number of
//! descriptors and no recursion, however deep they are.
//!
//! A call may have [`Bounds`]. Then its path is gone along step by step, to find out where it really leads, and what is
//! permitted there decides; the call goes on from the directory that was found so.

mod at_once;
mod bounds;
mod canonicalize;
mod copy;
mod copy_tree;
mod directory;
mod error;
#[cfg(test)]
mod fixture;
mod handles;
mod metadata;
mod patience;
mod place;
mod read;
mod remove;
mod replace;
mod walk;
mod watch;
mod write;

pub use at_once::LocalDevices;
pub use bounds::{Bounds, OPEN_DEVICES};
pub use canonicalize::canonicalize;
pub use copy::{Copied, copy};
pub use directory::{create_directory, read_directory};
pub use error::{FilesError, FilesErrorKind};
pub use handles::{FileHandles, Form, MAX_BLOCK};
pub use metadata::metadata;
pub use patience::Patience;
pub use place::Links;
pub use read::{READ_LIMIT, ReadableFile, open_for_reading};
pub use remove::{RemoveOptions, remove};
pub use replace::Replaced;
pub use walk::walk;
pub use watch::MissingWatch;
pub use write::write_file;
