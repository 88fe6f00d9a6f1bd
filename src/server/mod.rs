//! The only wiring: binds what is listened on, starts the threads, stops them.
//!
//! [`run`] is the one door to a server; [`Server`] is a server on threads of this process. Knows nothing of PHP.
//! Imports everything above.

mod accept;
pub mod detached;
mod doors;
mod drain;
mod executors;
mod heap;
mod listen;
mod logfile;
mod logging;
mod masters;
mod process;
mod runtime;
mod shard;
pub mod takeover;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio::sync::watch;
use tokio::time::Instant;

use self::accept::Accepted;
use self::doors::Doors;
use self::heap::Heap;
pub use self::listen::{Listener, StartError};
pub use self::logging::PhpLog;
pub use self::process::is_patient;
pub use self::takeover::{Legacy, TakeoverError};
use crate::auth::Auth;
use crate::backend::Backend;
use crate::config::{Config, HistoryKind};
use crate::control::election::{self, Elected};
use crate::control::handover::{self, Link, Taker};
use crate::control::links::Links;
use crate::control::relay;
use crate::control::server::Desks;
use crate::hub::mailbox::Shard;
use crate::hub::packed::Packed;
use crate::node::Node;
use crate::predecessor::Predecessor;
use crate::pusher::{self, Pusher};
use crate::store;
use crate::threads::spawn;
use crate::tls::Tls;
use crate::transport::Polls;
use crate::wire::control::Identity;
use crate::wire::handover::Estate;

/// How often the history is looked through for what is too old.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often the heap is looked at, which walks over all that is free in it.
const HEAP_LOOKS: Duration = Duration::from_secs(5);

/// Within what time clients are closed to whom nothing can be delivered any more, by a hub that another has taken over
/// from.
const BLIND: Duration = Duration::from_millis(500);

/// What a server listens on, bound and listening already.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub clients: Listener,
    /// For other processes of this machine.
    pub control: Elected,
    /// What came with them, when they are another hub's: see [`takeover::take`].
    pub legacy: Option<Legacy>,
}

impl Listeners {
    /// Wins the election and binds, or says why not.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let control = election::stand(config)?;
        let clients = Listener::bind(&config.listen)?;
        Ok(Self {
            clients,
            control,
            legacy: None,
        })
    }
}

/// Whether to go on. Every thread of a server watches it.
pub type Shutdown = watch::Receiver<bool>;

/// Runs a server on the calling thread and as many shard threads as the settings say, until `shutdown` becomes true:
/// then clients are told 1001, what waits is sent, and it returns.
///
/// It also returns when another hub has taken over and the last client has gone there. With a [`Legacy`] it takes over
/// itself before it serves anybody; an error then means that it did not, and the old hub serves on.
pub fn run(listeners: Listeners, node: Arc<Node>, shutdown: Shutdown) -> io::Result<()> {
    let config = node.config().clone();
    let polls = Arc::new(Polls::default());
    let (pusher, webhooks) = Pusher::new(&config);
    let (stop, stopping) = watch::channel(false);
    let (leave, leaving) = watch::channel(None);
    let mut shards = Vec::new();
    for index in 0..config.threads {
        shards.push(shard::start(
            index,
            node.clone(),
            (polls.clone(), pusher.clone()),
            stopping.clone(),
            leaving.clone(),
        )?);
    }
    let executors = executors::start(&node)?;
    let runtime = runtime::build(4)?;
    let counted = node.count_tasks("control", runtime.metrics());
    // The links' answers need it for longer than the tasks are there.
    let blocking = runtime::blocking(4)?;
    let senders = shards.iter().map(|shard| shard.sockets.clone()).collect();
    let links = Links::start(node.clone(), blocking.handle().clone(), |work| {
        spawn("rt-links", work)
    })?;
    let links = Rc::new(links);
    let Listeners {
        clients,
        control,
        legacy,
    } = listeners;
    let control = Rc::new(control);
    let hub = node.clone();
    let serving = serve(
        (clients, control.clone(), legacy),
        node.clone(),
        senders,
        links.clone(),
        shutdown,
        leave,
    );
    runtime.spawn_local(pusher::run(pusher, node, webhooks));
    let result = runtime.block_on(serving);
    // Also when it never served: the shards wait for it.
    let _ = stop.send(true);
    drop(counted);
    runtime.shutdown_timeout(Duration::from_millis(100));
    // Also its directory is free for the next hub.
    hub.close_store();
    // The next hub need not wait until this one's clients have taken leave.
    drop(control);
    // What it has answered reaches the shards before they end.
    drop(links);
    for shard in shards {
        shard.join();
    }
    // After the last connection's end was told.
    drop(executors);
    blocking.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Looks at what the settings name, so that a mistake is told before anything is bound.
fn check_files(config: &Config) -> Result<(), StartError> {
    // Read once more with the node.
    Auth::new(config)?;
    if let (HistoryKind::Disk, Some(directory)) = (config.history, &config.data_dir) {
        store::check(directory)?;
    }
    Tls::new(config)?;
    let Some(directory) = &config.docroot else {
        return Ok(());
    };
    let failed = |error| StartError::NoDocroot {
        directory: directory.clone(),
        error,
    };
    std::fs::read_dir(directory).map_err(failed).map(drop)
}

/// The control thread's part.
async fn serve(
    (clients, control, legacy): (Listener, Rc<Elected>, Option<Legacy>),
    node: Arc<Node>,
    shards: Vec<Sender<Accepted>>,
    links: Rc<Links>,
    mut shutdown: Shutdown,
    leave: watch::Sender<Option<Instant>>,
) -> io::Result<()> {
    let mut former = None;
    if let Some(legacy) = legacy {
        let (link, listener) = takeover::succeed(legacy, &node, &clients, &control).await?;
        former = listener;
        let (predecessor, asks) = Predecessor::new();
        node.succeed(link.is_some().then_some(predecessor));
        if let Some(link) = link {
            tokio::task::spawn_local(relay::run(link, node.clone(), node.feed(), asks));
        }
    }
    let (takers, mut taking) = mpsc::channel(1);
    let desks = Desks { links, takers };
    let mut doors = Doors::new(clients, control, shards, desks, node.clone());
    doors.open()?;
    if let Some(former) = former {
        doors.accept_at(former, node.config().drain);
    }
    let keeping = tokio::task::spawn_local(keep_house(node.clone()));
    // An error means that whoever could ask for it has gone: the same.
    let taken_over = tokio::select! {
        _ = shutdown.wait_for(|stop| *stop) => None,
        successor = successor(&mut doors, &mut taking) => Some(successor?),
    };
    if let Some(successor) = taken_over {
        let within = node.config().drain;
        tracing::info!(
            "another server has taken over; this one closes its clients within {within:?}"
        );
        leave.send_replace(Some(Instant::now() + within));
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = part(successor, &doors, &leave) => {}
        }
    }
    // Nobody new from here on: the address is free as soon as these are gone.
    doors.slam().await;
    keeping.abort();
    Ok(())
}

/// Hands over to the first who wants to take over and can.
async fn successor(doors: &mut Doors, takers: &mut mpsc::Receiver<Taker>) -> io::Result<Successor> {
    let config = doors.node.config().clone();
    let mut look = tokio::time::interval(HOUSEKEEPING);
    // Whatever is wrong with the socket is told once.
    let mut told = None;
    loop {
        let taker = tokio::select! {
            taker = takers.recv() => taker,
            _ = look.tick() => {
                let wrong = doors.look_after().err().map(|error| error.to_string());
                if let Some(error) = wrong.as_ref().filter(|_| wrong != told) {
                    tracing::error!("nobody finds this server any more: {error}");
                }
                told = wrong;
                reopen_store(&doors.node).await;
                continue;
            }
        };
        let Some(taker) = taker else {
            // Its sender is in `doors`.
            return std::future::pending().await;
        };
        let estate = Estate {
            listen: config.listen.to_string(),
            secret: doors.node.identity().secret.clone(),
            max_message_size: config.max_message_size,
            parts: taker.same_version,
            attached: doors
                .node
                .workers()
                .map_or(0, |workers| workers.attached_interest().to_bits()),
            masters: doors.node.masters(),
        };
        let same_version = taker.same_version;
        let (node, control, clients) = (
            doors.node.clone(),
            doors.control.clone(),
            doors.clients.clone(),
        );
        let descriptors = [control.listener.as_fd(), control.lock(), clients.as_fd()];
        let let_go = async || {
            doors.close().await?;
            node.resign(true);
            // The new hub opens it next.
            let closing = node.clone();
            let closed = tokio::task::spawn_blocking(move || closing.close_store());
            closed.await.map_err(io::Error::other)?;
            // From here on the new hub may be serving, which this one hears a moment later: if it is stopped in between, the
            // sockets' files must stay.
            control.set_owned(false);
            clients.set_owned(false);
            Ok(())
        };
        match handover::give(taker, &node, &estate, descriptors, let_go).await {
            Ok(link) => {
                if let Some(workers) = node.workers() {
                    workers.refer_attached();
                }
                return Ok(Successor { link, same_version });
            }
            Err(error) => {
                tracing::warn!(%error, "another server wanted to take over and did not; this one serves on");
                control.set_owned(true);
                clients.set_owned(true);
                if let Err(error) = node.open_store() {
                    // The one that did not take over may have it yet, if its disk stands still.
                    tracing::error!("{error}; nothing is published until that is mended");
                }
                node.resign(false);
                if !doors.is_open() {
                    doors.open()?;
                }
            }
        }
    }
}

/// Tries again to keep the history, when that could not go on after a takeover that did not happen. Here, where nobody takes over
/// meanwhile.
async fn reopen_store(node: &Arc<Node>) {
    if !node.is_store_closed() {
        return;
    }
    let closed = node.clone();
    let opened = tokio::task::spawn_blocking(move || closed.open_store());
    if let Ok(Ok(())) = opened.await {
        tracing::warn!("realtime.data_dir can be used again: messages are taken as before");
    }
}

/// A hub that has taken over.
struct Successor {
    link: Link,
    same_version: bool,
}

/// Serves the clients that are left until they have gone to the successor.
async fn part(successor: Successor, doors: &Doors, leave: &watch::Sender<Option<Instant>>) {
    let node = doors.node.clone();
    let leaving = leave.subscribe();
    let followed = async {
        if successor.same_version {
            relay::follow(successor.link, node).await;
        }
        // Nobody tells what is published any more: the sooner the clients are there, the better.
        let soon = Instant::now() + BLIND;
        leave.send_if_modified(|until| {
            let sooner = until.is_none_or(|until| soon < until);
            if sooner {
                *until = Some(soon);
            }
            sooner
        });
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = followed => {}
        () = drain::until_empty(doors, leaving) => {}
    }
}

async fn keep_house(node: Arc<Node>) {
    let forgetting = async {
        let mut interval = tokio::time::interval(HOUSEKEEPING);
        loop {
            interval.tick().await;
            node.expire();
        }
    };
    // Beside the other: to copy a large history takes seconds.
    let giving_back = async {
        let mut heap = Heap::default();
        loop {
            tokio::time::sleep(HEAP_LOOKS).await;
            heap.look(&node).await;
        }
    };
    tokio::join!(forgetting, giving_back);
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
        check_files(&config)?;
        let listeners = Listeners::bind(&config)?;
        Self::with(listeners, config, backend, Identity::default())
    }

    /// Starts one on `listeners`, which may be another hub's ([`takeover::take`]).
    pub fn with(
        listeners: Listeners,
        config: Config,
        backend: Arc<dyn Backend>,
        identity: Identity,
    ) -> Result<Self, StartError> {
        let packed = Arc::new(Packed::default());
        let shards: Arc<[Arc<Shard>]> = (0..config.threads)
            .map(|_| Arc::new(Shard::new(packed.clone())))
            .collect();
        let config = Arc::new(config);
        let node = Arc::new(Node::new(config, shards, backend).map_err(StartError::Threads)?);
        node.set_address(listeners.clients.address().to_owned());
        node.set_identity(identity);
        if listeners.legacy.is_none() {
            node.open_store()?;
        }
        let mut descriptors = vec![listeners.clients.as_raw_fd()];
        descriptors.extend(node.store_descriptor());
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

    /// Whether it has ended by itself: another hub has taken over, or it could not run.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
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
