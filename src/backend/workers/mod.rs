//! The backend of a server in a process of its own: events wait here for PHP processes, which are requests of PHP-FPM
//! (`realtime.handler`) or have attached themselves (`php worker.php`).
//!
//! Shards put events in ([`Backend`]); executors take batches out ([`Attached`], and the FastCGI client) and bring the
//! outcomes back ([`Outcomes`](crate::wire::events::Outcomes)). One batch of a connection is under way at a time, so its
//! events stay in order; what queued meanwhile goes as the next one. Imports `backend`, `config` and `wire`.

mod attached;
mod hands;
mod interest;
mod lanes;
mod line;
mod order;
mod outcomes;
mod params;
mod pool;
mod requests;
mod said;
mod script;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub use self::hands::Attached;
use self::interest::Interests;
use self::lanes::{Lanes, Limits};
use self::pool::Pool;
use self::requests::Client;
use super::room::{EVENT_COST, Room};
use super::{Backend, Event, Interest, Load, NotTaken, Refused, Replies};
use crate::config::{Config, ListenAddress};
use crate::message::ConnectionInfo;
use crate::wire::events::{PartyOf, WireEvent};

/// What one batch may hold; bounds what a process loses when it ends, and how long others wait for its lanes.
const BATCH: Limits = Limits {
    lanes: 1,
    events: 100,
    bytes: 1 << 20,
    tried: true,
};

/// What a request may hold that is sent behind another one: what may end processes is to be seen doing it.
const UNTRIED: Limits = Limits {
    tried: false,
    ..BATCH
};

/// How often the handler's file is looked at, and how long ago the last attached process left.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How long what waits may take when the server has stopped.
const FAREWELL: Duration = Duration::from_secs(3);

/// Events for other PHP processes.
///
/// Give one to `Node::new`: `server::run` starts what takes the events out, on a thread of its own, and stops it before it
/// returns.
#[derive(Debug)]
pub struct Workers {
    config: Arc<Config>,
    /// Where the pool listens that runs the handler.
    pool: Option<ListenAddress>,
    /// See [`crate::wire::control::Identity::secret`].
    secret: String,
    // Locked by shards for a push, by executors for a take and for each outcome. Nothing is called under it, and only a
    // connection's state is locked under it.
    lanes: Mutex<Lanes>,
    room: Room,
    interests: Interests,
    replies: OnceLock<Weak<dyn Replies>>,
    /// For those who take out on the FastCGI side, and on that of attached processes.
    requests_wake: Notify,
    attached_wake: Notify,
    /// A lane was put off: the moment to look again may be another one.
    later_wake: Notify,
    /// There are replies to send.
    replied: Notify,
    /// New links of attached processes.
    desk: attached::Desk,
    /// Somebody says that the handler is another one.
    handler_changed: Notify,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
}

/// Who takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The FastCGI client: only while no process is attached.
    Requests,
    /// An attached process.
    Attached,
}

/// A batch for a process, see [`Batch`](crate::wire::events::Batch).
#[derive(Debug, Default)]
struct Next {
    events: Vec<WireEvent>,
    /// Whose they are.
    parties: Vec<Arc<ConnectionInfo>>,
    /// Whether a process has failed at one of them before.
    tried: bool,
}

impl Next {
    /// Its connections with the states that they have now.
    fn parties(&self) -> impl Iterator<Item = PartyOf<'_>> {
        self.parties
            .iter()
            .map(|connection| PartyOf::new(connection))
    }
}

impl Workers {
    /// With `realtime.handler`, requests go to `realtime.fastcgi` or, when that is empty, to `pool`: the pool whose worker
    /// has started the server. `secret` is the server's, as in its greeting.
    pub fn new(config: Arc<Config>, pool: Option<ListenAddress>, secret: String) -> Self {
        Self {
            pool: config.fastcgi.clone().or(pool),
            secret,
            lanes: Mutex::default(),
            room: Room::new(config.queue_bytes),
            interests: Interests::new(config.handler.is_some()),
            replies: OnceLock::new(),
            requests_wake: Notify::new(),
            attached_wake: Notify::new(),
            later_wake: Notify::new(),
            replied: Notify::new(),
            desk: attached::Desk::new(),
            handler_changed: Notify::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// Where replies go.
    pub fn reply_through(&self, replies: Weak<dyn Replies>) {
        // Set once, by the server that runs.
        let _ = self.replies.set(replies);
    }

    /// The handler may be another one although its file is not: PHP was reloaded. It is asked anew.
    pub fn handler_may_have_changed(&self) {
        self.handler_changed.notify_one();
    }

    /// Runs what takes events to processes, until `stop` becomes true and, for a moment longer, until what waits has been
    /// taken. To be polled within a `LocalRuntime`; what is left then is given up.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let workers = self.clone();
        tasks.spawn_local(async move { workers.keep_time().await });
        tasks.spawn_local(self.clone().serve_attached());
        let workers = self.clone();
        tasks.spawn_local(async move { workers.send_replies().await });
        let client = match (&self.config.handler, self.pool.clone()) {
            (Some(_), Some(address)) => {
                let client = Rc::new(Client::new(self.clone(), Pool::new(address)));
                client.start(&mut tasks);
                tasks.spawn_local(script::watch(client.clone()));
                Some(client)
            }
            (Some(_), None) => {
                tracing::error!(
                    "realtime.handler is set, but not where PHP-FPM listens that runs it: see realtime.fastcgi"
                );
                None
            }
            (None, _) => None,
        };
        // An error means that whoever could ask for it has gone: the same.
        let _ = stop.wait_for(|stop| *stop).await;
        let taken = async {
            let somebody = || {
                let reached = client.as_ref().is_some_and(|client| !client.pool.is_down());
                reached || self.interests.attached() > 0
            };
            while self.lock().events() > 0 && somebody() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Late or not, it ends.
        let _ = tokio::time::timeout(FAREWELL, taken).await;
        tasks.shutdown().await;
        self.shut_down();
    }

    /// Moves what was put off, and looks after processes that left, for as long as it is polled.
    async fn keep_time(&self) {
        let mut tick = tokio::time::interval(HOUSEKEEPING);
        loop {
            let (woken, at) = self.lock().wake(Instant::now());
            if woken {
                self.wake();
            }
            let until = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until => {}
                () = self.later_wake.notified() => {}
                _ = tick.tick() => self.forget_left(),
            }
        }
    }

    /// Sends replies, for as long as it is polled: those of all tasks that are ready before it, and when these have sent
    /// their next requests. Waking the shards may cost this thread its core.
    async fn send_replies(&self) {
        loop {
            self.replied.notified().await;
            self.flush_replies();
        }
    }

    fn flush_replies(&self) {
        if let Some(replies) = self.replies.get().and_then(Weak::upgrade) {
            replies.send();
        }
    }

    /// Takes no more events, and answers what waits: the server has stopped.
    fn shut_down(&self) {
        self.room.close();
        let drained = self.lock().drain();
        self.give_up(drained, "the server has stopped");
        // Nobody is left to do it.
        self.flush_replies();
    }

    /// Waits for a batch.
    async fn next(&self, side: Side, limits: Limits) -> Next {
        let wake = match side {
            Side::Requests => &self.requests_wake,
            Side::Attached => &self.attached_wake,
        };
        loop {
            let woken = wake.notified();
            if let Some(next) = self.try_next(side, limits) {
                return next;
            }
            woken.await;
        }
    }

    fn try_next(&self, side: Side, mut limits: Limits) -> Option<Next> {
        let attached = self.interests.attached();
        if side == Side::Requests && attached > 0 {
            return None;
        }
        let (handed, more) = {
            let mut lanes = self.lock();
            if attached > 1 {
                // Every attached process is to have something to do.
                limits.lanes = limits.lanes.min(lanes.ready().div_ceil(attached).max(1));
            }
            let handed = lanes.take(limits);
            (handed, lanes.ready() > 0)
        };
        if handed.freed > 0 {
            self.room.give_back(handed.freed);
        }
        if more {
            self.wake();
        }
        if handed.events.is_empty() {
            return None;
        }
        Some(Next {
            events: handed.events,
            parties: handed.parties,
            tried: handed.tried,
        })
    }

    /// Lets somebody look who may take out.
    fn wake(&self) {
        if self.interests.attached() > 0 {
            self.attached_wake.notify_one();
        } else {
            self.requests_wake.notify_one();
        }
    }

    /// Attached processes that left without a successor are waited for no longer than `realtime.linger`.
    fn forget_left(&self) {
        let Some(then) = Instant::now().checked_sub(self.config.linger) else {
            return;
        };
        if self.interests.forget_left(then) {
            let drained = self.lock().drain();
            self.give_up(drained, "the PHP process that handled messages has ended");
        }
    }

    fn units(&self, event: &Event) -> u32 {
        let data = match event {
            Event::Message { message, .. } => message.data.len(),
            _ => 0,
        };
        self.room.units_of(EVENT_COST + data)
    }

    /// What the lane of `event` takes: nobody else may keep the connection's head.
    fn lane_units(&self, event: &Event) -> u32 {
        let head = self.room.units_of(event.connection().head().len());
        self.room.beside(self.units(event), head)
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Workers {
    fn interest(&self) -> Interest {
        self.interests.effective()
    }

    fn try_dispatch(&self, event: Event) -> Result<(), Box<NotTaken>> {
        let mut lanes = self.lock();
        let id = event.connection().id;
        let limit = self.config.handler_queue;
        if matches!(event, Event::Message { .. }) && lanes.is_full(id, limit) {
            let why = Refused::Busy;
            return Err(Box::new(NotTaken { event, why }));
        }
        let units = self.units(&event);
        let lane_units = if lanes.has(id) {
            0
        } else {
            self.lane_units(&event)
        };
        if let Err(why) = self.room.take(units + lane_units) {
            return Err(Box::new(NotTaken { event, why }));
        }
        let ready = lanes.push(event, units, lane_units);
        drop(lanes);
        if ready {
            self.wake();
        }
        Ok(())
    }

    fn room<'a>(&'a self, event: &Event) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        if matches!(event, Event::Message { .. }) {
            let mut lanes = self.lock();
            let room = lanes.room(event.connection().id, self.config.handler_queue);
            if let Some(room) = room {
                // Made under the lock: what leaves the lane from here on is not missed.
                return Box::pin(room.notified_owned());
            }
        }
        let units = self.units(event) + self.lane_units(event);
        Box::pin(self.room.wait(units))
    }

    fn has_room(&self) -> bool {
        self.room.has_any()
    }

    fn notify(&self, event: Event) {
        let mut lanes = self.lock();
        let new = !lanes.has(event.connection().id);
        let Some(units) = self.room.overdraw(self.units(&event)) else {
            return;
        };
        let lane_units = match new {
            true => self.room.overdraw(self.lane_units(&event)).unwrap_or(0),
            false => 0,
        };
        let ready = lanes.push(event, units, lane_units);
        drop(lanes);
        if ready {
            self.wake();
        }
    }

    fn load(&self) -> Load {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Load {
            queued: self.lock().events(),
            requests: load(&self.counters.requests),
            retried: load(&self.counters.retried),
            failed: load(&self.counters.failed),
        }
    }

    fn workers(self: Arc<Self>) -> Option<Arc<Workers>> {
        Some(self)
    }
}
