//! `realtime.handler`: clients' events as requests of a pool, their order, and what happens when requests fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use realtime::backend::workers::Workers;
use realtime::config::ListenAddress;
use realtime::node::Stats;
use realtime::server::Server;
use realtime::wire::events::{WireResult, WireWhat};
use tempfile::TempDir;

use crate::client::{Client, handshake};
use crate::harness::{config, directory, eventually};
use crate::pool::{Pool, SECRET, Taken};

pub const OPEN: u8 = 1;
pub const SUBSCRIBE: u8 = 2;
pub const MESSAGE: u8 = 4;
pub const CLOSE: u8 = 8;

/// A server whose events go to other processes.
pub struct Site {
    pub server: Server,
    pub workers: Arc<Workers>,
    pub directory: TempDir,
}

impl Site {
    /// With a handler script in a pool that listens at `self.pool()`.
    pub fn new(settings: &[(&str, &str)]) -> Self {
        let directory = directory();
        let script = directory.path().join("realtime.php");
        std::fs::write(&script, "<?php").unwrap();
        let script = script.display().to_string();
        let mut all = vec![("realtime.handler", &*script)];
        all.extend(settings);
        Self::in_directory(directory, &all)
    }

    /// With no handler script.
    pub fn bare(settings: &[(&str, &str)]) -> Self {
        Self::in_directory(directory(), settings)
    }

    fn in_directory(directory: TempDir, settings: &[(&str, &str)]) -> Self {
        let config = config(&directory, settings);
        let pool = ListenAddress::Unix(directory.path().join("pool.sock"));
        let workers = Workers::new(Arc::new(config.clone()), Some(pool), SECRET.to_owned());
        let workers = Arc::new(workers);
        let server = Server::start(config, workers.clone()).unwrap();
        Self {
            server,
            workers,
            directory,
        }
    }

    /// Its pool, for a script with these handlers. Waits until the server knows them.
    pub fn pool(&self, interest: u8) -> Pool {
        let pool = self.late_pool(interest);
        eventually("the first question", || {
            self.server.node().interest().to_bits() == interest
        });
        pool
    }

    fn late_pool(&self, interest: u8) -> Pool {
        Pool::listen(&self.directory.path().join("pool.sock"), interest)
    }

    pub fn address(&self) -> &str {
        self.server.address()
    }

    pub fn stats(&self) -> Stats {
        self.server.node().stats().unwrap()
    }

    pub fn native(&self) -> Client {
        Client::native(self.address()).0
    }
}

fn publish(data: impl std::fmt::Display) -> String {
    format!(r#"{{"type":"publish","channel":"chat","data":{data},"ref":{data}}}"#)
}

/// A client whose message 0 has been handled, and whose messages 1 to `count` queued meanwhile: the pool's next request is
/// one batch of them.
fn batch_of(site: &Site, pool: &Pool, count: u64) -> Client {
    let mut client = site.native();
    client.say(&publish(0));
    let first = pool.next();
    for number in 1..=count {
        client.say(&publish(number));
    }
    eventually("all to queue", || {
        site.stats().handler_queued as u64 == count + 1
    });
    first.succeed();
    client
}

fn upgrade(site: &Site, more: &str) -> Client {
    let mut client = Client::connect(site.address());
    client.send(handshake("/ws?room=7", more).as_bytes());
    client
}

/// Takes requests until all of `count` messages are answered, and returns the size of each batch.
fn succeed_all(pool: &Pool, count: usize) -> Vec<usize> {
    let mut batches = Vec::new();
    while batches.iter().sum::<usize>() < count {
        let taken = pool.next();
        batches.push(taken.batch.events.len());
        taken.succeed();
    }
    batches
}

#[test]
fn a_connection_is_decided_by_a_request_with_its_own_head() {
    let site = Site::new(&[]);
    let pool = site.pool(OPEN | CLOSE);
    let mut client = upgrade(
        &site,
        "Cookie: PHPSESSID=abc\r\nX-Forwarded-For: 192.0.2.7\r\n",
    );
    let taken = pool.next();
    assert!(matches!(taken.what(), WireWhat::Open));
    assert_eq!(taken.param("HTTP_COOKIE"), "PHPSESSID=abc");
    assert_eq!(taken.param("REQUEST_URI"), "/ws?room=7");
    assert_eq!(taken.param("REMOTE_ADDR"), "192.0.2.7");
    let script = site.directory.path().join("realtime.php");
    assert_eq!(taken.param("SCRIPT_FILENAME"), script.to_str().unwrap());
    let party = &taken.batch.parties[0].connection;
    assert_eq!(party.ip, "192.0.2.7");
    assert!(party.head.contains("\ncookie: PHPSESSID=abc"), "{party:?}");
    taken.answer(WireResult::Verdict(true));
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    drop(client);
    let taken = pool.next();
    assert!(matches!(taken.what(), WireWhat::Close { code: 1006, .. }));
    taken.succeed();

    let mut refused = upgrade(&site, "");
    pool.next().answer(WireResult::Verdict(false));
    let response = refused.response(true);
    assert_eq!((response.status, &*response.code()), (403, "forbidden"));
    let mut failed = upgrade(&site, "");
    pool.next().answer(WireResult::Failed);
    let response = failed.response(true);
    assert_eq!(
        (response.status, &*response.code()),
        (502, "handler_failed")
    );
    assert!(pool.is_quiet(), "who was not let in has no end");
}

#[test]
fn messages_get_replies_and_subscriptions_verdicts() {
    let site = Site::new(&[]);
    let pool = site.pool(SUBSCRIBE | MESSAGE);
    let mut client = site.native();
    client.say(r#"{"type":"subscribe","channel":"private-a","ref":1}"#);
    let taken = pool.next();
    assert!(matches!(taken.what(), WireWhat::Subscribe { channel } if channel == "private-a"));
    taken.succeed();
    assert_eq!(client.json()["type"], "subscribed");
    client.say(&publish(5));
    pool.next().succeed();
    let reply = client.json();
    assert_eq!(
        (&reply["type"], &reply["ref"], &reply["data"]),
        (&"reply".into(), &5.into(), &5.into())
    );
    client.say(&publish(6));
    pool.next().answer(WireResult::Failed);
    assert_eq!(client.json()["code"], "handler_failed");
    // An answer that does not fit.
    client.say(&publish(7));
    pool.next().answer(WireResult::Verdict(true));
    assert_eq!(client.json()["code"], "handler_failed");
    let mut http = Client::connect(site.address());
    let asking = std::thread::spawn(move || http.post(r#"{"channel":"chat","data":8}"#));
    let taken = pool.next();
    assert_eq!(taken.param("REQUEST_METHOD"), "POST");
    taken.succeed();
    assert_eq!(asking.join().unwrap().json()["data"], 8);
    let stats = site.stats();
    assert_eq!(
        (
            stats.handler_retried,
            stats.handler_failed,
            stats.handler_queued
        ),
        (0, 0, 0)
    );
    assert!(stats.handler_requests >= 5);
}

#[test]
fn what_queues_meanwhile_goes_as_one_batch_in_order() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let (mut one, mut other) = (site.native(), site.native());
    one.say(&publish(0));
    let first = pool.next();
    for number in 1..=50 {
        one.say(&publish(number));
    }
    eventually("all to queue", || site.stats().handler_queued == 51);
    assert!(pool.is_quiet(), "one request of a connection at a time");
    // Others do not wait for it.
    other.say(&publish(99));
    pool.next().succeed();
    assert_eq!(other.json()["data"], 99);
    first.succeed();
    let batch = pool.next();
    let expected: Vec<_> = (1..=50).map(|number| number.to_string()).collect();
    assert_eq!(batch.data(), expected);
    assert_eq!(batch.batch.parties.len(), 1);
    batch.succeed();
    for number in 0..=50 {
        assert_eq!(one.json()["data"], number);
    }
}

#[test]
fn no_more_requests_at_a_time_than_allowed() {
    let site = Site::new(&[("realtime.handler_concurrency", "2")]);
    let pool = site.pool(MESSAGE);
    let mut clients: Vec<_> = (0..5).map(|_| site.native()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.say(&publish(number));
    }
    let (first, second) = (pool.next(), pool.next());
    assert!(pool.is_quiet());
    assert_eq!(pool.connections(), 2);
    first.succeed();
    let third = pool.next();
    assert!(pool.is_quiet());
    second.succeed();
    third.succeed();
    succeed_all(&pool, 2);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.json()["data"], number);
    }
    // A connection that is not used would keep a process of the pool from everybody else.
    eventually("the connections to end", || pool.connections() == 0);
}

#[test]
fn a_connection_keeps_its_state() {
    let site = Site::new(&[("realtime.state_size", "64")]);
    let pool = site.pool(MESSAGE);
    let mut client = site.native();
    let mut seen = Vec::new();
    let states = [
        Some(r#"{"n":1}"#.to_owned()),
        None,
        Some(format!(r#""{}""#, "x".repeat(100))),
        Some(String::new()),
        None,
    ];
    for state in &states {
        client.say(&publish(1));
        let mut taken = pool.next();
        seen.push(taken.state());
        taken.settle(0, 1, state.as_deref());
        taken.end();
        assert_eq!(client.json()["type"], "reply");
    }
    let kept = r#"{"n":1}"#;
    assert_eq!(seen, ["", kept, kept, kept, ""], "too large is not kept");
}

/// Sends one message whose requests end with `fail`, and returns when they came and the client's answer.
fn failing(site: &Site, pool: &Pool, attempts: usize, fail: impl Fn(Taken)) -> Vec<Instant> {
    let mut client = site.native();
    // On a connection that was kept, the first failure might not count.
    eventually("kept connections to end", || pool.connections() == 0);
    client.say(&publish(1));
    let mut times = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..attempts {
        let taken = pool.next();
        times.push(Instant::now());
        let WireWhat::Message { id, .. } = taken.what() else {
            panic!("a message")
        };
        ids.push(*id);
        fail(taken);
    }
    let error = client.json();
    assert_eq!(
        (&error["code"], &error["ref"]),
        (&"handler_failed".into(), &1.into())
    );
    ids.dedup();
    assert_eq!(ids.len(), 1, "the same message each time");
    // The rest goes on.
    client.say(&publish(2));
    pool.next().succeed();
    assert_eq!(client.json()["data"], 2);
    times
}

#[test]
fn a_request_that_breaks_off_is_tried_three_times() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let times = failing(&site, &pool, 3, drop);
    let pauses = [times[1] - times[0], times[2] - times[1]];
    assert!(pauses[0] >= Duration::from_millis(95), "{pauses:?}");
    assert!(pauses[1] >= Duration::from_millis(950), "{pauses:?}");
    let stats = site.stats();
    assert_eq!(
        (
            stats.handler_retried,
            stats.handler_failed,
            stats.handler_queued
        ),
        (2, 1, 0)
    );
}

#[test]
fn garbage_half_records_and_endless_frames_are_failures() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let faults: [&dyn Fn(&mut Taken); 6] = [
        &|taken| taken.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        // Half a header, and half a record.
        &|taken| taken.raw(&[1, 6, 0]),
        &|taken| taken.raw(&[1, 6, 0, 1, 0, 200, 0, 0, b'x']),
        // A frame that is announced with 4 GB, and one that is none.
        &|taken| {
            let mut bytes = taken.mark().to_vec();
            bytes.extend(u32::MAX.to_le_bytes());
            taken.print(&bytes);
        },
        &|taken| {
            let mut bytes = taken.mark().to_vec();
            bytes.extend([4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
            taken.print(&bytes);
        },
        // An end of another request.
        &|taken| taken.raw(&[1, 3, 0, 9, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let mut fault = faults.iter();
    for _ in 0..2 {
        let three: Vec<_> = fault.by_ref().take(3).collect();
        let next = std::cell::Cell::new(0);
        failing(&site, &pool, 3, |mut taken| {
            three[next.replace(next.get() + 1)](&mut taken);
        });
    }
}

#[test]
fn an_answer_that_never_comes_is_a_failure_in_time() {
    let site = Site::new(&[("realtime.handler_timeout", "0.2")]);
    let pool = site.pool(MESSAGE);
    failing(&site, &pool, 3, |mut taken| {
        assert!(taken.is_given_up());
        // Too late.
        taken.settle(0, 1, None);
    });
}

#[test]
fn each_event_has_the_whole_time_limit() {
    let site = Site::new(&[("realtime.handler_timeout", "0.4")]);
    let pool = site.pool(MESSAGE);
    let mut client = batch_of(&site, &pool, 3);
    let mut taken = pool.next();
    for index in 0..3 {
        std::thread::sleep(Duration::from_millis(200));
        taken.settle(index, 1, None);
        assert_eq!(client.json()["data"], index);
    }
    taken.end();
    assert_eq!(client.json()["data"], 3);
    assert_eq!(site.stats().handler_retried, 0);
}

#[test]
fn only_what_was_not_answered_is_tried_again_and_the_suspect_alone() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = batch_of(&site, &pool, 6);
    let mut taken = pool.next();
    taken.settle(0, 2, None);
    // The process ends in the handler of message 3.
    drop(taken);
    for _ in 0..2 {
        let suspect = pool.next();
        assert_eq!(suspect.data(), ["3"]);
        drop(suspect);
    }
    let rest = pool.next();
    assert_eq!(rest.data(), ["4", "5", "6"]);
    rest.succeed();
    let mut answers: Vec<_> = (0..7).map(|_| client.json()).collect();
    let lost = answers.remove(3);
    assert_eq!(
        (&lost["code"], &lost["ref"]),
        (&"handler_failed".into(), &3.into())
    );
    for (answer, number) in answers.iter().zip([0, 1, 2, 4, 5, 6]) {
        assert_eq!(answer["data"], number);
    }
}

#[test]
fn a_script_that_ends_early_leaves_the_rest_to_the_next_request() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = batch_of(&site, &pool, 3);
    for number in 1..=3 {
        let mut taken = pool.next();
        assert_eq!(taken.data()[0], number.to_string());
        taken.settle(0, 1, None);
        taken.end();
    }
    for number in 0..=3 {
        assert_eq!(client.json()["data"], number);
    }
    assert_eq!(site.stats().handler_retried, 0);
}

#[test]
fn a_script_without_rt_run_fails_for_all_its_events_alike() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = batch_of(&site, &pool, 20);
    for _ in 0..3 {
        let mut taken = pool.next();
        assert_eq!(taken.batch.events.len(), 20);
        taken.print(b"Content-type: text/html\r\n\r\nParse error");
        taken.end();
    }
    assert_eq!(client.json()["data"], 0);
    for number in 1..=20 {
        let error = client.json();
        assert_eq!(
            (&error["code"], &error["ref"]),
            (&"handler_failed".into(), &number.into())
        );
    }
    assert_eq!(site.stats().handler_failed, 20);
}

#[test]
fn what_the_script_prints_goes_nowhere() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = site.native();
    client.say(&publish(1));
    let mut taken = pool.next();
    taken.record(7, b"PHP message: a notice");
    taken.print(b"Content-type: text/html\r\n\r\n");
    taken.print(&vec![b'x'; 3 << 20]);
    taken.settle(0, 1, None);
    let half = taken.mark()[..9].to_vec();
    taken.print(&half);
    taken.end();
    assert_eq!(client.json()["data"], 1);
}

#[test]
fn a_kept_connection_that_the_pool_closes_is_no_failure() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = site.native();
    for number in 0..20 {
        client.say(&publish(number));
        pool.next().succeed();
        assert_eq!(client.json()["data"], number);
        if number % 2 == 0 {
            pool.close_all();
        }
    }
    assert_eq!(site.stats().handler_retried, 0);
    assert!(pool.connected() < 20, "connections are kept");
}

#[test]
fn a_pool_that_refuses_is_asked_again() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = site.native();
    client.say(&publish(1));
    for _ in 0..5 {
        // FCGI_OVERLOADED
        pool.next().end_with([0, 0, 0, 0, 2, 0, 0, 0]);
    }
    pool.next().succeed();
    assert_eq!(client.json()["data"], 1);
    assert_eq!(site.stats().handler_retried, 0);
}

#[test]
fn while_the_pool_is_down_messages_wait_and_verdicts_time_out() {
    let site = Site::new(&[("realtime.handshake_timeout", "0.5")]);
    let pool = site.pool(OPEN | MESSAGE);
    let mut client = upgrade(&site, "");
    pool.next().succeed();
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.json()["type"], "welcome");
    drop(pool);
    for number in 0..10 {
        client.say(&publish(number));
    }
    let late = upgrade(&site, "").response(true);
    assert_eq!((late.status, &*late.code()), (504, "timeout"));
    std::thread::sleep(Duration::from_millis(1500));
    let pool = site.late_pool(OPEN | MESSAGE);
    succeed_all(&pool, 10);
    for number in 0..10 {
        assert_eq!(client.json()["data"], number);
    }
    assert!(pool.is_quiet(), "nobody waits for the verdict any more");
    let stats = site.stats();
    assert_eq!(
        (
            stats.handler_retried,
            stats.handler_failed,
            stats.handler_queued
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_full_lane_slows_its_client_down_and_nothing_is_lost() {
    let site = Site::new(&[("realtime.handler_queue", "3"), ("realtime.timeout", "0.1")]);
    let pool = site.pool(MESSAGE);
    let (mut client, mut other) = (site.native(), site.native());
    client.say(&publish(0));
    let first = pool.next();
    for number in 1..=4 {
        client.say(&publish(number));
    }
    let error = client.json();
    assert_eq!((&error["code"], &error["ref"]), (&"busy".into(), &4.into()));
    other.say(&publish(9));
    pool.next().succeed();
    assert_eq!(other.json()["data"], 9);
    first.succeed();
    succeed_all(&pool, 3);
    for number in 0..=3 {
        assert_eq!(client.json()["data"], number);
    }
}

#[test]
fn room_in_a_full_lane_is_waited_for() {
    let site = Site::new(&[("realtime.handler_queue", "2"), ("realtime.timeout", "20")]);
    let pool = site.pool(MESSAGE);
    let mut client = site.native();
    for number in 0..40 {
        client.say(&publish(number));
    }
    succeed_all(&pool, 40);
    for number in 0..40 {
        assert_eq!(client.json()["data"], number);
    }
}

#[test]
fn all_that_waits_is_bounded() {
    let site = Site::new(&[
        ("realtime.queue_bytes", "64K"),
        ("realtime.timeout", "0.05"),
    ]);
    let pool = site.pool(MESSAGE);
    let mut clients: Vec<_> = (0..3).map(|_| site.native()).collect();
    let text = "x".repeat(30_000);
    let large = format!(r#"{{"type":"publish","channel":"chat","data":"{text}","ref":1}}"#);
    clients[0].say(&large);
    let first = pool.next();
    clients[1].say(&large);
    let second = pool.next();
    assert_eq!(clients[2].ask(&large)["code"], "busy");
    drop(second);
    assert_eq!(
        clients[2].ask(&large)["code"],
        "busy",
        "what is tried again takes room"
    );
    first.succeed();
    assert_eq!(clients[0].json()["type"], "reply");
    clients[2].say(&large);
    succeed_all(&pool, 2);
    eventually("the room to be free", || site.stats().handler_queued == 0);
    for _ in 0..20 {
        clients[0].say(&large);
        pool.next().succeed();
        assert_eq!(clients[0].json()["type"], "reply");
    }
}

#[test]
fn what_is_not_known_counts_as_handled() {
    let site = Site::new(&[("realtime.handshake_timeout", "0.3")]);
    // Nobody has said anything yet.
    let closed = upgrade(&site, "").response(true);
    assert_eq!((closed.status, &*closed.code()), (504, "timeout"));
    let pool = site.pool(MESSAGE);
    assert!(
        upgrade(&site, "").head().starts_with("HTTP/1.1 101 "),
        "no rt_on_open"
    );
    // Another version of the file, which has one more handler.
    pool.set_interest(MESSAGE | OPEN);
    std::fs::write(site.directory.path().join("realtime.php"), "<?php // 2").unwrap();
    eventually("the next question", || site.server.node().interest().open);
    let mut client = upgrade(&site, "");
    pool.next().answer(WireResult::Verdict(false));
    assert_eq!(client.response(true).status, 403);
    // And one that is not answered: nobody gets in.
    pool.answer_probes(false);
    pool.set_interest(0);
    site.workers.handler_may_have_changed();
    eventually("to be unknown", || site.server.node().interest().close);
    let mut client = upgrade(&site, "");
    pool.next().answer(WireResult::Verdict(false));
    assert_eq!(client.response(true).status, 403);
    eventually("the answer to tell", || {
        site.server.node().interest().to_bits() == 0
    });
    assert!(upgrade(&site, "").head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_server_that_stops_lets_requests_end() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE | CLOSE);
    let mut client = site.native();
    client.say(&publish(1));
    let taken = pool.next();
    client.say(&publish(2));
    eventually("both to queue", || site.stats().handler_queued == 2);
    let Site {
        server, directory, ..
    } = site;
    let stopping = std::thread::spawn(move || drop(server));
    assert_eq!(client.frame().close().0, 1001);
    drop(client);
    std::thread::sleep(Duration::from_millis(100));
    taken.succeed();
    let mut data = Vec::new();
    while data.len() < 2 {
        let taken = pool.next();
        data.extend(taken.data());
        taken.succeed();
    }
    assert_eq!(data[0], "2");
    assert!(data[1].starts_with("Close { code: 1001"), "{data:?}");
    stopping.join().unwrap();
    drop(directory);
}

#[test]
fn a_server_that_stops_does_not_wait_for_a_pool_that_is_gone() {
    let site = Site::new(&[]);
    let pool = site.pool(MESSAGE);
    let mut client = site.native();
    drop(pool);
    client.say(&publish(1));
    eventually("it to queue", || site.stats().handler_queued == 1);
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    let begun = Instant::now();
    drop(site);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}
