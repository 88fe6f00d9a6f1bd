//! Where publications get their place and are kept, and from where they come back to every node.
//!
//! Publishing only calls a [`Broker`]; delivery always comes back through [`BrokerEvents`], so that local and remote
//! messages share one path. [`memory`] is the broker of a single hub, [`follow`] lets another hub know what it does,
//! [`recall`] looks through all channels without holding up others. Imports `ids`,
//! `message`, `history` and `store`.

pub mod follow;
pub mod memory;
pub mod recall;

use std::sync::Arc;

use self::recall::Recall;
use crate::history::{Missed, Repack, Wanted};
use crate::ids::{Channel, Position};
use crate::message::{Publication, Publish};
use crate::store::{NotStored, Receipt};

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
    /// The newest message of each cache channel of which the client has nothing, in the order of numbers.
    pub cached: Vec<Arc<Publication>>,
}

/// From where on a client wants what it has missed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Since<'a> {
    /// The newest id that it has; none when it has nothing yet.
    pub id: Option<&'a str>,
    /// The channels of which it has nothing all the same: `id` does not hold for these.
    pub except: &'a [Channel],
}

/// What has become of a message.
#[derive(Debug)]
pub enum Published {
    /// It is on its way.
    Done {
        /// The id of the last, where there are several channels; of the first when these are an update's topics.
        id: String,
        /// What has to come true before its publisher may be told so.
        receipt: Option<Receipt>,
    },
    /// The disk is behind: these channels are left to be published to as soon as there is room again.
    NoRoom(Publish),
    /// The disk does not take anything.
    Refused(NotStored),
    /// Another broker gives the numbers, or nothing is kept any more that should be: nothing was done.
    Elsewhere,
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

/// Which part of a channel's history.
#[derive(Clone, Copy, Debug)]
pub enum Walk<'a> {
    /// The newest messages.
    Newest,
    /// The first after that with this id.
    After(&'a str),
    /// The last before it.
    Before(&'a str),
}

impl<'a> From<Option<&'a str>> for Walk<'a> {
    fn from(since: Option<&'a str>) -> Self {
        since.map_or(Self::Newest, Self::After)
    }
}

/// A place for publications.
pub trait Broker: Send + Sync + 'static {
    /// Gives the message its place in each of its channels, keeps it, and hands it to every node.
    fn publish(&self, publish: Publish) -> Published;

    /// The position now, and what the channels have after `since`.
    fn catch_up(&self, channels: &[Channel], since: Since<'_>) -> CatchUp;

    /// A step of what a client has missed on all channels that are wanted; `false` when there is none left.
    fn recall(&self, wanted: Wanted<'_>, recall: &mut Recall) -> bool;

    /// The position now.
    fn position(&self) -> Position;

    /// At most `limit` messages of a channel, oldest first.
    fn history(&self, channel: &Channel, limit: usize, walk: Walk<'_>) -> Missed;

    /// Forgets what is too old. Called about once a second.
    fn expire(&self);

    /// A step of putting what is kept into other memory; `false` when there is none left.
    fn repack(&self, repack: &mut Repack) -> bool;

    /// The counters.
    fn stats(&self) -> BrokerStats;
}
