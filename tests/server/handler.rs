//! `realtime.handler`: clients' events as requests of a pool, their order, and what happens when requests fail.

mod ahead;
mod bounds;
mod failures;
mod stopping;

use std::sync::Arc;

use realtime::backend::workers::Workers;
use realtime::config::ListenAddress;
use realtime::node::Stats;
use realtime::server::Server;
use realtime::wire::events::{WireResult, WireWhat};
use tempfile::TempDir;

use crate::client::{Client, handshake};
use crate::harness::{config, directory, eventually};
use crate::pool::{Pool, SECRET};

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
