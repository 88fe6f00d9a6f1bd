//! Who has signed in, and who wants to know of whom: the watchlists.
//!
//! Told by each client when it signs in and when it ends; answers whom to tell what. Imports `ids`.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::ConnectionId;

/// Users on one watchlist.
pub const WATCHLIST_MAX: usize = 100;

/// All of them, over all shards.
#[derive(Debug, Default)]
pub struct Users(
    // Taken when a client signs in and when it ends, for a few look-ups.
    Mutex<HashMap<Box<str>, User>>,
);

#[derive(Debug, Default)]
struct User {
    connections: usize,
    watchers: HashSet<ConnectionId>,
}

/// What a client that has signed in is told of its watchlist.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Those who are there.
    pub online: Vec<String>,
    /// Those who are not.
    pub offline: Vec<String>,
}

impl Users {
    /// A connection has signed in as `user` and watches others. Returns what it sees, and whom to tell that the user is
    /// there now.
    pub fn arrive(
        &self,
        who: ConnectionId,
        user: &str,
        watchlist: &[String],
    ) -> (Seen, Vec<ConnectionId>) {
        let mut users = self.lock();
        let mut seen = Seen::default();
        for watched in watchlist {
            let its = users.entry(watched.as_str().into()).or_default();
            its.watchers.insert(who);
            // Who watches itself is there.
            if its.connections > 0 || watched == user {
                seen.online.push(watched.clone());
            } else {
                seen.offline.push(watched.clone());
            }
        }
        let its = users.entry(user.into()).or_default();
        its.connections += 1;
        let told = if its.connections == 1 {
            its.watchers
                .iter()
                .copied()
                .filter(|it| *it != who)
                .collect()
        } else {
            Vec::new()
        };
        (seen, told)
    }

    /// A connection that had signed in has ended. Returns whom to tell that the user is gone.
    pub fn depart(&self, who: ConnectionId, user: &str, watchlist: &[String]) -> Vec<ConnectionId> {
        let mut users = self.lock();
        for watched in watchlist {
            if let Some(its) = users.get_mut(watched.as_str()) {
                its.watchers.remove(&who);
                if its.connections == 0 && its.watchers.is_empty() {
                    users.remove(watched.as_str());
                }
            }
        }
        let Some(its) = users.get_mut(user) else {
            return Vec::new();
        };
        its.connections = its.connections.saturating_sub(1);
        if its.connections > 0 {
            return Vec::new();
        }
        let told: Vec<ConnectionId> = its.watchers.iter().copied().collect();
        if told.is_empty() {
            users.remove(user);
        }
        told
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, User>> {
        // Nothing under this lock can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_hear_of_the_first_and_the_last_connection() {
        let users = Users::default();
        let who = |number: u128| ConnectionId::from_bits(number);
        let list = ["ada".to_owned(), "bob".to_owned()];
        let (seen, told) = users.arrive(who(1), "eve", &list);
        assert_eq!((seen.online.len(), seen.offline.len()), (0, 2));
        assert!(told.is_empty());
        assert_eq!(users.arrive(who(2), "ada", &[]).1, [who(1)]);
        assert!(users.arrive(who(3), "ada", &[]).1.is_empty());
        let (seen, _) = users.arrive(who(4), "ann", &list);
        assert_eq!(seen.online, ["ada"]);
        assert!(users.depart(who(4), "ann", &list).is_empty());
        assert!(users.depart(who(2), "ada", &[]).is_empty());
        assert_eq!(users.depart(who(3), "ada", &[]), [who(1)]);
        users.depart(who(1), "eve", &list);
        assert!(users.lock().is_empty());
    }
}
