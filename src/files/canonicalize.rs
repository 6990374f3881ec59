//! `fs/canonicalize`.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::FilesError;

/// The path without links, `.` and `..`.
///
/// # Errors
/// NotFound when it, or the target of a link in it, doesn't exist.
pub fn canonicalize(path: &Path) -> Result<PathBuf, FilesError> {
    Ok(fs::canonicalize(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::fixture::TempDir;
    use nix::errno::Errno;

    #[test]
    fn links_are_resolved() {
        let dir = TempDir::new();
        dir.put("d/f", "");
        dir.link("d", "l");
        dir.link("loop", "loop");
        assert_eq!(canonicalize(&dir.path("l/f")), Ok(dir.path("d/f")));
        assert_eq!(canonicalize(Path::new("/")), Ok("/".into()));
        let nope = canonicalize(&dir.path("nope")).unwrap_err();
        assert_eq!(nope.kind, FilesErrorKind::NotFound);
        let around = canonicalize(&dir.path("loop")).unwrap_err();
        assert!(around.is(Errno::ELOOP));
    }
}
