//! The other side of the control socket: a process that is not the hub asks it. Blocking, with a time limit on every
//! call; no runtime and no thread, because this runs in PHP workers.
//!
//! Called by `php`. Imports `wire::control` and `node`'s results.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::broker::Walk;
use crate::config;
use crate::ids::{Channel, ConnectionId, Pattern};
use crate::message::{ConnectionInfo, EventName, Payload, Publish};
use crate::node::{ChannelSummary, Failure, HistoryEntry, HistoryPage, MemberSummary, Stats};
use crate::presence::Attendee;
use crate::wire::control::{
    self, Greeting, HELLO_MAX, Hello, Identity, Purpose, Request, Response, VERSION, WireFailure,
    Worker,
};

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

/// Why there is no link. For the operator; the text names the socket and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody is there.
    #[error(
        "no realtime server is running: nobody listens on the control socket {}. Start one with rt_listen() and \
         rt_run() in a `php` process of this user, or set realtime.socket to the socket of the one that runs",
        .0.display()
    )]
    Absent(PathBuf),
    /// Not for this user.
    #[error(
        "no access to the control socket {}: it belongs to another user. Run as that user, or set \
         realtime.socket_mode=0666 for the server",
        .0.display()
    )]
    Forbidden(PathBuf),
    /// It does not answer.
    #[error(
        "the realtime server on the control socket {} did not answer within realtime.timeout",
        .0.display()
    )]
    Silent(PathBuf),
    /// Somebody else listens where this user's own server would.
    #[error(
        "the control socket {} is another user's, although its name is of this user's server; name it in \
         realtime.socket if that is meant",
        .0.display()
    )]
    Foreign(PathBuf),
    /// It does not want us, and says why.
    #[error("the realtime server on the control socket {} refused: {reason}", .socket.display())]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// Its words.
        reason: String,
    },
    /// Anything else.
    #[error("cannot talk to the realtime server on the control socket {}: {error}", .socket.display())]
    Failed {
        /// The socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl ConnectError {
    /// Whether no hub runs there: also when one has ended before it could greet, of which its successor knows why.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Absent(_) => true,
            Self::Failed { error, .. } => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        }
    }
}

impl Client {
    /// Connects to the hub that listens on `socket`. Every call on the link takes at most `timeout`.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Self, ConnectError> {
        Self::open(socket, timeout, None, Purpose::Requests)
    }

    /// The same, by a process that says whose worker it is.
    pub fn connect_as(
        socket: &Path,
        timeout: Duration,
        worker: Option<Worker>,
    ) -> Result<Self, ConnectError> {
        Self::open(socket, timeout, worker, Purpose::Requests)
    }

    /// Connects for something else than calls; then [`Client::into_stream`] is the link.
    pub fn connect_for(
        purpose: Purpose,
        socket: &Path,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        Self::open(socket, timeout, None, purpose)
    }

    fn open(
        socket: &Path,
        timeout: Duration,
        worker: Option<Worker>,
        purpose: Purpose,
    ) -> Result<Self, ConnectError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ConnectError::Absent(socket.into())
            }
            io::ErrorKind::PermissionDenied => ConnectError::Forbidden(socket.into()),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ConnectError::Silent(socket.into())
            }
            _ => ConnectError::Failed {
                socket: socket.into(),
                error,
            },
        };
        let deadline = Instant::now() + timeout;
        let stream = connect(socket, timeout).map_err(failed)?;
        if socket == config::default_socket() && !is_trusted(&stream).map_err(failed)? {
            return Err(ConnectError::Foreign(socket.into()));
        }
        let mut client = Self {
            stream,
            socket: socket.into(),
            timeout,
            worker: worker.clone(),
            greeting: Greeting {
                version: 0,
                pid: 0,
                address: String::new(),
                max_message_size: 0,
                identity: Identity::default(),
                refused: None,
            },
            request: Vec::new(),
            buffer: Vec::new(),
            moved: false,
        };
        let hello = Hello {
            protocol: "realtime".into(),
            version: VERSION,
            worker,
            purpose,
        };
        client.request = control::json_frame(&hello);
        client.exchange(HELLO_MAX, deadline).map_err(failed)?;
        client.greeting = serde_json::from_slice(&client.buffer)
            .map_err(|error| failed(io::Error::other(error)))?;
        match client.greeting.refused.take() {
            None => Ok(client),
            Some(reason) => Err(ConnectError::Refused {
                socket: socket.into(),
                reason,
            }),
        }
    }

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
        owner(&self.stream)
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

    /// See [`crate::node::Node::publish`].
    pub fn publish(&mut self, publish: &Publish) -> Result<String, Failure> {
        self.check_size(&publish.payload)?;
        match self.ask(&Request::Publish(publish.into()))? {
            Response::Published(id) => Ok(id),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::send`].
    pub fn send(
        &mut self,
        to: ConnectionId,
        payload: Payload,
        event: EventName,
    ) -> Result<bool, Failure> {
        self.check_size(&payload)?;
        let event = event.as_str().to_owned();
        self.done(&Request::Send {
            to: to.to_bits(),
            payload: payload.into(),
            event,
        })
    }

    /// See [`crate::node::Node::subscribe`].
    pub fn subscribe(&mut self, who: ConnectionId, channel: Channel) -> Result<bool, Failure> {
        self.done(&Request::Subscribe {
            who: who.to_bits(),
            channel: channel.to_string(),
        })
    }

    /// See [`crate::node::Node::unsubscribe`].
    pub fn unsubscribe(&mut self, who: ConnectionId, channel: Channel) -> Result<bool, Failure> {
        self.done(&Request::Unsubscribe {
            who: who.to_bits(),
            channel: channel.to_string(),
        })
    }

    /// See [`crate::node::Node::close`].
    pub fn close(&mut self, who: ConnectionId, code: u16, reason: String) -> Result<bool, Failure> {
        self.done(&Request::Close {
            who: who.to_bits(),
            code,
            reason,
        })
    }

    /// See [`crate::node::Node::channels`].
    pub fn channels(&mut self, pattern: &Pattern) -> Result<Vec<ChannelSummary>, Failure> {
        match self.ask(&Request::Channels {
            pattern: pattern.as_str().to_owned(),
        })? {
            Response::Channels(list) => Ok(list
                .into_iter()
                .filter_map(|(name, subscribers)| {
                    let channel = Channel::parse(&name).ok()?;
                    Some(ChannelSummary {
                        channel,
                        subscribers,
                    })
                })
                .collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::connections`].
    pub fn connections(
        &mut self,
        channel: Option<&Channel>,
    ) -> Result<Vec<Arc<ConnectionInfo>>, Failure> {
        let channel = channel.map(ToString::to_string);
        match self.ask(&Request::Connections { channel })? {
            Response::Connections(list) => Ok(list
                .into_iter()
                .filter_map(|wire| wire.into_info().map(Arc::new))
                .collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::history`].
    pub fn history<'a>(
        &mut self,
        channel: &Channel,
        limit: usize,
        walk: impl Into<Walk<'a>>,
    ) -> Result<HistoryPage, Failure> {
        let (since, before) = match walk.into() {
            Walk::Newest => (None, None),
            Walk::After(id) => (Some(id.to_owned()), None),
            Walk::Before(id) => (None, Some(id.to_owned())),
        };
        let request = Request::History {
            channel: channel.to_string(),
            limit,
            since,
            before,
        };
        match self.ask(&request)? {
            Response::History {
                entries,
                recovered,
                oldest,
                more,
            } => Ok(HistoryPage {
                more,
                entries: entries
                    .into_iter()
                    .map(|wire| HistoryEntry {
                        id: wire.id,
                        event: EventName::new(&wire.event),
                        payload: wire.payload.into(),
                        age: wire.age,
                    })
                    .collect(),
                recovered,
                oldest,
            }),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::members`].
    pub fn members(&mut self, channel: &Channel) -> Result<Vec<MemberSummary>, Failure> {
        let channel = channel.to_string();
        match self.ask(&Request::Members { channel })? {
            Response::Members(list) => Ok(list
                .into_iter()
                .map(|wire| {
                    let attendee = Attendee::new(&wire.user, wire.info.as_deref());
                    MemberSummary {
                        user: attendee.user,
                        info: attendee.info,
                        connections: wire.connections,
                    }
                })
                .collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::stats`].
    pub fn stats(&mut self) -> Result<Stats, Failure> {
        match self.ask(&Request::Stats)? {
            Response::Stats(stats) => Ok(stats),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::disconnect`].
    pub fn disconnect(&mut self, user: &str, code: u16, reason: &str) -> Result<usize, Failure> {
        self.count(&Request::Disconnect {
            user: user.to_owned(),
            code,
            reason: reason.to_owned(),
        })
    }

    /// See [`crate::node::Node::revoke_user`].
    pub fn revoke_user(&mut self, user: &str) -> Result<usize, Failure> {
        let user = user.to_owned();
        self.count(&Request::RevokeUser { user })
    }

    /// See [`crate::node::Node::revoke_token`].
    pub fn revoke_token(&mut self, token: &str) -> Result<usize, Failure> {
        let token = token.to_owned();
        self.count(&Request::RevokeToken { token })
    }

    fn count(&mut self, request: &Request<'_>) -> Result<usize, Failure> {
        match self.ask(request)? {
            Response::Count(count) => Ok(count),
            _ => Err(self.unexpected()),
        }
    }

    fn done(&mut self, request: &Request<'_>) -> Result<bool, Failure> {
        match self.ask(request)? {
            Response::Done(done) => Ok(done),
            _ => Err(self.unexpected()),
        }
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

    fn check_size(&self, payload: &Payload) -> Result<(), Failure> {
        let (size, limit) = (payload.len(), self.greeting.max_message_size);
        if size > limit {
            Err(Failure::TooLarge { size, limit })
        } else {
            Ok(())
        }
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

/// Also connecting takes time, while a hub does not accept.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    set_timeouts(SockRef::from(&socket), timeout)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

fn set_timeouts(socket: SockRef<'_>, time: Duration) -> io::Result<()> {
    // Zero would mean for ever.
    let time = time.max(Duration::from_millis(1));
    socket.set_read_timeout(Some(time))?;
    socket.set_write_timeout(Some(time))
}

fn owner(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

/// Whether the hub is a process of this user or of root.
fn is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let owner = owner(stream)?;
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    Ok(owner == 0 || owner == unsafe { libc::geteuid() })
}
