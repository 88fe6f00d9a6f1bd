//! The links of other processes to this hub, all on one thread with a loop of its own: read a request, do it, write the
//! answer, and only then wake the shards.
//!
//! `control::server` greets and hands the links over ([`Links::adopt`]). A publisher waits for every microsecond that is
//! spent here, which is why this is no part of a runtime and shares its thread with nothing: a call costs one
//! epoll_wait, one read and one write. Imports `control::requests`, `node` and `wire::control`.

mod link;
mod serving;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::serving::Serving;
pub use self::serving::ask;
use crate::node::Node;

/// The token of the inbox; links have theirs from a slab, which never gets there.
const INBOX: Token = Token(usize::MAX);

/// The thread and the way to it. Dropping it ends the thread and all links.
#[derive(Debug)]
pub struct Links {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Links {
    /// Starts the thread with `spawn`. What may block is done on the blocking threads of `runtime`.
    pub fn start(
        node: Arc<Node>,
        runtime: Handle,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let inbox = Arc::new(Inbox {
            notes: Mutex::default(),
            waker: Waker::new(poll.registry(), INBOX)?,
        });
        let woken = Arc::downgrade(&inbox);
        node.watch_store(move || {
            if let Some(inbox) = woken.upgrade() {
                inbox.put(Note::Stored);
            }
        });
        let mut serving = Serving::new(node, runtime, poll, inbox.clone());
        let thread = spawn(Box::new(move || {
            if let Err(error) = serving.run() {
                tracing::error!(%error, "cannot wait for the links on realtime.socket");
            }
        }))?;
        Ok(Self {
            inbox,
            thread: Some(thread),
        })
    }

    /// Serves a link that has been greeted, until it ends. The stream is non-blocking.
    pub fn adopt(&self, stream: UnixStream, place: OwnedSemaphorePermit) {
        self.inbox.put(Note::Adopt(stream, place));
    }

    /// Ends every link between two frames: those that wait for an answer get it first, and a request that has begun to
    /// arrive is taken, but no later than after `patience`. What was not read is as if never sent: the other process
    /// is told so ([`Moved`](crate::wire::control::WireFailure::Moved)). Links that are adopted later are served as ever.
    pub fn finish(&self, patience: Duration) -> oneshot::Receiver<()> {
        let (sender, finished) = oneshot::channel();
        let deadline = Instant::now() + patience;
        self.inbox.put(Note::Finish(deadline, sender));
        finished
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.inbox.put(Note::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the links' thread has panicked: a bug in realtime");
        }
    }
}

/// What other threads tell the links' thread.
#[derive(Debug)]
struct Inbox {
    // Taken for one push or one swap.
    notes: Mutex<Vec<Note>>,
    waker: Waker,
}

#[derive(Debug)]
enum Note {
    /// A greeted link.
    Adopt(UnixStream, OwnedSemaphorePermit),
    /// The framed answer to what the link of that slot asked on another thread.
    Answer(usize, Vec<u8>),
    /// Some of what waits for the disk may be there.
    Stored,
    /// See [`Links::finish`].
    Finish(Instant, oneshot::Sender<()>),
    /// The end of the thread.
    Stop,
}

impl Inbox {
    fn put(&self, note: Note) {
        self.lock().push(note);
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the links' thread");
        }
    }

    fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Note>> {
        // One push or swap cannot leave it half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
