//! What matches the patterns of a policy.

use super::facts::{Facts, Kind};
use super::glob::{Part, Pattern, characters, matches};
use super::policy::PolicyError;
use super::policy_path::{End, follow, is_missing, without_dots};
use std::ffi::OsStr;
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// How many files and directories the patterns of one policy may look at together. A second or two of work.
const MAX_LOOKS: usize = 500_000;

/// Looks for what matches the patterns of one policy.
pub(super) struct Scan<'a> {
    facts: &'a dyn Facts,
    max_depth: usize,
    looks: usize,
}

type Found<'a> = dyn FnMut(PathBuf) -> Result<(), PolicyError> + 'a;

impl<'a> Scan<'a> {
    /// `max_depth` is how many levels below the plain names of a pattern count.
    pub(super) fn new(facts: &'a dyn Facts, max_depth: Option<NonZeroUsize>) -> Self {
        Self {
            facts,
            max_depth: max_depth.map_or(usize::MAX, NonZeroUsize::get),
            looks: 0,
        }
    }

    /// Tells `found` the name of everything that matches `pattern`, which counts from `base`; if `denied`, also of the
    /// directories that cannot be looked into.
    ///
    /// # Errors
    /// Too much to look at, or what `found` says.
    pub(super) fn run(
        &mut self,
        pattern: &Pattern,
        base: &Path,
        denied: bool,
        found: &mut Found<'_>,
    ) -> Result<(), PolicyError> {
        let name = without_dots(&base.join(&pattern.base));
        if pattern.parts.is_empty() {
            return found(name);
        }
        let mut search = Search {
            facts: self.facts,
            looks: &mut self.looks,
            parts: &pattern.parts,
            denied,
            found,
            stops: Vec::new(),
            characters: Vec::new(),
        };
        search.enter(name, 0, 1)?;
        while let Some(stop) = search.stops.pop() {
            if stop.depth < self.max_depth
                && let Err(error) = search.look(&stop)?
                && denied
                && !is_missing(&error)
            {
                (search.found)(stop.name)?;
            }
        }
        Ok(())
    }
}

/// A directory that is to be looked into.
struct Stop {
    /// By the name that the pattern leads to it.
    name: PathBuf,
    path: PathBuf,
    depth: usize,
    /// Which parts of the pattern may be next, a bit for each.
    parts: u64,
}

/// Looks for what matches one pattern.
struct Search<'a> {
    facts: &'a dyn Facts,
    looks: &'a mut usize,
    parts: &'a [Part],
    denied: bool,
    found: &'a mut Found<'a>,
    stops: Vec<Stop>,
    /// The characters of the name that is being compared.
    characters: Vec<u32>,
}

impl Search<'_> {
    /// Goes on at `name`, whatever links lead there, if it is a directory.
    fn enter(&mut self, name: PathBuf, depth: usize, parts: u64) -> Result<(), PolicyError> {
        match follow(&name, self.facts).end {
            End::Place { path, directory: true } => self.stops.push(Stop {
                name,
                path,
                depth,
                parts,
            }),
            End::Unknown { .. } if self.denied => (self.found)(name)?,
            _ => {}
        }
        Ok(())
    }

    /// Looks at what is in a directory. The inner error is that it cannot be looked into.
    fn look(&mut self, stop: &Stop) -> Result<io::Result<()>, PolicyError> {
        self.count()?;
        // `**` may be no directory at all.
        let mut active = stop.parts;
        for (n, part) in self.parts.iter().enumerate() {
            if active & 1 << n != 0 && *part == Part::Directories && n + 1 < self.parts.len() {
                active |= 1 << (n + 1);
            }
        }
        let only = self.parts.get(active.trailing_zeros() as usize);
        if let Some(Part::Name(name)) = only.filter(|_| active.is_power_of_two()) {
            return match self.facts.kind(&stop.path.join(name)) {
                Ok(kind) => self.visit(stop, active, name, kind).map(Ok),
                Err(error) => Ok(Err(error)),
            };
        }
        let mut refused = Ok(());
        let facts = self.facts;
        let listed = facts.list(&stop.path, &mut |name, kind| {
            refused = self.visit(stop, active, name, kind);
            match refused {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        refused.map(|()| listed)
    }

    /// Compares an entry of a directory with the parts that are active.
    fn visit(&mut self, stop: &Stop, active: u64, name: &OsStr, kind: Kind) -> Result<(), PolicyError> {
        self.count()?;
        characters(name, &mut self.characters);
        let length = self.parts.len();
        let (mut within, mut after, mut whole) = (0, 0, false);
        for (n, part) in self.parts.iter().enumerate().filter(|(n, _)| active & 1 << n != 0) {
            let fits = match part {
                Part::Directories => {
                    within |= 1 << n;
                    whole |= n + 1 == length;
                    continue;
                }
                Part::Name(own) => own == name,
                Part::Like(tokens) => matches(tokens, &self.characters),
            };
            whole |= fits && n + 1 == length;
            if fits && n + 1 < length {
                after |= 1 << (n + 1);
            }
        }
        let path = stop.name.join(name);
        let depth = stop.depth + 1;
        match kind {
            Kind::Directory if within | after != 0 => self.stops.push(Stop {
                name: path.clone(),
                path: stop.path.join(name),
                depth,
                parts: within | after,
            }),
            Kind::Link if after != 0 => self.enter(path.clone(), depth, after)?,
            _ => {}
        }
        if whole { (self.found)(path) } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), PolicyError> {
        *self.looks += 1;
        if *self.looks > MAX_LOOKS {
            let message =
                format!("the patterns of the sandbox policy would have to look at more than {MAX_LOOKS} files");
            return Err(PolicyError::internal(message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::FileTree;
    use super::*;

    fn tree() -> FileTree {
        let mut tree = FileTree::default();
        for directory in ["/ws", "/ws/a", "/ws/a/b", "/ws/a/b/c", "/out"] {
            assert!(tree.add_directory(directory));
        }
        assert!(tree.add_closed_directory("/ws/closed"));
        for file in [
            "/ws/.env",
            "/ws/a/x.env",
            "/ws/a/b/c/.env",
            "/out/o.env",
            "/ws/closed/x.env",
            "/ws/a/b/y",
        ] {
            assert!(tree.add_file(file));
        }
        assert!(tree.add_link("/ws/l", "../out"));
        tree
    }

    fn found(text: &str, denied: bool, depth: usize) -> Vec<String> {
        let tree = tree();
        let mut scan = Scan::new(&tree, NonZeroUsize::new(depth));
        let mut found = Vec::new();
        for pattern in Pattern::parse(text).unwrap() {
            let mut add = |name: PathBuf| {
                found.push(name.to_str().unwrap().to_owned());
                Ok(())
            };
            scan.run(&pattern, Path::new("/ws"), denied, &mut add).unwrap();
        }
        found.sort();
        found
    }

    #[test]
    fn a_pattern_finds_what_is_there() {
        let table: [(&str, &[&str]); 14] = [
            ("**/*.env", &["/ws/.env", "/ws/a/b/c/.env", "/ws/a/x.env"]),
            ("/ws/**/*.env", &["/ws/.env", "/ws/a/b/c/.env", "/ws/a/x.env"]),
            ("*.env", &["/ws/.env"]),
            ("*/*.env", &["/ws/a/x.env", "/ws/l/o.env"]),
            ("l/*.env", &["/ws/l/o.env"]),
            ("/**/out/*", &["/out/o.env"]),
            ("**/b/**/.env", &["/ws/a/b/c/.env"]),
            (
                "a/**",
                &["/ws/a/b", "/ws/a/b/c", "/ws/a/b/c/.env", "/ws/a/b/y", "/ws/a/x.env"],
            ),
            ("{a/b,../out}/*", &["/out/o.env", "/ws/a/b/c", "/ws/a/b/y"]),
            ("a/{b/{c,y},x*}", &["/ws/a/b/c", "/ws/a/b/y", "/ws/a/x.env"]),
            ("*/b/y", &["/ws/a/b/y"]),
            ("a/x.env", &["/ws/a/x.env"]),
            ("nothing/*", &[]),
            ("./a//?.*", &["/ws/a/x.env"]),
        ];
        for (pattern, expected) in table {
            assert_eq!(found(pattern, false, 0), expected, "{pattern}");
        }
    }

    #[test]
    fn the_depth_counts_from_the_plain_names() {
        assert_eq!(found("**/*.env", false, 1), ["/ws/.env"]);
        assert_eq!(found("**/*.env", false, 2), ["/ws/.env", "/ws/a/x.env"]);
        assert_eq!(found("a/**/y", false, 2), ["/ws/a/b/y"]);
        assert_eq!(found("a/**/y", false, 1), [""; 0]);
    }

    #[test]
    fn what_cannot_be_looked_into_is_denied_as_a_whole() {
        let all = ["/ws/.env", "/ws/a/b/c/.env", "/ws/a/x.env", "/ws/closed"];
        assert_eq!(found("**/*.env", true, 0), all);
        assert_eq!(found("closed/*.env", true, 0), ["/ws/closed"]);
        assert_eq!(found("*/x.env", true, 0), ["/ws/a/x.env", "/ws/closed"]);
        assert_eq!(found("*/x.env", false, 0), ["/ws/a/x.env"]);
    }

    #[test]
    fn too_much_to_look_at_is_an_error() {
        let mut tree = FileTree::default();
        for n in 0..40 {
            assert!(tree.add_link(format!("/{n}"), "/"));
        }
        let mut scan = Scan::new(&tree, None);
        let pattern = &Pattern::parse("/*/*/*/*/*").unwrap()[0];
        let error = scan.run(pattern, Path::new("/"), true, &mut |_| Ok(())).unwrap_err();
        assert!(error.message.contains("500000"), "{error}");
    }
}
