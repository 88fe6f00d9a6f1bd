//! A client's socket, TCP or Unix: non-blocking, registered with the shard's runtime, sent to directly.
//!
//! Reading goes through the runtime's readiness. Sending is one system call by whoever has something to send; only
//! when the kernel's buffer is full does the connection's task wait for readiness. With TLS both go through the
//! connection's `tls::Session`, and nobody above notices but by [`Socket::drain`]. Imports `limits` and `tls`.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::Place;
use crate::tls::{Desk, Session};

/// One client's socket.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<socket2::Socket>,
    /// Borrowed within one call here only.
    tls: Option<Box<RefCell<Session>>>,
    /// Its place among all sockets, free again when this one is closed.
    _place: Place,
}

impl Socket {
    /// Registers `socket`, which must be non-blocking, with the runtime of the current thread. With `tls` the
    /// [`Socket::handshake`] comes first.
    pub fn new(socket: socket2::Socket, place: Place, tls: Option<Session>) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the descriptor is the socket's own, which `fd` owns from here on and closes after it has been
        // deregistered; nobody else in this process has it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, interest) }?;
        Ok(Self {
            fd,
            tls: tls.map(|session| Box::new(RefCell::new(session))),
            _place: place,
        })
    }

    /// Whether what is sent is encrypted.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Agrees on keys with the client, if there is TLS. Takes as long as the client likes.
    pub async fn handshake(&self, desk: &Desk) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        loop {
            std::future::poll_fn(|cx| self.poll_drained(cx)).await?;
            let (done, ended) = {
                let tls = tls.borrow();
                (!tls.is_handshaking(), tls.has_ended())
            };
            if done {
                return Ok(());
            }
            if ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut guard = self.fd.readable().await?;
            let turn = desk.turn().acquire().await;
            match guard.try_io(|fd| tls.borrow_mut().read(fd.get_ref(), &mut [])) {
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
            }
            // Whoever has something else to do comes before the next client's step.
            tokio::task::yield_now().await;
            drop(turn);
        }
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        match &self.tls {
            Some(tls) => self.poll_decrypt(tls, cx, buffer),
            None => self.poll_read_bare(cx, buffer),
        }
    }

    /// Reads past TLS, from a client that does not speak it, or whose words are of no interest any more.
    pub fn poll_read_bare(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| fd.get_ref().recv(buffer)) {
                Ok(Ok(count)) => {
                    if count > 0 && count < buffer.len() {
                        // Less than asked for: the kernel's buffer is empty, and epoll (edge-triggered) will
                        // tell when it no longer is. Saves the read that would only say EAGAIN.
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// The same through TLS. Ready with 0 at the end of the stream only.
    fn poll_decrypt(
        &self,
        tls: &RefCell<Session>,
        cx: &mut Context<'_>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Poll<io::Result<usize>> {
        loop {
            {
                let mut tls = tls.borrow_mut();
                let count = tls.take(buffer);
                if count > 0 || tls.has_ended() {
                    return Poll::Ready(Ok(count));
                }
            }
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| tls.borrow_mut().read(fd.get_ref(), buffer)) {
                Ok(Ok(read)) => {
                    if read.drained {
                        guard.clear_ready();
                    }
                    if read.count > 0 {
                        return Poll::Ready(Ok(read.count));
                    }
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Sends what fits into the kernel's buffer, at once or not at all (`WouldBlock`). With TLS some of it may still be on
    /// this side: see [`Socket::drain`].
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => tls.borrow_mut().send(self.fd.get_ref(), bytes),
            None => send(self.fd.get_ref(), bytes),
        }
    }

    /// Sends what TLS has encrypted and the kernel's buffer had no room for. Whether nothing is left of it.
    pub fn drain(&self) -> io::Result<bool> {
        match &self.tls {
            Some(tls) => tls.borrow_mut().drain(self.fd.get_ref()),
            None => Ok(true),
        }
    }

    /// Ready when nothing is left to [`Socket::drain`].
    pub fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.drain()? {
            ready!(self.poll_writable(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends past TLS, to a client that does not speak it. A courtesy: it may be lost.
    pub fn send_bare(&self, bytes: &[u8]) {
        let _ = send(self.fd.get_ref(), bytes);
    }

    /// The descriptor, valid for as long as this lives, if bytes may be sent there as they are.
    pub fn raw(&self) -> Option<RawFd> {
        self.tls.is_none().then(|| self.fd.as_raw_fd())
    }

    /// Ready when [`Socket::send`] is worth another try after `WouldBlock`.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            // The cached readiness may be older than the WouldBlock that brought the caller here.
            if is_writable(self.fd.get_ref()) {
                return Poll::Ready(Ok(()));
            }
            // An edge between the question and this line is not lost: only the driver of this same thread
            // records it, later.
            guard.clear_ready();
        }
    }

    /// Has the kernel end the connection when what was sent has not arrived for so long: the peer has gone without a word.
    pub fn give_up_after(&self, time: Duration) {
        // Fails for a Unix socket, whose peer cannot go like that.
        let _ = self.fd.get_ref().set_tcp_user_timeout(Some(time));
    }

    /// Ends the sending side, so that the peer reads the end of the stream.
    pub fn finish(&self) {
        if let Some(tls) = &self.tls {
            tls.borrow_mut().close(self.fd.get_ref());
        }
        // Fails only when the peer has gone already.
        let _ = self.fd.get_ref().shutdown(Shutdown::Write);
    }

    /// Ends both sides at once, also for copies of the descriptor in forked children.
    pub fn abort(&self) {
        let _ = self.fd.get_ref().shutdown(Shutdown::Both);
    }
}

/// One system call, and no SIGPIPE when the peer has gone.
pub fn send(socket: &socket2::Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, libc::MSG_NOSIGNAL)
}

/// Asks the kernel whether `socket` takes bytes now (or is broken, which a send will tell).
fn is_writable(socket: &socket2::Socket) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one pollfd on this stack, which nobody else can reach; with no time-out it returns at once.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}
