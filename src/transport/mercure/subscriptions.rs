//! `GET /.well-known/mercure/subscriptions…`: who is subscribed to what.
//!
//! Imports `mercure`.

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::super::body::Body;
use super::super::response::{self, Refusal};
use super::super::routes::Requests;
use super::subscribe;
use super::token::unauthorized;
use crate::mercure::{self, Found};
use crate::wire::mercure::PATH;

/// Answers whoever may know.
pub fn answer(requests: &Requests, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let node = &requests.shared.node;
    let path = parts.uri.path();
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here");
    let rest = path
        .strip_prefix(PATH)
        .and_then(|rest| rest.strip_prefix("/subscriptions"))
        .filter(|_| node.config().mercure_subscriptions)
        .ok_or_else(missing)?;
    let is_one = node.config().mercure_version == 1;
    let found = found(path, rest, is_one).ok_or_else(missing)?;
    let grant = subscribe::grant(node, parts)?;
    let grant = grant.ok_or_else(|| unauthorized("a token is needed here"))?;
    if !grant
        .selectors
        .iter()
        .any(|selector| selector.matches(path))
    {
        let message = match is_one {
            true => "the token does not grant \"subscribe\" on this address",
            false => "the token's \"mercure.subscribe\" does not cover this address",
        };
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let (json, last) = mercure::list(node, &found).ok_or_else(missing)?;
    let tag = format!("\"{last}\"");
    let known = parts.headers.get(header::IF_NONE_MATCH);
    let is_known = known.is_some_and(|known| known == tag.as_str());
    let mut response = match is_known {
        true => {
            let mut response = Response::new(Body::Full(None));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        false if is_one => response::full(StatusCode::OK, "application/json", json.into()),
        false => response::full(StatusCode::OK, "application/ld+json", json.into()),
    };
    let headers = response.headers_mut();
    if let Some(url) = node.config().mercure_url.as_ref().filter(|_| is_one) {
        let attributes = "type=\"mercure\"; content-type=\"application/json\"";
        let link = format!("<{url}>; rel=\"mercure\"; last-event-id=\"{last}\"; {attributes}");
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.insert(header::LINK, link);
        }
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    let cache = HeaderValue::from_static("private, must-revalidate, max-age=0");
    headers.insert(header::CACHE_CONTROL, cache);
    Ok(response)
}

/// What `rest` of the path names: nothing, a topic, or a topic and a subscriber. Since version 1.0 the type of a matcher comes
/// before it.
fn found(path: &str, rest: &str, is_one: bool) -> Option<Found> {
    let decoded = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .ok()
            .map(String::from)
    };
    let mut found = Found {
        path: path.to_owned(),
        ..Found::default()
    };
    if rest.is_empty() {
        return Some(found);
    }
    let mut names = rest.strip_prefix('/')?.split('/');
    if is_one {
        found.match_type = Some(decoded(names.next()?)?);
    }
    found.topic = Some(decoded(names.next().filter(|name| !name.is_empty())?)?);
    if let Some(subscriber) = names.next() {
        found.subscriber = Some(decoded(subscriber)?);
    }
    names.next().is_none().then_some(found)
}
