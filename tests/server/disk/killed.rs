//! A server's process is killed while others publish to it: everything that it has acknowledged is there, and clients resume.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use realtime::control::client::Client as Link;
use realtime::node::Failure;
use tempfile::TempDir;

use crate::client::Client;
use crate::detached::{Hub, Worker};
use crate::harness::{PATIENCE, channel_named, directory, eventually, message};

const PUBLISHERS: usize = 4;

/// Processes would do the same: each has a link of its own, and waits for every answer.
pub struct Publishers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Publishers {
    pub fn start(directory: &TempDir, round: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let start = |publisher| {
            let socket = directory.path().join("hub.sock");
            let mut link = Link::connect(&socket, PATIENCE).unwrap();
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                let mut mine = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let text = format!("{round}.{publisher}.{}", mine.len());
                    let sent = message("a", &format!("\"{text}\""));
                    match link.publish(&sent) {
                        Ok(_) => mine.push(text),
                        Err(_) => break,
                    }
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                mine
            })
        };
        let threads = (0..PUBLISHERS).map(start).collect();
        Self {
            stop,
            acknowledged,
            threads,
        }
    }

    pub fn await_messages(&self, count: usize) {
        eventually("messages", || {
            self.acknowledged.load(Ordering::SeqCst) >= count
        });
    }

    /// What each has had acknowledged.
    pub fn end(self) -> Vec<Vec<String>> {
        self.stop.store(true, Ordering::SeqCst);
        let threads = self.threads.into_iter();
        threads.map(|thread| thread.join().unwrap()).collect()
    }
}

/// A killed process may have its locks for a moment after it has gone from sight, and one that was killed again and again is
/// not started at once.
pub fn started(directory: &TempDir, settings: &[(&str, &str)]) -> Worker {
    let mut worker = Worker::start(directory, settings);
    eventually("its turn", || {
        let wait = worker.answer.starts_with("another process")
            || worker.answer.contains("without being asked to");
        if wait {
            worker = Worker::start(directory, settings);
        }
        !wait
    });
    assert_eq!(worker.answer, "ok");
    worker
}

fn killed_again_and_again(fsync: &str, messages: usize) {
    let directory = directory();
    let data = directory.path().join("data").display().to_string();
    let settings = [
        ("realtime.history", "disk"),
        ("realtime.data_dir", &data),
        ("realtime.fsync", fsync),
        ("realtime.timeout", "20"),
        ("realtime.history_size", "1000000"),
    ];
    let mut acknowledged = Vec::new();
    let mut since = None;
    for round in 0..4 {
        let worker = started(&directory, &settings);
        let mut hub = Hub::of(&directory);
        let (mut client, _) = Client::native(&hub.address);
        let subscribed = client.subscribe("a", since.as_deref());
        if since.is_some() {
            assert_eq!(subscribed["recovered"], true, "{fsync}, round {round}");
        }
        let page = hub.link.history(&channel_named("a"), 1_000_000, None);
        let kept: std::collections::HashSet<String> = page
            .unwrap()
            .entries
            .iter()
            .map(|entry| match &entry.payload {
                realtime::message::Payload::Json(json) => serde_json::from_slice(json).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let lost = acknowledged
            .iter()
            .filter(|&text| !kept.contains(text))
            .count();
        assert_eq!(lost, 0, "of {} {fsync}, round {round}", acknowledged.len());
        // One more that every client has seen, and that is not kept: its number is never given again.
        let unkept = realtime::message::Publish {
            store: false,
            ..message("a", "null")
        };
        since = Some(hub.link.publish(&unkept).unwrap());
        let publishers = Publishers::start(&directory, round);
        publishers.await_messages(messages);
        hub.signal(libc::SIGKILL);
        hub.await_end();
        drop(worker);
        let round = publishers.end();
        assert!(round.iter().map(Vec::len).sum::<usize>() >= messages);
        acknowledged.extend(round.into_iter().flatten());
    }
}

#[test]
fn sigkill_loses_nothing_that_was_acknowledged() {
    killed_again_and_again("interval", 2000);
}

#[test]
fn nor_does_it_when_nothing_is_ever_synced() {
    killed_again_and_again("never", 2000);
}

#[test]
fn nor_does_it_when_every_message_is() {
    killed_again_and_again("always", 100);
}

/// How large a file of that process may become.
pub fn limit_files(pid: u32, bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads one rlimit of this stack; the process is of this test.
    let done = unsafe {
        libc::prlimit(
            pid as i32,
            libc::RLIMIT_FSIZE,
            &raw const limit,
            std::ptr::null_mut(),
        )
    };
    assert_eq!(done, 0);
}

#[test]
fn a_disk_that_takes_nothing_refuses_publishers_until_it_does_again() {
    for fsync in ["interval", "always"] {
        let directory = directory();
        let data = directory.path().join("data").display().to_string();
        let settings = [
            ("realtime.history", "disk"),
            ("realtime.data_dir", &data),
            ("realtime.fsync", fsync),
            ("realtime.timeout", "20"),
            ("realtime.history_size", "1000000"),
        ];
        let worker = started(&directory, &settings);
        let mut hub = Hub::of(&directory);
        let mut acknowledged = vec![];
        let mut number = 0;
        let mut publish = |link: &mut Link, acknowledged: &mut Vec<usize>| {
            number += 1;
            let result = link.publish(&message("a", &number.to_string()));
            if result.is_ok() {
                acknowledged.push(number);
            }
            result.map(drop)
        };
        publish(&mut hub.link, &mut acknowledged).unwrap();
        limit_files(hub.pid, 4096);
        let mut refused = None;
        eventually("a refusal", || {
            refused = publish(&mut hub.link, &mut acknowledged).err();
            refused.is_some()
        });
        let Some(Failure::Refused(text)) = refused else {
            panic!("{refused:?}");
        };
        assert!(text.contains("realtime.data_dir"), "{text}");
        // What needs no disk goes on.
        let unkept = realtime::message::Publish {
            store: false,
            ..message("a", "0")
        };
        hub.link.publish(&unkept).unwrap();
        limit_files(hub.pid, libc::RLIM_INFINITY);
        eventually("room", || publish(&mut hub.link, &mut acknowledged).is_ok());
        hub.signal(libc::SIGKILL);
        hub.await_end();
        drop(worker);
        let _worker = started(&directory, &settings);
        let mut hub = Hub::of(&directory);
        let page = hub.link.history(&channel_named("a"), 1_000_000, None);
        let page = page.unwrap();
        let kept = super::numbers(&page);
        for number in acknowledged {
            assert!(kept.contains(&number), "{number} of {kept:?}, {fsync}");
        }
    }
}
