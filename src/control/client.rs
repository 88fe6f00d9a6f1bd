//! The other side of the control socket: a process that is not the hub asks it. Blocking, with a time limit on every
//! call; no runtime and no thread, because this runs in PHP workers.
//!
//! Here is the link; `connect` makes one, `calls` has what can be asked. Called by `php`. Imports `wire::control` and `node`'s results.

mod calls;
mod connect;

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::SockRef;

pub use self::connect::ConnectError;
use crate::node::Failure;
use crate::wire::control::{self, Greeting, Identity, Request, Response, WireFailure, Worker};

/// The largest answer, in bytes: lists of connections and histories.
const ANSWER_MAX: usize = 1 << 30;

/// How much is read at first, in bytes: nearly all answers are shorter.
const READ_FIRST: usize = 512;

/// The largest buffer that is kept for the next call, in bytes.
const KEPT: usize = 1 << 20;

/// A link to the hub. After an error it is broken: connect anew.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    socket: PathBuf,
    timeout: Duration,
    worker: Option<Worker>,
    greeting: Greeting,
    /// The request, framed.
    request: Vec<u8>,
    /// What was read of the answer.
    buffer: Vec<u8>,
    /// The hub has said something that nobody had asked for: that it has gone.
    moved: bool,
}

impl Client {
    /// Whether the hub is still there, as far as one system call can tell.
    pub fn is_alive(&self) -> bool {
        let mut byte = 0u8;
        // SAFETY: receives at most one byte into a local of one byte; the descriptor is open for as long as the stream.
        let received = unsafe {
            libc::recv(
                self.stream.as_raw_fd(),
                (&raw mut byte).cast(),
                1,
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            )
        };
        // 0 is its end. Anything to read would be an answer that nobody asked for.
        received < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
    }

    /// The user whose process the hub is.
    pub fn owner(&self) -> io::Result<u32> {
        connect::owner(&self.stream)
    }

    /// Sets how long a call on the link may take from now on.
    pub fn limit(&mut self, time: Duration) {
        self.timeout = time;
        // Fails only for a link that is broken, as the next call will find.
        let _ = set_timeouts(SockRef::from(&self.stream), time);
    }

    /// The link itself. Nothing but the greeting has been read from it.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// The hub's largest message.
    pub fn max_message_size(&self) -> usize {
        self.greeting.max_message_size
    }

    /// The hub's process.
    pub fn pid(&self) -> u32 {
        self.greeting.pid
    }

    /// Which hub it is.
    pub fn identity(&self) -> &Identity {
        &self.greeting.identity
    }

    /// Where the hub's clients connect.
    pub fn address(&self) -> &str {
        &self.greeting.address
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Response, Failure> {
        control::frame_into(&mut self.request, request);
        let deadline = Instant::now() + self.timeout;
        let response = loop {
            let response = match self.moved {
                true => Response::Failed(WireFailure::Moved),
                false => self.answer(deadline)?,
            };
            // The new hub's: the old one has said that it did nothing, so it is done once and not twice.
            if !matches!(response, Response::Failed(WireFailure::Moved))
                || Instant::now() > deadline
            {
                break response;
            }
            // All of it together takes no longer than one call may.
            let left = deadline.saturating_duration_since(Instant::now());
            let fresh = Self::connect_as(&self.socket, left, self.worker.take())
                .map_err(|error| Failure::Link(error.to_string()))?;
            let timeout = self.timeout;
            let request = std::mem::take(&mut self.request);
            *self = Self { request, ..fresh };
            self.limit(timeout);
        };
        for buffer in [&mut self.buffer, &mut self.request] {
            if buffer.capacity() > KEPT {
                *buffer = Vec::new();
            }
        }
        match response {
            Response::Failed(WireFailure::TooLarge { size, limit }) => {
                Err(Failure::TooLarge { size, limit })
            }
            Response::Failed(WireFailure::Busy) => Err(Failure::Busy),
            Response::Failed(WireFailure::Stopped) => Err(Failure::Stopped),
            Response::Failed(WireFailure::Bad(reason)) => Err(Failure::Link(reason)),
            Response::Failed(WireFailure::Refused(reason)) => Err(Failure::Refused(reason)),
            Response::Failed(WireFailure::Moved) => {
                Err(self.broken(&io::ErrorKind::TimedOut.into()))
            }
            response => Ok(response),
        }
    }

    fn answer(&mut self, deadline: Instant) -> Result<Response, Failure> {
        self.exchange(ANSWER_MAX, deadline)
            .map_err(|error| self.broken(&error))?;
        control::read(&self.buffer).map_err(|error| self.broken(&io::Error::other(error)))
    }

    /// Sends the frame in `request` and reads one into `buffer`. Two system calls where the answer is short.
    fn exchange(&mut self, limit: usize, deadline: Instant) -> io::Result<()> {
        // Each read has its own time limit, as set for the link; where much of the time is over, it gets less.
        let nearly = self.timeout / 10 * 9;
        let mut shortened = false;
        let sent = self.stream.write_all(&self.request);
        if let Err(error) = &sent
            && !matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        {
            return sent;
        }
        // A hub that has gone may have said where to.
        self.buffer.clear();
        self.buffer.resize(READ_FIRST, 0);
        let mut filled = 0;
        let mut wanted = 4;
        while filled < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if left < nearly {
                self.stream.set_read_timeout(Some(left))?;
                shortened = true;
            }
            match self.stream.read(&mut self.buffer[filled..]) {
                Ok(0) => {
                    sent?;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if wanted == 4 && filled >= 4 {
                let length = [
                    self.buffer[0],
                    self.buffer[1],
                    self.buffer[2],
                    self.buffer[3],
                ];
                wanted = 4 + u32::from_le_bytes(length) as usize;
                if wanted - 4 > limit {
                    return Err(io::Error::other(
                        "what listens there does not answer as a realtime server does",
                    ));
                }
                self.buffer.resize(wanted.max(filled), 0);
            }
        }
        if shortened {
            self.stream.set_read_timeout(Some(self.timeout))?;
        }
        self.moved = filled > wanted;
        self.buffer.truncate(wanted);
        self.buffer.drain(..4);
        Ok(())
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let socket = self.socket.display();
        Failure::Link(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!(
                    "the realtime server on {socket} did not answer within realtime.timeout; it may still do what it \
                     was asked for"
                )
            }
            _ => format!("the link to the realtime server on {socket} broke: {error}"),
        })
    }

    /// Which is not shown: it may have cookies and tokens.
    fn unexpected(&self) -> Failure {
        self.broken(&io::Error::other("an answer to another question"))
    }
}

fn set_timeouts(socket: SockRef<'_>, time: Duration) -> io::Result<()> {
    // Zero would mean for ever.
    let time = time.max(Duration::from_millis(1));
    socket.set_read_timeout(Some(time))?;
    socket.set_write_timeout(Some(time))
}
