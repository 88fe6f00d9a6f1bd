//! A shard: one thread that owns its connections, reads them, and writes to them.
//!
//! Imports `hub` and `transport`.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};

use super::accept::Accepted;
use super::drain::{self, Leaving};
use super::{Shutdown, runtime};
use crate::hub::{self, Hub, SharedHub};
use crate::node::Node;
use crate::pusher::Pusher;
use crate::tls::Desk;
use crate::transport::{Polls, Shared, http};

/// Accepted sockets that may wait for a shard.
const ACCEPTED: usize = 256;
/// How long clients get to see the end when the server stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running shard.
#[derive(Debug)]
pub struct Running {
    /// Where its sockets go.
    pub sockets: Sender<Accepted>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Waits for its end.
    pub fn join(self) {
        drop(self.sockets);
        if self.thread.join().is_err() {
            tracing::error!("a shard has panicked: a bug in realtime");
        }
    }
}

/// Starts the shard `index` of `node`.
pub fn start(
    index: usize,
    node: Arc<Node>,
    (polls, pusher): (Arc<Polls>, Arc<Pusher>),
    shutdown: Shutdown,
    leaving: Leaving,
) -> io::Result<Running> {
    let (sockets, accepted) = tokio::sync::mpsc::channel(ACCEPTED);
    let name = format!("shard-{index}");
    let counted = node.clone();
    let thread = runtime::thread(&name, &counted, 4, move || {
        let config = node.config();
        let shard = node.shard(index).clone();
        let hub = Hub::new(shard, config.max_backlog, config.compress_min);
        let hub: SharedHub = Rc::new(RefCell::new(hub));
        let shared = Rc::new(Shared {
            node,
            hub,
            shard: index as u8,
            polls,
            pusher,
            leaving,
            desk: Desk::default(),
        });
        serve(shared, accepted, shutdown)
    })?;
    Ok(Running { sockets, thread })
}

async fn serve(shared: Rc<Shared>, mut accepted: Receiver<Accepted>, mut shutdown: Shutdown) {
    let delivery = tokio::task::spawn_local(deliver(shared.hub.clone()));
    let sweeping = tokio::task::spawn_local(sweep(shared.clone()));
    let shedding =
        tokio::task::spawn_local(drain::shed(shared.hub.clone(), shared.leaving.clone()));
    loop {
        tokio::select! {
            next = accepted.recv() => match next {
                Some(Accepted { socket, ip, place }) => {
                    tokio::task::spawn_local(http::serve(shared.clone(), socket, ip, place));
                }
                None => break,
            },
            // An error means that whoever could ask for it has gone: the same.
            _ = shutdown.wait_for(|stop| *stop) => break,
        }
    }
    // What PHP published or answered before it stopped the server comes before the farewell.
    let handed_over = async {
        while shared.hub.borrow().shard().waiting() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let _ = tokio::time::timeout(FAREWELL, handed_over).await;
    shared
        .hub
        .borrow_mut()
        .close_all(1001, "the server is going away");
    let farewell = async {
        while shared
            .hub
            .borrow()
            .shard()
            .stats
            .connections
            .load(std::sync::atomic::Ordering::Relaxed)
            > 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Whoever is still there then sees the connection end without a word.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    shedding.abort();
    delivery.abort();
    sweeping.abort();
}

/// Delivers for as long as the shard lives: a panic in it is a bug of ours, and no reason to fall silent.
async fn deliver(hub: SharedHub) {
    loop {
        match tokio::task::spawn_local(hub::deliver(hub.clone())).await {
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "delivery has panicked: a bug in realtime");
            }
            _ => return,
        }
    }
}

/// Visits every connection once in `realtime.ping_interval`, a part of them each second.
async fn sweep(shared: Rc<Shared>) {
    let parts = shared.node.config().ping_interval.as_secs().max(1) as usize;
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    // After a pause of the whole process, sweeps in a row would leave nobody the time to answer.
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let mut hub = shared.hub.borrow_mut();
        hub.sweep(parts);
        hub.expire_tokens();
    }
}
