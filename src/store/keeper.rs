//! The thread that takes what was kept from the ring to the database, in batches: what comes while one is written is the next.
//!
//! When the disk is full or fails, it tries again until there is room; meanwhile publishers are refused. A database that is damaged
//! is put aside, and what there is in memory goes to a new one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::beginning::Beginning;
use super::database::{Batch, Database, DatabaseError, State};
use super::directory::Directory;
use super::receipt::NotStored;
use super::record::{Message, Record, unix_time, unix_time_of};
use super::ring::Ring;
use super::{News, Shared, Sources, Whole, encode};
use crate::auth::Lists;
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
/// How soon a new database that is damaged as well is put aside.
const MEND: Duration = Duration::from_secs(60);

/// The thread's own.
pub struct Keeper {
    pub shared: Arc<Shared>,
    /// None until a new one can be made.
    pub database: Option<Database>,
    /// Kept until the database is closed.
    pub directory: Directory,
    pub ring: Arc<Ring>,
    /// What comes before anything is kept.
    pub beginning: Option<Beginning>,
    /// The newest number that may be in the database.
    pub stored: u64,
    /// What is new.
    pub sources: Sources,
    /// When a damaged database was put aside.
    pub mended: Option<Instant>,
}

/// What is not written yet.
#[derive(Default)]
struct Work {
    news: News,
    /// When everything was last safe from a power cut.
    synced: Option<Instant>,
    /// Whether something was written since.
    dirty: bool,
    purged: Option<Instant>,
}

impl Keeper {
    /// Works until it is told to close and all is written, or cannot be.
    pub fn run(mut self) {
        self.shared.sleep.begin();
        let mut work = Work::default();
        work.news.wants_whole = self.beginning.is_some();
        loop {
            // In this order: what was published before it closed is written.
            let closing = self.shared.closing.load(Ordering::SeqCst);
            let ready = self.prepare();
            (self.sources.news)(&mut work.news);
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
                // What was before may have been there for longer.
                Fsync::Interval => due || closing || self.beginning.is_some(),
                Fsync::Never => false,
            };
            let written = ready
                .and_then(|()| self.write(&mut work, sync))
                .and_then(|()| self.begin());
            match written {
                Ok(()) => self.succeed(&mut work, sync),
                Err(DatabaseError::Broken(reason)) if self.may_mend() => {
                    if let Err(error) = self.mend(&reason, &mut work) {
                        self.fail(&error);
                        self.shared.sleep.nap(RETRY);
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    if closing {
                        // What is in the ring is found by the next server.
                        return self.stop();
                    }
                    self.shared.sleep.nap(RETRY);
                    continue;
                }
            }
            if self.shared.fsync != Fsync::Always && !closing {
                self.shared.sleep.nap(NAP);
            }
        }
        self.ring.close();
        self.stop();
    }

    fn may_mend(&self) -> bool {
        self.mended.is_none_or(|at| at.elapsed() >= MEND)
    }

    /// Puts the database aside, which is damaged. The next batch has all that there is, and goes to a new one.
    fn mend(&mut self, reason: &str, work: &mut Work) -> Result<(), DatabaseError> {
        // What SQLite does when it closes one must be over: it goes by names.
        self.database = None;
        self.directory.put_database_aside(reason)?;
        self.mended = Some(Instant::now());
        work.news.whole = None;
        work.news.wants_whole = true;
        Ok(())
    }

    fn is_new(&self, work: &Work) -> bool {
        let news = &work.news;
        news.head != self.ring.tail()
            || !news.fates.is_empty()
            || !news.marks.is_empty()
            || news.whole.is_some()
    }

    fn rest(&self, work: &mut Work) {
        if work.dirty {
            let since = work.synced.map_or(INTERVAL, |at| at.elapsed());
            self.shared.sleep.nap(INTERVAL.saturating_sub(since));
            return;
        }
        self.shared.sleep.unless(|| {
            (self.sources.news)(&mut work.news);
            self.is_new(work) || self.shared.closing.load(Ordering::SeqCst)
        });
    }

    fn write(&mut self, work: &mut Work, sync: bool) -> Result<(), DatabaseError> {
        let news = &work.news;
        let fates = Fates::new(&news.fates);
        let purges = work.purged.is_none_or(|at| at.elapsed() >= PURGE);
        let stored = self.stored;
        let ring = &*self.ring;
        let state = State {
            epoch: news.epoch,
            newest: news.newest,
            forgotten: news.forgotten,
            ring: ring.id(),
            position: news.head,
        };
        let whole = news.whole.as_ref();
        let revoked = whole.map(|_| (self.sources.revoked)());
        let database = match &mut self.database {
            Some(database) => database,
            none => {
                let path = self.directory.file(super::directory::DATABASE);
                let writes_back = self.shared.fsync != Fsync::Never;
                none.insert(Database::open(&path, writes_back, false)?)
            }
        };
        let known = match whole {
            Some(_) => database.state()?.filter(|known| known.epoch == news.epoch),
            None => None,
        };
        let numbers = match known {
            Some(_) => database.numbers()?,
            None => Default::default(),
        };
        database.write(sync, |batch| {
            if let Some(whole) = whole {
                replace(batch, whole, known.is_some().then_some(numbers))?;
            }
            for lists in revoked.into_iter().flat_map(|lists| lists.parts(1)) {
                let (check, record) = encode(&Record::Revoked(lists.clone()));
                revoke(batch, &lists, check, &record)?;
            }
            let from = whole.map_or(ring.tail(), |whole| whole.head);
            for (check, body, _) in ring.records(from, news.head) {
                match control::read(body) {
                    Ok(Record::Message(message)) => {
                        if fates.of(message.seq).is_none() {
                            batch.keep(message.seq, check, body)?;
                        }
                    }
                    Ok(Record::Revoked(lists)) => revoke(batch, &lists, check, body)?,
                    // Nothing but a bug writes what cannot be read.
                    Err(_) => {}
                }
            }
            for fate in fates.all() {
                match fate {
                    Fate::Faded(publication) => keep(batch, publication, false)?,
                    Fate::Gone(seq) if *seq <= stored || whole.is_some() => batch.forget(*seq)?,
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
        work.news.whole = None;
        work.dirty = self.shared.fsync == Fsync::Interval && !sync;
        if sync {
            work.synced = Some(Instant::now());
        }
        self.stored = work.news.newest;
        self.ring.free(head);
        let mut progress = self.shared.progress();
        progress.done = head;
        progress.begun = true;
        let failed = progress.failed.take();
        drop(progress);
        self.shared.failing.store(false, Ordering::Release);
        if failed.is_some() {
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

fn revoke(batch: &Batch<'_>, lists: &Lists, check: u32, record: &[u8]) -> rusqlite::Result<()> {
    for (key, expires) in lists.keys() {
        batch.revoke(key, expires.seconds() as u64 + 1, check, record)?;
    }
    Ok(())
}

fn keep(batch: &Batch<'_>, publication: &Publication, store: bool) -> rusqlite::Result<()> {
    let message = Message::new(publication, store, unix_time_of(publication.at));
    let (check, record) = encode(&Record::Message(message));
    batch.keep(publication.position.seq, check, &record)
}
