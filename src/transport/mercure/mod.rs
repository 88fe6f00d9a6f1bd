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
use hyper::{Method, Response};

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
    let mut response = match parts.uri.path().strip_prefix(PATH) {
        Some("") if parts.method == Method::POST => publish::answer(requests, parts, body).await?,
        Some("") => {
            routes::allow(parts, &[Method::GET, Method::HEAD, Method::POST])?;
            subscribe::answer(requests, parts).await?
        }
        _ => {
            routes::allow(parts, &[Method::GET, Method::HEAD])?;
            subscriptions::answer(requests, parts)?
        }
    };
    // Libraries on pages of other origins read where they stand.
    let shown = HeaderValue::from_static("Last-Event-ID, ETag");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    Ok(response)
}
