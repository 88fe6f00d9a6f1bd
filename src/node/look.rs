//! Looking at a server: its channels, connections, histories and counters. Changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Failure, Node};
use crate::broker::{Broker, Walk};
use crate::history::Missed;
use crate::ids::{Channel, Pattern};
use crate::message::{ConnectionInfo, EventName, Payload, Publication};
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
    /// Whether nothing is missing between the position asked for and these.
    pub recovered: bool,
    /// The oldest id that is kept.
    pub oldest: Option<String>,
    /// Whether there are more that way: newer ones after a position, else older ones.
    pub more: bool,
}

/// The counters of a server.
pub type Stats = WireStats;

impl Node {
    /// How many connections are subscribed to a channel.
    pub fn subscribers(&self, channel: &Channel) -> Result<usize, Failure> {
        let mut sum = 0;
        for shard in self.shards.iter() {
            let channel = channel.clone();
            sum += self.ask(shard, move |hub| hub.subscriber_count(channel.as_str()))?;
        }
        Ok(sum)
    }

    /// The channels that have subscribers and fit `pattern`, by name; without those of one user's own.
    pub fn channels(&self, pattern: &Pattern) -> Result<Vec<ChannelSummary>, Failure> {
        let mut sums = std::collections::BTreeMap::<Channel, usize>::new();
        for shard in self.shards.iter() {
            let pattern = pattern.clone();
            let part = self.ask(shard, move |hub| {
                hub.channels()
                    .filter(|(channel, _)| pattern.matches(channel.as_str()))
                    .filter(|(channel, _)| Channel::user_of(channel.as_str()).is_none())
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

    /// All connections.
    pub fn all_connections(&self) -> Vec<Arc<ConnectionInfo>> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.connections()).collect()
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

    /// The newest `limit` messages of a channel, the first `limit` after a position, or the last before one.
    pub fn history<'a>(
        &self,
        channel: &Channel,
        limit: usize,
        walk: impl Into<Walk<'a>>,
    ) -> Result<HistoryPage, Failure> {
        Ok(page(self.broker.history(channel, limit, walk.into())))
    }

    /// The same for a client: without what is private and not for it.
    pub fn history_for(
        &self,
        client: &ConnectionInfo,
        channel: &Channel,
        limit: usize,
        walk: Walk<'_>,
    ) -> HistoryPage {
        let mut missed = self.broker.history(channel, limit, walk);
        let grant = client.grant();
        let mine = |it: &Arc<Publication>| it.is_open_to(grant.as_deref());
        missed.publications.retain(mine);
        page(missed)
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
            tasks: self.tasks.alive(),
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

fn page(missed: Missed) -> HistoryPage {
    let now = Instant::now();
    HistoryPage {
        recovered: missed.recovered,
        more: missed.more,
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
    }
}
