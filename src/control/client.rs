//! The other side of the control socket: a process that is not the hub asks it. Blocking, with a time limit on every
//! call; no runtime and no thread, because this runs in PHP workers.
//!
//! Called by `php`. Imports `wire::control` and `node`'s results.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ids::{Channel, ConnectionId, Pattern};
use crate::message::{ConnectionInfo, EventName, Payload, Publish, Transport};
use crate::node::{ChannelSummary, Failure, HistoryEntry, HistoryPage, Stats};
use crate::wire::control::{
    self, Greeting, HELLO_MAX, Hello, Identity, Purpose, Request, Response, VERSION, WireFailure,
};

/// The largest answer, in bytes: lists of connections and histories.
const ANSWER_MAX: usize = 1 << 30;

/// How much is read at first, in bytes: nearly all answers are shorter.
const READ_FIRST: usize = 512;

/// A link to the hub. After an error it is broken: connect anew.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    socket: PathBuf,
    timeout: Duration,
    greeting: Greeting,
    buffer: Vec<u8>,
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
    /// Whether no hub runs there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

impl Client {
    /// Connects to the hub that listens on `socket`. Every call on the link takes at most `timeout`.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Self, ConnectError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ConnectError::Absent(socket.into())
            }
            io::ErrorKind::PermissionDenied => ConnectError::Forbidden(socket.into()),
            _ => ConnectError::Failed {
                socket: socket.into(),
                error,
            },
        };
        let stream = UnixStream::connect(socket).map_err(failed)?;
        let timeout = timeout.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(timeout)).map_err(failed)?;
        let mut client = Self {
            stream,
            socket: socket.into(),
            timeout,
            greeting: Greeting {
                version: 0,
                pid: 0,
                address: String::new(),
                max_message_size: 0,
                identity: Identity::default(),
                refused: None,
            },
            buffer: Vec::new(),
        };
        let hello = Hello {
            protocol: "realtime".into(),
            version: VERSION,
            worker: None,
            purpose: Purpose::Requests,
        };
        client
            .exchange(&control::json_frame(&hello), HELLO_MAX)
            .map_err(failed)?;
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
    pub fn publish(&mut self, publish: Publish) -> Result<String, Failure> {
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
                .filter_map(|wire| {
                    let transport = *Transport::ALL.get(usize::from(wire.transport))?;
                    let id = ConnectionId::from_bits(wire.id);
                    let info = ConnectionInfo::from_head(id, transport, &wire.ip, &wire.head);
                    Some(Arc::new(info.with_user(wire.user.map(Into::into))))
                })
                .collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::history`].
    pub fn history(
        &mut self,
        channel: &Channel,
        limit: usize,
        since: Option<&str>,
    ) -> Result<HistoryPage, Failure> {
        let request = Request::History {
            channel: channel.to_string(),
            limit,
            since: since.map(ToOwned::to_owned),
        };
        match self.ask(&request)? {
            Response::History {
                entries,
                recovered,
                oldest,
            } => Ok(HistoryPage {
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

    fn count(&mut self, request: &Request) -> Result<usize, Failure> {
        match self.ask(request)? {
            Response::Count(count) => Ok(count),
            _ => Err(self.unexpected()),
        }
    }

    fn done(&mut self, request: &Request) -> Result<bool, Failure> {
        match self.ask(request)? {
            Response::Done(done) => Ok(done),
            _ => Err(self.unexpected()),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Response, Failure> {
        self.exchange(&control::frame(request), ANSWER_MAX)
            .map_err(|error| self.broken(&error))?;
        let response =
            control::read(&self.buffer).map_err(|error| self.broken(&io::Error::other(error)))?;
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        match response {
            Response::Failed(WireFailure::TooLarge { size, limit }) => {
                Err(Failure::TooLarge { size, limit })
            }
            Response::Failed(WireFailure::Busy) => Err(Failure::Busy),
            Response::Failed(WireFailure::Stopped) => Err(Failure::Stopped),
            Response::Failed(WireFailure::Bad(reason)) => Err(Failure::Link(reason)),
            Response::Failed(WireFailure::Refused(reason)) => Err(Failure::Refused(reason)),
            response => Ok(response),
        }
    }

    /// Sends a frame and reads one into `buffer`. Two system calls where the answer is short.
    fn exchange(&mut self, frame: &[u8], limit: usize) -> io::Result<()> {
        let deadline = Instant::now() + self.timeout;
        self.stream.write_all(frame)?;
        self.buffer.clear();
        self.buffer.resize(READ_FIRST, 0);
        let mut filled = 0;
        let mut wanted = 4;
        while filled < wanted {
            // Each read has its own time limit; together they may take at most twice as long.
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.stream.read(&mut self.buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
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
                    let text = format!("an answer of {} bytes", wanted - 4);
                    return Err(io::Error::other(text));
                }
                self.buffer.resize(wanted.max(filled), 0);
            }
        }
        if filled > wanted {
            return Err(io::Error::other("more than one answer"));
        }
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
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!(
                "the realtime server on {socket} did not answer within realtime.timeout ({:?})",
                self.timeout
            ),
            _ => format!("the link to the realtime server on {socket} broke: {error}"),
        })
    }

    /// Which is not shown: it may have cookies and tokens.
    fn unexpected(&self) -> Failure {
        self.broken(&io::Error::other("an answer to another question"))
    }
}
