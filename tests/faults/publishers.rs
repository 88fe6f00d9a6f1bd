//! Four publishers, each a thread that asks the pool for one page after the other; each page publishes a few numbers.
//!
//! A number is published once, whatever becomes of it: one whose page broke off may have been delivered or not, and
//! is neither acknowledged nor tried again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clients::Progress;
use crate::fastcgi;

/// How many publish at once.
pub const PUBLISHERS: usize = 4;

/// Messages that one page publishes.
const PAGE: u64 = 4;

/// How far publishers may be ahead of the clients, in messages: what this machine cannot deliver now is not asked of it.
const WINDOW: u64 = 40;

/// What the publishers know, as it stands.
#[derive(Debug, Default)]
pub struct Published {
    /// The numbers that were acknowledged, by publisher.
    pub acknowledged: [Mutex<Vec<u64>>; PUBLISHERS],
    /// How many those are.
    pub count: AtomicU64,
    /// Calls that threw, and what the first of them said.
    pub refused: AtomicU64,
    /// What they threw.
    pub words: Mutex<BTreeSet<String>>,
    /// The workers that were met.
    pub workers: Mutex<BTreeSet<u32>>,
    /// Pages that ended as they should.
    pub pages: AtomicU64,
    /// Pages that broke off.
    pub broken: AtomicU64,
    stop: AtomicBool,
}

impl Published {
    /// The highest number that each publisher has had acknowledged so far, plus one.
    pub fn marks(&self) -> [u64; PUBLISHERS] {
        std::array::from_fn(|i| {
            let numbers = self.acknowledged[i].lock().expect("no publisher panics");
            numbers.last().map_or(0, |last| last + 1)
        })
    }
}

/// The running threads.
pub struct Publishers {
    /// What they know.
    pub published: Arc<Published>,
    threads: Vec<JoinHandle<()>>,
}

impl Publishers {
    /// Starts them on the pool at `socket`.
    pub fn start(socket: PathBuf, script: PathBuf, progress: &Arc<Progress>) -> Self {
        let published = Arc::new(Published::default());
        let threads = (0..PUBLISHERS)
            .map(|publisher| {
                let (published, progress) = (published.clone(), progress.clone());
                let (socket, script) = (socket.clone(), script.clone());
                std::thread::spawn(move || {
                    let mut from = 0;
                    while !published.stop.load(Ordering::Relaxed) {
                        page(&published, publisher, from, &socket, &script);
                        from += PAGE;
                        progress.wait_until_near(&published, WINDOW);
                    }
                })
            })
            .collect();
        Self { published, threads }
    }

    /// Ends them after their pages.
    pub fn stop(self) -> Arc<Published> {
        self.published.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A publisher that panicked has said why; what it published is counted all the same.
            let _ = thread.join();
        }
        self.published
    }
}

fn page(
    published: &Published,
    publisher: usize,
    from: u64,
    socket: &std::path::Path,
    script: &std::path::Path,
) {
    let query = format!("publisher={publisher}&from={from}&count={PAGE}");
    let result = fastcgi::request(socket, script, &query, |line| {
        let mut words = line.splitn(3, ' ');
        match (
            words.next(),
            words.next().and_then(|word| word.parse::<u64>().ok()),
        ) {
            (Some("pid"), Some(pid)) => {
                let mut workers = published.workers.lock().expect("no publisher panics");
                workers.insert(u32::try_from(pid).unwrap_or(0));
            }
            (Some("ok"), Some(number)) => {
                let mut numbers = published.acknowledged[publisher]
                    .lock()
                    .expect("no publisher panics");
                numbers.push(number);
                published.count.fetch_add(1, Ordering::Relaxed);
            }
            (Some("failed"), Some(_)) => {
                published.refused.fetch_add(1, Ordering::Relaxed);
                let mut said = published.words.lock().expect("no publisher panics");
                if said.len() < 5 {
                    said.insert(words.next().unwrap_or_default().to_owned());
                }
            }
            // The page's HTTP head.
            _ => {}
        }
    });
    match result {
        Ok(()) => published.pages.fetch_add(1, Ordering::Relaxed),
        Err(_) => {
            std::thread::sleep(Duration::from_millis(5));
            published.broken.fetch_add(1, Ordering::Relaxed)
        }
    };
}

impl Progress {
    /// Waits until clients have got all but about `window` messages; not for ever, since some may be lost.
    fn wait_until_near(&self, published: &Published, window: u64) {
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            let wanted = published
                .count
                .load(Ordering::Relaxed)
                .saturating_sub(window)
                * self.clients;
            if self.delivered.load(Ordering::Relaxed) + self.forgiven.load(Ordering::Relaxed)
                >= wanted
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // What is lost stays lost: from now on it is not waited for.
        let wanted = published.count.load(Ordering::Relaxed) * self.clients;
        let missing = wanted.saturating_sub(self.delivered.load(Ordering::Relaxed));
        self.forgiven.store(missing, Ordering::Relaxed);
    }
}
