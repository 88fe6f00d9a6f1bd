//! What the model checker runs the same code with: loom's locks and counters, and models of the rest made of them.
//!
//! A model does what the documentation of the real one promises and no more, so that code which passes here relies on
//! nothing else. Time does not pass: what waits until a deadline waits for ever, which loom reports.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::sync::Condvar;
pub use loom::sync::atomic::{AtomicBool, AtomicUsize};
pub use loom::sync::{Mutex, MutexGuard};
pub use loom::thread::{Thread, current, park};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// [`super::real`]'s, for one thread that waits.
#[derive(Debug, Default)]
pub struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    /// See the real one.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self::default())
    }

    /// There is none.
    pub fn fd(&self) -> RawFd {
        -1
    }

    /// See the real one.
    pub fn ring(&self) {
        *self.rings.lock().expect("no test panics with it") += 1;
        self.rung.notify_one();
    }

    /// See the real one.
    pub fn hush(&self) {
        *self.rings.lock().expect("no test panics with it") = 0;
    }

    /// What poll() does with the descriptor.
    #[cfg(test)]
    pub fn wait(&self) {
        let mut rings = self.rings.lock().expect("no test panics with it");
        while *rings == 0 {
            rings = self.rung.wait(rings).expect("no test panics with it");
        }
    }
}

/// The sending end of a channel without bounds.
#[derive(Debug)]
pub struct Sender<T>(Arc<Mutex<VecDeque<T>>>);

/// The receiving end.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Mutex<VecDeque<T>>>);

/// Why nothing was received.
#[derive(Debug)]
#[expect(dead_code, reason = "the real one has both")]
pub enum TryRecvError {
    /// Nothing is there.
    Empty,
    /// Nobody is there. Never here: who receives also sends.
    Disconnected,
}

/// Makes a channel.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Mutex::new(VecDeque::new()));
    (Sender(queue.clone()), Receiver(queue))
}

impl<T> Sender<T> {
    /// Puts in.
    pub fn send(&self, item: T) -> Result<(), T> {
        self.0
            .lock()
            .expect("no test panics with it")
            .push_back(item);
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Takes out.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let mut queue = self.0.lock().expect("no test panics with it");
        queue.pop_front().ok_or(TryRecvError::Empty)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.lock().expect("no test panics with it").len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Lets others go on: no model relies on how long it is.
pub fn park_timeout(_: std::time::Duration) {
    loom::thread::yield_now();
}

/// tokio's `timeout_at()`, where time does not pass.
pub async fn timeout_at<F: Future>(_: Instant, future: F) -> Result<F::Output, Elapsed> {
    Ok(future.await)
}

/// tokio's `Notify`.
#[derive(Debug, Default)]
pub struct Notify(Mutex<Notices>);

#[derive(Debug, Default)]
struct Notices {
    /// One notification that nobody has taken yet.
    permit: bool,
    /// How often everybody was notified.
    rounds: u64,
    /// Who waits, in order: a number, how to wake it, and whether it is notified.
    waiters: Vec<(u64, Option<Waker>, bool)>,
    numbers: u64,
}

/// A wait for a notification.
#[derive(Debug)]
pub struct Notified<'a> {
    notify: &'a Notify,
    /// Those of before its creation are not for it.
    rounds: u64,
    number: Option<u64>,
}

impl Notify {
    /// See tokio.
    pub fn new() -> Self {
        Self::default()
    }

    /// See tokio: the first that waits, or else the next that will.
    pub fn notify_one(&self) {
        let waker = self.lock().one();
        waker.into_iter().for_each(Waker::wake);
    }

    /// See tokio: all that wait, and those whose wait has been created.
    pub fn notify_waiters(&self) {
        let mut notices = self.lock();
        notices.rounds += 1;
        let wakers: Vec<_> = notices
            .waiters
            .drain(..)
            .filter_map(|(_, waker, _)| waker)
            .collect();
        drop(notices);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// See tokio.
    pub fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            rounds: self.lock().rounds,
            number: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notices> {
        self.0.lock().expect("no test panics with it")
    }
}

impl Notices {
    fn one(&mut self) -> Option<Waker> {
        match self.waiters.iter_mut().find(|(_, _, notified)| !notified) {
            Some((_, waker, notified)) => {
                *notified = true;
                waker.take()
            }
            None => {
                self.permit = true;
                None
            }
        }
    }
}

impl Notified<'_> {
    /// See tokio: from here on it waits, without having been polled.
    pub fn enable(self: Pin<&mut Self>) -> bool {
        self.get_mut().look(None)
    }

    fn look(&mut self, waker: Option<Waker>) -> bool {
        let mut notices = self.notify.lock();
        if notices.rounds != self.rounds {
            self.number = None;
            return true;
        }
        let Some(number) = self.number else {
            if std::mem::take(&mut notices.permit) {
                return true;
            }
            notices.numbers += 1;
            let number = notices.numbers;
            notices.waiters.push((number, waker, false));
            self.number = Some(number);
            return false;
        };
        let place = notices.waiters.iter().position(|(its, ..)| *its == number);
        let place = place.expect("a waiter stays until it is notified");
        if notices.waiters[place].2 {
            notices.waiters.remove(place);
            self.number = None;
            return true;
        }
        notices.waiters[place].1 = waker;
        false
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut().look(Some(cx.waker().clone())) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut notices = self.notify.lock();
        let Some(place) = notices.waiters.iter().position(|(its, ..)| *its == number) else {
            return;
        };
        // What it was told and has not heard is for the next one.
        let (_, _, notified) = notices.waiters.remove(place);
        let waker = if notified { notices.one() } else { None };
        drop(notices);
        waker.into_iter().for_each(Waker::wake);
    }
}
