//! Requests that are sent behind one that a process still has.

use std::time::{Duration, Instant};

use realtime::wire::events::{AHEAD_PARAM, LEAVING, REFUSED, UNTIL_PARAM};

use super::{MESSAGE, Site, publish, succeed_all};
use crate::client::Client;
use crate::harness::{PATIENCE, eventually};
use crate::pool::{Pool, Taken};

const CLIENTS: usize = 8;

/// A site with so many requests at a time, and its clients.
fn busy(at_once: &str) -> (Site, Pool, Vec<Client>) {
    let site = Site::new(&[("realtime.handler_concurrency", at_once)]);
    let pool = site.pool(MESSAGE);
    let clients = (0..CLIENTS).map(|_| site.native()).collect();
    (site, pool, clients)
}

/// A request with others behind it on its connection, and how many messages are to be answered beside it.
fn followed(pool: &Pool, clients: &mut [Client]) -> (Taken, usize) {
    let deadline = Instant::now() + PATIENCE;
    for round in 1.. {
        assert!(Instant::now() < deadline, "no request was sent ahead");
        for (number, client) in clients.iter_mut().enumerate() {
            client.say(&publish(number));
        }
        // In most rounds all are answered as soon as they can be, so that they pass for quick ones.
        for answered in 0..CLIENTS {
            let taken = pool.next();
            if round % 5 == 0 && answered > 0 && taken.is_followed() {
                return (taken, CLIENTS - answered - 1);
            }
            taken.succeed();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.json()["data"], number);
        }
    }
    unreachable!()
}

fn each_is_answered_once(site: &Site, clients: &mut [Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.json()["data"], number);
    }
    eventually("nothing to be left", || site.stats().handler_queued == 0);
    // What comes next is the answer to the next.
    assert_eq!(site.stats().handler_failed, 0);
}

fn is_ahead(taken: &Taken) -> bool {
    assert_ne!(
        taken.params.contains_key(AHEAD_PARAM),
        taken.params.contains_key(UNTIL_PARAM)
    );
    taken.params.contains_key(AHEAD_PARAM)
}

#[test]
fn a_process_finds_the_next_request_when_it_has_finished() {
    let (site, pool, mut clients) = busy("1");
    let (taken, mut behind) = followed(&pool, &mut clients);
    let connected = pool.connected();
    taken.succeed();
    // Well within its time, on a machine that is not too busy.
    let next = pool.next();
    if pool.connected() == connected {
        assert!(is_ahead(&next));
    }
    behind -= next.batch.events.len();
    next.succeed();
    succeed_all(&pool, behind);
    each_is_answered_once(&site, &mut clients);
    assert_eq!(site.stats().handler_retried, 0);
}

#[test]
fn behind_a_slow_handler_nobody_waits_while_a_process_is_free() {
    let (site, pool, mut clients) = busy("2");
    let (mut slow, behind) = followed(&pool, &mut clients);
    // All others are answered, on other connections, while this one is with its process.
    let mut left = behind;
    while left > 0 {
        let taken = pool.next();
        left -= taken.batch.events.len();
        taken.succeed();
    }
    eventually("one to be left", || site.stats().handler_queued == 1);
    slow.settle(0, usize::MAX, None);
    slow.record(3, &[0; 8]);
    // What is behind it on its connection, the process finds, and nobody takes its answer.
    assert!(slow.reads_to_the_end());
    each_is_answered_once(&site, &mut clients);
    assert_eq!(site.stats().handler_retried, 0);
}

#[test]
fn what_a_process_has_come_to_too_late_goes_out_again() {
    let (site, pool, mut clients) = busy("1");
    let (taken, behind) = followed(&pool, &mut clients);
    taken.succeed();
    let mut left = behind;
    let mut refused = 0;
    while left > 0 {
        let mut taken = pool.next();
        if is_ahead(&taken) {
            refused += 1;
            taken.say(REFUSED);
            taken.end();
        } else {
            left -= taken.batch.events.len();
            taken.succeed();
        }
        assert!(refused < 10_000, "it goes out alone in the end");
    }
    each_is_answered_once(&site, &mut clients);
    assert_eq!(site.stats().handler_retried, 0, "nobody is to blame");
}

#[test]
fn behind_a_script_that_goes_on_after_its_request_nobody_waits() {
    let (site, pool, mut clients) = busy("1");
    let (mut taken, behind) = followed(&pool, &mut clients);
    let connected = pool.connected();
    taken.settle(0, usize::MAX, None);
    taken.say(LEAVING);
    taken.record(3, &[0; 8]);
    assert!(taken.reads_to_the_end());
    succeed_all(&pool, behind);
    each_is_answered_once(&site, &mut clients);
    assert_eq!(site.stats().handler_retried, 0);
    assert!(pool.connected() > connected);
}

#[test]
fn behind_a_request_that_breaks_off_nobody_is_to_blame() {
    let (site, pool, mut clients) = busy("1");
    let (mut taken, behind) = followed(&pool, &mut clients);
    let connected = pool.connected();
    // Without a word of it, it would pass for one that the process never saw.
    taken.print(b"\r\n\r\nhalf");
    drop(taken);
    // Those behind it, and then itself.
    succeed_all(&pool, behind + 1);
    each_is_answered_once(&site, &mut clients);
    assert_eq!(site.stats().handler_retried, 1);
    assert!(pool.connected() > connected);
}

#[test]
fn behind_a_handler_that_was_slow_requests_are_sent_alone() {
    let (site, pool, mut clients) = busy("1");
    for (number, client) in clients.iter_mut().enumerate() {
        client.say(&publish(number));
    }
    eventually("all to queue", || site.stats().handler_queued == CLIENTS);
    for _ in 0..CLIENTS {
        let taken = pool.next();
        assert!(!is_ahead(&taken));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!taken.is_followed());
        taken.succeed();
    }
    each_is_answered_once(&site, &mut clients);
}
