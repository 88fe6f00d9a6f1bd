//! What waits to be sent to one connection: bytes shared with everybody else who gets them, in order, bounded.
//!
//! `hub` puts in; what comes out goes to the connection's [`Socket`] or, for long polling, into the next answer.
//! Imports `socket` and `message`.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};

use crate::socket::Socket;

/// How much of many small pieces is copied together for one write, in bytes.
///
/// Up to this size a copy and a plain send cost less than the kernel's walk over an iovec.
pub const GATHER: usize = 64 << 10;

/// What a waiting piece weighs beside its bytes.
const PIECE_COST: usize = size_of::<Bytes>();

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Whether `pieces[0]` has been sent in part: it must be finished before anything else.
    started: bool,
}

/// How a flush ended.
#[derive(Debug)]
pub enum Flushed {
    /// Everything is on its way.
    All,
    /// The kernel's buffer is full; go on when the socket is writable.
    Blocked,
    /// The connection is gone.
    Broken(io::Error),
}

impl Outbox {
    /// Puts `piece` at the end.
    pub fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// Puts in what is left of `piece`, of which `sent` bytes are on their way already. The outbox must be empty.
    pub fn push_rest(&mut self, mut piece: Bytes, sent: usize) {
        piece.advance(sent);
        self.started = sent > 0;
        self.push(piece);
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What waits, with what keeping each piece costs: a backlog of many tiny messages must be bounded too.
    pub fn weight(&self) -> usize {
        self.bytes + self.pieces.len() * PIECE_COST
    }

    /// Whether a piece of `more` bytes may be put in, when `limit` bytes may wait. A single piece always may: its size
    /// says nothing about how fast the client reads.
    pub fn has_room(&self, more: usize, limit: usize) -> bool {
        self.is_empty() || self.weight() + more <= limit
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets everything but a piece that has been sent in part: cutting it would break the stream.
    pub fn discard(&mut self) {
        let keep = usize::from(self.started);
        self.pieces.truncate(keep);
        self.bytes = self.pieces.iter().map(Bytes::len).sum();
    }

    /// Takes everything out, unsent.
    pub fn take(&mut self) -> VecDeque<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }

    /// Sends what waits, in as few writes as it takes. `gather` is working space for [`GATHER`] bytes.
    pub fn flush(&mut self, socket: &Socket, gather: &mut Vec<u8>) -> Flushed {
        while let Some(first) = self.pieces.front() {
            let result = if self.pieces.len() == 1 || first.len() >= GATHER {
                socket.send(first)
            } else {
                gather.clear();
                for piece in &self.pieces {
                    if gather.len() + piece.len() > GATHER {
                        break;
                    }
                    gather.extend_from_slice(piece);
                }
                socket.send(gather)
            };
            match result {
                Ok(sent) => self.sent(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Flushed::Broken(error),
            }
        }
        // A burst's capacity is not kept by a connection that may stay idle for hours.
        if self.pieces.capacity() > 16 {
            self.pieces = VecDeque::new();
        }
        match socket.drain() {
            Ok(true) => Flushed::All,
            Ok(false) => Flushed::Blocked,
            Err(error) => Flushed::Broken(error),
        }
    }

    fn sent(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = self.pieces.front_mut() {
            if count < first.len() {
                self.started = self.started || count > 0;
                first.advance(count);
                return;
            }
            count -= first.len();
            self.pieces.pop_front();
            self.started = false;
            if count == 0 {
                return;
            }
        }
    }
}
