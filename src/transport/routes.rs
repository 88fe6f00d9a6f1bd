//! Which path is what (php/docs/protocol.md). Every request comes through [`answer`].
//!
//! Imports the transports, `session` and `config`'s limits.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use percent_encoding::percent_decode_str;

use super::body::Body;
use super::http::Takeover;
use super::origin::{self, Verdict};
use super::request::{self, Query};
use super::response::{self, Refusal};
use super::stream::Stream;
use super::upgrade::{Handshake, Protocols};
use super::websocket::{Kind, WebSocket};
use super::{Shared, files, long_poll, publish};
use crate::limits::{self, Held, Pace};
use crate::message::{ConnectionInfo, Transport};
use crate::node::Node;
use crate::session::{self, Admitted};
use crate::wire::{self, Format};

/// What the requests of one socket share.
#[derive(Debug)]
pub struct Requests {
    /// The shard.
    pub shared: Rc<Shared>,
    /// The peer's address.
    pub ip: Box<str>,
    /// How fast its requests may come.
    pub pace: RefCell<Pace>,
    /// Where a route puts what takes the socket over.
    pub taken: Rc<RefCell<Option<Takeover>>>,
    /// Set when the head of an endless answer has been written.
    pub asked: Rc<Cell<bool>>,
}

/// Answers one request.
pub async fn answer(
    requests: Rc<Requests>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let config = requests.shared.node.config();
    let verdict = origin::judge(&parts.headers, &config.allowed_origins);
    if verdict == Verdict::Any {
        // Any page may ask, but not in the name of whoever looks at it.
        parts.headers.remove(header::COOKIE);
    }
    let wait = requests.pace.borrow_mut().spend(config.rate(), 1, 0);
    if let Some(wait) = wait {
        tokio::time::sleep(wait).await;
    }
    let mut response = match route(&requests, &parts, body, &verdict).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::debug!(path = parts.uri.path(), status = %refusal.status, "{}", refusal.message);
            refusal.into()
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        origin::add_cors(response.headers_mut(), &verdict);
    }
    Ok(response)
}

async fn route(
    requests: &Requests,
    parts: &Parts,
    body: Incoming,
    verdict: &Verdict,
) -> Result<Response<Body>, Refusal> {
    let path = parts.uri.path();
    let speaks = matches!(path, "/ws" | "/sse" | "/stream" | "/poll" | "/publish")
        || path.starts_with("/raw/");
    if speaks && *verdict == Verdict::Foreign {
        let message = "pages of this origin are not allowed: see realtime.allowed_origins";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "bad_origin", message));
    }
    if speaks && parts.method == Method::OPTIONS {
        let mut response = Response::new(Body::Full(None));
        *response.status_mut() = StatusCode::NO_CONTENT;
        origin::add_preflight(response.headers_mut());
        return Ok(response);
    }
    if path == "/publish" {
        allow(parts, &[Method::POST])?;
        return publish::answer(requests, parts, body).await;
    }
    allow(parts, &[Method::GET, Method::HEAD])?;
    match path {
        "/ws" => {
            let handshake = handshake(requests, parts, Protocols::Only("realtime.v1"))?;
            let admitted = admit(requests, Transport::WebSocket, parts).await?;
            Ok(websocket(requests, handshake, admitted, Kind::Native))
        }
        "/sse" => sse(requests, parts).await,
        "/stream" => stream(requests, parts).await,
        "/poll" => long_poll::answer(requests, parts).await,
        "/realtime.js" => Ok(files::client(parts)),
        "/healthz" => Ok(response::json(StatusCode::OK, r#"{"status":"ok"}"#.into())),
        _ => match path.strip_prefix("/raw/") {
            Some(name) => raw(requests, parts, name).await,
            None => files::serve(requests.shared.node.config(), parts).await,
        },
    }
}

/// Asks PHP, after the limit on connections, whether the client of this request may connect.
pub async fn admit(
    requests: &Requests,
    transport: Transport,
    parts: &Parts,
) -> Result<Admitted, Refusal> {
    let node = &requests.shared.node;
    let limit = node.config().max_connections;
    if node.connection_count() >= limit {
        tracing::warn!(
            "{limit} clients are connected, more are refused: raise realtime.max_connections"
        );
        let message = "the server has all the connections that it takes";
        return Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_connections",
            message,
        ));
    }
    let info = request::identify(&requests.shared, transport, &requests.ip, parts)?;
    let held = hold(node, &info)?;
    let mut admitted = session::admit(node, info).await?;
    admitted.hold(held);
    Ok(admitted)
}

/// Takes a place among the connections of the client's address, and among those of its user.
fn hold(node: &Node, info: &ConnectionInfo) -> Result<Vec<Held>, Refusal> {
    let config = node.config();
    let full = |whose: &str, setting: &str| {
        tracing::debug!(
            ip = &*info.ip,
            "refused: {whose} is over realtime.{setting}"
        );
        let message = format!("{whose} has all the connections that one may have");
        Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_connections",
            message,
        )
    };
    let mut held = Vec::new();
    if limits::is_counted(&info.ip, &config.trusted_proxies) {
        let (owner, limit) = (limits::owner(&info.ip), config.max_connections_per_address);
        let place = node.addresses().hold(&owner, limit);
        held.push(place.ok_or_else(|| full("this address", "max_connections_per_address"))?);
    }
    if let Some(user) = info.user() {
        let place = node.users().hold(user, config.max_connections_per_user);
        held.push(place.ok_or_else(|| full("this user", "max_connections_per_user"))?);
    }
    Ok(held)
}

/// Asks PHP, for each channel of a query, whether the client may subscribe.
pub async fn authorize_all(
    requests: &Requests,
    info: &Arc<ConnectionInfo>,
    query: &Query,
) -> Result<(), Refusal> {
    let node = &requests.shared.node;
    if query.channels.len() > node.config().max_subscriptions {
        return Err(session::Denied::TooManySubscriptions.into());
    }
    for channel in &query.channels {
        session::authorize(node, info, channel)
            .await
            .map_err(|denied| Refusal::from(denied).about(channel.as_str()))?;
    }
    Ok(())
}

fn handshake(
    requests: &Requests,
    parts: &Parts,
    protocols: Protocols,
) -> Result<Handshake, Refusal> {
    let compress = requests.shared.node.config().compress_min > 0;
    Handshake::check(parts, protocols, compress)
}

async fn raw(requests: &Requests, parts: &Parts, name: &str) -> Result<Response<Body>, Refusal> {
    let handshake = handshake(requests, parts, Protocols::Any)?;
    let name = percent_decode_str(name).decode_utf8_lossy();
    let channel = request::channel(&name)?;
    let admitted = admit(requests, Transport::Raw, parts).await?;
    session::authorize(&requests.shared.node, admitted.info(), &channel).await?;
    Ok(websocket(requests, handshake, admitted, Kind::Raw(channel)))
}

fn websocket(
    requests: &Requests,
    handshake: Handshake,
    admitted: Admitted,
    kind: Kind,
) -> Response<Body> {
    *requests.taken.borrow_mut() = Some(Takeover::WebSocket(WebSocket {
        admitted,
        kind,
        packing: handshake.packing(),
    }));
    handshake.response()
}

async fn sse(requests: &Requests, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(parts)?;
    // Without the envelope a client would not know whom to tell PHP to send to.
    let connected = query.meta;
    let query = query.with_channels(connected)?;
    let format = Format::Sse {
        meta: query.meta,
        body: framing(parts),
    };
    let first = wire::sse::retry(requests.shared.node.config().retry);
    endless(requests, parts, query, Transport::Sse, format, first).await
}

async fn stream(requests: &Requests, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(parts)?.with_channels(false)?;
    let format = Format::Stream {
        body: framing(parts),
    };
    endless(
        requests,
        parts,
        query,
        Transport::Stream,
        format,
        Vec::new(),
    )
    .await
}

async fn endless(
    requests: &Requests,
    parts: &Parts,
    query: Query,
    transport: Transport,
    format: Format,
    first: Vec<u8>,
) -> Result<Response<Body>, Refusal> {
    let body = if parts.method == Method::HEAD {
        Body::Full(None)
    } else {
        let admitted = admit(requests, transport, parts).await?;
        authorize_all(requests, admitted.info(), &query).await?;
        let stream = Stream {
            admitted,
            format,
            query,
            first,
        };
        *requests.taken.borrow_mut() = Some(Takeover::Stream(stream));
        Body::Endless(requests.asked.clone())
    };
    let content_type = match transport {
        Transport::Sse => "text/event-stream",
        _ => "application/x-ndjson",
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // No proxy may keep, compress or collect what should be seen at once; nginx has a header of its own.
    let cache = HeaderValue::from_static("no-cache, no-transform");
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    Ok(response)
}

fn framing(parts: &Parts) -> wire::Body {
    match parts.version {
        Version::HTTP_11 => wire::Body::Chunked,
        _ => wire::Body::UntilClose,
    }
}

fn allow(parts: &Parts, methods: &[Method]) -> Result<(), Refusal> {
    if methods.contains(&parts.method) {
        return Ok(());
    }
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let message = format!("this address takes {}", names.join(" and "));
    Err(Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "bad_method",
        message,
    ))
}
