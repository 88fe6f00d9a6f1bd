//! Who a client is and what it may do, by signed tokens (JSON Web Tokens, RFC 7519): nobody is asked, no state is kept.
//!
//! PHP signs them ([`sign`], `rt_token()`) or somebody else does; the server proves them ([`Auth::check`]) and keeps the
//! [`Grant`] with the connection. [`keys`] knows who may sign, [`revocations`] what was taken back. Imports `ids` and
//! `config`.

mod clock;
mod details;
mod grant;
mod keys;
mod mercure;
mod revocations;
mod sign;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::de::DeserializeOwned;

use self::grant::Claims;
pub use self::grant::{Grant, Stamp, is_user};
pub use self::keys::KeysError;
use self::keys::{Keys, Ring};
use self::mercure::Mercure;
pub use self::mercure::Publisher;
pub use self::revocations::{Full, Lists, Revocations};
pub use self::sign::{NotSigned, sign};
use crate::config::Config;

/// The longest token, in bytes: a request's head has room for it beside a browser's cookies.
pub const TOKEN_MAX: usize = 8 << 10;
/// By how much the clocks of an issuer and of this machine may differ, for what begins in the future.
const SKEW: Duration = Duration::from_secs(5);

/// What becomes of tokens in one server.
#[derive(Debug)]
pub struct Auth {
    ring: Ring,
    mercure: Mercure,
    audience: Option<String>,
    max_ttl: Duration,
    /// The keeper of `store` looks at them, too.
    revocations: Arc<Revocations>,
}

/// Why a token is not taken. The client's to mend, or its application's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// There are no keys.
    #[error("tokens are not used here: neither realtime.secret nor realtime.token_keys is set")]
    NotUsed,
    /// Over [`TOKEN_MAX`].
    #[error("the token has {0} bytes, {TOKEN_MAX} are allowed")]
    TooLong(usize),
    /// Not a token.
    #[error(
        "this is not a token: it must be a JSON Web Token, three parts in base64 with dots between them"
    )]
    Malformed,
    /// Signed in a way, or with a key, that is not accepted here; also not signed at all.
    #[error("the token is signed with an algorithm or a key that is not accepted here")]
    Algorithm,
    /// Signed by somebody else, or changed since.
    #[error("the token's signature is not right")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// Made for somebody else.
    #[error("the token is not for this server: see realtime.token_audience")]
    Audience,
    /// Lives longer than is allowed.
    #[error("the token lives longer than realtime.max_token_ttl allows")]
    TooLongLived,
    /// Taken back by `rt_revoke()`.
    #[error("the token was revoked")]
    Revoked,
    /// A claim is missing or wrong.
    #[error("the token's claims: {0}")]
    Claims(String),
    /// A connection stays with the user that it began with.
    #[error("the connection did not begin with this user: connect anew")]
    OtherUser,
}

impl BadToken {
    /// The error code of php/docs/protocol.md.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired => "token_expired",
            _ => "bad_token",
        }
    }
}

impl Auth {
    /// Reads the keys that `config` names.
    pub fn new(config: &Config) -> Result<Self, KeysError> {
        Ok(Self {
            ring: Ring::begin(
                "realtime.token_keys",
                config.secret.clone(),
                config.token_keys.clone(),
            )?,
            mercure: Mercure::new(config)?,
            audience: config.token_audience.clone(),
            max_ttl: config.max_token_ttl,
            revocations: Arc::new(Revocations::new(config.max_revocations)),
        })
    }

    /// Whether there is any key: without one, what looks like a token is the application's own business.
    pub fn is_on(&self) -> bool {
        !self.ring.keys().is_empty()
    }

    /// What was taken back.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Proves a token.
    pub fn check(&self, token: &str) -> Result<Grant, BadToken> {
        let grant = self.prove(token, true)?;
        if self.revocations.is_revoked(&grant) {
            return Err(BadToken::Revoked);
        }
        Ok(grant)
    }

    /// Proves the token of a subscriber of the Mercure protocol.
    pub fn check_mercure(&self, token: &str) -> Result<Grant, BadToken> {
        let grant = self.mercure.prove(token, true)?;
        if self.revocations.is_revoked(&grant) {
            return Err(BadToken::Revoked);
        }
        Ok(grant)
    }

    /// Proves the token of a publisher of the Mercure protocol.
    pub fn check_mercure_publisher(&self, token: &str) -> Result<Publisher, BadToken> {
        self.mercure.publisher(token)
    }

    /// Takes a token back, also one that has expired or was revoked already; says what that adds to the lists. `Err` when it
    /// is none of ours.
    pub fn revoke_token(&self, token: &str) -> Result<(Grant, Result<Lists, Full>), BadToken> {
        let grant = match self.prove(token, false) {
            Err(bad) => self.mercure.prove(token, false).map_err(|_| bad)?,
            Ok(grant) => grant,
        };
        let revoked = self
            .revocations
            .revoke_token(grant.fingerprint, grant.expires);
        Ok((grant, revoked))
    }

    /// Takes back all tokens that `user` has got up to now; also those that seem to be from the next seconds, unless they are
    /// from this machine's own clock (see [`Grant::may_be_from`]).
    pub fn revoke_user(&self, user: &str) -> Result<Lists, Full> {
        let now = Stamp::now();
        let last = match self.mercure.has_subscribers() {
            true => Stamp::NEVER,
            // What was issued now by a clock that is ahead, and may live as long as is allowed.
            false => now.after(SKEW + self.max_ttl + SKEW),
        };
        self.revocations.revoke_user(user, now, last)
    }

    /// Forgets what has expired, and reads the keys again if their file has changed. Once a second or so.
    pub fn keep_house(&self) {
        self.revocations.expire(Stamp::now());
        self.ring.look_again();
        self.mercure.look_again();
    }

    /// Checks everything but revocations. Not `in_time`: also what has expired, which is good enough to take it back.
    fn prove(&self, token: &str, in_time: bool) -> Result<Grant, BadToken> {
        let validation = |algorithm| self.validation(algorithm, in_time);
        let claims = verify(&self.ring.keys(), token, validation)?;
        self.grant(token, claims, in_time)
    }

    fn validation(&self, algorithm: Algorithm, in_time: bool) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_exp = in_time;
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&["exp", "aud"]);
        }
        validation
    }

    fn grant(&self, token: &str, claims: Claims, in_time: bool) -> Result<Grant, BadToken> {
        if self.audience.is_none() && claims.has_audience() {
            return Err(BadToken::Audience);
        }
        let soon = Stamp::now().after(SKEW);
        if in_time && (claims.begins() > soon || claims.issued() > soon) {
            return Err(BadToken::NotYet);
        }
        let grant = claims
            .grant(fingerprint(token)?)
            .map_err(BadToken::Claims)?;
        // To the fraction of a second, which the library rounds away.
        if in_time && grant.expires <= Stamp::now() {
            return Err(BadToken::Expired);
        }
        if grant.expires > grant.issued.after(self.max_ttl + SKEW) {
            return Err(BadToken::TooLongLived);
        }
        Ok(grant)
    }
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn is_same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The claims of a token that one of `keys` has signed, and that is valid for its algorithm.
fn verify<T: DeserializeOwned>(
    keys: &Keys,
    token: &str,
    validation: impl Fn(Algorithm) -> Validation,
) -> Result<T, BadToken> {
    if keys.is_empty() {
        return Err(BadToken::NotUsed);
    }
    if token.len() > TOKEN_MAX {
        return Err(BadToken::TooLong(token.len()));
    }
    if token.split('.').count() != 3 {
        return Err(BadToken::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        // An algorithm that the library does not know, "none" among them.
        ErrorKind::Json(error) if error.is_data() => BadToken::Algorithm,
        _ => BadToken::Malformed,
    })?;
    // RFC 7515, section 4.1.11: whoever does not know what is critical must refuse.
    if header.crit.is_some() {
        return Err(BadToken::Algorithm);
    }
    let validation = validation(header.alg);
    let mut verdict = BadToken::Algorithm;
    for key in keys.candidates(header.alg, header.kid.as_deref()) {
        match jsonwebtoken::decode(token, key, &validation) {
            Ok(data) => return Ok(data.claims),
            Err(error) => verdict = bad(error.kind()),
        }
        // Another key may be the right one; all else would be the same with each.
        if verdict != BadToken::Signature {
            break;
        }
    }
    Err(verdict)
}

/// By what a revoked token is known again. Of what is signed alone: one text may have several valid signatures (ECDSA).
fn fingerprint(token: &str) -> Result<[u8; 16], BadToken> {
    let (signed, _) = token.rsplit_once('.').ok_or(BadToken::Malformed)?;
    let hash = digest(&SHA256, signed.as_bytes());
    let start = hash.as_ref()[..16].try_into();
    Ok(start.expect("a SHA-256 has 32 bytes"))
}

fn bad(error: &ErrorKind) -> BadToken {
    match error {
        ErrorKind::ExpiredSignature => BadToken::Expired,
        ErrorKind::InvalidAudience => BadToken::Audience,
        ErrorKind::MissingRequiredClaim(name) if name == "aud" => BadToken::Audience,
        ErrorKind::MissingRequiredClaim(name) => BadToken::Claims(format!("\"{name}\" is missing")),
        ErrorKind::InvalidClaimFormat(name) => {
            BadToken::Claims(format!("\"{name}\" is not a time"))
        }
        ErrorKind::Json(error) => BadToken::Claims(words(error)),
        ErrorKind::InvalidAlgorithm => BadToken::Algorithm,
        ErrorKind::InvalidToken | ErrorKind::Utf8(_) => BadToken::Malformed,
        // Also base64 that is none in the signature, and a key of another kind than its algorithm's.
        _ => BadToken::Signature,
    }
}

/// What is wrong with claims, without the column in which that is: nobody sees the text of a token.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Seconds since 1970, for times in tokens.
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
