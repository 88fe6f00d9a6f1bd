//! The hub's side of the control socket: greets, checks who it is, and does what the other process asks.
//!
//! Runs on the hub's control thread, never on a shard: a publisher is answered while the fan-out goes on. Imports
//! `node` and `wire::control`.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::ids::{Channel, ConnectionId, InvalidId, Pattern};
use crate::message::{EventName, Payload, Publish};
use crate::node::{Failure, Node};
use crate::wire::control::{
    self, FRAME_OVERHEAD, Greeting, HELLO_MAX, Hello, Identity, Request, Response, VERSION,
    WireConnection, WireEntry, WireFailure,
};

/// How long a new link may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// Links at a time: more processes than any PHP pool has.
const LINKS_MAX: usize = 4096;

/// Serves links until it is dropped.
pub async fn run(listener: StdListener, node: Arc<Node>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(tokio::sync::Semaphore::new(LINKS_MAX));
    loop {
        // Those over the limit wait in the socket's backlog.
        let place = places
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = node.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = link(stream, node).await {
                        tracing::debug!(%error, "a link on the control socket ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on realtime.socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn link(mut stream: UnixStream, node: Arc<Node>) -> io::Result<()> {
    let config = node.config();
    let mut buffer = Vec::new();
    let hello = tokio::time::timeout(HELLO_WAIT, frame(&mut stream, &mut buffer, HELLO_MAX));
    if !hello.await.map_err(io::Error::other)?? {
        return Ok(());
    }
    let refused = refuse(&stream, &buffer, config.socket_mode)?;
    let greeting = Greeting {
        version: VERSION,
        pid: std::process::id(),
        address: node.address().to_owned(),
        max_message_size: config.max_message_size,
        identity: match refused {
            None => node.identity().clone(),
            Some(_) => Identity::default(),
        },
        refused: refused.clone(),
    };
    stream.write_all(&control::json_frame(&greeting)).await?;
    if let Some(reason) = refused {
        return Err(io::Error::other(reason));
    }
    let limit = config.max_message_size + FRAME_OVERHEAD;
    loop {
        if !frame(&mut stream, &mut buffer, limit).await? {
            return Ok(());
        }
        let response = match control::read::<Request>(&buffer) {
            Ok(request) => answer(&node, request).await,
            // Not one of ours, or of another build: nothing after it can be trusted either.
            Err(error) => return Err(io::Error::other(error)),
        };
        stream.write_all(&control::frame(&response)).await?;
        if buffer.capacity() > 1 << 20 {
            buffer = Vec::new();
        }
    }
}

/// Reads one frame's content into `buffer`. `false` at the end of the link.
async fn frame(stream: &mut UnixStream, buffer: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        return Err(io::Error::other(format!(
            "a frame of {length} bytes, {limit} are allowed"
        )));
    }
    buffer.clear();
    // Grows with what really arrives, not with what is announced.
    let read = stream.take(length as u64).read_to_end(buffer).await?;
    Ok(read == length)
}

/// Why this peer is not served, if it is not.
fn refuse(stream: &UnixStream, hello: &[u8], socket_mode: u32) -> io::Result<Option<String>> {
    let peer = stream.peer_cred()?.uid();
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    if peer != uid && peer != 0 && socket_mode & 0o066 == 0 {
        return Ok(Some(format!(
            "this server belongs to user {uid} and does not serve user {peer}: see realtime.socket_mode"
        )));
    }
    let reason = match serde_json::from_slice::<Hello>(hello) {
        Err(_) => "this is the control socket of a realtime server".to_owned(),
        Ok(hello) if hello.protocol != "realtime" || hello.version != VERSION => format!(
            "the server speaks version {VERSION} of the control protocol, this process version {}: restart the \
             older of the two",
            hello.version
        ),
        Ok(_) => return Ok(None),
    };
    Ok(Some(reason))
}

async fn answer(node: &Arc<Node>, request: Request) -> Response {
    match request {
        Request::Publish(publish) => match Publish::try_from(publish) {
            Ok(publish) => finish(node.publish_async(publish).await.map(Response::Published)),
            Err(invalid) => bad(invalid),
        },
        other => {
            // These may wait for a shard, which this thread must not.
            let node = node.clone();
            let done = tokio::task::spawn_blocking(move || ask(&node, other));
            done.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a request on the control socket failed");
                Response::Failed(WireFailure::Stopped)
            })
        }
    }
}

fn ask(node: &Arc<Node>, request: Request) -> Response {
    let id = ConnectionId::from_bits;
    let asked = match request {
        // `answer` has done it.
        Request::Publish(_) => return Response::Failed(WireFailure::Stopped),
        Request::Send { to, payload, event } => match crate::ids::check_event(&event) {
            Ok(()) => node
                .send(id(to), Payload::from(payload), EventName::new(&event))
                .map(Response::Done),
            Err(invalid) => return bad(invalid),
        },
        Request::Subscribe { who, channel } => match Channel::parse(&channel) {
            Ok(channel) => node.subscribe(id(who), channel).map(Response::Done),
            Err(invalid) => return bad(invalid),
        },
        Request::Unsubscribe { who, channel } => match Channel::parse(&channel) {
            Ok(channel) => node.unsubscribe(id(who), channel).map(Response::Done),
            Err(invalid) => return bad(invalid),
        },
        Request::Close { who, code, reason } => {
            node.close(id(who), code, reason).map(Response::Done)
        }
        Request::Channels { pattern } => match Pattern::parse(&pattern) {
            Ok(pattern) => node.channels(&pattern).map(|list| {
                let pair = |c: crate::node::ChannelSummary| (c.channel.to_string(), c.subscribers);
                Response::Channels(list.into_iter().map(pair).collect())
            }),
            Err(invalid) => return bad(invalid),
        },
        Request::Connections { channel } => {
            match channel.map(|name| Channel::parse(&name)).transpose() {
                Ok(channel) => node.connections(channel.as_ref()).map(|list| {
                    let wire = list.iter().map(|c| WireConnection {
                        id: c.id.to_bits(),
                        transport: c.transport.index() as u8,
                        ip: c.ip.to_string(),
                        head: c.head().to_owned(),
                        user: c.user().map(ToOwned::to_owned),
                    });
                    Response::Connections(wire.collect())
                }),
                Err(invalid) => return bad(invalid),
            }
        }
        Request::History {
            channel,
            limit,
            since,
        } => match Channel::parse(&channel) {
            Ok(channel) => node.history(&channel, limit, since.as_deref()).map(|page| {
                let entry = |e: crate::node::HistoryEntry| WireEntry {
                    id: e.id,
                    event: e.event.as_str().to_owned(),
                    payload: e.payload.into(),
                    age: e.age,
                };
                Response::History {
                    entries: page.entries.into_iter().map(entry).collect(),
                    recovered: page.recovered,
                    oldest: page.oldest,
                }
            }),
            Err(invalid) => return bad(invalid),
        },
        Request::Stats => node.stats().map(Response::Stats),
        Request::Disconnect { user, code, reason } => {
            node.disconnect(&user, code, &reason).map(Response::Count)
        }
        Request::RevokeUser { user } => node.revoke_user(&user).map(Response::Count),
        Request::RevokeToken { token } => node.revoke_token(&token).map(Response::Count),
    };
    finish(asked)
}

fn finish(result: Result<Response, Failure>) -> Response {
    result.unwrap_or_else(|failure| {
        Response::Failed(match failure {
            Failure::TooLarge { size, limit } => WireFailure::TooLarge { size, limit },
            Failure::Busy => WireFailure::Busy,
            Failure::Stopped => WireFailure::Stopped,
            Failure::Refused(reason) => WireFailure::Refused(reason),
            Failure::Link(reason) => WireFailure::Bad(reason),
        })
    })
}

fn bad(invalid: InvalidId) -> Response {
    Response::Failed(WireFailure::Bad(format!("the name must {invalid}")))
}
