//! The promises: order per channel, no doubles, no gaps, and a plain word where the history does not reach.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use realtime::ids::Channel;
use realtime::message::Publish;
use serde_json::Value;

use crate::client::Client;
use crate::harness::{Hub, channel_named, message};

/// Small and seeded, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn every_subscriber_sees_one_order_whoever_publishes() {
    const THREADS: usize = 4;
    const EACH: usize = 400;
    let hub = Hub::start();
    let mut readers: Vec<Client> = (0..4)
        .map(|_| {
            let (mut client, _) = Client::native(hub.address());
            client.subscribe("a", None);
            client
        })
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let hub = &hub;
            scope.spawn(move || {
                for n in 0..EACH {
                    hub.publish("a", &format!("[{thread},{n}]"));
                }
            });
        }
        let seen: Vec<Vec<Value>> = readers
            .iter_mut()
            .map(|reader| (0..THREADS * EACH).map(|_| reader.json()).collect())
            .collect();
        let mut next = [0; THREADS];
        for message in &seen[0] {
            let thread = message["data"][0].as_u64().unwrap() as usize;
            assert_eq!(
                message["data"][1], next[thread],
                "each publisher's own order"
            );
            next[thread] += 1;
        }
        assert!(
            seen.iter().all(|other| *other == seen[0]),
            "one order for all"
        );
    });
}

/// Subscribes, unsubscribes, resumes and reconnects at random while others publish; what it has seen in the end must be
/// each channel's whole sequence, once.
fn wander(hub: &Hub, seed: u64, count: i64, done: &AtomicBool) {
    let mut dice = Dice(seed);
    let names = ["x", "y", "z"];
    let mut seen: HashMap<&str, Vec<i64>> = names.map(|name| (name, Vec::new())).into();
    // The newest id that this client has of a channel, and whether it is subscribed to it.
    let mut cursors: HashMap<&str, String> = HashMap::new();
    let (mut client, _) = Client::native(hub.address());
    for name in names {
        let answer = client.subscribe(name, None);
        cursors.insert(name, answer["id"].as_str().unwrap().to_owned());
    }
    hub.publish("ready", "1");
    let mut subscribed: Vec<&str> = names.to_vec();
    let read = |client: &mut Client,
                seen: &mut HashMap<&str, Vec<i64>>,
                cursors: &mut HashMap<&str, String>| {
        let frame = client.json();
        if frame["type"] == "message" {
            let name = *names
                .iter()
                .find(|name| frame["channel"] == **name)
                .unwrap();
            seen.get_mut(name)
                .unwrap()
                .push(frame["data"].as_i64().unwrap());
            cursors.insert(name, frame["id"].as_str().unwrap().to_owned());
        }
        if frame["type"] == "subscribed" {
            assert_ne!(frame["recovered"], false, "seed {seed}: {frame}");
        }
        frame
    };
    loop {
        let complete = names.iter().all(|name| seen[name].last() == Some(&count));
        if complete && done.load(Ordering::SeqCst) {
            break;
        }
        match dice.below(20) {
            0 => {
                let (fresh, _) = Client::native(hub.address());
                client = fresh;
                subscribed.clear();
            }
            1..4 if !subscribed.is_empty() => {
                let at = dice.below(subscribed.len() as u64) as usize;
                let name = subscribed.swap_remove(at);
                client.say(&format!(r#"{{"type":"unsubscribe","channel":"{name}"}}"#));
                while read(&mut client, &mut seen, &mut cursors)["type"] != "unsubscribed" {}
            }
            4..9 => {
                for name in names {
                    if !subscribed.contains(&name) {
                        let since = &cursors[name];
                        client.say(&format!(
                            r#"{{"type":"subscribe","channel":"{name}","since":"{since}"}}"#
                        ));
                        subscribed.push(name);
                        while read(&mut client, &mut seen, &mut cursors)["type"] != "subscribed" {}
                    }
                }
            }
            _ => {
                let waits = subscribed
                    .iter()
                    .any(|name| seen[name].last() != Some(&count));
                if waits {
                    read(&mut client, &mut seen, &mut cursors);
                }
            }
        }
    }
    for name in names {
        let whole: Vec<i64> = (1..=count).collect();
        assert_eq!(seen[name], whole, "seed {seed}, channel {name}");
    }
}

#[test]
fn clients_that_come_and_go_see_everything_once() {
    const COUNT: i64 = 1200;
    const CLIENTS: u64 = 6;
    let hub = Hub::with(&[("realtime.history_size", "100000")]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=CLIENTS {
            let (hub, done) = (&hub, &done);
            scope.spawn(move || wander(hub, 0x9e37_79b9_7f4a_7c15 ^ seed, COUNT, done));
        }
        let ready = channel_named("ready");
        crate::harness::eventually("all clients", || {
            let page = hub.node().history(&ready, 100, None).unwrap();
            page.entries.len() == CLIENTS as usize
        });
        let publishers: Vec<_> = ["x", "y", "z"]
            .into_iter()
            .map(|name| {
                let hub = &hub;
                scope.spawn(move || {
                    for n in 1..=COUNT {
                        hub.publish(name, &n.to_string());
                        if n % 16 == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_reader_that_catches_up_slowly_gets_everything_once() {
    let hub = Hub::with(&[("realtime.history_size", "1000")]);
    let start = hub.publish("a", "0");
    let text = "x".repeat(60_000);
    for n in 1..=200 {
        hub.publish("a", &format!("[{n},\"{text}\"]"));
    }
    let mut client = Client::with_receive_buffer(hub.address(), Some(4096));
    client.send(crate::client::handshake("/ws", "").as_bytes());
    client.head();
    client.frame();
    assert_eq!(client.subscribe("a", Some(&start))["recovered"], true);
    // Far more than the kernel takes has to wait; live messages queue behind it.
    for n in 201..=210 {
        hub.publish("a", &format!("[{n},\"{text}\"]"));
    }
    for n in 1..=20 {
        assert_eq!(client.json()["data"][0], n);
    }
    // What waits of a channel that is left does not come, neither late nor twice.
    client.say(r#"{"type":"unsubscribe","channel":"a"}"#);
    let mut last = (20, String::new());
    let after = loop {
        let frame = client.json();
        if frame["type"] != "message" {
            break frame;
        }
        assert_eq!(frame["data"][0], last.0 + 1);
        last = (last.0 + 1, frame["id"].as_str().unwrap().to_owned());
    };
    assert_eq!(after["type"], "unsubscribed");
    assert!(last.0 < 210, "the replay was cut off");
    let since = Some(&*last.1).filter(|id| !id.is_empty()).unwrap_or("");
    let again = client.subscribe("a", Some(since));
    assert_eq!(again["recovered"], true);
    for n in last.0 + 1..=210 {
        assert_eq!(client.json()["data"][0], n);
    }
    hub.publish("a", "[211]");
    assert_eq!(client.json()["data"][0], 211);
}

#[test]
fn a_since_beyond_the_history_is_told() {
    let hub = Hub::with(&[("realtime.history_size", "3")]);
    let ids: Vec<String> = (1..=5).map(|n| hub.publish("a", &n.to_string())).collect();
    let (mut client, _) = Client::native(hub.address());
    let mut resume = |since: &str| {
        client.say(r#"{"type":"unsubscribe","channel":"a"}"#);
        client.json();
        let answer = client.subscribe("a", Some(since));
        let recovered = answer["recovered"].as_bool().unwrap();
        let oldest = answer["oldest"].as_str().map(str::to_owned);
        let count = if recovered {
            5 - since_number(since)
        } else {
            3
        };
        let data: Vec<i64> = (0..count)
            .map(|_| client.json()["data"].as_i64().unwrap())
            .collect();
        (recovered, oldest, data)
    };
    assert_eq!(resume(&ids[4]), (true, None, vec![]));
    assert_eq!(resume(&ids[2]), (true, None, vec![4, 5]));
    assert_eq!(resume(&ids[1]), (true, None, vec![3, 4, 5]));
    let short = (false, Some(ids[2].clone()), vec![3, 4, 5]);
    assert_eq!(resume(&ids[0]), short);
    assert_eq!(resume("00000000-4"), short, "another server's");
    assert_eq!(resume("not an id"), short);
}

fn since_number(id: &str) -> i64 {
    id.split('-')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_history_that_has_grown_old_is_a_gap() {
    let hub = Hub::with(&[("realtime.history_ttl", "0.05")]);
    let first = hub.publish("a", "1");
    hub.publish("a", "2");
    let a = channel_named("a");
    crate::harness::eventually("the history's end", || {
        hub.node().history(&a, 10, None).unwrap().entries.is_empty()
    });
    // The channel comes back, and its past is still missing.
    hub.publish("a", "3");
    let (mut client, _) = Client::native(hub.address());
    assert_eq!(client.subscribe("a", Some(&first))["recovered"], false);
}

#[test]
fn an_own_id_is_accepted_once_a_channel() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("a", None);
    client.subscribe("b", None);
    client.subscribe("c", None);
    let own = |channels: &[&str], data: &str| Publish {
        channels: channels
            .iter()
            .map(|c| Channel::parse(c).unwrap())
            .collect(),
        id: Some("order-7".into()),
        ..message("a", data)
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(hub.node().publish(own(&["a"], "1")).unwrap(), "order-7");
                }
            });
        }
    });
    hub.node().publish(own(&["a", "b"], "2")).unwrap();
    let never = Publish {
        store: false,
        ..own(&["c"], "3")
    };
    for expected in [("a", 1), ("b", 2)] {
        let message = client.json();
        assert_eq!(
            (&message["channel"], &message["data"]),
            (&expected.0.into(), &expected.1.into())
        );
        assert_eq!(message["id"], "order-7");
    }
    hub.node().publish(never.clone()).unwrap();
    hub.node().publish(never).unwrap();
    hub.publish("c", "4");
    assert_eq!(client.json()["data"], 3);
    assert_eq!(
        client.json()["data"],
        4,
        "also what is not stored comes once"
    );
}

#[test]
fn what_is_not_stored_is_live_only() {
    let hub = Hub::start();
    let (mut live, _) = Client::native(hub.address());
    live.subscribe("a", None);
    let start = hub.publish("a", "1");
    let passing = Publish {
        store: false,
        ..message("a", "2")
    };
    hub.node().publish(passing).unwrap();
    hub.publish("a", "3");
    for n in 1..=3 {
        assert_eq!(live.json()["data"], n);
    }
    let (mut late, _) = Client::native(hub.address());
    assert_eq!(late.subscribe("a", Some(&start))["recovered"], true);
    assert_eq!(late.json()["data"], 3);
    let page = hub.node().history(&channel_named("a"), 10, None).unwrap();
    let ids: Vec<&str> = page.entries.iter().map(|entry| &*entry.id).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
}

/// A long past goes out as it is read. What is told meanwhile overtakes it, and a pong says so: with it a client does not have all yet.
#[test]
fn what_overtakes_a_long_past() {
    let hub = Hub::with(&[("realtime.history_size", "10000")]);
    let before = hub.publish("a", "0");
    let filler = format!("\"{}\"", "x".repeat(4000));
    for _ in 0..4000 {
        hub.publish("a", &filler);
    }
    hub.publish("b", "1");
    let mut client = Client::narrow(hub.address());
    client.upgrade("/ws");
    let subscribe = |channel: &str| {
        format!(r#"{{"type":"subscribe","channel":"{channel}","since":"{before}"}}"#)
    };
    client.say(&subscribe("a"));
    hub.await_subscribers("a", 1);
    hub.publish("a", "2");
    // Asked behind it: the shard has it.
    hub.await_subscribers("a", 1);
    client.say(&subscribe("b"));
    hub.await_subscribers("b", 1);
    client.say(r#"{"type":"ping"}"#);
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let frame = client.json();
        if frame["data"].as_str().is_none() {
            let kind = frame["type"].as_str().unwrap();
            seen.push(format!("{kind} {}{}", frame["channel"], frame["data"]));
            assert_eq!(frame["behind"] == true, kind == "pong");
        }
    }
    // A message of `a` that is newer than the past of `b` comes before that.
    let expected = [
        r#"welcome nullnull"#,
        r#"subscribed "a"null"#,
        r#"subscribed "b"null"#,
        r#"pong nullnull"#,
        r#"message "a"2"#,
        r#"message "b"1"#,
    ];
    assert_eq!(seen, expected);
    assert!(client.ask(r#"{"type":"ping"}"#)["behind"].is_null());
}
