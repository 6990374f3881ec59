//! What a sandbox policy asks for, worked out against the files that are there.
//!
//! [`plan()`] turns the `sandbox` object of a call into a [`Plan`]: a short list of real paths, each with what may be done
//! there, in the order in which to mount them. It changes nothing and starts nothing; whoever carries it out looks at
//! each path again without following links, since the files may change meanwhile.
//!
//! In order: `policy` reads the entries, with the names that they use; `policy_places` finds out what a special
//! entry stands for, and `policy_scan` what matches a pattern (`glob`); `policy_path` follows each name to a real path;
//! `plan_access` decides what holds where, and `plan_rules` what is left to do about it.

mod facts;
mod glob;
pub mod legacy;
mod plan;
mod plan_access;
mod plan_rules;
#[cfg(test)]
mod plan_tests;
mod policy;
mod policy_path;
mod policy_places;
mod policy_scan;

pub use facts::{Facts, FileTree, Kind, RealFiles};
pub use plan::{Base, Files, Network, Plan, Rule, RuleAccess, plan};
pub use policy::{PolicyError, PolicyErrorKind, Surroundings};
