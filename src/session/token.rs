//! A connection's token after the handshake: refreshed, expiring, revoked.
//!
//! Imports `auth` and `hub`.

use std::sync::Arc;

use super::{Session, unsubscribe_for_php};
use crate::auth::BadToken;
use crate::hub;

impl Session {
    /// Closes it if its token was taken back.
    pub(super) fn check_revoked(&self) {
        let revocations = self.node().auth().revocations();
        let grant = self.info().grant();
        if grant.is_some_and(|grant| revocations.is_revoked(&grant)) {
            let mut hub = self.hub().borrow_mut();
            hub.close(self.slot(), hub::CLOSE_REVOKED, "the token was revoked");
        }
    }

    /// Goes on with a fresh token. Returns how many seconds are left.
    pub fn refresh(&self, token: &str) -> Result<u64, BadToken> {
        let grant = Arc::new(self.node().auth().check(token)?);
        let info = self.info();
        if info.grant().is_none() || info.user() != grant.user.as_deref() {
            return Err(BadToken::OtherUser);
        }
        let before = info.refresh(grant.clone());
        self.check_revoked();
        let mut hub = self.hub().borrow_mut();
        // What only the token before has opened is closed again.
        let lost = hub.channels_of(self.slot(), |channel| {
            let was = before
                .as_ref()
                .is_some_and(|its| its.opens(channel.as_str()));
            channel.is_guarded() && was && !grant.opens(channel.as_str())
        });
        for channel in lost {
            unsubscribe_for_php(self.node(), &mut hub, self.slot(), &channel);
        }
        Ok(grant.expires.left().as_secs())
    }

    /// In how many seconds its token expires, if it has one.
    pub fn expires(&self) -> Option<u64> {
        let grant = self.info().grant()?;
        Some(grant.expires.left().as_secs())
    }
}
