//! The other side of the wire: a program's view of a server that runs commands for it.

pub mod events;
