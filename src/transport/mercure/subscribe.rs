//! `GET /.well-known/mercure?topic=…`: a stream of updates.
//!
//! Imports `mercure`.

use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::super::body::Body;
use super::super::http::Takeover;
use super::super::response::Refusal;
use super::super::routes::{self, Requests};
use super::super::stream::{Begin, Stream};
use super::token;
use crate::auth::Grant;
use crate::config::Config;
use crate::mercure::{MatchType, Subscription, Topics};
use crate::message::Transport;
use crate::node::Node;
use crate::session::Denied;
use crate::wire::Format;

/// Nobody may keep it, and the URL may have a token in it.
const CACHE: &str = "private, no-cache, no-store, no-transform";

/// Answers a subscriber.
pub async fn answer(requests: &Requests, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let (topics, since) = wanted(parts, requests.shared.node.config())?;
    if parts.method == Method::HEAD {
        grant(&requests.shared.node, parts)?;
        return Ok(routes::endless_head(
            Body::Full(None),
            "text/event-stream",
            CACHE,
        ));
    }
    let admitted = routes::admit_by(requests, Transport::Sse, parts, grant).await?;
    let node = &requests.shared.node;
    check_patterns(requests, &topics)?;
    let asked = Subscription::ask(node, admitted.info(), topics, since.as_deref()).await;
    let (subscription, preceding) =
        asked.map_err(|(denied, channel)| Refusal::from(denied).about(channel.as_str()))?;
    *requests.taken.borrow_mut() = Some(Takeover::Stream(Stream {
        admitted,
        format: Format::mercure(routes::framing(parts)),
        begin: Begin::Mercure(subscription),
    }));
    let body = Body::Endless(requests.asked.clone());
    let mut response = routes::endless_head(body, "text/event-stream", CACHE);
    if let Some(id) = preceding {
        // What the client sent in its query may be what no header can carry.
        if let Ok(id) = HeaderValue::from_str(&id) {
            let name = match node.config().mercure_version {
                1 => "mercure-last-event-id",
                _ => "last-event-id",
            };
            response.headers_mut().insert(name, id);
        }
    }
    Ok(response)
}

/// What the subscriber's token grants; `None` for one without, where these are let in.
pub fn grant(node: &Node, parts: &Parts) -> Result<Option<Grant>, Refusal> {
    let config = node.config();
    if !config.mercure_subscriber_key.is_set() {
        return match config.mercure_anonymous {
            true => Ok(None),
            false => Err(token::unauthorized(
                "nobody can subscribe: neither realtime.mercure_subscriber_key nor realtime.mercure_anonymous is set",
            )),
        };
    }
    match token::find(parts, config)? {
        Some(token) => Ok(Some(node.auth().check_mercure(&token)?)),
        None if config.mercure_anonymous => Ok(None),
        None => Err(token::unauthorized("a token is needed here")),
    }
}

/// The topics, and after which update.
fn wanted(parts: &Parts, config: &Config) -> Result<(Topics, Option<String>), Refusal> {
    let base = config.mercure_base();
    let is_one = base.is_some();
    let mut topics = Topics::default();
    let mut since = None;
    let query = parts.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "last_event_id" if is_one => since = Some(value.into_owned()),
            // The second is how it was called before version 8 of the specification.
            "lastEventID" | "Last-Event-ID" if !is_one => since = Some(value.into_owned()),
            _ => {
                let unknown = |unknown| {
                    let message = format!("{name:?} is {unknown}");
                    Refusal::bad("bad_channel", message)
                };
                let Some(kind) = MatchType::of(&name, is_one).map_err(unknown)? else {
                    continue;
                };
                topics.add(&value, kind, base.as_ref()).map_err(|error| {
                    Refusal::bad("bad_channel", format!("the topic must {error}")).about(&value)
                })?;
                if topics.len() > config.max_subscriptions {
                    return Err(Denied::TooManySubscriptions.into());
                }
            }
        }
    }
    if topics.is_empty() {
        let message = match is_one {
            true => "name a topic: ?match=… or ?match_urlpattern=…",
            false => "name a topic: ?topic=…",
        };
        return Err(Refusal::bad("bad_channel", message));
    }
    let header = parts.headers.get("last-event-id");
    if let Some(id) = header.and_then(|id| id.to_str().ok()) {
        since = Some(id.to_owned());
    }
    Ok((topics, since.filter(|since| !since.is_empty())))
}

fn check_patterns(requests: &Requests, topics: &Topics) -> Result<(), Refusal> {
    let limit = requests.shared.node.config().max_patterns;
    let patterns = topics.patterns();
    if patterns.is_empty() || requests.shared.hub.borrow().patterns_with(patterns) <= limit {
        return Ok(());
    }
    tracing::warn!(
        "clients follow {limit} different patterns, more are refused: raise realtime.max_patterns"
    );
    Err(Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_subscriptions",
        "the server follows all the patterns that it takes",
    ))
}
