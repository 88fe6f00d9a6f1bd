//! How often the hub was started in vain, remembered in the lock file: whoever wants to start it next, in whatever
//! process, waits longer each time.
//!
//! Written and read by `server::detached` while it holds the lock. A hub that ends as it should leaves an empty file.
//! Imports `procfs`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::procfs;

/// The first waiting time; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);
/// A hub that lived as long as this was well.
const WELL: Duration = Duration::from_secs(60);
/// The largest record, in bytes.
const RECORD_MAX: usize = 4096;

/// What is known about the last starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which extension, settings and start of PHP it is about: others may do better.
    by: String,
    /// Starts in a row.
    pub starts: u32,
    /// When the last one was, see [`procfs::uptime_ns`].
    at: u64,
    /// Why it failed. None for one that began to serve, and then did not end as it should.
    pub why: Option<String>,
}

impl Record {
    /// Reads what is in the lock file. Whatever makes no sense counts as nothing.
    pub fn read(lock: &File) -> Self {
        let mut bytes = [0; RECORD_MAX];
        let length = lock.read_at(&mut bytes, 0).unwrap_or(0);
        serde_json::from_slice(&bytes[..length]).unwrap_or_default()
    }

    /// How long `by` has to wait before the next start.
    pub fn wait(&self, by: &str) -> Duration {
        self.wait_at(by, procfs::uptime_ns())
    }

    fn wait_at(&self, by: &str, now: u64) -> Duration {
        // Newer than now: from before the machine's last start.
        if self.starts == 0 || self.by != by || self.at > now {
            return Duration::ZERO;
        }
        let past = Duration::from_nanos(now - self.at);
        let doublings = match &self.why {
            Some(_) => self.starts - 1,
            None if past >= WELL || self.starts == 1 => return Duration::ZERO,
            None => self.starts - 2,
        };
        let whole = FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST);
        whole.saturating_sub(past)
    }

    /// Notes a start by `by`.
    pub fn started(&mut self, by: &str) {
        let now = procfs::uptime_ns();
        let past = Duration::from_nanos(now.saturating_sub(self.at));
        if self.by != by || self.at > now || (self.why.is_none() && past >= WELL) {
            self.starts = 0;
        }
        self.by = by.to_owned();
        self.starts = self.starts.saturating_add(1);
        self.at = now;
        self.why = None;
    }

    /// Notes that the start failed.
    pub fn failed(&mut self, why: &str) {
        self.at = procfs::uptime_ns();
        let end = (0..=why.len().min(RECORD_MAX / 4)).rfind(|&end| why.is_char_boundary(end));
        self.why = Some(why[..end.unwrap_or(0)].to_owned());
    }

    /// Writes it. A full disk costs the memory of it, nothing else.
    pub fn write(&self, lock: &File) {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if lock.set_len(0).is_ok() && bytes.len() <= RECORD_MAX {
            let _ = lock.write_all_at(&bytes, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn record(starts: u32, why: Option<&str>) -> Record {
        Record {
            by: "me".into(),
            starts,
            at: 100 * SECOND,
            why: why.map(Into::into),
        }
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let wait = |starts| record(starts, Some("taken")).wait_at("me", 100 * SECOND);
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(1), FIRST);
        assert_eq!(wait(2), FIRST * 2);
        assert_eq!(wait(30), LONGEST);
        assert_eq!(wait(u32::MAX), LONGEST);
        let later = record(3, Some("taken")).wait_at("me", 100 * SECOND + SECOND / 10);
        assert_eq!(later, FIRST * 3);
    }

    #[test]
    fn one_sudden_end_costs_nothing() {
        assert_eq!(record(1, None).wait_at("me", 101 * SECOND), Duration::ZERO);
        assert_eq!(record(2, None).wait_at("me", 100 * SECOND), FIRST);
        assert_eq!(record(9, None).wait_at("me", 161 * SECOND), Duration::ZERO);
    }

    #[test]
    fn another_start_of_php_begins_anew() {
        let record = record(9, Some("taken"));
        assert_eq!(record.wait_at("you", 100 * SECOND), Duration::ZERO);
        assert_eq!(record.wait_at("me", 99 * SECOND), Duration::ZERO);
        let mut next = record.clone();
        next.started("you");
        assert_eq!(next.starts, 1);
    }

    #[test]
    fn survives_the_file_and_ignores_garbage() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Record::read(&file), Record::default());
        let mut record = Record::default();
        record.started("me");
        record.failed(&"ä".repeat(5000));
        record.write(&file);
        assert_eq!(Record::read(&file), record);
        assert!(record.wait("me") > Duration::ZERO);
        file.set_len(7).unwrap();
        assert_eq!(Record::read(&file), Record::default());
    }
}
