//! One accepted socket: HTTP/1.1 by hyper, until it ends or a route takes the socket over.
//!
//! Called by `server` for each socket that its listener accepts. Imports the routes and what they turn into.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;

use super::routes::{self, Requests};
use super::stream::{self, Stream};
use super::websocket::{self, WebSocket};
use super::{Shared, pusher};
use crate::limits::Place;
use crate::socket::Socket;
use crate::tls::{NotTls, Tls};

/// The largest request head, in bytes. Browsers' cookies alone may have 8 KiB.
const HEAD_MAX: usize = 32 << 10;
/// Header lines in a request.
const HEADERS_MAX: usize = 100;
/// How long a closed socket may still say what nobody reads, so that its last answer arrives.
const LINGER: Duration = Duration::from_secs(2);

/// The answer to HTTP where TLS is spoken.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"tls_required\",\"message\":\"this address speaks TLS: use https:// or wss:// here\"}}\n";

/// What a socket becomes when its route has answered.
#[derive(Debug)]
pub enum Takeover {
    /// `/ws` and `/raw`
    WebSocket(WebSocket),
    /// `/sse` and `/stream`
    Stream(Stream),
    /// A client that is sent away, with its last bytes.
    Farewell(Bytes),
}

/// Serves one socket until it ends.
pub async fn serve(shared: Rc<Shared>, socket: socket2::Socket, ip: Box<str>, place: Place) {
    let Some(socket) = begin(&shared, socket, place).await else {
        return;
    };
    let blocked = Rc::new(Cell::new(false));
    let asked = Rc::new(Cell::new(false));
    let taken = Rc::new(RefCell::new(None));
    let requests = Rc::new(Requests {
        shared: shared.clone(),
        ip,
        secure: socket.is_secure(),
        pace: RefCell::default(),
        taken: taken.clone(),
        asked: asked.clone(),
    });
    let heard = Rc::new(Cell::new(false));
    let hears = heard.clone();
    let service = service_fn(move |request| {
        hears.set(true);
        Box::pin(routes::answer(requests.clone(), request))
    });
    let io = Io {
        socket: socket.clone(),
        blocked: blocked.clone(),
        patience: shared.node.config().handshake_timeout,
        late: None,
    };
    // Boxed, so that the memory of HTTP is free as soon as a WebSocket or a stream has taken over.
    let mut connection = Box::new(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.node.config().handshake_timeout)
            .max_header_size(HEAD_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service),
    );
    let mut leaving = shared.leaving.clone();
    // An error means that the server has ended.
    let mut moved = Some(Box::pin(async move {
        leaving.wait_for(Option::is_some).await.is_ok()
    }));
    let mut told = false;
    let result = std::future::poll_fn(|cx| {
        if let Some(Poll::Ready(_)) = moved.as_mut().map(|moved| moved.as_mut().poll(cx)) {
            moved = None;
        }
        loop {
            // Whoever has just been accepted gets an answer, and whoever is being answered the rest of it. The next request
            // must come on a new socket, which is another hub's.
            if moved.is_none() && heard.get() && !told {
                told = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            match connection.poll_without_shutdown(cx) {
                Poll::Ready(result) => return Poll::Ready(result),
                // The head of an endless answer is on its way, and nothing of it is left in hyper's buffer.
                Poll::Pending if asked.get() && !blocked.get() => return Poll::Ready(Ok(())),
                Poll::Pending if moved.is_none() && heard.get() && !told => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    let rest = connection.into_parts().read_buf;
    let taken = taken.borrow_mut().take();
    match (result, taken) {
        (Ok(()), Some(Takeover::WebSocket(websocket))) => {
            tokio::task::spawn_local(websocket::run(shared, websocket, socket, rest));
        }
        (Ok(()), Some(Takeover::Stream(stream))) => {
            tokio::task::spawn_local(stream::run(shared, stream, socket));
        }
        (Ok(()), Some(Takeover::Farewell(farewell))) => {
            tokio::task::spawn_local(pusher::send_away(socket, farewell));
        }
        (Ok(()), None) => linger(&socket).await,
        (Err(error), _) => {
            tracing::debug!(%error, "a connection ended in its HTTP part");
            linger(&socket).await;
        }
    }
}

/// The socket as the shard works with it, its TLS agreed on.
async fn begin(shared: &Shared, socket: socket2::Socket, place: Place) -> Option<Rc<Socket>> {
    let offer = shared.node.tls().map(Tls::offer);
    let session = match offer.map(|offer| shared.desk.session(offer)).transpose() {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "cannot begin TLS with a client");
            return None;
        }
    };
    let socket = match Socket::new(socket, place, session) {
        Ok(socket) => Rc::new(socket),
        Err(error) => {
            tracing::warn!(%error, "cannot watch a client's socket");
            return None;
        }
    };
    if !socket.is_secure() {
        return Some(socket);
    }
    let within = shared.node.config().handshake_timeout;
    // Boxed, so that its memory is free when it is done.
    let handshake = Box::pin(socket.handshake(&shared.desk));
    match tokio::time::timeout(within, handshake).await {
        Ok(Ok(())) => return Some(socket),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            let other = error.get_ref().and_then(|error| error.downcast_ref());
            if let Some(NotTls { http: true }) = other {
                socket.send_bare(PLAIN_HTTP);
            }
            linger(&socket).await;
        }
        Err(_) => tracing::debug!("a TLS handshake took longer than realtime.handshake_timeout"),
    }
    None
}

/// Ends the sending side, and reads to the end for a moment: closing with bytes unread would reset the connection, and
/// the client might never see the last answer.
pub async fn linger(socket: &Socket) {
    socket.finish();
    let rest = std::future::poll_fn(|cx| {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut budget = 64;
        loop {
            match ready!(socket.poll_read_bare(cx, &mut buffer)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) if budget == 0 => return Poll::Ready(()),
                Ok(_) => budget -= 1,
            }
        }
    });
    // Late or not, the socket is closed now.
    let _ = tokio::time::timeout(LINGER, rest).await;
    socket.abort();
}

/// The socket as hyper reads and writes it.
struct Io {
    socket: Rc<Socket>,
    /// Whether the last write found the kernel's buffer full.
    blocked: Rc<Cell<bool>>,
    /// How long a client may read nothing of an answer.
    patience: Duration,
    /// When that is over; only while it reads nothing.
    late: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Io {
    /// Waits until the socket takes more, but not for ever.
    fn poll_patiently(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let patience = self.patience;
        let late = self
            .late
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.socket.poll_writable(cx)
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: the cursor's memory is borrowed by this call alone; recv() only writes initialized bytes into it.
        let room = unsafe { buffer.as_mut() };
        if room.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let count = ready!(self.socket.poll_read(cx, room))?;
        // SAFETY: recv() has just initialized the first `count` bytes.
        unsafe { buffer.advance(count) };
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked.set(true);
                    ready!(self.poll_patiently(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.blocked.set(false);
                    self.late = None;
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.socket.drain()? {
            ready!(self.poll_patiently(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.finish();
        Poll::Ready(Ok(()))
    }
}
