//! The hub's door on the control socket: greets, checks who it is, and hands the link to those who serve its purpose.
//!
//! Runs on the hub's control thread. Imports `control::links`, `node` and `wire::control`.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;

use super::handover::Taker;
use super::links::Links;
use crate::backend::workers::Workers;
use crate::node::Node;
use crate::procfs::Process;
use crate::wire::control::{self, Greeting, HELLO_MAX, Hello, Identity, Purpose, VERSION, Worker};
use crate::wire::handover::HANDOVER;

/// How long a new link may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// The same once nobody is accepted any more.
const LAST_HELLO: Duration = Duration::from_millis(500);
/// Links at a time: more processes than any PHP pool has.
const LINKS_MAX: usize = 4096;

/// Where links go.
#[derive(Clone, Debug)]
pub struct Desks {
    /// Those that ask.
    pub links: Rc<Links>,
    /// Those of a new hub that wants to take over, one at a time.
    pub takers: mpsc::Sender<Taker>,
}

/// Serves links until `closed` is true. Then every link that was accepted has been handed on.
pub async fn run(
    listener: StdListener,
    node: Arc<Node>,
    desks: Desks,
    mut closed: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(tokio::sync::Semaphore::new(LINKS_MAX));
    let mut greetings = JoinSet::new();
    loop {
        // Those over the limit wait in the socket's backlog.
        let next = async {
            let place = places.clone().acquire_owned().await;
            let place = place.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        tokio::select! {
            biased;
            // An error means that whoever could open it again has gone.
            _ = closed.wait_for(|closed| *closed) => break,
            Some(_) = greetings.join_next() => {}
            accepted = next => match accepted {
                Ok((stream, place)) => {
                    let (node, desks) = (node.clone(), desks.clone());
                    greetings.spawn_local(async move {
                        if let Err(error) = greet(stream, place, &node, &desks).await {
                            tracing::debug!(%error, "a link on the control socket ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on realtime.socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let greeted = async { while greetings.join_next().await.is_some() {} };
    // Whoever says no hello by then has said nothing that could be lost.
    let _ = tokio::time::timeout(LAST_HELLO, greeted).await;
    Ok(())
}

/// Greets, and hands the link on when it is to be served.
async fn greet(
    mut stream: UnixStream,
    place: OwnedSemaphorePermit,
    node: &Node,
    desks: &Desks,
) -> io::Result<()> {
    let config = node.config();
    let mut buffer = Vec::new();
    let hello = tokio::time::timeout(HELLO_WAIT, frame(&mut stream, &mut buffer, HELLO_MAX));
    if !hello.await.map_err(io::Error::other)?? {
        return Ok(());
    }
    let hello = serde_json::from_slice::<Hello>(&buffer).ok();
    let worker = hello.as_ref().and_then(|hello| hello.worker.clone());
    let (desk, refused) = match direct(&stream, hello, node, desks)? {
        Ok(desk) => (Some(desk), None),
        Err(reason) => (None, Some(reason)),
    };
    if let (Some(worker), None) = (&worker, &refused) {
        adopt_master(&stream, worker, node);
    }
    let greeting = Greeting {
        version: VERSION,
        pid: std::process::id(),
        address: node.address().to_owned(),
        max_message_size: config.max_message_size,
        identity: match (&refused, &worker) {
            (None, Some(worker)) => node.identity_for(worker),
            (None, None) => node.identity().clone(),
            (Some(_), _) => Identity::default(),
        },
        refused: refused.clone(),
    };
    stream.write_all(&control::json_frame(&greeting)).await?;
    match desk {
        Some(Desk::Requests) => desks.links.adopt(stream.into_std()?, place),
        Some(Desk::Attach(workers)) => workers.adopt(stream.into_std()?, place),
        Some(Desk::Takeover(permit, same_version)) => permit.send(Taker {
            stream,
            same_version,
        }),
        None => return Err(io::Error::other(refused.unwrap_or_default())),
    }
    Ok(())
}

/// Reads one frame's content into `buffer`. `false` at the end of the link.
async fn frame(stream: &mut UnixStream, buffer: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        return Err(io::Error::other(format!(
            "a frame of {length} bytes, {limit} are allowed"
        )));
    }
    buffer.clear();
    // Grows with what really arrives, not with what is announced.
    let read = stream.take(length as u64).read_to_end(buffer).await?;
    Ok(read == length)
}

/// Who serves a link.
enum Desk<'a> {
    Requests,
    /// Those who hand out events.
    Attach(Arc<Workers>),
    /// With whether it is of the same version.
    Takeover(mpsc::Permit<'a, Taker>, bool),
}

/// Who serves this peer, or why nobody does.
fn direct<'a>(
    stream: &UnixStream,
    hello: Option<Hello>,
    node: &Node,
    desks: &'a Desks,
) -> io::Result<Result<Desk<'a>, String>> {
    let peer = stream.peer_cred()?.uid();
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    let ours = peer == uid || peer == 0;
    if !ours && !node.config().lets_others_in() {
        return Ok(Err(format!(
            "this server belongs to user {uid} and does not serve user {peer}: see realtime.socket_mode \
             and realtime.socket_group"
        )));
    }
    let Some(hello) = hello.filter(|hello| hello.protocol == "realtime") else {
        return Ok(Err(
            "this is the control socket of a realtime server".to_owned()
        ));
    };
    if let Purpose::Takeover(version) = hello.purpose {
        // Of whatever version: the descriptors can be handed over in any case.
        if !node.identity().detached {
            return Ok(Err(format!(
                "it is a part of process {} and ends with it",
                std::process::id()
            )));
        }
        if !ours {
            return Ok(Err(format!(
                "it belongs to user {uid} and not to user {peer}"
            )));
        }
        let same = version == HANDOVER && hello.version == VERSION;
        let permit = desks.takers.try_reserve();
        return Ok(permit
            .map(|permit| Desk::Takeover(permit, same))
            .map_err(|_| "another process is taking over".to_owned()));
    }
    if hello.version != VERSION {
        return Ok(Err(format!(
            "the server speaks version {VERSION} of the control protocol, this process version {}: restart the \
             older of the two",
            hello.version
        )));
    }
    Ok(match (hello.purpose, node.workers()) {
        (Purpose::Attach, Some(workers)) => Ok(Desk::Attach(workers)),
        (Purpose::Attach, None) => Err(format!(
            "it is a part of PHP process {} and handles its clients' events there",
            std::process::id()
        )),
        _ => Ok(Desk::Requests),
    })
}

/// Tells the node of the master that has started this worker. Only its real one, and only this user's or root's: nobody
/// can make the hub live as long as some other process.
fn adopt_master(stream: &UnixStream, worker: &Worker, node: &Node) {
    let Ok(peer) = stream.peer_cred() else {
        return;
    };
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    let Some(pid) = peer.pid().and_then(|pid| u32::try_from(pid).ok()) else {
        return;
    };
    if peer.uid() != uid && peer.uid() != 0 {
        return;
    }
    node.note(worker);
    match Process::look(pid) {
        // In a container of its own it knows its parent by another number.
        Some(process) if worker.master != pid => node.adopt(process.parent, worker.generation),
        // /proc may hide it, although it is the same user's: then its word is all there is.
        _ => node.adopt(worker.master, worker.generation),
    }
}
