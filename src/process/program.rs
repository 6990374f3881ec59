//! Which file a command names.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Where programs are looked for when the environment has no `PATH`: the C library's default.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// Why a command cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The command has no name.
    #[error("missing program: the first element of argv is empty")]
    Empty,
    /// Something the kernel takes as a C string has a NUL in it.
    #[error("nul byte found in {0}")]
    Nul(&'static str),
}

/// The files that `name` may mean, in order: itself if it has a slash (a relative one counts from the child's working
/// directory), else one for each directory of the child's own `PATH`.
pub fn candidates(name: &OsStr, env: &[(OsString, OsString)]) -> Result<Vec<CString>, ProgramError> {
    if name.is_empty() {
        return Err(ProgramError::Empty);
    }
    if name.as_bytes().contains(&b'/') {
        return Ok(vec![c_string(name.as_bytes(), "argv")?]);
    }
    let path = env
        .iter()
        .find(|(n, _)| n == "PATH")
        .map_or(OsStr::new(DEFAULT_PATH), |(_, v)| v);
    let files = path.as_bytes().split(|b| *b == b':').map(|directory| {
        let mut file = directory.to_vec();
        if !directory.is_empty() {
            file.push(b'/');
        }
        file.extend_from_slice(name.as_bytes());
        c_string(&file, "argv or PATH")
    });
    files.collect()
}

/// `bytes` as a C string; `what` names them in the error.
pub fn c_string(bytes: &[u8], what: &'static str) -> Result<CString, ProgramError> {
    CString::new(bytes).map_err(|_| ProgramError::Nul(what))
}

/// A variable as the kernel takes it.
pub fn variable((name, value): &(OsString, OsString)) -> Result<CString, ProgramError> {
    c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat(), "env")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, path: Option<&str>) -> Vec<String> {
        let env: Vec<(OsString, OsString)> = path.map(|p| ("PATH".into(), p.into())).into_iter().collect();
        candidates(OsStr::new(name), &env)
            .unwrap()
            .into_iter()
            .map(|c| c.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_name_is_looked_for_in_the_childs_path() {
        assert_eq!(found("ls", Some("/a:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(found("ls", Some("")), ["ls"]);
        assert_eq!(found("ls", Some("/a:")), ["/a/ls", "ls"]);
        assert_eq!(found("ls", None), ["/usr/local/bin/ls", "/bin/ls", "/usr/bin/ls"]);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(found("./ls", Some("/a")), ["./ls"]);
        assert_eq!(found("/bin/ls", None), ["/bin/ls"]);
    }

    #[test]
    fn impossible_names_are_errors() {
        assert_eq!(candidates(OsStr::new(""), &[]), Err(ProgramError::Empty));
        assert_eq!(
            candidates(OsStr::new("a\0b"), &[]),
            Err(ProgramError::Nul("argv or PATH"))
        );
    }
}
