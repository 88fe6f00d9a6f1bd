//! Connections to the pool that runs the handler: kept for the next request, but not for long.
//!
//! Lives on the handler's thread. Imports `config`.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::ListenAddress;

/// How long a connection is kept without a request.
///
/// A process of PHP-FPM serves nobody else while it waits on a connection, and a reload waits for it.
const KEPT: Duration = Duration::from_millis(200);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long to wait after the first failure to connect; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How much is read at a time, in bytes.
const READ: usize = 16 << 10;

/// The pool, as the server sees it.
#[derive(Debug)]
pub(super) struct Pool {
    address: ListenAddress,
    idle: RefCell<Vec<(Instant, Connection)>>,
    /// Something is idle.
    kept: Notify,
    /// While the pool cannot be reached: until when it is left alone, and how long that was.
    down: Cell<Option<(Instant, Duration)>>,
    /// What was said of it last, so that it is said once.
    told: RefCell<Option<String>>,
}

/// A connection to the pool.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    buffer: Box<[u8]>,
    /// Whether it has served a request already.
    pub(super) used: bool,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Pool {
    pub(super) fn new(address: ListenAddress) -> Self {
        Self {
            address: reachable(address),
            idle: RefCell::default(),
            kept: Notify::new(),
            down: Cell::new(None),
            told: RefCell::default(),
        }
    }

    /// Waits while the pool is to be left alone.
    pub(super) async fn rested(&self) {
        while let Some((until, _)) = self.down.get() {
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Whether it could not be reached the last time.
    pub(super) fn is_down(&self) -> bool {
        self.down.get().is_some()
    }

    /// A kept connection, unless it must be `new`, or a new one. `None`: the pool cannot be reached, and the operator knows.
    pub(super) async fn connection(&self, new: bool) -> Option<Connection> {
        // The last one first, so that no more are kept than are needed.
        while !new && let Some((_, mut connection)) = self.take() {
            if connection.is_quiet().await {
                return Some(connection);
            }
        }
        let stream = match tokio::time::timeout(CONNECT, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match stream {
            Ok(stream) => {
                self.reached();
                Some(Connection {
                    stream,
                    buffer: vec![0; READ].into(),
                    used: false,
                })
            }
            Err(error) => {
                self.unreachable(&format!("{error}{}", hint(&error)));
                None
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, mut connection: Connection) {
        connection.used = true;
        self.idle.borrow_mut().push((Instant::now(), connection));
        self.kept.notify_one();
    }

    /// Closes what was kept too long, for as long as it is polled.
    pub(super) async fn tidy(&self) {
        loop {
            // Oldest first.
            let oldest = self.idle.borrow().first().map(|(since, _)| *since);
            match oldest {
                None => self.kept.notified().await,
                Some(since) => {
                    tokio::time::sleep_until(since + KEPT).await;
                    let now = Instant::now();
                    self.idle
                        .borrow_mut()
                        .retain(|(since, _)| *since + KEPT > now);
                }
            }
        }
    }

    /// Notes that the pool takes no requests, and tells the operator once.
    pub(super) fn unreachable(&self, why: &str) {
        let now = Instant::now();
        let pause = match self.down.get() {
            None => PAUSE_MIN,
            // Another request has found the same.
            Some((until, _)) if until > now => return,
            Some((_, pause)) => (pause * 2).min(PAUSE_MAX),
        };
        self.down.set(Some((now + pause, pause)));
        let mut told = self.told.borrow_mut();
        if told.as_deref() != Some(why) {
            tracing::error!(
                "the pool that runs realtime.handler cannot be reached at {}: {why}. What clients send waits",
                self.address
            );
            *told = Some(why.to_owned());
        }
    }

    fn reached(&self) {
        self.down.set(None);
        if self.told.borrow_mut().take().is_some() {
            tracing::warn!(
                "the pool that runs realtime.handler is back at {}",
                self.address
            );
        }
    }

    fn take(&self) -> Option<(Instant, Connection)> {
        self.idle.borrow_mut().pop()
    }

    async fn connect(&self) -> io::Result<Stream> {
        match &self.address {
            ListenAddress::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            ListenAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

impl Connection {
    /// Sends what it can of `rest`, and waits for bytes of the answer. None: the pool has closed the connection.
    pub(super) async fn exchange(&mut self, rest: &mut &[u8]) -> io::Result<&[u8]> {
        let Self { stream, buffer, .. } = self;
        let count = std::future::poll_fn(|cx| {
            while !rest.is_empty() {
                match stream.poll_write(cx, rest) {
                    Poll::Ready(Ok(sent)) => *rest = &rest[sent..],
                    // What it has answered before it closed is still to be read.
                    Poll::Ready(Err(_)) => *rest = &[],
                    Poll::Pending => break,
                }
            }
            stream.poll_read(cx, buffer)
        })
        .await?;
        Ok(&self.buffer[..count])
    }

    /// Whether the pool has neither closed it nor said anything unasked.
    async fn is_quiet(&mut self) -> bool {
        let Self { stream, buffer, .. } = self;
        std::future::poll_fn(|cx| Poll::Ready(stream.poll_read(cx, buffer).is_pending())).await
    }
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        };
        read.map_ok(|()| buffer.filled().len())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// A pool that listens on every address is reached on this machine's own.
fn reachable(address: ListenAddress) -> ListenAddress {
    let ListenAddress::Tcp(text) = &address else {
        return address;
    };
    match text.parse::<SocketAddr>() {
        Ok(mut any) if any.ip().is_unspecified() => {
            any.set_ip(match any {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            ListenAddress::Tcp(any.to_string())
        }
        _ => address,
    }
}

/// What an operator may do about it.
fn hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            // SAFETY: geteuid() reads a number of this process and cannot fail.
            let uid = unsafe { libc::geteuid() };
            format!(
                " (the server runs as user {uid}: see listen.owner, listen.group, listen.mode and listen.acl_users of \
                 the pool)"
            )
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            " (is PHP-FPM running? see realtime.fastcgi)".to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_on_every_address_is_reached_on_loopback() {
        let at = |text: &str| reachable(ListenAddress::parse(text).unwrap()).to_string();
        assert_eq!(at("0.0.0.0:9000"), "127.0.0.1:9000");
        assert_eq!(at("[::]:9000"), "[::1]:9000");
        assert_eq!(at("192.0.2.1:9000"), "192.0.2.1:9000");
        assert_eq!(at("unix:/run/php.sock"), "unix:/run/php.sock");
    }
}
