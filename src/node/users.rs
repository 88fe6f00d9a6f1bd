//! What concerns users rather than single connections: closing all of one, taking tokens back.

use std::sync::Arc;

use super::clients::pose;
use super::{Failure, Node};
use crate::auth::{Full, Lists};
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
        // First, since the disk may take its time, and also where it cannot be remembered: better sent away than not even that.
        let closed = self.disconnect(user, hub::CLOSE_REVOKED, REVOKED);
        self.remember(revoked, closed)
    }

    /// Takes back one token, and closes the connections that came with it. Returns how many there were.
    pub fn revoke_token(&self, token: &str) -> Result<usize, Failure> {
        let (grant, revoked) = self
            .auth
            .revoke_token(token)
            .map_err(|bad| Failure::Refused(bad.to_string()))?;
        let closed = self.close_each(hub::CLOSE_REVOKED, REVOKED, move |info| {
            let its = info.grant();
            its.is_some_and(|its| its.fingerprint == grant.fingerprint)
        });
        self.remember(revoked, closed)
    }

    /// Keeps what was revoked, if there was room for it. Returns how many connections were closed.
    fn remember(
        &self,
        revoked: Result<Lists, Full>,
        closed: Result<usize, Failure>,
    ) -> Result<usize, Failure> {
        match revoked {
            Ok(revoked) => {
                self.keep_revoked(revoked)?;
                closed
            }
            Err(full) => Err(Failure::Refused(format!(
                "{full}: what was to be revoked can be used again (connections were closed: {})",
                closed?
            ))),
        }
    }

    fn close_each(
        &self,
        code: u16,
        reason: &str,
        is_meant: impl Fn(&ConnectionInfo) -> bool + Clone + Send + 'static,
    ) -> Result<usize, Failure> {
        // All of them before the first is waited for: one that is late must not keep the others from it.
        let posed = self.shards.iter().map(|shard| {
            let (reason, is_meant) = (reason.to_owned(), is_meant.clone());
            pose(shard, move |hub| hub.close_each(code, &reason, is_meant))
        });
        let posed: Vec<_> = posed.collect();
        posed.iter().map(|its| self.await_answer(its)).sum()
    }
}
