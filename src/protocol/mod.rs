//! The wire types: plain data and its JSON form, no I/O.
