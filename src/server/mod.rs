//! The only wiring: binds what is listened on, starts the threads, stops them.
//!
//! [`run`] is the one door to a server; [`Server`] is a server on threads of this process. Knows nothing of PHP.
//! Imports everything above.

mod accept;
mod listen;
mod logging;
mod shard;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

pub use self::listen::{Listener, StartError};
use crate::backend::Backend;
use crate::config::Config;
use crate::control;
use crate::control::election::{self, Elected};
use crate::hub::mailbox::Shard;
use crate::hub::packed::Packed;
use crate::node::Node;
use crate::transport::Polls;

/// How often the history is looked through for what is too old.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What a server listens on, bound and listening already.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub clients: Listener,
    /// For other processes of this machine.
    pub control: Elected,
}

impl Listeners {
    /// Wins the election and binds, or says why not.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let control = election::stand(config)?;
        let clients = Listener::bind(&config.listen)?;
        Ok(Self { clients, control })
    }
}

/// Whether to go on. Every thread of a server watches it.
pub type Shutdown = watch::Receiver<bool>;

/// Runs a server on the calling thread and as many shard threads as the settings say, until `shutdown` becomes true:
/// then clients are told 1001, what waits is sent, and it returns.
pub fn run(listeners: Listeners, node: Arc<Node>, shutdown: Shutdown) -> io::Result<()> {
    let config = node.config().clone();
    let Listeners { clients, control } = listeners;
    let polls = Arc::new(Polls::default());
    let mut shards = Vec::new();
    for index in 0..config.threads {
        shards.push(shard::start(
            index,
            node.clone(),
            polls.clone(),
            shutdown.clone(),
        )?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_name("rt-blocking")
        .build()?;
    let senders = shards.iter().map(|shard| shard.sockets.clone()).collect();
    let control_listener = control.listener.try_clone()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let accepting = tokio::task::spawn_local(accept::run(clients, senders, config.clone()));
        let controlling =
            tokio::task::spawn_local(control::server::run(control_listener, node.clone()));
        let keeping = tokio::task::spawn_local(keep_house(node.clone()));
        let mut shutdown = shutdown;
        // An error means that whoever could ask for it has gone: the same.
        let _ = shutdown.wait_for(|stop| *stop).await;
        // Nobody new from here on: the address is free as soon as these are gone.
        accepting.abort();
        let _ = accepting.await;
        controlling.abort();
        let _ = controlling.await;
        keeping.abort();
    });
    drop(local);
    for shard in shards {
        shard.join();
    }
    runtime.shutdown_timeout(Duration::from_millis(100));
    drop(control);
    Ok(())
}

async fn keep_house(node: Arc<Node>) {
    let mut interval = tokio::time::interval(HOUSEKEEPING);
    loop {
        interval.tick().await;
        node.expire();
    }
}

/// A server on threads of this process. Dropping it stops it: clients get 1001, the threads are joined.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    /// For a forked child, which has copies of them.
    descriptors: Vec<i32>,
}

impl Server {
    /// Starts one. What cannot be bound is told before any thread starts.
    pub fn start(config: Config, backend: Arc<dyn Backend>) -> Result<Self, StartError> {
        logging::start(&config);
        if let Some(directory) = &config.docroot {
            std::fs::read_dir(directory).map_err(|error| StartError::NoDocroot {
                directory: directory.clone(),
                error,
            })?;
        }
        let listeners = Listeners::bind(&config)?;
        let packed = Arc::new(Packed::default());
        let shards: Arc<[Arc<Shard>]> = (0..config.threads)
            .map(|_| Arc::new(Shard::new(packed.clone())))
            .collect();
        let config = Arc::new(config);
        let node = Arc::new(Node::new(config, shards, backend).map_err(StartError::Threads)?);
        node.set_address(listeners.clients.address().to_owned());
        let mut descriptors = vec![listeners.clients.as_raw_fd()];
        descriptors.extend(listeners.control.descriptors());
        let (stop, shutdown) = watch::channel(false);
        let hub = node.clone();
        let thread = spawn("rt-control", move || {
            if let Err(error) = run(listeners, hub, shutdown) {
                tracing::error!(%error, "the server could not run");
            }
        })
        .map_err(StartError::Threads)?;
        Ok(Self {
            node,
            stop,
            thread: Some(thread),
            descriptors,
        })
    }

    /// Its coordinator.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Where clients connect: `127.0.0.1:8080` or `unix:/path`.
    pub fn address(&self) -> &str {
        self.node.address()
    }

    /// For a forked child, in which this server's threads do not exist: closes the copies of its descriptors, so
    /// that the address is free when the parent ends, and forgets the rest. Joins nothing, tells nobody.
    pub fn forget(mut self) {
        for &descriptor in &self.descriptors {
            // SAFETY: these are this process's own copies; the objects that would close them are forgotten below,
            // and the threads that used them are not in this process.
            unsafe { libc::close(descriptor) };
        }
        listen::close_inherited(self.address());
        std::mem::forget(self.thread.take());
        // Its receivers live in memory that no thread of this process will touch.
        std::mem::forget(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody may be left to hear it.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread has panicked: a bug in realtime");
        }
    }
}

/// Starts a thread on which no signal is ever handled: they belong to PHP's own thread.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    // SAFETY: both sets are locals that nobody else can reach. The mask belongs to the calling thread and is
    // put back before this returns; the new thread inherits the full one.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let thread = builder.spawn(work);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        thread
    }
}
