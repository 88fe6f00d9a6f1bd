//! The token of a request (`auth`), in whichever of four ways it comes.
//!
//! Imports `auth`.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;

use super::response::Refusal;
use crate::auth::{BadToken, Grant};
use crate::node::Node;

/// How a token is offered as a sub-protocol: a browser's WebSocket can set no header but that one.
pub const PROTOCOL_PREFIX: &str = "realtime.token.";

/// What the request's token grants; none without a token. Looks where the program puts it before where the browser does.
pub fn grant(node: &Node, parts: &Parts) -> Result<Option<Grant>, Refusal> {
    let auth = node.auth();
    if !auth.is_on() {
        return Ok(None);
    }
    let token = find(parts, node.config().token_cookie.as_deref());
    let grant = token.map(|token| auth.check(&token)).transpose();
    Ok(grant?)
}

/// The token as it was sent, wherever it stands.
pub(super) fn find<'a>(parts: &'a Parts, cookie: Option<&str>) -> Option<Cow<'a, str>> {
    in_query(parts)
        .or_else(|| in_protocols(&parts.headers))
        .or_else(|| in_authorization(&parts.headers))
        .or_else(|| in_cookies(&parts.headers, cookie?))
}

impl From<BadToken> for Refusal {
    fn from(bad: BadToken) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, bad.code(), bad.to_string())
    }
}

/// `?token=`
fn in_query(parts: &Parts) -> Option<Cow<'_, str>> {
    let query = parts.uri.query()?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "token")
        .map(|(_, token)| token)
}

/// `Sec-WebSocket-Protocol: realtime.v1, realtime.token.…`
fn in_protocols(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    lists(headers, header::SEC_WEBSOCKET_PROTOCOL, ',')
        .find_map(|offer| offer.strip_prefix(PROTOCOL_PREFIX))
        .map(Cow::Borrowed)
}

/// `Authorization: Bearer …` (RFC 6750). Another scheme is for somebody else, a proxy mostly.
fn in_authorization(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| Cow::Borrowed(token.trim()))
}

/// `Cookie: realtime_token=…`. Never of a page of another site, unless realtime.allowed_origins names it: see `origin`.
pub fn in_cookies<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    lists(headers, header::COOKIE, ';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(its, value)| *its == name && !value.is_empty())
        .map(|(_, token)| Cow::Borrowed(token))
}

fn lists(
    headers: &HeaderMap,
    name: header::HeaderName,
    separator: char,
) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(move |list| list.split(separator))
        .map(str::trim)
}
