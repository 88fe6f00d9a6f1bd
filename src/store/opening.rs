//! What is found in `realtime.data_dir` at the start: read back, repaired or put aside, and never a reason not to serve.
//!
//! Imports `record`, `ring` and `database`.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use tokio::sync::Notify;

use super::database::{Database, DatabaseError, State};
use super::directory::{Directory, StoreError};
use super::keeper::Keeper;
use super::record::{Message, Record, unix_time};
use super::ring::Ring;
use super::{Journal, NAMES, Progress, Shared, Source, Store, Watchers, Whole};
use crate::auth::Lists;
use crate::config::{Config, Fsync};
use crate::history::Past;
use crate::ids::{CHANNEL_MAX, Channel, check_custom_id, check_event};
use crate::message::Terms;
use crate::threads;
use crate::wire::control;

/// The database's file.
const DATABASE: &str = "history.db";
/// What SQLite adds to its name.
const LOG: &str = "history.db-wal";
/// The ring's file.
const RING: &str = "recent";
/// By how much numbers jump when nobody knows how many were given: more than there can have been.
const JUMP: u64 = 1 << 32;

/// A directory that is locked, read and ready.
#[derive(Debug)]
pub struct Opened {
    directory: Directory,
    database: Database,
    ring: Ring,
    fsync: Fsync,
    path: std::path::PathBuf,
    /// Which ring it goes on with, and from where to where there are records.
    going_on: Option<(u64, u64, u64)>,
    stored: u64,
    /// What was in it; none in a new one.
    pub contents: Option<Contents>,
    /// What was revoked.
    pub revoked: Vec<Lists>,
}

/// A history that was kept.
#[derive(Debug, Default)]
pub struct Contents {
    /// It.
    pub past: Past,
    /// Whether some of it may be missing.
    pub doubtful: bool,
}

/// Opens `realtime.data_dir` and reads what is there. Not `all`: only what was revoked, since the history comes from elsewhere and
/// somebody waits.
pub fn open(config: &Config, all: bool) -> Result<Opened, StoreError> {
    let path = config.data_dir.clone().unwrap_or_default();
    let directory = Directory::open(&path)?;
    let failed = |error| StoreError::Database {
        path: directory.file(DATABASE),
        error,
    };
    let (database, found) = match read(&directory, config, all) {
        Err(DatabaseError::Broken(reason)) => {
            let aside = directory.set_aside(DATABASE)?;
            directory.set_aside(LOG)?;
            tracing::error!(
                "the history in {} is damaged ({reason}); it is now {}, and a new one begins",
                directory.file(DATABASE).display(),
                aside.display()
            );
            read(&directory, config, all).map_err(failed)?
        }
        read => read.map_err(failed)?,
    };
    let topics = config.max_subscriptions.min(Terms::TOPICS_MAX);
    let largest = config.max_message_size + NAMES + topics * (CHANNEL_MAX + 4);
    let file = directory.file(RING);
    let system = |error| StoreError::System {
        path: file.clone(),
        error,
    };
    let (mut ring, left) = Ring::open(&file, largest).map_err(system)?;
    let mut opened_ring = None;
    let (stored, contents, revoked) = match found {
        None => (0, None, Vec::new()),
        Some(Found {
            state,
            mut contents,
            mut revoked,
        }) => {
            let past = &mut contents.past;
            let mut newest = state.newest;
            let mut whole = contents.doubtful;
            let mut certain = false;
            if let Some(left) = left.filter(|left| left.id == state.ring) {
                let (mut end, mut unknown) = (state.position, 0);
                let now = unix_time();
                for (_, body, behind) in ring.left_records(left.id, state.position) {
                    match control::read(body) {
                        Ok(Record::Message(message)) if is_valid(&message) => {
                            newest = newest.max(message.seq);
                            if message.seq > state.newest {
                                past.notes.push(message.to_note(now));
                            }
                        }
                        Ok(Record::Revoked(lists)) => revoked.push(lists),
                        // Its check is right: it is whole, and there are others behind it.
                        _ => unknown += 1,
                    }
                    end = behind;
                }
                if unknown > 0 {
                    tracing::error!(
                        unknown,
                        "messages in {RING} cannot be read, though they are whole: a bug in realtime, or another version's"
                    );
                    contents.doubtful = true;
                    whole = true;
                }
                let is_whole = end >= left.head;
                certain = is_whole
                    && left.newest.is_some()
                    && (left.closed || left.boot == boot() && left.boot != 0);
                newest = newest.max(left.newest.filter(|_| certain).unwrap_or(0));
                // What is damaged is written anew, or it would be found again at every start.
                if is_whole && ring.takes(largest) && !contents.doubtful {
                    opened_ring = Some((left.id, state.position, end));
                }
                // Without `always` a power cut may have taken what was acknowledged.
                whole |= !is_whole || !(certain || left.synced);
            } else {
                whole = true;
            }
            if !certain {
                newest += JUMP;
            }
            contents.doubtful = whole;
            if whole {
                tracing::warn!(
                    "the server did not end as it should, and the newest messages in {} (realtime.data_dir) may be missing: \
                     clients that resume are told so",
                    path.display()
                );
            }
            past.seq = newest;
            (state.newest, Some(contents), revoked)
        }
    };
    if !ring.takes(largest) {
        // What it had goes to the database from memory.
        drop(ring);
        std::fs::remove_file(&file).map_err(system)?;
        ring = Ring::open(&file, largest).map_err(system)?.0;
    }
    Ok(Opened {
        directory,
        database,
        ring,
        fsync: config.fsync,
        path,
        going_on: opened_ring,
        stored,
        contents,
        revoked,
    })
}

impl Opened {
    /// Begins to keep what `source` tells of. `whole` is all that there is, unless it is what was found here.
    pub fn start(
        self,
        newest: u64,
        whole: impl FnOnce() -> Whole,
        found: bool,
        (source, watchers): (Source, Watchers),
    ) -> Result<(Store, Journal), StoreError> {
        let (id, tail, head, whole) = match self.going_on.filter(|_| found) {
            Some((id, tail, head)) => (id, tail, head, None),
            None => (random(), 0, 0, Some(whole())),
        };
        let synced = self.fsync == Fsync::Always;
        self.ring.begin(id, (boot(), synced), tail, head, newest);
        let shared = Arc::new(Shared {
            ring: self.ring,
            directory: self.path,
            fsync: self.fsync,
            closing: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            keeper: OnceLock::new(),
            failing: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                begun: whole.is_none(),
                ..Progress::default()
            }),
            progressed: Condvar::new(),
            notify: Notify::new(),
            watchers,
        });
        let descriptor = self.directory.descriptor();
        let keeper = Keeper {
            shared: shared.clone(),
            database: self.database,
            directory: self.directory,
            ring: id,
            stored: self.stored,
            source,
        };
        let thread = threads::spawn("rt-store", move || keeper.run(whole));
        let thread = thread.map_err(|error| StoreError::System {
            path: shared.directory.clone(),
            error,
        })?;
        // Nobody has set it before.
        let _ = shared.keeper.set(thread.thread().clone());
        let journal = Journal {
            shared: shared.clone(),
            now: (Instant::now(), unix_time()),
        };
        let store = Store {
            shared,
            thread: Some(thread),
            descriptor,
        };
        Ok((store, journal))
    }
}

/// What a database has.
struct Found {
    state: State,
    contents: Contents,
    revoked: Vec<Lists>,
}

fn read(
    directory: &Directory,
    config: &Config,
    all: bool,
) -> Result<(Database, Option<Found>), DatabaseError> {
    let database = Database::open(&directory.file(DATABASE), config.fsync != Fsync::Never, all)?;
    let Some(state) = database.state()? else {
        return Ok((database, None));
    };
    let mut contents = Contents {
        past: Past {
            epoch: state.epoch,
            seq: state.newest,
            forgotten: state.forgotten,
            ..Past::default()
        },
        doubtful: false,
    };
    if all {
        read_rows(&database, directory, &mut contents)?;
    }
    let now = unix_time();
    let revoked = database.revoked(now.as_secs())?;
    Ok((
        database,
        Some(Found {
            state,
            contents,
            revoked,
        }),
    ))
}

/// Reads marks and messages, without those that are damaged.
fn read_rows(
    database: &Database,
    directory: &Directory,
    contents: &mut Contents,
) -> Result<(), DatabaseError> {
    let past = &mut contents.past;
    let (mut damaged, mut last) = (0, 0);
    database.marks(|channel, seq| match seq {
        Some(seq) if Channel::from_hub(&channel).is_ok() => past.marks.push((channel, seq)),
        _ => damaged += 1,
    })?;
    let now = unix_time();
    database.messages(|seq, record| match record {
        Some(Record::Message(message)) if message.seq == seq && is_valid(&message) => {
            past.notes.push(message.to_note(now));
        }
        _ => {
            damaged += 1;
            last = seq;
        }
    })?;
    if damaged > 0 {
        tracing::error!(
            "{damaged} rows in {} are damaged, the newest message among them is number {last}; they are left out",
            directory.file(DATABASE).display()
        );
        contents.doubtful = true;
    }
    Ok(())
}

/// Whether it can be what was written: what has the right check may still be another version's.
fn is_valid(message: &Message<'_>) -> bool {
    let mut topics = message.terms.iter().flat_map(|terms| &terms.topics);
    // Also a user's own, which no client can name.
    Channel::from_hub(message.channel).is_ok()
        && message.id.is_none_or(|id| check_custom_id(id).is_ok())
        && check_event(message.event).is_ok()
        && topics.all(|topic| Channel::from_hub(topic).is_ok())
}

/// By which this run of the machine is known; 0 when that cannot be seen.
fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Good enough if there should be none: it is no secret.
    if getrandom::fill(&mut bytes).is_err() {
        return unix_time().as_nanos() as u64;
    }
    u64::from_ne_bytes(bytes)
}
