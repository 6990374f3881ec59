//! What a sandbox has to do, in the order in which to do it.

use super::facts::Facts;
use super::plan_access::AccessMap;
use super::plan_rules::rules;
use super::policy::{Places, PolicyError, Start, Surroundings};
use crate::protocol::sandbox::{FileSystemPolicy, NetworkPolicy, Permissions, Sandbox, WindowsSandboxLevel};
use std::path::{Path, PathBuf};

/// What holds for a command or call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which files.
    pub files: Files,
    /// Whether the network.
    pub network: Network,
    /// What a relative thing in the policy counts from.
    pub cwd: PathBuf,
}

/// Whether the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It may.
    Open,
    /// Not.
    Restricted,
}

/// Which files may be touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// Nothing is restricted.
    Open,
    /// What holds at a path is what the last rule says that is for it or for a directory above it; where there is none, what
    /// the base says.
    Restricted {
        /// What there is at first.
        base: Base,
        /// To be carried out one after the other: each is put over what an earlier one put there. In the order of their
        /// paths, so that a directory comes before what is in it, and each path once.
        ///
        /// None is superfluous but for one kind: a [`RuleAccess::Write`] within a writable place, above something that is
        /// not. A directory that is a mount point cannot be renamed, and so what must not be changed keeps its name.
        rules: Vec<Rule>,
    },
}

/// What there is before any rule is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The whole tree, to be read only.
    ReadOnly,
    /// The whole tree, to be written.
    Writable,
    /// Nothing but what the rules name, and the directories above that.
    Empty,
}

/// What holds at a path, and below it up to the next rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Absolute and real when the plan was made: no link is in it, and it exists, but for [`RuleAccess::Absent`].
    pub path: PathBuf,
    /// What holds.
    pub access: RuleAccess,
}

/// What may be done at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAccess {
    /// Look.
    Read,
    /// Look and change.
    Write,
    /// Nothing, and it is a directory. If rules below it let something through, it has to be passable for them.
    HiddenDirectory,
    /// Nothing, and it is no directory.
    HiddenFile,
    /// A protected name that does not exist and must not come to be; its parent is a writable place.
    Absent,
    /// The link that is there is to be made anew, since nothing else shows it: its parent is empty or hidden. It leads to
    /// this real path.
    Link(PathBuf),
}

impl Rule {
    /// Whether it takes everything away.
    pub(super) fn hides(&self) -> bool {
        matches!(self.access, RuleAccess::HiddenDirectory | RuleAccess::HiddenFile)
    }
}

impl Plan {
    /// Whether nothing at all has to be enforced: the policy is disabled, or it leaves both files and network open,
    /// whether somebody else keeps the files (`external`) or nobody.
    pub fn restricts_nothing(&self) -> bool {
        self.files == Files::Open && self.network == Network::Open
    }

    /// Whether some file may not be read, so that calls that only read files need the sandbox.
    pub fn restricts_reads(&self) -> bool {
        match &self.files {
            Files::Open => false,
            Files::Restricted { base, rules } => *base == Base::Empty || rules.iter().any(Rule::hides),
        }
    }

    /// Whether some file may not be written, so that calls that change files need the sandbox.
    pub fn restricts_writes(&self) -> bool {
        self.files != Files::Open
    }
}

/// What has to be done to keep `sandbox`, with the files as they are.
///
/// # Errors
/// The policy contradicts itself or is of another system, it cannot be kept, or it stands for too much.
pub fn plan(sandbox: &Sandbox, surroundings: &Surroundings, facts: &dyn Facts) -> Result<Plan, PolicyError> {
    let (policy, network) = match &sandbox.permissions {
        Permissions::Disabled => {
            return Ok(Plan {
                files: Files::Open,
                network: Network::Open,
                cwd: surroundings.cwd.clone(),
            });
        }
        Permissions::External { network } => (&FileSystemPolicy::Unrestricted, network),
        Permissions::Managed { file_system, network } => (file_system, network),
    };
    if sandbox.windows_sandbox_level == WindowsSandboxLevel::Mxc {
        return Err(PolicyError::request(
            "failed to prepare fs sandbox: failed to prepare MXC sandbox: native MXC is unavailable on this executor",
        ));
    }
    let start = Start::of(sandbox, surroundings)?;
    let files = match policy {
        FileSystemPolicy::Unrestricted => Files::Open,
        FileSystemPolicy::Restricted {
            entries,
            glob_scan_max_depth,
        } => {
            let places = Places::of(entries, *glob_scan_max_depth, &start, facts)?;
            match places.all_writable() {
                true => Files::Open,
                false => {
                    let map = AccessMap::of(&places, facts)?;
                    rules(&map)?
                }
            }
        }
    };
    Ok(Plan {
        files,
        network: match network {
            NetworkPolicy::Restricted => Network::Restricted,
            NetworkPolicy::Enabled => Network::Open,
        },
        cwd: start.cwd.to_owned(),
    })
}

/// Whether a sandbox has something of its own there, or nothing, and never anything of the host's, whatever a policy says:
/// through the host's processes and devices there are ways out. What lies in shared memory is only files.
pub(super) fn is_private(path: &Path) -> bool {
    let is_in_shared_memory = path.starts_with("/dev/shm") && path != "/dev/shm";
    path.starts_with("/proc") || path.starts_with("/dev") && !is_in_shared_memory
}
