//! Subscriptions to whatever channel fits a pattern: `*` and templates.
//!
//! Equal patterns of many connections are one, compared once with each channel, which `fitting` remembers. Where there is none,
//! a message costs one look at an empty list more; subscriptions by name are found by name as ever. Bounded by
//! `realtime.max_patterns`. Imports `selector` and `message`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use slab::Slab;

use super::connection::Connection;
use super::fitting::Fitting;
use super::{Hub, Subscriber};
use crate::ids::Channel;
use crate::message::Publication;
use crate::selector::Selector;

/// The patterns of one shard.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// The numbers of the groups, by their patterns.
    numbers: HashMap<Box<str>, u64>,
    groups: BTreeMap<u64, Group>,
    /// The number of the next group. None is given twice.
    next: u64,
    members: HashMap<usize, Member>,
    fitting: Fitting,
}

/// A pattern, and who has it.
#[derive(Debug)]
struct Group {
    pattern: Selector,
    slots: Vec<usize>,
}

/// A connection with patterns.
#[derive(Debug)]
struct Member {
    /// The numbers of their groups.
    groups: Box<[u64]>,
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
        let groups = patterns.iter().map(|its| self.patterns.join(slot, its));
        let groups = groups.collect();
        let subscriptions = &self.shard.stats.subscriptions;
        subscriptions.fetch_add(patterns.len(), Ordering::Relaxed);
        let member = Member {
            groups,
            after,
            strict,
        };
        let before = self.patterns.members.insert(slot, member);
        debug_assert!(before.is_none(), "a connection names its patterns once");
    }

    /// How many different patterns there would be with these.
    pub fn patterns_with(&self, patterns: &[Selector]) -> usize {
        let new = |pattern: &&Selector| !self.patterns.numbers.contains_key(pattern.as_str());
        self.patterns.groups.len() + patterns.iter().filter(new).count()
    }
}

impl Patterns {
    /// Puts `slot` among those who have `pattern`. Returns the number of their group.
    fn join(&mut self, slot: usize, pattern: &Selector) -> u64 {
        let number = *self
            .numbers
            .entry(pattern.as_str().into())
            .or_insert(self.next);
        self.next = self.next.max(number + 1);
        let group = self.groups.entry(number).or_insert_with(|| Group {
            pattern: pattern.clone(),
            slots: Vec::new(),
        });
        group.slots.push(slot);
        number
    }

    /// Ends the subscriptions of `slot`. Returns how many there were.
    pub(super) fn leave(&mut self, slot: usize) -> usize {
        let Some(member) = self.members.remove(&slot) else {
            return 0;
        };
        for number in &member.groups {
            let Some(group) = self.groups.get_mut(number) else {
                continue;
            };
            if let Some(at) = group.slots.iter().position(|&its| its == slot) {
                group.slots.swap_remove(at);
            }
            if group.slots.is_empty() {
                self.numbers.remove(group.pattern.as_str());
                self.groups.remove(number);
            }
        }
        if self.groups.is_empty() {
            self.fitting.clear();
        }
        member.groups.len()
    }

    /// Who follows the publication's channel, but for those who are subscribed to it by name.
    pub(super) fn subscribers(
        &mut self,
        publication: &Publication,
        connections: &Slab<Connection>,
    ) -> Vec<Subscriber> {
        // What is for one user alone is no topic.
        if self.groups.is_empty() || Channel::user_of(publication.channel.as_str()).is_some() {
            return Vec::new();
        }
        // Of an update with several, subscribers are asked which other of them they follow.
        for topic in publication.earlier_topics() {
            self.fitting
                .look_up(topic, &self.groups, self.next, Group::pattern);
        }
        let channel = &publication.channel;
        let fitting = self
            .fitting
            .look_up(channel, &self.groups, self.next, Group::pattern);
        let mut slots = Vec::new();
        let mut groups = 0;
        for group in fitting.iter().filter_map(|number| self.groups.get(number)) {
            slots.extend_from_slice(&group.slots);
            groups += 1;
        }
        if groups > 1 {
            slots.sort_unstable();
            slots.dedup();
        }
        let subscriber = |slot| {
            let member = self.members.get(&slot)?;
            let connection = &connections[slot];
            let wants = !is_subscribed(connection, channel)
                && member.may_see(connection, channel, publication);
            wants.then_some(Subscriber {
                slot,
                after: member.after,
            })
        };
        slots.into_iter().filter_map(subscriber).collect()
    }

    /// Whether `slot`, which follows the publication's channel by name or by pattern, gets it: it may be private, or a copy of
    /// what it gets on another channel.
    pub(super) fn may_have(
        &self,
        slot: usize,
        connection: &Connection,
        publication: &Publication,
    ) -> bool {
        if publication.terms.is_some()
            && !publication.is_open_to(connection.info.grant().as_deref())
        {
            return false;
        }
        let member = self.members.get(&slot);
        let may_see = |topic: &Channel| {
            is_subscribed(connection, topic)
                || member.is_some_and(|its| its.may_see(connection, topic, publication))
        };
        if member.is_some() && !may_see(&publication.channel) {
            return false;
        }
        if !connection.format.wants_one_copy() {
            return true;
        }
        let mut earlier = publication.earlier_topics();
        !earlier.any(|topic| {
            is_subscribed(connection, topic)
                || member.is_some_and(|its| self.has(its, topic)) && may_see(topic)
        })
    }

    /// Whether `topic` fits one of a connection's patterns.
    fn has(&self, member: &Member, topic: &Channel) -> bool {
        if let Some(fitting) = self.fitting.known(topic, self.next) {
            return member
                .groups
                .iter()
                .any(|number| fitting.binary_search(number).is_ok());
        }
        let mut groups = member.groups.iter();
        groups.any(|number| {
            let group = self.groups.get(number);
            group.is_some_and(|group| group.pattern.matches(topic.as_str()))
        })
    }
}

impl Group {
    fn pattern(&self) -> &Selector {
        &self.pattern
    }
}

impl Member {
    /// Whether a connection may have what is on `topic`, one of the publication's, by its patterns.
    fn may_see(&self, connection: &Connection, topic: &Channel, publication: &Publication) -> bool {
        // What is for one user alone is no topic.
        Channel::user_of(topic.as_str()).is_none()
            && (!(self.strict || topic.is_guarded())
                || publication.is_granted(connection.info.grant().as_deref()))
    }
}

fn is_subscribed(connection: &Connection, channel: &Channel) -> bool {
    let mut subscriptions = connection.subscriptions.iter();
    subscriptions.any(|its| its.channel == *channel)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::ids::{ConnectionId, Position};
    use crate::message::{ConnectionInfo, EventName, Payload, Transport};
    use crate::wire::{Body, Format};

    fn follower(hub: &mut Hub, number: usize, pattern: &str) -> usize {
        let info = ConnectionInfo::new(
            ConnectionId::from_bits(number as u128),
            0,
            Transport::Sse,
            "",
            "/",
            std::iter::empty(),
        );
        let slot = hub.add(Arc::new(info), Format::mercure(Body::Chunked), None);
        hub.follow(slot, &[Selector::parse(pattern).unwrap()], 0, false);
        slot
    }

    fn publication(channel: &str, seq: u64) -> Arc<Publication> {
        Arc::new(Publication {
            channel: Channel::parse(channel).unwrap(),
            position: Position { epoch: 1, seq },
            id: None,
            event: EventName::Message,
            payload: Payload::Json("1".into()),
            except: None,
            at: Instant::now(),
            terms: None,
        })
    }

    fn followers(hub: &mut Hub, channel: &str, seq: u64) -> Vec<usize> {
        let publication = publication(channel, seq);
        let found = hub.patterns.subscribers(&publication, &hub.connections);
        let mut slots: Vec<usize> = found.iter().map(|its| its.slot).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_channel_is_compared_once_with_each_pattern_however_many_have_it() {
        let mut hub = Hub::new(Arc::default(), 1 << 20, 0);
        for number in 0..1000 {
            follower(&mut hub, number, "shop/{id}");
        }
        for seq in 1..=100 {
            assert_eq!(followers(&mut hub, "shop/1", seq).len(), 1000);
        }
        assert_eq!(hub.patterns.fitting.compared, 1);
        for number in 1000..1100 {
            follower(&mut hub, number, &format!("shop/{number}/{{id}}"));
        }
        for seq in 101..=200 {
            followers(&mut hub, "shop/1", seq);
        }
        assert_eq!(hub.patterns.fitting.compared, 101);
    }

    #[test]
    fn who_comes_and_goes_is_found_as_by_comparing_all() {
        let mut hub = Hub::new(Arc::default(), 1 << 20, 0);
        let mut seed = 7_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        let mut there: Vec<(usize, Selector)> = Vec::new();
        for step in 0..5000 {
            match random(4) {
                0 => {
                    let template = match random(3) {
                        0 => "*".to_owned(),
                        1 => format!("{{x}}/{}", random(5)),
                        _ => format!("{}/{{x}}", random(5)),
                    };
                    let slot = follower(&mut hub, step, &template);
                    there.push((slot, Selector::parse(&template).unwrap()));
                }
                1 if !there.is_empty() => {
                    let place = random(there.len() as u32) as usize;
                    hub.remove(there.swap_remove(place).0);
                }
                _ => {
                    let channel = format!("{}/{}", random(5), random(5));
                    let fit = there.iter().filter(|(_, its)| its.matches(&channel));
                    let mut expected: Vec<usize> = fit.map(|(slot, _)| *slot).collect();
                    expected.sort_unstable();
                    let found = followers(&mut hub, &channel, step as u64 + 1);
                    assert_eq!(found, expected, "{channel}");
                }
            }
        }
    }
}
