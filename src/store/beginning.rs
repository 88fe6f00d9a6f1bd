//! What the keeper does before anything is kept: the database is brought to what there is in memory, and the ring to where the
//! database says that it begins.
//!
//! Until both is done the ring of before stays as it is, file and all: whenever the server ends, the next one finds what this one has
//! found. A new ring is made beside it and takes its name at last. Imports `ring`, `database` and `directory`.

use std::sync::Arc;

use super::database::DatabaseError;
use super::keeper::Keeper;
use super::record::unix_time;
use super::ring::{Ring, remove};
use crate::config::Fsync;

/// The ring's file.
pub const RING: &str = "recent";
/// A ring's that is to take its place.
pub const NEW_RING: &str = "recent.new";

/// What comes before anything is kept, beside a first batch with all that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The ring that is there can be gone on with.
    Stay,
    /// A new one has to be made, for records of this size.
    Make {
        /// In bytes.
        largest: usize,
        /// Whether there may be something in the old one.
        keep: bool,
    },
    /// The new one is there, and has the broker's end.
    Replace,
}

impl Keeper {
    /// Has a ring for what will be kept.
    pub fn prepare(&mut self) -> Result<(), DatabaseError> {
        let Some(Beginning::Make { largest, keep }) = self.beginning else {
            return Ok(());
        };
        if !keep {
            // Its room may be what the new one needs.
            remove(&self.directory.file(RING))?;
        }
        let ring = Ring::create(&self.directory.file(NEW_RING), largest)?;
        ring.begin(random(), boot(), self.shared.fsync == Fsync::Always);
        if self.shared.fsync != Fsync::Never {
            ring.sync()?;
        }
        self.ring = Arc::new(ring);
        self.shared.progress().offered = Some(self.ring.clone());
        self.beginning = Some(Beginning::Replace);
        Ok(())
    }

    /// The database has all that there is, and knows of the ring.
    pub fn begin(&mut self) -> Result<(), DatabaseError> {
        match self.beginning {
            None => return Ok(()),
            Some(Beginning::Replace) => {
                std::fs::rename(self.directory.file(NEW_RING), self.directory.file(RING))?;
                if self.shared.fsync != Fsync::Never {
                    self.directory.sync()?;
                }
            }
            Some(_) => self.ring.settle(boot(), self.shared.fsync == Fsync::Always),
        }
        self.beginning = None;
        Ok(())
    }
}

/// By which this run of the machine is known; 0 when that cannot be seen.
pub fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // Good enough if there should be none: it is no secret.
    if getrandom::fill(&mut bytes).is_err() {
        return unix_time().as_nanos() as u64;
    }
    u64::from_ne_bytes(bytes)
}
