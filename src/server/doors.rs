//! Both doors of a server, for clients and for other processes, opened and closed together.
//!
//! Closed doors keep their sockets: whoever knocks waits in the kernel's backlog for whoever opens next, this hub or
//! another. Runs on the control thread. Imports `control`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::accept::{self, Accepted, SPARE};
use super::listen::Listener;
use crate::control::election::{Elected, NotElected};
use crate::control::server::{self, Desks};
use crate::limits::Counts;
use crate::node::Node;

/// How long a process may take to finish the request that it is sending when the doors close.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// What the doors need.
#[derive(Debug)]
pub struct Doors {
    /// For clients.
    pub clients: Rc<Listener>,
    /// For other processes.
    pub control: Rc<Elected>,
    /// Where clients go.
    pub shards: Vec<Sender<Accepted>>,
    /// Where links go.
    pub desks: Desks,
    /// The server.
    pub node: Arc<Node>,
    places: Arc<Semaphore>,
    addresses: Arc<Counts>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    closed: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    control: Control,
}

/// The one for other processes.
#[derive(Debug)]
struct Control {
    closed: watch::Sender<bool>,
    greeting: JoinHandle<io::Result<()>>,
}

impl Doors {
    /// Closed ones.
    pub fn new(
        clients: Listener,
        control: Rc<Elected>,
        shards: Vec<Sender<Accepted>>,
        desks: Desks,
        node: Arc<Node>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(node.config().max_connections + SPARE));
        Self {
            clients: Rc::new(clients),
            control,
            shards,
            desks,
            node,
            places,
            addresses: Arc::default(),
            open: None,
        }
    }

    /// Opens both.
    pub fn open(&mut self) -> io::Result<()> {
        let (closed, closing) = watch::channel(false);
        self.open = Some(Open {
            closed,
            control: self.greet()?,
            accepting: self.accept(self.clients.clone(), closing, false),
        });
        Ok(())
    }

    /// Looks whether the control socket can still be found, and puts it back if not. To be called now and then.
    pub fn look_after(&mut self) -> Result<(), NotElected> {
        if self.open.is_none() || !self.control.restore(self.node.config())? {
            return Ok(());
        }
        let system = |error| NotElected::System {
            socket: self.node.config().socket.clone(),
            error,
        };
        let control = self.greet().map_err(system)?;
        if let Some(open) = &mut self.open {
            // The links that it has greeted stay; nobody finds its socket any more.
            let _ = std::mem::replace(&mut open.control, control)
                .closed
                .send(true);
        }
        tracing::warn!(
            "the control socket {} (realtime.socket) had been removed and is back: keep cleaners of temporary files away from it",
            self.node.config().socket.display()
        );
        Ok(())
    }

    /// Whether they are open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Accepts clients at another address, too, for so long.
    pub fn accept_at(&self, listener: Listener, during: Duration) {
        let (closed, closing) = watch::channel(false);
        let accepting = self.accept(Rc::new(listener), closing, true);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(during).await;
            let _ = closed.send(true);
            let _ = accepting.await;
        });
    }

    /// Closes both. Whoever was let in is with those who serve them then, and no request of another process is under way.
    pub async fn close(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        // They may have ended by themselves.
        let _ = open.closed.send(true);
        let _ = open.accepting.await;
        let _ = open.control.closed.send(true);
        if let Ok(ended) = open.control.greeting.await {
            ended?;
        }
        let finished = self.desks.links.finish(LAST_REQUEST).await;
        finished.map_err(|_| io::Error::other("the links' thread has ended"))
    }

    /// Closes both at once, whoever is at them.
    pub async fn slam(&mut self) {
        if let Some(open) = self.open.take() {
            open.accepting.abort();
            open.control.greeting.abort();
            let _ = open.accepting.await;
            let _ = open.control.greeting.await;
        }
    }

    /// Whether every client's socket is closed.
    pub fn is_empty(&self) -> bool {
        self.places.available_permits() == self.node.config().max_connections + SPARE
    }

    fn greet(&self) -> io::Result<Control> {
        let (closed, closing) = watch::channel(false);
        let listener = self.control.listener.try_clone()?;
        let greeting = server::run(listener, self.node.clone(), self.desks.clone(), closing);
        Ok(Control {
            closed,
            greeting: tokio::task::spawn_local(greeting),
        })
    }

    fn accept(
        &self,
        listener: Rc<Listener>,
        closing: watch::Receiver<bool>,
        to_the_last: bool,
    ) -> JoinHandle<()> {
        tokio::task::spawn_local(accept::run(
            listener,
            self.shards.clone(),
            self.places.clone(),
            self.addresses.clone(),
            self.node.config().clone(),
            closing,
            to_the_last,
        ))
    }
}
