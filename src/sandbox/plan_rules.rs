//! What is left to do about what holds where.

use super::facts::Kind;
use super::plan::{Base, Files, Rule, RuleAccess};
use super::plan_access::{AccessMap, Spot};
use super::policy::PolicyError;
use crate::protocol::sandbox::Access;
use std::collections::BTreeSet;
use std::path::Path;

/// How many rules a plan may have. Each is a mount; the kernel allows 100 000 of those (fs.mount-max).
const MAX_RULES: usize = 16_384;

/// The rules that make `map` hold.
pub(super) fn rules(map: &AccessMap) -> Result<Files, PolicyError> {
    let base = match map.access(Path::new("/")) {
        Access::Read => Base::ReadOnly,
        Access::Write => Base::Writable,
        Access::Deny => Base::Empty,
    };
    let needed: Vec<&Spot> = (map.spots.iter())
        .filter(|spot| above(map, &spot.path).is_some_and(|access| access != spot.access))
        .collect();
    let mut rules = Vec::new();
    let mut add = |path: &Path, access| {
        rules.push(Rule {
            path: path.to_owned(),
            access,
        });
    };
    for spot in &needed {
        add(&spot.path, access_of(spot));
    }
    for path in pins(map, &needed)? {
        add(path, RuleAccess::Write);
    }
    for (link, path) in &map.links {
        // By this the policy names something that may be read, and it would not be seen otherwise.
        if map.access(path) != Access::Deny && above(map, &link.at) == Some(Access::Deny) {
            add(&link.at, RuleAccess::Link(link.target.clone()));
        }
    }
    rules.sort_by(|a, b| a.path.cmp(&b.path));
    rules.dedup_by(|a, b| a.path == b.path);
    match rules.len() > MAX_RULES {
        true => Err(too_many()),
        false => Ok(Files::Restricted { base, rules }),
    }
}

/// What holds in the directory that `path` is in; `None` for `/`.
fn above(map: &AccessMap, path: &Path) -> Option<Access> {
    path.parent().map(|parent| map.access(parent))
}

fn access_of(spot: &Spot) -> RuleAccess {
    match (spot.access, spot.kind) {
        (_, None) => RuleAccess::Absent,
        (Access::Read, _) => RuleAccess::Read,
        (Access::Write, _) => RuleAccess::Write,
        (Access::Deny, Some(Kind::Directory)) => RuleAccess::HiddenDirectory,
        (Access::Deny, _) => RuleAccess::HiddenFile,
    }
}

/// The writable directories that lead to something restricted, and so have to be held in place.
fn pins<'a>(map: &AccessMap, needed: &[&'a Spot]) -> Result<BTreeSet<&'a Path>, PolicyError> {
    let mut pins = BTreeSet::new();
    for spot in needed.iter().filter(|spot| spot.access != Access::Write) {
        let directories = spot.path.ancestors().skip(1).filter(|above| above.parent().is_some());
        for directory in directories.take_while(|above| map.access(above) == Access::Write) {
            // If it is there, so are those above.
            if !pins.insert(directory) {
                break;
            }
            if pins.len() > MAX_RULES {
                return Err(too_many());
            }
        }
    }
    Ok(pins)
}

#[cold]
fn too_many() -> PolicyError {
    PolicyError::internal(format!("the sandbox policy needs more than {MAX_RULES} rules"))
}
