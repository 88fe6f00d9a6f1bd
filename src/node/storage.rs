//! `realtime.history = disk`: opening and closing the store of this hub, and waiting for it.
//!
//! Called by `server`, and by whoever publishes or revokes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Failure, Node, ROOM_PAUSE};
use crate::auth::Lists;
use crate::config::HistoryKind;
use crate::store::{self, NotStored, Receipt, Store, StoreError, Watchers};

/// The store, while there is one.
#[derive(Default)]
pub struct Storage {
    // Taken by the control thread when it opens or closes.
    store: Mutex<Option<Store>>,
    watchers: Watchers,
    /// Whether it was closed, and what is published now would not be kept.
    closed: AtomicBool,
}

impl Storage {
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn store(&self) -> MutexGuard<'_, Option<Store>> {
        // Moved in and out in one go.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Opens `realtime.data_dir` if the settings ask for it and it is not open, and goes on with the history that is there;
    /// or keeps there what this node has, if that is another hub's. Blocks for as long as reading takes.
    pub fn open_store(&self) -> Result<(), StoreError> {
        let mut store = self.storage.store();
        if self.config.history != HistoryKind::Disk || store.is_some() {
            return Ok(());
        }
        let inherited = self.broker.has_history();
        let mut opened = store::open(&self.config, !inherited)?;
        let revocations = self.auth.revocations();
        let before = revocations.lists();
        for lists in opened.revoked.drain(..) {
            revocations.adopt(lists);
        }
        if before.keys().next().is_some() {
            opened.write_all();
        }
        let known = revocations.clone();
        let revoked = Box::new(move || known.lists());
        let watchers = self.storage.watchers.clone();
        let kept = self.broker.keep(opened, revoked, watchers)?;
        // Not under the broker's lock, which the keeper needs.
        kept.await_beginning();
        *store = Some(kept);
        self.storage.closed.store(false, Ordering::Release);
        Ok(())
    }

    /// Writes what waits and lets go of the directory. Nothing is published here any more until it is open again.
    pub fn close_store(&self) {
        let mut store = self.storage.store();
        if let Some(store) = store.take() {
            self.storage.closed.store(true, Ordering::Release);
            self.broker.close();
            // It asks the broker what is new until it ends.
            store.close();
            self.broker.keep_no_more();
        }
    }

    /// Whether it was closed and is not open again.
    pub fn is_store_closed(&self) -> bool {
        self.storage.is_closed()
    }

    /// The descriptor that keeps others from the directory, for a forked child to close.
    pub fn store_descriptor(&self) -> Option<i32> {
        self.storage.store().as_ref().map(Store::descriptor)
    }

    /// Calls `watcher` whenever receipts may have come true. It must not block.
    pub fn watch_store(&self, watcher: impl Fn() + Send + Sync + 'static) {
        let watchers = self.storage.watchers.lock();
        watchers
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(watcher));
    }

    /// Keeps what was revoked, also across a crash. Blocks like [`Node::publish`].
    pub(super) fn keep_revoked(&self, mut revoked: Lists) -> Result<(), Failure> {
        let deadline = Instant::now() + self.config.timeout;
        loop {
            revoked = match self.broker.keep_revoked(revoked) {
                Ok(None) => return Ok(()),
                Ok(Some(receipt)) => return stored_in_time(wait(&receipt, deadline)),
                Err((_, Some(why))) => return Err(Failure::Unstored(why.to_string())),
                Err((back, None)) => back,
            };
            if Instant::now() >= deadline {
                return Err(Failure::Busy);
            }
            std::thread::sleep(ROOM_PAUSE);
        }
    }
}

fn wait(receipt: &Receipt, deadline: Instant) -> Option<Result<(), NotStored>> {
    receipt.wait(deadline.saturating_duration_since(Instant::now()))
}

/// What a publisher is told of its receipt; none when it waited for too long.
pub fn stored_in_time(stored: Option<Result<(), NotStored>>) -> Result<(), Failure> {
    match stored {
        Some(Ok(())) => Ok(()),
        Some(Err(why)) => Err(Failure::Unstored(why.to_string())),
        None => Err(Failure::Unstored(
            "the disk of realtime.data_dir did not take the message within realtime.timeout".into(),
        )),
    }
}
