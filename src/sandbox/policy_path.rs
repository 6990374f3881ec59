//! Where the name of a place leads.

use super::facts::{Facts, Kind};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// How many links the kernel follows in one path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// What was seen on the way along a name.
#[derive(Debug)]
pub(super) struct Way {
    /// The real directory that the last part of the name is looked up in, and that part.
    pub(super) last: Option<PathBuf>,
    /// The links, in the order in which they were followed.
    pub(super) links: Vec<FollowedLink>,
    pub(super) end: End,
}

/// A link that was followed.
#[derive(Debug)]
pub(super) struct FollowedLink {
    /// Which part of the name led to it, the first being 0.
    pub(super) part: usize,
    /// Whether it is that part itself, and not within what another link says.
    pub(super) named: bool,
    /// The real directory that it lies in, and its name.
    pub(super) at: PathBuf,
    /// The real path that it leads to, or what was reached of it.
    pub(super) target: PathBuf,
}

/// Where a name leads.
#[derive(Debug)]
pub(super) enum End {
    /// To a real path.
    Place {
        /// No link is in it.
        path: PathBuf,
        /// Whether it is a directory.
        directory: bool,
    },
    /// To nothing.
    Missing,
    /// It cannot be told.
    Unknown {
        /// What could not be looked at.
        at: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A part of a path that is still to be followed.
struct Step {
    /// `..` if it has none.
    name: Option<OsString>,
    part: usize,
    named: bool,
}

/// Follows `name`, which is absolute.
pub(super) fn follow(name: &Path, facts: &dyn Facts) -> Way {
    let mut way = Way {
        last: None,
        links: Vec::new(),
        end: End::Missing,
    };
    way.end = walk(name, facts, &mut way.last, &mut way.links);
    way
}

fn walk(name: &Path, facts: &dyn Facts, last: &mut Option<PathBuf>, links: &mut Vec<FollowedLink>) -> End {
    // What is to be done next lies at the end.
    let mut steps = Vec::new();
    let parts = push_steps(&mut steps, name, None);
    // Links that are being followed, and how many steps are left when that is done.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut path = PathBuf::from("/");
    let mut directory = true;
    if parts == 0 {
        *last = Some(path.clone());
    }
    loop {
        while let Some(&(link, left)) = open.last()
            && steps.len() <= left
        {
            links[link].target.clone_from(&path);
            open.pop();
        }
        let Some(step) = steps.pop() else {
            return End::Place { path, directory };
        };
        if !directory {
            return End::Missing;
        }
        let Some(next) = step.name else {
            path.pop();
            continue;
        };
        path.push(next);
        if step.named && step.part + 1 == parts {
            *last = Some(path.clone());
        }
        match facts.kind(&path) {
            Ok(Kind::Directory) => {}
            Ok(Kind::File) => directory = false,
            Ok(Kind::Link) => {
                let target = match facts.link_target(&path) {
                    Ok(target) if links.len() < MAX_LINKS && !target.as_os_str().is_empty() => target,
                    Ok(_) => return End::Missing,
                    Err(error) => return failed(path, error),
                };
                open.push((links.len(), steps.len()));
                links.push(FollowedLink {
                    part: step.part,
                    named: step.named,
                    at: path.clone(),
                    target: PathBuf::new(),
                });
                path.pop();
                if target.is_absolute() {
                    path = PathBuf::from("/");
                }
                push_steps(&mut steps, &target, Some(step.part));
            }
            Err(error) => return failed(path, error),
        }
    }
}

/// Puts the parts of `path` on top of `steps`, and says how many there are.
fn push_steps(steps: &mut Vec<Step>, path: &Path, of_part: Option<usize>) -> usize {
    let before = steps.len();
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => None,
            _ => continue,
        };
        steps.push(Step {
            name,
            part: of_part.unwrap_or(steps.len() - before),
            named: of_part.is_none(),
        });
    }
    steps[before..].reverse();
    steps.len() - before
}

fn failed(at: PathBuf, error: io::Error) -> End {
    match is_missing(&error) {
        true => End::Missing,
        false => End::Unknown { at, error },
    }
}

/// Whether it says that there is nothing.
pub(super) fn is_missing(error: &io::Error) -> bool {
    // A name that is too long for the file system is in none of its directories.
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

/// `path` without `.` and `..`, whatever links there may be.
pub(super) fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::super::facts::FileTree;
    use super::*;

    fn tree() -> FileTree {
        let mut tree = FileTree::default();
        for directory in ["/data", "/data/ws", "/tmp", "/usr", "/usr/bin"] {
            assert!(tree.add_directory(directory));
        }
        assert!(tree.add_closed_directory("/closed"));
        assert!(tree.add_file("/closed/f") && tree.add_file("/usr/bin/env"));
        for (link, target) in [
            ("/bin", "usr/bin"),
            ("/tmp/ws", "../data/./again/"),
            ("/data/again", "/tmp/../data/ws"),
            ("/loop", "loop"),
            ("/dangling", "data/nothing"),
        ] {
            assert!(tree.add_link(link, target));
        }
        tree
    }

    fn end(name: &str) -> String {
        match follow(Path::new(name), &tree()).end {
            End::Place { path, directory } => format!("{} {directory}", path.display()),
            End::Missing => "missing".to_owned(),
            End::Unknown { at, error } => format!("{}: {:?}", at.display(), error.kind()),
        }
    }

    #[test]
    fn a_name_leads_to_a_real_path() {
        for (name, expected) in [
            ("/", "/ true"),
            ("/usr/bin", "/usr/bin true"),
            ("/bin/env", "/usr/bin/env false"),
            ("/tmp/ws", "/data/ws true"),
            ("/bin/env/x", "missing"),
            ("/nothing/at/all", "missing"),
            ("/loop", "missing"),
            ("/dangling", "missing"),
            ("/closed", "/closed true"),
            ("/closed/f/x", "/closed/f: PermissionDenied"),
        ] {
            assert_eq!(end(name), expected, "{name}");
        }
    }

    #[test]
    fn the_links_on_the_way_are_told() {
        let way = follow(Path::new("/tmp/ws"), &tree());
        let links: Vec<_> = (way.links.iter())
            .map(|link| {
                (
                    link.part,
                    link.named,
                    link.at.to_str().unwrap(),
                    link.target.to_str().unwrap(),
                )
            })
            .collect();
        let expected = [(1, true, "/tmp/ws", "/data/ws"), (1, false, "/data/again", "/data/ws")];
        assert_eq!(links, expected);
        assert_eq!(way.last, Some("/tmp/ws".into()));
        assert_eq!(follow(Path::new("/bin/no"), &tree()).last, Some("/usr/bin/no".into()));
        assert_eq!(follow(Path::new("/no/no"), &tree()).last, None);
    }

    #[test]
    fn dots_go_away_before_links_are_looked_at() {
        assert_eq!(without_dots(Path::new("/a/./b//../../../c/")), Path::new("/c"));
        assert_eq!(without_dots(Path::new("/..")), Path::new("/"));
    }
}
