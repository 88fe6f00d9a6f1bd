//! The HTTP API for the servers of an application: signed requests that publish, look, and end connections.
//!
//! Called by the transport with a whole request; answers with JSON. Imports `pusher`'s signatures and `node`.

mod events;
mod look;

use std::sync::Arc;

use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::Pusher;
use super::auth::Signed;
use crate::hub::CLOSE_REVOKED;
use crate::ids::Channel;
use crate::node::{Failure, Node};

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path as it was sent.
    pub path: &'a str,
    /// Its query as it was sent.
    pub query: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// An answer that says what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// A word for it.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

impl Refused {
    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let (status, code) = match failure {
            Failure::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Failure::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            Failure::Invalid(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Failure::Stopped | Failure::Unstored(_) | Failure::Refused(_) | Failure::Link(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "gone")
            }
        };
        Self::new(status, code, failure.to_string())
    }
}

/// Answers a request whose path begins with `/apps/`.
pub async fn answer(
    node: &Arc<Node>,
    pusher: &Arc<Pusher>,
    request: &Request<'_>,
) -> Result<Value, Refused> {
    let decoded = percent_decode_str(request.path).decode_utf8_lossy();
    let mut segments = request.path.split('/').skip(2).map(decode);
    let id = segments.next().unwrap_or_default();
    let rest: Vec<String> = segments.collect();
    let app = pusher.apps.by_id(&id).ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no app with this id",
        )
    })?;
    let query: Vec<(String, String)> = form_urlencoded::parse(request.query.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let signed = Signed {
        method: request.method.as_str(),
        paths: &[request.path, &decoded],
        query: &query,
        body: request.body,
    };
    signed
        .check(app)
        .map_err(|bad| Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", bad.to_string()))?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let is_get = *request.method == Method::GET;
    let is_post = *request.method == Method::POST;
    match rest[..] {
        ["events"] if is_post => events::one(node, body(request)?).await,
        ["batch_events"] if is_post => events::batch(node, body(request)?).await,
        ["channels"] if is_get => look::channels(node, &query).await,
        ["channels", name] if is_get => look::channel(node, &channel(name)?, &query).await,
        ["channels", name, "users"] if is_get => look::users(node, &channel(name)?),
        ["users", user, "terminate_connections"] if is_post => terminate(node, user).await,
        ["events" | "batch_events"] | ["channels", ..] | ["users", _, "terminate_connections"] => {
            let message = "not a method of this path";
            Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "bad_method",
                message,
            ))
        }
        _ => {
            let message = "nothing here: see Pusher's HTTP API";
            Err(Refused::new(StatusCode::NOT_FOUND, "not_found", message))
        }
    }
}

async fn terminate(node: &Arc<Node>, user: &str) -> Result<Value, Refused> {
    let user = user.to_owned();
    let reason = "the application has ended this user's connections";
    apart(node, move |node| {
        node.disconnect(&user, CLOSE_REVOKED, reason)
    })
    .await?;
    Ok(json!({}))
}

/// Does what waits for other shards, on a thread that may wait.
async fn apart<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(&Node) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Refused> {
    let node = node.clone();
    match tokio::task::spawn_blocking(move || work(&node)).await {
        Ok(done) => Ok(done?),
        Err(error) => {
            tracing::error!(%error, "a request of the Pusher API has failed: a bug in realtime");
            let message = "the request has failed";
            Err(Refused::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                message,
            ))
        }
    }
}

fn body<'a, T: serde::Deserialize<'a>>(request: &Request<'a>) -> Result<T, Refused> {
    serde_json::from_slice(request.body)
        .map_err(|error| Refused::bad(format!("the body does not fit: {error}")))
}

fn channel(name: &str) -> Result<Channel, Refused> {
    Channel::parse(name).map_err(|error| Refused::bad(format!("the channel must {error}")))
}

fn decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
