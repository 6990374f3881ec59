//! The entries of a policy, with the names that they use.

use super::facts::Facts;
use super::policy_places::Expansion;
use crate::protocol::path_uri::RequestPath;
use crate::protocol::sandbox::{Access, FileSystemEntry, FileSystemPath, Sandbox, SpecialPath};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// How many places the entries of a policy may stand for together, with all matches of its patterns.
pub(super) const MAX_PLACES: usize = 8192;

/// The longest path that the system takes in one call (PATH_MAX).
pub(super) const MAX_PATH_BYTES: usize = 4096;

/// Why there is no plan for a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PolicyError {
    /// Which class of answer it gets.
    pub kind: PolicyErrorKind,
    /// The text of the answer.
    pub message: String,
}

/// The class of answer that a refused policy gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyErrorKind {
    /// It makes no sense: JSON-RPC -32602.
    InvalidParams,
    /// It is meant for another host or operating system: JSON-RPC -32600.
    InvalidRequest,
    /// It cannot be kept with the files as they are, or takes more than is allowed: JSON-RPC -32603.
    Internal,
}

impl PolicyError {
    #[cold]
    pub(super) fn params(message: impl Into<String>) -> Self {
        Self {
            kind: PolicyErrorKind::InvalidParams,
            message: message.into(),
        }
    }

    #[cold]
    pub(super) fn request(message: impl Into<String>) -> Self {
        Self {
            kind: PolicyErrorKind::InvalidRequest,
            message: message.into(),
        }
    }

    #[cold]
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self {
            kind: PolicyErrorKind::Internal,
            message: message.into(),
        }
    }
}

/// What a policy counts from where it does not say so itself.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The directory that stands in for a missing `cwd`: the process's, or the server's for a call that starts none.
    pub cwd: PathBuf,
    /// Whether the request has named that directory. If it has not, a policy with `project_roots` or a relative pattern
    /// must have a `cwd` of its own.
    pub cwd_is_of_request: bool,
    /// What `tmpdir` stands for if the policy names none: the directory in TMPDIR. Those that are not absolute do not count.
    pub temporary_directories: Vec<PathBuf>,
    /// What `~` in a pattern stands for if the policy does not name it.
    pub home: Option<PathBuf>,
}

/// A place by one of its names.
#[derive(Debug)]
pub(super) struct Place {
    /// Absolute, without `.` and `..`.
    pub(super) name: PathBuf,
    pub(super) access: Access,
    /// Whether the policy names this very place, and not just something that includes it: a pattern, `minimal`.
    pub(super) explicit: bool,
}

/// What the entries of a policy stand for.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) list: Vec<Place>,
    /// Whether an entry with less than write access stands for something that cannot be told by name.
    vaguely_narrowed: bool,
}

impl Places {
    /// What `entries` stand for.
    pub(super) fn of(
        entries: &[FileSystemEntry],
        max_depth: Option<NonZeroUsize>,
        start: &Start<'_>,
        facts: &dyn Facts,
    ) -> Result<Self, PolicyError> {
        let mut places = Self::default();
        let mut expansion = Expansion::new(start, facts, max_depth);
        for entry in entries {
            if let FileSystemPath::Special {
                value: SpecialPath::Unknown {},
            } = entry.path
            {
                continue;
            }
            let before = places.list.len();
            let mut add = |name: PathBuf, explicit: bool| places.add(name, entry.access, explicit);
            match &entry.path {
                FileSystemPath::Path { path } => {
                    add(native(path, "permission path")?.to_owned(), true)?;
                }
                FileSystemPath::GlobPattern { pattern } => {
                    expansion.pattern(pattern, entry.access == Access::Deny, &mut |name| add(name, false))?;
                }
                FileSystemPath::Special { value } => expansion.special(value, &mut add)?,
            }
            let vague = matches!(entry.path, FileSystemPath::GlobPattern { .. }) || places.list.len() == before;
            places.vaguely_narrowed |= vague && entry.access != Access::Write;
        }
        Ok(places)
    }

    fn add(&mut self, name: PathBuf, access: Access, explicit: bool) -> Result<(), PolicyError> {
        if self.list.len() >= MAX_PLACES {
            let message = format!("the sandbox policy stands for more than {MAX_PLACES} places");
            return Err(PolicyError::internal(message));
        }
        if name.as_os_str().len() > MAX_PATH_BYTES {
            let message = format!("a path in the sandbox policy is longer than {MAX_PATH_BYTES} bytes");
            return Err(PolicyError::params(message));
        }
        self.list.push(Place { name, access, explicit });
        Ok(())
    }

    /// Whether everything may be written: `/` may, and no entry takes anything away, were it there or not.
    pub(super) fn all_writable(&self) -> bool {
        let root = Path::new("/");
        let mut writable: Vec<&Path> = (self.list.iter())
            .filter(|place| place.access == Access::Write)
            .map(|place| place.name.as_path())
            .collect();
        writable.sort_unstable();
        writable.binary_search(&root).is_ok()
            && !self.vaguely_narrowed
            && self.list.iter().all(|place| match place.access {
                Access::Write => true,
                Access::Read => writable.binary_search(&place.name.as_path()).is_ok(),
                Access::Deny => false,
            })
    }
}

/// What the names in a policy count from.
pub(super) struct Start<'a> {
    pub(super) cwd: &'a Path,
    /// Whether relative things may count from it.
    pub(super) cwd_is_known: bool,
    pub(super) roots: &'a [RequestPath],
    sandbox: &'a Sandbox,
    surroundings: &'a Surroundings,
}

impl<'a> Start<'a> {
    pub(super) fn of(sandbox: &'a Sandbox, surroundings: &'a Surroundings) -> Result<Self, PolicyError> {
        let (cwd, roots) = match &sandbox.policy_context {
            Some(context) => (&context.cwd, &context.workspace_roots),
            None => (&sandbox.cwd, &sandbox.workspace_roots),
        };
        Ok(Self {
            cwd: match cwd {
                Some(cwd) => native(cwd, "cwd")?,
                None => &surroundings.cwd,
            },
            cwd_is_known: cwd.is_some() || surroundings.cwd_is_of_request,
            roots,
            sandbox,
            surroundings,
        })
    }

    /// The directories for temporary files.
    pub(super) fn temporary_directories(&self) -> Result<Vec<&'a Path>, PolicyError> {
        if self.sandbox.temporary_directories.is_empty() {
            // A TMPDIR that is empty or relative is none.
            let directories = self.surroundings.temporary_directories.iter().map(PathBuf::as_path);
            return Ok(directories.filter(|path| path.is_absolute()).collect());
        }
        (self.sandbox.temporary_directories.iter())
            .map(|path| native(path, "temporary directory"))
            .collect()
    }

    /// The user's home directory.
    pub(super) fn home(&self) -> Result<Option<&'a Path>, PolicyError> {
        match &self.sandbox.user_home_dir {
            Some(home) => native(home, "home directory").map(Some),
            None => Ok(self.surroundings.home.as_deref().filter(|home| home.is_absolute())),
        }
    }
}

/// `path` as one of this system; `what` it is in the policy.
pub(super) fn native<'a>(path: &'a RequestPath, what: &str) -> Result<&'a Path, PolicyError> {
    path.native()
        .map_err(|error| PolicyError::request(format!("invalid sandbox {what} URI: {error}")))
}
