//! What the broadcast path needs of a connection, and nothing else: a few bytes side by side for all connections.
//!
//! A delivery to an idle connection touches its lane and its socket. Looking at the connection itself would cost
//! several cache misses, which for a thousand subscribers is a sixth of the whole price. Imports `socket` and `wire`.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;

use crate::socket::{self, Socket};
use crate::wire::Format;

/// One connection's lane, at the index of its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// None where bytes cannot be sent as they are: long polling, and TLS.
    socket: RawFd,
    pub(super) format: Format,
    /// Nothing waits, nothing is being replayed, and it is not closing: what comes next may go straight out.
    pub(super) open: bool,
    /// Something was sent since the last sweep.
    pub(super) sent: bool,
}

impl Lane {
    /// The lane of a connection with nothing to send.
    pub(super) fn new(format: Format, socket: Option<&Rc<Socket>>) -> Self {
        let socket = socket.and_then(|socket| socket.raw());
        Self {
            socket: socket.unwrap_or(-1),
            format,
            open: socket.is_some(),
            sent: true,
        }
    }

    /// Lets what comes next go straight out, if anything ever may.
    pub(super) fn reopen(&mut self) {
        self.open = self.socket >= 0;
    }

    /// Sends what fits into the kernel's buffer.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: only open lanes are sent to, and those have a descriptor. A lane is only used between its connection's
        // `add` and `remove`, and the connection holds the socket for all of that time; this thread alone adds and removes.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        socket::send(&socket2::SockRef::from(&socket), bytes)
    }
}
