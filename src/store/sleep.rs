//! The keeper's sleep, and how others end it.
//!
//! Whoever has something new first puts it where the keeper looks, and then sees whether it sleeps; the keeper says that it sleeps,
//! and then looks once more. Both look under the broker's lock, so one of the two sees the other. Imports `sync`.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::sync::{AtomicBool, Mutex, Thread, current, park, park_timeout};

/// Shared by the keeper and those who wake it.
#[derive(Debug, Default)]
pub struct Sleep {
    /// Whether the keeper has nothing to do until it is woken.
    asleep: AtomicBool,
    // Set by the keeper before it sleeps for the first time; taken to wake it, for a moment.
    keeper: Mutex<Option<Thread>>,
}

impl Sleep {
    /// Whether the keeper has to be woken for what is new. By whoever has put that there before.
    pub fn is_deep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Wakes the keeper, or keeps it from sleeping the next time.
    pub fn end(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        let keeper = self.keeper.lock();
        if let Some(keeper) = &*keeper.unwrap_or_else(PoisonError::into_inner) {
            keeper.unpark();
        }
    }

    /// Tells which thread the keeper is. By that one, before it looks for anything.
    pub fn begin(&self) {
        let keeper = self.keeper.lock();
        *keeper.unwrap_or_else(PoisonError::into_inner) = Some(current());
    }

    /// Sleeps until it is woken, unless `is_new` then. By the keeper.
    pub fn unless(&self, is_new: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::SeqCst);
        // Whoever came before this has not seen that nobody is awake.
        if !is_new() {
            park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Sleeps for so long, or until it is woken; for nothing that is new. By the keeper.
    pub fn nap(&self, time: Duration) {
        park_timeout(time);
    }
}

#[cfg(all(test, feature = "loom"))]
mod meetings {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    use super::*;

    /// What the broker's lock guards, and what the keeper shares with others.
    #[derive(Default)]
    struct Place {
        sleep: Sleep,
        head: Mutex<usize>,
        closing: AtomicBool,
    }

    impl Place {
        /// What `Journal::pass_on` does.
        fn publish(&self) {
            let mut head = self.head.lock().unwrap();
            *head += 1;
            if self.sleep.is_deep() {
                self.sleep.end();
            }
        }

        /// What `Store::end` does.
        fn close(&self) {
            self.closing.store(true, Ordering::SeqCst);
            self.sleep.end();
        }

        fn head(&self) -> usize {
            *self.head.lock().unwrap()
        }

        /// The keeper's loop, until it has written `count` or is told to close. Says how far it came.
        fn keep(&self, count: usize) -> usize {
            self.sleep.begin();
            let mut written = 0;
            while written < count {
                let closing = self.closing.load(Ordering::SeqCst);
                let head = self.head();
                if head != written {
                    written = head;
                    continue;
                }
                if closing {
                    break;
                }
                self.sleep
                    .unless(|| self.head() != written || self.closing.load(Ordering::SeqCst));
            }
            written
        }
    }

    /// A keeper beside `others`. Says how far it came; if it sleeps for ever, loom says so.
    fn meet(count: usize, others: &[fn(&Place)]) -> usize {
        let place = Arc::new(Place::default());
        let kept = place.clone();
        // A thread of its own: what wakes it late must not wake one that joins others.
        let keeper = thread::spawn(move || kept.keep(count));
        let others = others.iter().map(|&other| {
            let place = place.clone();
            thread::spawn(move || other(&place))
        });
        for other in others.collect::<Vec<_>>() {
            other.join().unwrap();
        }
        keeper.join().unwrap()
    }

    #[test]
    fn nothing_that_is_published_is_slept_over() {
        loom::model(|| assert_eq!(meet(2, &[Place::publish, Place::publish]), 2));
    }

    #[test]
    fn what_came_before_the_end_is_written() {
        let server = |place: &Place| {
            place.publish();
            place.close();
        };
        loom::model(move || assert_eq!(meet(usize::MAX, &[server]), 1));
    }
}
