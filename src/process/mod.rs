//! The process engine: starts commands, reads and numbers their output, feeds them input, ends them.
//!
//! It knows nothing of JSON-RPC, connections or sessions. Whoever starts a [`Process`] gives it an [`Audience`], which
//! is told when there is news and then pulls it from the process's [`OutputLog`]; nothing is ever pushed.

mod block;
mod denial;
pub mod env_policy;
mod family;
mod handle;
mod output_log;
pub mod pattern;
pub(crate) mod program;
mod run_limits;
mod start;
mod stdin;
mod stdin_queue;
mod supervisor;
mod totals;

pub use crate::sys::mark::Kin;
pub use block::{BLOCK_BYTES, Block, Bytes};
pub use family::{adopt_orphans, kill as kill_family, kill_descendants, reap_orphans};
pub use handle::{Audience, Limits, Owner, Process, ResizeError, Signal, Snapshot, Started, WaitOutcome};
pub use output_log::{Event, Exit, Failure, OutputLog, Replay, Retention, Stream};
pub use program::ProgramError;
pub use run_limits::{LimitMet, RunLimits};
pub use start::{Confine, StartError, StartSpec, Stdio, TerminalSize};
pub use stdin_queue::{StdinQueue, WriteStatus};
pub use totals::Totals;
