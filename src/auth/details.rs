//! What a token of Mercure 1.0 says: an OAuth access token (RFC 9068) with authorization details (RFC 9396).
//!
//! One detail that makes no sense makes the whole token void, as its specification wants. Imports `selector`.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::BadToken;
use crate::selector::{Base, Selector};

/// The type of the details that are about Mercure.
const TYPE: &str = "https://mercure.rocks/authorization-detail";

/// What a detail that is about Mercure allows.
#[derive(Debug)]
pub struct Detail {
    /// On which topics.
    pub topics: Vec<Selector>,
    /// Whether to publish.
    pub publish: bool,
    /// Whether to subscribe.
    pub subscribe: bool,
    /// What others may know of its subscribers, as JSON.
    pub payload: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Claim {
    actions: Vec<String>,
    topics: Vec<Matcher>,
    payload: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Matcher {
    r#match: String,
    match_type: Option<String>,
}

/// Reads the claim `authorization_details`. `most` matchers are allowed in all.
pub fn read(details: Vec<Value>, base: &Base, most: usize) -> Result<Vec<Detail>, BadToken> {
    let wrong = |what: String| BadToken::Claims(format!("\"authorization_details\" {what}"));
    let mut known = Vec::new();
    let mut matchers = 0;
    for detail in details {
        if detail.get("type").and_then(Value::as_str) != Some(TYPE) {
            continue;
        }
        // Through text, since a payload is kept as it is.
        let claim: Claim = serde_json::from_str(&detail.to_string())
            .map_err(|error| wrong(format!("has one that is not valid: {error}")))?;
        if claim.actions.is_empty() || claim.topics.is_empty() {
            return Err(wrong("must have actions and topics".to_owned()));
        }
        let payload = claim.payload.map(|json| json.get().to_owned());
        if payload.as_ref().is_some_and(|json| !json.starts_with('{')) {
            return Err(wrong("must have an object as payload".to_owned()));
        }
        matchers += claim.topics.len();
        if matchers > most {
            return Err(wrong(format!("has over {most} topic matchers")));
        }
        let topics = claim.topics.iter().map(|matcher| selector(matcher, base));
        known.push(Detail {
            topics: topics.collect::<Result<_, _>>().map_err(wrong)?,
            publish: claim.actions.iter().any(|action| action == "publish"),
            subscribe: claim.actions.iter().any(|action| action == "subscribe"),
            payload: payload.map(Into::into),
        });
    }
    Ok(known)
}

fn selector(matcher: &Matcher, base: &Base) -> Result<Selector, String> {
    let text = &matcher.r#match;
    let selector = match matcher.match_type.as_deref() {
        None | Some("exact") => Selector::exact(text),
        Some("urlpattern") => Selector::url(text, base),
        Some(other) => return Err(format!("has the match_type {other:?}, which is not known")),
    };
    selector.map_err(|error| format!("each \"match\" must {error}"))
}
