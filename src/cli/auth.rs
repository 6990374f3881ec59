//! The `--ws-` flags: who may connect.

use std::path::PathBuf;
#[cfg(feature = "signed-tokens")]
use std::time::Duration;

use exec_server::transport::auth::{Authorizer, SecretError};
#[cfg(feature = "signed-tokens")]
use exec_server::transport::signed::{Claims, Digest};

use super::flags::{Flag, UsageError, wrong};

const FLAGS_WITHOUT_AUTH: &str = "websocket auth flags require `--ws-auth capability-token` or \
    `--ws-auth signed-bearer-token`";

const TOKEN_REQUIRED: &str = "`--ws-token-file` or `--ws-token-sha256` is required when \
    `--ws-auth capability-token` is set";

/// What clients must present; the secret files have not been read yet.
#[derive(Debug, Clone)]
pub(crate) enum AuthArgs {
    /// Nothing.
    None,
    /// The token that is in this file.
    TokenFile(PathBuf),
    /// The token with this SHA-256 digest.
    #[cfg(feature = "signed-tokens")]
    TokenSha256(Digest),
    /// A signed token.
    #[cfg(feature = "signed-tokens")]
    SignedBearer {
        /// Where the key is.
        secret_file: PathBuf,
        /// What the token must say.
        claims: Claims,
    },
}

impl AuthArgs {
    /// Reads the secret file, if there is one.
    pub(crate) fn authorizer(&self) -> Result<Authorizer, SecretError> {
        match self {
            Self::None => Ok(Authorizer::None),
            Self::TokenFile(path) => Authorizer::from_token_file(path),
            #[cfg(feature = "signed-tokens")]
            Self::TokenSha256(digest) => Ok(Authorizer::TokenSha256(digest.clone())),
            #[cfg(feature = "signed-tokens")]
            Self::SignedBearer { secret_file, claims } => {
                Authorizer::from_shared_secret_file(secret_file, claims.clone())
            }
        }
    }
}

/// The `--ws-` flags that were there.
#[derive(Default)]
pub(super) struct GivenAuth {
    ws_auth: Option<AuthKind>,
    token_file: Option<PathBuf>,
    #[cfg(feature = "signed-tokens")]
    signed: GivenSigned,
}

/// The flags that were there of those that need SHA-256.
#[cfg(feature = "signed-tokens")]
#[derive(Default)]
struct GivenSigned {
    token_sha256: Option<Digest>,
    shared_secret_file: Option<PathBuf>,
    issuer: Option<String>,
    audience: Option<String>,
    max_clock_skew: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthKind {
    CapabilityToken,
    SignedBearerToken,
}

impl GivenAuth {
    /// Takes a flag whose name begins with `--ws-`.
    pub(super) fn take(&mut self, flag: &mut Flag<'_, '_>) -> Result<(), UsageError> {
        match flag.name {
            "--ws-auth" => {
                let kind = flag.parsed("capability-token or signed-bearer-token", |text| match text {
                    "capability-token" => Some(AuthKind::CapabilityToken),
                    "signed-bearer-token" => Some(AuthKind::SignedBearerToken),
                    _ => None,
                })?;
                flag.put(&mut self.ws_auth, kind)
            }
            "--ws-token-file" => {
                let path = flag.value()?.into();
                flag.put(&mut self.token_file, path)
            }
            "--ws-token-sha256"
            | "--ws-shared-secret-file"
            | "--ws-issuer"
            | "--ws-audience"
            | "--ws-max-clock-skew-seconds" => self.take_signed(flag),
            _ => flag.unknown(),
        }
    }

    #[cfg(feature = "signed-tokens")]
    fn take_signed(&mut self, flag: &mut Flag<'_, '_>) -> Result<(), UsageError> {
        let signed = &mut self.signed;
        match flag.name {
            "--ws-token-sha256" => match Digest::from_hex(&flag.text()?) {
                Some(digest) => flag.put(&mut signed.token_sha256, digest),
                None => wrong(SecretError::NotADigest.to_string()),
            },
            "--ws-shared-secret-file" => {
                let path = flag.value()?.into();
                flag.put(&mut signed.shared_secret_file, path)
            }
            "--ws-issuer" => {
                let issuer = flag.text()?;
                flag.put(&mut signed.issuer, issuer)
            }
            "--ws-audience" => {
                let audience = flag.text()?;
                flag.put(&mut signed.audience, audience)
            }
            _ => {
                let skew = flag.seconds()?;
                flag.put(&mut signed.max_clock_skew, skew)
            }
        }
    }

    #[cfg(not(feature = "signed-tokens"))]
    fn take_signed(&mut self, flag: &mut Flag<'_, '_>) -> Result<(), UsageError> {
        wrong(format!("{} needs a build with the feature signed-tokens", flag.name))
    }

    /// What all flags together ask for.
    #[cfg(not(feature = "signed-tokens"))]
    pub(super) fn auth_args(self) -> Result<AuthArgs, UsageError> {
        match (self.ws_auth, self.token_file) {
            (None, None) => Ok(AuthArgs::None),
            (None, Some(_)) => wrong(FLAGS_WITHOUT_AUTH),
            (Some(AuthKind::CapabilityToken), Some(path)) => Ok(AuthArgs::TokenFile(path)),
            (Some(AuthKind::CapabilityToken), None) => wrong(TOKEN_REQUIRED),
            (Some(AuthKind::SignedBearerToken), _) => {
                wrong("--ws-auth signed-bearer-token needs a build with the feature signed-tokens")
            }
        }
    }

    /// What all flags together ask for.
    #[cfg(feature = "signed-tokens")]
    pub(super) fn auth_args(self) -> Result<AuthArgs, UsageError> {
        let signed = self.signed;
        let has_token = self.token_file.is_some() || signed.token_sha256.is_some();
        let has_signed = signed.shared_secret_file.is_some()
            || signed.issuer.is_some()
            || signed.audience.is_some()
            || signed.max_clock_skew.is_some();
        match self.ws_auth {
            None if has_token || has_signed => wrong(FLAGS_WITHOUT_AUTH),
            None => Ok(AuthArgs::None),
            Some(AuthKind::CapabilityToken) if has_signed => wrong(
                "`--ws-shared-secret-file`, `--ws-issuer`, `--ws-audience`, and \
                 `--ws-max-clock-skew-seconds` require `--ws-auth signed-bearer-token`",
            ),
            Some(AuthKind::CapabilityToken) => match (self.token_file, signed.token_sha256) {
                (Some(path), None) => Ok(AuthArgs::TokenFile(path)),
                (None, Some(digest)) => Ok(AuthArgs::TokenSha256(digest)),
                (None, None) => wrong(TOKEN_REQUIRED),
                (Some(_), Some(_)) => wrong("`--ws-token-file` and `--ws-token-sha256` are mutually exclusive"),
            },
            Some(AuthKind::SignedBearerToken) if has_token => wrong(
                "`--ws-token-file` and `--ws-token-sha256` require \
                 `--ws-auth capability-token`, not `signed-bearer-token`",
            ),
            Some(AuthKind::SignedBearerToken) => {
                let Some(secret_file) = signed.shared_secret_file else {
                    return wrong(
                        "`--ws-shared-secret-file` is required when \
                         `--ws-auth signed-bearer-token` is set",
                    );
                };
                let usual = Claims::default();
                Ok(AuthArgs::SignedBearer {
                    secret_file,
                    claims: Claims {
                        issuer: signed.issuer,
                        audience: signed.audience,
                        max_clock_skew: signed.max_clock_skew.unwrap_or(usual.max_clock_skew),
                    },
                })
            }
        }
    }
}
