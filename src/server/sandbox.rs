//! What the methods have to do with sandboxes.

use crate::files::{Bounds, Links};
use crate::protocol::error::RpcError;
use crate::protocol::sandbox::Sandbox;
use crate::sandbox::{Plan, PolicyErrorKind, RealFiles, SandboxError, Surroundings, plan};
use std::path::PathBuf;

/// What a policy counts from where it does not say so itself; `cwd_is_of_request` says whether the request has named that
/// directory.
pub(super) fn surroundings(cwd: PathBuf, cwd_is_of_request: bool) -> Surroundings {
    let directory = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    Surroundings {
        cwd,
        cwd_is_of_request,
        temporary_directories: directory("TMPDIR").into_iter().collect(),
        home: directory("HOME"),
    }
}

/// The answer to a request whose sandbox can't be had.
pub(super) fn error(error: &SandboxError) -> RpcError {
    let message = error.to_string();
    match error {
        SandboxError::Policy(policy) => match policy.kind {
            PolicyErrorKind::InvalidParams => RpcError::invalid_params(message),
            PolicyErrorKind::InvalidRequest => RpcError::invalid_request(message),
            PolicyErrorKind::Internal => RpcError::internal(message),
        },
        _ => RpcError::internal(message),
    }
}

/// What a call of an `fs/*` method is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Read,
    Write,
}

/// What a call of an `fs/*` method may do.
pub(super) struct Permit(Option<Plan>);

impl Permit {
    /// What the sandbox leaves the call, with the files as they are; everything without a sandbox.
    ///
    /// # Errors
    /// The policy can't be kept.
    pub(super) fn of(sandbox: Option<&Sandbox>, intent: Intent) -> Result<Permit, RpcError> {
        let Some(sandbox) = sandbox else {
            return Ok(Permit(None));
        };
        let cwd = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let plan = plan(sandbox, &surroundings(cwd, false), &RealFiles).map_err(|e| error(&e.into()))?;
        let is_restricted = match intent {
            Intent::Read => plan.restricts_reads(),
            Intent::Write => plan.restricts_writes(),
        };
        Ok(Permit(is_restricted.then_some(plan)))
    }

    /// How to go along a path, through links if `follow`.
    pub(super) fn links(&self, follow: bool) -> Links<'_> {
        Links::new(follow, self.0.as_ref().map(|plan| plan as &dyn Bounds))
    }
}
