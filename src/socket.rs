//! A client's socket, TCP or Unix: non-blocking, registered with the shard's runtime, sent to directly.
//!
//! Reading goes through the runtime's readiness. Sending is one system call by whoever has something to send; only
//! when the kernel's buffer is full does the connection's task wait for readiness. Imports `limits`.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::Place;

/// One client's socket.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<socket2::Socket>,
    /// Its place among all sockets, free again when this one is closed.
    _place: Place,
}

impl Socket {
    /// Registers `socket`, which must be non-blocking, with the runtime of the current thread.
    pub fn new(socket: socket2::Socket, place: Place) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the descriptor is the socket's own, which `fd` owns from here on and closes after it has been
        // deregistered; nobody else in this process has it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, interest) }?;
        Ok(Self { fd, _place: place })
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    pub fn poll_read(
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

    /// Sends what fits into the kernel's buffer, at once or not at all (`WouldBlock`).
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        send(self.fd.get_ref(), bytes)
    }

    /// The descriptor, valid for as long as this lives.
    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
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

    /// Ends the sending side, so that the peer reads the end of the stream.
    pub fn finish(&self) {
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
