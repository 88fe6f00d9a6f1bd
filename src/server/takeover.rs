//! Taking over from an old hub: its listening sockets, its lock and what it knows, over the control socket.
//!
//! [`take`] is called in the new hub's process before anything runs there. What it returns starts a server in the
//! ordinary way ([`super::run`]), which says when it is ready, waits until the old hub has let go, and only then serves.
//! Until then the old hub serves on, and whatever goes wrong here changes nothing for it. Imports `control` and `wire`.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::Listeners;
use super::listen::{Listener, StartError};
use crate::backend::Interest;
use crate::config::{Config, ListenAddress};
use crate::control::election::Elected;
use crate::control::handover::Link;
use crate::history::Past;
use crate::node::Node;
use crate::procfs::Process;
use crate::wire::control::{self, Greeting, HELLO_MAX, Hello, Identity, Purpose, VERSION};
use crate::wire::handover::{
    self, DESCRIPTORS, Estate, HANDOVER, Master, PARTS_MAX, Part, Said, Step,
};

/// How long the old hub may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no takeover. For the operator; the old hub serves on.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// Somebody else is at it.
    #[error("another process is taking over from the realtime server on {}", .0.display())]
    Underway(PathBuf),
    /// It has been done.
    #[error("the realtime server on {} is as new", .0.display())]
    Needless(PathBuf),
    /// There is nobody to take over from: stand for election.
    #[error("no realtime server is on the control socket {} any more", .0.display())]
    Absent(PathBuf),
    /// The old hub does not want to.
    #[error("the realtime server on the control socket {} does not hand over: {reason}", .socket.display())]
    Refused {
        /// The control socket.
        socket: PathBuf,
        /// Its words.
        reason: String,
    },
    /// The new address cannot be bound.
    #[error(transparent)]
    Listen(#[from] StartError),
    /// The old hub died, fell silent or made no sense.
    #[error("cannot take over from the realtime server on the control socket {}: {error}", .socket.display())]
    Broken {
        /// The control socket.
        socket: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What a new hub got from the old one beside its sockets.
#[derive(Debug)]
pub struct Legacy {
    /// The secret that requests know which are under way: the new hub's [`control::Identity::secret`] must be the same.
    pub secret: String,
    /// The history; none when the old hub's version writes it in another way.
    pub(super) past: Option<Past>,
    /// Which events the old hub's attached PHP processes handle.
    pub(super) attached: Interest,
    /// The PHP masters that the old hub lives for.
    pub(super) masters: Vec<Master>,
    /// The link to the old hub.
    pub(super) link: UnixStream,
    /// The largest frame on it, in bytes.
    pub(super) frame_max: usize,
    /// Where the old hub listens, when that is no longer where clients connect.
    pub(super) former: Option<Listener>,
    /// Keeps others from taking over at the same time.
    pub(super) _claim: File,
}

/// Takes over from the hub on `config.socket`. Blocking; no thread and no runtime, and a few seconds at most.
///
/// The old hub serves until [`super::run`] has started what this returns, and goes on serving when that never happens.
pub fn take(config: &Config) -> Result<Listeners, TakeoverError> {
    take_if(config, |_| true)
}

/// The same if the hub that is there now is `outdated`: another process may have taken over just before.
pub fn take_if(
    config: &Config,
    outdated: impl FnOnce(&Identity) -> bool,
) -> Result<Listeners, TakeoverError> {
    let socket = &config.socket;
    let broken = |error| TakeoverError::Broken {
        socket: socket.clone(),
        error,
    };
    let claim = claim(socket)?;
    let mut link = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            TakeoverError::Absent(socket.clone())
        }
        _ => broken(error),
    })?;
    link.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    link.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
    let hello = Hello {
        protocol: "realtime".into(),
        version: VERSION,
        worker: None,
        purpose: Purpose::Takeover(HANDOVER),
    };
    link.write_all(&control::json_frame(&hello))
        .map_err(broken)?;
    let greeting: Greeting =
        from_json(&frame(&mut link, HELLO_MAX).map_err(broken)?).map_err(broken)?;
    if let Some(reason) = greeting.refused {
        return Err(TakeoverError::Refused {
            socket: socket.clone(),
            reason,
        });
    }
    if !outdated(&greeting.identity) {
        return Err(TakeoverError::Needless(socket.clone()));
    }
    let (estate, [control, lock, clients]) = estate(&mut link).map_err(broken)?;
    let former = ListenAddress::parse(&estate.listen)
        .ok_or_else(|| broken(io::Error::other("it listens nowhere")))?;
    let inherited = Listener::inherit(clients, &former).map_err(broken)?;
    let (clients, former) = if former == config.listen {
        (inherited, None)
    } else {
        let clients = Listener::bind_beside(&config.listen, &inherited)?;
        (clients, Some(inherited))
    };
    let frame_max = estate.max_message_size + PARTS_MAX;
    let past = match estate.parts {
        true => Some(past(&mut link, frame_max).map_err(broken)?),
        false => None,
    };
    Ok(Listeners {
        clients,
        control: Elected::inherit(config, control, lock).map_err(broken)?,
        legacy: Some(Legacy {
            secret: estate.secret,
            attached: Interest::from_bits(estate.attached),
            masters: estate.masters,
            past,
            link,
            frame_max,
            former,
            _claim: claim,
        }),
    })
}

/// The new hub's part from there on: tells the old one that it is ready, waits until that has let go, and takes up what
/// happened meanwhile. When it returns, the sockets are this hub's and nobody serves on them. Returns the link to the old
/// hub when that is to be told what is published, and where clients connect who do not know the new address yet.
pub async fn succeed(
    legacy: Legacy,
    node: &Node,
    clients: &Listener,
    control: &Elected,
) -> io::Result<(Option<Link>, Option<Listener>)> {
    let same_version = legacy.past.is_some();
    if let Some(workers) = node.workers() {
        workers.expect_attached(legacy.attached);
    }
    for master in legacy.masters {
        let now = Process::look(master.pid);
        // Whose number another process has by now is nobody's master.
        if now.is_some_and(|process| process.started == master.started) {
            node.adopt(master.pid, 0);
        }
    }
    if let Some(past) = legacy.past {
        node.inherit(past).map_err(io::Error::other)?;
    }
    legacy.link.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(legacy.link)?;
    let mut link = Link::new(stream, legacy.frame_max);
    link.step(Step::Ready).await?;
    loop {
        match link.reply().await? {
            Said::Part(Part::Notes(notes)) => {
                for note in notes {
                    node.inject(note).map_err(io::Error::other)?;
                }
            }
            Said::Part(Part::Revoked(lists)) => node.auth().revocations().adopt(lists),
            Said::Part(Part::Present(patience, all)) => {
                node.await_all(patience, all).map_err(io::Error::other)?
            }
            Said::Step(Step::Yours) => break,
            other => return Err(io::Error::other(format!("{other:?} in place of Yours"))),
        }
    }
    control.admit(node.config()).map_err(io::Error::other)?;
    node.open_store().map_err(io::Error::other)?;
    // The word that counts: if it can be said, the old hub hears it and never serves again; if not, it serves on.
    link.step(Step::Serving).await?;
    control.set_owned(true);
    clients.set_owned(true);
    if let Some(former) = &legacy.former {
        former.set_owned(true);
    }
    Ok((same_version.then_some(link), legacy.former))
}

/// One takeover at a time. The kernel lets go of it when its process dies.
fn claim(socket: &Path) -> Result<File, TakeoverError> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".takeover");
    let broken = |error| TakeoverError::Broken {
        socket: socket.into(),
        error,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(name)
        .map_err(broken)?;
    // SAFETY: flock() takes no pointer; the descriptor is open for as long as `file` lives.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(file);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => {
            Err(TakeoverError::Underway(socket.into()))
        }
        error => Err(broken(error)),
    }
}

/// Reads the frame that has descriptors beside it.
fn estate(link: &mut UnixStream) -> io::Result<(Estate, [OwnedFd; DESCRIPTORS])> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut first = [0];
    // They come with the frame's first byte.
    let received = rustix::net::recvmsg(
        &*link,
        &mut [IoSliceMut::new(&mut first)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    let mut rest = [0; 3];
    link.read_exact(&mut rest)?;
    let length = u32::from_le_bytes([first[0], rest[0], rest[1], rest[2]]);
    let estate = from_json(&content(link, length, HELLO_MAX)?)?;
    let descriptors = descriptors
        .try_into()
        .map_err(|got: Vec<_>| io::Error::other(format!("{} descriptors came", got.len())))?;
    Ok((estate, descriptors))
}

/// Reads what the old hub knows.
fn past(link: &mut UnixStream, frame_max: usize) -> io::Result<Past> {
    let mut past = Past::default();
    loop {
        match handover::read(&frame(link, frame_max)?).map_err(io::Error::other)? {
            Said::Part(Part::Begin {
                epoch,
                seq,
                forgotten,
            }) => (past.epoch, past.seq, past.forgotten) = (epoch, seq, forgotten),
            Said::Part(Part::Marks(marks)) => past.marks.extend(marks),
            Said::Part(Part::Notes(notes)) => past.notes.extend(notes),
            Said::Part(Part::Cached(notes)) => past.cached.extend(notes),
            Said::Part(Part::End) => return Ok(past),
            other => return Err(io::Error::other(format!("{other:?} in place of the past"))),
        }
    }
}

fn from_json<T: serde::de::DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    serde_json::from_slice(content).map_err(io::Error::other)
}

fn frame(link: &mut UnixStream, limit: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    link.read_exact(&mut length)?;
    content(link, u32::from_le_bytes(length), limit)
}

fn content(link: &mut UnixStream, length: u32, limit: usize) -> io::Result<Vec<u8>> {
    if length as usize > limit {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut content = Vec::new();
    // Grows with what really arrives, not with what is announced.
    link.take(length.into()).read_to_end(&mut content)?;
    if content.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(content)
}
