//! Where the Pusher protocol comes in: `/app/{key}` for clients, `/apps/{id}/…` for the servers of an application.
//!
//! A client that may not come gets its handshake all the same, since only the close code after it tells the client
//! whether to try again. Imports `pusher`.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::body::Body;
use super::http::{Takeover, linger};
use super::origin::Verdict;
use super::response::{self, Refusal};
use super::routes::{self, Requests};
use super::upgrade::Protocols;
use super::websocket::Kind;
use super::{Shared, publish};
use crate::message::Transport;
use crate::pusher::api::{self, Request};
use crate::pusher::client::Client;
use crate::socket::Socket;
use crate::wire::pusher;

/// The versions of the protocol that are spoken: they differ in what only older clients send.
const VERSIONS: std::ops::RangeInclusive<u32> = 5..=7;
/// How long a client that is sent away may take to read why.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a request of the HTTP API may have, in bytes: ten events of 10 KB in a batch, with every character escaped.
const BODY_MAX: usize = 512 << 10;

/// Answers a client's handshake; `key` is what comes behind `/app/`.
pub async fn connect(
    requests: &Requests,
    parts: &Parts,
    verdict: &Verdict,
    key: &str,
) -> Result<Response<Body>, Refusal> {
    let handshake = routes::handshake(requests, parts, Protocols::Any)?;
    let farewell = match admit(requests, parts, verdict, key).await {
        Ok((client, admitted)) => {
            let kind = Kind::Pusher(Rc::new(client));
            return Ok(routes::websocket(requests, handshake, admitted, kind));
        }
        Err((code, why)) => {
            tracing::debug!(code, "a Pusher client is refused: {why}");
            pusher::send_away(code, &why)
        }
    };
    *requests.taken.borrow_mut() = Some(Takeover::Farewell(farewell));
    Ok(handshake.response())
}

async fn admit(
    requests: &Requests,
    parts: &Parts,
    verdict: &Verdict,
    key: &str,
) -> Result<(Client, crate::session::Admitted), (u16, String)> {
    let refuse = |code: u16, why: &str| Err((code, why.to_owned()));
    let shared = &requests.shared;
    if *verdict == Verdict::Foreign {
        return refuse(
            4009,
            "pages of this origin are not allowed: see realtime.allowed_origins",
        );
    }
    if key.is_empty() || key.contains('/') {
        return refuse(4005, "nothing is here: clients connect to /app/{key}");
    }
    let Some(app) = shared.pusher.by_key(key) else {
        return refuse(
            4001,
            "there is no app with this key: see realtime.pusher_app",
        );
    };
    let query = parts.uri.query().unwrap_or_default();
    let version = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "protocol");
    match version.map(|(_, version)| version.parse::<u32>()) {
        None => return refuse(4008, "no protocol version: ?protocol=7"),
        Some(Err(_)) => return refuse(4006, "the protocol version is not a number"),
        Some(Ok(version)) if !VERSIONS.contains(&version) => {
            return refuse(4007, "protocol versions 5 to 7 are spoken here");
        }
        Some(Ok(_)) => {}
    }
    let admitted = routes::admit(requests, Transport::Pusher, parts).await;
    let admitted = admitted.map_err(|refusal| (code(&refusal), refusal.message))?;
    let id = admitted.info().id;
    let client = Client::new(shared.pusher.clone(), app.clone(), shared.node.clone(), id);
    Ok((client, admitted))
}

/// Whether a refused client should come back.
fn code(refusal: &Refusal) -> u16 {
    match refusal.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => 4009,
        // Over a limit, or PHP is behind: later.
        _ => 4100,
    }
}

/// Says goodbye to a client that was refused.
pub async fn send_away(socket: Rc<Socket>, farewell: Bytes) {
    let sent = std::future::poll_fn(|cx| {
        loop {
            match socket.send(&farewell) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::task::ready!(socket.poll_writable(cx))?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A few hundred bytes into an empty buffer: all of them or none.
                result => return std::task::Poll::Ready(result),
            }
        }
    });
    // Whoever does not read it does not get to know.
    let _ = tokio::time::timeout(PATIENCE, sent).await;
    linger(&socket).await;
}

/// Answers a request of the HTTP API.
pub async fn api(
    requests: &Requests,
    parts: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let Shared { node, pusher, .. } = &*requests.shared;
    let body = publish::read(node, body, BODY_MAX).await?;
    let request = Request {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        body: &body,
    };
    match api::answer(node, pusher, &request).await {
        Ok(json) => Ok(response::json(StatusCode::OK, json.to_string().into())),
        Err(refused) => {
            if refused.status == StatusCode::UNAUTHORIZED {
                // Who knows the secret is not held up; who guesses is.
                let rate = node.config().rate();
                let wait = requests.pace.borrow_mut().spend(rate, 1, 0);
                if let Some(wait) = wait {
                    tokio::time::sleep(wait).await;
                }
            }
            Err(Refusal::new(refused.status, refused.code, refused.message))
        }
    }
}
