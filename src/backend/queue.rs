//! The backend of a PHP loop: a bounded queue between the server's threads and the one PHP thread that runs
//! `rt_run()`, `rt_dispatch()` or an event loop of its own.
//!
//! The server puts events in; the PHP thread polls [`EventQueue::fd`] and takes them out. Imports `backend`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use tokio::sync::{Semaphore, TryAcquireError};

use super::{Backend, Event, Interest, NotTaken, Refused};

/// What an event weighs beside its data.
const EVENT_COST: usize = 512;
/// The unit in which room is counted, in bytes.
const UNIT: usize = 512;

/// Events on their way to PHP.
#[derive(Debug)]
pub struct EventQueue {
    // Unbounded in itself: `room` bounds it, in bytes and not in events. A channel and not a Mutex<VecDeque>,
    // because every shard puts in while the PHP thread takes out.
    // The number beside an event is the room it took.
    sender: Sender<(Event, u32)>,
    receiver: Receiver<(Event, u32)>,
    room: Semaphore,
    capacity: usize,
    wake: OwnedFd,
    /// Set while `wake` is readable, so that a burst costs one write to it.
    signalled: AtomicBool,
    interest: AtomicU8,
}

impl EventQueue {
    /// A queue for `capacity` bytes.
    pub fn new(capacity: usize) -> std::io::Result<Self> {
        // SAFETY: eventfd() takes no pointer; the descriptor it returns is nobody else's.
        let wake = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let (sender, receiver) = crossbeam_channel::unbounded();
        let capacity = (capacity / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            sender,
            receiver,
            room: Semaphore::new(capacity),
            capacity,
            wake,
            signalled: AtomicBool::new(false),
            interest: AtomicU8::new(0),
        })
    }

    /// A descriptor (an eventfd) that is readable while events may wait. Only poll it: [`EventQueue::clear`]
    /// reads it.
    pub fn fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// The next event, if one waits. Gives its room back.
    pub fn pop(&self) -> Option<Event> {
        match self.receiver.try_recv() {
            Ok((event, units)) => {
                self.room.add_permits(units as usize);
                Some(event)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Makes `fd` unreadable until something new comes. Call it when the descriptor was found readable,
    /// BEFORE the last [`EventQueue::pop`]: then no event is left behind unseen.
    pub fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: reads 8 bytes into a local of 8 bytes; the descriptor is ours and non-blocking.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
        self.signalled.store(false, Ordering::SeqCst);
    }

    /// Makes `fd` readable without an event: `rt_stop()` from a signal handler, or events left after
    /// `rt_dispatch(1)`.
    pub fn signal(&self) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            let one = 1u64;
            // SAFETY: writes 8 bytes from a local of 8 bytes; the descriptor is ours.
            unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
        }
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Says which events are handled from now on.
    pub fn set_interest(&self, interest: Interest) {
        let bits = u8::from(interest.open)
            | u8::from(interest.subscribe) << 1
            | u8::from(interest.message) << 2
            | u8::from(interest.close) << 3;
        self.interest.store(bits, Ordering::Release);
    }

    /// Ends it: whoever waits for room gets [`Refused::Gone`], and what waits is dropped.
    pub fn shut_down(&self) {
        self.room.close();
        while self.receiver.try_recv().is_ok() {}
    }

    fn put(&self, event: Event, units: u32) {
        // Cannot fail: this queue holds a receiver itself.
        let _ = self.sender.send((event, units));
        self.signal();
    }

    fn units(&self, event: &Event) -> u32 {
        let data = match event {
            Event::Message { message, .. } => message.data.len(),
            // Nobody but this event may keep the connection's head.
            Event::Open { connection, .. } | Event::Close { connection, .. } => {
                connection.head().len()
            }
            Event::Subscribe { .. } => 0,
        };
        (EVENT_COST + data).div_ceil(UNIT).min(self.capacity) as u32
    }
}

impl Backend for EventQueue {
    fn interest(&self) -> Interest {
        let bits = self.interest.load(Ordering::Acquire);
        Interest {
            open: bits & 1 != 0,
            subscribe: bits & 2 != 0,
            message: bits & 4 != 0,
            close: bits & 8 != 0,
        }
    }

    fn try_dispatch(&self, event: Event) -> Result<(), Box<NotTaken>> {
        let units = self.units(&event);
        match self.room.try_acquire_many(units) {
            Ok(permit) => {
                permit.forget();
                self.put(event, units);
                Ok(())
            }
            Err(TryAcquireError::Closed) => Err(Box::new(NotTaken {
                event,
                why: Refused::Gone,
            })),
            Err(TryAcquireError::NoPermits) => Err(Box::new(NotTaken {
                event,
                why: Refused::Busy,
            })),
        }
    }

    fn room<'a>(&'a self, event: &Event) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let units = self.units(event);
        Box::pin(async move {
            // The permit is given back at once: whoever waited tries again. An error means closed, which
            // the next try reports.
            drop(self.room.acquire_many(units).await);
        })
    }

    fn has_room(&self) -> bool {
        self.room.available_permits() > 0
    }

    fn notify(&self, event: Event) {
        if self.room.is_closed() {
            return;
        }
        // Takes what room there is and overdraws the rest. Bounded all the same: whoever connects is refused while
        // there is no room, so what is overdrawn are the ends of connections that there were before.
        let wanted = self.units(&event);
        let mut units = wanted.min(self.room.available_permits() as u32);
        while units > 0 {
            match self.room.try_acquire_many(units) {
                Ok(permit) => {
                    permit.forget();
                    break;
                }
                Err(_) => units /= 2,
            }
        }
        self.put(event, units);
    }
}
