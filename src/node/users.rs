//! What concerns users rather than single connections: closing all of one, taking tokens back.

use std::sync::Arc;

use super::{Failure, Node};
use crate::hub;
use crate::message::ConnectionInfo;

/// What a client is told whose token was taken back.
const REVOKED: &str = "the token was revoked";

impl Node {
    /// Closes all connections of a user. Returns how many there were.
    pub fn disconnect(&self, user: &str, code: u16, reason: &str) -> Result<usize, Failure> {
        let user: Arc<str> = user.into();
        self.close_each(code, reason, move |info| info.user() == Some(&user))
    }

    /// Takes back all tokens that a user has got up to now, and closes its connections. Returns how many there were.
    pub fn revoke_user(&self, user: &str) -> Result<usize, Failure> {
        let revoked = self.auth.revoke_user(user);
        let revoked = revoked.map_err(|full| Failure::Refused(full.to_string()))?;
        // First, since the disk may take its time.
        let closed = self.disconnect(user, hub::CLOSE_REVOKED, REVOKED);
        self.keep_revoked(revoked)?;
        closed
    }

    /// Takes back one token, and closes the connections that came with it. Returns how many there were.
    pub fn revoke_token(&self, token: &str) -> Result<usize, Failure> {
        let (grant, revoked) = match self.auth.revoke_token(token) {
            Ok(Ok(revoked)) => revoked,
            Ok(Err(full)) => return Err(Failure::Refused(full.to_string())),
            Err(bad) => return Err(Failure::Refused(bad.to_string())),
        };
        let closed = self.close_each(hub::CLOSE_REVOKED, REVOKED, move |info| {
            let its = info.grant();
            its.is_some_and(|its| its.fingerprint == grant.fingerprint)
        });
        self.keep_revoked(revoked)?;
        closed
    }

    fn close_each(
        &self,
        code: u16,
        reason: &str,
        is_meant: impl Fn(&ConnectionInfo) -> bool + Clone + Send + 'static,
    ) -> Result<usize, Failure> {
        let mut closed = 0;
        for shard in self.shards.iter() {
            let (reason, is_meant) = (reason.to_owned(), is_meant.clone());
            closed += self.ask(shard, move |hub| hub.close_each(code, &reason, is_meant))?;
        }
        Ok(closed)
    }
}
