//! The token of a request of the Mercure protocol, in the order of its specification: header, query, cookie.
//!
//! Imports `config`.

use std::borrow::Cow;

use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::super::response::Refusal;
use super::super::token::in_cookies;
use crate::config::Config;

/// The cookie in which it may come.
const COOKIE: &str = "mercureAuthorization";
/// The cookie since version 1.0.
const COOKIE_OF_ONE: &str = "__Secure-mercure_access_token";

/// The token, if there is one. The first place that has one counts, whatever is in it.
pub fn find<'a>(parts: &'a Parts, config: &Config) -> Result<Option<Cow<'a, str>>, Refusal> {
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return bearer(&parts.headers).map(Some);
    }
    let is_one = config.mercure_version == 1;
    let query = parts.uri.query().unwrap_or_default();
    let mut query = form_urlencoded::parse(query.as_bytes());
    // Logs keep addresses, so that since version 1.0 no token may be in one.
    if let Some((_, token)) = query.find(|(name, _)| !is_one && name == "authorization") {
        return Ok(Some(token));
    }
    let cookie = if is_one { COOKIE_OF_ONE } else { COOKIE };
    let token = in_cookies(&parts.headers, cookie);
    let by_page = parts.headers.contains_key(header::ORIGIN);
    if token.is_some() && parts.method == Method::POST && !by_page {
        // A browser sends its cookies with any form; `origin` has judged those that say where they come from.
        return Err(unauthorized("a cookie needs an Origin header to publish"));
    }
    Ok(token)
}

/// Nobody without a token.
pub fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "bad_token", message)
}

fn bearer(headers: &HeaderMap) -> Result<Cow<'_, str>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let only = values.next().filter(|_| values.next().is_none());
    let parts = only.and_then(|value| value.to_str().ok()?.split_once(' '));
    match parts {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Cow::Borrowed(token.trim()))
        }
        _ => Err(unauthorized(
            "Authorization must be: Bearer, a space, a token",
        )),
    }
}
