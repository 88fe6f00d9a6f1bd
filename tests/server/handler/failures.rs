//! Requests that fail, and what is tried again.

use std::time::{Duration, Instant};

use realtime::wire::events::WireWhat;

use super::{MESSAGE, OPEN, Site, batch_of, publish, succeed_all, upgrade};
use crate::harness::eventually;
use crate::pool::{Pool, Taken};

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
    let site = Site::new(&[("realtime.handler_timeout", "3")]);
    let pool = site.pool(MESSAGE);
    failing(&site, &pool, 3, |mut taken| {
        assert!(taken.is_given_up());
        // Too late.
        taken.settle(0, 1, None);
    });
}

#[test]
fn each_event_has_the_whole_time_limit() {
    let site = Site::new(&[("realtime.handler_timeout", "7")]);
    let pool = site.pool(MESSAGE);
    let mut client = batch_of(&site, &pool, 3);
    let mut taken = pool.next();
    for index in 0..3 {
        std::thread::sleep(Duration::from_millis(2500));
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
    let site = Site::new(&[("realtime.handshake_timeout", "3")]);
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
