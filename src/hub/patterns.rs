//! Subscriptions to whatever channel fits a pattern: `*` and URI templates of the Mercure protocol.
//!
//! Equal patterns of many connections are one, tried once for each message. Where there is none, a message costs one look
//! at an empty list more; subscriptions by name are found by name as ever. Bounded by `realtime.max_patterns`. Imports
//! `selector` and `message`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use slab::Slab;

use super::connection::Connection;
use super::{Hub, Subscriber};
use crate::ids::Channel;
use crate::message::Publication;
use crate::selector::Selector;
use crate::wire::{Flavour, Format};

/// The patterns of one shard.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    groups: HashMap<Box<str>, Group>,
    members: HashMap<usize, Member>,
}

/// A pattern, and who has it.
#[derive(Debug)]
struct Group {
    pattern: Selector,
    slots: Vec<usize>,
}

/// A connection with patterns.
#[derive(Debug)]
pub(super) struct Member {
    patterns: Vec<Selector>,
    after: u64,
    /// Whether each channel must be granted by its token: PHP, which decides about those with a name, cannot be asked.
    strict: bool,
}

impl Hub {
    /// Subscribes `slot` to all channels that fit one of `patterns`, for messages numbered above `after`. If `strict`, to
    /// those alone that its token grants.
    pub fn follow(&mut self, slot: usize, patterns: &[Selector], after: u64, strict: bool) {
        if patterns.is_empty() {
            return;
        }
        for pattern in patterns {
            let group = self.patterns.groups.entry(pattern.as_str().into());
            let group = group.or_insert_with(|| Group {
                pattern: pattern.clone(),
                slots: Vec::new(),
            });
            group.slots.push(slot);
        }
        let subscriptions = &self.shard.stats.subscriptions;
        subscriptions.fetch_add(patterns.len(), Ordering::Relaxed);
        let member = Member {
            patterns: patterns.to_vec(),
            after,
            strict,
        };
        let before = self.patterns.members.insert(slot, member);
        debug_assert!(before.is_none(), "a connection names its patterns once");
    }

    /// How many different patterns there would be with these.
    pub fn patterns_with(&self, patterns: &[Selector]) -> usize {
        let new = |pattern: &&Selector| !self.patterns.groups.contains_key(pattern.as_str());
        self.patterns.groups.len() + patterns.iter().filter(new).count()
    }
}

impl Patterns {
    /// Ends the subscriptions of `slot`. Returns how many there were.
    pub(super) fn leave(&mut self, slot: usize) -> usize {
        let Some(member) = self.members.remove(&slot) else {
            return 0;
        };
        for pattern in &member.patterns {
            let Some(group) = self.groups.get_mut(pattern.as_str()) else {
                continue;
            };
            if let Some(at) = group.slots.iter().position(|&its| its == slot) {
                group.slots.swap_remove(at);
            }
            if group.slots.is_empty() {
                self.groups.remove(pattern.as_str());
            }
        }
        member.patterns.len()
    }

    /// What `slot` follows.
    pub(super) fn of(&self, slot: usize) -> Option<&Member> {
        self.members.get(&slot)
    }

    /// Who follows the publication's channel, but for those who are subscribed to it by name.
    pub(super) fn subscribers(
        &self,
        publication: &Publication,
        connections: &Slab<Connection>,
    ) -> Vec<Subscriber> {
        if self.groups.is_empty() {
            return Vec::new();
        }
        let mut slots = Vec::new();
        let mut groups = 0;
        for group in self.groups.values() {
            if group.pattern.matches(publication.channel.as_str()) {
                slots.extend_from_slice(&group.slots);
                groups += 1;
            }
        }
        if groups > 1 {
            slots.sort_unstable();
            slots.dedup();
        }
        let subscriber = |slot| {
            let member = self.members.get(&slot)?;
            let connection = &connections[slot];
            let wants = !is_subscribed(connection, &publication.channel)
                && member.wants(connection, &publication.channel, publication);
            wants.then_some(Subscriber {
                slot,
                after: member.after,
            })
        };
        slots.into_iter().filter_map(subscriber).collect()
    }
}

impl Member {
    /// Whether `topic`, one of the publication's, is among what it follows and may have.
    fn wants(&self, connection: &Connection, topic: &Channel, publication: &Publication) -> bool {
        // What is for one user alone is no topic.
        Channel::user_of(topic.as_str()).is_none()
            && self.patterns.iter().any(|its| its.matches(topic.as_str()))
            && (!(self.strict || topic.is_guarded())
                || publication.is_granted(connection.info.grant().as_deref()))
    }
}

/// Whether a subscriber of the publication's channel gets it: it may be private, or a copy of what it gets on another
/// channel.
pub(super) fn may_have(
    connection: &Connection,
    member: Option<&Member>,
    publication: &Publication,
) -> bool {
    if publication.terms.is_some() && !publication.is_open_to(connection.info.grant().as_deref()) {
        return false;
    }
    let wants = |topic: &Channel| {
        is_subscribed(connection, topic)
            || member.is_some_and(|member| member.wants(connection, topic, publication))
    };
    if member.is_some() && !wants(&publication.channel) {
        return false;
    }
    let Format::Sse {
        flavour: Flavour::Mercure,
        ..
    } = connection.format
    else {
        return true;
    };
    let earlier = |topic: &&Channel| **topic != publication.channel;
    !publication.topics().iter().take_while(earlier).any(wants)
}

fn is_subscribed(connection: &Connection, channel: &Channel) -> bool {
    let mut subscriptions = connection.subscriptions.iter();
    subscriptions.any(|its| its.channel == *channel)
}
