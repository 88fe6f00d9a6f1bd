//! The backend of a PHP loop: a bounded queue between the server's threads and the one PHP thread that runs
//! `rt_run()`, `rt_dispatch()` or an event loop of its own.
//!
//! The server puts events in; the PHP thread polls [`EventQueue::fd`] and takes them out. Imports `backend`.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::room::Room;
use super::{Backend, Event, Interest, Load, NotTaken};

/// Events on their way to PHP.
#[derive(Debug)]
pub struct EventQueue {
    // Unbounded in itself: `room` bounds it, in bytes and not in events. A channel and not a Mutex<VecDeque>,
    // because every shard puts in while the PHP thread takes out.
    // The number beside an event is the room it took.
    sender: Sender<(Event, u32)>,
    receiver: Receiver<(Event, u32)>,
    room: Room,
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
        Ok(Self {
            sender,
            receiver,
            room: Room::new(capacity),
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
                self.room.give_back(units);
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
        self.interest.store(interest.to_bits(), Ordering::Release);
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
}

impl Backend for EventQueue {
    fn interest(&self) -> Interest {
        Interest::from_bits(self.interest.load(Ordering::Acquire))
    }

    fn try_dispatch(&self, event: Event) -> Result<(), Box<NotTaken>> {
        let units = self.room.units(&event);
        match self.room.take(units) {
            Ok(()) => {
                self.put(event, units);
                Ok(())
            }
            Err(why) => Err(Box::new(NotTaken { event, why })),
        }
    }

    fn room<'a>(&'a self, event: &Event) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let units = self.room.units(event);
        Box::pin(self.room.wait(units))
    }

    fn has_room(&self) -> bool {
        self.room.has_any()
    }

    fn notify(&self, event: Event) {
        let wanted = self.room.units(&event);
        if let Some(units) = self.room.overdraw(wanted) {
            self.put(event, units);
        }
    }

    fn load(&self) -> Load {
        Load {
            queued: self.len(),
            ..Load::default()
        }
    }
}
