//! The thread that takes what was kept from the ring to the database, in batches: what comes while one is written is the next.
//!
//! When the disk is full or fails, it tries again until there is room; meanwhile publishers are refused.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::database::{Batch, Database, DatabaseError, State};
use super::directory::Directory;
use super::receipt::NotStored;
use super::record::{Message, Record, unix_time, unix_time_of};
use super::{News, Shared, Source, Whole, encode};
use crate::config::Fsync;
use crate::history::Fate;
use crate::message::Publication;
use crate::wire::control;

/// How long what was published may gather where nobody waits for it.
const NAP: Duration = Duration::from_millis(5);
/// What `realtime.fsync = interval` means.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often a disk that fails is tried.
const RETRY: Duration = Duration::from_millis(200);
/// How often expired revocations are taken out.
const PURGE: Duration = Duration::from_secs(60);

/// The thread's own.
pub struct Keeper {
    pub shared: Arc<Shared>,
    pub database: Database,
    /// Kept until the database is closed.
    pub directory: Directory,
    /// Which ring it is.
    pub ring: u64,
    /// The newest number that may be in the database.
    pub stored: u64,
    /// What is new.
    pub source: Source,
}

/// What is not written yet.
#[derive(Default)]
struct Work {
    news: News,
    /// Everything, when the database may have something else.
    whole: Option<Whole>,
    /// When everything was last safe from a power cut.
    synced: Option<Instant>,
    /// Whether something was written since.
    dirty: bool,
    purged: Option<Instant>,
}

impl Keeper {
    /// Works until it is told to close and all is written, or cannot be.
    pub fn run(mut self, whole: Option<Whole>) {
        let mut work = Work {
            whole,
            ..Work::default()
        };
        loop {
            // In this order: what was published before it closed is written.
            let closing = self.shared.closing.load(Ordering::SeqCst);
            (self.source)(&mut work.news);
            let news = self.is_new(&work);
            let due = work.dirty && work.synced.is_none_or(|at| at.elapsed() >= INTERVAL);
            if !(news || due || closing && work.dirty) {
                if closing {
                    break;
                }
                self.rest(&mut work);
                continue;
            }
            let sync = match self.shared.fsync {
                Fsync::Always => true,
                Fsync::Interval => due || closing,
                Fsync::Never => false,
            };
            match self.write(&mut work, sync) {
                Ok(()) => self.succeed(&mut work, sync),
                Err(error) => {
                    self.fail(&error);
                    if closing {
                        // What is in the ring is found by the next server.
                        return self.stop();
                    }
                    std::thread::park_timeout(RETRY);
                    continue;
                }
            }
            if self.shared.fsync != Fsync::Always && !closing {
                std::thread::park_timeout(NAP);
            }
        }
        self.shared.ring.close();
        self.stop();
    }

    fn is_new(&self, work: &Work) -> bool {
        let news = &work.news;
        news.head != self.shared.ring.tail()
            || !news.fates.is_empty()
            || !news.marks.is_empty()
            || work.whole.is_some()
    }

    fn rest(&self, work: &mut Work) {
        if work.dirty {
            let since = work.synced.map_or(INTERVAL, |at| at.elapsed());
            std::thread::park_timeout(INTERVAL.saturating_sub(since));
            return;
        }
        self.shared.asleep.store(true, Ordering::SeqCst);
        // Whoever published before this has not seen that nobody is awake.
        (self.source)(&mut work.news);
        if !self.is_new(work) && !self.shared.closing.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
    }

    fn write(&mut self, work: &mut Work, sync: bool) -> Result<(), DatabaseError> {
        let Self {
            shared, database, ..
        } = self;
        let news = &work.news;
        let fates = Fates::new(&news.fates);
        let purges = work.purged.is_none_or(|at| at.elapsed() >= PURGE);
        let stored = self.stored;
        let state = State {
            epoch: news.epoch,
            newest: news.newest,
            forgotten: news.forgotten,
            ring: self.ring,
            position: news.head,
        };
        let known = match &work.whole {
            Some(_) => database.state()?.filter(|known| known.epoch == news.epoch),
            None => None,
        };
        let numbers = match known {
            Some(_) => database.numbers()?,
            None => Default::default(),
        };
        database.write(sync, |batch| {
            if let Some(whole) = &work.whole {
                replace(batch, whole, known.is_some().then_some(numbers))?;
            }
            for (check, body, _) in shared.ring.records(shared.ring.tail(), news.head) {
                match control::read(body) {
                    Ok(Record::Message(message)) => {
                        if fates.of(message.seq).is_none() {
                            batch.keep(message.seq, check, body)?;
                        }
                    }
                    Ok(Record::Revoked(lists)) => {
                        for (key, expires) in lists.keys() {
                            batch.revoke(key, expires.seconds() as u64 + 1, check, body)?;
                        }
                    }
                    // Nothing but a bug writes what cannot be read.
                    Err(_) => {}
                }
            }
            for fate in fates.all() {
                match fate {
                    Fate::Faded(publication) => keep(batch, publication, false)?,
                    Fate::Gone(seq) if *seq <= stored || work.whole.is_some() => {
                        batch.forget(*seq)?
                    }
                    // It came and went since the last batch.
                    Fate::Gone(_) => {}
                }
            }
            for (channel, seq) in &news.marks {
                batch.mark(channel.as_str(), *seq)?;
            }
            if purges {
                batch.expire(unix_time().as_secs())?;
            }
            batch.state(state)
        })?;
        if purges {
            work.purged = Some(Instant::now());
        }
        Ok(())
    }

    fn succeed(&mut self, work: &mut Work, sync: bool) {
        let head = work.news.head;
        work.news.fates.clear();
        work.news.marks.clear();
        work.whole = None;
        work.dirty = self.shared.fsync == Fsync::Interval && !sync;
        if sync {
            work.synced = Some(Instant::now());
        }
        self.stored = work.news.newest;
        self.shared.ring.free(head);
        let mut progress = self.shared.progress();
        progress.done = head;
        progress.begun = true;
        let failed = progress.failed.take();
        drop(progress);
        if failed.is_some() {
            self.shared.failing.store(false, Ordering::Release);
            tracing::warn!(
                "{} (realtime.data_dir) can be written again: messages are taken as before",
                self.shared.directory.display()
            );
        }
        self.tell();
    }

    fn fail(&self, error: &DatabaseError) {
        let text = format!(
            "messages cannot be stored in {} (realtime.data_dir): {error}{}",
            self.shared.directory.display(),
            match error {
                DatabaseError::Full => "; make room there, or lower realtime.history_bytes",
                _ => "",
            }
        );
        let mut progress = self.shared.progress();
        let first = progress.failed.is_none();
        progress.failed = Some(NotStored(text.as_str().into()));
        drop(progress);
        self.shared.failing.store(true, Ordering::Release);
        if first {
            tracing::error!("{text}. Publishers are refused until that works again");
        }
        self.tell();
    }

    /// The end: whoever still waits is told.
    fn stop(self) {
        let mut progress = self.shared.progress();
        let stopping =
            || NotStored("the server is stopping, and the message was not stored".into());
        progress.failed.get_or_insert_with(stopping);
        drop(progress);
        self.shared.failing.store(true, Ordering::Release);
        self.tell();
        drop(self.database);
        drop(self.directory);
    }

    fn tell(&self) {
        self.shared.progressed.notify_all();
        if self.shared.fsync != Fsync::Always {
            return;
        }
        self.shared.notify.notify_waiters();
        let watchers = self.shared.watchers.lock();
        for watcher in &*watchers.unwrap_or_else(std::sync::PoisonError::into_inner) {
            watcher();
        }
    }
}

/// What has become of messages, by number: the last word on each.
struct Fates<'a>(Vec<&'a Fate>);

impl<'a> Fates<'a> {
    fn new(fates: &'a [Fate]) -> Self {
        // Nearly in order as they come; of several about one message the last counts, and comes first here.
        let mut sorted: Vec<&Fate> = fates.iter().rev().collect();
        sorted.sort_by_key(|fate| fate.seq());
        sorted.dedup_by_key(|fate| fate.seq());
        Self(sorted)
    }

    fn of(&self, seq: u64) -> Option<&Fate> {
        let found = self.0.binary_search_by_key(&seq, |fate| fate.seq());
        found.ok().map(|index| self.0[index])
    }

    fn all(&self) -> impl Iterator<Item = &Fate> {
        self.0.iter().copied()
    }
}

/// Brings the database, which has these rows, to what there is.
fn replace(
    batch: &Batch<'_>,
    whole: &Whole,
    numbers: Option<std::collections::HashSet<u64>>,
) -> rusqlite::Result<()> {
    let Some(mut numbers) = numbers else {
        batch.clear()?;
        return replace(batch, whole, Some(Default::default()));
    };
    for note in &whole.notes {
        let there = numbers.remove(&note.publication.position.seq);
        if !there || !note.store {
            keep(batch, &note.publication, note.store)?;
        }
    }
    for seq in numbers {
        batch.forget(seq)?;
    }
    batch.clear_marks()?;
    for (channel, seq) in &whole.marks {
        batch.mark(channel.as_str(), Some(*seq))?;
    }
    Ok(())
}

fn keep(batch: &Batch<'_>, publication: &Publication, store: bool) -> rusqlite::Result<()> {
    let message = Message::new(publication, store, unix_time_of(publication.at));
    let (check, record) = encode(&Record::Message(message));
    batch.keep(publication.position.seq, check, &record)
}
