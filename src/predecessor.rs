//! The way from a new hub to the old one, for as long as that still has clients to close: a client that PHP sends to, or
//! lists, may be there.
//!
//! Asked by `control` and `transport` from blocking threads; `control::relay` carries the questions. Imports `wire::control`.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::ids::ConnectionId;
use crate::message::ConnectionInfo;
use crate::wire::control::{self, Request, Response, WireStats};

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

    /// What it says to `request`, which is encoded, when it has a say after what has been found here. Blocks at most for
    /// `patience`.
    pub fn ask(&self, request: &[u8], here: Response, patience: Duration) -> Response {
        let concerned = control::read(request).is_ok_and(|request| concerns(&request, &here));
        if !concerned {
            return here;
        }
        let (answer, answered) = crossbeam_channel::bounded(1);
        let request = Bytes::copy_from_slice(request);
        // It may have gone, or have too much to do: then what is known here is the answer.
        if self.0.try_send(Ask { request, answer }).is_err() {
            return here;
        }
        match answered.recv_timeout(patience) {
            Ok(there) => match control::read(&there) {
                Ok(there) => both(here, there),
                Err(_) => here,
            },
            Err(_) => here,
        }
    }
}

impl Predecessor {
    /// The connection at the old hub that has this key. Blocks at most for `patience`.
    pub fn find(&self, who: ConnectionId, key: u64, patience: Duration) -> Option<ConnectionInfo> {
        let request = postcard::to_stdvec(&Request::Find {
            who: who.to_bits(),
            key,
        })
        .ok()?;
        match self.ask(&request, Response::Connections(Vec::new()), patience) {
            Response::Connections(mut found) => found.pop()?.into_info(),
            _ => None,
        }
    }
}

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
        Request::Find { .. } => matches!(here, Response::Connections(list) if list.is_empty()),
        Request::Publish(_) | Request::History { .. } => false,
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
