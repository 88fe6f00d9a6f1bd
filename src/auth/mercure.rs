//! Tokens of the Mercure protocol: a `mercure` claim with topic selectors, proven with keys of their own, one for
//! publishers and one for subscribers.
//!
//! A subscriber's becomes a [`Grant`], so that it expires and is revoked as any other. Imports `selector` and `config`.

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::grant::{Grant, Stamp, is_user};
use super::keys::{KeysError, Ring};
use super::{BadToken, SKEW, fingerprint, verify};
use crate::config::Config;
use crate::selector::Selector;

/// Selectors in one claim. Each is tried for a private update, for each subscriber.
const SELECTORS_MAX: usize = 200;

/// Who may sign them.
#[derive(Debug)]
pub struct Mercure {
    publishers: Ring,
    subscribers: Ring,
}

/// What a publisher's token allows.
#[derive(Debug)]
pub struct Publisher(Vec<Selector>);

impl Publisher {
    /// Whether it may publish to `topic`.
    pub fn publishes(&self, topic: &str) -> bool {
        self.0.iter().any(|selector| selector.matches(topic))
    }
}

#[derive(Debug, Deserialize)]
struct Claims {
    // Not the whole token's business: Mercure does not look at it, and PHP is shown it where it can be a user.
    sub: Option<Value>,
    exp: Option<f64>,
    iat: Option<f64>,
    mercure: Option<Rights>,
    #[serde(rename = "https://mercure.rocks/")]
    namespaced: Option<Rights>,
}

#[derive(Debug, Default, Deserialize)]
struct Rights {
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
    payload: Option<Box<RawValue>>,
}

impl Mercure {
    /// Reads the keys that `config` names.
    pub fn new(config: &Config) -> Result<Self, KeysError> {
        Ok(Self {
            publishers: Ring::of(
                "realtime.mercure_publisher_key",
                &config.mercure_publisher_key,
            )?,
            subscribers: Ring::of(
                "realtime.mercure_subscriber_key",
                &config.mercure_subscriber_key,
            )?,
        })
    }

    /// Reads the keys again if their files have changed.
    pub fn look_again(&self) {
        self.publishers.look_again();
        self.subscribers.look_again();
    }

    /// Proves a subscriber's token. Not `in_time`: also what has expired.
    pub fn prove(&self, token: &str, in_time: bool) -> Result<Grant, BadToken> {
        let claims = claims(&self.subscribers, token, in_time)?;
        let rights = claims.namespaced.or(claims.mercure).unwrap_or_default();
        let user = match claims.sub {
            Some(Value::String(name)) if is_user(&name) => Some(name.into()),
            Some(Value::Number(number)) => Some(number.to_string().into()),
            _ => None,
        };
        Ok(Grant {
            user,
            channels: Vec::new(),
            selectors: selectors("subscribe", rights.subscribe.unwrap_or_default())?,
            publish: Vec::new(),
            info: rights.payload.map(|json| json.get().into()),
            issued: claims.iat.map(Stamp::from_seconds).unwrap_or_default(),
            expires: claims.exp.map_or(Stamp::NEVER, Stamp::from_seconds),
            fingerprint: fingerprint(token)?,
        })
    }

    /// Proves a publisher's token.
    pub fn publisher(&self, token: &str) -> Result<Publisher, BadToken> {
        let claims = claims(&self.publishers, token, true)?;
        let rights = claims.namespaced.or(claims.mercure).unwrap_or_default();
        selectors("publish", rights.publish.unwrap_or_default()).map(Publisher)
    }
}

fn claims(ring: &Ring, token: &str, in_time: bool) -> Result<Claims, BadToken> {
    let validation = |algorithm: Algorithm| {
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.required_spec_claims.clear();
        validation.validate_exp = in_time;
        validation.validate_nbf = in_time;
        // Whom it is for, only its topics say.
        validation.validate_aud = false;
        if in_time {
            validation.leeway = SKEW.as_secs();
        }
        validation
    };
    let claims: Claims = verify(&ring.keys(), token, validation)?;
    // The leeway is for what begins in the future alone.
    let over = |exp| Stamp::from_seconds(exp) <= Stamp::now();
    if in_time && claims.exp.is_some_and(over) {
        return Err(BadToken::Expired);
    }
    Ok(claims)
}

fn selectors(claim: &str, texts: Vec<String>) -> Result<Vec<Selector>, BadToken> {
    if texts.len() > SELECTORS_MAX {
        let text = format!("\"mercure.{claim}\" has over {SELECTORS_MAX} topic selectors");
        return Err(BadToken::Claims(text));
    }
    let selector = |text: &String| {
        Selector::parse(text)
            .map_err(|error| BadToken::Claims(format!("each of \"mercure.{claim}\" must {error}")))
    };
    texts.iter().map(selector).collect()
}
