//! From a plan to what the system needs to keep it.

use super::facts::RealFiles;
use super::landlock::{restriction, writable_trees};
use super::means::{Means, NoNamespaces, make_ground};
use super::plan::{Base, Files, Network, Plan, RuleAccess, is_private, plan};
use super::policy::{PolicyError, Surroundings};
use crate::protocol::sandbox::Sandbox;
use crate::sys::confine::{self, Calls, ConfineError, Confinement, Ground, Mounts, PlaceKind};
use crate::sys::landlock::{self, LandlockError, Restriction};
use crate::sys::spawn::{Child, Program};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};

/// Keeps sandboxes, as far as this system can: with namespaces, or where there are none for us with Landlock, which can
/// keep the policies that allow reading everything and writing in whole trees.
#[derive(Debug, Default)]
pub struct Enforcer {
    /// Found out for the first sandbox.
    ground: OnceLock<Result<Arc<Ground>, NoNamespaces>>,
}

/// What a command is confined by.
pub enum Enforcement {
    /// Namespaces of its own.
    Namespaces(Confinement),
    /// Rights that it has given up.
    Landlock(Restriction),
}

/// Why there can't be a sandbox as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// It is in the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There are no namespaces, and nothing else can keep the policy.
    #[error("the sandbox cannot be enforced here: {what} needs user namespaces: {why}")]
    NeedsNamespaces {
        /// What it is that can't be kept.
        what: String,
        /// Why there are none.
        why: NoNamespaces,
    },
    /// There are neither namespaces nor Landlock.
    #[error("the sandbox cannot be enforced here: {namespaces}; {landlock}")]
    Unavailable {
        /// Why there are no namespaces.
        namespaces: NoNamespaces,
        /// Why there is no Landlock.
        landlock: LandlockError,
    },
    /// Something was short that may be there again the next time.
    #[error("the sandbox cannot be set up: {0}")]
    Shortage(NoNamespaces),
}

impl Enforcer {
    /// One that makes do without namespaces, as where there are none.
    pub fn without_namespaces() -> Enforcer {
        Enforcer {
            ground: OnceLock::from(Err(NoNamespaces::Unwanted)),
        }
    }

    /// What to confine a command by, with the files as they are now; nothing if it may do everything.
    ///
    /// # Errors
    /// The policy can't be kept, or not on this system.
    pub fn enforcement(
        &self,
        sandbox: &Sandbox,
        surroundings: &Surroundings,
    ) -> Result<Option<Enforcement>, SandboxError> {
        let plan = plan(sandbox, surroundings, &RealFiles)?;
        if plan.restricts_nothing() {
            return Ok(None);
        }
        let calls = match plan.network {
            Network::Open => Calls::Dangerous,
            Network::Restricted => Calls::DangerousAndNetwork,
        };
        let enforcement = match self.ground()? {
            Ok(ground) => Enforcement::Namespaces(Confinement {
                ground: ground.clone(),
                has_network: plan.network == Network::Open,
                mounts: mounts(&plan),
                filter: confine::filter(calls),
            }),
            Err(why) => {
                let trees = writable_trees(&plan.files)
                    .map_err(|what| SandboxError::NeedsNamespaces { what, why: why.clone() })?;
                let restriction = restriction(trees, calls).map_err(|landlock| SandboxError::Unavailable {
                    namespaces: why.clone(),
                    landlock,
                })?;
                Enforcement::Landlock(restriction)
            }
        };
        Ok(Some(enforcement))
    }

    /// Tries with what sandboxes can be had here.
    ///
    /// # Errors
    /// Why they can't be.
    pub fn check(&self) -> Result<Means, SandboxError> {
        match self.ground()? {
            Ok(_) => Ok(Means::Namespaces),
            Err(why) => {
                let tried = restriction(&[], Calls::DangerousAndNetwork).and_then(|restriction| {
                    let enforcement = Enforcement::Landlock(restriction);
                    confine::probe(&|program| enforcement.spawn(program)).map_err(LandlockError::Start)
                });
                match tried {
                    Ok(()) => Ok(Means::Landlock(why.clone())),
                    Err(landlock) => Err(SandboxError::Unavailable {
                        namespaces: why.clone(),
                        landlock,
                    }),
                }
            }
        }
    }

    /// What all namespaces of commands share; or why there are none, once that is certain.
    fn ground(&self) -> Result<&Result<Arc<Ground>, NoNamespaces>, SandboxError> {
        if let Some(ground) = self.ground.get() {
            return Ok(ground);
        }
        match make_ground() {
            Err(why) if why.is_shortage() => Err(SandboxError::Shortage(why)),
            ground => Ok(self.ground.get_or_init(|| ground)),
        }
    }
}

impl Enforcement {
    /// Starts `program`. The calling thread is to live as long as the program is meant to.
    ///
    /// # Errors
    /// What could not be done, and what the system said. Nothing is left behind then.
    pub fn spawn(&self, program: &Program<'_>) -> Result<Child, ConfineError> {
        match self {
            Enforcement::Namespaces(confinement) => confine::spawn(program, confinement),
            Enforcement::Landlock(restriction) => landlock::spawn(program, restriction).map_err(ConfineError::Spawn),
        }
    }
}

/// The mounts that keep the files as the plan has them.
fn mounts(plan: &Plan) -> Mounts {
    let Files::Restricted { base, rules } = &plan.files else {
        return Mounts::new(confine::Base::Unrestricted);
    };
    let mut mounts = Mounts::new(match base {
        Base::ReadOnly => confine::Base::ReadOnly,
        Base::Writable => confine::Base::Writable,
        Base::Empty => confine::Base::Empty,
    });
    for rule in rules.iter().filter(|rule| !is_private(&rule.path)) {
        let kind = match &rule.access {
            RuleAccess::Read => PlaceKind::Read,
            RuleAccess::Write => PlaceKind::Write,
            RuleAccess::HiddenDirectory => PlaceKind::HiddenDirectory,
            RuleAccess::HiddenFile => PlaceKind::HiddenFile,
            RuleAccess::Link(target) => {
                PlaceKind::Link(CString::new(target.as_os_str().as_bytes()).unwrap_or_default())
            }
            RuleAccess::Absent => {
                mounts.guard(rule.path.as_os_str().as_bytes());
                continue;
            }
        };
        let is_directory = rule.access == RuleAccess::HiddenDirectory || rule.path.is_dir();
        mounts.add(rule.path.as_os_str().as_bytes(), kind, is_directory);
    }
    mounts
}
