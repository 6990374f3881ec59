//! What a sandbox policy asks for, worked out against the files that are there.
//!
//! [`plan()`] turns the `sandbox` object of a call into a [`Plan`]: a short list of real paths, each with what may be done
//! there, in the order in which to mount them. It changes nothing and starts nothing. An [`Enforcer`] makes of it what a
//! command is confined to by [`sys::confine`](crate::sys::confine), where there are no namespaces for us by
//! [`sys::landlock`](crate::sys::landlock) if that can keep the plan, or says what this system lacks for that.
//!
//! In order: `policy` reads the entries, with the names that they use; `policy_places` finds out what a special
//! entry stands for, and `policy_scan` what matches a pattern (`glob`); `policy_path` follows each name to a real path;
//! `plan_access` decides what holds where, and `plan_rules` what is left to do about it.
//! A call that this process carries out itself is held to the plan by `verdict`.

mod enforce;
mod facts;
mod glob;
mod landlock;
pub mod legacy;
mod means;
mod plan;
mod plan_access;
mod plan_rules;
#[cfg(test)]
mod plan_tests;
mod policy;
mod policy_path;
mod policy_places;
mod policy_scan;
mod verdict;
#[cfg(test)]
mod verdict_tests;

pub use enforce::{Enforcement, Enforcer, SandboxError};
pub use facts::{Facts, FileTree, Kind, RealFiles};
pub use means::{Means, NoNamespaces};
pub use plan::{Base, Files, Network, Plan, Rule, RuleAccess, plan};
pub use policy::{PolicyError, PolicyErrorKind, Surroundings};
