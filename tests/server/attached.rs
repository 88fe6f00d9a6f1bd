//! PHP processes that attach themselves: they share the events, and what one has not answered goes to another.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::time::Duration;

use realtime::backend::Interest;
use realtime::backend::workers::Attached;
use realtime::control::client::Client as Link;
use realtime::wire::control::{self, Purpose};
use realtime::wire::events::{Batch, Outcomes, WireOutcome, WireResult, WireWhat};

use crate::client::{Client, handshake};
use crate::detached::{Hub, Worker};
use crate::handler::{MESSAGE, OPEN, Site};
use crate::harness::{PATIENCE, directory, eventually};

/// An attached process that the test drives.
struct Process {
    runtime: tokio::runtime::Runtime,
    attached: Attached,
}

impl Process {
    fn attach(site: &Site, interest: u8) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let attached = Attached::new(&site.workers, Interest::from_bits(interest));
        Self { runtime, attached }
    }

    fn next_within(&self, patience: Duration) -> Option<Batch> {
        let next = async { tokio::time::timeout(patience, self.attached.next()).await };
        self.runtime.block_on(next).ok()
    }

    #[track_caller]
    fn next(&self) -> Batch {
        self.next_within(PATIENCE).expect("a batch")
    }

    fn is_idle(&self) -> bool {
        self.next_within(Duration::from_millis(100)).is_none()
    }

    fn settle(&self, batch: &Batch, result: impl Fn() -> WireResult) {
        let outcomes = batch.events.iter().map(|event| WireOutcome {
            number: event.number,
            result: result(),
            state: None,
        });
        self.attached.settle(Outcomes {
            interest: MESSAGE,
            outcomes: outcomes.collect(),
        });
    }

    fn succeed(&self, batch: &Batch) {
        self.settle(batch, || WireResult::Reply(None));
    }
}

fn publish(number: usize) -> String {
    format!(r#"{{"type":"publish","channel":"c","data":{number},"ref":{number}}}"#)
}

fn data(batch: &Batch) -> Vec<String> {
    let data = batch.events.iter().map(|event| format!("{:?}", event.what));
    data.collect()
}

#[test]
fn attached_processes_get_the_events_in_place_of_the_handler() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = site.native();
    let process = Process::attach(&site, MESSAGE | OPEN);
    assert!(site.server.node().interest().open);
    client.say(&publish(1));
    let batch = process.next();
    assert!(pool.is_quiet());
    process.succeed(&batch);
    assert_eq!(client.json()["ref"], 1);
    client.say(&publish(2));
    process.next();
    client.say(&publish(3));
    eventually("both to queue", || site.stats().handler_queued == 2);
    process.attached.leave();
    // What it had and what waits goes to the handler, as if the process had never been.
    let taken = pool.next();
    assert_eq!(taken.data(), ["2", "3"]);
    taken.succeed();
    assert_eq!(client.json()["ref"], 2);
    assert_eq!(client.json()["ref"], 3);
    assert!(!site.server.node().interest().open);
    assert_eq!(site.stats().handler_retried, 0);
}

#[test]
fn several_processes_share_and_each_connection_stays_in_order() {
    const CLIENTS: usize = 8;
    const EACH: usize = 200;
    let site = Site::bare(&[("realtime.handler_queue", "1000")]);
    let workers = site.workers.clone();
    let processes: Vec<_> = (0..3)
        .map(|_| Attached::new(&workers, Interest::from_bits(MESSAGE)))
        .collect();
    let seen = std::sync::Mutex::new(HashMap::<u128, Vec<String>>::new());
    let shares: Vec<_> = processes
        .iter()
        .map(|_| std::sync::atomic::AtomicUsize::new(0))
        .collect();
    let done = || {
        let seen = seen.lock().unwrap();
        seen.values().map(Vec::len).sum::<usize>() == CLIENTS * EACH
    };
    // Whoever is there takes what there is: all of them are before anything comes.
    let there = std::sync::Barrier::new(processes.len() + 1);
    std::thread::scope(|scope| {
        for (attached, share) in processes.into_iter().zip(&shares) {
            let (seen, done, there) = (&seen, &done, &there);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let process = Process { runtime, attached };
                there.wait();
                while !done() {
                    let Some(batch) = process.next_within(Duration::from_millis(50)) else {
                        continue;
                    };
                    share.fetch_add(batch.events.len(), std::sync::atomic::Ordering::SeqCst);
                    for event in &batch.events {
                        let WireWhat::Message { data, .. } = &event.what else {
                            panic!("a message")
                        };
                        let id = batch.parties[event.party as usize].connection.id;
                        let mut seen = seen.lock().unwrap();
                        seen.entry(id).or_default().push(format!("{data:?}"));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                    process.succeed(&batch);
                }
            });
        }
        there.wait();
        for _ in 0..CLIENTS {
            let site = &site;
            scope.spawn(move || {
                let mut client = site.native();
                for number in 0..EACH {
                    client.say(&publish(number));
                }
                for number in 0..EACH {
                    assert_eq!(client.json()["ref"], number);
                }
            });
        }
    });
    for messages in seen.lock().unwrap().values() {
        let expected = (0..EACH).map(|number| format!("Json(b\"{number}\")"));
        assert!(messages.iter().cloned().eq(expected), "{messages:?}");
    }
    for share in shares {
        assert!(share.into_inner() > 0, "every process has something to do");
    }
}

#[test]
fn what_a_process_that_died_has_not_answered_goes_to_another() {
    let site = Site::bare(&[]);
    let process = Process::attach(&site, MESSAGE);
    let (mut one, mut two) = (site.native(), site.native());
    one.say(&publish(1));
    let first = process.next();
    one.say(&publish(2));
    two.say(&publish(7));
    eventually("all to queue", || site.stats().handler_queued == 3);
    let second = process.next();
    assert!(data(&second)[0].contains('7'));
    process.succeed(&first);
    assert_eq!(one.json()["ref"], 1);
    let other = Process::attach(&site, MESSAGE);
    drop(process);
    let mut got = Vec::new();
    while got.len() < 2 {
        let batch = other.next();
        got.extend(data(&batch));
        other.succeed(&batch);
    }
    assert_eq!(one.json()["ref"], 2);
    assert_eq!(two.json()["ref"], 7);
    assert_eq!(site.stats().handler_failed, 0);
}

#[test]
fn a_message_that_ends_every_process_is_given_up() {
    let site = Site::bare(&[]);
    let mut client = site.native();
    let first = Process::attach(&site, MESSAGE);
    client.say(&publish(1));
    first.next();
    drop(first);
    for _ in 0..2 {
        let process = Process::attach(&site, MESSAGE);
        process.next();
        drop(process);
    }
    let error = client.json();
    assert_eq!(
        (&error["code"], &error["ref"]),
        (&"handler_failed".into(), &1.into())
    );
    assert_eq!(site.stats().handler_failed, 1);
}

#[test]
fn until_a_process_is_back_nobody_gets_past_it() {
    let site = Site::bare(&[
        ("realtime.linger", "8"),
        ("realtime.handshake_timeout", "2"),
    ]);
    let mut client = site.native();
    assert_eq!(client.ask(&publish(0))["code"], "no_handler");
    let process = Process::attach(&site, OPEN | MESSAGE);
    drop(process);
    let mut waiting = Client::connect(site.address());
    waiting.send(handshake("/ws", "").as_bytes());
    assert_eq!(waiting.response(true).status, 504);
    client.say(&publish(1));
    let process = Process::attach(&site, OPEN | MESSAGE);
    let batch = process.next();
    assert_eq!(
        batch.events.len(),
        1,
        "who was not let in is not asked about: {batch:?}"
    );
    process.succeed(&batch);
    assert_eq!(client.json()["ref"], 1);
    // It does not come back: what waits for it is given up, and the server is one without handlers.
    drop(process);
    client.say(&publish(2));
    assert_eq!(client.json()["code"], "handler_failed");
    eventually("nobody to be waited for", || {
        site.server.node().interest().to_bits() == 0
    });
    assert_eq!(client.ask(&publish(3))["code"], "no_handler");
}

/// The server stands still for longer than a process may take, which meanwhile answers: what it has said counts, and nobody else gets
/// the event.
#[test]
fn an_answer_that_came_in_time_is_not_late_because_the_server_was() {
    let directory = directory();
    let _worker = Worker::start(&directory, &[("realtime.handler_timeout", "1")]);
    let mut hub = Hub::of(&directory);
    let socket = directory.path().join("hub.sock");
    let link = Link::connect_for(Purpose::Attach, &socket, PATIENCE).unwrap();
    let mut process = link.into_stream();
    process.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = process.try_clone().unwrap();
    let mut tell = |outcomes| {
        let interest = MESSAGE;
        let outcomes = Outcomes { interest, outcomes };
        writer.write_all(&control::frame(&outcomes)).unwrap();
    };
    tell(Vec::new());
    let mut client = Client::native(&hub.address).0;
    for number in 1..=4 {
        client.say(&publish(number));
        let mut length = [0; 4];
        process.read_exact(&mut length).unwrap();
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        process.read_exact(&mut content).unwrap();
        let batch: Batch = control::read(&content).unwrap();
        hub.signal(libc::SIGSTOP);
        tell(vec![WireOutcome {
            number: batch.events[0].number,
            result: WireResult::Reply(None),
            state: None,
        }]);
        std::thread::sleep(Duration::from_millis(1300));
        hub.signal(libc::SIGCONT);
        let answer = client.json();
        assert_eq!(
            (&answer["type"], &answer["ref"]),
            (&"reply".into(), &number.into())
        );
        let stats = hub.link.stats().unwrap();
        assert_eq!(stats.handler_retried, 0, "{number}");
    }
}

#[test]
fn an_idle_process_waits() {
    let site = Site::bare(&[]);
    let process = Process::attach(&site, MESSAGE);
    assert!(process.is_idle());
    let mut client = site.native();
    client.say(&publish(1));
    // Whoever gave up waiting has lost nothing.
    let batch = process.next();
    assert_eq!(process.attached.held(), 1);
    process.settle(&batch, || WireResult::Failed);
    assert_eq!(client.json()["code"], "handler_failed");
    assert_eq!(process.attached.held(), 0);
    // An answer to what it no longer has.
    process.succeed(&batch);
    assert!(process.is_idle());
}
