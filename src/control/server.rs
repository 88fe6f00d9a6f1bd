//! The hub's door on the control socket: greets, checks who it is, and hands the link to those who serve its purpose.
//!
//! Runs on the hub's control thread. Imports `control::links`, `node` and `wire::control`.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::links::Links;
use crate::node::Node;
use crate::wire::control::{self, Greeting, HELLO_MAX, Hello, Identity, Purpose, VERSION};

/// How long a new link may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// Links at a time: more processes than any PHP pool has.
const LINKS_MAX: usize = 4096;

/// Serves links until it is dropped.
pub async fn run(listener: StdListener, node: Arc<Node>, links: Rc<Links>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(tokio::sync::Semaphore::new(LINKS_MAX));
    loop {
        // Those over the limit wait in the socket's backlog.
        let place = places
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (node, links) = (node.clone(), links.clone());
                tokio::task::spawn_local(async move {
                    match greet(stream, &node).await {
                        Ok(Some((stream, Purpose::Attach))) => {
                            if let Some(workers) = node.workers() {
                                workers.adopt(stream, place);
                            }
                        }
                        Ok(Some((stream, _))) => links.adopt(stream, place),
                        Ok(None) => {}
                        Err(error) => {
                            tracing::debug!(%error, "a link on the control socket ended");
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on realtime.socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The link again when it is to be served.
async fn greet(mut stream: UnixStream, node: &Node) -> io::Result<Option<(StdStream, Purpose)>> {
    let config = node.config();
    let mut buffer = Vec::new();
    let hello = tokio::time::timeout(HELLO_WAIT, frame(&mut stream, &mut buffer, HELLO_MAX));
    if !hello.await.map_err(io::Error::other)?? {
        return Ok(None);
    }
    let mut refused = refuse(&stream, &buffer, config.socket_mode)?;
    let purpose = serde_json::from_slice::<Hello>(&buffer).map_or(Purpose::Requests, |h| h.purpose);
    if purpose == Purpose::Attach && node.workers().is_none() {
        refused.get_or_insert("it handles its clients' events itself, in a PHP process".to_owned());
    }
    let greeting = Greeting {
        version: VERSION,
        pid: std::process::id(),
        address: node.address().to_owned(),
        max_message_size: config.max_message_size,
        identity: match refused {
            None => node.identity().clone(),
            Some(_) => Identity::default(),
        },
        refused: refused.clone(),
    };
    stream.write_all(&control::json_frame(&greeting)).await?;
    match refused {
        Some(reason) => Err(io::Error::other(reason)),
        None => Ok(Some((stream.into_std()?, purpose))),
    }
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

/// Why this peer is not served, if it is not.
fn refuse(stream: &UnixStream, hello: &[u8], socket_mode: u32) -> io::Result<Option<String>> {
    let peer = stream.peer_cred()?.uid();
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let uid = unsafe { libc::geteuid() };
    if peer != uid && peer != 0 && socket_mode & 0o066 == 0 {
        return Ok(Some(format!(
            "this server belongs to user {uid} and does not serve user {peer}: see realtime.socket_mode"
        )));
    }
    let reason = match serde_json::from_slice::<Hello>(hello) {
        Err(_) => "this is the control socket of a realtime server".to_owned(),
        Ok(hello) if hello.protocol != "realtime" || hello.version != VERSION => format!(
            "the server speaks version {VERSION} of the control protocol, this process version {}: restart the \
             older of the two",
            hello.version
        ),
        Ok(_) => return Ok(None),
    };
    Ok(Some(reason))
}
