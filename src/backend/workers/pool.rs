//! Connections to the pool that runs the handler: kept for the next request, but not for long.
//!
//! Lives on the handler's thread. Imports `config`.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

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
    // Watched for reading alone: a process that reads a request makes room, which would wake this thread to no purpose.
    socket: AsyncFd<Socket>,
    /// The same, watched for writing, once a request did not fit.
    full: Option<AsyncFd<Socket>>,
    /// What of the requests did not fit.
    unsent: Vec<u8>,
    buffer: Box<[u8]>,
    /// What of the buffer has come and was not taken yet.
    unread: Range<usize>,
    /// Wakes whoever waits for the end of its time, and goes on from one request to the next: at worst it is early, and
    /// then put off. To set it for each request would cost as much as to read an answer.
    alarm: Pin<Box<Sleep>>,
    /// Whether it has served a request already.
    pub(super) used: bool,
}

/// What a wait for an answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Bytes: see [`Connection::unread`].
    Bytes,
    /// The pool has closed the connection.
    End,
    /// Nothing in time.
    TooLate,
    /// What is left of the requests cannot be sent.
    Stuck,
}

impl Came {
    fn of(count: usize) -> Self {
        match count {
            0 => Self::End,
            _ => Self::Bytes,
        }
    }
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

    /// Whether it is on this machine for certain.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.address, ListenAddress::Unix(_))
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
        let connected = match tokio::time::timeout(CONNECT, self.connect()).await {
            Ok(connected) => connected.and_then(Connection::new),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(connection) => {
                self.reached();
                Some(connection)
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

    async fn connect(&self) -> io::Result<Socket> {
        match &self.address {
            ListenAddress::Unix(path) => Ok(UnixStream::connect(path).await?.into_std()?.into()),
            ListenAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(stream.into_std()?.into())
            }
        }
    }
}

impl Connection {
    fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self {
            socket: watch(socket, Interest::READABLE)?,
            full: None,
            unsent: Vec::new(),
            buffer: vec![0; READ].into(),
            unread: 0..0,
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            used: false,
        })
    }

    /// Sends a request, behind those that were sent before: what does not fit now goes as room comes, while somebody waits
    /// in [`Connection::wait`].
    pub(super) fn send(&mut self, mut request: &[u8]) {
        if self.unsent.is_empty() {
            let _ = send(self.socket.get_ref(), &mut request);
        }
        self.unsent.extend_from_slice(request);
    }

    /// How many bytes of requests were not sent yet.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Waits until there are bytes to read, not longer than until `deadline`.
    pub(super) async fn wait(&mut self, deadline: Instant) -> io::Result<Came> {
        if !self.unread.is_empty() {
            return Ok(Came::Bytes);
        }
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                tracing::error!(%error, "cannot wait until the pool takes more");
                return Poll::Ready(Ok(Came::Stuck));
            }
            if let Poll::Ready(count) = self.poll_read(cx) {
                return Poll::Ready(count.map(Came::of));
            }
            // At worst it rings early, and is then set anew.
            if self.alarm.deadline() > deadline {
                self.alarm.as_mut().reset(deadline);
            }
            loop {
                if self.alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if Instant::now() >= deadline {
                    return Poll::Ready(Ok(Came::TooLate));
                }
                self.alarm.as_mut().reset(deadline);
            }
        })
        .await
    }

    /// What has come by now, whether or not anybody was told so. `None`: nothing.
    pub(super) fn look(&mut self) -> io::Result<Option<Came>> {
        match self.socket.get_ref().read(&mut self.buffer) {
            Ok(count) => {
                self.unread = 0..count;
                Ok(Some(Came::of(count)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What has come and was not taken.
    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.unread.clone()]
    }

    /// All of that was taken but its last `left` bytes.
    pub(super) fn taken(&mut self, left: usize) {
        self.unread.start = self.unread.end - left;
    }

    /// Whether the pool has neither closed it nor said anything unasked.
    async fn is_quiet(&mut self) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(self.poll_read(cx).is_pending())).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let read = ready.try_io(|socket| socket.get_ref().read(&mut self.buffer));
            if let Ok(read) = read {
                if read.as_ref().is_ok_and(|count| *count < self.buffer.len()) {
                    // There was no more: what comes from now on says so.
                    ready.clear_ready();
                }
                self.unread = 0..*read.as_ref().unwrap_or(&0);
                return Poll::Ready(read);
            }
        }
    }

    /// Sends what was not sent, as soon as there is room for it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let mut rest = &self.unsent[..];
            let sent = send(self.socket.get_ref(), &mut rest);
            let left = rest.len();
            self.unsent.drain(..self.unsent.len() - left);
            if sent.is_err() {
                let full = match &mut self.full {
                    Some(full) => full,
                    none => {
                        let copy = self.socket.get_ref().try_clone()?;
                        none.insert(watch(copy, Interest::WRITABLE)?)
                    }
                };
                // Room that came since is found at the next turn.
                ready!(full.poll_write_ready(cx))?.clear_ready();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Sends what there is room for, and leaves the rest; an error says that there is a rest.
fn send(socket: &Socket, rest: &mut &[u8]) -> Result<(), Full> {
    while !rest.is_empty() {
        // No signal when the pool has gone: who runs this process may not have it ignored.
        match socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
            Ok(sent) => *rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Full),
            // What it has answered before it closed is still to be read.
            Err(_) => *rest = &[],
        }
    }
    Ok(())
}

/// The socket takes no more for now.
#[derive(Debug)]
struct Full;

fn watch(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns its descriptor, always the same one, and closes it when the AsyncFd has dropped it; nobody
    // else has it.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
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
