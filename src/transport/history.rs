//! `/history` and `/presence`: what may be known of a channel without being subscribed to it, by whoever may subscribe.
//!
//! Imports `session` and `node`.

use std::sync::Arc;

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::Body;
use super::request::Query;
use super::response::{self, Refusal};
use super::routes::{self, Requests};
use crate::broker::Walk;
use crate::ids::Channel;
use crate::message::{ConnectionInfo, Transport};
use crate::wire::{Outgoing, envelope};

/// Messages in an answer when the request does not say how many, and the most that it may say.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

#[derive(Serialize)]
struct Page {
    messages: Vec<Box<RawValue>>,
    /// Whether there are more that way.
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
}

/// Answers with a page of a channel's history.
pub async fn answer(requests: &Requests, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(parts)?;
    let limit = limit(query.limit.as_deref())?;
    let walk = match (&query.since, &query.before) {
        (Some(_), Some(_)) => {
            let message = "either since or before";
            return Err(Refusal::bad("bad_limit", message));
        }
        (None, Some(before)) => Walk::Before(before),
        (since, None) => since.as_deref().into(),
    };
    let (channel, client) = allowed(requests, parts, &query).await?;
    let node = &requests.shared.node;
    let page = node.history_for(&client, &channel, limit, walk);
    let backwards = !matches!(walk, Walk::After(_));
    let mut bytes = 0;
    let mut more = page.more;
    let mut messages = Vec::with_capacity(page.entries.len());
    let mut entries: Vec<_> = page.entries.iter().collect();
    if backwards {
        // What does not fit is the end of the page, which is its oldest.
        entries.reverse();
    }
    for entry in entries {
        let object = envelope::message(&Outgoing {
            channel: Some(channel.as_str()),
            id: Some(&entry.id),
            cursor: None,
            event: &entry.event,
            payload: &entry.payload,
            retry: None,
        });
        bytes += object.len();
        if bytes > node.config().max_backlog && !messages.is_empty() {
            more = true;
            break;
        }
        messages.extend(serde_json::from_slice::<Box<RawValue>>(&object));
    }
    if backwards {
        messages.reverse();
    }
    json(&Page {
        messages,
        more,
        recovered: (!matches!(walk, Walk::Newest)).then_some(page.recovered),
        oldest: page.oldest.filter(|_| !page.recovered),
    })
}

/// Answers with the members of a presence channel.
pub async fn presence(requests: &Requests, parts: &Parts) -> Result<Response<Body>, Refusal> {
    #[derive(Serialize)]
    struct Members<'a> {
        members: Vec<envelope::Attendee<'a>>,
    }

    let query = Query::parse(parts)?;
    let (channel, _) = allowed(requests, parts, &query).await?;
    let attendance = requests.shared.node.attendance();
    json(&Members {
        members: attendance.list(channel.as_str()),
    })
}

/// The one channel of the query, if the client may subscribe to it, and that client.
async fn allowed(
    requests: &Requests,
    parts: &Parts,
    query: &Query,
) -> Result<(Channel, Arc<ConnectionInfo>), Refusal> {
    let [channel] = &query.channels[..] else {
        return Err(Refusal::bad("bad_channel", "name one channel: ?channel=…"));
    };
    // A client for as long as this takes.
    let mut admitted = routes::admit(requests, Transport::Http, parts).await?;
    admitted.ends(1000, "");
    routes::authorize_all(requests, admitted.info(), query).await?;
    Ok((channel.clone(), admitted.info().clone()))
}

fn json(answer: &impl Serialize) -> Result<Response<Body>, Refusal> {
    let body = serde_json::to_vec(answer).expect("strings and ready-made JSON always serialize");
    Ok(response::json(StatusCode::OK, body.into()))
}

fn limit(text: Option<&str>) -> Result<usize, Refusal> {
    let Some(text) = text else { return Ok(LIMIT) };
    text.parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| Refusal::bad("bad_limit", format!("limit must be 1 to {LIMIT_MAX}")))
}
