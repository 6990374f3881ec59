//! Tokens that need SHA-256: known by their digest, or signed.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

use super::auth::{Identity, Refusal, is_same};
use crate::protocol::decode::{Decode, DecodeError, Fields};
use crate::protocol::json::{Kind, Scanner, Span};
use crate::protocol::message::Limits;

/// The SHA-256 digest of a token: the server need not know the token itself.
#[derive(Clone)]
pub struct Digest([u8; 32]);

impl Digest {
    /// From 64 hex digits of either case.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            for &digit in pair {
                *byte = *byte << 4 | char::from(digit).to_digit(16)? as u8;
            }
        }
        Some(Self(digest))
    }

    pub(super) fn is_of(&self, token: &[u8]) -> bool {
        is_same(&Sha256::digest(token), &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// The secret that JSON Web Tokens are signed with; HS256 only.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// `None` if the secret is shorter than 32 bytes, which is what HS256 needs to be worth
    /// its name.
    pub fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < 32 {
            return None;
        }
        Hmac::new_from_slice(secret).ok().map(Self)
    }

    /// What `token` says, if it carries the signature of this key.
    pub(super) fn open(&self, token: &str) -> Result<Payload, Refusal> {
        let signed_length = token.rfind('.').ok_or(Refusal::InvalidJwt)?;
        let (signed, signature) = (&token[..signed_length], &token[signed_length + 1..]);
        let mut mac = self.0.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&decode(signature)?).map_err(|_| Refusal::InvalidJwt)?;

        let (header, payload) = signed.split_once('.').ok_or(Refusal::InvalidJwt)?;
        // What `crit` lists must be understood, and nothing is.
        let is_understood = read(&decode(header)?, |header| {
            let alg: Cow<'_, str> = header.required("alg")?;
            Ok(alg == "HS256" && header.get("crit").is_none())
        });
        if !is_understood? {
            return Err(Refusal::InvalidJwt);
        }
        read(&decode(payload)?, |payload| {
            Ok(Payload {
                exp: payload.required("exp")?,
                nbf: payload.optional("nbf")?,
                issuer: payload.optional("iss")?,
                subject: payload.optional("sub")?,
                audience: payload.optional("aud")?,
            })
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// What a signed token must say.
#[derive(Debug, Clone)]
pub struct Claims {
    /// What `iss` must be, if that matters.
    pub issuer: Option<String>,
    /// What `aud` must be or contain, if that matters.
    pub audience: Option<String>,
    /// How far the two clocks may be apart; 30 seconds by default.
    pub max_clock_skew: Duration,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            max_clock_skew: Duration::from_secs(30),
        }
    }
}

impl Claims {
    pub(super) fn check(&self, payload: Payload, now: SystemTime) -> Result<Identity, Refusal> {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let now = seconds(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let skew = seconds(self.max_clock_skew);
        if now > payload.exp.0.saturating_add(skew) {
            return Err(Refusal::ExpiredJwt);
        }
        if payload.nbf.is_some_and(|nbf| now < nbf.0.saturating_sub(skew)) {
            return Err(Refusal::EarlyJwt);
        }
        if self.issuer.is_some() && self.issuer != payload.issuer {
            return Err(Refusal::IssuerMismatch);
        }
        let named = |audience: &String| payload.audience.as_ref().is_some_and(|all| all.0.contains(audience));
        if !self.audience.as_ref().is_none_or(named) {
            return Err(Refusal::AudienceMismatch);
        }
        Ok(Identity {
            issuer: payload.issuer,
            subject: payload.subject,
        })
    }
}

/// The part of a token's content that is looked at.
pub(super) struct Payload {
    exp: Time,
    nbf: Option<Time>,
    issuer: Option<String>,
    subject: Option<String>,
    audience: Option<Audience>,
}

/// A time in whole seconds since 1970; a fraction is left out. One with an exponent is no time: nobody writes it so.
struct Time(i64);

impl Decode<'_> for Time {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let text = std::str::from_utf8(value.raw).unwrap_or_default();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        match whole.parse() {
            Ok(seconds) if fraction.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Time(seconds)),
            _ => Err(DecodeError::new("not a time".to_owned())),
        }
    }
}

/// One, or a list of them.
struct Audience(Vec<String>);

impl Decode<'_> for Audience {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        match value.kind {
            Kind::Array => Vec::decode(value).map(Audience),
            _ => String::decode(value).map(|one| Audience(vec![one])),
        }
    }
}

/// Checks that `text` is a JSON object, and has its members read.
fn read<T>(text: &[u8], take: impl FnOnce(Fields<'_>) -> Result<T, DecodeError>) -> Result<T, Refusal> {
    let mut scanner = Scanner::new(text, 0..0, Limits::default());
    let value = scanner.value().and_then(|value| scanner.finish().map(|()| value));
    let read = value
        .map_err(DecodeError::from)
        .and_then(|value| take(Fields::of(value, "a token")?));
    read.map_err(|_| Refusal::InvalidJwt)
}

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::InvalidJwt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::auth::Authorizer;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: u64 = 2_000_000_000;

    fn sign(header: &str, payload: &str, secret: &[u8]) -> String {
        let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", encode(&mac.finalize().into_bytes()))
    }

    fn check(claims: &Claims, token: &str) -> Result<(), Refusal> {
        let authorizer = Authorizer::SignedBearer {
            key: SigningKey::new(SECRET).unwrap(),
            claims: claims.clone(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        authorizer.check(Some(&format!("Bearer {token}")), now).map(drop)
    }

    fn hs256(payload: &str) -> String {
        sign(r#"{"alg":"HS256","typ":"JWT"}"#, payload, SECRET)
    }

    #[test]
    fn a_signed_token_has_its_time() {
        let table = [
            ("{}".to_owned(), Err(Refusal::InvalidJwt)),
            (r#"{"exp":"x"}"#.to_owned(), Err(Refusal::InvalidJwt)),
            (r#"{"exp":null}"#.to_owned(), Err(Refusal::InvalidJwt)),
            (format!(r#"{{"exp":"{NOW}"}}"#), Err(Refusal::InvalidJwt)),
            (r#"{"exp":9e9}"#.to_owned(), Err(Refusal::InvalidJwt)),
            (r#"{"exp":-5}"#.to_owned(), Err(Refusal::ExpiredJwt)),
            (r#"{"exp":9223372036854775807}"#.to_owned(), Ok(())),
            (format!(r#"{{"exp":{NOW},"sub":5}}"#), Err(Refusal::InvalidJwt)),
            (format!(r#"{{"exp":{NOW}}} x"#), Err(Refusal::InvalidJwt)),
            ("5".to_owned(), Err(Refusal::InvalidJwt)),
            (format!(r#"{{"exp":{}}}"#, NOW + 400_000_000), Ok(())),
            (format!(r#"{{"exp":{}.5}}"#, NOW), Ok(())),
            (format!(r#"{{"exp":{}}}"#, NOW - 25), Ok(())),
            (format!(r#"{{"exp":{}}}"#, NOW - 35), Err(Refusal::ExpiredJwt)),
            (format!(r#"{{"exp":{NOW},"nbf":{}}}"#, NOW + 25), Ok(())),
            (format!(r#"{{"exp":{NOW},"nbf":{}}}"#, NOW + 35), Err(Refusal::EarlyJwt)),
            (format!(r#"{{"exp":{NOW},"iat":"soon","iss":"i","aud":["a"]}}"#), Ok(())),
            (format!(r#"{{"exp":{NOW},"exp":{NOW}}}"#), Err(Refusal::InvalidJwt)),
        ];
        for (payload, verdict) in table {
            assert_eq!(check(&Claims::default(), &hs256(&payload)), verdict, "{payload}");
        }
        let strict = Claims {
            max_clock_skew: Duration::ZERO,
            ..Claims::default()
        };
        let late = hs256(&format!(r#"{{"exp":{}}}"#, NOW - 1));
        assert_eq!(check(&strict, &late), Err(Refusal::ExpiredJwt));
    }

    #[test]
    fn only_hs256_with_the_right_key_counts() {
        let payload = format!(r#"{{"exp":{NOW}}}"#);
        let good = hs256(&payload);
        assert_eq!(check(&Claims::default(), &good), Ok(()));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let other_signature = if signature.starts_with('A') { "B" } else { "A" };
        let bad = [
            sign(r#"{"alg":"HS384"}"#, &payload, SECRET),
            sign(r#"{"alg":"none"}"#, &payload, SECRET),
            sign(r#"{"alg":"hs256"}"#, &payload, SECRET),
            sign(r#"{"alg":"HS256","crit":["x"]}"#, &payload, SECRET),
            sign("{}", &payload, SECRET),
            sign(r#"{"alg":"HS256"}"#, &payload, b"another secret"),
            format!("{signed}."),
            format!("{good}="),
            format!("{signed}.{other_signature}{}", &signature[1..]),
            format!("{signed}.{}", &signature[..40]),
            good.replacen('.', "", 1),
            format!("x.{good}"),
            ".".to_owned(),
            "..".to_owned(),
            "opaque".to_owned(),
        ];
        for token in bad {
            assert_eq!(check(&Claims::default(), &token), Err(Refusal::InvalidJwt), "{token}");
        }
    }

    #[test]
    fn issuer_and_audience_are_checked_if_wanted() {
        let claims = Claims {
            issuer: Some("me".to_owned()),
            audience: Some("you".to_owned()),
            ..Claims::default()
        };
        let table = [
            (r#""iss":"me","aud":"you""#, Ok(())),
            (r#""iss":"me","aud":["them","you"]"#, Ok(())),
            (r#""iss":"other","aud":"you""#, Err(Refusal::IssuerMismatch)),
            (r#""aud":"you""#, Err(Refusal::IssuerMismatch)),
            (r#""iss":"me","aud":"they""#, Err(Refusal::AudienceMismatch)),
            (r#""iss":"me","aud":[]"#, Err(Refusal::AudienceMismatch)),
            (r#""iss":"me""#, Err(Refusal::AudienceMismatch)),
            (r#""iss":["me"],"aud":"you""#, Err(Refusal::InvalidJwt)),
        ];
        for (members, verdict) in table {
            let token = hs256(&format!(r#"{{"exp":{NOW},{members}}}"#));
            assert_eq!(check(&claims, &token), verdict, "{members}");
        }
    }

    #[test]
    fn clients_are_told_apart_by_issuer_and_subject() {
        let authorizer = Authorizer::SignedBearer {
            key: SigningKey::new(SECRET).unwrap(),
            claims: Claims::default(),
        };
        let who = |members: &str, exp: u64| {
            let token = hs256(&format!(r#"{{{members}"exp":{exp}}}"#));
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
            authorizer.check(Some(&format!("Bearer {token}")), now).unwrap()
        };
        let tokens = [
            "",
            r#""iss":"a","#,
            r#""sub":"a","#,
            r#""iss":"a","sub":"a","#,
            r#""iss":"a","sub":"b","#,
        ];
        for (i, one) in tokens.iter().enumerate() {
            for (j, other) in tokens.iter().enumerate() {
                assert_eq!(who(one, NOW) == who(other, NOW + 1), i == j, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_token_can_be_known_by_its_digest() {
        // printf s3cret | sha256sum
        let hex = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";
        for hex in [hex.to_owned(), hex.to_uppercase()] {
            let authorizer = Authorizer::from_token_sha256(&hex).unwrap();
            let check = |header| authorizer.check(Some(header), SystemTime::now()).map(drop);
            assert_eq!(check("Bearer s3cret"), Ok(()));
            assert_eq!(check("Bearer s3cre"), Err(Refusal::WrongToken));
            assert_eq!(format!("{authorizer:?}"), "TokenSha256(..)");
        }
        for wrong in ["", "1e", &hex[1..], &format!("{hex}0"), &hex.replace('e', "g")] {
            let error = Authorizer::from_token_sha256(wrong).unwrap_err();
            assert_eq!(
                error.to_string(),
                "--ws-token-sha256 must be a 64-character hex SHA-256 digest"
            );
        }
    }

    #[test]
    fn a_short_secret_is_no_key() {
        assert!(SigningKey::new(&SECRET[1..]).is_none());
        assert_eq!(format!("{:?}", SigningKey::new(SECRET)), "Some(SigningKey(..))");
    }
}
