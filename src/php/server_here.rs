//! The server in this process: started, found, stopped, and let go of in a forked child.
//!
//! It belongs to the process and not to a request; `link` gives PHP's threads their part of it ([`Here`]). Nothing in here
//! runs PHP code, so locks may be held. Imports `server`, `node`, `backend` and `ini`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use super::fault::contain;
use super::link::LinkError;
use super::{attached, ini};
use crate::backend::queue::EventQueue;
use crate::config::{Config, ListenAddress};
use crate::node::Node;
use crate::server::Server;

/// The server of this process.
struct Running {
    server: Server,
    queue: Arc<EventQueue>,
    /// As it was asked for.
    listen: ListenAddress,
    /// [`FORKS`] when it was started.
    forks: u32,
}

/// What a PHP thread needs of the server in this process.
#[derive(Clone)]
pub struct Here {
    /// The server's heart.
    pub node: Arc<Node>,
    /// What waits for PHP.
    pub queue: Arc<EventQueue>,
    /// Where it listens.
    pub address: String,
    /// [`forks`] when it was started.
    forks: u32,
}

impl Here {
    /// Whether a fork has copied this into a child, where the server's threads are missing: then nothing of it may be
    /// touched, not even its locks.
    pub fn is_inherited(&self) -> bool {
        self.forks != forks()
    }
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);
/// Counts the forks that led to this process since the extension was loaded. Cheaper to look at than getpid(),
/// which is a system call.
static FORKS: AtomicU32 = AtomicU32::new(0);
/// Grows with every start and stop, so that threads notice.
static CHANGES: AtomicU32 = AtomicU32::new(1);
/// Prepares for forks. For MINIT.
pub fn watch_forks() {
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        CHANGES.fetch_add(1, Ordering::Relaxed);
        attached::let_go_in_child();
        // At once, or a child that never calls us would keep the port and the control socket from the next server.
        // Held only when another PHP thread was just starting or stopping the server; then the next call does it.
        if let Ok(mut running) = RUNNING.try_lock() {
            contain((), || discard_inherited(&mut running));
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler stays loaded (the library is linked with nodelete). It takes no lock that it would have to
        // wait for; it allocates, which glibc allows here, as PHP itself will right after.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// How many forks led to this process; differs between a parent and its child.
pub fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Grows with every start, stop and fork.
pub fn changes() -> u32 {
    CHANGES.load(Ordering::Relaxed)
}

/// What runs here, if anything does.
pub fn find() -> Option<Here> {
    let mut running = lock();
    discard_inherited(&mut running);
    running.as_ref().map(Running::here)
}

/// Starts the server in this process. `Ok` also when it runs here already at that address.
pub fn start(listen: Option<ListenAddress>) -> Result<Here, LinkError> {
    let config = ini::config()?;
    let mut running = lock();
    discard_inherited(&mut running);
    if let Some(running) = &*running {
        let same = listen.as_ref().is_none_or(|listen| {
            *listen == running.listen || listen.to_string() == running.server.address()
        });
        return if same {
            Ok(running.here())
        } else {
            Err(LinkError::NotStarted(format!(
                "the server of this process listens on {} already",
                running.server.address()
            )))
        };
    }
    let config = Config {
        listen: listen.unwrap_or_else(|| config.listen.clone()),
        ..config.clone()
    };
    let queue = Arc::new(
        EventQueue::new(config.queue_bytes).map_err(|e| LinkError::NotStarted(e.to_string()))?,
    );
    let listen = config.listen.clone();
    let server = Server::start(config, queue.clone())
        .map_err(|error| LinkError::NotStarted(error.to_string()))?;
    let started = Running {
        server,
        queue,
        listen,
        forks: forks(),
    };
    let here = started.here();
    *running = Some(started);
    CHANGES.fetch_add(1, Ordering::Relaxed);
    Ok(here)
}

/// Stops it. A forked child only lets go of it.
pub fn stop() {
    let mut running = lock();
    discard_inherited(&mut running);
    let running = running.take();
    CHANGES.fetch_add(1, Ordering::Relaxed);
    if let Some(running) = running {
        running.queue.shut_down();
        drop(running.server);
    }
}

impl Running {
    fn here(&self) -> Here {
        Here {
            node: Arc::clone(self.server.node()),
            queue: Arc::clone(&self.queue),
            address: self.server.address().to_owned(),
            forks: self.forks,
        }
    }
}

/// A server that a fork has copied here is the parent's: its threads are not in this process.
fn discard_inherited(running: &mut Option<Running>) {
    if running.as_ref().is_some_and(|r| r.forks != forks())
        && let Some(running) = running.take()
    {
        running.server.forget();
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
