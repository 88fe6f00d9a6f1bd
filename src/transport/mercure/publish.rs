//! `POST /.well-known/mercure`: a publisher's update.
//!
//! Imports `mercure`, `node` and `wire`.

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
use crate::mercure::{self, Wrong};
use crate::message::Terms;
use crate::node::{Failure, Node};
use crate::session::Denied;
use crate::wire::mercure::Update;

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
    let base = node.config().mercure_base();
    let publish = mercure::publish(update, base.as_ref(), |topic| publisher.publishes(topic))
        .map_err(|wrong| refusal(wrong, base.is_some()))?;
    let is_named = publish.id.is_some();
    let id = node.publish_async(publish).await?;
    let id = mercure::public_id(id, is_named);
    Ok(response::full(StatusCode::OK, "text/plain", id.into()))
}

fn publisher(node: &Node, parts: &Parts) -> Result<Publisher, Refusal> {
    if !node.config().mercure_publisher_key.is_set() {
        let message = "nobody can publish: realtime.mercure_publisher_key is not set";
        return Err(token::unauthorized(message));
    }
    let token = token::find(parts, node.config())?;
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

fn refusal(wrong: Wrong, is_one: bool) -> Refusal {
    let bad = |what: &str, error| Refusal::bad("bad_form", format!("{what} must {error}"));
    let forbidden = |topic: &str, message| {
        Refusal::new(StatusCode::FORBIDDEN, "forbidden", message).about(topic)
    };
    match wrong {
        Wrong::Topic(topic, error) => bad("the topic", error).about(&topic),
        Wrong::Reserved(topic) => {
            let message = "topics of the hub are its own to publish to";
            // Whatever its token says: since version 1.0 a mistake, and not a question of rights.
            match is_one {
                true => Refusal::bad("bad_form", message).about(&topic),
                false => forbidden(&topic, message),
            }
        }
        Wrong::Forbidden(topic) => {
            let message = match is_one {
                true => "the token does not grant \"publish\" on this topic",
                false => "the token's \"mercure.publish\" does not cover this topic",
            };
            forbidden(&topic, message)
        }
        Wrong::Id(error) => bad("\"id\"", error),
        Wrong::IdReserved => {
            let message = "\"id\" must not begin with # or be \"earliest\"";
            Refusal::bad("bad_form", message)
        }
        Wrong::Type(error) => bad("\"type\"", error),
        Wrong::TypeReserved => {
            Refusal::bad("bad_form", "\"type\" must not be the hub's own \"mercure\"")
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let denied = match &failure {
            Failure::TooLarge { .. } => Denied::TooLarge,
            Failure::Busy => Denied::Busy,
            Failure::Unstored(_) => Denied::NotStored,
            Failure::Invalid(_) => return Self::bad("bad_form", failure.to_string()),
            Failure::Stopped | Failure::Refused(_) | Failure::Link(_) => Denied::Gone,
        };
        Self {
            message: failure.to_string(),
            ..denied.into()
        }
    }
}
