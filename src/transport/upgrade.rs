//! The WebSocket handshake (RFC 6455, section 4.2), checked before anybody is asked.
//!
//! Imports responses and the extension.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, Version};
use tungstenite::handshake::derive_accept_key;

use super::body::Body;
use super::extensions::Deflate;
use super::response::Refusal;
use super::token::PROTOCOL_PREFIX;
use crate::wire::deflate::Packing;

/// A valid handshake.
#[derive(Debug)]
pub struct Handshake {
    accept: String,
    protocol: Option<HeaderValue>,
    deflate: Option<Deflate>,
}

/// Which sub-protocols are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// This one, when the client offers any.
    Only(&'static str),
    /// Whatever the client offers first: the application's own.
    Any,
}

impl Handshake {
    /// Checks a request. Compression is agreed on when it is offered, and `compress`.
    pub fn check(parts: &Parts, protocols: Protocols, compress: bool) -> Result<Self, Refusal> {
        let headers = &parts.headers;
        if !has_token(headers, header::UPGRADE, "websocket")
            || !has_token(headers, header::CONNECTION, "upgrade")
        {
            let message =
                "this is a WebSocket address; behind a proxy, pass Upgrade and Connection on";
            return Err(Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                message,
            ));
        }
        if parts.method != Method::GET || parts.version != Version::HTTP_11 {
            return Err(Refusal::bad(
                "bad_handshake",
                "a WebSocket handshake is a GET of HTTP/1.1",
            ));
        }
        if headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != "13")
        {
            let message = "Sec-WebSocket-Version must be 13";
            return Err(Refusal::new(
                StatusCode::UPGRADE_REQUIRED,
                "bad_version",
                message,
            ));
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .filter(|key| BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16))
            .ok_or_else(|| {
                Refusal::bad(
                    "bad_handshake",
                    "Sec-WebSocket-Key must be 16 bytes in base64",
                )
            })?;
        Ok(Self {
            accept: derive_accept_key(key.as_bytes()),
            protocol: choose(headers, protocols)?,
            deflate: if compress {
                Deflate::choose(headers)
            } else {
                None
            },
        })
    }

    /// How messages are compressed from here on.
    pub fn packing(&self) -> Packing {
        self.deflate.map_or(Packing::Plain, Deflate::packing)
    }

    /// The answer that switches protocols.
    pub fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::Full(None));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let accept = HeaderValue::try_from(self.accept).expect("base64 is a header value");
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = self.protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        if let Some(deflate) = self.deflate {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, deflate.answer());
        }
        response
    }
}

/// A browser that offers sub-protocols drops the connection when none is chosen, without a word: say it here.
fn choose(headers: &HeaderMap, protocols: Protocols) -> Result<Option<HeaderValue>, Refusal> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    // A token is no protocol, and must not come back in the answer.
    let mut offered = offered.filter(|name| !name.starts_with(PROTOCOL_PREFIX));
    let chosen = match protocols {
        Protocols::Only(name) => offered.find(|offer| *offer == name).ok_or_else(|| {
            Refusal::bad(
                "bad_protocol",
                format!("the only sub-protocol here is {name}"),
            )
        })?,
        Protocols::Any => offered.next().ok_or_else(|| {
            let message =
                "offer a sub-protocol of your own beside the token: a browser wants one chosen";
            Refusal::bad("bad_protocol", message)
        })?,
    };
    HeaderValue::try_from(chosen).map(Some).map_err(|_| {
        Refusal::bad(
            "bad_protocol",
            "Sec-WebSocket-Protocol is not a list of names",
        )
    })
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}
