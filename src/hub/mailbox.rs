//! The part of a shard that other threads reach: its mailbox, its list of connections and its counters.
//!
//! `node` puts in from any thread; the shard's thread takes out. Imports `ids`, `message`, `sync` and `backend`'s outcome.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use super::Hub;
use super::packed::Packed;
use crate::backend::Outcome;
use crate::ids::ConnectionId;
use crate::message::{ConnectionInfo, EventName, Payload, Publication};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Notify};

/// What a piece of work weighs beside its content, in bytes.
const COMMAND_COST: usize = 128;

/// Work for a shard.
pub enum Command {
    /// Deliver to the subscribers.
    Publication(Arc<Publication>),
    /// Send to one connection.
    Send {
        /// Which.
        to: ConnectionId,
        /// What.
        payload: Payload,
        /// Under which name.
        event: EventName,
    },
    /// Answer a client's message.
    Reply {
        /// Which connection.
        to: ConnectionId,
        /// The client's `ref`, as JSON.
        reference: Option<Box<str>>,
        /// What became of it.
        outcome: Outcome,
    },
    /// Anything rarer.
    Run(Box<dyn FnOnce(&mut Hub) + Send>),
}

/// What other threads share with one shard.
#[derive(Debug, Default)]
pub struct Shard {
    // A Mutex<Vec> and not a channel: the shard takes all that waits in one swap, and publishers hold the lock
    // for one push. Never held while anything else is locked or called.
    queue: Mutex<Queue>,
    waiting: AtomicUsize,
    wake: Notify,
    // Touched when a connection comes or goes, and to see whether one is still there.
    connections: Mutex<HashMap<ConnectionId, Registered>>,
    // Touched when a client is admitted, and by what `rt_on_open()` does with it.
    opening: Mutex<HashMap<ConnectionId, Vec<Command>>>,
    /// Counters for rt_stats().
    pub stats: ShardStats,
    /// What was compressed lately.
    pub packed: Arc<Packed>,
}

/// Work that may be put off for one connection until it is open.
const DEFERRED_MAX: usize = 1000;

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    signalled: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.commands.len())
            .finish_non_exhaustive()
    }
}

/// A connection in a shard's list.
#[derive(Clone, Debug)]
pub struct Registered {
    /// What PHP may know of it.
    pub info: Arc<ConnectionInfo>,
    /// Its place in the shard.
    pub slot: usize,
}

/// A shard's counters. Written by its thread alone, read by any.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Connections ever.
    pub connections_total: AtomicU64,
    /// Messages put into outboxes.
    pub delivered: AtomicU64,
    /// Messages from clients.
    pub received: AtomicU64,
    /// Connections closed because they read too slowly.
    pub dropped_slow: AtomicU64,
    /// Subscriptions at the moment.
    pub subscriptions: std::sync::atomic::AtomicUsize,
    /// Connections at the moment.
    pub connections: std::sync::atomic::AtomicUsize,
}

impl Shard {
    /// One that shares `packed` with the other shards.
    pub fn new(packed: Arc<Packed>) -> Self {
        Self {
            packed,
            ..Self::default()
        }
    }

    /// Puts work in. Never blocks for long; whoever publishes looks at [`Shard::waiting`] first.
    pub fn put(&self, command: Command) {
        self.put_quietly(command);
        self.rouse();
    }

    /// Puts work in, and leaves it to the caller to [`Shard::rouse`] the shard when it has nothing more urgent to do:
    /// waking a thread is a system call, and the thread may take this core.
    pub fn put_quietly(&self, command: Command) {
        self.waiting.fetch_add(command.cost(), Ordering::Relaxed);
        lock(&self.queue).commands.push(command);
    }

    /// Has the shard take up what waits, unless it is about to.
    pub fn rouse(&self) {
        let mut queue = lock(&self.queue);
        if queue.commands.is_empty() || std::mem::replace(&mut queue.signalled, true) {
            return;
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// The bytes that wait, or are being worked on.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for work, then swaps it into `commands`, which must be empty.
    pub async fn take(&self, commands: &mut Vec<Command>) {
        loop {
            self.wake.notified().await;
            let mut queue = lock(&self.queue);
            queue.signalled = false;
            std::mem::swap(&mut queue.commands, commands);
            if !commands.is_empty() {
                return;
            }
        }
    }

    /// Takes what has come since, without waiting, into `commands`, which must be empty. Whether there was any.
    ///
    /// The signal for it stays given: publishers need not give another one until the shard waits again, and then it finds
    /// that there is nothing.
    pub fn take_more(&self, commands: &mut Vec<Command>) -> bool {
        std::mem::swap(&mut lock(&self.queue).commands, commands);
        !commands.is_empty()
    }

    /// Whether there is work to take.
    pub fn has_more(&self) -> bool {
        !lock(&self.queue).commands.is_empty()
    }

    /// Counts `commands`, which were taken, as done when the value is dropped: also by a panic, or publishers would find
    /// the shard busy for ever.
    pub fn working(&self, commands: &[Command]) -> Working<'_> {
        Working {
            shard: self,
            cost: commands.iter().map(Command::cost).sum(),
        }
    }

    /// Looks a connection up.
    pub fn connection(&self, id: ConnectionId) -> Option<Registered> {
        lock(&self.connections).get(&id).cloned()
    }

    /// Whether a connection is there.
    pub fn has(&self, id: ConnectionId) -> bool {
        lock(&self.connections).contains_key(&id)
    }

    /// All connections.
    pub fn connections(&self) -> Vec<Arc<ConnectionInfo>> {
        lock(&self.connections)
            .values()
            .map(|c| c.info.clone())
            .collect()
    }

    /// From here on what PHP does with `id` is put off until the connection is there: its `rt_on_open()` handler may
    /// greet it or subscribe it before it is let in.
    pub fn begin_opening(self: &Arc<Self>, id: ConnectionId) -> Opening {
        lock(&self.opening).insert(id, Vec::new());
        Opening {
            shard: self.clone(),
            id,
        }
    }

    /// Puts work off. `false` when the connection is not about to open, or too much is put off already.
    pub fn defer(&self, id: ConnectionId, work: Command) -> bool {
        let mut opening = lock(&self.opening);
        let deferred = opening
            .get_mut(&id)
            .filter(|list| list.len() < DEFERRED_MAX);
        deferred.map(|list| list.push(work)).is_some()
    }

    pub(super) fn register(&self, info: Arc<ConnectionInfo>, slot: usize) {
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.stats.connections_total.fetch_add(1, Ordering::Relaxed);
        lock(&self.connections).insert(info.id, Registered { info, slot });
    }

    pub(super) fn deregister(&self, id: ConnectionId) {
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
        let mut connections = lock(&self.connections);
        connections.remove(&id);
        if connections.capacity() > 64 && connections.len() < connections.capacity() / 8 {
            connections.shrink_to_fit();
        }
    }
}

/// A connection that is about to open. When it is dropped, what was put off for it is forgotten.
#[derive(Debug)]
pub struct Opening {
    shard: Arc<Shard>,
    id: ConnectionId,
}

impl Opening {
    /// Takes what was put off; nothing more will be.
    pub fn finish(self) -> Vec<Command> {
        lock(&self.shard.opening)
            .remove(&self.id)
            .unwrap_or_default()
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        lock(&self.shard.opening).remove(&self.id);
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Publication(_) => "Publication",
            Self::Send { .. } => "Send",
            Self::Reply { .. } => "Reply",
            Self::Run(_) => "Run",
        })
    }
}

/// Work that a shard is doing.
#[derive(Debug)]
pub struct Working<'a> {
    shard: &'a Shard,
    cost: usize,
}

impl Working<'_> {
    /// Counts these too.
    pub fn add(&mut self, commands: &[Command]) {
        self.cost += commands.iter().map(Command::cost).sum::<usize>();
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.shard.waiting.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

impl Command {
    /// What it weighs while it waits.
    pub fn cost(&self) -> usize {
        COMMAND_COST
            + match self {
                Self::Publication(publication) => publication.payload.len(),
                Self::Send { payload, .. } => payload.len(),
                Self::Reply { outcome, .. } => outcome
                    .as_ref()
                    .ok()
                    .and_then(Option::as_ref)
                    .map_or(0, Payload::len),
                Self::Run(_) => 0,
            }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave them half done: a panic elsewhere must not stop the shard.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, feature = "loom"))]
mod meetings {
    use loom::future::block_on;
    use loom::thread;

    use super::*;

    fn work(name: &'static str) -> Command {
        Command::Send {
            to: ConnectionId::from_bits(1),
            payload: Payload::Json(name.into()),
            event: EventName::Message,
        }
    }

    /// Works until `count` pieces are done, as a shard does, and tells which.
    fn shard(shard: &Shard, count: usize) -> Vec<String> {
        let mut done = Vec::new();
        let mut commands = Vec::new();
        while done.len() < count {
            block_on(shard.take(&mut commands));
            let mut working = shard.working(&commands);
            loop {
                for command in commands.drain(..) {
                    let Command::Send {
                        payload: Payload::Json(name),
                        ..
                    } = command
                    else {
                        unreachable!()
                    };
                    done.push(String::from_utf8(name.to_vec()).unwrap());
                }
                // What came meanwhile joins.
                if !shard.take_more(&mut commands) {
                    break;
                }
                working.add(&commands);
            }
        }
        done
    }

    fn in_order(done: &[String], first: &str, second: &str) -> bool {
        let place = |name| done.iter().position(|its| its == name);
        place(first) < place(second)
    }

    #[test]
    fn nothing_that_is_put_in_is_left_behind() {
        loom::model(|| {
            let mailbox = loom::sync::Arc::new(Shard::default());
            let two = mailbox.clone();
            let two = thread::spawn(move || ["a1", "a2"].map(|name| two.put(work(name))));
            let one = mailbox.clone();
            let one = thread::spawn(move || one.put(work("b")));
            let done = shard(&mailbox, 3);
            two.join().unwrap();
            one.join().unwrap();
            assert!(in_order(&done, "a1", "a2"));
            assert_eq!(mailbox.waiting(), 0);
        });
    }

    #[test]
    fn what_is_put_in_quietly_is_done_when_the_shard_is_roused() {
        loom::model(|| {
            let mailbox = loom::sync::Arc::new(Shard::default());
            let quiet = mailbox.clone();
            let quiet = thread::spawn(move || {
                quiet.put_quietly(work("a1"));
                quiet.put_quietly(work("a2"));
                quiet.rouse();
            });
            let loud = mailbox.clone();
            let loud = thread::spawn(move || loud.put(work("b")));
            let done = shard(&mailbox, 3);
            quiet.join().unwrap();
            loud.join().unwrap();
            assert!(in_order(&done, "a1", "a2"));
            assert_eq!(mailbox.waiting(), 0);
        });
    }

    #[test]
    fn what_is_put_off_is_done_or_forgotten() {
        loom::model(|| {
            let mailbox = Arc::new(Shard::default());
            let id = ConnectionId::from_bits(1);
            let opening = mailbox.begin_opening(id);
            let php = mailbox.clone();
            let php = thread::spawn(move || php.defer(id, work("a")));
            let done = opening.finish().len();
            assert_eq!(php.join().unwrap(), done == 1);
            assert!(lock(&mailbox.opening).is_empty());
        });
    }
}
