//! The runtime of each of the server's threads: its tasks stay on it, and are counted.
//!
//! Imports `node`.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use super::spawn;
use crate::node::Node;

/// How long files that are being read may hold up the end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Makes one for this thread.
pub fn build(blocking_threads: usize) -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(blocking_threads)
        .thread_name("rt-blocking")
        .build_local(LocalOptions::default())
}

/// Only for what may block: it has no tasks, and no descriptors.
pub fn blocking(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    Builder::new_current_thread()
        .max_blocking_threads(threads)
        .thread_name("rt-blocking")
        .build()
}

/// Starts the thread `rt-…`, and does `work` there, with its runtime. Returns when that is there.
pub fn thread<F: Future<Output = ()>>(
    name: &str,
    node: &Arc<Node>,
    blocking_threads: usize,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (sender, built) = sync_channel(1);
    let (node, own) = (node.clone(), name.to_owned());
    let thread = spawn(&format!("rt-{name}"), move || {
        let runtime = match build(blocking_threads) {
            Ok(runtime) => runtime,
            Err(error) => return drop(sender.send(Err(error))),
        };
        let counted = node.count_tasks(&own, runtime.metrics());
        drop(node);
        // Whoever started it has not gone: it waits for this.
        let _ = sender.send(Ok(()));
        runtime.block_on(work());
        drop(counted);
        runtime.shutdown_timeout(PATIENCE);
    })?;
    let gone = |_| Err(io::Error::other("the thread has ended"));
    built.recv().unwrap_or_else(gone)?;
    Ok(thread)
}
