//! How a process comes by a [`Client`]: it finds the control socket, says who it is, and reads the greeting. And why there is
//! none, for the operator.
//!
//! Imports `wire::control`.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{Client, set_timeouts};
use crate::config;
use crate::wire::control::{self, Greeting, HELLO_MAX, Hello, Identity, Purpose, VERSION, Worker};

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
}

/// Also connecting takes time, while a hub does not accept.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    set_timeouts(SockRef::from(&socket), timeout)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

pub(super) fn owner(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

/// Whether the hub is a process of this user or of root.
fn is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let owner = owner(stream)?;
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    Ok(owner == 0 || owner == unsafe { libc::geteuid() })
}
