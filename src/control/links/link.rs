//! One link: its socket, what was read of the next request and what is still to be written of the last answer.
//!
//! Owned by `serving`. Imports `message`, `store` and `wire::control`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Instant;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use tokio::sync::OwnedSemaphorePermit;

use crate::message::Publish;
use crate::store::Receipt;
use crate::wire::control::Response;

/// One link.
pub struct Link {
    stream: UnixStream,
    token: Token,
    /// The beginning of a request whose rest is to come.
    pub input: Vec<u8>,
    /// The rest of an answer that the other process has not taken yet.
    output: Vec<u8>,
    /// Whether the loop is told when the other process takes more.
    watched_for_writing: bool,
    /// What it waits for.
    pub doing: Doing,
    /// Whether it ends as soon as it has its answer.
    pub ending: bool,
    /// Whether the other process sends no more: then its end waits behind what it has sent, and no event will tell of it
    /// again.
    pub sends_no_more: bool,
    /// Its place among all links, free again when this one ends.
    _place: OwnedSemaphorePermit,
}

/// What a link waits for before its next request is looked at.
pub enum Doing {
    /// Nothing.
    Nothing,
    /// An answer from another thread.
    Asked,
    /// Room for the rest of a publication, in the shards or for the disk.
    Room {
        rest: Publish,
        /// Whether some of its copies are published.
        begun: bool,
        /// Until then.
        deadline: Instant,
    },
    /// The disk, until then; this is the answer.
    Stored(Response, Receipt, Instant),
}

impl Link {
    /// Takes a non-blocking stream into the loop.
    pub fn new(
        stream: StdStream,
        place: OwnedSemaphorePermit,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut stream = UnixStream::from_std(stream);
        // Not for writing: then each answer that the other process reads would wake this one.
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            token,
            input: Vec::new(),
            output: Vec::new(),
            watched_for_writing: false,
            doing: Doing::Nothing,
            ending: false,
            sends_no_more: false,
            _place: place,
        })
    }

    /// Whether its next request may be done.
    pub fn is_free(&self) -> bool {
        matches!(self.doing, Doing::Nothing) && self.output.is_empty() && !self.ending
    }

    /// Whether nothing has begun that would have to be ended.
    pub fn is_between_frames(&self) -> bool {
        self.is_free() && self.input.is_empty()
    }

    /// Reads what is there, up to `room`. `None` when nothing is, an error also at the end of the link.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match self.stream.read(room) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Writes an answer, after what is left of the one before.
    pub fn answer(&mut self, frame: &[u8], registry: &Registry) -> io::Result<()> {
        let sent = match self.output.is_empty() {
            true => self.send(frame)?,
            false => 0,
        };
        if sent < frame.len() {
            self.output.extend_from_slice(&frame[sent..]);
            self.watch_for_writing(true, registry)?;
        }
        Ok(())
    }

    /// Writes what is left of an answer, as far as it goes.
    pub fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let sent = self.send(&output)?;
        if sent < output.len() {
            self.output = output;
            self.output.drain(..sent);
            return Ok(());
        }
        self.watch_for_writing(false, registry)
    }

    /// Takes it out of the loop's books; the kernel forgets it when it is dropped.
    pub fn leave(mut self, registry: &Registry) {
        // Fails only when it was not in them.
        let _ = registry.deregister(&mut self.stream);
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    fn watch_for_writing(&mut self, writing: bool, registry: &Registry) -> io::Result<()> {
        if self.watched_for_writing == writing {
            return Ok(());
        }
        self.watched_for_writing = writing;
        let interest = match writing {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        registry.reregister(&mut self.stream, self.token, interest)
    }
}
