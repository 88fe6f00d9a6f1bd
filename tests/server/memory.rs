//! Memory goes back to the system after a flood, also where messages that are kept came with it.

use std::fs;

use realtime::ids::Channel;

use crate::client::{Client, handshake};
use crate::harness::{Hub, alone, eventually, message};

const ROOMS: usize = 280;
const EACH: usize = 50;

/// What this process has, without files, in bytes.
fn resident() -> usize {
    let memory = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = memory.lines().find_map(|it| it.strip_prefix("Pss_Anon:"));
    let kib = line.unwrap().trim().strip_suffix("kB").unwrap().trim();
    kib.parse::<usize>().unwrap() << 10
}

fn text(number: usize, length: usize) -> String {
    format!("\"{number} {}\"", "x".repeat(length))
}

/// A small message that is kept, and a larger one that is on its way for a while: in nearly each page lies one of the former.
#[test]
fn a_flood_is_given_back_though_messages_that_came_with_it_are_kept() {
    // For the memory is the process's.
    if !alone("memory::a_flood_is_given_back_though_messages_that_came_with_it_are_kept") {
        return;
    }
    let hub = Hub::with(&[
        ("realtime.history_bytes", "16M"),
        ("realtime.max_backlog", "256M"),
        ("realtime.queue_bytes", "256M"),
    ]);
    let mut client = Client::connect(hub.address());
    client.send(handshake("/raw/flood", "").as_bytes());
    client.head();
    hub.await_subscribers("flood", 1);
    let before = resident();
    let mut flood = 0;
    hub.stall(|| {
        for n in 0..ROOMS * EACH {
            hub.publish(&format!("room-{}", n % ROOMS), &text(n, 40 + n % 100));
            let mut large = message("flood", &text(n, 2000 + n % 3000));
            large.store = false;
            hub.node().publish(large).unwrap();
        }
        flood = resident() - before;
    });
    drop(client);
    assert!(flood > 40 << 20, "no flood: {flood}");
    eventually("the end of the flood", || {
        let grown = resident().saturating_sub(before);
        grown < 16 << 20
    });
    for room in 0..ROOMS {
        let channel = Channel::parse(&format!("room-{room}")).unwrap();
        let page = hub.node().history(&channel, 100, None);
        let found = page.unwrap().entries;
        let found: Vec<_> = found.into_iter().map(|entry| entry.payload).collect();
        let numbers = (0..EACH).map(|n| n * ROOMS + room);
        let published = numbers.map(|n| message("a", &text(n, 40 + n % 100)).payload);
        assert_eq!(found, published.collect::<Vec<_>>(), "{room}");
    }
}
