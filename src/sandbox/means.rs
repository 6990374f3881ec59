//! What sandboxes can be kept with.

use crate::sys::confine::{self, Base, Calls, ConfineError, Confinement, Ground, GroundError, Mounts};
use crate::sys::spawn::SpawnError;
use nix::errno::Errno;
use std::sync::Arc;

/// What sandboxes are kept with here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// Namespaces, for every policy.
    Namespaces,
    /// Landlock, for read-only policies, and why not namespaces.
    Landlock(NoNamespaces),
}

/// Why there are no namespaces for commands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNamespaces {
    /// They could not be made.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// A command could not be started in them.
    #[error(transparent)]
    SetUp(#[from] ConfineError),
    /// Nobody has tried.
    #[error("namespaces are not to be used")]
    Unwanted,
}

impl NoNamespaces {
    /// Whether something was short that may be there again the next time, so that nothing is known yet.
    pub(super) fn is_shortage(&self) -> bool {
        let errno = match self {
            NoNamespaces::Ground(e) => e.errno,
            NoNamespaces::SetUp(
                ConfineError::Namespace { errno, .. }
                | ConfineError::Mount { errno, .. }
                | ConfineError::Spawn(SpawnError { errno, .. }),
            ) => *errno,
            NoNamespaces::SetUp(ConfineError::Killed) => return true,
            _ => return false,
        };
        matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)
    }
}

/// What all namespaces of commands share, if a command can be started in them. Where making namespaces is allowed, using
/// them need not be.
pub(super) fn make_ground() -> Result<Arc<Ground>, NoNamespaces> {
    let ground = Arc::new(Ground::new()?);
    let confinement = Confinement {
        ground: ground.clone(),
        has_network: false,
        mounts: Mounts::new(Base::ReadOnly),
        filter: confine::filter(Calls::DangerousAndNetwork),
    };
    confine::probe(&|program| confine::spawn(program, &confinement))?;
    Ok(ground)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::confine::GroundStep;

    #[test]
    fn what_is_only_short_says_nothing_of_the_system() {
        let ground = |errno| {
            NoNamespaces::Ground(GroundError {
                step: GroundStep::Create,
                errno,
            })
        };
        let set_up = |errno| {
            NoNamespaces::SetUp(ConfineError::Namespace {
                what: "enter the user namespace",
                errno,
            })
        };
        for errno in [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE] {
            assert!(ground(errno).is_shortage() && set_up(errno).is_shortage());
        }
        for errno in [Errno::EPERM, Errno::EACCES, Errno::ENOSPC, Errno::ENOSYS, Errno::EINVAL] {
            assert!(!ground(errno).is_shortage() && !set_up(errno).is_shortage());
        }
        assert!(!NoNamespaces::Unwanted.is_shortage());
    }
}
