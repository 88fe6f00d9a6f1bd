//! Where a loop's events come from: the server in this process, or the one that it is attached to.
//!
//! Imports `link`, `attached`, `work` and `handlers`.

use std::os::fd::RawFd;
use std::rc::Rc;

use super::attached::{self, Attached};
use super::fault::Fault;
use super::handlers;
use super::link;
use super::server_here::{self, Here};
use super::work::Work;
use crate::config::ListenAddress;

/// See the module.
pub enum Source {
    /// In this process.
    Here(Here),
    /// In another one.
    Attached(Rc<Attached>),
}

impl Source {
    /// What there is already.
    pub fn current() -> Option<Self> {
        match link::here() {
            Some(here) => Some(Self::Here(here)),
            None => attached::current().map(Self::Attached),
        }
    }

    /// What there is, or the server that can be attached to. `None`: there is none.
    pub fn find() -> Result<Option<Self>, Fault> {
        match link::here() {
            Some(here) => Ok(Some(Self::Here(here))),
            None => Ok(attached::attach()
                .map_err(Fault::realtime)?
                .map(Self::Attached)),
        }
    }

    /// Starts the server in this process, and tells it what is handled.
    pub fn start(address: Option<ListenAddress>) -> Result<Here, Fault> {
        if attached::current().is_some() {
            return Err(Fault::realtime(
                "this process handles the events of a realtime server in another process, so it cannot be one",
            ));
        }
        let here = server_here::start(address).map_err(Fault::realtime)?;
        here.queue.set_interest(handlers::interest());
        Ok(here)
    }

    /// Whether a fork has copied this into a child: then nothing of it may be touched.
    pub fn is_inherited(&self) -> bool {
        match self {
            Self::Here(here) => here.is_inherited(),
            Self::Attached(attached) => attached.is_inherited(),
        }
    }

    /// Readable when there is something to do.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::Here(here) => here.queue.fd(),
            Self::Attached(attached) => attached.fd(),
        }
    }

    /// Takes up what has come, so that the descriptor is unreadable until more does. Call it BEFORE the last
    /// [`Source::pop`]: then no event is left behind unseen.
    pub fn clear(&self) {
        match self {
            Self::Here(here) => here.queue.clear(),
            Self::Attached(attached) => attached.clear(),
        }
    }

    /// The next event.
    pub fn pop(&self) -> Option<Work> {
        match self {
            Self::Here(here) => here.queue.pop().map(|event| Work::here(here, event)),
            Self::Attached(attached) => attached.pop(),
        }
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        match self {
            Self::Here(here) => here.queue.len(),
            Self::Attached(attached) => attached.len(),
        }
    }

    /// Makes the descriptor readable for what was left.
    pub fn signal_rest(&self) {
        if self.is_inherited() || self.len() == 0 {
            return;
        }
        match self {
            Self::Here(here) => here.queue.signal(),
            Self::Attached(attached) => attached.signal(),
        }
    }

    /// An event has been handled, or with `last` all that there is time for.
    pub fn handled(&self, last: bool) {
        if let Self::Attached(attached) = self {
            attached.tell(last);
        }
    }
}
