//! Accepts clients and deals them out to the shards, one after the other.
//!
//! Runs on the control thread; what it hands over is served by `transport::http` on the shard. Imports `config`,
//! `limits` and `tls`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Semaphore, watch};

use super::listen::Listener;
use crate::config::Config;
use crate::limits::{self, Counts, Place};
use crate::tls;

/// A client on its way to a shard.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket, non-blocking.
    pub socket: socket2::Socket,
    /// Its address without the port; empty for a Unix socket.
    pub ip: Box<str>,
    /// Its place among all sockets.
    pub place: Place,
}

/// Sockets beyond `realtime.max_connections`: those that still have to say what they want, and answers without a
/// connection (files, health checks).
pub const SPARE: usize = 256;

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const GREEDY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Accepts until `closed` is true. Then everybody who was accepted has been handed on; with `to_the_last`, everybody who
/// waited, too: nobody else will accept there.
pub async fn run(
    listener: Rc<Listener>,
    shards: Vec<Sender<Accepted>>,
    places: Arc<Semaphore>,
    addresses: Arc<Counts>,
    config: Arc<Config>,
    mut closed: watch::Receiver<bool>,
    to_the_last: bool,
) {
    // SAFETY: the descriptor is the listener's own, of which `watched` holds a counted reference from here on, so that it
    // is not closed before it has been deregistered.
    let watched = match unsafe { AsyncFd::register(listener) } {
        Ok(watched) => watched,
        Err(error) => {
            tracing::error!(%error, "cannot watch the listening socket");
            return;
        }
    };
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            // An error means that whoever could open it again has gone.
            _ = closed.wait_for(|closed| *closed) => {
                match to_the_last.then(|| watched.get_ref().accept()) {
                    Some(Ok(accepted)) => prepare(accepted),
                    _ => return,
                }
            }
            accepted = accept(&watched) => accepted,
        };
        match accepted {
            Ok((socket, ip)) => {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    tracing::warn!(
                        "more than {} sockets are open, new ones are refused: raise realtime.max_connections",
                        config.max_connections + SPARE
                    );
                    refuse(&socket, FULL, &config);
                    continue;
                };
                // A proxy has the connections of all its clients; theirs are counted when they say who they are.
                let limit = match limits::is_counted(&ip, &config.trusted_proxies) {
                    true => config.max_connections_per_address,
                    false => 0,
                };
                let Some(of_address) = addresses.hold(&limits::owner(&ip), limit) else {
                    tracing::debug!(
                        ip,
                        "an address has more than {limit} sockets (realtime.max_connections_per_address)"
                    );
                    refuse(&socket, GREEDY, &config);
                    continue;
                };
                let place = Place::new(place, of_address);
                next = (next + 1) % shards.len();
                // Waits when the shard is behind; the kernel's backlog then holds the rest.
                if shards[next]
                    .send(Accepted { socket, ip, place })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                let hint = match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => {
                        ": raise the limit on open files (ulimit -n, LimitNOFILE=)"
                    }
                    _ => "",
                };
                tracing::warn!(%error, "cannot accept a client{hint}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A courtesy: the answer may be lost.
fn refuse(socket: &socket2::Socket, answer: &[u8], config: &Config) {
    let answer = if config.tls_cert.is_some() {
        tls::REFUSAL
    } else {
        answer
    };
    let _ = crate::socket::send(socket, answer);
}

async fn accept(watched: &AsyncFd<Rc<Listener>>) -> io::Result<(socket2::Socket, Box<str>)> {
    loop {
        let mut guard = watched.readable().await?;
        match guard.try_io(|listener| listener.get_ref().accept()) {
            Err(_would_block) => {}
            Ok(Ok(accepted)) => return prepare(accepted),
            Ok(Err(error)) if is_the_clients(&error) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// Its socket as a shard wants it, and its address.
fn prepare(
    (socket, peer): (socket2::Socket, socket2::SockAddr),
) -> io::Result<(socket2::Socket, Box<str>)> {
    socket.set_nonblocking(true)?;
    let ip: Box<str> = match peer.as_socket() {
        Some(address) => {
            // Messages are small and must not wait for each other.
            socket.set_tcp_nodelay(true)?;
            address.ip().to_canonical().to_string().into()
        }
        None => "".into(),
    };
    Ok((socket, ip))
}

/// The client gave up before it was accepted: nobody's fault here.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}
