//! What a plan leaves a call that is carried out by this process itself, and not in a sandbox.

use super::plan::{Base, Files, Plan, Rule, RuleAccess, is_private};
use crate::files::{Bounds, OPEN_DEVICES};
use nix::errno::Errno;
use std::path::Path;

/// The same as a command in the sandbox would be told. There, `/proc` and `/dev` are private, whatever a rule gives: of the
/// host's, nothing can be written but a few devices, and `/dev/shm` where everything may be; and of `/proc` nothing
/// can be seen where something else is hidden, for the processes of the host lead to that.
impl Bounds for Plan {
    fn may_pass(&self, path: &Path) -> Result<(), Errno> {
        let Some(rules) = Rules::of(self) else { return Ok(()) };
        match rules.deciding(path) {
            // What is there comes out as missing, or as not to be written.
            Some(rule) if rule.access == RuleAccess::Absent => Ok(()),
            Some(rule) if rule.access == RuleAccess::HiddenDirectory && rule.path == path && rules.leads_on(path) => {
                Ok(())
            }
            _ => self.may_read(path),
        }
    }

    fn may_read(&self, path: &Path) -> Result<(), Errno> {
        let Some(rules) = Rules::of(self) else { return Ok(()) };
        if is_open_device(path) {
            return Ok(());
        }
        let Some(rule) = rules.deciding(path) else {
            let leads_around = path.starts_with("/proc") && path != Path::new("/proc") && self.restricts_reads();
            let is_there = rules.base != Base::Empty || is_of_every_sandbox(path) || rules.leads_on(path);
            return match is_there && !leads_around {
                true => Ok(()),
                false => Err(Errno::ENOENT),
            };
        };
        match rule.access {
            RuleAccess::Read | RuleAccess::Write | RuleAccess::Link(_) => Ok(()),
            RuleAccess::Absent => Err(Errno::ENOENT),
            RuleAccess::HiddenFile => Err(Errno::EACCES),
            RuleAccess::HiddenDirectory if rule.path == path || !rules.leads_on(&rule.path) => Err(Errno::EACCES),
            RuleAccess::HiddenDirectory if rules.leads_on(path) => Ok(()),
            RuleAccess::HiddenDirectory => Err(Errno::ENOENT),
        }
    }

    fn may_read_tree(&self, path: &Path) -> Result<(), Errno> {
        let Some(rules) = Rules::of(self) else { return Ok(()) };
        self.may_read(path)?;
        if !self.restricts_reads() {
            return Ok(());
        }
        let is_whole = match rules.deciding(path) {
            Some(rule) => shows(rule),
            None => rules.base != Base::Empty && !Path::new("/proc").starts_with(path),
        };
        match is_whole && !rules.below(path).iter().any(Rule::hides) {
            true => Ok(()),
            false => Err(Errno::EACCES),
        }
    }

    fn may_write(&self, path: &Path) -> Result<(), Errno> {
        let Some(rules) = Rules::of(self) else { return Ok(()) };
        if is_open_device(path) {
            return Ok(());
        }
        match rules.deciding(path).map(|rule| &rule.access) {
            Some(RuleAccess::Write) => Ok(()),
            Some(RuleAccess::Read | RuleAccess::Absent | RuleAccess::Link(_)) => Err(Errno::EROFS),
            Some(RuleAccess::HiddenFile | RuleAccess::HiddenDirectory) => self.may_read(path).and(Err(Errno::EROFS)),
            None if rules.base == Base::Writable && !stays_as_it_is(path) => Ok(()),
            None => Err(Errno::EROFS),
        }
    }

    fn may_change(&self, path: &Path) -> Result<(), Errno> {
        let Some(rules) = Rules::of(self) else { return Ok(()) };
        let stays = is_open_device(path) || path == Path::new("/dev/shm") || path == Path::new("/");
        match rules.at(path).map(|rule| &rule.access) {
            Some(RuleAccess::Absent | RuleAccess::Link(_)) => Err(Errno::EROFS),
            Some(RuleAccess::HiddenFile) => Err(Errno::EACCES),
            Some(_) => Err(Errno::EBUSY),
            None if stays => Err(Errno::EBUSY),
            None => {
                self.may_write(path)?;
                match rules.below(path).is_empty() {
                    true => Ok(()),
                    false => Err(Errno::EBUSY),
                }
            }
        }
    }
}

fn is_open_device(path: &Path) -> bool {
    OPEN_DEVICES.iter().any(|device| path == Path::new(device))
}

/// The directories that there are even in an empty sandbox.
fn is_of_every_sandbox(path: &Path) -> bool {
    ["/", "/dev", "/proc"]
        .iter()
        .any(|directory| path == Path::new(directory))
}

/// Whether a sandbox that may write everything has something of its own there, to be read only.
fn stays_as_it_is(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

/// Whether there is something that may be read.
fn shows(rule: &Rule) -> bool {
    matches!(rule.access, RuleAccess::Read | RuleAccess::Write | RuleAccess::Link(_)) && !is_private(&rule.path)
}

/// The rules of a plan that restricts files.
struct Rules<'a> {
    base: Base,
    list: &'a [Rule],
}

impl<'a> Rules<'a> {
    fn of(plan: &'a Plan) -> Option<Self> {
        match &plan.files {
            Files::Open => None,
            Files::Restricted { base, rules } => Some(Self {
                base: *base,
                list: rules,
            }),
        }
    }

    /// The rule for just this path, if it counts.
    fn at(&self, path: &Path) -> Option<&'a Rule> {
        let index = self.list.binary_search_by(|rule| rule.path.as_path().cmp(path)).ok()?;
        self.list.get(index).filter(|rule| !is_private(path) || rule.hides())
    }

    /// The rule that says what holds at a path.
    fn deciding(&self, path: &Path) -> Option<&'a Rule> {
        path.ancestors().find_map(|above| self.at(above))
    }

    /// Those for what is below a path.
    fn below(&self, path: &Path) -> &'a [Rule] {
        let later = &self.list[self.list.partition_point(|rule| rule.path.as_path() <= path)..];
        &later[..later.partition_point(|rule| rule.path.starts_with(path))]
    }

    /// Whether there is something below a path that may be read.
    fn leads_on(&self, path: &Path) -> bool {
        self.below(path).iter().any(shows)
    }
}
