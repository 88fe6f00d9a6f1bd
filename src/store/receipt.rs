//! A publisher's wait until what it has published is on the disk, in the three ways in which publishers wait.
//!
//! Imports nothing but its own module.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;

/// Why something was not stored, as a whole sentence. For the operator, through the publisher's exception.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotStored(pub Arc<str>);

/// Comes true when what was kept is in the database.
#[derive(Clone, Debug)]
pub struct Receipt {
    shared: Arc<Shared>,
    position: u64,
}

impl Receipt {
    pub(super) fn new(shared: Arc<Shared>, position: u64) -> Self {
        Self { shared, position }
    }

    /// Whether it has come true, or will not for now.
    pub fn look(&self) -> Option<Result<(), NotStored>> {
        let progress = self.shared.progress();
        if progress.done >= self.position {
            return Some(Ok(()));
        }
        progress.failed.clone().map(Err)
    }

    /// Blocks until then, or for `patience`.
    pub fn wait(&self, patience: Duration) -> Option<Result<(), NotStored>> {
        let deadline = Instant::now() + patience;
        let mut progress = self.shared.progress();
        loop {
            if progress.done >= self.position {
                return Some(Ok(()));
            }
            if let Some(failed) = &progress.failed {
                return Some(Err(failed.clone()));
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.shared.progressed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Waits until then without blocking the thread.
    pub async fn arrived(&self) -> Result<(), NotStored> {
        loop {
            // Before the look: what happens after it is not missed.
            let notified = self.shared.notify.notified();
            if let Some(outcome) = self.look() {
                return outcome;
            }
            notified.await;
        }
    }
}
