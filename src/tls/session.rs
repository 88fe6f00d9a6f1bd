//! The TLS of one connection, without buffers of its own while nothing waits: there may be a hundred thousand.
//!
//! rustls takes records out of memory that is lent to it, and puts records into such memory; both are the shard's
//! ([`Room`]). A session itself keeps only what could not be finished: a record that has come in part, what was decrypted
//! and has not been asked for, and what was encrypted and did not fit into the kernel's buffer. Each of the three is at
//! most some 64 KiB, and gone with the next read or write. Called by `socket`.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{Error, ServerConfig};

/// The longest record: a header, 2^14 bytes, and what TLS 1.2 lets a cipher add (RFC 5246, section 6.2.3).
const RECORD_MAX: usize = 5 + (16 << 10) + 2048;
/// How much is encrypted at once, in bytes.
const CHUNK: usize = 64 << 10;
/// What a chunk may become: four records, and what TLS itself has to say.
const CHUNK_SEALED: usize = CHUNK + 4096;
/// The first byte of a handshake record.
const HANDSHAKE: u8 = 22;

/// What the connections of one shard read into and write from; in use within one call only.
#[derive(Debug, Default)]
pub struct Room {
    input: RefCell<Vec<u8>>,
    output: RefCell<Vec<u8>>,
}

/// One connection's TLS.
pub struct Session {
    connection: UnbufferedServerConnection,
    room: Rc<Room>,
    /// The beginning of a record whose end has not come.
    incoming: Vec<u8>,
    /// Decrypted, from `read` on not yet asked for.
    plain: Vec<u8>,
    read: usize,
    /// Encrypted, from `sent` on not yet in the kernel's buffer.
    outgoing: Vec<u8>,
    sent: usize,
    /// Something has come from the client.
    begun: bool,
    /// The client sends no more.
    ended: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// A client that speaks something else.
#[derive(Debug, thiserror::Error)]
#[error("the client does not speak TLS")]
pub struct NotTls {
    /// Whether that looks like HTTP.
    pub http: bool,
}

/// How a read went.
#[derive(Debug)]
pub struct Read {
    /// Decrypted bytes, now at the beginning of the caller's buffer.
    pub count: usize,
    /// Whether the kernel had less than there was room for.
    pub drained: bool,
}

impl Session {
    pub(super) fn new(offer: Arc<ServerConfig>, room: Rc<Room>) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(offer)?,
            room,
            incoming: Vec::new(),
            plain: Vec::new(),
            read: 0,
            outgoing: Vec::new(),
            sent: 0,
            begun: false,
            ended: false,
        })
    }

    /// Whether the keys are not agreed on yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the client sends no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Moves what is decrypted already into `buffer`. 0 when there is nothing.
    pub fn take(&mut self, buffer: &mut [MaybeUninit<u8>]) -> usize {
        let waiting = &self.plain[self.read..];
        let count = waiting.len().min(buffer.len());
        copy(&mut buffer[..count], &waiting[..count]);
        self.read += count;
        if self.read == self.plain.len() {
            (self.plain, self.read) = (Vec::new(), 0);
        }
        count
    }

    /// Reads from `socket` once and decrypts into `buffer`; nothing may be left to [`Session::take`]. The count may be 0
    /// without the client's having ended: TLS had something to say to itself.
    pub fn read(
        &mut self,
        socket: &socket2::Socket,
        buffer: &mut [MaybeUninit<u8>],
    ) -> io::Result<Read> {
        let room = self.room.clone();
        let mut input = room.input.borrow_mut();
        input.clear();
        input.reserve_exact(RECORD_MAX);
        input.extend_from_slice(&self.incoming);
        let spare = RECORD_MAX - input.len();
        if spare == 0 {
            return Err(invalid("a record that has no end"));
        }
        let received = socket.recv(&mut input.spare_capacity_mut()[..spare])?;
        // SAFETY: recv() has just initialized so many bytes of the spare capacity.
        unsafe { input.set_len(self.incoming.len() + received) };
        self.ended |= received == 0;
        if !self.begun && received > 0 {
            self.begun = true;
            if input[0] != HANDSHAKE {
                let http = input[0].is_ascii_uppercase();
                return Err(io::Error::new(io::ErrorKind::InvalidData, NotTls { http }));
            }
        }
        let mut sink = Sink { buffer, count: 0 };
        let used = self.open(&mut input, &mut sink).map_err(|error| {
            self.collect_alert();
            // A courtesy: the connection is over in any case.
            let _ = self.drain(socket);
            invalid(error)
        })?;
        // Most often nothing, and then nothing is kept.
        self.incoming = input[used..].to_vec();
        self.drain(socket)?;
        Ok(Read {
            count: sink.count,
            drained: received < spare,
        })
    }

    /// Encrypts the beginning of `bytes` and sends it. What is returned as sent is on its way or kept here: see
    /// [`Session::drain`]. `WouldBlock` while something is kept from before.
    pub fn send(&mut self, socket: &socket2::Socket, bytes: &[u8]) -> io::Result<usize> {
        if !self.drain(socket)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        let room = self.room.clone();
        let mut output = room.output.borrow_mut();
        output.resize(CHUNK_SEALED, 0);
        let sealed = self.seal(bytes, &mut output)?;
        let sealed = &output[..sealed];
        let sent = send_some(socket, sealed)?;
        self.outgoing.extend_from_slice(&sealed[sent..]);
        Ok(bytes.len())
    }

    /// Sends what is kept. Whether nothing is left.
    pub fn drain(&mut self, socket: &socket2::Socket) -> io::Result<bool> {
        while self.sent < self.outgoing.len() {
            match send_some(socket, &self.outgoing[self.sent..])? {
                0 => return Ok(false),
                count => self.sent += count,
            }
        }
        if self.sent > 0 {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
        Ok(true)
    }

    /// Tells the client that nothing more comes, behind what is kept.
    pub fn close(&mut self, socket: &socket2::Socket) {
        let mut record = [0; 256];
        let status = self.connection.process_tls_records(&mut self.incoming);
        if let Ok(ConnectionState::WriteTraffic(mut writing)) = status.state
            && let Ok(count) = writing.queue_close_notify(&mut record)
        {
            self.outgoing.extend_from_slice(&record[..count]);
        }
        // The connection ends, whether that gets through or not.
        let _ = self.drain(socket);
    }

    /// Takes the whole records of `input`. Returns how many bytes they had.
    fn open(&mut self, input: &mut [u8], sink: &mut Sink<'_>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut input[used..]);
            let mut more = true;
            match state? {
                ConnectionState::ReadTraffic(mut reading) => {
                    while let Some(record) = reading.next_record() {
                        let record = record?;
                        discard += record.discard;
                        sink.put(record.payload, &mut self.plain);
                    }
                }
                ConnectionState::EncodeTlsData(mut encoding) => {
                    append(&mut self.outgoing, |room| encoding.encode(room));
                }
                ConnectionState::TransmitTlsData(transmitting) => transmitting.done(),
                ConnectionState::PeerClosed => self.ended = true,
                ConnectionState::Closed => {
                    self.ended = true;
                    more = false;
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                    more = false;
                }
                // Early data is not offered, and this library has no other states.
                _ => return Err(Error::General("a state that does not occur".to_owned())),
            }
            used += discard;
            if !more {
                return Ok(used);
            }
        }
    }

    /// Encrypts `bytes` into `output`. Returns how many bytes they have become.
    fn seal(&mut self, bytes: &[u8], output: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        loop {
            // It has no whole record in it: those were taken when they came.
            let status = self.connection.process_tls_records(&mut self.incoming);
            match status.state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut writing) => {
                    let sealed = writing.encrypt(bytes, &mut output[used..]);
                    return Ok(used + sealed.map_err(invalid)?);
                }
                ConnectionState::EncodeTlsData(mut encoding) => {
                    used += encoding.encode(&mut output[used..]).map_err(invalid)?;
                }
                ConnectionState::TransmitTlsData(transmitting) => transmitting.done(),
                ConnectionState::PeerClosed => self.ended = true,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    /// Keeps what the client is told about the error that has just ended the session.
    fn collect_alert(&mut self) {
        while let Ok(ConnectionState::EncodeTlsData(mut encoding)) =
            self.connection.process_tls_records(&mut []).state
        {
            append(&mut self.outgoing, |room| encoding.encode(room));
        }
    }
}

/// Where decrypted bytes go: into the caller's buffer, and behind it into the session's own.
struct Sink<'a> {
    buffer: &'a mut [MaybeUninit<u8>],
    count: usize,
}

impl Sink<'_> {
    fn put(&mut self, bytes: &[u8], rest: &mut Vec<u8>) {
        let count = bytes.len().min(self.buffer.len() - self.count);
        copy(&mut self.buffer[self.count..][..count], &bytes[..count]);
        self.count += count;
        rest.extend_from_slice(&bytes[count..]);
    }
}

fn copy(to: &mut [MaybeUninit<u8>], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.write(*from);
    }
}

/// Has `encode` write behind what is in `kept`.
fn append(kept: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) {
    let before = kept.len();
    let needed = match encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        _ => return,
    };
    kept.resize(before + needed, 0);
    let written = encode(&mut kept[before..]).unwrap_or(0);
    kept.truncate(before + written);
}

/// Sends what fits; 0 when nothing does.
fn send_some(socket: &socket2::Socket, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match crate::socket::send(socket, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
