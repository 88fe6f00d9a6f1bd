//! What the targets share: input that comes in pieces, and a bound on the memory that a decoder takes.
//!
//! A target reads its input as a client's or another process's bytes and checks what must hold for any of them: nothing
//! panics (integer overflow counts), memory stays within a multiple of what has arrived, and what is read the same
//! whether it comes whole or in pieces, or is written again and read back. `run.sh` says how they are run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counted;

// SAFETY: everything is the system allocator's; the counters touch no memory of anybody's.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; `place` came from `System`, as all do.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Does `work`, which may take at most `limit` bytes at any moment beside what there was before.
///
/// libFuzzer's own limits see one huge allocation, or a process that has grown by far; this sees a message of 1 KiB that
/// takes a megabyte.
#[track_caller]
pub fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    let taken = PEAK.load(Ordering::Relaxed) - before;
    assert!(
        taken <= limit,
        "{taken} bytes were taken, {limit} are enough"
    );
    result
}

/// Splits the first `N` bytes off: what a target's input begins with to say how the rest is to be read.
pub fn choices<const N: usize>(input: &[u8]) -> Option<([u8; N], &[u8])> {
    input
        .split_first_chunk()
        .map(|(choices, rest)| (*choices, rest))
}

/// `bytes` as a socket may bring them: all at once with 0, one at a time with 1, else in pieces of up to `seed` bytes.
pub fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, u32::from(seed));
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // The constants of Numerical Recipes: any order of sizes will do, as long as it is the same each time.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = match seed {
            0 => rest.len(),
            _ => 1 + (state >> 16) as usize % usize::from(seed),
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        Some(piece)
    })
}

/// What is written is read again as the same: by its bytes, since not everything can be compared. The third argument puts
/// them in an order, for what has none.
#[macro_export]
macro_rules! again {
    ($type:ty, $value:expr) => {
        $crate::again!($type, $value, |frame: Vec<u8>| frame)
    };
    ($type:ty, $value:expr, $order:expr) => {{
        // A macro because a type that borrows from the frame cannot be named by a function's parameter.
        let frame = realtime::wire::control::frame($value);
        let (content, rest) = realtime::wire::control::split(&frame).expect("a whole frame");
        assert!(rest.is_empty());
        let back: $type = realtime::wire::control::read(content).expect("what was written");
        assert_eq!($order(realtime::wire::control::frame(&back)), $order(frame));
    }};
}
