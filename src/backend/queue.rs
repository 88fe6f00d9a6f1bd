//! The backend of a PHP loop: a bounded queue between the server's threads and the one PHP thread that runs
//! `rt_run()`, `rt_dispatch()` or an event loop of its own.
//!
//! The server puts events in; the PHP thread polls [`EventQueue::fd`] and takes them out. Imports `backend` and `sync`.

use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};

use super::room::Room;
use super::{Backend, Event, Interest, Load, NotTaken};
use crate::sync::{AtomicBool, Bell, Receiver, Sender, TryRecvError, unbounded};

/// Events on their way to PHP.
#[derive(Debug)]
pub struct EventQueue {
    // Unbounded in itself: `room` bounds it, in bytes and not in events. A channel and not a Mutex<VecDeque>,
    // because every shard puts in while the PHP thread takes out.
    // The number beside an event is the room it took.
    sender: Sender<(Event, u32)>,
    receiver: Receiver<(Event, u32)>,
    room: Room,
    bell: Bell,
    /// Set while `bell` is readable, so that a burst costs one write to it.
    signalled: AtomicBool,
    interest: AtomicU8,
}

impl EventQueue {
    /// A queue for `capacity` bytes.
    pub fn new(capacity: usize) -> std::io::Result<Self> {
        let (sender, receiver) = unbounded();
        Ok(Self {
            sender,
            receiver,
            room: Room::new(capacity),
            bell: Bell::new()?,
            signalled: AtomicBool::new(false),
            interest: AtomicU8::new(0),
        })
    }

    /// A descriptor (an eventfd) that is readable while events may wait. Only poll it: [`EventQueue::clear`]
    /// reads it.
    pub fn fd(&self) -> RawFd {
        self.bell.fd()
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
        self.bell.hush();
        // A swap, which comes after every one in `signal` that found it set: what was put in before those is popped next.
        self.signalled.swap(false, Ordering::SeqCst);
    }

    /// Makes `fd` readable without an event: `rt_stop()` from a signal handler, or events left after
    /// `rt_dispatch(1)`.
    pub fn signal(&self) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            self.bell.ring();
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

#[cfg(all(test, feature = "loom"))]
mod meetings {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::ids::ConnectionId;
    use crate::message::{ConnectionInfo, Transport};

    fn event(code: u16) -> Event {
        let id = ConnectionId::from_bits(code.into());
        let connection = ConnectionInfo::from_head(id, Transport::Sse, "", "/");
        Event::Close {
            connection: Arc::new(connection),
            code,
            reason: String::new(),
        }
    }

    fn code(event: &Event) -> u16 {
        match event {
            Event::Close { code, .. } => *code,
            _ => unreachable!(),
        }
    }

    /// A PHP loop that takes at most `burst` events at a time, until it has `count`.
    fn php(queue: &EventQueue, burst: usize, count: usize) -> Vec<u16> {
        let mut seen = Vec::new();
        while seen.len() < count {
            queue.bell.wait();
            queue.clear();
            for _ in 0..burst {
                seen.extend(queue.pop().as_ref().map(code));
            }
            if !queue.is_empty() {
                queue.signal();
            }
        }
        seen
    }

    #[test]
    fn no_event_is_left_behind_unseen() {
        for burst in [1, 3] {
            loom::model(move || {
                let queue = loom::sync::Arc::new(EventQueue::new(1 << 20).unwrap());
                let shards = [[1, 2], [11, 12]].map(|codes| {
                    let queue = queue.clone();
                    thread::spawn(move || codes.map(|code| queue.notify(event(code))))
                });
                let seen = php(&queue, burst, 4);
                for shard in shards {
                    shard.join().unwrap();
                }
                let place = |code| seen.iter().position(|its| *its == code).unwrap();
                assert!(place(1) < place(2) && place(11) < place(12));
            });
        }
    }
}
