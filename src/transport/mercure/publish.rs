//! `POST /.well-known/mercure`: a publisher's update.
//!
//! Imports `node` and `wire`.

use hyper::body::Incoming;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::super::body::Body;
use super::super::publish::read;
use super::super::response::{self, Refusal};
use super::super::routes::Requests;
use super::token;
use crate::auth::Publisher;
use crate::ids::{self, Channel, Position};
use crate::message::{EventName, Publish, Terms};
use crate::node::{Failure, Node};
use crate::session::Denied;
use crate::wire::mercure::{PATH, Update, payload, urn};

/// What a form may have beside the data: topics, an id, names.
const OVERHEAD: usize = 64 << 10;

/// Answers a publisher.
pub async fn answer(
    requests: &Requests,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let node = &requests.shared.node;
    let publisher = match publisher(node, parts) {
        Ok(publisher) => publisher,
        Err(refusal) => {
            requests.slow_down(1, 0).await;
            return Err(refusal);
        }
    };
    check_form(parts)?;
    // Each byte of the data may take three.
    let limit = 3 * node.config().max_message_size + OVERHEAD;
    let form = read(node, body, limit).await?;
    let most = node.config().max_subscriptions.min(Terms::TOPICS_MAX);
    let update = Update::parse(&form, most).map_err(|wrong| Refusal::bad("bad_form", wrong))?;
    let publish = check(update, &publisher)?;
    let is_named = publish.id.is_some();
    let id = node.publish_async(publish).await?;
    let id = match id.parse::<Position>() {
        Ok(position) if !is_named => urn(position),
        _ => id,
    };
    Ok(response::full(StatusCode::OK, "text/plain", id.into()))
}

fn publisher(node: &Node, parts: &Parts) -> Result<Publisher, Refusal> {
    if !node.config().mercure_publisher_key.is_set() {
        let message = "nobody can publish: realtime.mercure_publisher_key is not set";
        return Err(token::unauthorized(message));
    }
    let token = token::find(parts)?;
    let token = token.ok_or_else(|| token::unauthorized("a token is needed to publish"))?;
    Ok(node.auth().check_mercure_publisher(&token)?)
}

fn check_form(parts: &Parts) -> Result<(), Refusal> {
    let kind = parts.headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()?.split(';').next());
    let form = "application/x-www-form-urlencoded";
    if kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(form)) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "bad_form",
        format!("the body must be {form}"),
    ))
}

fn check(update: Update, publisher: &Publisher) -> Result<Publish, Refusal> {
    let bad = |what: &str, error: ids::InvalidId| {
        Refusal::bad("bad_form", format!("{what} must {error}"))
    };
    let mut channels: Vec<Channel> = Vec::with_capacity(update.topics.len());
    for topic in &update.topics {
        let forbidden =
            |message| Refusal::new(StatusCode::FORBIDDEN, "forbidden", message).about(topic);
        if topic.contains(PATH) {
            return Err(forbidden("topics of the hub are its own to publish to"));
        }
        if !publisher.publishes(topic) {
            let message = "the token's \"mercure.publish\" does not cover this topic";
            return Err(forbidden(message));
        }
        let channel =
            Channel::parse(topic).map_err(|error| bad("the topic", error).about(topic))?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    if let Some(id) = &update.id {
        ids::check_custom_id(id).map_err(|error| bad("\"id\"", error))?;
        if id.starts_with('#') {
            return Err(Refusal::bad("bad_form", "\"id\" must not begin with #"));
        }
    }
    if let Some(event) = &update.event {
        ids::check_event(event).map_err(|error| bad("\"type\"", error))?;
    }
    let several = channels.len() > 1;
    let terms = Terms {
        private: update.private,
        retry: update.retry,
        topics: if several {
            channels.clone().into()
        } else {
            Box::default()
        },
        first: 0,
    };
    Ok(Publish {
        terms: (several || update.private || update.retry.is_some()).then(|| Box::new(terms)),
        channels,
        payload: payload(update.data),
        event: update
            .event
            .map_or(EventName::Message, |name| EventName::new(&name)),
        except: None,
        id: update.id.map(Into::into),
        store: true,
    })
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let denied = match &failure {
            Failure::TooLarge { .. } => Denied::TooLarge,
            Failure::Busy => Denied::Busy,
            Failure::Unstored(_) => Denied::NotStored,
            Failure::Stopped | Failure::Refused(_) | Failure::Link(_) => Denied::Gone,
        };
        Self {
            message: failure.to_string(),
            ..denied.into()
        }
    }
}
