//! The way from a new hub to the old one, for as long as that still has clients to close: a client that PHP sends to, or
//! lists, may be there.
//!
//! Asked by `control` and `transport` from blocking threads; `control::relay` carries the questions. Imports `wire::control`.

use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::RecvTimeoutError;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::ids::ConnectionId;
use crate::message::ConnectionInfo;
use crate::wire::control::{self, Request, Response, WireFailure, WireStats};

/// Questions that may wait for the old hub.
const ASKS: usize = 256;

/// A question for the old hub.
#[derive(Debug)]
pub struct Ask {
    /// A [`Request`], encoded.
    pub request: Bytes,
    /// Where the answer goes, a [`Response`], encoded.
    pub answer: crossbeam_channel::Sender<Bytes>,
}

/// What the old hub is to be asked.
pub type Asks = mpsc::Receiver<Ask>;

/// The old hub.
#[derive(Clone, Debug)]
pub struct Predecessor(mpsc::Sender<Ask>);

impl Predecessor {
    /// A way, and its end.
    pub fn new() -> (Self, Asks) {
        let (sender, receiver) = mpsc::channel(ASKS);
        (Self(sender), receiver)
    }

    /// Whether it is still there.
    pub fn is_there(&self) -> bool {
        !self.0.is_closed()
    }

    /// What it says to `request`, which is encoded, when it has a say after what has been found or done here. Blocks at most
    /// for `patience`.
    pub fn ask(&self, request: &[u8], here: Response, patience: Duration) -> Response {
        let Ok(asked) = control::read::<Request<'_>>(request) else {
            return here;
        };
        if !concerns(&asked, &here) {
            return here;
        }
        match self.hear(request, patience) {
            // Its clients have gone with it.
            Ok(Response::Failed(WireFailure::Stopped)) | Err(Unheard::Gone) => here,
            Ok(Response::Failed(WireFailure::Refused(why) | WireFailure::Bad(why))) => {
                undone(&asked, here, &why)
            }
            Ok(Response::Failed(_)) => undone(&asked, here, "it is too busy"),
            Ok(there) => both(here, there),
            Err(Unheard::Silent) => undone(&asked, here, "it has not answered in time"),
        }
    }

    fn hear(&self, request: &[u8], patience: Duration) -> Result<Response, Unheard> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let request = Bytes::copy_from_slice(request);
        self.0
            .try_send(Ask { request, answer })
            .map_err(|error| match error {
                TrySendError::Full(_) => Unheard::Silent,
                TrySendError::Closed(_) => Unheard::Gone,
            })?;
        let there = answered
            .recv_timeout(patience)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => Unheard::Silent,
                RecvTimeoutError::Disconnected => Unheard::Gone,
            })?;
        control::read(&there).map_err(|_| Unheard::Silent)
    }
}

/// Why there is no answer.
enum Unheard {
    /// It has too much to do.
    Silent,
    /// It is no longer there.
    Gone,
}

impl Predecessor {
    /// The connection at the old hub that has this key and in whose name a message of `bytes` has come. Blocks at most for
    /// `patience`.
    pub fn find(
        &self,
        who: ConnectionId,
        key: u64,
        bytes: usize,
        patience: Duration,
    ) -> Result<Option<ConnectionInfo>, Busy> {
        let who = who.to_bits();
        let request = postcard::to_stdvec(&Request::Find { who, key, bytes });
        let request = request.expect("numbers always serialize");
        match self.ask(&request, Response::Found(None), patience) {
            Response::Found(found) => Ok(found.and_then(|found| found.into_info())),
            _ => Err(Busy),
        }
    }
}

/// The old hub does not say whether it has a connection, or it has one that has outrun its pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Whether the old hub has a say.
fn concerns(request: &Request<'_>, here: &Response) -> bool {
    match request {
        Request::Send { .. }
        | Request::Subscribe { .. }
        | Request::Unsubscribe { .. }
        | Request::Close { .. } => matches!(here, Response::Done(false)),
        Request::Channels { .. }
        | Request::Connections { .. }
        | Request::Stats
        | Request::Members { .. }
        | Request::Disconnect { .. }
        | Request::RevokeUser { .. }
        | Request::RevokeToken { .. } => true,
        Request::Find { .. } => matches!(here, Response::Found(None)),
        Request::Publish(_) | Request::History { .. } => false,
    }
}

/// The answer when the old hub has failed: who looks gets what is known, but nobody is told that something is done which may
/// not be.
fn undone(request: &Request<'_>, here: Response, why: &str) -> Response {
    match request {
        _ if matches!(here, Response::Failed(_)) => here,
        Request::Channels { .. }
        | Request::Connections { .. }
        | Request::Stats
        | Request::Members { .. }
        | Request::Publish(_)
        | Request::History { .. } => here,
        Request::Find { .. } => Response::Failed(WireFailure::Busy),
        Request::Send { .. }
        | Request::Subscribe { .. }
        | Request::Unsubscribe { .. }
        | Request::Close { .. }
        | Request::Disconnect { .. }
        | Request::RevokeUser { .. }
        | Request::RevokeToken { .. } => Response::Failed(WireFailure::Refused(format!(
            "the old server, which closes its clients one after the other, may not have done it: {why}; what was done at the \
             new one stays done"
        ))),
    }
}

/// One answer of two.
fn both(here: Response, there: Response) -> Response {
    match (here, there) {
        (Response::Done(here), Response::Done(there)) => Response::Done(here || there),
        (Response::Channels(here), Response::Channels(there)) => {
            let mut sums: std::collections::BTreeMap<String, usize> = here.into_iter().collect();
            for (channel, count) in there {
                *sums.entry(channel).or_default() += count;
            }
            Response::Channels(sums.into_iter().collect())
        }
        (Response::Connections(mut here), Response::Connections(there)) => {
            here.extend(there);
            Response::Connections(here)
        }
        (Response::Members(mut here), Response::Members(there)) => {
            // Whoever is there is awaited here; only with which connections is not known.
            for member in &mut here {
                let same = there.iter().find(|its| its.user == member.user);
                member.connections += same.map_or(0, |its| its.connections);
            }
            Response::Members(here)
        }
        (Response::Found(here), Response::Found(there)) => Response::Found(here.or(there)),
        (Response::Count(here), Response::Count(there)) => Response::Count(here + there),
        (Response::Stats(here), Response::Stats(there)) => Response::Stats(sum(here, &there)),
        (here, _) => here,
    }
}

/// The counters of both; what is of the hub itself stays.
fn sum(mut here: WireStats, there: &WireStats) -> WireStats {
    here.connections += there.connections;
    here.connections_total += there.connections_total;
    for (here, there) in here.by_transport.iter_mut().zip(there.by_transport) {
        *here += there;
    }
    here.channels = here.channels.max(there.channels);
    here.subscriptions += there.subscriptions;
    here.delivered += there.delivered;
    here.received += there.received;
    here.dropped_slow += there.dropped_slow;
    here
}

#[cfg(test)]
mod tests {
    use super::*;

    const AN_HOUR: Duration = Duration::from_secs(3600);

    fn encoded(value: &impl serde::Serialize) -> Vec<u8> {
        postcard::to_stdvec(value).unwrap()
    }

    fn revoke() -> Vec<u8> {
        let user = "ada".to_owned();
        encoded(&Request::RevokeUser { user })
    }

    fn failed(response: Response) -> String {
        match response {
            Response::Failed(WireFailure::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_sent_away_may_still_be_at_an_old_hub_that_says_nothing() {
        let (old, _asks) = Predecessor::new();
        let late = old.ask(&revoke(), Response::Count(1), Duration::from_millis(1));
        assert!(failed(late).contains("has not answered"));
        for _ in 1..ASKS {
            old.ask(&revoke(), Response::Count(1), Duration::ZERO);
        }
        let full = old.ask(&revoke(), Response::Count(1), AN_HOUR);
        assert!(failed(full).contains("has not answered"));
        let close = encoded(&Request::Close {
            who: 1,
            code: 4000,
            reason: String::new(),
        });
        failed(old.ask(&close, Response::Done(false), AN_HOUR));
        assert!(matches!(
            old.ask(&close, Response::Done(true), AN_HOUR),
            Response::Done(true)
        ));
    }

    #[test]
    fn what_an_old_hub_fails_to_do_is_told() {
        let (old, mut asks) = Predecessor::new();
        let hub = std::thread::spawn(move || {
            while let Some(ask) = asks.blocking_recv() {
                let failed = Response::Failed(WireFailure::Busy);
                ask.answer.send(encoded(&failed).into()).unwrap();
            }
        });
        failed(old.ask(&revoke(), Response::Count(1), AN_HOUR));
        let here = Response::Failed(WireFailure::Refused("full".into()));
        assert_eq!(failed(old.ask(&revoke(), here, AN_HOUR)), "full");
        let stats = old.ask(&encoded(&Request::Stats), Response::Count(1), AN_HOUR);
        assert!(matches!(stats, Response::Count(1)), "as far as is known");
        drop(old);
        hub.join().unwrap();
    }

    #[test]
    fn with_an_old_hub_its_clients_have_gone() {
        let (old, asks) = Predecessor::new();
        drop(asks);
        let gone = old.ask(&revoke(), Response::Count(1), AN_HOUR);
        assert!(matches!(gone, Response::Count(1)));
        let (old, mut asks) = Predecessor::new();
        let hub = std::thread::spawn(move || drop(asks.blocking_recv()));
        let gone = old.ask(&revoke(), Response::Count(1), AN_HOUR);
        assert!(matches!(gone, Response::Count(1)));
        hub.join().unwrap();
    }
}
