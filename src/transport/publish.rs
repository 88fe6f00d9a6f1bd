//! `POST /publish`: a client without a WebSocket sends a message to PHP, and gets the handler's reply.
//!
//! Imports `session` and `wire`.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming as HttpBody;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

use super::body::Body;
use super::response::{self, Refusal};
use super::routes::{self, Requests};
use crate::backend::ReplyTo;
use crate::ids::ConnectionId;
use crate::message::{ConnectionInfo, Incoming, Transport};
use crate::node::Node;
use crate::predecessor::Busy;
use crate::session;
use crate::wire::envelope;
use crate::wire::native::{self, Claim, Mistake};

/// What the body may have beside the message's data: names, and the JSON around them.
const OVERHEAD: usize = 2048;

/// Answers a publish.
pub async fn answer(
    requests: &Requests,
    parts: &Parts,
    body: HttpBody,
) -> Result<Response<Body>, Refusal> {
    let json = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !json {
        let message = "the body must be application/json";
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            message,
        ));
    }
    let node = &requests.shared.node;
    let body = read(node, body, node.config().max_message_size + OVERHEAD).await?;
    requests.slow_down(0, body.len()).await;
    let text = std::str::from_utf8(&body)
        .map_err(|_| Refusal::bad("bad_json", "the body is not UTF-8"))?;
    let (publish, claim) = native::parse_publish(text).map_err(|mistake: Mistake| Refusal {
        channel: mistake.channel,
        ..Refusal::bad(mistake.code, mistake.message)
    })?;
    match claim {
        Some(claim) => {
            let from = known(node, &claim, body.len()).await?;
            send(node, &from, publish).await
        }
        None => {
            // A client that is nowhere else connected is one for as long as this takes.
            let mut admitted = routes::admit(requests, Transport::Http, parts).await?;
            admitted.ends(1000, "");
            send(node, admitted.info(), publish).await
        }
    }
}

async fn send(
    node: &Node,
    from: &Arc<ConnectionInfo>,
    publish: native::ClientPublish,
) -> Result<Response<Body>, Refusal> {
    let (sender, outcome) = oneshot::channel();
    let data = Incoming::Json(publish.data);
    let reply_to = ReplyTo::Request(sender);
    session::publish(node, from, publish.channel, publish.event, data, reply_to).await?;
    match tokio::time::timeout(node.config().handshake_timeout, outcome).await {
        Ok(Ok(Ok(payload))) => {
            let body = envelope::reply(None, payload.as_ref());
            Ok(response::json(StatusCode::OK, body.into()))
        }
        Ok(Ok(Err(failed))) => {
            let message = failed.to_string();
            Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                "handler_failed",
                message,
            ))
        }
        Ok(Err(_)) => {
            let message = "the PHP process has ended";
            Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                "handler_failed",
                message,
            ))
        }
        Err(_) => {
            let message = "the handler did not answer in time";
            Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                message,
            ))
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub async fn read(node: &Node, body: HttpBody, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body may have at most {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    // What is announced too large is not waited for.
    if hyper::body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    let collected = Limited::new(body, limit).collect();
    match tokio::time::timeout(node.config().handshake_timeout, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::bad("bad_body", error.to_string())),
        Err(_) => {
            let message = "the body did not arrive in time";
            Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                message,
            ))
        }
    }
}

/// The connection that a request with a body of `bytes` proves to come from.
///
/// Sockets are to be had for nothing: whoever opens another one for each message has one connection's pace all the same.
async fn known(
    node: &Arc<Node>,
    claim: &Claim,
    bytes: usize,
) -> Result<Arc<ConnectionInfo>, Refusal> {
    let forbidden = || {
        let message = "no such connection, or not its key";
        Refusal::new(StatusCode::FORBIDDEN, "forbidden", message)
    };
    let id: ConnectionId = claim.connection.parse().map_err(|_| forbidden())?;
    let key = u64::from_str_radix(&claim.key, 16).map_err(|_| forbidden())?;
    if let Some(registered) = node.connection(id) {
        let info = registered.info;
        if !info.has_key(key) {
            return Err(forbidden());
        }
        if !info.may_spend(node.config().rate(), 1, bytes) {
            return Err(session::Denied::Busy.into());
        }
        return Ok(info);
    }
    // A stream may still be at the hub that this one has taken over from, while its client's requests come here.
    let old = node.predecessor().cloned().ok_or_else(forbidden)?;
    let patience = node.config().timeout;
    let found = tokio::task::spawn_blocking(move || old.find(id, key, bytes, patience)).await;
    let found = found.unwrap_or(Err(Busy));
    let found = found.map_err(|Busy| Refusal::from(session::Denied::Busy))?;
    found.map(Arc::new).ok_or_else(forbidden)
}
