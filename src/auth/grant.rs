//! What a token says: its claims as they stand in it, and the [`Grant`] that is made of them.
//!
//! Imports `ids`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{SKEW, clock, since_epoch};
use crate::ids::Pattern;
use crate::selector::Selector;

/// The longest user, in bytes.
pub const USER_MAX: usize = 200;

/// A moment: microseconds since 1970. Tokens are about the time of day, not about how long a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// Now.
    pub fn now() -> Self {
        Self(since_epoch().as_micros() as u64)
    }

    /// Of a number of seconds, as tokens have it. Times before 1970 are 1970.
    pub fn from_seconds(seconds: f64) -> Self {
        // Saturates at both ends.
        Self((seconds * 1e6) as u64)
    }

    /// Later than anything.
    pub const NEVER: Self = Self(u64::MAX);

    /// As a number of seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Later by `time`.
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_micros() as u64))
    }

    /// How long it is until then; nothing when it has passed.
    pub fn left(self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(Self::now().0))
    }
}

/// What a proven token allows its connection.
///
/// One hub tells another of it when a client of the one comes to the other; without what only subscribers need.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// `sub`: who it is.
    pub user: Option<Box<str>>,
    /// `channels`: those that are open to it without asking.
    pub channels: Vec<Pattern>,
    /// `mercure.subscribe` of a Mercure token: the same, as topic selectors.
    #[serde(skip)]
    pub selectors: Vec<Selector>,
    /// `publish`: those to which it may publish past PHP.
    pub publish: Vec<Pattern>,
    /// Of a Mercure token of version 1.0: what others may know of its subscriptions to these topics, as JSON.
    #[serde(skip)]
    pub payloads: Box<[(Vec<Selector>, Box<str>)]>,
    /// `info`: what others may know of it, as JSON.
    pub info: Option<Box<str>>,
    /// `iat`: since when.
    pub issued: Stamp,
    /// Whether that is a time of this machine's clock.
    pub own_clock: bool,
    /// `exp`: until when.
    pub expires: Stamp,
    /// By what the token is known again.
    pub fingerprint: [u8; 16],
}

impl Grant {
    /// Whether its token opens `channel`.
    pub fn opens(&self, channel: &str) -> bool {
        self.channels.iter().any(|pattern| pattern.matches(channel))
            || self.selectors.iter().any(|its| its.matches(channel))
    }

    /// Whether its token may have been made at `moment`, or before: the clock of who made it may be ahead.
    pub fn may_be_from(&self, moment: Stamp) -> bool {
        let ahead = if self.own_clock { Duration::ZERO } else { SKEW };
        self.issued <= moment.after(ahead)
    }

    /// What others may know of its subscription to the topics that `selector` stands for, as JSON.
    pub fn payload(&self, selector: &str) -> Option<&str> {
        let mut payloads = self.payloads.iter();
        let found = payloads.find(|(topics, _)| topics.iter().any(|its| its.matches(selector)));
        let own = found.map(|(_, payload)| &**payload);
        own.or(self.info.as_deref())
    }

    /// Whether its token lets it publish to `channel`.
    pub fn publishes(&self, channel: &str) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(channel))
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without what is somebody's own business.
        f.debug_struct("Grant")
            .field("channels", &self.channels)
            .field("publish", &self.publish)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The claims of a token. Others than these are its issuer's own business.
#[derive(Debug, Deserialize)]
pub struct Claims {
    sub: Option<Subject>,
    channels: Option<Names>,
    publish: Option<Names>,
    info: Option<Box<RawValue>>,
    exp: f64,
    iat: Option<f64>,
    nbf: Option<f64>,
    aud: Option<serde::de::IgnoredAny>,
    // Whatever another issuer means by it.
    rt_clock: Option<serde_json::Value>,
}

/// A user is text; PHP's programmers have numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "\"sub\" must be a string or an integer")]
enum Subject {
    Text(String),
    Number(i64),
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "\"channels\" and \"publish\" must be lists of patterns"
)]
enum Names {
    One(String),
    List(Vec<String>),
}

impl Claims {
    /// Whether there is an `aud`.
    pub fn has_audience(&self) -> bool {
        self.aud.is_some()
    }

    /// `nbf`, or long ago.
    pub fn begins(&self) -> Stamp {
        Stamp::from_seconds(self.nbf.unwrap_or_default())
    }

    /// `iat`, or long ago.
    pub fn issued(&self) -> Stamp {
        Stamp::from_seconds(self.iat.unwrap_or_default())
    }

    /// Checks them all. The error completes "the claims: ...".
    pub fn grant(self, fingerprint: [u8; 16]) -> Result<Grant, String> {
        if self.iat.is_none() {
            // Without it nobody could tell whether it came before rt_revoke() or after.
            return Err("\"iat\" is missing".to_owned());
        }
        let issued = self.issued();
        Ok(Grant {
            issued,
            // A time that is still to come is from before the clock was put back.
            own_clock: clock::ours().is_some_and(|ours| {
                self.rt_clock.is_some_and(|its| its == ours) && issued <= Stamp::now()
            }),
            expires: Stamp::from_seconds(self.exp),
            user: self.sub.map(user).transpose()?,
            channels: patterns("channels", self.channels)?,
            selectors: Vec::new(),
            payloads: Box::default(),
            publish: patterns("publish", self.publish)?,
            info: self.info.map(|json| json.get().into()),
            fingerprint,
        })
    }
}

/// Whether a user may be named so.
pub fn is_user(name: &str) -> bool {
    (1..=USER_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn user(subject: Subject) -> Result<Box<str>, String> {
    let name = match subject {
        Subject::Text(text) => text,
        Subject::Number(number) => number.to_string(),
    };
    if is_user(&name) {
        Ok(name.into())
    } else {
        Err(format!(
            "\"sub\" must be 1 to {USER_MAX} bytes without control characters"
        ))
    }
}

fn patterns(claim: &str, names: Option<Names>) -> Result<Vec<Pattern>, String> {
    let names = match names {
        None => return Ok(Vec::new()),
        Some(Names::One(name)) => vec![name],
        Some(Names::List(names)) => names,
    };
    let pattern = |name: &String| {
        Pattern::parse(name).map_err(|error| format!("each of \"{claim}\" must {error}"))
    };
    names.iter().map(pattern).collect()
}
