//! The messages that are kept, in an SQLite database: what is there is whole, whatever happened while it was written.
//!
//! Used by one thread at a time: whoever opens it, then the keeper's. Every row has a check of its own, because SQLite has none. Imports
//! `record` and `config`.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, Transaction, params};
use zlib_rs::crc32::crc32;

use super::directory::StoreError;
use super::record::Record;
use crate::auth::Lists;
use crate::wire::control;

/// The layout of the tables.
const LAYOUT: i64 = 1;

/// How SQLite is to work: alone with its file, without a second file for locks; a write-ahead log of about 4 MB, from which
/// pages go to the file.
const MANNERS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA journal_size_limit = 8388608;
    PRAGMA cache_size = -4096;
    PRAGMA temp_store = MEMORY;
";

const TABLES: &str = "
    BEGIN;
    CREATE TABLE messages (seq INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE marks (channel TEXT PRIMARY KEY, seq BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE revoked (key BLOB PRIMARY KEY, expires INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    PRAGMA user_version = 1;
    COMMIT;
";

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It is none, or is not whole any more.
    #[error("it is not a database of this version, or is damaged: {0}")]
    Broken(String),
    /// There is no room.
    #[error("no space left on the device")]
    Full,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        let code = match &error {
            rusqlite::Error::SqlInputError { error, .. } => Some(error.code),
            other => other.sqlite_error_code(),
        };
        match code {
            // Our statements are right, and the file is ours to write: what they do not find is lost, and whose first bytes make it
            // one to be read alone is changed, or gone from its place.
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::Unknown,
            ) => Self::Broken(error.to_string()),
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<io::Error> for DatabaseError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::Full,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<StoreError> for DatabaseError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    writes_back: bool,
    /// Whether it is set to make every write safe.
    full: bool,
}

/// What of a database is no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Whose messages they are.
    pub epoch: u32,
    /// The newest number.
    pub newest: u64,
    /// The newest number that was pushed out of a channel of which nothing is left.
    pub forgotten: u64,
    /// Which ring the rest is in.
    pub ring: u64,
    /// From where on.
    pub position: u64,
}

impl Database {
    /// Opens it, or makes a new one. `writes_back` says whether it may ever ask the disk to write, `look` whether all of it is to be
    /// looked through for damage.
    pub fn open(path: &Path, writes_back: bool, look: bool) -> Result<Self, DatabaseError> {
        close_to_others(path);
        let connection = Connection::open(path).map_err(|error| match can_be_opened(path) {
            true => error.into(),
            false => DatabaseError::Broken(error.to_string()),
        })?;
        connection.execute_batch(MANNERS)?;
        connection.set_prepared_statement_cache_capacity(16);
        let synchronous = if writes_back { "NORMAL" } else { "OFF" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        let layout: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match layout {
            LAYOUT => {}
            0 if is_empty(&connection)? => connection.execute_batch(TABLES)?,
            other => return Err(DatabaseError::Broken(format!("its layout is {other}"))),
        }
        if look {
            let sound: String =
                connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
            if sound != "ok" {
                return Err(DatabaseError::Broken(sound));
            }
        }
        Ok(Self {
            connection,
            writes_back,
            full: false,
        })
    }

    /// What it knows beside the rows; none when it is new.
    pub fn state(&self) -> Result<Option<State>, DatabaseError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT value FROM state WHERE name = ?")?;
        let mut get = |name: &str| -> Result<Option<u64>, DatabaseError> {
            let mut rows = select.query([name])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let value = unseal(name, row.get_ref(0)?);
            let value =
                value.ok_or_else(|| DatabaseError::Broken(format!("{name} is not whole")))?;
            Ok(Some(value))
        };
        let Some(epoch) = get("epoch")? else {
            return Ok(None);
        };
        Ok(Some(State {
            epoch: epoch as u32,
            newest: get("newest")?.unwrap_or(0),
            forgotten: get("forgotten")?.unwrap_or(0),
            ring: get("ring")?.unwrap_or(0),
            position: get("position")?.unwrap_or(0),
        }))
    }

    /// Shows every mark: a channel, and a number unless that is damaged.
    pub fn marks(&self, mut show: impl FnMut(String, Option<u64>)) -> Result<(), DatabaseError> {
        let mut select = self.connection.prepare("SELECT channel, seq FROM marks")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let channel = String::from_utf8_lossy(row.get_ref(0)?.as_bytes().unwrap_or_default());
            let seq = unseal(&channel, row.get_ref(1)?);
            show(channel.into_owned(), seq);
        }
        Ok(())
    }

    /// Shows every message's row, oldest first: its number, and its record unless that is damaged.
    pub fn messages(
        &self,
        mut show: impl FnMut(u64, Option<Record<'_>>),
    ) -> Result<(), DatabaseError> {
        let mut select = self
            .connection
            .prepare("SELECT seq, record FROM messages ORDER BY seq")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let seq = row.get::<_, i64>(0)? as u64;
            show(seq, unpack(row.get_ref(1)?));
        }
        Ok(())
    }

    /// The numbers of all rows.
    pub fn numbers(&self) -> Result<std::collections::HashSet<u64>, DatabaseError> {
        let mut select = self.connection.prepare("SELECT seq FROM messages")?;
        let rows = select.query_map([], |row| Ok(row.get::<_, i64>(0)? as u64))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was revoked and has not expired by `now`, in seconds since 1970.
    pub fn revoked(&self, now: u64) -> Result<Vec<Lists>, DatabaseError> {
        let mut select = self
            .connection
            .prepare("SELECT record FROM revoked WHERE expires >= ?")?;
        let mut rows = select.query([now as i64])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            if let Some(Record::Revoked(lists)) = unpack(row.get_ref(0)?) {
                all.push(lists);
            }
        }
        Ok(all)
    }

    /// Writes in one go, or not at all. With `sync` it is safe from a power cut when this returns, and so is what was written before.
    pub fn write(
        &mut self,
        sync: bool,
        work: impl FnOnce(&Batch<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), DatabaseError> {
        if self.writes_back && sync != self.full {
            let manner = if sync { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", manner)?;
            self.full = sync;
        }
        let transaction = self.connection.transaction()?;
        work(&Batch(&transaction))?;
        transaction.commit()?;
        Ok(())
    }
}

/// What is being written.
#[derive(Debug)]
pub struct Batch<'a>(&'a Transaction<'a>);

impl Batch<'_> {
    /// Keeps a message's record, which has this check.
    pub fn keep(&self, seq: u64, check: u32, record: &[u8]) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO messages VALUES (?, ?)";
        let mut insert = self.0.prepare_cached(sql)?;
        insert.execute(params![seq as i64, pack(check, record)])?;
        Ok(())
    }

    /// Forgets a message.
    pub fn forget(&self, seq: u64) -> rusqlite::Result<()> {
        let mut delete = self
            .0
            .prepare_cached("DELETE FROM messages WHERE seq = ?")?;
        delete.execute([seq as i64])?;
        Ok(())
    }

    /// Notes what was pushed out of a channel; of which nothing is left when none.
    pub fn mark(&self, channel: &str, seq: Option<u64>) -> rusqlite::Result<()> {
        let changed = match seq {
            Some(seq) => self
                .0
                .prepare_cached("INSERT OR REPLACE INTO marks VALUES (?, ?)")?
                .execute(params![channel, seal(channel, seq)]),
            None => self
                .0
                .prepare_cached("DELETE FROM marks WHERE channel = ?")?
                .execute([channel]),
        };
        changed.map(drop)
    }

    /// Keeps what was revoked until it `expires`, in seconds since 1970.
    pub fn revoke(
        &self,
        key: &[u8],
        expires: u64,
        check: u32,
        record: &[u8],
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO revoked VALUES (?, ?, ?)";
        let mut insert = self.0.prepare_cached(sql)?;
        insert.execute(params![key, expires as i64, pack(check, record)])?;
        Ok(())
    }

    /// Forgets what has expired.
    pub fn expire(&self, now: u64) -> rusqlite::Result<()> {
        let mut delete = self
            .0
            .prepare_cached("DELETE FROM revoked WHERE expires < ?")?;
        delete.execute([now as i64])?;
        Ok(())
    }

    /// Forgets all messages.
    pub fn clear(&self) -> rusqlite::Result<()> {
        self.0
            .execute_batch("DELETE FROM messages; DELETE FROM marks;")
    }

    /// Forgets what was pushed out of channels.
    pub fn clear_marks(&self) -> rusqlite::Result<()> {
        self.0.execute_batch("DELETE FROM marks;")
    }

    /// Notes the rest.
    pub fn state(&self, state: State) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO state VALUES (?, ?)";
        let mut insert = self.0.prepare_cached(sql)?;
        let values = [
            ("epoch", u64::from(state.epoch)),
            ("newest", state.newest),
            ("forgotten", state.forgotten),
            ("ring", state.ring),
            ("position", state.position),
        ];
        for (name, value) in values {
            insert.execute(params![name, seal(name, value)])?;
        }
        Ok(())
    }
}

/// Whether it has not been ours before.
fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let count = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(count, [], |row| row.get(0))?;
    Ok(tables == 0)
}

/// Makes the file, for its owner alone; SQLite gives its other files the same mode. What is in the way is told by whoever
/// opens it next.
fn close_to_others(path: &Path) {
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(false);
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    if let Ok(file) = options.open(path) {
        // One that was there may have another.
        let _ = file.set_permissions(Permissions::from_mode(0o600));
    }
}

/// Whether what is there is a file of ours, if anything is: SQLite says the same of one that is not and of a process that has no
/// descriptor left.
fn can_be_opened(path: &Path) -> bool {
    use io::ErrorKind::{IsADirectory, PermissionDenied};
    let opened = std::fs::File::options().read(true).write(true).open(path);
    !opened.is_err_and(|error| matches!(error.kind(), IsADirectory | PermissionDenied))
}

/// A number with a check that knows its name.
fn seal(name: &str, value: u64) -> Vec<u8> {
    let check = crc32(crc32(0, name.as_bytes()), &value.to_le_bytes());
    pack(check, &value.to_le_bytes())
}

fn unseal(name: &str, sealed: ValueRef<'_>) -> Option<u64> {
    let (check, value) = sealed.as_blob().ok()?.split_first_chunk()?;
    let value: [u8; 8] = value.try_into().ok()?;
    let right = crc32(crc32(0, name.as_bytes()), &value) == u32::from_le_bytes(*check);
    right.then(|| u64::from_le_bytes(value))
}

/// A record with its check in front.
fn pack(check: u32, record: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + record.len());
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes.extend_from_slice(record);
    bytes
}

fn unpack(value: ValueRef<'_>) -> Option<Record<'_>> {
    let (check, record) = value.as_blob().ok()?.split_first_chunk()?;
    if crc32(0, record) != u32::from_le_bytes(*check) {
        return None;
    }
    control::read(record).ok()
}
