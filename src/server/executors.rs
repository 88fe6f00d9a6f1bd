//! The thread that takes events to other PHP processes ([`Workers`](crate::backend::workers)): the FastCGI client lives on it.
//!
//! Imports `backend` and `node`.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::runtime;
use crate::backend::Replies;
use crate::node::Node;

/// A running thread. Dropping it lets what is under way end, for a moment, and joins it.
#[derive(Debug)]
pub struct Executors {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts it, when the events of `node` go to other processes.
pub fn start(node: &Arc<Node>) -> io::Result<Option<Executors>> {
    let Some(workers) = node.workers() else {
        return Ok(None);
    };
    let replies: Arc<dyn Replies> = node.clone();
    workers.reply_through(Arc::downgrade(&replies));
    let (stop, stopped) = watch::channel(false);
    let thread = runtime::thread("handler", node, 1, move || workers.run(stopped))?;
    Ok(Some(Executors {
        stop,
        thread: Some(thread),
    }))
}

impl Drop for Executors {
    fn drop(&mut self) {
        // The thread may have ended by itself, in a panic.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the handler's thread has panicked: a bug in realtime");
        }
    }
}
