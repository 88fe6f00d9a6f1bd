//! Gives memory back to the system after a crowd has left.
//!
//! The C library keeps what was freed between two pieces that are still in use, for ever: a server that once had ten thousand
//! clients would go on having their memory. Looked at by the control thread now and then. Imports nothing.

use std::time::{Duration, Instant};

/// So much less must be in use than there was, in bytes.
const DROP: usize = 8 << 20;

/// A crowd leaves behind what goes a while later: messages that are kept compressed, places that clients may come back to.
const LATER: Duration = Duration::from_secs(60);

/// Watches how much is in use.
#[derive(Debug, Default)]
pub struct Heap {
    /// The most that was, since memory was last given back.
    peak: usize,
    /// When to give it back once more.
    again: Option<Instant>,
}

impl Heap {
    /// Gives memory back if much less is in use than there was.
    pub fn look(&mut self) {
        let used = used();
        self.peak = self.peak.max(used);
        let dropped = self.peak - used > DROP;
        let again = self.again.is_some_and(|at| Instant::now() > at);
        if dropped || again {
            give_back();
            self.peak = used;
            self.again = dropped.then(|| Instant::now() + LATER);
            tracing::debug!(used, "gave memory back");
        }
    }
}

#[cfg(target_env = "gnu")]
fn used() -> usize {
    // SAFETY: reads counters under the allocator's own locks; no memory is passed.
    unsafe { libc::mallinfo2() }.uordblks
}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: works on what is free alone, under the allocator's own locks; nobody has a pointer into that.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn used() -> usize {
    0
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}
