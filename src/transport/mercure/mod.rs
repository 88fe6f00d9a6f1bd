//! `/.well-known/mercure`: the Mercure protocol over HTTP (php/docs/mercure.md).
//!
//! Imports `mercure` and `wire`.

mod publish;
mod subscribe;
mod subscriptions;
mod token;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::body::Body;
use super::response::Refusal;
use super::routes::{self, Requests};
use crate::wire::mercure::PATH;

/// Whether the request is of this protocol: its path is, and the protocol is not off.
pub fn is_meant(requests: &Requests, parts: &Parts) -> bool {
    let rest = parts.uri.path().strip_prefix(PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && requests.shared.node.config().has_mercure()
}

/// Whether it is a publisher's.
pub fn is_publish(requests: &Requests, parts: &Parts) -> bool {
    parts.method == Method::POST && is_meant(requests, parts)
}

/// Answers it.
pub async fn answer(
    requests: &Requests,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let answer = answer_to(requests, parts, body).await;
    let config = requests.shared.node.config();
    let mut response = match answer {
        Err(refusal) if config.mercure_version == 1 => {
            challenge(refusal, !matches!(token::find(parts, config), Ok(None)))
        }
        other => other?,
    };
    // Libraries on pages of other origins read where they stand.
    let shown = HeaderValue::from_static("Last-Event-ID, Mercure-Last-Event-ID, Link, ETag");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    Ok(response)
}

/// As RFC 6750 wants errors to be, and with it Mercure since version 1.0.
fn challenge(refusal: Refusal, has_token: bool) -> Response<Body> {
    let challenge = match refusal.status {
        // Who has no token is not told of an error in it.
        StatusCode::UNAUTHORIZED if !has_token => Some("Bearer"),
        StatusCode::FORBIDDEN => Some("Bearer error=\"insufficient_scope\""),
        _ => None,
    };
    let mut response = Response::from(refusal);
    if let Some(challenge) = challenge {
        let challenge = HeaderValue::from_static(challenge);
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

async fn answer_to(
    requests: &Requests,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    Ok(match parts.uri.path().strip_prefix(PATH) {
        Some("") if parts.method == Method::POST => publish::answer(requests, parts, body).await?,
        Some("") => {
            routes::allow(parts, &[Method::GET, Method::HEAD, Method::POST])?;
            subscribe::answer(requests, parts).await?
        }
        _ => {
            routes::allow(parts, &[Method::GET, Method::HEAD])?;
            subscriptions::answer(requests, parts)?
        }
    })
}
