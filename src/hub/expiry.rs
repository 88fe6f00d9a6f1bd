//! When the tokens of a shard's connections expire.
//!
//! One entry a connection that has a token: when its time comes, the connection is closed or, if its client has brought a
//! fresh token meanwhile, put back. Imports `auth` and `ids`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::auth::Stamp;
use crate::hub::Hub;
use crate::ids::{Channel, ConnectionId};
use crate::message::ConnectionInfo;

/// Its token has expired: a client that can get a fresh one may come back.
pub const CLOSE_EXPIRED: u16 = 4010;
/// Its token was revoked.
pub const CLOSE_REVOKED: u16 = 4011;

/// What expires when, soonest first.
#[derive(Debug, Default)]
pub(super) struct Expiries(BinaryHeap<Reverse<(Stamp, ConnectionId)>>);

impl Expiries {
    /// Notes a new connection.
    pub(super) fn watch(&mut self, id: ConnectionId, expires: Stamp) {
        self.0.push(Reverse((expires, id)));
    }

    fn next(&mut self, now: Stamp) -> Option<ConnectionId> {
        let Reverse((expires, _)) = self.0.peek()?;
        if *expires > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, id))| id)
    }
}

impl Hub {
    /// Closes the connections whose tokens have expired. Once a second.
    pub fn expire_tokens(&mut self) {
        let now = Stamp::now();
        while let Some(id) = self.expiries.next(now) {
            // One that has ended meanwhile leaves its entry behind until here.
            let Some(registered) = self.shard().connection(id) else {
                continue;
            };
            match registered.info.grant().map(|grant| grant.expires) {
                Some(expires) if expires <= now => {
                    self.close(registered.slot, CLOSE_EXPIRED, "the token has expired");
                }
                Some(expires) => self.expiries.watch(id, expires),
                None => {}
            }
        }
        self.flush_dirty();
    }

    /// Closes every connection for which `is_meant` holds, and is not being closed already. Returns how many.
    pub fn close_each(
        &mut self,
        code: u16,
        reason: &str,
        is_meant: impl Fn(&ConnectionInfo) -> bool,
    ) -> usize {
        let open = |(_, connection): &(usize, &super::Connection)| {
            connection.closing.is_none() && is_meant(&connection.info)
        };
        let meant: Vec<usize> = self
            .connections
            .iter()
            .filter(open)
            .map(|(slot, _)| slot)
            .collect();
        for &slot in &meant {
            self.dismiss(slot, code, reason);
        }
        self.flush_dirty();
        meant.len()
    }

    /// The channels that `slot` is subscribed to and for which `is_meant` holds.
    pub fn channels_of(&self, slot: usize, is_meant: impl Fn(&Channel) -> bool) -> Vec<Channel> {
        self.connections[slot]
            .subscriptions
            .iter()
            .map(|subscription| &subscription.channel)
            .filter(|channel| is_meant(channel))
            .cloned()
            .collect()
    }
}
