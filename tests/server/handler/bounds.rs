//! What waits for the pool, and how much of it may.

use realtime::wire::events::WireResult;

use super::{MESSAGE, OPEN, Site, publish, succeed_all, upgrade};
use crate::harness::eventually;

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
    let site = Site::new(&[("realtime.queue_bytes", "64K"), ("realtime.timeout", "0.5")]);
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
    // In so short a time the server need not have told.
    let node = site.server.node();
    eventually("the room to be free", || {
        node.stats().is_ok_and(|stats| stats.handler_queued == 0)
    });
    for _ in 0..20 {
        clients[0].say(&large);
        pool.next().succeed();
        assert_eq!(clients[0].json()["type"], "reply");
    }
}

#[test]
fn what_is_not_known_counts_as_handled() {
    let site = Site::new(&[("realtime.handshake_timeout", "3")]);
    // Nobody has said anything yet.
    let closed = upgrade(&site, "").response(true);
    assert_eq!((closed.status, &*closed.code()), (504, "timeout"));
    let pool = site.pool(MESSAGE);
    assert!(
        upgrade(&site, "").head().starts_with("HTTP/1.1 101 "),
        "no rt_on_open"
    );
    // As long as it is not known that nobody asks for it, its end would be an event, too.
    eventually("its end", || site.server.node().connection_count() == 0);
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
