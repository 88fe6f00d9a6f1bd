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
use super::forwarded::Peer;
use super::http::Takeover;
use super::origin::{self, Verdict};
use super::request::{self, Query};
use super::response::{self, Refusal};
use super::stream::{Begin, Stream};
use super::upgrade::{Handshake, Protocols};
use super::websocket::{Kind, WebSocket};
use super::{Shared, files, history, library, long_poll, mercure, publish, pusher, token};
use crate::auth::Grant;
use crate::limits::{self, Held, Pace};
use crate::message::{ConnectionInfo, Transport};
use crate::node::Node;
use crate::session::{self, Admitted, Entry};
use crate::wire::{self, Flavour, Format};

/// What the requests of one socket share.
#[derive(Debug)]
pub struct Requests {
    /// The shard.
    pub shared: Rc<Shared>,
    /// The peer's address.
    pub ip: Box<str>,
    /// Whether it speaks TLS with this server.
    pub secure: bool,
    /// How fast its requests may come.
    pub pace: RefCell<Pace>,
    /// Where a route puts what takes the socket over.
    pub taken: Rc<RefCell<Option<Takeover>>>,
    /// Set when the head of an endless answer has been written.
    pub asked: Rc<Cell<bool>>,
}

impl Requests {
    /// Counts what the client has sent, and waits when that was too much.
    pub async fn slow_down(&self, messages: usize, bytes: usize) {
        let rate = self.shared.node.config().rate();
        let wait = self.pace.borrow_mut().spend(rate, messages, bytes);
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
    }

    /// Whoever has connected.
    fn peer(&self) -> Peer<'_> {
        Peer {
            ip: &self.ip,
            secure: self.secure,
        }
    }
}

/// Answers one request.
pub async fn answer(
    requests: Rc<Requests>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let config = requests.shared.node.config();
    let verdict = origin::judge(&parts.headers, &config.allowed_origins, requests.secure);
    if verdict == Verdict::Any {
        // Any page may ask, but not in the name of whoever looks at it.
        parts.headers.remove(header::COOKIE);
    }
    let is_api = requests.shared.pusher.is_on() && parts.uri.path().starts_with("/apps/");
    if !is_api && !mercure::is_publish(&requests, &parts) {
        // An application's servers may ask as often as they like: they sign what they ask for, or count when their token is
        // not right.
        requests.slow_down(1, 0).await;
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
    let speaks = matches!(
        path,
        "/ws" | "/sse" | "/stream" | "/poll" | "/publish" | "/history" | "/presence"
    ) || path.starts_with("/raw/")
        || mercure::is_meant(requests, parts);
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
    if mercure::is_meant(requests, parts) {
        return mercure::answer(requests, parts, body).await;
    }
    if requests.shared.pusher.is_on() && path.starts_with("/apps/") {
        return pusher::api(requests, parts, body).await;
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
        "/history" => history::answer(requests, parts).await,
        "/presence" => history::presence(requests, parts).await,
        "/realtime.js" => Ok(files::client(parts, &library::SERVED)),
        "/pusher-resume.js" => Ok(files::client(parts, &library::RESUME)),
        "/healthz" => Ok(response::json(StatusCode::OK, r#"{"status":"ok"}"#.into())),
        _ if requests.shared.pusher.is_on() && path.starts_with("/app/") => {
            pusher::connect(requests, parts, verdict, &path["/app/".len()..]).await
        }
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
    admit_by(requests, transport, parts, token::grant).await
}

/// The same for a protocol with tokens of its own, of which `prove` makes a grant.
pub async fn admit_by(
    requests: &Requests,
    transport: Transport,
    parts: &Parts,
    prove: impl FnOnce(&Node, &Parts) -> Result<Option<Grant>, Refusal>,
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
    let grant = prove(node, parts)?;
    let info = request::identify(&requests.shared, transport, requests.peer(), parts, grant)?;
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

/// Asks PHP, for each channel of a query, whether the client may subscribe, and as whom.
pub async fn authorize_all(
    requests: &Requests,
    info: &Arc<ConnectionInfo>,
    query: &Query,
) -> Result<Vec<Entry>, Refusal> {
    let node = &requests.shared.node;
    if query.channels.len() > node.config().max_subscriptions {
        return Err(session::Denied::TooManySubscriptions.into());
    }
    let mut entries = Vec::with_capacity(query.channels.len());
    for channel in &query.channels {
        let entry = session::authorize(node, info, channel).await;
        let entry = entry.map_err(|denied| Refusal::from(denied).about(channel.as_str()))?;
        entries.push(Entry {
            is_new: query.new.contains(channel),
            ..entry
        });
    }
    Ok(entries)
}

/// Checks a WebSocket handshake.
pub fn handshake(
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
    let entry = session::authorize(&requests.shared.node, admitted.info(), &channel).await?;
    Ok(websocket(requests, handshake, admitted, Kind::Raw(entry)))
}

/// Answers a handshake, after which the socket is a WebSocket.
pub fn websocket(
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
        flavour: match query.meta {
            true => Flavour::Meta,
            false => Flavour::Data,
        },
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
        let entries = authorize_all(requests, admitted.info(), &query).await?;
        let stream = Stream {
            admitted,
            format,
            begin: Begin::Query {
                entries,
                since: query.since,
                first,
            },
        };
        *requests.taken.borrow_mut() = Some(Takeover::Stream(stream));
        Body::Endless(requests.asked.clone())
    };
    let content_type = match transport {
        Transport::Sse => "text/event-stream",
        _ => "application/x-ndjson",
    };
    Ok(endless_head(body, content_type, "no-cache, no-transform"))
}

/// The head of an answer that never ends.
pub fn endless_head(body: Body, content_type: &'static str, cache: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // No proxy may keep, compress or collect what should be seen at once; nginx has a header of its own.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// How the body of an endless answer is framed.
pub fn framing(parts: &Parts) -> wire::Body {
    match parts.version {
        Version::HTTP_11 => wire::Body::Chunked,
        _ => wire::Body::UntilClose,
    }
}

/// Refuses other methods than these.
pub fn allow(parts: &Parts, methods: &[Method]) -> Result<(), Refusal> {
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
