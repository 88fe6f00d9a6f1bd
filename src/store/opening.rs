//! What is found in `realtime.data_dir` at the start: read back, repaired or put aside, and never a reason not to serve.
//!
//! Imports `record`, `ring`, `database`, `beginning` and `keeper`.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use tokio::sync::Notify;

use super::beginning::{Beginning, NEW_RING, RING, boot, random};
use super::blocks;
use super::database::{Database, DatabaseError, State};
use super::directory::{DATABASE, Directory, LOG, StoreError};
use super::keeper::Keeper;
use super::record::{Message, Record, unix_time};
use super::ring::{Left, Ring, remove};
use super::sleep::Sleep;
use super::{Journal, NAMES, Progress, Shared, Sources, Store, Watchers};
use crate::auth::Lists;
use crate::config::{Config, Fsync};
use crate::history::Past;
use crate::ids::{CHANNEL_MAX, Channel, check_custom_id, check_event};
use crate::message::Terms;
use crate::threads;
use crate::wire::control;

/// By how much numbers jump at least when nobody knows how many were given: more than there can have been.
const JUMP: u64 = 1 << 32;
/// How many such jumps are made at most. By chance: what was given after a jump may be forgotten, too.
const JUMPS: u64 = 1 << 8;
/// Bytes for records in a ring that takes none.
const NONE: usize = 4096;

/// A directory that is locked, read and ready.
#[derive(Debug)]
pub struct Opened {
    directory: Directory,
    /// None when there is no room to make one.
    database: Option<Database>,
    found: FoundRing,
    /// What a record may have.
    largest: usize,
    fsync: Fsync,
    path: std::path::PathBuf,
    stored: u64,
    /// What was in it; none in a new one.
    pub contents: Option<Contents>,
    /// What was revoked.
    pub revoked: Vec<Lists>,
}

/// The database's ring.
#[derive(Debug, Default)]
struct FoundRing {
    /// None when it is not there.
    ring: Option<Ring>,
    /// From where its records are that are not in the database.
    tail: u64,
    /// Where the next one may be.
    head: u64,
    /// Whether all is as it should be, and it can be gone on with at once.
    sound: bool,
    /// Whether the numbers in it can be believed.
    certain: bool,
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
    if config.fsync == Fsync::Always {
        // Whoever was here before may have left that to the system.
        for name in [DATABASE, LOG] {
            let file = std::fs::File::open(directory.file(name));
            let _ = file.and_then(|file| file.sync_all());
        }
    }
    let is_new = !directory.file(DATABASE).exists();
    let (database, found) = match read(&directory, config, all) {
        Err(DatabaseError::Broken(reason)) => {
            directory.put_database_aside(&reason)?;
            let (database, found) = read(&directory, config, all).map_err(failed)?;
            (Some(database), found)
        }
        // Whoever publishes is told so, until there is.
        Err(DatabaseError::Full) if is_new => {
            remove(&directory.file(DATABASE)).map_err(|error| failed(error.into()))?;
            (None, None)
        }
        read => {
            let (database, found) = read.map_err(failed)?;
            (Some(database), found)
        }
    };
    let topics = config.max_subscriptions.min(Terms::TOPICS_MAX);
    let mut opened = Opened {
        database,
        found: FoundRing::default(),
        largest: config.max_message_size + NAMES + topics * (CHANNEL_MAX + 4),
        fsync: config.fsync,
        path,
        stored: 0,
        contents: None,
        revoked: Vec::new(),
        directory,
    };
    match found {
        Some(found) => opened.read_ring(found)?,
        None => opened.put_ring_aside()?,
    }
    if let Some(name) = blocks::is_copied(&opened.path, &opened.directory.file(RING)) {
        tracing::warn!(
            "{} (realtime.data_dir) is on {name}, which writes every change to a new place: the server keeps the room that it needs, \
             and ends with SIGBUS when that is gone as well. Leave room there, or use a directory on ext4 or XFS",
            opened.path.display()
        );
    }
    // Made for nothing, or put in its place.
    let _ = remove(&opened.directory.file(NEW_RING));
    Ok(opened)
}

impl Opened {
    /// Has everything be written at the beginning, and not only what is new.
    pub fn write_all(&mut self) {
        self.found.sound = false;
    }

    /// Begins to keep what `sources` tell of, after the `newest` number: first all that there is, unless it is what was found here.
    pub fn start(
        self,
        newest: u64,
        found: bool,
        sources: Sources,
        watchers: Watchers,
    ) -> Result<(Store, Journal), StoreError> {
        let FoundRing {
            ring, tail, head, ..
        } = self.found;
        let keep = ring.is_some();
        let fits = ring.as_ref().is_some_and(|ring| ring.takes(self.largest));
        let goes_on = self.found.sound && fits && found;
        let ring = Arc::new(ring.unwrap_or_else(|| Ring::alone(NONE)));
        ring.stand(ring.id(), if goes_on { tail } else { head }, head);
        let beginning = match fits {
            true if goes_on => {
                ring.settle(boot(), self.fsync == Fsync::Always);
                None
            }
            true => Some(Beginning::Stay),
            false => Some(Beginning::Make {
                largest: self.largest,
                keep,
            }),
        };
        // Numbers are noted there in any case.
        ring.take_up(self.found.certain.then(boot));
        ring.numbered(newest);
        let shared = Arc::new(Shared {
            directory: self.path,
            fsync: self.fsync,
            closing: AtomicBool::new(false),
            sleep: Sleep::default(),
            failing: AtomicBool::new(beginning.is_some()),
            progress: Mutex::new(Progress {
                begun: beginning.is_none(),
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
            ring: ring.clone(),
            beginning,
            stored: self.stored,
            sources,
            mended: None,
        };
        let thread = threads::spawn("rt-store", move || keeper.run());
        let thread = thread.map_err(|error| StoreError::System {
            path: shared.directory.clone(),
            error,
        })?;
        let journal = Journal {
            shared: shared.clone(),
            ring,
            former: None,
            now: (Instant::now(), unix_time()),
        };
        let store = Store {
            shared,
            thread: Some(thread),
            descriptor,
        };
        Ok((store, journal))
    }

    /// Reads what the database does not have yet.
    fn read_ring(&mut self, found: Found) -> Result<(), StoreError> {
        let Found {
            state,
            mut contents,
            revoked,
        } = found;
        self.revoked = revoked;
        self.stored = state.newest;
        let mut newest = state.newest;
        let mut certain = false;
        if let Some((ring, left)) = self.find_ring(state.ring)? {
            let (end, highest) = self.read_records(&ring, &state, &mut contents);
            newest = newest.max(highest).max(left.newest.unwrap_or(0));
            let is_whole = end >= left.head;
            let same_boot = left.boot == boot() && left.boot != 0;
            certain = is_whole && left.newest.is_some() && (left.closed || same_boot);
            // Without `always` a power cut may have taken what was acknowledged; with it no more than what nobody was told of.
            contents.doubtful |= match left.synced {
                true => !is_whole && same_boot,
                false => !is_whole || !certain,
            };
            self.found = FoundRing {
                tail: state.position,
                head: if is_whole { end } else { ring.beyond(end) },
                ring: Some(ring),
                // What is damaged is written anew, or it would be found again at every start; so is what is in doubt, or nobody
                // would know of that at the next. What no power cut may take must be written out first.
                sound: certain
                    && !contents.doubtful
                    && (left.synced || self.fsync != Fsync::Always),
                certain,
            };
        } else {
            contents.doubtful = true;
        }
        if !certain {
            newest += JUMP * (1 + random() % JUMPS);
        }
        if contents.doubtful {
            tracing::warn!(
                "the server did not end as it should, and the newest messages in {} (realtime.data_dir) may be missing: \
                 clients that resume are told so",
                self.path.display()
            );
        }
        contents.past.seq = newest;
        self.contents = Some(contents);
        Ok(())
    }

    /// A ring of which no database knows: nobody can tell which history its messages are of, or whether they are all.
    fn put_ring_aside(&self) -> Result<(), StoreError> {
        let path = self.directory.file(RING);
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let aside = self.directory.set_aside(RING)?;
        tracing::error!(
            "the database of {} is empty or gone, and with it the history and what was revoked; the file is now {}",
            path.display(),
            aside.display()
        );
        Ok(())
    }

    /// The ring of which the database knows. A server that ended in the middle may have left it under the name of a new one.
    fn find_ring(&self, id: u64) -> Result<Option<(Ring, Left)>, StoreError> {
        for name in [RING, NEW_RING] {
            let path = self.directory.file(name);
            let found = match Ring::open(&path) {
                Err(error) if is_ours(&error) => return Err(StoreError::System { path, error }),
                Err(error) => {
                    let aside = self.directory.set_aside(name)?;
                    tracing::error!(
                        "{} cannot be used ({error}); it is now {}",
                        path.display(),
                        aside.display()
                    );
                    continue;
                }
                Ok(found) => found,
            };
            let Some(found) = found.filter(|(_, left)| left.id == id) else {
                continue;
            };
            if name == NEW_RING {
                let system = |error| StoreError::System { path, error };
                let to = self.directory.file(RING);
                std::fs::rename(self.directory.file(name), to).map_err(system)?;
            }
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// Where the ring's records end, and the highest number among them.
    fn read_records(&mut self, ring: &Ring, state: &State, contents: &mut Contents) -> (u64, u64) {
        let (mut end, mut highest, mut unknown) = (state.position, 0, 0);
        let now = unix_time();
        for (_, body, behind) in ring.left_records(state.position) {
            match control::read(body) {
                Ok(Record::Message(message)) if is_valid(&message) => {
                    highest = highest.max(message.seq);
                    if message.seq > state.newest {
                        contents.past.notes.push(message.to_note(now));
                    }
                }
                Ok(Record::Revoked(lists)) => self.revoked.push(lists),
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
        }
        (end, highest)
    }
}

/// Whether it says more of this process than of the file.
fn is_ours(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EINTR | libc::EIO)
    )
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
