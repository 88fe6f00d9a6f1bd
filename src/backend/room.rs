//! Room for events on their way to PHP, counted in bytes (`realtime.queue_bytes`).
//!
//! Shared by the backends. Imports `backend`.

use tokio::sync::{Semaphore, TryAcquireError};

use super::{Event, Refused};

/// What an event weighs beside its data.
pub(super) const EVENT_COST: usize = 512;
/// The unit in which room is counted, in bytes.
const UNIT: usize = 512;

/// What is left of a number of bytes.
#[derive(Debug)]
pub(super) struct Room {
    free: Semaphore,
    capacity: usize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let capacity = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            free: Semaphore::new(capacity),
            capacity,
        }
    }

    /// What `event` takes.
    pub(super) fn units(&self, event: &Event) -> u32 {
        let data = match event {
            Event::Message { message, .. } => message.data.len(),
            // Nobody but this event may keep the connection's head.
            Event::Open { connection, .. } | Event::Close { connection, .. } => {
                connection.head().len()
            }
            Event::Subscribe { .. } => 0,
        };
        self.units_of(EVENT_COST + data)
    }

    /// What so many bytes take.
    pub(super) fn units_of(&self, bytes: usize) -> u32 {
        bytes.div_ceil(UNIT).min(self.capacity) as u32
    }

    /// As many of `more` as fit beside `units`: what is larger than all the room is let in when it is empty.
    pub(super) fn beside(&self, units: u32, more: u32) -> u32 {
        more.min((self.capacity as u32).saturating_sub(units))
    }

    /// Takes `units`, if they are there.
    pub(super) fn take(&self, units: u32) -> Result<(), Refused> {
        match self.free.try_acquire_many(units) {
            Ok(permit) => {
                permit.forget();
                Ok(())
            }
            Err(TryAcquireError::NoPermits) => Err(Refused::Busy),
            Err(TryAcquireError::Closed) => Err(Refused::Gone),
        }
    }

    /// Takes what there is of `wanted`, for what must not be refused. Gives what was taken, `None` when closed.
    ///
    /// Bounded all the same: whoever connects is refused while there is no room, so what is overdrawn are the ends
    /// of connections that there were before.
    pub(super) fn overdraw(&self, wanted: u32) -> Option<u32> {
        if self.free.is_closed() {
            return None;
        }
        let mut units = wanted.min(self.free.available_permits() as u32);
        while units > 0 {
            match self.free.try_acquire_many(units) {
                Ok(permit) => {
                    permit.forget();
                    break;
                }
                Err(_) => units /= 2,
            }
        }
        Some(units)
    }

    pub(super) fn give_back(&self, units: u32) {
        self.free.add_permits(units as usize);
    }

    /// Waits until there may be `units`.
    pub(super) async fn wait(&self, units: u32) {
        // The permit is given back at once: whoever waited tries again. An error means closed, which the next try
        // reports.
        drop(self.free.acquire_many(units).await);
    }

    pub(super) fn has_any(&self) -> bool {
        self.free.available_permits() > 0
    }

    /// From here on everybody is told that PHP has gone.
    pub(super) fn close(&self) {
        self.free.close();
    }
}
