//! `rt_token()`: claims become a signed token. Runs in any PHP process; the server is not asked.
//!
//! Imports `config`.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use super::grant::{Claims, Stamp};
use super::{TOKEN_MAX, clock};
use crate::config::Config;

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The operator's to mend.
    #[error(
        "there is no secret to sign tokens with: set realtime.secret to at least 32 random bytes, the same for the \
         server and for every PHP process (`openssl rand -hex 32` makes one)"
    )]
    NoSecret,
    /// The PHP programmer's: completes "must ...".
    #[error("{0}")]
    Claims(String),
    /// The PHP programmer's: completes "must ...".
    #[error("be 1 to {0} (realtime.max_token_ttl), {1} given")]
    Ttl(u64, i64),
}

/// Signs `claims`, a JSON object, for `ttl` seconds from now on.
pub fn sign(config: &Config, claims: &[u8], ttl: i64) -> Result<String, NotSigned> {
    let secret = config.secret.first().ok_or(NotSigned::NoSecret)?;
    let longest = config.max_token_ttl.as_secs();
    let seconds = u64::try_from(ttl)
        .ok()
        .filter(|seconds| (1..=longest).contains(seconds))
        .ok_or(NotSigned::Ttl(longest, ttl))?;
    let mut claims: Map<String, Value> = match claims {
        // An empty PHP array is a list.
        b"[]" => Map::new(),
        claims => serde_json::from_slice(claims)
            .map_err(|_| NotSigned::Claims("be an array of claims by name".to_owned()))?,
    };
    let taken = ["exp", "iat", "aud", clock::CLAIM]
        .into_iter()
        .find(|name| claims.contains_key(*name));
    if let Some(name) = taken {
        let text = if name == clock::CLAIM {
            format!("not have \"{name}\", which is realtime's own")
        } else {
            format!("not have \"{name}\": $ttl and realtime.token_audience say it")
        };
        return Err(NotSigned::Claims(text));
    }
    // A fraction of a second, so that a token made right after rt_revoke() is told from those before.
    let now = Stamp::now();
    claims.insert("iat".to_owned(), now.seconds().into());
    claims.insert(
        "exp".to_owned(),
        now.after(Duration::from_secs(seconds)).seconds().into(),
    );
    // So that the server knows that its own clock has said that.
    if let Some(clock) = clock::ours() {
        claims.insert(clock::CLAIM.to_owned(), clock.into());
    }
    if let Some(audience) = &config.token_audience {
        claims.insert("aud".to_owned(), audience.as_str().into());
    }
    check(&claims)?;
    let header = Header::new(Algorithm::HS256);
    let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
        .map_err(|error| NotSigned::Claims(format!("be claims that can be signed: {error}")))?;
    if token.len() > TOKEN_MAX {
        let text = format!(
            "make a token of at most {TOKEN_MAX} bytes, {} are too many",
            token.len()
        );
        return Err(NotSigned::Claims(text));
    }
    Ok(token)
}

/// What the server would refuse is refused here, where somebody sees it.
fn check(claims: &Map<String, Value>) -> Result<(), NotSigned> {
    let text = serde_json::to_vec(claims).expect("a map of JSON values always serializes");
    let refused = |why: String| NotSigned::Claims(format!("be valid claims: {why}"));
    let claims: Claims =
        serde_json::from_slice(&text).map_err(|error| refused(super::words(&error)))?;
    claims.grant([0; 16]).map(drop).map_err(refused)
}
