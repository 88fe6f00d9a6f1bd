//! Clients that say where they stand.

use std::time::Duration;

use realtime::message::Publish;

use super::{HUB, open_hub, publish, subscribe};
use crate::client::{Client, header};
use crate::harness::{Hub, channel_named, message};

/// What a client that says where it stands is told, and the data that it gets until `end`.
fn resumed(hub: &Hub, query: &str, more: &str) -> (String, Vec<String>) {
    let mut client = Client::connect(hub.address());
    let path = format!("{HUB}?{query}");
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{more}\r\n").as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client.chunk_with("retry");
    hub.publish("a", "\"end\"");
    let mut all = Vec::new();
    loop {
        let event = client.chunk().unwrap();
        let data = event.trim_end().rsplit("data: ").next().unwrap();
        if data == "end" {
            return (
                header(&head, "Last-Event-ID").unwrap_or("-").to_owned(),
                all,
            );
        }
        all.push(data.to_owned());
    }
}

#[test]
fn a_client_says_where_it_stands() {
    let hub = open_hub(&[("realtime.history_size", "4")]);
    let ids: Vec<String> = [("a", 1), ("b", 2), ("a", 3)]
        .map(|(topic, n)| publish(&hub, &format!("topic={topic}&data={n}")))
        .into();
    publish(&hub, "topic=b&data=4&id=own");
    let none = (ids[0].clone(), vec!["3".to_owned()]);
    assert_eq!(
        resumed(&hub, &format!("topic=a&lastEventID={}", ids[0]), ""),
        none
    );
    // Of all histories, not of one channel's. By now there is an "end" of the last client.
    let (id, data) = resumed(&hub, &format!("topic=*&lastEventID={}", ids[0]), "");
    assert_eq!(
        (id, &data[..]),
        (ids[0].clone(), &["2", "3", "4"].map(String::from)[..])
    );
}

#[test]
fn ids_of_all_kinds() {
    let start = |size| {
        let hub = open_hub(&[("realtime.history_size", size)]);
        let ids: Vec<String> = [("b", "1"), ("a", "2"), ("b", "3&id=own"), ("a", "4")]
            .map(|(topic, data)| publish(&hub, &format!("topic={topic}&data={data}")))
            .into();
        (hub, ids)
    };
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    for query in ["topic=a&topic=b", "topic=*", "topic=%7Bx%7D"] {
        let (hub, ids) = start("100");
        let more = format!("Last-Event-ID: {}\r\n", ids[1]);
        let expected = (ids[1].clone(), texts(&["3", "4"]));
        let before_header = format!("{query}&lastEventID=earliest");
        assert_eq!(resumed(&hub, &before_header, &more), expected);
        let (hub, _) = start("100");
        let expected = ("own".to_owned(), texts(&["4"]));
        assert_eq!(
            resumed(&hub, &format!("{query}&lastEventID=own"), ""),
            expected
        );
        for unknown in [
            "earliest",
            "never",
            "urn:uuid:00000000-0000-8000-8000-000000000001",
        ] {
            let (hub, _) = start("100");
            let expected = ("earliest".to_owned(), texts(&["1", "2", "3", "4"]));
            assert_eq!(
                resumed(&hub, &format!("{query}&lastEventID={unknown}"), ""),
                expected
            );
        }
        // Some is no longer there: the answer is the newest that is not.
        let (hub, ids) = start("1");
        let found = resumed(&hub, &format!("{query}&lastEventID={}", ids[0]), "");
        assert_eq!(found, (ids[1].clone(), texts(&["3", "4"])), "{query}");
        // The native id of a message is as good.
        let (hub, _) = start("100");
        let native = hub.publish("b", "5");
        hub.publish("a", "6");
        let expected = (native.clone(), texts(&["6"]));
        assert_eq!(
            resumed(&hub, &format!("{query}&lastEventID={native}"), ""),
            expected
        );
    }
    let empty = open_hub(&[]);
    let expected = ("earliest".to_owned(), texts(&[]));
    assert_eq!(
        resumed(&empty, "topic=a&lastEventID=earliest", ""),
        expected
    );
}

#[test]
fn nothing_is_lost_between_past_and_present() {
    let hub = open_hub(&[
        ("realtime.history_size", "100000"),
        ("realtime.max_backlog", "64M"),
    ]);
    hub.publish("t/0", "0");
    let node = hub.node().clone();
    let publishing = std::thread::spawn(move || {
        for n in 1..20_000 {
            node.publish(message(&format!("t/{}", n % 7), &n.to_string()))
                .unwrap();
        }
    });
    let mut clients: Vec<Client> = (0..8)
        .map(|n| {
            std::thread::sleep(Duration::from_millis(3));
            let topic = if n % 2 == 0 { "t%7B/n%7D" } else { "*" };
            subscribe(&hub, &format!("topic={topic}&lastEventID=earliest"), None)
        })
        .collect();
    publishing.join().unwrap();
    for client in &mut clients {
        let mut next = 0;
        while next < 20_000 {
            for data in client
                .chunk()
                .unwrap()
                .lines()
                .filter_map(|l| l.strip_prefix("data: "))
            {
                assert_eq!(data, next.to_string());
                next += 1;
            }
        }
    }
}

#[test]
fn a_publishers_id_stands_for_the_first_of_its_copies_that_the_client_follows() {
    let hub = open_hub(&[]);
    let copies = Publish {
        channels: ["b", "a", "c"].map(channel_named).to_vec(),
        id: Some("own".into()),
        ..message("b", "1")
    };
    hub.node().publish(copies).unwrap();
    hub.publish("a", "2");
    let told = |query: &str| resumed(&hub, &format!("{query}&lastEventID=own"), "").1;
    // Cut off after the first copy, it has not got the second.
    for query in [
        "topic=a&topic=b",
        "topic=a&topic=b%7Bx%7D",
        "topic=a%7Bx%7D&topic=b",
        "topic=*",
    ] {
        let copies = if query == "topic=*" { 2 } else { 1 };
        let all = told(query);
        assert_eq!(
            all.iter().filter(|data| *data == "1").count(),
            copies,
            "{query}: {all:?}"
        );
    }
    // And what it has got does not come again.
    for query in ["topic=a", "topic=a%7Bx%7D", "topic=a&topic=d%7Bx%7D"] {
        assert!(!told(query).contains(&"1".to_owned()), "{query}");
    }
}
