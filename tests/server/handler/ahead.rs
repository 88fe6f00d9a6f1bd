//! Requests that are sent behind one that a process still has.

use std::time::Duration;

use super::{MESSAGE, Site, publish, succeed_all};
use crate::client::Client;
use crate::harness::eventually;
use crate::pool::{Pool, Taken};

const CLIENTS: usize = 8;

/// A site with one request at a time, and its clients.
fn busy(settings: &[(&str, &str)]) -> (Site, Pool, Vec<Client>) {
    let mut all = vec![("realtime.handler_concurrency", "1")];
    all.extend(settings);
    let site = Site::new(&all);
    let pool = site.pool(MESSAGE);
    let clients = (0..CLIENTS).map(|_| site.native()).collect();
    (site, pool, clients)
}

/// A request with others behind it on its connection, and how many come behind it in all.
fn followed(pool: &Pool, clients: &mut [Client]) -> (Taken, usize) {
    for _ in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.say(&publish(number));
        }
        for answered in 0..CLIENTS {
            let taken = pool.next();
            if answered > 0 && taken.is_followed() {
                return (taken, CLIENTS - answered - 1);
            }
            taken.succeed();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.json()["data"], number);
        }
        // The machine was busy, and a request took so long that none was sent ahead.
        std::thread::sleep(Duration::from_millis(1100));
    }
    panic!("no request was sent ahead");
}

fn each_is_answered_once(site: &Site, clients: &mut [Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.json()["data"], number);
    }
    eventually("nothing to be left", || site.stats().handler_queued == 0);
    // What comes next is the answer to the next.
    assert_eq!(site.stats().handler_failed, 0);
}

#[test]
fn a_process_finds_the_next_request_when_it_has_finished() {
    let (site, pool, mut clients) = busy(&[]);
    let (taken, behind) = followed(&pool, &mut clients);
    taken.succeed();
    succeed_all(&pool, behind);
    each_is_answered_once(&site, &mut clients);
    assert_eq!(site.stats().handler_retried, 0);
}

#[test]
fn behind_a_request_that_breaks_off_nobody_is_to_blame() {
    let (site, pool, mut clients) = busy(&[]);
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
fn behind_a_request_that_never_ends_others_are_not_begun() {
    let (site, pool, mut clients) = busy(&[("realtime.handler_timeout", "1")]);
    let (taken, behind) = followed(&pool, &mut clients);
    succeed_all(&pool, behind + 1);
    each_is_answered_once(&site, &mut clients);
    assert_eq!(site.stats().handler_retried, 1);
    // Its process cannot answer, and so does not read what is behind it.
    assert!(taken.nobody_listens());
}

#[test]
fn behind_a_slow_handler_requests_wait_in_the_queue() {
    let (site, pool, mut clients) = busy(&[]);
    for (number, client) in clients.iter_mut().enumerate() {
        client.say(&publish(number));
    }
    eventually("all to queue", || site.stats().handler_queued == CLIENTS);
    let slow = pool.next();
    std::thread::sleep(Duration::from_millis(50));
    slow.succeed();
    // It may have had two behind it; whatever comes after them is alone.
    for _ in 0..2 {
        pool.next().succeed();
    }
    for _ in 3..CLIENTS {
        let taken = pool.next();
        assert!(!taken.is_followed());
        taken.succeed();
    }
    each_is_answered_once(&site, &mut clients);
}
