//! Which events the PHP processes handle, as far as it is known.
//!
//! Told by every outcome that comes back; asked by the server for each event. Imports `backend`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::super::Interest;

/// Who handles what.
#[derive(Debug)]
pub struct Interests {
    /// What `known` comes to: asked for each event on every shard, hence without the lock.
    effective: AtomicU8,
    // Locked when a process says what it handles, and comes or goes. Nothing else is locked under it.
    known: Mutex<Known>,
}

/// Whose word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The handler script's, in this version of its file.
    Handler(u64),
    /// That of the attached process with this number.
    Attached(u64),
}

#[derive(Debug, Default)]
struct Known {
    /// Only with `realtime.handler`.
    handler: Option<Script>,
    attached: BTreeMap<u64, u8>,
    numbers: u64,
    /// When the last attached process left, and what was handled until then.
    left: Option<(Instant, u8)>,
}

#[derive(Debug, Default)]
struct Script {
    version: u64,
    /// `None` until a request of this version has told.
    bits: Option<u8>,
}

impl Interests {
    /// `handler` tells whether there is a handler script.
    pub fn new(handler: bool) -> Self {
        let known = Known {
            handler: handler.then(Script::default),
            ..Known::default()
        };
        Self {
            effective: AtomicU8::new(known.effective()),
            known: Mutex::new(known),
        }
    }

    /// What is handled at the moment. What is not known counts as handled: nobody gets past a handler that has yet to say
    /// that it is there.
    pub fn effective(&self) -> Interest {
        Interest::from_bits(self.effective.load(Ordering::Acquire))
    }

    /// What a process said.
    pub fn heard(&self, from: Source, bits: u8) {
        let mut known = self.lock();
        match from {
            Source::Handler(version) => {
                if let Some(script) = known.handler.as_mut().filter(|s| s.version == version) {
                    // Only ever more: a script may register handlers for some requests alone.
                    script.bits = Some(script.bits.unwrap_or(0) | bits);
                }
            }
            Source::Attached(number) => {
                if let Some(known) = known.attached.get_mut(&number) {
                    *known = bits;
                }
            }
        }
        self.publish(&known);
    }

    /// Whose word the next request of the handler is.
    pub fn script(&self) -> Option<Source> {
        let known = self.lock();
        let script = known.handler.as_ref()?;
        Some(Source::Handler(script.version))
    }

    /// The handler's file is another one: what was known of it is not.
    pub fn script_changed(&self) {
        let mut known = self.lock();
        if let Some(script) = &mut known.handler {
            script.version += 1;
            script.bits = None;
        }
        self.publish(&known);
    }

    /// A process attaches itself. Gives its number.
    pub fn attach(&self, interest: Interest) -> u64 {
        let mut known = self.lock();
        known.numbers += 1;
        let number = known.numbers;
        known.attached.insert(number, interest.to_bits());
        known.left = None;
        self.publish(&known);
        number
    }

    /// What attached processes handle, or did until the last of them left a moment ago.
    pub fn of_attached(&self) -> Interest {
        let known = self.lock();
        let attached = known.attached.values().fold(0, |all, bits| all | bits);
        let left = known.left.map_or(0, |(_, bits)| bits);
        Interest::from_bits(if known.attached.is_empty() {
            left
        } else {
            attached
        })
    }

    /// Processes that handle `interest` will attach themselves in a moment: until then nobody gets past them.
    pub fn expect(&self, interest: Interest) {
        let mut known = self.lock();
        if known.attached.is_empty() && known.handler.is_none() && interest != Interest::default() {
            known.left = Some((Instant::now(), interest.to_bits()));
            self.publish(&known);
        }
    }

    /// An attached process has left.
    pub fn detach(&self, number: u64) {
        let mut known = self.lock();
        let bits = known.attached.values().fold(0, |all, bits| all | bits);
        if known.attached.remove(&number).is_none() {
            return;
        }
        if known.attached.is_empty() && known.handler.is_none() {
            // It may be back in a moment (a deploy, a crash): until then nobody gets past it.
            known.left = Some((Instant::now(), bits));
        }
        self.publish(&known);
    }

    /// How many processes are attached.
    pub fn attached(&self) -> usize {
        self.lock().attached.len()
    }

    /// Forgets the processes that left before `then`. Says whether there were any.
    pub fn forget_left(&self, then: Instant) -> bool {
        let mut known = self.lock();
        let forgotten = known.left.take_if(|(at, _)| *at < then).is_some();
        self.publish(&known);
        forgotten
    }

    fn publish(&self, known: &Known) {
        self.effective.store(known.effective(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn effective(&self) -> u8 {
        if !self.attached.is_empty() {
            return self.attached.values().fold(0, |all, bits| all | bits);
        }
        match (&self.handler, self.left) {
            (Some(script), _) => script.bits.unwrap_or(Interest::ALL.to_bits()),
            (None, Some((_, bits))) => bits,
            (None, None) => 0,
        }
    }
}
