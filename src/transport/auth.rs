//! Who may connect over a network: bearer tokens, checked before the upgrade to a WebSocket.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc;

#[cfg(feature = "signed-tokens")]
use super::signed::{Claims, Digest, SigningKey};

/// The longest secret that is read from a file, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// Has the token of a client that runs as a program. No command inherits it.
pub const TOKEN_VARIABLE: &str = "EXEC_SERVER_TOKEN";

/// What a client must present to be let in.
#[derive(Clone)]
pub enum Authorizer {
    /// Nothing.
    None,
    /// The token that the server was given.
    Token(Token),
    /// A token with the SHA-256 digest that the server was given.
    #[cfg(feature = "signed-tokens")]
    TokenSha256(Digest),
    /// A JSON Web Token signed with a secret that both sides know.
    #[cfg(feature = "signed-tokens")]
    SignedBearer {
        /// What the signature is checked with.
        key: SigningKey,
        /// What the token must say besides.
        claims: Claims,
    },
}

/// A secret that a client must know.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

/// Who a client has proven to be. Without auth all are the same, and so are all that know the capability token; those
/// with signed tokens are told apart by `iss` and `sub`, where a missing one counts as one of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub(super) issuer: Option<String>,
    pub(super) subject: Option<String>,
}

/// Why a client is not let in; the texts are those of Codex's exec-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Authorization` header.
    #[error("missing websocket bearer token")]
    Missing,
    /// Another scheme than `Bearer`, or no token after it.
    #[error("invalid authorization header")]
    InvalidHeader,
    /// The wrong token.
    #[error("invalid websocket bearer token")]
    WrongToken,
    /// Not a JSON Web Token with HS256 and `exp`, or signed with another key.
    #[error("invalid websocket jwt")]
    InvalidJwt,
    /// `exp` has passed.
    #[error("expired websocket jwt")]
    ExpiredJwt,
    /// `nbf` is yet to come.
    #[error("websocket jwt is not valid yet")]
    EarlyJwt,
    /// `iss` is not the one that is wanted.
    #[error("websocket jwt issuer mismatch")]
    IssuerMismatch,
    /// `aud` does not name the one that is wanted.
    #[error("websocket jwt audience mismatch")]
    AudienceMismatch,
}

/// Why a secret cannot be used; the server must not start then.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("failed to read websocket auth secret {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe or a device.
    #[error("websocket auth secret {path} must be a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or change the file.
    #[error("websocket auth secret {path} is open to group or others (mode {mode:04o}, expected 0600 or less)")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing but white space.
    #[error("websocket auth secret {path} must not be empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More than any secret needs: probably the wrong file.
    #[error("websocket auth secret {path} must not be longer than {MAX_SECRET} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A header cannot carry such a token.
    #[error("websocket auth secret {path} must be one line without control characters")]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
    /// A key that could be guessed.
    #[error("signed websocket bearer secret {path} must be at least 32 bytes")]
    TooShort {
        /// The file.
        path: PathBuf,
    },
    /// The value of `--ws-token-sha256`.
    #[error("--ws-token-sha256 must be a 64-character hex SHA-256 digest")]
    NotADigest,
}

impl Authorizer {
    /// Wants the token that is the content of `path`, without white space around it.
    ///
    /// Only the file's owner may have any access to it.
    pub fn from_token_file(path: &Path) -> Result<Self, SecretError> {
        Ok(Self::Token(Token(read_token_file(path)?.into())))
    }

    /// Wants a token with this SHA-256 digest, 64 hex digits of either case.
    #[cfg(feature = "signed-tokens")]
    pub fn from_token_sha256(hex: &str) -> Result<Self, SecretError> {
        Digest::from_hex(hex)
            .map(Self::TokenSha256)
            .ok_or(SecretError::NotADigest)
    }

    /// Wants a JSON Web Token signed (HS256) with the content of `path`, at least 32 bytes
    /// without the white space around it. Only the file's owner may have any access to it.
    #[cfg(feature = "signed-tokens")]
    pub fn from_shared_secret_file(path: &Path, claims: Claims) -> Result<Self, SecretError> {
        let secret = read_secret(path)?;
        let key = SigningKey::new(&secret).ok_or_else(|| SecretError::TooShort { path: path.into() })?;
        Ok(Self::SignedBearer { key, claims })
    }

    /// Checks the value of an `Authorization` header, and says whose it is; `now` is for tokens that expire.
    ///
    /// # Errors
    /// Why whoever sent it is not let in.
    pub fn check(&self, authorization: Option<&str>, now: SystemTime) -> Result<Identity, Refusal> {
        #[cfg(not(feature = "signed-tokens"))]
        let _ = now;
        match self {
            Self::None => Ok(Identity::default()),
            Self::Token(expected) => {
                let token = bearer_token(authorization)?;
                right_or_wrong(is_same(token.as_bytes(), &expected.0))
            }
            #[cfg(feature = "signed-tokens")]
            Self::TokenSha256(expected) => {
                let token = bearer_token(authorization)?;
                right_or_wrong(expected.is_of(token.as_bytes()))
            }
            #[cfg(feature = "signed-tokens")]
            Self::SignedBearer { key, claims } => {
                let token = bearer_token(authorization)?;
                claims.check(key.open(token)?, now)
            }
        }
    }
}

fn right_or_wrong(same: bool) -> Result<Identity, Refusal> {
    if same {
        Ok(Identity::default())
    } else {
        Err(Refusal::WrongToken)
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token(..)",
            #[cfg(feature = "signed-tokens")]
            Self::TokenSha256(_) => "TokenSha256(..)",
            #[cfg(feature = "signed-tokens")]
            Self::SignedBearer { .. } => "SignedBearer { .. }",
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What comes after `Bearer`, whatever the case of that word.
fn bearer_token(authorization: Option<&str>) -> Result<&str, Refusal> {
    let (scheme, token) = authorization
        .ok_or(Refusal::Missing)?
        .trim()
        .split_once(' ')
        .ok_or(Refusal::InvalidHeader)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(Refusal::InvalidHeader)
    }
}

/// Whether the two are the same, in a time that depends on nothing but the length of `given`,
/// which whoever sent it knows anyway.
pub(super) fn is_same(given: &[u8], expected: &[u8]) -> bool {
    let mut difference = u8::from(given.len() != expected.len());
    let endless = expected.iter().cycle().chain(std::iter::repeat(&0));
    for (a, b) in given.iter().zip(endless) {
        difference = std::hint::black_box(difference | (a ^ b));
    }
    difference == 0
}

/// The token that is the content of `path`, without white space around it.
///
/// # Errors
/// It cannot be read, others than its owner have access to it, or its content is no token.
pub fn read_token_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    let token = read_secret(path)?;
    if token.iter().any(u8::is_ascii_control) {
        return Err(SecretError::NotAToken { path: path.into() });
    }
    Ok(token)
}

fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Read {
        path: path.into(),
        source,
    };
    // Opening a pipe must not wait for its other end.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { path: path.into() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & closed_to(metadata.uid(), nix::unistd::geteuid().as_raw()) != 0 {
        return Err(SecretError::Mode {
            path: path.into(),
            mode,
        });
    }
    let mut secret = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut secret).map_err(failed)?;
    if secret.len() as u64 > MAX_SECRET {
        return Err(SecretError::TooLong { path: path.into() });
    }
    let secret = secret.trim_ascii();
    if secret.is_empty() {
        return Err(SecretError::Empty { path: path.into() });
    }
    Ok(secret.to_vec())
}

/// The bits that the mode of a secret's file must not have, by its owner and by who reads it. A file of root's may be
/// readable by its group, if who reads it is not root: so systemd (`LoadCredential=`, where these bits stand for an access
/// list) and Kubernetes (`fsGroup`) give a secret to a program.
fn closed_to(owner: u32, reader: u32) -> u32 {
    if owner == 0 && reader != 0 { 0o037 } else { 0o077 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn token(text: &str) -> Authorizer {
        Authorizer::Token(Token(text.as_bytes().into()))
    }

    #[test]
    fn a_bearer_token_must_be_the_right_one() {
        let right = Ok(Identity::default());
        let table = [
            (None, Err(Refusal::Missing)),
            (Some("Bearer s3cret"), right.clone()),
            (Some("bearer s3cret"), right.clone()),
            (Some("BEARER    s3cret  "), right),
            (Some("Bearer"), Err(Refusal::InvalidHeader)),
            (Some("Bearer "), Err(Refusal::InvalidHeader)),
            (Some("s3cret"), Err(Refusal::InvalidHeader)),
            (Some("Basic s3cret"), Err(Refusal::InvalidHeader)),
            (Some("Bearers3cret"), Err(Refusal::InvalidHeader)),
            (Some(""), Err(Refusal::InvalidHeader)),
            (Some("Bearer S3cret"), Err(Refusal::WrongToken)),
            (Some("Bearer s3cre"), Err(Refusal::WrongToken)),
            (Some("Bearer s3cret!"), Err(Refusal::WrongToken)),
            (Some("Bearer s3crets3cret"), Err(Refusal::WrongToken)),
            (Some("Bearer s3cret s3cret"), Err(Refusal::WrongToken)),
        ];
        for (header, verdict) in table {
            let given = token("s3cret").check(header, SystemTime::UNIX_EPOCH);
            assert_eq!(given, verdict, "{header:?}");
            let given = Authorizer::None.check(header, SystemTime::UNIX_EPOCH);
            assert_eq!(given, Ok(Identity::default()));
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let shown = format!("{:?} {:?}", token("s3cret"), Token(b"s3cret".as_slice().into()));
        assert_eq!(shown, "Token(..) Token(..)");
    }

    #[test]
    fn equal_means_all_bytes() {
        for (a, b, same) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("abc", "abc", true),
            ("abc", "abd", false),
            ("xbc", "abc", false),
            ("abcabc", "abc", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(is_same(a.as_bytes(), b.as_bytes()), same, "{a} {b}");
        }
    }

    /// A directory of this test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("auth-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }

        fn file(&self, content: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join("token");
            let _ = fs::remove_file(&path);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_token_file_is_trimmed() {
        let scratch = Scratch::new("trimmed");
        for mode in [0o600, 0o400] {
            let path = scratch.file(b" \n s3cret\r\n", mode);
            let authorizer = Authorizer::from_token_file(&path).unwrap();
            assert_eq!(
                authorizer.check(Some("Bearer s3cret"), SystemTime::now()),
                Ok(Identity::default())
            );
        }
    }

    #[test]
    fn a_file_of_root_may_be_readable_by_the_group_of_another_user() {
        let is_refused = |owner, reader, mode: u32| mode & closed_to(owner, reader) != 0;
        for mode in [0o400, 0o440, 0o600, 0o640] {
            assert!(!is_refused(0, 1000, mode), "{mode:o}");
        }
        for mode in [0o444, 0o460, 0o450, 0o404] {
            assert!(is_refused(0, 1000, mode), "{mode:o}");
        }
        for (owner, reader) in [(0, 0), (1000, 1000), (1000, 0), (1000, 1001)] {
            assert!(is_refused(owner, reader, 0o440), "{owner} {reader}");
        }
    }

    #[test]
    fn a_bad_token_file_is_refused() {
        let scratch = Scratch::new("refused");
        let refusal = |path: &Path| match Authorizer::from_token_file(path) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string().replace(&path.display().to_string(), "P"),
        };
        for mode in [0o640, 0o604, 0o620, 0o602, 0o666, 0o610, 0o4644] {
            let path = scratch.file(b"s3cret", mode);
            assert_eq!(
                refusal(&path),
                format!("websocket auth secret P is open to group or others (mode {mode:04o}, expected 0600 or less)")
            );
        }
        assert_eq!(
            refusal(&scratch.file(b" \n", 0o600)),
            "websocket auth secret P must not be empty"
        );
        assert_eq!(
            refusal(&scratch.file(b"a\nb", 0o600)),
            "websocket auth secret P must be one line without control characters"
        );
        assert_eq!(
            refusal(&scratch.file(&[b'a'; 65_537], 0o600)),
            "websocket auth secret P must not be longer than 65536 bytes"
        );
        assert_eq!(refusal(&scratch.0), "websocket auth secret P must be a regular file");
        assert_eq!(
            refusal(&scratch.0.join("none")),
            "failed to read websocket auth secret P: No such file or directory (os error 2)"
        );
        let pipe = scratch.0.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(refusal(&pipe), "websocket auth secret P must be a regular file");
    }
}
