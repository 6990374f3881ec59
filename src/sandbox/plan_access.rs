//! What holds where: the most specific place wins, and at the same place deny before write before read.

use super::facts::{Facts, Kind};
use super::policy::{Place, Places, PolicyError};
use super::policy_path::{End, FollowedLink, Way, follow, is_missing};
use crate::protocol::sandbox::Access;
use std::path::{Path, PathBuf};

/// The names that are read-only directly in every writable directory: what other programs trust and run things from.
pub(super) const PROTECTED: [&str; 4] = [".git", ".codex", ".agents", ".aws"];

/// What holds at a real path and below.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) path: PathBuf,
    pub(super) access: Access,
    /// What is there; `None` for a protected name that is not.
    pub(super) kind: Option<Kind>,
}

/// What a policy says about real paths.
#[derive(Debug)]
pub(super) struct AccessMap {
    /// In the order of their paths, each once.
    pub(super) spots: Vec<Spot>,
    /// The links in the names of what may be read or written, and the real path of that.
    pub(super) links: Vec<(FollowedLink, PathBuf)>,
}

impl AccessMap {
    /// Follows `places` to what is there, and adds what is protected.
    pub(super) fn of(places: &Places, facts: &dyn Facts) -> Result<Self, PolicyError> {
        let mut map = Self {
            spots: Vec::new(),
            links: Vec::new(),
        };
        let ways: Vec<Way> = places.list.iter().map(|place| follow(&place.name, facts)).collect();
        let mut told_to_write = Vec::new();
        for (place, way) in places.list.iter().zip(&ways) {
            if place.explicit && place.access == Access::Write {
                told_to_write.extend(way.last.as_deref());
            }
            if let End::Place { path, directory } = &way.end {
                let kind = if *directory { Kind::Directory } else { Kind::File };
                map.spots.push(Spot {
                    path: path.clone(),
                    access: place.access,
                    kind: Some(kind),
                });
            }
        }
        told_to_write.sort_unstable();
        map.settle();
        map.protect(&told_to_write, facts)?;
        map.check(&places.list, &ways)?;
        for (place, way) in places.list.iter().zip(ways) {
            if let End::Place { path, .. } = way.end
                && place.access != Access::Deny
            {
                let named = way.links.into_iter().filter(|link| link.named);
                map.links.extend(named.map(|link| (link, path.clone())));
            }
        }
        Ok(map)
    }

    /// Brings the spots into order.
    fn settle(&mut self) {
        let strength = |spot: &Spot| match spot.access {
            Access::Deny => 0,
            Access::Write => 1,
            Access::Read => 2,
        };
        (self.spots).sort_by(|a, b| a.path.cmp(&b.path).then(strength(a).cmp(&strength(b))));
        self.spots.dedup_by(|later, first| later.path == first.path);
    }

    fn index(&self, path: &Path) -> Result<usize, usize> {
        self.spots.binary_search_by(|spot| spot.path.as_path().cmp(path))
    }

    /// What holds at a real path; nothing may be done where the policy does not say anything.
    pub(super) fn access(&self, path: &Path) -> Access {
        path.ancestors()
            .find_map(|above| self.index(above).ok())
            .map_or(Access::Deny, |index| self.spots[index].access)
    }

    /// Makes the protected names in every writable directory read-only, but for those that the policy itself says something
    /// about, in particular that they may be written. That a pattern includes one does not make it writable.
    fn protect(&mut self, told_to_write: &[&Path], facts: &dyn Facts) -> Result<(), PolicyError> {
        let mut protected = Vec::new();
        for n in 0..self.spots.len() {
            if self.spots[n].access != Access::Write || self.spots[n].kind != Some(Kind::Directory) {
                continue;
            }
            for name in PROTECTED {
                let path = self.spots[n].path.join(name);
                if told_to_write.binary_search(&path.as_path()).is_ok() {
                    continue;
                }
                if let Ok(index) = self.index(&path) {
                    if self.spots[index].access == Access::Write {
                        self.spots[index].access = Access::Read;
                    }
                    continue;
                }
                let kind = match facts.kind(&path) {
                    Ok(Kind::Link) => return Err(crosses_link("read-only", &path, &path)),
                    Ok(kind) => Some(kind),
                    Err(error) if is_missing(&error) => None,
                    Err(error) => return Err(unknown("read-only", &path, &error)),
                };
                protected.push(Spot {
                    path,
                    access: Access::Read,
                    kind,
                });
            }
        }
        self.spots.append(&mut protected);
        self.settle();
        Ok(())
    }

    /// Refuses what could be got around: a place to be kept from being written or read whose name goes through a link that
    /// may itself be changed, or which cannot be found now but could be made to be.
    fn check(&self, places: &[Place], ways: &[Way]) -> Result<(), PolicyError> {
        let mut writable: Vec<&Path> = (places.iter())
            .filter(|place| place.access == Access::Write)
            .map(|place| place.name.as_path())
            .collect();
        writable.sort_unstable();
        for (place, way) in places.iter().zip(ways) {
            let word = match place.access {
                Access::Write => continue,
                Access::Read => "read-only",
                Access::Deny => "denied",
            };
            match &way.end {
                End::Unknown { at, error } if self.access(at) == Access::Write => {
                    return Err(unknown(word, &place.name, error));
                }
                End::Place { .. } if place.explicit => {}
                _ => continue,
            }
            // A writable place counts where it really is, so the links in its own name are none of those.
            let root = (place.name.ancestors()).find(|above| writable.binary_search(above).is_ok());
            let parts = root.map_or(0, |root| root.components().count() - 1);
            let crossed = (way.links.iter())
                .find(|link| link.part >= parts && self.access(link.at.parent().unwrap_or(&link.at)) == Access::Write);
            if let Some(link) = crossed {
                return Err(crosses_link(word, &place.name, &link.at));
            }
        }
        Ok(())
    }
}

/// In the words of Codex's exec-server.
#[cold]
fn crosses_link(word: &str, path: &Path, link: &Path) -> PolicyError {
    PolicyError::internal(format!(
        "cannot enforce sandbox {word} path {} because it crosses writable symlink {}",
        path.display(),
        link.display()
    ))
}

#[cold]
fn unknown(word: &str, path: &Path, error: &std::io::Error) -> PolicyError {
    PolicyError::internal(format!(
        "cannot enforce sandbox {word} path {}: {error}",
        path.display()
    ))
}
