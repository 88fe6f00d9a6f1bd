//! A server that stops while requests run.

use std::time::{Duration, Instant};

use super::{CLOSE, MESSAGE, Site, publish};
use crate::harness::eventually;

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
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}
