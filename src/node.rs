//! The one coordinator: what PHP and other processes ask for goes to the broker and the shards through here, and what
//! clients do goes to PHP.
//!
//! All methods may be called from any thread. `publishing` has what goes to all, `clients` what concerns one connection, `users`
//! those of one user, `look` what is shown of it all. Imports `config`, `broker`, `hub`'s mailbox and `backend`.

mod attendance;
mod clients;
mod look;
mod publishing;
mod storage;
mod succession;
mod tasks;
mod users;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use self::attendance::Attendance;
pub use self::attendance::{Attending, MemberSummary};
pub use self::look::{ChannelSummary, HistoryEntry, HistoryPage, Stats};
use self::storage::Storage;
pub use self::storage::stored_in_time;
use self::tasks::Tasks;
use crate::auth::Auth;
use crate::backend::workers::Workers;
use crate::backend::{self, Backend, Event, Interest, Outcome, Refused, Replies, ReplyTo};
use crate::broker::memory::Memory;
use crate::broker::recall::Recall;
use crate::broker::{Broker, BrokerEvents, CatchUp, Since};
use crate::cache::Cache;
use crate::config::Config;
use crate::history::{Limits, Repack, Wanted};
use crate::hub::mailbox::{Command, Registered, Shard};
use crate::ids::{Channel, ConnectionId, Position};
use crate::limits::Counts;
use crate::message::{Publication, Publish};
use crate::predecessor::Predecessor;
use crate::store::Receipt;
use crate::tls::Tls;
use crate::wire::control::{Identity, Worker};
use crate::wire::handover::Master;

/// How often somebody who waits for room looks again.
const ROOM_PAUSE: Duration = Duration::from_micros(200);

/// Why a call was not done. The text is for the PHP exception.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The message is over the limit.
    #[error("the message has {size} bytes, realtime.max_message_size allows {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The server did not get to it in time.
    #[error(
        "the server is too busy: more waits for it than realtime.queue_bytes, or it did not answer within \
         realtime.timeout"
    )]
    Busy,
    /// What only the server can see to be wrong with a message; says what.
    #[error("{0}")]
    Invalid(String),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
    /// The server will not do it; says why.
    #[error("{0}")]
    Refused(String),
    /// What was published could not be stored; says where and what mends it.
    #[error("{0}")]
    Unstored(String),
    /// The link to the server's process failed; says which and how.
    #[error("{0}")]
    Link(String),
}

impl Failure {
    /// The same of a publication that may have `begun`, with some copies published: it must not be taken for one of which nothing
    /// was done, and be published once more elsewhere.
    pub(crate) fn of(self, begun: bool) -> Self {
        match self {
            Self::Stopped if begun => Self::Busy,
            failure => failure,
        }
    }
}

/// What has become of a message that was published without waiting.
#[derive(Debug)]
pub enum Accepted {
    /// It is on its way, and kept; this is its id.
    Done(String),
    /// It is on its way, and its publisher is to be told so when the receipt comes true.
    Kept(String, Receipt),
    /// The disk is behind: this is to be published as soon as there is room again.
    NoRoom(Publish),
}

/// Kinds of workers that are told apart: more than there are pools on any machine.
const FINGERPRINTS_MAX: usize = 64;

/// Takes the process number of a master and its [`Identity::generation`], see [`Node::adopt`].
pub(crate) type Adopter = Box<dyn Fn(u32, u64) + Send + Sync>;

/// Names the masters that were adopted and still live.
pub(crate) type Masters = Box<dyn Fn() -> Vec<Master> + Send + Sync>;

/// A server's coordinator.
pub struct Node {
    config: Arc<Config>,
    broker: Memory<Shards>,
    shards: Arc<[Arc<Shard>]>,
    backend: Arc<dyn Backend>,
    started: Instant,
    address: OnceLock<String>,
    identity: OnceLock<Identity>,
    /// Of the workers that came of the same start of PHP. Nothing is called under the lock.
    fingerprints: Mutex<Vec<String>>,
    adopter: OnceLock<Adopter>,
    masters: OnceLock<Masters>,
    numbers: AtomicU64,
    auth: Auth,
    tls: Option<Tls>,
    addresses: Arc<Counts>,
    users: Arc<Counts>,
    predecessor: OnceLock<Predecessor>,
    /// Whether another hub has taken over.
    resigned: AtomicBool,
    storage: Storage,
    present: Attendance,
    tasks: Tasks,
}

/// The hand-over of publications to the shards of this process.
struct Shards(Arc<[Arc<Shard>]>);

impl BrokerEvents for Shards {
    fn publication(&self, publication: Arc<Publication>) {
        for shard in self.0.iter() {
            // A connection is counted before it subscribes, and subscribing takes the broker's lock, which is
            // held here: a shard without connections has nobody to miss anything.
            if shard.stats.connections.load(Ordering::Relaxed) > 0 {
                // Quietly: under that lock nobody is to wait for a system call.
                shard.put_quietly(Command::Publication(publication.clone()));
            }
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// A node over `shards`, whose history begins a new epoch.
    pub fn new(
        config: Arc<Config>,
        shards: Arc<[Arc<Shard>]>,
        backend: Arc<dyn Backend>,
    ) -> std::io::Result<Self> {
        let mut epoch = [0; 4];
        getrandom::fill(&mut epoch).map_err(std::io::Error::other)?;
        let limits = Limits {
            count: config.history_size,
            age: config.history_ttl,
            bytes: config.history_bytes,
        };
        let cache = Cache::new(config.cache_channels.clone(), config.cache_bytes);
        let events = Shards(shards.clone());
        let present = Attendance::new(&config);
        let auth = Auth::new(&config).map_err(std::io::Error::other)?;
        let tls = Tls::new(&config).map_err(std::io::Error::other)?;
        Ok(Self {
            broker: Memory::new(
                limits,
                cache,
                Position::epoch_of(u32::from_ne_bytes(epoch)),
                events,
            ),
            config,
            shards,
            backend,
            started: Instant::now(),
            address: OnceLock::new(),
            identity: OnceLock::new(),
            fingerprints: Mutex::default(),
            adopter: OnceLock::new(),
            masters: OnceLock::new(),
            numbers: AtomicU64::new(0),
            auth,
            tls,
            addresses: Arc::default(),
            users: Arc::default(),
            predecessor: OnceLock::new(),
            resigned: AtomicBool::new(false),
            storage: Storage::default(),
            present,
            tasks: Tasks::default(),
        })
    }

    /// The settings.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Where clients connect; empty before the server listens.
    pub fn address(&self) -> &str {
        self.address.get().map_or("", String::as_str)
    }

    pub(crate) fn set_address(&self, address: String) {
        // Set once, by the server that owns this node.
        let _ = self.address.set(address);
    }

    /// Which hub this is.
    pub fn identity(&self) -> &Identity {
        static NOBODY: Identity = Identity {
            generation: 0,
            fingerprint: String::new(),
            detached: false,
            secret: String::new(),
        };
        self.identity.get().unwrap_or(&NOBODY)
    }

    /// The same for a worker, which compares itself with it. Pools of one master may differ in what they are told and share
    /// this hub: what one of them was like at the start that the hub is of has changed nothing when PHP is reloaded.
    pub fn identity_for(&self, worker: &Worker) -> Identity {
        let mut identity = self.identity().clone();
        if self.fingerprints().contains(&worker.fingerprint) {
            identity.fingerprint.clone_from(&worker.fingerprint);
        }
        identity
    }

    /// Notes what a worker of the same start of PHP is like.
    pub fn note(&self, worker: &Worker) {
        let mut known = self.fingerprints();
        if worker.generation == self.identity().generation
            && known.len() < FINGERPRINTS_MAX
            && !known.contains(&worker.fingerprint)
        {
            known.push(worker.fingerprint.clone());
        }
    }

    fn fingerprints(&self) -> MutexGuard<'_, Vec<String>> {
        self.fingerprints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        // Set once, before the server that owns this node runs.
        let _ = self.identity.set(identity);
    }

    /// Who may sign tokens, and which were taken back.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// How clients are spoken to in secret; none when they are not.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The connections of each address.
    pub fn addresses(&self) -> &Arc<Counts> {
        &self.addresses
    }

    /// The connections of each user.
    pub fn users(&self) -> &Arc<Counts> {
        &self.users
    }

    /// Tells whom it may concern that a worker of this master's has come: a hub in a process of its own lives as long as
    /// one of its masters.
    pub fn adopt(&self, master: u32, generation: u64) {
        if let Some(adopter) = self.adopter.get() {
            adopter(master, generation);
        }
    }

    /// The PHP masters that it lives for.
    pub fn masters(&self) -> Vec<Master> {
        self.masters
            .get()
            .map_or_else(Vec::new, |masters| masters())
    }

    pub(crate) fn set_masters(&self, masters: Masters) {
        // Set once, as the adopter is.
        let _ = self.masters.set(masters);
    }

    pub(crate) fn set_adopter(&self, adopter: Adopter) {
        // Set once, before the server that owns this node runs.
        let _ = self.adopter.set(adopter);
    }

    /// A number for a client's message.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What PHP handles at the moment.
    pub fn interest(&self) -> Interest {
        self.backend.interest()
    }

    /// Hands an event to PHP, waiting for room at most `realtime.timeout`.
    pub async fn dispatch(&self, event: Event) -> Result<(), Refused> {
        backend::dispatch(&*self.backend, event, self.config.timeout).await
    }

    /// Whether PHP keeps up with what it is told.
    pub fn backend_has_room(&self) -> bool {
        self.backend.has_room()
    }

    /// Whether PHP has done all that it was told.
    pub fn backend_is_idle(&self) -> bool {
        self.backend.load().queued == 0
    }

    /// Hands an event to PHP that must not be lost.
    pub fn notify(&self, event: Event) {
        self.backend.notify(event);
    }

    /// See [`Broker::catch_up`].
    pub fn catch_up(&self, channels: &[Channel], since: Since<'_>) -> CatchUp {
        self.broker.catch_up(channels, since)
    }

    /// What came after `since`, an id, on all channels that are wanted. Lets others have their turn in between.
    pub async fn recall(&self, since: &str, wanted: Wanted<'_>) -> Recall {
        self.broker.expire();
        let mut recall = Recall::new(since);
        while self.broker.recall(wanted, &mut recall) {
            while !recall.sift(wanted) {
                tokio::task::yield_now().await;
            }
        }
        recall
    }

    /// The same of what came since then, which is little, in one moment.
    pub fn recall_rest(&self, wanted: Wanted<'_>, recall: &mut Recall) {
        recall.go_on();
        while self.broker.recall(wanted, recall) {
            while !recall.sift(wanted) {}
        }
    }

    /// See [`Broker::position`].
    pub fn position(&self) -> Position {
        self.broker.position()
    }

    /// The events for other PHP processes, when they go to such: a server in a process of its own.
    pub fn workers(&self) -> Option<Arc<Workers>> {
        self.backend.clone().workers()
    }

    /// A step of putting what is kept into other memory; `false` when there is none left. Holds up publishers for less than a
    /// millisecond.
    pub fn repack(&self, repack: &mut Repack) -> bool {
        self.broker.repack(repack)
    }

    /// Lets the broker forget what is too old, give up the members of presence channels that did not come back, and the
    /// tokens' keys be read again.
    pub fn expire(&self) {
        self.broker.expire();
        self.attendance().expire();
        self.auth.keep_house();
        // All shards have the same.
        if let Some(shard) = self.shards.first() {
            shard.packed.expire(Instant::now());
        }
        if let Some(tls) = &self.tls {
            tls.keep_house();
        }
    }

    /// The part of a shard that other threads reach.
    pub fn shard(&self, index: usize) -> &Arc<Shard> {
        &self.shards[index]
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.stats.connections.load(Ordering::Relaxed))
            .sum()
    }

    /// Looks a connection up.
    pub fn connection(&self, id: ConnectionId) -> Option<Registered> {
        self.shards.get(id.shard())?.connection(id)
    }
}

impl Replies for Node {
    fn reply(&self, to: ReplyTo, outcome: Outcome) {
        self.reply_quietly(to, outcome);
    }

    fn send(&self) {
        self.rouse();
    }
}
