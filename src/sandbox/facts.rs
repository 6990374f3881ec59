//! What is asked of the file system while a plan is made.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Anything else.
    File,
}

/// Told each entry of a directory and what it is, until it breaks.
pub type Visit<'a> = dyn FnMut(&OsStr, Kind) -> ControlFlow<()> + 'a;

/// A file system that can be asked. Paths are absolute, and all but the last component of each is a real directory.
pub trait Facts {
    /// What is at `path` itself; a link is not followed.
    ///
    /// # Errors
    /// What the system says, above all that there is nothing.
    fn kind(&self, path: &Path) -> io::Result<Kind>;

    /// What the link at `path` says.
    ///
    /// # Errors
    /// What the system says.
    fn link_target(&self, path: &Path) -> io::Result<PathBuf>;

    /// Tells `visit` what is in `directory`, in any order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, directory: &Path, visit: &mut Visit<'_>) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

fn kind_of(kind: fs::FileType) -> Kind {
    if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Link
    } else {
        Kind::File
    }
}

impl Facts for RealFiles {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        Ok(kind_of(fs::symlink_metadata(path)?.file_type()))
    }

    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn list(&self, directory: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) => {
                    if visit(&entry.file_name(), kind_of(kind)).is_break() {
                        break;
                    }
                }
                // It went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file system that is made up. Of a new one there is the root directory.
#[derive(Clone, Debug)]
pub struct FileTree(BTreeMap<PathBuf, Node>);

#[derive(Clone, Debug)]
enum Node {
    Directory { closed: bool },
    File,
    Link(PathBuf),
}

impl Default for FileTree {
    fn default() -> Self {
        Self(BTreeMap::from([(
            PathBuf::from("/"),
            Node::Directory { closed: false },
        )]))
    }
}

impl FileTree {
    /// Adds a directory. False, here and in the next three, if there is no directory to add to, or something is there.
    pub fn add_directory(&mut self, path: impl Into<PathBuf>) -> bool {
        self.add(path.into(), Node::Directory { closed: false })
    }

    /// Adds a directory that can be neither listed nor searched.
    pub fn add_closed_directory(&mut self, path: impl Into<PathBuf>) -> bool {
        self.add(path.into(), Node::Directory { closed: true })
    }

    /// Adds a file.
    pub fn add_file(&mut self, path: impl Into<PathBuf>) -> bool {
        self.add(path.into(), Node::File)
    }

    /// Adds a link that says `target`.
    pub fn add_link(&mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> bool {
        self.add(path.into(), Node::Link(target.into()))
    }

    fn add(&mut self, path: PathBuf, node: Node) -> bool {
        let in_directory = path
            .parent()
            .is_some_and(|parent| matches!(self.0.get(parent), Some(Node::Directory { .. })));
        let free = in_directory && !self.0.contains_key(&path);
        if free {
            self.0.insert(path, node);
        }
        free
    }

    /// All paths that there are, a directory before what is in it, and what lies there.
    pub fn paths(&self) -> impl Iterator<Item = (&Path, Kind)> {
        self.0.iter().map(|(path, node)| (path.as_path(), node.kind()))
    }

    fn node(&self, path: &Path) -> io::Result<&Node> {
        let parent = path.parent().and_then(|parent| self.0.get(parent));
        match parent {
            Some(Node::Directory { closed: true }) => Err(io::ErrorKind::PermissionDenied.into()),
            Some(Node::File) => Err(io::ErrorKind::NotADirectory.into()),
            _ => self.0.get(path).ok_or(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Node {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory { .. } => Kind::Directory,
            Self::File => Kind::File,
            Self::Link(_) => Kind::Link,
        }
    }
}

impl Facts for FileTree {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        Ok(self.node(path)?.kind())
    }

    fn link_target(&self, path: &Path) -> io::Result<PathBuf> {
        match self.node(path)? {
            Node::Link(target) => Ok(target.clone()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn list(&self, directory: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
        match self.node(directory)? {
            Node::Directory { closed: false } => {}
            Node::Directory { closed: true } => return Err(io::ErrorKind::PermissionDenied.into()),
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
        let below = self
            .0
            .range::<Path, _>((std::ops::Bound::Excluded(directory), std::ops::Bound::Unbounded));
        for (path, node) in below.take_while(|(path, _)| path.starts_with(directory)) {
            let name: OsString = path.file_name().unwrap_or_default().to_owned();
            if path.parent() == Some(directory) && visit(&name, node.kind()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything below `directory`, with what it is, and what links say.
    fn told(facts: &dyn Facts, directory: &Path) -> Vec<(OsString, Kind, Option<PathBuf>)> {
        let mut all = Vec::new();
        let listed = facts.list(directory, &mut |name, kind| {
            let path = directory.join(name);
            assert_eq!(facts.kind(&path).unwrap(), kind);
            all.push((name.to_owned(), kind, facts.link_target(&path).ok()));
            ControlFlow::Continue(())
        });
        listed.unwrap();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    #[test]
    fn a_made_up_file_system_says_what_a_real_one_would() {
        let root = std::env::temp_dir().join(format!("exec-server-facts-{}", std::process::id()));
        fs::create_dir_all(root.join("d/deep")).unwrap();
        fs::write(root.join("f"), "").unwrap();
        std::os::unix::fs::symlink("../f", root.join("l")).unwrap();
        let mut tree = FileTree::default();
        assert!(tree.add_directory("/d") && tree.add_directory("/d/deep"));
        assert!(tree.add_file("/f") && tree.add_link("/l", "../f"));
        assert!(!tree.add_file("/f") && !tree.add_file("/f/x") && !tree.add_file("/x/y"));
        let real = told(&RealFiles, &root);
        assert_eq!(real, told(&tree, Path::new("/")));
        assert_eq!(real.len(), 3);
        for (wrong, of_file) in [("x", false), ("f/x", true), ("d/x", false)] {
            let error = |facts: &dyn Facts, root: &Path| facts.kind(&root.join(wrong)).unwrap_err().kind();
            assert_eq!(error(&RealFiles, &root), error(&tree, Path::new("/")), "{of_file}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_listing_can_be_broken_off() {
        let mut seen = 0;
        let mut once = |_: &OsStr, _| {
            seen += 1;
            ControlFlow::Break(())
        };
        RealFiles.list(Path::new("/"), &mut once).unwrap();
        assert_eq!(seen, 1);
    }
}
