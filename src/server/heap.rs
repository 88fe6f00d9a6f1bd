//! Gives memory back to the system after a crowd or a flood has left.
//!
//! The C library keeps what was freed between two pieces that are still in use, for ever: a server that once had ten thousand
//! clients would go on having their memory. Asked for what is free, it gives back pages in which nothing is in use any more. The
//! messages that are kept lie in most pages of the flood that they came with: they are put elsewhere first, close together. Looked at
//! by the control thread now and then. Imports `node` and `history`.

use std::time::{Duration, Instant};

use crate::history::Repack;
use crate::node::Node;

/// So much less must be in use than there was, in bytes.
const DROP: usize = 8 << 20;
/// Or so much more must be there that is not in use than there was after the last time, in bytes.
const IDLE: usize = 4 << 20;
/// That part of what is in use may be there beside it without it being worth to copy messages.
const SHARE: usize = 4;

/// A crowd leaves behind what goes a while later: messages that are kept compressed, places that clients may come back to.
const LATER: Duration = Duration::from_secs(60);
/// How long until it is given back again where not less was in use: a server that is busy takes it at once, page by page.
const PAUSE: Duration = Duration::from_secs(15);
/// How long until messages are copied again.
const STAY: Duration = Duration::from_secs(60);
/// How long others have the broker to themselves after each step of copying.
const TURN: Duration = Duration::from_millis(1);

/// Watches how much is in use.
#[derive(Debug, Default)]
pub struct Heap {
    /// The most that was in use, since memory was last given back.
    peak: usize,
    /// The least that was there without being in use, since then: it could not be given back.
    stuck: usize,
    /// When to give it back once more.
    again: Option<Instant>,
    /// When it was last given back though not less was in use.
    tried: Option<Instant>,
    /// When messages were last copied.
    repacked: Option<Instant>,
}

impl Heap {
    /// Gives memory back if much less is in use than there was, or much more is there than is in use.
    pub async fn look(&mut self, node: &Node) {
        let before = Memory::now();
        let now = Instant::now();
        self.peak = self.peak.max(before.used);
        self.stuck = self.stuck.min(before.idle);
        let dropped = self.peak - before.used > DROP;
        let again = self.again.is_some_and(|at| now > at);
        let past = |at: Option<Instant>, pause| at.is_none_or(|at| now > at + pause);
        let idles = before.idle > self.stuck + IDLE && past(self.tried, PAUSE);
        if !dropped && !again && !idles {
            return;
        }
        if idles {
            self.tried = Some(now);
        }
        give_back();
        let mut after = Memory::now();
        // What held it then may have gone since.
        let stuck = if again { 0 } else { self.stuck };
        let is_stuck = after.idle > stuck + IDLE && after.idle > after.used / SHARE;
        let repacks = is_stuck && past(self.repacked, STAY);
        if repacks {
            self.repacked = Some(now);
            let longest = repack(node).await;
            let scattered = after.idle;
            after = Memory::now();
            tracing::debug!(
                scattered,
                left = after.idle,
                ?longest,
                "put messages close together"
            );
        }
        // What was not tried may still come free.
        if repacks || !is_stuck {
            self.stuck = after.idle;
        }
        self.peak = after.used;
        self.again = (dropped || repacks && !again).then(|| now + LATER);
        tracing::debug!(used = after.used, idle = after.idle, "gave memory back");
    }
}

/// Has the messages that are kept put close together, and gives back what they leave. Returns for how long a step held the broker.
async fn repack(node: &Node) -> Duration {
    let mut repack = Repack::default();
    let mut longest = Duration::ZERO;
    loop {
        let begin = Instant::now();
        let goes_on = node.repack(&mut repack);
        longest = longest.max(begin.elapsed());
        if !goes_on {
            break;
        }
        if repack.is_full() {
            repack.release();
        }
        tokio::time::sleep(TURN).await;
    }
    // The allocator puts together what is free when it is asked for it, and gives back the end of a thread's memory when something
    // is freed next to that: the last go after it was asked.
    give_back();
    drop(repack);
    give_back();
    longest
}

/// What the allocator has.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// In use, in bytes.
    used: usize,
    /// Free, and not given back; no more than that.
    idle: usize,
}

#[cfg(target_env = "gnu")]
impl Memory {
    fn now() -> Self {
        // SAFETY: reads counters under the allocator's own locks; no memory is passed.
        let counters = unsafe { libc::mallinfo2() };
        let used = counters.uordblks;
        // What was given back counts as free to the allocator. What PHP has in this process is neither.
        let others = resident().saturating_sub(used + counters.hblkhd);
        Self {
            used,
            idle: counters.fordblks.min(others),
        }
    }
}

/// What this process has, without files, in bytes.
#[cfg(target_env = "gnu")]
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split(' ').map(|number| number.parse().unwrap_or(0));
    let (resident, shared): (usize, usize) = (pages.nth(1).unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * page_size()
}

#[cfg(target_env = "gnu")]
fn page_size() -> usize {
    // SAFETY: looks up a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: works on what is free alone, under the allocator's own locks; nobody has a pointer into that.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
impl Memory {
    fn now() -> Self {
        Self::default()
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}
