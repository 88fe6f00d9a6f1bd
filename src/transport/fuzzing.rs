//! A request's decoders for `tests/fuzz`, which sees the crate from outside: what they read, as plain values.
//!
//! Compiled with `--cfg fuzzing` alone. Imports the modules whose decoders it shows.

use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{HeaderMap, Request};

use super::origin::{self, Verdict};
use super::request::Query;
use super::upgrade::{Handshake, Protocols};
use super::{forwarded, long_poll, token};
use crate::config::{Origins, Proxies};
use crate::ids::Channel;

/// A request without its body, as hyper gives it; none when hyper would refuse it.
pub fn parts<'a>(
    target: &[u8],
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<Parts> {
    let target = hyper::Uri::try_from(target).ok()?;
    let mut request = Request::get(target);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// What `/sse`, `/stream` and `/poll` are asked for.
#[derive(Debug)]
pub struct Asked {
    /// `channel`
    pub channels: Vec<Channel>,
    /// `since`, or `Last-Event-ID`
    pub since: Option<String>,
    /// `timeout`
    pub timeout: Option<Duration>,
}

/// Reads the query; else the status of the refusal.
pub fn query(parts: &Parts) -> Result<Asked, u16> {
    let status = |refusal: super::response::Refusal| refusal.status.as_u16();
    let query = Query::parse(parts).map_err(status)?;
    let timeout = long_poll::timeout(query.timeout.as_deref()).map_err(status)?;
    Ok(Asked {
        channels: query.channels,
        since: query.since,
        timeout: Some(timeout),
    })
}

/// Who asks, and whether by TLS.
pub fn client(parts: &Parts, peer: &str, trusted: &Proxies) -> (String, bool) {
    let peer = forwarded::Peer {
        ip: peer,
        secure: false,
    };
    let client = forwarded::client(&parts.headers, peer, trusted);
    (client.ip.into_owned(), client.secure)
}

/// The headers of the answer to a WebSocket handshake; else the status of the refusal. `any` sub-protocol, or ours alone.
pub fn handshake(parts: &Parts, any: bool) -> Result<HeaderMap, u16> {
    let protocols = if any {
        Protocols::Any
    } else {
        Protocols::Only("realtime.v1")
    };
    match Handshake::check(parts, protocols, true) {
        Ok(handshake) => Ok(handshake.response().headers().clone()),
        Err(refusal) => Err(refusal.status.as_u16()),
    }
}

/// Whether a page may ask with its user's cookies. `secure` when it asks by TLS.
pub fn is_trusted(parts: &Parts, allowed: &Origins, secure: bool) -> bool {
    matches!(
        origin::judge(&parts.headers, allowed, secure),
        Verdict::Same | Verdict::Listed(_)
    )
}

/// The token, wherever it stands.
pub fn token(parts: &Parts, cookie: &str) -> Option<String> {
    token::find(parts, Some(cookie)).map(std::borrow::Cow::into_owned)
}
