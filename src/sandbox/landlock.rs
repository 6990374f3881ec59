//! What Landlock can keep of a plan.

use super::plan::{Base, Files, Rule, RuleAccess, is_private};
use crate::sys::confine::{self, Calls};
use crate::sys::landlock::{LandlockError, Restriction, Ruleset};

/// The places that may be written, with all that is in them, if that is all there is to `files`: Landlock allows whole
/// trees without exceptions, and doesn't hide that something is there. If not, what it can't keep.
pub(super) fn writable_trees(files: &Files) -> Result<&[Rule], String> {
    let Files::Restricted { base, rules } = files else {
        return Err("restricting the network alone".to_owned());
    };
    if *base == Base::Empty {
        return Err("hiding all but some files".to_owned());
    }
    for Rule { path, access } in rules {
        let what = match access {
            RuleAccess::Write => continue,
            RuleAccess::Read | RuleAccess::Absent => "protecting",
            RuleAccess::HiddenDirectory | RuleAccess::HiddenFile | RuleAccess::Link(_) => "hiding",
        };
        return Err(format!("{what} `{}`", path.display()));
    }
    match base {
        Base::ReadOnly => Ok(rules),
        // It can't be without rules that take something from it; were it, nothing would be known of it.
        _ => Err("writing everywhere".to_owned()),
    }
}

/// The rules under which only what lies in `trees` can be written.
pub(super) fn restriction(trees: &[Rule], calls: Calls) -> Result<Restriction, LandlockError> {
    let ruleset = Ruleset::read_only()?;
    for tree in trees.iter().filter(|tree| !is_private(&tree.path)) {
        ruleset.allow_writing(&tree.path)?;
    }
    Ok(Restriction {
        ruleset,
        filter: confine::filter_without_namespaces(calls),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn rule(path: &str, access: RuleAccess) -> Rule {
        Rule {
            path: path.into(),
            access,
        }
    }

    fn lacks(base: Base, rules: &[Rule]) -> Result<usize, String> {
        let files = Files::Restricted {
            base,
            rules: rules.to_vec(),
        };
        writable_trees(&files).map(<[Rule]>::len)
    }

    #[test]
    fn only_whole_trees_can_be_kept() {
        use RuleAccess::{Absent, HiddenDirectory, HiddenFile, Link, Read, Write};
        assert_eq!(lacks(Base::ReadOnly, &[]), Ok(0));
        assert_eq!(lacks(Base::ReadOnly, &[rule("/a", Write), rule("/a/b", Write)]), Ok(2));
        for (access, what) in [
            (Read, "protecting `/a/b`"),
            (Absent, "protecting `/a/b`"),
            (HiddenDirectory, "hiding `/a/b`"),
            (HiddenFile, "hiding `/a/b`"),
            (Link(PathBuf::from("/c")), "hiding `/a/b`"),
        ] {
            for base in [Base::ReadOnly, Base::Writable] {
                let rules = [rule("/a", Write), rule("/a/b", access.clone())];
                assert_eq!(lacks(base, &rules), Err(what.to_owned()));
            }
        }
        assert_eq!(lacks(Base::Empty, &[]), Err("hiding all but some files".to_owned()));
        assert_eq!(lacks(Base::Writable, &[]), Err("writing everywhere".to_owned()));
        let open = writable_trees(&Files::Open).unwrap_err();
        assert_eq!(open, "restricting the network alone");
    }
}
