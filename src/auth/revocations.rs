//! What `rt_revoke()` has taken back, until it would have expired anyhow.
//!
//! Looked at when a token is checked, written by `rt_revoke()`. Imports nothing of this crate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::grant::{Grant, Stamp};

/// Revoked tokens and users. Bounded by `realtime.max_revocations`.
#[derive(Debug)]
pub struct Revocations {
    // Held for one look or one change, by any thread; nothing is called under it.
    lists: Mutex<Lists>,
    /// Mostly there is none, and then nobody need lock anything.
    any: AtomicBool,
    limit: usize,
}

/// What is revoked, as a new server takes it over from an old one.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Lists {
    /// Tokens by fingerprint, each with when it expires.
    tokens: HashMap<[u8; 16], Stamp>,
    /// Users: tokens made up to the first moment are revoked; at the second the last of them has expired.
    users: HashMap<Box<str>, (Stamp, Stamp)>,
}

/// No more can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more is revoked already than realtime.max_revocations allows to remember")]
pub struct Full;

impl Revocations {
    /// None yet; at most `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            lists: Mutex::default(),
            any: AtomicBool::new(false),
            limit,
        }
    }

    /// Whether this token was revoked.
    pub fn is_revoked(&self, grant: &Grant) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let lists = self.lock();
        lists.tokens.contains_key(&grant.fingerprint)
            || grant
                .user
                .as_ref()
                .and_then(|user| lists.users.get(user))
                .is_some_and(|&(until, _)| grant.may_be_from(until))
    }

    /// Revokes one token, which expires at `expires`.
    pub fn revoke_token(&self, fingerprint: [u8; 16], expires: Stamp) -> Result<Lists, Full> {
        let mut lists = self.lock();
        if lists.len() >= self.limit && !lists.tokens.contains_key(&fingerprint) {
            return Err(Full);
        }
        lists.tokens.insert(fingerprint, expires);
        self.any.store(true, Ordering::SeqCst);
        Ok(Lists {
            tokens: HashMap::from([(fingerprint, expires)]),
            ..Lists::default()
        })
    }

    /// Revokes all tokens of `user` issued up to `issued`; `expired` is when the last of them has expired.
    pub fn revoke_user(&self, user: &str, issued: Stamp, expired: Stamp) -> Result<Lists, Full> {
        let mut lists = self.lock();
        if lists.len() >= self.limit && !lists.users.contains_key(user) {
            return Err(Full);
        }
        lists.users.insert(user.into(), (issued, expired));
        self.any.store(true, Ordering::SeqCst);
        Ok(Lists {
            users: HashMap::from([(user.into(), (issued, expired))]),
            ..Lists::default()
        })
    }

    /// Forgets what has expired.
    pub fn expire(&self, now: Stamp) {
        if !self.any.load(Ordering::SeqCst) {
            return;
        }
        let mut lists = self.lock();
        lists.tokens.retain(|_, expires| *expires >= now);
        lists.users.retain(|_, (_, expired)| *expired >= now);
        self.any.store(lists.len() > 0, Ordering::SeqCst);
    }

    /// All of it, for a server that takes over.
    pub fn lists(&self) -> Lists {
        self.lock().clone()
    }

    /// Takes over what another server knew.
    pub fn adopt(&self, lists: Lists) {
        let mut own = self.lock();
        own.tokens.extend(lists.tokens);
        for (user, theirs) in lists.users {
            let known = own.users.entry(user).or_insert(theirs);
            // The later word of the two.
            *known = (known.0.max(theirs.0), known.1.max(theirs.1));
        }
        self.any.store(own.len() > 0, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        // The lists are whole between any two statements.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    /// The same in parts of at most `size` entries.
    pub fn parts(self, size: usize) -> Vec<Self> {
        let mut parts = vec![Self::default()];
        for entry in self
            .tokens
            .into_iter()
            .map(Ok)
            .chain(self.users.into_iter().map(Err))
        {
            if parts.last().is_some_and(|part| part.len() >= size) {
                parts.push(Self::default());
            }
            let part = parts.last_mut().expect("there is one from the beginning");
            match entry {
                Ok((token, expires)) => drop(part.tokens.insert(token, expires)),
                Err((user, when)) => drop(part.users.insert(user, when)),
            }
        }
        parts
    }

    /// By what each entry is known, and when it expires.
    pub fn keys(&self) -> impl Iterator<Item = (&[u8], Stamp)> {
        let tokens = self
            .tokens
            .iter()
            .map(|(token, expires)| (&token[..], *expires));
        let users = self.users.iter();
        tokens.chain(users.map(|(user, (_, expires))| (user.as_bytes(), *expires)))
    }

    fn len(&self) -> usize {
        self.tokens.len() + self.users.len()
    }
}
