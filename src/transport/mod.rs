//! How clients are connected. Each accepted socket begins as HTTP ([`http`]); [`routes`] decides what it becomes.
//!
//! A WebSocket or an endless stream takes the socket over from hyper and is served by a task of its own, which
//! holds no HTTP state; long polling and the rest are ordinary requests. All of it runs on the shard that owns the
//! socket. Imports `session`, `hub`, `socket` and `wire`.

pub mod http;

mod body;
mod extensions;
mod files;
mod forwarded;
#[cfg(fuzzing)]
pub mod fuzzing;
mod history;
mod library;
mod long_poll;
mod mailslot;
mod mercure;
mod origin;
mod publish;
mod pusher;
mod request;
mod response;
mod routes;
mod stream;
mod token;
mod upgrade;
mod websocket;

use std::sync::Arc;
use std::task::Context;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::hub::SharedHub;
use crate::node::Node;
use crate::pusher::Pusher;
use crate::session::Session;
use crate::tls::Desk;

pub use self::long_poll::Polls;

/// What every connection of a shard works with.
#[derive(Debug)]
pub struct Shared {
    /// The server.
    pub node: Arc<Node>,
    /// This shard's connections.
    pub hub: SharedHub,
    /// This shard's number.
    pub shard: u8,
    /// Long-polling clients between two polls, of all shards.
    pub polls: Arc<Polls>,
    /// What the clients and servers of the Pusher protocol share, of all shards.
    pub pusher: Arc<Pusher>,
    /// Set when another hub has taken over and this one closes its clients.
    pub leaving: watch::Receiver<Option<Instant>>,
    /// For those who speak TLS.
    pub desk: Desk,
}

/// Runs `work` while the connection's outbox goes on emptying.
async fn alongside<T>(session: &Session, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx: &mut Context<'_>| {
        // An error shows again when the connection is read.
        let _ = session.hub().borrow_mut().poll_task(session.slot(), cx);
        let done = work.as_mut().poll(cx);
        session.hub().borrow_mut().flush_dirty();
        done
    })
    .await
}
