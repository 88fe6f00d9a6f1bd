//! Tokens of the Mercure protocol: a `mercure` claim with topic selectors, proven with keys of their own, one for
//! publishers and one for subscribers; since version 1.0 access tokens with [`details`].
//!
//! A subscriber's becomes a [`Grant`], so that it expires and is revoked as any other. Imports `selector` and `config`.

use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::details::{self, Detail};
use super::grant::{Grant, Stamp, is_user};
use super::keys::{KeysError, Ring};
use super::{BadToken, SKEW, fingerprint, verify};
use crate::config::Config;
use crate::selector::{Base, Selector};

/// Selectors in one claim. Each is tried for a private update, for each subscriber.
const SELECTORS_MAX: usize = 200;

/// Who may sign them.
#[derive(Debug)]
pub struct Mercure {
    publishers: Ring,
    subscribers: Ring,
    /// `None` for tokens of versions 0.x.
    one: Option<One>,
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
    // Since version 1.0.
    iss: Option<String>,
    aud: Option<Audience>,
    authorization_details: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "\"aud\" must be a text or a list of them")]
enum Audience {
    One(String),
    List(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
struct Rights {
    publish: Option<Vec<String>>,
    subscribe: Option<Vec<String>>,
    payload: Option<Box<RawValue>>,
}

/// What tokens of version 1.0 are held to.
#[derive(Debug)]
struct One {
    /// `aud`
    audience: String,
    /// `iss`
    issuer: String,
    base: Base,
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
            one: config.mercure_base().map(|base| One {
                audience: config.mercure_url.clone().unwrap_or_default(),
                issuer: config.mercure_issuer.clone().unwrap_or_default(),
                base,
            }),
        })
    }

    /// Whether there are keys for subscribers, whose tokens may live as long as their issuers like.
    pub fn has_subscribers(&self) -> bool {
        !self.subscribers.keys().is_empty()
    }

    /// Reads the keys again if their files have changed.
    pub fn look_again(&self) {
        self.publishers.look_again();
        self.subscribers.look_again();
    }

    /// Proves a subscriber's token. Not `in_time`: also what has expired.
    pub fn prove(&self, token: &str, in_time: bool) -> Result<Grant, BadToken> {
        let mut claims = self.claims(&self.subscribers, token, in_time)?;
        let user = match claims.sub.take() {
            Some(Value::String(name)) if is_user(&name) => Some(name.into()),
            Some(Value::Number(number)) => Some(number.to_string().into()),
            _ => None,
        };
        let mut grant = Grant {
            user,
            channels: Vec::new(),
            selectors: Vec::new(),
            payloads: Box::default(),
            publish: Vec::new(),
            info: None,
            own_clock: false,
            issued: claims.iat.map(Stamp::from_seconds).unwrap_or_default(),
            expires: claims.exp.map_or(Stamp::NEVER, Stamp::from_seconds),
            fingerprint: fingerprint(token)?,
        };
        if let Some(one) = &self.one {
            let details = claims.details(one)?;
            let details: Vec<_> = details.into_iter().filter(|its| its.subscribe).collect();
            let topics = details.iter().flat_map(|detail| &detail.topics);
            grant.selectors = topics.cloned().collect();
            let payload = |detail: Detail| Some((detail.topics, detail.payload?));
            grant.payloads = details.into_iter().filter_map(payload).collect();
        } else {
            let rights = claims.namespaced.or(claims.mercure).unwrap_or_default();
            grant.selectors = selectors("subscribe", rights.subscribe.unwrap_or_default())?;
            grant.info = rights.payload.map(|json| json.get().into());
        }
        Ok(grant)
    }

    /// Proves a publisher's token.
    pub fn publisher(&self, token: &str) -> Result<Publisher, BadToken> {
        let claims = self.claims(&self.publishers, token, true)?;
        if let Some(one) = &self.one {
            let details = claims.details(one)?;
            let details = details.into_iter().filter(|its| its.publish);
            return Ok(Publisher(details.flat_map(|its| its.topics).collect()));
        }
        let rights = claims.namespaced.or(claims.mercure).unwrap_or_default();
        selectors("publish", rights.publish.unwrap_or_default()).map(Publisher)
    }

    fn claims(&self, ring: &Ring, token: &str, in_time: bool) -> Result<Claims, BadToken> {
        let claims = claims(ring, token, in_time)?;
        if let Some(one) = &self.one {
            claims.check(token, one)?;
        }
        Ok(claims)
    }
}

impl Claims {
    /// Whether it is an access token, for this hub.
    fn check(&self, token: &str, one: &One) -> Result<(), BadToken> {
        let wrong = |what: &str| Err(BadToken::Claims(what.to_owned()));
        let header = jsonwebtoken::decode_header(token).map_err(|_| BadToken::Malformed)?;
        let kind = header.typ.unwrap_or_default().to_ascii_lowercase();
        if kind.strip_prefix("application/").unwrap_or(&kind) != "at+jwt" {
            return wrong("the header's \"typ\" must be \"at+jwt\"");
        }
        if self.exp.is_none() {
            return wrong("\"exp\" is missing");
        }
        if self.iss.as_ref() != Some(&one.issuer) {
            return wrong("\"iss\" must be realtime.mercure_issuer");
        }
        let is_ours = match &self.aud {
            Some(Audience::One(its)) => *its == one.audience,
            Some(Audience::List(list)) => list.contains(&one.audience),
            None => false,
        };
        match is_ours {
            true => Ok(()),
            false => wrong("\"aud\" must be realtime.mercure_url"),
        }
    }

    fn details(self, one: &One) -> Result<Vec<Detail>, BadToken> {
        let details = self.authorization_details.unwrap_or_default();
        details::read(details, &one.base, SELECTORS_MAX)
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
