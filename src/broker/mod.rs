//! Where publications get their place and are kept, and from where they come back to every node.
//!
//! Publishing only calls a [`Broker`]; delivery always comes back through [`BrokerEvents`], so that local and remote
//! messages share one path. [`memory`] is the broker of a single hub, [`follow`] lets another hub know what it does. Imports `ids`, `message` and `history`.

pub mod follow;
pub mod memory;

use std::sync::Arc;

use crate::history::Missed;
use crate::ids::{Channel, Position};
use crate::message::{Publication, Publish};

/// What a broker tells a node.
pub trait BrokerEvents: Send + Sync + 'static {
    /// A message was accepted. Called in the order of positions, while the broker holds its lock: hand over
    /// and return.
    fn publication(&self, publication: Arc<Publication>);
}

/// What is after a client's position, and where it stands now: taken in one moment, so that nothing falls between
/// the past and what comes live.
#[derive(Debug)]
pub struct CatchUp {
    /// Live messages with a higher number follow; those up to here are in `missed`.
    pub position: Position,
    /// For each channel asked about, in that order; empty when the client asked for no past.
    pub missed: Vec<Missed>,
}

/// What a broker holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrokerStats {
    /// Messages accepted.
    pub published: u64,
    /// Messages in history.
    pub history_messages: usize,
    /// Bytes of history.
    pub history_bytes: usize,
}

/// A place for publications.
pub trait Broker: Send + Sync + 'static {
    /// Gives the message its place in each of its channels, keeps it, and hands it to every node. Returns the
    /// id of the last.
    fn publish(&self, publish: Publish) -> String;

    /// The position now, and what the channels have after `since` (when given).
    fn catch_up(&self, channels: &[Channel], since: Option<&str>) -> CatchUp;

    /// The newest `limit` messages of a channel, or the first `limit` after `since`, oldest first.
    fn history(&self, channel: &Channel, limit: usize, since: Option<&str>) -> Missed;

    /// Forgets what is too old. Called about once a second.
    fn expire(&self);

    /// The counters.
    fn stats(&self) -> BrokerStats;
}
