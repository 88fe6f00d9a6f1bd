//! How many tasks the server's threads have, as their runtimes count them: what a client leaves behind is seen here.
//!
//! Written by `server` when a thread begins and ends, read for the statistics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::RuntimeMetrics;

/// The runtimes by the name of their thread.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    // Held for one look or one change, by any thread; nothing is called under it but a counter's reading.
    runtimes: Mutex<BTreeMap<String, RuntimeMetrics>>,
}

/// A thread whose tasks are counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    node: Arc<super::Node>,
    name: String,
}

impl super::Node {
    /// Counts the tasks of a thread.
    pub fn count_tasks(self: &Arc<Self>, name: &str, runtime: RuntimeMetrics) -> Counted {
        self.tasks.lock().insert(name.to_owned(), runtime);
        Counted {
            node: self.clone(),
            name: name.to_owned(),
        }
    }
}

impl Tasks {
    /// How many each thread has.
    pub fn alive(&self) -> Vec<(String, usize)> {
        let runtimes = self.lock();
        let alive = |(name, its): (&String, &RuntimeMetrics)| (name.clone(), its.num_alive_tasks());
        runtimes.iter().map(alive).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RuntimeMetrics>> {
        // It is whole between any two statements.
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.node.tasks.lock().remove(&self.name);
    }
}
