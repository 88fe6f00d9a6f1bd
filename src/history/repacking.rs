//! Putting what is kept into other memory, close together.
//!
//! Messages that came with a flood lie between what was on its way then, some in each page: they are little, and hold all
//! of its memory. They are copied step by step, so that whoever holds a lock over the history lets go of it in between. What
//! they were copied from is put aside and let go of many at a time: freed one by one, the places would be what the allocator
//! gives for the next copies. Driven by `broker`. Imports `ids` and `message`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::map::MutableKeys;

use super::History;
use super::log::Log;
use crate::ids::Channel;
use crate::message::{Copier, Publication};

/// How many notes a step looks at.
const STEP: usize = 128;
/// After so many bytes it ends sooner.
const STEP_BYTES: usize = 256 << 10;
/// Or after so long: publishers wait for it.
const STEP_TIME: Duration = Duration::from_micros(200);
/// What a message weighs beside its payload, in bytes.
const COST: usize = 512;
/// So much is put aside before it is let go of, in bytes.
const ASIDE: usize = 1 << 20;
/// With no more messages than this, a channel's queue is copied, too.
const SHORT: usize = 128;

/// How far it has come, and what was copied.
#[derive(Debug, Default)]
pub struct Repack {
    /// Which time of this history; none before the first step.
    round: Option<u32>,
    /// The number up to which the messages of the history are done; none when all are.
    after: Option<u64>,
    /// The same of what there is only as the newest of a cache channel.
    pub cached: u64,
    /// The number after which a message came too late for it.
    until: u64,
    /// Copies messages.
    pub copier: Copier,
    aside: Aside,
}

/// What nobody uses any more.
#[derive(Debug, Default)]
struct Aside {
    publications: Vec<Arc<Publication>>,
    names: Vec<Channel>,
    ids: Vec<Box<str>>,
    logs: Vec<Log>,
    bytes: usize,
}

impl Repack {
    /// Puts a message aside that was copied.
    pub fn put_aside(&mut self, publication: Arc<Publication>) {
        self.aside.bytes += COST + Copier::length(&publication.payload);
        self.aside.publications.push(publication);
    }

    /// Whether so much is aside that it is time to let go of it.
    pub fn is_full(&self) -> bool {
        self.aside.bytes >= ASIDE
    }

    /// Lets go of what is aside. Not under a lock.
    pub fn release(&mut self) {
        self.aside = Aside::default();
    }
}

impl History {
    /// Does a step; `false` when none is left. `renewed` is told what was copied, and the copy.
    pub fn repack(
        &mut self,
        repack: &mut Repack,
        mut renewed: impl FnMut(&Arc<Publication>, &Arc<Publication>),
    ) -> bool {
        if repack.round.is_none() {
            self.repacked = self.repacked.wrapping_add(1);
            repack.round = Some(self.repacked);
            repack.after = Some(0);
            repack.until = self.order.back().map_or(0, |(seq, ..)| *seq);
        }
        let Some(after) = repack.after else {
            return false;
        };
        let start = self.order.partition_point(|(seq, ..)| *seq <= after);
        let begin = Instant::now();
        let mut copied = 0;
        for (seq, _, channel) in self.order.range_mut(start..).take(STEP) {
            repack.after = Some(*seq);
            let Some((_, name, log)) = self.channels.get_full_mut2(channel.as_str()) else {
                continue;
            };
            if log.repacked != self.repacked {
                log.repacked = self.repacked;
                let fresh = name.copied();
                repack.aside.names.push(std::mem::replace(name, fresh));
                log.repack_queues(&mut repack.aside);
            }
            *channel = name.clone();
            log.repack_id(*seq, &mut repack.aside);
            if let Some(entry) = log.entry_mut(*seq) {
                copied += COST + Copier::length(&entry.payload);
                let copy = Arc::new(repack.copier.copy(entry, name.clone()));
                renewed(entry, &copy);
                let old = std::mem::replace(entry, copy);
                repack.put_aside(old);
            }
            if copied >= STEP_BYTES || begin.elapsed() > STEP_TIME {
                break;
            }
        }
        let newest = self.order.back().map_or(0, |(seq, ..)| *seq);
        let until = repack.until.min(newest);
        repack.after = repack.after.filter(|after| *after < until);
        true
    }
}

impl Log {
    fn entry_mut(&mut self, seq: u64) -> Option<&mut Arc<Publication>> {
        let place = |entry: &Arc<Publication>| entry.position.seq;
        let found = self.entries.binary_search_by_key(&seq, place).ok()?;
        self.entries.get_mut(found)
    }

    fn repack_id(&mut self, seq: u64, aside: &mut Aside) {
        let found = self.ids_order.binary_search_by_key(&seq, |(of, _)| *of);
        let Some((_, id)) = found.ok().and_then(|found| self.ids_order.get_mut(found)) else {
            return;
        };
        let fresh = id.clone();
        let id = std::mem::replace(id, fresh);
        if let Some((key, own)) = self.ids.remove_entry(&id) {
            self.ids.insert(id.clone(), own);
            aside.ids.push(key);
        }
        aside.bytes += COST;
        aside.ids.push(id);
    }

    /// What holds the entries, where that is so little that it shares its page.
    fn repack_queues(&mut self, aside: &mut Aside) {
        if self.entries.len() > SHORT || self.ids.len() > SHORT {
            return;
        }
        let mut old = Self {
            entries: std::mem::take(&mut self.entries),
            ids: std::mem::take(&mut self.ids),
            ids_order: std::mem::take(&mut self.ids_order),
            ..Self::default()
        };
        // `drain` leaves what held them.
        self.entries = old.entries.drain(..).collect();
        self.ids = old.ids.drain().collect();
        self.ids_order = old.ids_order.drain(..).collect();
        aside.bytes += COST;
        aside.logs.push(old);
    }
}
