//! `fs/canonicalize`.

use std::fs;
use std::path::{Path, PathBuf};

use super::bounds::{End, find};
use super::error::FilesError;
use super::place::Links;

/// The path without links, `.` and `..`. It is always one that links are followed in.
///
/// # Errors
/// NotFound when it, or the target of a link in it, doesn't exist.
pub fn canonicalize(path: &Path, links: Links<'_>) -> Result<PathBuf, FilesError> {
    let Links::Within { bounds, .. } = links else {
        return Ok(fs::canonicalize(path)?);
    };
    let found = find(path, true, End::Target, bounds)?;
    bounds.may_read(&found.path)?;
    found.existing()?;
    Ok(found.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::Links::Follow;
    use crate::files::fixture::TempDir;
    use nix::errno::Errno;

    #[test]
    fn links_are_resolved() {
        let dir = TempDir::new();
        dir.put("d/f", "");
        dir.link("d", "l");
        dir.link("loop", "loop");
        assert_eq!(canonicalize(&dir.path("l/f"), Follow), Ok(dir.path("d/f")));
        assert_eq!(canonicalize(Path::new("/"), Follow), Ok("/".into()));
        let nope = canonicalize(&dir.path("nope"), Follow).unwrap_err();
        assert_eq!(nope.kind, FilesErrorKind::NotFound);
        let around = canonicalize(&dir.path("loop"), Follow).unwrap_err();
        assert!(around.is(Errno::ELOOP));
    }
}
