//! Who is subscribed to what, by name.
//!
//! A connection knows its place in each of its channels' lists, so that it leaves without a search. Imports `ids` and `message`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::Subscription;
use super::{Hub, Subscriber};
use crate::ids::Channel;
use crate::message::ConnectionInfo;

impl Hub {
    /// Subscribes `slot` to `channel` for messages numbered above `after`. `false` when it was already.
    pub fn subscribe(&mut self, slot: usize, channel: &Channel, after: u64) -> bool {
        if self.is_subscribed(slot, channel) {
            return false;
        }
        let (name, index) = match self.channels.get_key_value(channel) {
            Some((name, list)) => (name.clone(), list.len()),
            None => (channel.clone(), 0),
        };
        self.channels
            .entry(name.clone())
            .or_default()
            .push(Subscriber { slot, after });
        self.connections[slot].subscriptions.push(Subscription {
            channel: name,
            index,
        });
        self.shard
            .stats
            .subscriptions
            .fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Ends a subscription. `false` when there was none.
    pub fn unsubscribe(&mut self, slot: usize, channel: &str) -> bool {
        let subscriptions = &mut self.connections[slot].subscriptions;
        let Some(at) = subscriptions
            .iter()
            .position(|s| s.channel.as_str() == channel)
        else {
            return false;
        };
        let subscription = subscriptions.swap_remove(at);
        self.leave(&subscription);
        // What still waits of its past must not come after the client was told, nor twice when it resumes.
        if let Some(replay) = &mut self.connections[slot].replay {
            replay.forget(channel);
        }
        true
    }

    /// Whether `slot` is subscribed to `channel`.
    pub fn is_subscribed(&self, slot: usize, channel: &Channel) -> bool {
        self.connections[slot]
            .subscriptions
            .iter()
            .any(|s| s.channel == *channel)
    }

    /// How many channels `slot` is subscribed to.
    pub fn subscriptions(&self, slot: usize) -> usize {
        self.connections[slot].subscriptions.len()
    }

    /// Every channel that has subscribers here, with their number.
    pub fn channels(&self) -> impl Iterator<Item = (&Channel, usize)> {
        self.channels
            .iter()
            .map(|(channel, list)| (channel, list.len()))
    }

    /// The connections that are subscribed to `channel`.
    pub fn subscribers(&self, channel: &str) -> Vec<Arc<ConnectionInfo>> {
        let list = self.channels.get(channel).map_or(&[][..], Vec::as_slice);
        list.iter()
            .map(|s| self.connections[s.slot].info.clone())
            .collect()
    }

    /// How many connections are subscribed to `channel`.
    pub fn subscriber_count(&self, channel: &str) -> usize {
        self.channels.get(channel).map_or(0, Vec::len)
    }

    /// Takes a subscription out of its channel's list, and the channel when it was the last.
    pub(super) fn leave(&mut self, subscription: &Subscription) {
        self.shard
            .stats
            .subscriptions
            .fetch_sub(1, Ordering::Relaxed);
        let Some(list) = self.channels.get_mut(subscription.channel.as_str()) else {
            return;
        };
        list.swap_remove(subscription.index);
        if list.is_empty() {
            self.channels.remove(subscription.channel.as_str());
            return;
        }
        // The last of the list has moved into the gap.
        if let Some(moved) = list.get(subscription.index) {
            let moved = &mut self.connections[moved.slot].subscriptions;
            if let Some(its) = moved.iter_mut().find(|s| s.channel == subscription.channel) {
                its.index = subscription.index;
            }
        }
    }
}
