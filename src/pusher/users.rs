//! Who has signed in, and who wants to know of whom: the watchlists.
//!
//! Told by each client when it signs in and when it ends; answers whom to tell what. News have numbers, since those of two
//! threads may overtake each other on their way: a watcher hears of a user only what is newer than what it has heard. Imports
//! `ids`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::ConnectionId;

/// Users on one watchlist.
pub const WATCHLIST_MAX: usize = 100;

/// All of them, over all shards.
#[derive(Debug, Default)]
pub struct Users(
    // Taken when a client signs in, when it ends, and before it is told of another, for a few look-ups.
    Mutex<Book>,
);

#[derive(Debug, Default)]
struct Book {
    users: HashMap<Box<str>, User>,
    /// How many news there have been.
    news: u64,
}

#[derive(Debug, Default)]
struct User {
    connections: usize,
    /// With the number of the newest that each has heard of the user.
    watchers: HashMap<ConnectionId, u64>,
}

/// That a user has come or gone, for those who watch it.
#[derive(Debug, Default)]
pub struct News {
    /// Which.
    pub number: u64,
    /// Whom to tell.
    pub watchers: Vec<ConnectionId>,
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
    pub fn arrive(&self, who: ConnectionId, user: &str, watchlist: &[String]) -> (Seen, News) {
        let mut book = self.lock();
        let mut seen = Seen::default();
        let newest = book.news;
        for watched in watchlist {
            let its = book.users.entry(watched.as_str().into()).or_default();
            // What is on its way to others is old to this one.
            its.watchers.insert(who, newest);
            // Who watches itself is there.
            if its.connections > 0 || watched == user {
                seen.online.push(watched.clone());
            } else {
                seen.offline.push(watched.clone());
            }
        }
        let its = book.users.entry(user.into()).or_default();
        its.connections += 1;
        if its.connections > 1 {
            return (seen, News::default());
        }
        let mut news = book.news_of(user);
        news.watchers.retain(|watcher| *watcher != who);
        (seen, news)
    }

    /// A connection that had signed in has ended. Returns whom to tell that the user is gone.
    pub fn depart(&self, who: ConnectionId, user: &str, watchlist: &[String]) -> News {
        let mut book = self.lock();
        for watched in watchlist {
            if let Some(its) = book.users.get_mut(watched.as_str()) {
                its.watchers.remove(&who);
                if its.connections == 0 && its.watchers.is_empty() {
                    book.users.remove(watched.as_str());
                }
            }
        }
        let Some(its) = book.users.get_mut(user) else {
            return News::default();
        };
        its.connections = its.connections.saturating_sub(1);
        if its.connections > 0 {
            return News::default();
        }
        let news = book.news_of(user);
        if news.watchers.is_empty() {
            book.users.remove(user);
        }
        news
    }

    /// Whether `watcher` is to be told the news with this number of `user`: it watches it still, and has heard nothing newer. To
    /// be asked on the watcher's own thread, which tells it then.
    pub fn hears(&self, watcher: ConnectionId, user: &str, number: u64) -> bool {
        let mut book = self.lock();
        let its = book.users.get_mut(user);
        let Some(heard) = its.and_then(|its| its.watchers.get_mut(&watcher)) else {
            return false;
        };
        let is_new = *heard < number;
        *heard = number.max(*heard);
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing under this lock can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn news_of(&mut self, user: &str) -> News {
        self.news += 1;
        let its = self.users.get(user);
        News {
            number: self.news,
            watchers: its.map_or_else(Vec::new, |its| its.watchers.keys().copied().collect()),
        }
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
        assert!(told.watchers.is_empty());
        assert_eq!(users.arrive(who(2), "ada", &[]).1.watchers, [who(1)]);
        assert!(users.arrive(who(3), "ada", &[]).1.watchers.is_empty());
        let (seen, _) = users.arrive(who(4), "ann", &list);
        assert_eq!(seen.online, ["ada"]);
        assert!(users.depart(who(4), "ann", &list).watchers.is_empty());
        assert!(users.depart(who(2), "ada", &[]).watchers.is_empty());
        assert_eq!(users.depart(who(3), "ada", &[]).watchers, [who(1)]);
        users.depart(who(1), "eve", &list);
        assert!(users.lock().users.is_empty());
    }

    /// The user's last connection ends on one thread while a new one begins on another, again and again. Whatever overtakes
    /// what on the way, the last that the watcher is told is true.
    #[test]
    fn what_two_threads_tell_ends_with_the_truth() {
        let who = |number: u128| ConnectionId::from_bits(number);
        for round in 0..2000 {
            let users = Users::default();
            users.arrive(who(1), "eve", &["ada".to_owned()]);
            users.arrive(who(2), "ada", &[]);
            let mailbox = Mutex::new(Vec::new());
            let together = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    together.wait();
                    let news = users.depart(who(2), "ada", &[]);
                    // Time to be overtaken in.
                    std::thread::sleep(std::time::Duration::from_micros(round % 100));
                    mailbox.lock().unwrap().push(("offline", news));
                });
                scope.spawn(|| {
                    together.wait();
                    let (_, news) = users.arrive(who(3), "ada", &[]);
                    mailbox.lock().unwrap().push(("online", news));
                });
            });
            let mut last = "online";
            for (what, news) in mailbox.into_inner().unwrap() {
                assert!(news.watchers.len() < 2);
                if !news.watchers.is_empty() && users.hears(who(1), "ada", news.number) {
                    last = what;
                }
            }
            assert_eq!(last, "online", "in round {round}");
        }
    }

    #[test]
    fn news_that_were_overtaken_are_no_news() {
        let users = Users::default();
        let who = |number: u128| ConnectionId::from_bits(number);
        let list = ["ada".to_owned()];
        users.arrive(who(1), "eve", &list);
        let (_, came) = users.arrive(who(2), "ada", &[]);
        let gone = users.depart(who(2), "ada", &[]);
        let (_, came_again) = users.arrive(who(3), "ada", &[]);
        assert!(users.hears(who(1), "ada", came.number));
        assert!(users.hears(who(1), "ada", came_again.number));
        assert!(!users.hears(who(1), "ada", gone.number));
        // One that has come since has seen it.
        users.arrive(who(4), "ann", &list);
        assert!(!users.hears(who(4), "ada", came_again.number));
        let gone = users.depart(who(3), "ada", &[]);
        users.depart(who(1), "eve", &list);
        assert!(users.hears(who(4), "ada", gone.number));
        assert!(!users.hears(who(1), "ada", gone.number), "it has gone");
    }
}
