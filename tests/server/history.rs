//! A channel's history page by page, both ways, while others publish and the oldest is forgotten; and who may see it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use realtime::broker::Walk;
use realtime::control::client::Client as Link;
use realtime::message::Publish;
use realtime::node::{Failure, HistoryPage};
use serde_json::{Value, json as value};

use crate::client::{Client, handshake};
use crate::harness::{Hub, PATIENCE, Stop, channel_named, message};
use crate::issuer::{SETTING, token};

/// The numbers in a page.
fn numbers(page: &HistoryPage) -> Vec<u64> {
    let data = |entry: &realtime::node::HistoryEntry| match &entry.payload {
        realtime::message::Payload::Json(json) => serde_json::from_slice(json).unwrap(),
        other => panic!("{other:?}"),
    };
    page.entries.iter().map(data).collect()
}

#[test]
fn pages_both_ways() {
    let hub = Hub::with(&[("realtime.history_size", "25")]);
    for n in 1..=30 {
        hub.publish("a", &n.to_string());
        hub.publish("b", "0");
    }
    let a = channel_named("a");
    let mut link = Link::connect(&hub.socket(), PATIENCE).unwrap();
    let newest = link.history(&a, 10, Walk::Newest).unwrap();
    assert_eq!(numbers(&newest), (21..=30).collect::<Vec<_>>());
    assert!(newest.more && newest.recovered);
    let mut seen = numbers(&newest);
    let mut page = newest;
    let mut pages = 1;
    while page.more {
        let before = page.entries[0].id.clone();
        page = link.history(&a, 10, Walk::Before(&before)).unwrap();
        assert!(page.recovered);
        seen.splice(0..0, numbers(&page));
        pages += 1;
    }
    assert_eq!(seen, (6..=30).collect::<Vec<_>>());
    assert_eq!(pages, 3);
    let first = page.entries[0].id.clone();
    let none = link.history(&a, 10, Walk::Before(&first)).unwrap();
    assert!(none.entries.is_empty() && none.recovered && !none.more);
    let mut seen = vec![6];
    let mut since = first;
    loop {
        let page = link.history(&a, 10, Walk::After(&since)).unwrap();
        seen.extend(numbers(&page));
        let Some(last) = page.entries.last() else {
            break;
        };
        assert_eq!(page.more, *seen.last().unwrap() < 30);
        since = last.id.clone();
    }
    assert_eq!(seen, (6..=30).collect::<Vec<_>>());
    for walk in [Walk::After("00000000-1"), Walk::Before("unknown")] {
        let page = link.history(&a, 10, walk).unwrap();
        assert!(!page.recovered && page.oldest.is_some(), "{walk:?}");
    }
    let empty = link.history(&channel_named("c"), 10, Walk::Newest).unwrap();
    assert!(empty.entries.is_empty() && empty.recovered && !empty.more);
}

#[test]
fn pages_by_the_publishers_own_ids() {
    let hub = Hub::start();
    for n in 1..=9 {
        let own = Publish {
            id: Some(format!("own-{n}").into()),
            ..message("a", &n.to_string())
        };
        hub.node().publish(own).unwrap();
    }
    let a = channel_named("a");
    let page = |walk| hub.node().history(&a, 3, walk).unwrap();
    let before = page(Walk::Before("own-7"));
    assert_eq!(numbers(&before), [4, 5, 6]);
    assert_eq!(before.entries[0].id, "own-4");
    assert_eq!(numbers(&page(Walk::After("own-7"))), [8, 9]);
}

/// Two readers walk, one to the past and one to the present, while messages are published and forgotten.
#[test]
fn a_walk_sees_each_message_once_while_others_publish_and_the_oldest_is_forgotten() {
    const KEPT: u64 = 500;
    let hub = Hub::with(&[("realtime.history_size", "500")]);
    let (stop, published) = (AtomicBool::new(false), AtomicUsize::new(0));
    for n in 0..KEPT {
        hub.publish("a", &n.to_string());
    }
    let a = channel_named("a");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = KEPT;
            while !stop.load(Ordering::SeqCst) {
                hub.publish("a", &n.to_string());
                published.store(n as usize, Ordering::SeqCst);
                n += 1;
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let _stopping = Stop(&stop);
        for turn in 0..60 {
            let mut link = Link::connect(&hub.socket(), PATIENCE).unwrap();
            let mut page = link.history(&a, 7, Walk::Newest).unwrap();
            let mut seen = numbers(&page);
            while let Some(first) = page.entries.first() {
                let before = first.id.clone();
                page = link.history(&a, 7, Walk::Before(&before)).unwrap();
                assert!(page.recovered, "turn {turn}");
                seen.splice(0..0, numbers(&page));
            }
            // No gap and no double; how far back it reached depends on who was faster.
            assert!(
                seen.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                "turn {turn}: {seen:?}"
            );
            let newest = link.history(&a, 1, Walk::Newest).unwrap();
            let (mut since, mut last) = (newest.entries[0].id.clone(), numbers(&newest)[0]);
            for _ in 0..20 {
                let page = link.history(&a, 7, Walk::After(&since)).unwrap();
                if !page.recovered {
                    // It was overtaken, and is told.
                    assert!(page.oldest.is_some());
                    break;
                }
                for number in numbers(&page) {
                    assert_eq!(number, last + 1, "turn {turn}");
                    last = number;
                }
                if let Some(entry) = page.entries.last() {
                    since = entry.id.clone();
                }
            }
        }
    });
    assert!(published.load(Ordering::SeqCst) > 0);
}

fn get(hub: &Hub, path: &str) -> Value {
    let answer = Client::connect(hub.address()).get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

#[test]
fn over_http() {
    let hub = Hub::with(&[("realtime.history_size", "9")]);
    let ids: Vec<String> = (1..=12).map(|n| hub.publish("a", &n.to_string())).collect();
    let data = |answer: &Value| -> Vec<u64> {
        let messages = answer["messages"].as_array().unwrap().iter();
        messages.map(|it| it["data"].as_u64().unwrap()).collect()
    };
    let newest = get(&hub, "/history?channel=a&limit=4");
    assert_eq!(data(&newest), [9, 10, 11, 12]);
    assert_eq!(
        newest["messages"][0],
        value!({"type": "message", "channel": "a", "event": "message", "id": ids[8], "data": 9})
    );
    assert_eq!(
        (&newest["more"], newest.get("recovered")),
        (&true.into(), None)
    );
    let older = get(
        &hub,
        &format!("/history?channel=a&limit=4&before={}", ids[8]),
    );
    assert_eq!(data(&older), [5, 6, 7, 8]);
    let oldest = get(
        &hub,
        &format!("/history?channel=a&limit=4&before={}", ids[4]),
    );
    assert_eq!(
        (data(&oldest), &oldest["more"], &oldest["recovered"]),
        (vec![4], &false.into(), &true.into())
    );
    let newer = get(
        &hub,
        &format!("/history?channel=a&limit=4&since={}", ids[4]),
    );
    assert_eq!(
        (data(&newer), &newer["more"]),
        (vec![6, 7, 8, 9], &true.into())
    );
    let gap = get(
        &hub,
        &format!("/history?channel=a&limit=4&since={}", ids[0]),
    );
    assert_eq!(
        (&gap["recovered"], &gap["oldest"]),
        (&false.into(), &ids[3].clone().into())
    );
    assert_eq!(data(&get(&hub, "/history?channel=a")).len(), 9);
    for (query, code) in [
        ("", "bad_channel"),
        ("channel=a&channel=b", "bad_channel"),
        ("channel=a&limit=0", "bad_limit"),
        ("channel=a&limit=1001", "bad_limit"),
        ("channel=a&limit=x", "bad_limit"),
        ("channel=a&since=x&before=x", "bad_limit"),
    ] {
        let refused = Client::connect(hub.address()).get(&format!("/history?{query}"));
        assert_eq!((refused.status, &*refused.code()), (400, code), "{query}");
    }
}

#[test]
fn an_answer_has_a_size_and_says_that_there_is_more() {
    let hub = Hub::with(&[("realtime.max_backlog", "1K")]);
    let ids: Vec<String> = (1..=5)
        .map(|n| hub.publish("a", &format!("\"{n} {}\"", "x".repeat(400))))
        .collect();
    let first = |answer: &Value| -> Vec<String> {
        let messages = answer["messages"].as_array().unwrap().iter();
        messages
            .map(|it| it["data"].as_str().unwrap()[..1].to_owned())
            .collect()
    };
    let newest = get(&hub, "/history?channel=a");
    assert_eq!(
        (first(&newest), &newest["more"]),
        (vec!["4".to_owned(), "5".to_owned()], &true.into())
    );
    let newer = get(&hub, &format!("/history?channel=a&since={}", ids[0]));
    assert_eq!(
        (first(&newer), &newer["more"]),
        (vec!["2".to_owned(), "3".to_owned()], &true.into())
    );
}

#[test]
fn only_who_may_subscribe_sees_it() {
    let hub = Hub::with(&[SETTING]);
    hub.publish("private-a", "1");
    let mine = token(value!({"sub": "ada", "channels": ["private-a", "presence-*"]}));
    for path in ["/history?channel=private-a", "/presence?channel=presence-a"] {
        let refused = Client::connect(hub.address()).get(path);
        assert_eq!(
            (refused.status, &*refused.code()),
            (403, "forbidden"),
            "{path}"
        );
        let foreign = format!("Origin: https://evil.example\r\nAuthorization: Bearer {mine}\r\n");
        let refused = Client::connect(hub.address()).request("GET", path, &foreign, "");
        assert_eq!(
            (refused.status, &*refused.code()),
            (403, "bad_origin"),
            "{path}"
        );
    }
    assert_eq!(
        get(&hub, &format!("/history?channel=private-a&token={mine}"))["messages"][0]["data"],
        1
    );
    let path = format!("/presence?channel=presence-a&token={mine}");
    assert_eq!(
        get(&hub, &path),
        value!({"members": []}),
        "looking is not being there"
    );
    let mut ada = Client::connect(hub.address());
    ada.send(handshake(&format!("/raw/presence-a?token={mine}"), "").as_bytes());
    assert!(ada.head().starts_with("HTTP/1.1 101 "));
    hub.await_subscribers("presence-a", 1);
    assert_eq!(get(&hub, &path), value!({"members": [{"user": "ada"}]}));
}

#[test]
fn an_id_that_any_server_may_have_given_is_no_publishers() {
    let earlier = Hub::start();
    let given = earlier.publish("a", "1");
    drop(earlier);
    let hub = Hub::start();
    let named = |id: &str| Publish {
        id: Some(id.into()),
        ..message("a", "1")
    };
    // Whoever stands at it has got something else, and is to be told that it is not known here.
    let refused = hub.node().publish(named(&given));
    assert!(
        matches!(refused, Err(Failure::Invalid(_))),
        "{given}: {refused:?}"
    );
    // A date and a number are something that publishers have.
    assert_eq!(
        hub.node().publish(named("20261123-42")).unwrap(),
        "20261123-42"
    );
}
