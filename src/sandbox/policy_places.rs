//! What an entry of a policy stands for that does not name a path.

use super::facts::Facts;
use super::glob::Pattern;
use super::policy::{MAX_PATH_BYTES, PolicyError, Start, native};
use super::policy_path::without_dots;
use super::policy_scan::Scan;
use crate::protocol::sandbox::SpecialPath;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// What a program needs to run at all, as far as it is there; the last two are 32-bit libraries on Debian.
const MINIMAL: [&str; 8] = ["/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/lib32", "/libx32"];

/// What a pattern starts with that counts from every workspace root.
const PROJECT_ROOTS: &str = "codex-project-roots://";

/// Takes a name, and whether the policy names that very place.
pub(super) type Add<'a> = dyn FnMut(PathBuf, bool) -> Result<(), PolicyError> + 'a;

/// Finds out what entries stand for.
pub(super) struct Expansion<'a> {
    start: &'a Start<'a>,
    scan: Scan<'a>,
}

impl<'a> Expansion<'a> {
    pub(super) fn new(start: &'a Start<'a>, facts: &'a dyn Facts, max_depth: Option<NonZeroUsize>) -> Self {
        Self {
            start,
            scan: Scan::new(facts, max_depth),
        }
    }

    /// The places that have a name of their own.
    pub(super) fn special(&self, special: &SpecialPath, add: &mut Add<'_>) -> Result<(), PolicyError> {
        match special {
            SpecialPath::Root => add("/".into(), true)?,
            SpecialPath::Minimal => {
                for place in MINIMAL {
                    add(place.into(), false)?;
                }
            }
            SpecialPath::ProjectRoots { subpath } => {
                let subpath = subpath.as_deref().unwrap_or_default();
                check(subpath)?;
                for root in self.roots()? {
                    add(without_dots(&root.join(subpath)), true)?;
                }
            }
            SpecialPath::Tmpdir => {
                for directory in self.start.temporary_directories()? {
                    add(without_dots(directory), true)?;
                }
            }
            SpecialPath::SlashTmp => add("/tmp".into(), true)?,
            SpecialPath::Unknown {} => {}
        }
        Ok(())
    }

    /// What there is that matches. `denied` if what cannot be looked into is to count as a match.
    pub(super) fn pattern(
        &mut self,
        text: &str,
        denied: bool,
        add: &mut dyn FnMut(PathBuf) -> Result<(), PolicyError>,
    ) -> Result<(), PolicyError> {
        check(text)?;
        let mut bases = vec![self.start.cwd];
        let mut rest = text;
        if let Some(relative) = text.strip_prefix(PROJECT_ROOTS) {
            bases = self.roots()?;
            rest = relative.trim_start_matches('/');
        } else if text.starts_with("~/") || text == "~" {
            let Some(home) = self.start.home()? else {
                return Err(invalid(text, "there is no home directory"));
            };
            bases = vec![home];
            rest = text[1..].trim_start_matches('/');
        } else if text.is_empty() || text.contains("://") {
            // Taken as a path it would match nothing, and so restrict nothing.
            return Err(invalid(text, "it is no path"));
        } else if !text.starts_with('/') {
            self.need_cwd()?;
        }
        for pattern in Pattern::parse(rest).map_err(|why| invalid(text, why))? {
            for base in &bases {
                self.scan.run(&pattern, base, denied, add)?;
            }
        }
        Ok(())
    }

    fn roots(&self) -> Result<Vec<&'a Path>, PolicyError> {
        self.need_cwd()?;
        (self.start.roots.iter())
            .map(|root| native(root, "workspace root"))
            .collect()
    }

    fn need_cwd(&self) -> Result<(), PolicyError> {
        match self.start.cwd_is_known {
            true => Ok(()),
            false => Err(PolicyError::params(
                "file system sandbox context with dynamic permissions requires cwd",
            )),
        }
    }
}

/// Refuses what can be no part of a path.
fn check(text: &str) -> Result<(), PolicyError> {
    if text.len() > MAX_PATH_BYTES || text.contains('\0') {
        let message = format!("a path in the sandbox policy has a NUL in it or is longer than {MAX_PATH_BYTES} bytes");
        return Err(PolicyError::params(message));
    }
    Ok(())
}

fn invalid(text: &str, why: &str) -> PolicyError {
    PolicyError::params(format!("invalid sandbox glob pattern `{text}`: {why}"))
}
