//! `realtime.history = disk`: a journal of what the history notes, so that it is there again after a crash.
//!
//! The history in memory stays what clients resume from and what decides on what is kept. The broker writes every message into a
//! [`ring`] before anybody gets it ([`Journal`]); from there a thread, the [`keeper`], takes them into a [`database`] in batches, and
//! takes out what the history has pushed out. What is in the ring survives the end of the process; with `realtime.fsync = always` a
//! publisher waits until its message is in the database and on the disk ([`Receipt`]). Imports `ids`, `message`, `history`, `auth`,
//! `config` and `wire`.

mod beginning;
mod blocks;
mod database;
mod directory;
mod keeper;
mod memory;
mod opening;
mod receipt;
mod record;
mod ring;
mod sleep;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use self::directory::{StoreError, check};
pub use self::opening::{Contents, Opened, open};
pub use self::receipt::{NotStored, Receipt};
use self::record::{Message, Record, unix_time};
use self::ring::Ring;
use self::sleep::Sleep;
use crate::auth::Lists;
use crate::config::Fsync;
use crate::history::{Fate, Note};
use crate::ids::Channel;
use crate::message::{Publication, Publish, Terms};
use crate::wire::control;
use crate::wire::handover::WireTerms;

/// What a message's record may have beside its content: the longest names, and the rest.
const NAMES: usize = 1280;

/// How long the first batch may take before publishers are refused. In a takeover nobody is served meanwhile, and it has two.
const BEGINNING: Duration = Duration::from_secs(1);

/// Who is called whenever receipts may have come true.
pub type Watchers = Arc<Mutex<Vec<Box<dyn Fn() + Send + Sync>>>>;

/// The keeper, and the way to end it.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    descriptor: i32,
}

/// The broker's end. Its methods are called under the broker's lock, by one thread at a time.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    ring: Arc<Ring>,
    /// The one whose file is still in the other's place: numbers are noted there, too, until it is not.
    former: Option<Arc<Ring>>,
    /// A moment, and its time since 1970: spares a look at the clock for each message.
    now: (Instant, Duration),
}

/// How the keeper learns what has happened: fills in all but `closing`, under the broker's lock.
pub type Source = Box<dyn Fn(&mut News) + Send>;

/// Tells what is revoked.
pub type Revoked = Box<dyn Fn() -> Lists + Send>;

/// Where the keeper learns what it is to write.
pub struct Sources {
    /// What has happened.
    pub news: Source,
    /// All that is revoked.
    pub revoked: Revoked,
}

/// What the keeper is to write.
#[derive(Debug, Default)]
pub struct News {
    /// Asks for all that there is, in place of what is new.
    pub wants_whole: bool,
    /// That.
    pub whole: Option<Whole>,
    /// Whose numbers they are.
    pub epoch: u32,
    /// As far as the ring is filled.
    pub head: u64,
    /// The newest number.
    pub newest: u64,
    /// The newest number that was pushed out of a channel of which nothing is left.
    pub forgotten: u64,
    /// What has become of messages; what is new goes behind what is there.
    pub fates: Vec<Fate>,
    /// What was pushed out of channels, in the same way.
    pub marks: Vec<(Channel, Option<u64>)>,
}

/// Everything that there is, when the database may have something else.
#[derive(Debug)]
pub struct Whole {
    /// As far as the ring was filled.
    pub head: u64,
    /// The newest number that was pushed out of each channel.
    pub marks: Vec<(Channel, u64)>,
    /// What is kept.
    pub notes: Vec<Note>,
}

/// What the broker's end, the keeper and those who wait for receipts share.
struct Shared {
    directory: PathBuf,
    fsync: Fsync,
    closing: AtomicBool,
    sleep: Sleep,
    /// Whether the last attempt to write has failed, or none was made where one must come first: then nothing more is taken.
    failing: AtomicBool,
    // Taken for a look or a change of two words.
    progress: Mutex<Progress>,
    progressed: Condvar,
    notify: Notify,
    watchers: Watchers,
}

/// How far the keeper is.
#[derive(Debug, Default)]
struct Progress {
    /// Up to here the ring is in the database, and on the disk when that is waited for.
    done: u64,
    /// Why it goes no further at the moment.
    failed: Option<NotStored>,
    /// Whether the database knows of the ring: before that a crash would lose what is in it.
    begun: bool,
    /// A new ring for the broker's end to take.
    offered: Option<Arc<Ring>>,
}

impl Store {
    /// Writes what waits, as far as that is possible, and lets go of the directory. What is published later is not kept.
    pub fn close(mut self) {
        self.end();
    }

    /// Blocks until what is kept outlives the process. When that takes too long or is impossible, publishers are refused until it does.
    pub fn await_beginning(&self) {
        let shared = &*self.shared;
        let waits = |progress: &mut Progress| !progress.begun && progress.failed.is_none();
        let waited = shared
            .progressed
            .wait_timeout_while(shared.progress(), BEGINNING, waits);
        drop(waited);
    }

    /// The directory's lock, for a forked child to close.
    pub fn descriptor(&self) -> i32 {
        self.descriptor
    }

    fn end(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.sleep.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of realtime.data_dir has panicked: a bug in realtime");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}

impl Journal {
    /// Why nothing is taken at the moment, if so.
    pub fn refuses(&self) -> Option<NotStored> {
        if !self.shared.failing.load(Ordering::Acquire) {
            return None;
        }
        let progress = self.shared.progress();
        let failed = progress.failed.clone();
        failed.or_else(|| (!progress.begun).then(|| self.shared.is_slow()))
    }

    /// Why it has not begun, if that was tried.
    pub fn cannot_begin(&self) -> Option<NotStored> {
        let progress = self.shared.progress();
        progress.failed.clone().filter(|_| !progress.begun)
    }

    /// Whether there is room for the message in one more channel.
    pub fn has_room(&self, publish: &Publish) -> bool {
        // The broker gives some to copies that had none.
        let none = Terms::default();
        let terms = WireTerms::from(publish.terms.as_deref().unwrap_or(&none)).size();
        let most = publish.payload.len() + NAMES + terms;
        self.ring.has_room(most)
    }

    /// Keeps what the history has just noted.
    pub fn keep(&self, publication: &Publication, store: bool) {
        let (then, time) = self.now;
        let at = time + publication.at.saturating_duration_since(then);
        let message = Message::new(publication, store, at);
        let most = message.most();
        write(&self.ring, most, &Record::Message(message));
    }

    /// Keeps what was revoked. `false` when there is no room, or not yet.
    pub fn revoke(&self, revoked: Lists) -> bool {
        if !self.shared.progress().begun {
            return false;
        }
        let names = revoked.keys().map(|(key, _)| key.len() + 32);
        let most = 64 + names.sum::<usize>();
        let fits = self.ring.has_room(most);
        if fits {
            write(&self.ring, most, &Record::Revoked(revoked));
        }
        fits
    }

    /// Notes the newest number, and has the keeper take up what is new: after each publish, before anybody gets it.
    pub fn pass_on(&self, newest: u64) {
        let shared = &*self.shared;
        self.ring.numbered(newest);
        if let Some(former) = &self.former {
            former.numbered(newest);
        }
        if shared.sleep.is_deep() || self.ring.used() > self.ring.half() {
            shared.sleep.end();
        }
    }

    /// As far as the ring is filled; it may be a new one from here on, which begins at the `newest` number. By the keeper's [`Source`].
    pub fn head(&mut self, newest: u64) -> u64 {
        self.now = (Instant::now(), unix_time());
        let mut progress = self.shared.progress();
        if let Some(offered) = progress.offered.take() {
            offered.numbered(newest);
            self.former = Some(std::mem::replace(&mut self.ring, offered));
        }
        if progress.begun {
            self.former = None;
        }
        self.ring.head()
    }

    /// What tells when everything that was kept up to now may be acknowledged; none when it may be already.
    pub fn receipt(&self) -> Option<Receipt> {
        let waits = self.shared.fsync == Fsync::Always;
        waits.then(|| Receipt::new(self.shared.clone(), self.ring.head()))
    }
}

impl Shared {
    /// What publishers are told until it has begun.
    fn is_slow(&self) -> NotStored {
        let text = format!(
            "{} (realtime.data_dir) is slow, and the history of before is still being written there: try again",
            self.directory.display()
        );
        NotStored(text.into())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Its fields are set one by one; nothing can panic in between.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

fn write(ring: &Ring, most: usize, record: &Record<'_>) {
    ring.append(most, |room| {
        postcard::to_slice(record, room)
            .expect("the room is as large as the record can be")
            .len()
    });
}

/// A record that goes to the database past the ring.
fn encode(record: &Record<'_>) -> (u32, Vec<u8>) {
    let bytes = control::frame(record).split_off(4);
    (zlib_rs::crc32::crc32(0, &bytes), bytes)
}
