//! Looking at a server: its channels, connections, histories and counters. Changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Failure, Node};
use crate::broker::Broker;
use crate::ids::{Channel, Pattern};
use crate::message::{ConnectionInfo, EventName, Payload};
use crate::wire::control::WireStats;

/// A channel with subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its name.
    pub channel: Channel,
    /// How many connections are subscribed.
    pub subscribers: usize,
}

/// A kept message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The id that clients see.
    pub id: String,
    /// Its event name.
    pub event: EventName,
    /// Its content.
    pub payload: Payload,
    /// How long ago it was published.
    pub age: Duration,
}

/// A part of a channel's history, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The messages.
    pub entries: Vec<HistoryEntry>,
    /// Whether nothing is missing after the position asked for.
    pub recovered: bool,
    /// The oldest id that is kept.
    pub oldest: Option<String>,
}

/// The counters of a server.
pub type Stats = WireStats;

impl Node {
    /// The channels that have subscribers and fit `pattern`, by name.
    pub fn channels(&self, pattern: &Pattern) -> Result<Vec<ChannelSummary>, Failure> {
        let mut sums = std::collections::BTreeMap::<Channel, usize>::new();
        for shard in self.shards.iter() {
            let pattern = pattern.clone();
            let part = self.ask(shard, move |hub| {
                hub.channels()
                    .filter(|(channel, _)| pattern.matches(channel.as_str()))
                    .map(|(channel, count)| (channel.clone(), count))
                    .collect::<Vec<_>>()
            })?;
            for (channel, count) in part {
                *sums.entry(channel).or_default() += count;
            }
        }
        let summary = |(channel, subscribers)| ChannelSummary {
            channel,
            subscribers,
        };
        Ok(sums.into_iter().map(summary).collect())
    }

    /// All connections, or those subscribed to `channel`.
    pub fn connections(
        &self,
        channel: Option<&Channel>,
    ) -> Result<Vec<Arc<ConnectionInfo>>, Failure> {
        let mut all = Vec::new();
        for shard in self.shards.iter() {
            match channel.cloned() {
                None => all.extend(shard.connections()),
                Some(channel) => {
                    all.extend(self.ask(shard, move |hub| hub.subscribers(channel.as_str()))?);
                }
            }
        }
        Ok(all)
    }

    /// The newest `limit` messages of a channel, or the first `limit` after `since`.
    pub fn history(
        &self,
        channel: &Channel,
        limit: usize,
        since: Option<&str>,
    ) -> Result<HistoryPage, Failure> {
        let missed = self.broker.history(channel, limit, since);
        let now = Instant::now();
        Ok(HistoryPage {
            recovered: missed.recovered,
            oldest: missed.oldest.map(|publication| publication.public_id()),
            entries: missed
                .publications
                .iter()
                .map(|publication| HistoryEntry {
                    id: publication.public_id(),
                    event: publication.event.clone(),
                    payload: publication.payload.clone(),
                    age: now.saturating_duration_since(publication.at),
                })
                .collect(),
        })
    }

    /// The counters.
    pub fn stats(&self) -> Result<Stats, Failure> {
        let broker = self.broker.stats();
        let load = self.backend.load();
        let mut stats = Stats {
            uptime: self.started.elapsed(),
            pid: std::process::id(),
            address: self.address().to_owned(),
            channels: self.channels(&Pattern::any())?.len(),
            published: broker.published,
            history_messages: broker.history_messages,
            history_bytes: broker.history_bytes,
            shards: self.shards.len(),
            handler_queued: load.queued,
            handler_requests: load.requests,
            handler_retried: load.retried,
            handler_failed: load.failed,
            ..Stats::default()
        };
        for shard in self.shards.iter() {
            for connection in shard.connections() {
                stats.by_transport[connection.transport.index()] += 1;
                stats.connections += 1;
            }
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            stats.connections_total += load(&shard.stats.connections_total);
            stats.delivered += load(&shard.stats.delivered);
            stats.received += load(&shard.stats.received);
            stats.dropped_slow += load(&shard.stats.dropped_slow);
            stats.subscriptions += shard.stats.subscriptions.load(Ordering::Relaxed);
        }
        Ok(stats)
    }
}
