//! How much one client may take: its pace ([`Pace`]), and how many connections it may have ([`Counts`]).
//!
//! Used by `server` for sockets and by the transports for connections and what comes over them. Imports `config`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::config::{Proxies, Rate};

/// For how many seconds' worth a client may be ahead of its pace.
const BURST: f64 = 10.0;

/// Two token buckets, for messages and bytes. A client that outruns them is not refused but read later, so that TCP
/// slows it down: nothing that it sends is lost, and nobody else notices.
#[derive(Debug)]
pub struct Pace {
    /// What it has used up of each bucket.
    messages: f64,
    bytes: f64,
    /// When that was so.
    at: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            messages: 0.0,
            bytes: 0.0,
            at: Instant::now(),
        }
    }
}

impl Pace {
    /// Counts what came from the client. Returns how long to wait before anything more is read from it.
    pub fn spend(&mut self, rate: Rate, messages: usize, bytes: usize) -> Option<Duration> {
        if rate.is_none() {
            return None;
        }
        self.spend_at(rate, messages, bytes, Instant::now())
    }

    fn spend_at(
        &mut self,
        rate: Rate,
        messages: usize,
        bytes: usize,
        now: Instant,
    ) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let wait = drain(&mut self.messages, rate.messages, messages, passed).max(drain(
            &mut self.bytes,
            rate.bytes,
            bytes,
            passed,
        ));
        (wait > 0.0).then(|| Duration::from_secs_f64(wait))
    }
}

/// One bucket: lets run out what `passed` seconds allow, puts `amount` in, says how many seconds it is too full by.
fn drain(used: &mut f64, rate: usize, amount: usize, passed: f64) -> f64 {
    if rate == 0 {
        return 0.0;
    }
    let rate = rate as f64;
    *used = (*used - passed * rate).max(0.0) + amount as f64;
    *used / rate - BURST
}

/// How many connections each address or user has at the moment.
#[derive(Debug, Default)]
pub struct Counts {
    // Touched when a connection begins and when it ends.
    by_name: Mutex<HashMap<Box<str>, usize>>,
}

impl Counts {
    /// Counts one more for `name`, for as long as the result lives. `None` when it has `limit` already; 0 is no limit.
    pub fn hold(self: &Arc<Self>, name: &str, limit: usize) -> Option<Held> {
        let mut by_name = self.lock();
        match by_name.get_mut(name) {
            Some(count) if limit > 0 && *count >= limit => return None,
            Some(count) => *count += 1,
            None => {
                by_name.insert(name.into(), 1);
            }
        }
        Some(Held {
            counts: self.clone(),
            name: name.into(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, usize>> {
        // Whole between any two statements.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among those of its address or user.
#[derive(Debug)]
pub struct Held {
    counts: Arc<Counts>,
    name: Box<str>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut by_name = self.counts.lock();
        if let Some(count) = by_name.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                by_name.remove(&self.name);
            }
        }
    }
}

/// Whether the connections of `address` are counted: not those of a proxy, which has the connections of all its clients,
/// and not those of a Unix socket, which all have the same one.
pub fn is_counted(address: &str, proxies: &Proxies) -> bool {
    !address.is_empty() && !proxies.trusts(address)
}

/// Whose an address is: of IPv6 the /64 network, of which one client has all addresses.
pub fn owner(address: &str) -> Box<str> {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}/64").into()
        }
        _ => address.into(),
    }
}

/// A socket's place among all, and among those of its address; free again when the socket is closed.
#[derive(Debug)]
pub struct Place {
    _among_all: OwnedSemaphorePermit,
    _of_address: Held,
}

impl Place {
    /// One that is taken.
    pub fn new(among_all: OwnedSemaphorePermit, of_address: Held) -> Self {
        Self {
            _among_all: among_all,
            _of_address: of_address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let rate = Rate {
            messages: 10,
            bytes: 0,
        };
        let mut pace = Pace::default();
        let now = pace.at;
        for _ in 0..100 {
            assert_eq!(pace.spend_at(rate, 1, 1 << 30, now), None);
        }
        let wait = |pace: &mut Pace, now| pace.spend_at(rate, 1, 0, now).unwrap_or_default();
        assert_eq!(wait(&mut pace, now), Duration::from_millis(100));
        let later = now + Duration::from_secs(2);
        assert_eq!(wait(&mut pace, later), Duration::ZERO);
        // An hour of silence saves up no more than the burst.
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(
            pace.spend_at(rate, 101, 0, much_later),
            Some(Duration::from_millis(100))
        );
    }

    #[test]
    fn bytes_count_by_themselves() {
        let rate = Rate {
            messages: 0,
            bytes: 1000,
        };
        let mut pace = Pace::default();
        let now = pace.at;
        assert_eq!(pace.spend_at(rate, 1, 10_000, now), None);
        assert_eq!(
            pace.spend_at(rate, 1, 500, now),
            Some(Duration::from_millis(500))
        );
    }

    #[test]
    fn places_are_free_again() {
        let counts = Arc::new(Counts::default());
        let first = counts.hold("a", 2).unwrap();
        let _second = counts.hold("a", 2).unwrap();
        assert!(counts.hold("a", 2).is_none());
        assert!(counts.hold("b", 2).is_some());
        drop(first);
        assert!(counts.hold("a", 2).is_some());
        assert_eq!(counts.lock().len(), 1);
    }

    #[test]
    fn one_network_of_ipv6_is_one_owner() {
        assert_eq!(owner("2001:db8:1:2:3::4"), owner("2001:db8:1:2:ffff::1"));
        assert_ne!(owner("2001:db8:1:2::1"), owner("2001:db8:1:3::1"));
        assert_eq!(&*owner("192.0.2.1"), "192.0.2.1");
    }
}
