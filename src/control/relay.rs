//! While an old hub closes its clients: the new one tells it of every publication, and asks it about connections
//! that are still there.
//!
//! [`run`] is the new hub's end of the link, [`follow`] the old one's; [`both`] puts two answers together. All of it runs
//! on the control thread. Imports `node` and `wire`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::handover::{BATCH, Link};
use super::server::answer;
use crate::broker::follow::Feed;
use crate::node::Node;
use crate::wire::control::{Request, Response, WireStats};
use crate::wire::handover::{Part, Said};

/// Questions that may wait for the old hub.
const ASKS: usize = 256;

/// A question for the old hub, and where its answer goes.
#[derive(Debug)]
pub struct Ask {
    request: Request,
    answer: oneshot::Sender<Response>,
}

/// The way to the old hub.
#[derive(Clone, Debug)]
pub struct Predecessor(mpsc::Sender<Ask>);

/// What the old hub is to be asked, for [`run`].
pub type Asks = mpsc::Receiver<Ask>;

impl Predecessor {
    /// A way, and its end.
    pub fn new() -> (Self, Asks) {
        let (sender, receiver) = mpsc::channel(ASKS);
        (Self(sender), receiver)
    }

    /// Whether the old hub is still there.
    pub fn is_there(&self) -> bool {
        !self.0.is_closed()
    }

    /// Asks it. `None` when it has gone.
    pub async fn ask(&self, request: Request) -> Option<Response> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask { request, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// Tells the old hub of what `feed` brings, and asks it what `asks` bring, until it has gone.
pub async fn run(mut link: Link, mut feed: Feed, mut asks: Asks) {
    let mut pending = HashMap::new();
    let mut number = 0;
    let ended = async {
        loop {
            tokio::select! {
                notes = feed.next(BATCH) => {
                    let notes = notes.ok_or_else(|| {
                        io::Error::other("the old server takes too slowly and closes its clients all at once")
                    })?;
                    link.notes(&notes).await?;
                }
                Some(Ask { request, answer }) = asks.recv() => {
                    number += 1;
                    pending.insert(number, answer);
                    link.tell(&Part::Ask { number, request }).await?;
                }
                said = link.next() => match said {
                    Some(Said::Part(Part::Answer { number, response })) => {
                        if let Some(answer) = pending.remove(&number) {
                            // Whoever asked may have given up.
                            let _ = answer.send(response);
                        }
                    }
                    Some(other) => return Err(io::Error::other(format!("{other:?} in place of an answer"))),
                    None => return Ok(()),
                },
            }
        }
    };
    match ended.await {
        Ok(()) => tracing::info!("the old server has closed its last client"),
        Err::<(), io::Error>(error) => tracing::warn!(%error, "no longer linked to the old server"),
    }
}

/// Does what the new hub says, until it has gone: then publications are missing from here on.
pub async fn follow(mut link: Link, node: Arc<Node>) {
    let (sender, mut answers) = mpsc::channel::<Part>(ASKS);
    loop {
        tokio::select! {
            said = link.next() => match said {
                Some(Said::Part(Part::Notes(notes))) => {
                    for note in notes {
                        if let Err(error) = node.inject(note) {
                            tracing::error!(%error, "the new server sent a message that cannot be");
                            return;
                        }
                    }
                    // A burst for a hundred thousand clients must leave the thread to others now and then.
                    tokio::task::yield_now().await;
                }
                Some(Said::Part(Part::Ask { number, request })) => {
                    let (node, sender) = (node.clone(), sender.clone());
                    tokio::task::spawn_local(async move {
                        let response = answer(&node, request).await;
                        // The link may have ended.
                        let _ = sender.send(Part::Answer { number, response }).await;
                    });
                }
                Some(other) => {
                    tracing::error!(?other, "the new server said what makes no sense");
                    return;
                }
                None => return,
            },
            Some(part) = answers.recv() => {
                if let Err(error) = link.tell(&part).await {
                    tracing::debug!(%error, "the link to the new server ended");
                    return;
                }
            }
        }
    }
}

/// Whether the old hub has a say in this, after what has been found here.
pub fn concerns(request: &Request, here: &Response) -> bool {
    match request {
        Request::Send { .. }
        | Request::Subscribe { .. }
        | Request::Unsubscribe { .. }
        | Request::Close { .. } => matches!(here, Response::Done(false)),
        Request::Channels { .. } | Request::Connections { .. } | Request::Stats => true,
        Request::Publish(_) | Request::History { .. } => false,
    }
}

/// One answer of two.
pub fn both(here: Response, there: Option<Response>) -> Response {
    match (here, there) {
        (Response::Done(here), Some(Response::Done(there))) => Response::Done(here || there),
        (Response::Channels(here), Some(Response::Channels(there))) => {
            let mut sums: std::collections::BTreeMap<String, usize> = here.into_iter().collect();
            for (channel, count) in there {
                *sums.entry(channel).or_default() += count;
            }
            Response::Channels(sums.into_iter().collect())
        }
        (Response::Connections(mut here), Some(Response::Connections(there))) => {
            here.extend(there);
            Response::Connections(here)
        }
        (Response::Stats(here), Some(Response::Stats(there))) => {
            Response::Stats(sum(here, &there))
        }
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
