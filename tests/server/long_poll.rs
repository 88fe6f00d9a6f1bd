//! `/poll`: nothing is lost between two polls, with a session and without.

use realtime::backend::Interest;
use realtime::message::{EventName, Publish};
use serde_json::Value;

use crate::client::Client;
use crate::harness::{Hub, NONE, Seen, channel_named, json, message};

fn data(answer: &Value) -> Vec<i64> {
    let messages = answer["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|m| m["data"].as_i64().unwrap())
        .collect()
}

fn cursor(answer: &Value) -> &str {
    answer["cursor"].as_str().unwrap()
}

/// Begins a session on `a` and returns the query of its next polls.
fn session(client: &mut Client, query: &str) -> (Value, String) {
    let first = client
        .get(&format!("/poll?channel=a&session=1{query}"))
        .json();
    let text = |name: &str| first[name].as_str().unwrap().to_owned();
    let next = format!(
        "/poll?connection={}&key={}",
        text("connection"),
        text("key")
    );
    (first, next)
}

#[test]
fn a_poll_is_answered_at_once_when_there_is_something() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let first = client.get("/poll?channel=a&channel=b&timeout=0").json();
    assert_eq!(data(&first), [0i64; 0]);
    assert_eq!(first["recovered"], Value::Null);
    hub.publish("b", "1");
    hub.publish("a", "2");
    let path = format!("/poll?channel=a&channel=b&since={}", cursor(&first));
    let next = client.get(&path).json();
    assert_eq!(data(&next), [1, 2]);
    assert_eq!(next["recovered"], true);
    let message = &next["messages"][0];
    assert_eq!(
        (&message["type"], &message["channel"]),
        (&"message".into(), &"b".into())
    );
    assert_eq!(next["cursor"], next["messages"][1]["id"]);
}

#[test]
fn a_session_needs_no_channel() {
    let hub = Hub::start();
    let before = hub.publish("a", "1");
    let mut client = Client::connect(hub.address());
    let first = client.get("/poll?session=1&timeout=0").json();
    assert_eq!((data(&first), cursor(&first)), (vec![], &*before));
    let text = |name: &str| first[name].as_str().unwrap();
    let connection = text("connection").parse().unwrap();
    hub.node()
        .send(connection, json("5"), EventName::Message)
        .unwrap();
    let next = format!(
        "/poll?connection={}&key={}",
        text("connection"),
        text("key")
    );
    let answer = client.get(&format!("{next}&since={before}")).json();
    assert_eq!(data(&answer), [5]);
    hub.node().close(connection, 1000, String::new()).unwrap();
    let ended = client.get(&next);
    assert_eq!((ended.status, &*ended.code()), (404, "no_session"));
}

#[test]
fn a_waiting_poll_is_answered_by_the_next_message() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    client.send(b"GET /poll?channel=a HTTP/1.1\r\nHost: a\r\n\r\n");
    hub.await_subscribers("a", 1);
    hub.publish("other", "0");
    let id = hub.publish("a", "1");
    let answer = client.response(true).json();
    assert_eq!(data(&answer), [1]);
    assert_eq!(cursor(&answer), id);
    hub.await_subscribers("a", 0);
}

#[test]
fn a_poll_that_gets_nothing_moves_its_cursor_on() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    client.send(b"GET /poll?channel=a&timeout=3 HTTP/1.1\r\nHost: a\r\n\r\n");
    let other = hub.publish("other", "0");
    hub.await_subscribers("a", 0);
    let answer = client.response(true).json();
    assert_eq!(data(&answer), [0i64; 0]);
    // Published before or after the poll began: its cursor is never behind it.
    assert_eq!(cursor(&answer), other);
}

#[test]
fn what_the_history_has_lost_is_told() {
    let hub = Hub::with(&[("realtime.history_size", "2")]);
    let ids: Vec<String> = (1..=4).map(|n| hub.publish("a", &n.to_string())).collect();
    let mut client = Client::connect(hub.address());
    let short = client
        .get(&format!("/poll?channel=a&since={}", ids[0]))
        .json();
    assert_eq!(data(&short), [3, 4]);
    assert_eq!(short["recovered"], false);
    assert_eq!(short["oldest"], *ids[2]);
    for unknown in ["nonsense", "00000000-1", "ffffffff-99999999999"] {
        let answer = client
            .get(&format!("/poll?channel=a&since={unknown}"))
            .json();
        assert_eq!(answer["recovered"], false, "{unknown}");
        assert_eq!(data(&answer), [3, 4], "{unknown}");
    }
}

#[test]
fn a_past_larger_than_an_answer_comes_in_parts() {
    let hub = Hub::with(&[("realtime.max_backlog", "4K")]);
    let start = hub.publish("a", "0");
    let text = "x".repeat(1000);
    for n in 1..=20 {
        hub.publish("a", &format!("[{n},\"{text}\"]"));
    }
    for with_session in ["", "&session=1"] {
        let mut client = Client::connect(hub.address());
        let (mut since, mut seen, mut answers) = (start.clone(), Vec::new(), 0);
        let mut next: Option<String> = None;
        while seen.len() < 20 {
            let path = match &next {
                Some(next) => format!("{next}&timeout=5&since={since}"),
                None => format!("/poll?channel=a&timeout=5&since={since}{with_session}"),
            };
            let answer = client.get(&path).json();
            assert_eq!(answer["recovered"], true);
            let messages = answer["messages"].as_array().unwrap();
            assert!(!messages.is_empty());
            seen.extend(messages.iter().map(|m| m["data"][0].as_i64().unwrap()));
            since = cursor(&answer).to_owned();
            if let Some(key) = answer["key"].as_str() {
                let connection = answer["connection"].as_str().unwrap();
                next = Some(format!("/poll?connection={connection}&key={key}"));
            }
            answers += 1;
            if seen.len() == 20 && !with_session.is_empty() {
                assert!(
                    answer["connection"].is_string(),
                    "the present is reached: {answer}"
                );
            }
        }
        assert_eq!(seen, (1..=20).collect::<Vec<_>>());
        assert!(answers > 4, "{answers}");
    }
}

#[test]
fn a_message_that_no_backlog_holds_is_fetched_from_the_history() {
    let hub = Hub::with(&[("realtime.max_backlog", "4K")]);
    let mut client = Client::connect(hub.address());
    client.send(b"GET /poll?channel=a HTTP/1.1\r\nHost: a\r\n\r\n");
    hub.await_subscribers("a", 1);
    let mut id = String::new();
    hub.stall(|| {
        hub.publish("a", "1");
        id = hub.publish("a", &format!("\"{}\"", "x".repeat(5000)));
    });
    let first = client.response(true).json();
    assert_eq!(data(&first), [1]);
    let since = cursor(&first);
    let answer = client.get(&format!("/poll?channel=a&since={since}")).json();
    assert_eq!(answer["messages"][0]["id"], id);
    assert_eq!(cursor(&answer), id);
}

#[test]
fn nothing_is_lost_between_polls_under_load() {
    const COUNT: i64 = 1500;
    let hub = Hub::with(&[("realtime.history_size", "100000")]);
    std::thread::scope(|scope| {
        let pollers: Vec<_> = (0..4)
            .map(|n| {
                let hub = &hub;
                scope.spawn(move || {
                    let mut client = Client::connect(hub.address());
                    let start = "/poll?channel=load&timeout=0";
                    let mut since = cursor(&client.get(start).json()).to_owned();
                    hub.publish("ready", "1");
                    let mut seen = Vec::new();
                    while seen.last() != Some(&COUNT) {
                        if n % 2 == 0 {
                            client = Client::connect(hub.address());
                        }
                        let path = format!("/poll?channel=load&since={since}&timeout=10");
                        let answer = client.get(&path).json();
                        assert_eq!(answer["recovered"], true);
                        seen.extend(data(&answer));
                        since = cursor(&answer).to_owned();
                    }
                    assert_eq!(seen, (1..=COUNT).collect::<Vec<_>>());
                })
            })
            .collect();
        let ready = channel_named("ready");
        crate::harness::eventually("all pollers", || {
            hub.node().history(&ready, 10, None).unwrap().entries.len() == pollers.len()
        });
        for n in 1..=COUNT {
            hub.publish("load", &n.to_string());
            if n % 64 == 0 {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn a_session_keeps_what_comes_between_its_polls() {
    let hub = Hub::start();
    let everything = Interest {
        open: true,
        close: true,
        ..NONE
    };
    let (_php, seen) = hub.recording(everything);
    let mut client = Client::connect(hub.address());
    let (first, next) = session(&mut client, "&timeout=0");
    assert_eq!(data(&first), [0i64; 0]);
    let id = first["connection"].as_str().unwrap();
    assert_eq!(seen.recv().unwrap(), Seen::Open("poll", id.to_owned()));
    // Not kept in history: only the session can have it.
    let passing = Publish {
        store: false,
        ..message("a", "1")
    };
    hub.node().publish(passing).unwrap();
    let id = id.parse().unwrap();
    assert!(hub.node().send(id, json("2"), EventName::Message).unwrap());
    hub.await_subscribers("a", 1);
    let mut all = Vec::new();
    // Any connection may poll, so any thread of the server may be asked.
    while all.len() < 2 {
        all.extend(data(&Client::connect(hub.address()).get(&next).json()));
    }
    assert_eq!(all, [1, 2]);
    client.send(format!("GET {next} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    let last = hub.publish("a", "3");
    let answer = client.response(true).json();
    assert_eq!(data(&answer), [3]);
    assert_eq!(cursor(&answer), last);
    // Sent right before the end, they come with it.
    client.send(format!("GET {next} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    hub.node().send(id, json("4"), EventName::Message).unwrap();
    hub.node().close(id, 4000, "bye".into()).unwrap();
    assert_eq!(data(&client.response(true).json()), [4]);
    assert_eq!(seen.recv().unwrap(), Seen::Close(4000, "bye".into()));
    let gone = client.get(&next);
    assert_eq!((gone.status, &*gone.code()), (404, "no_session"));
}

#[test]
fn a_session_loses_nothing_under_load() {
    const COUNT: i64 = 2000;
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let (_, next) = session(&mut client, "&timeout=0");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=COUNT {
                let passing = Publish {
                    store: false,
                    ..message("a", &n.to_string())
                };
                hub.node().publish(passing).unwrap();
            }
        });
        let mut seen = Vec::new();
        while seen.last() != Some(&COUNT) {
            seen.extend(data(&client.get(&next).json()));
        }
        assert_eq!(seen, (1..=COUNT).collect::<Vec<_>>());
    });
}

#[test]
fn an_answer_that_was_lost_comes_again() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let (first, next) = session(&mut client, "&timeout=0");
    let publish = |text: &str| {
        let passing = Publish {
            store: false,
            ..message("a", text)
        };
        hub.node().publish(passing).unwrap();
    };
    publish("1");
    let since = |answer: &Value| format!("{next}&since={}", cursor(answer));
    let lost = client.get(&since(&first)).json();
    assert_eq!(data(&lost), [1]);
    let again = client.get(&since(&first)).json();
    assert_eq!(data(&again), [1]);
    publish("2");
    let more = client.get(&since(&again)).json();
    assert_eq!(data(&more), [2], "what has arrived does not");
    publish("3");
    let id = first["connection"].as_str().unwrap().parse().unwrap();
    crate::harness::eventually("the third", || {
        hub.node().send(id, json("4"), EventName::Message).unwrap()
    });
    let mut rest = Vec::new();
    while rest.len() < 2 {
        let answer = client.get(&since(&more)).json();
        rest = data(&answer);
    }
    assert_eq!(rest, [3, 4], "with what came meanwhile, in order");
}

#[test]
fn an_answer_that_was_lost_comes_again_to_who_stands_at_a_publishers_id() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let publish = |channels: &[&str], id: &str, text: &str| {
        let named = Publish {
            id: Some(id.into()),
            channels: channels.iter().map(|name| channel_named(name)).collect(),
            ..message("a", text)
        };
        hub.node().publish(named).unwrap();
    };
    publish(&["a"], "z1", "1");
    publish(&["a"], "z2", "2");
    hub.publish("other", "0");
    let (first, next) = session(&mut client, "&channel=b&since=z1&timeout=0");
    assert_eq!(data(&first), [2]);
    let mut poll = |since: &str| {
        let answer = client.get(&format!("{next}&timeout=0.3&since={since}"));
        data(&answer.json())
    };
    assert_eq!(poll("z1"), [2], "the first answer is like any other");
    assert_eq!(poll("z2"), [0i64; 0], "it has arrived");
    let id = first["connection"].as_str().unwrap().parse().unwrap();
    assert!(hub.node().send(id, json("9"), EventName::Message).unwrap());
    let mut direct = Vec::new();
    while direct.is_empty() {
        direct = poll("z2");
    }
    assert_eq!(direct, [9]);
    assert_eq!(poll("z2"), [0i64; 0], "what has no id comes once");
    publish(&["a", "b"], "z3", "3");
    publish(&["a"], "z4", "4");
    let mut lost = Vec::new();
    while lost.len() < 3 {
        lost = poll("z2");
    }
    assert_eq!(lost, [3, 3, 4]);
    assert_eq!(poll("z2"), [3, 3, 4]);
    assert_eq!(poll("of-another-epoch"), [3, 3, 4], "rather than lost");
    assert_eq!(poll("0badcafe-7"), [3, 3, 4], "rather than lost");
    assert_eq!(poll("z3"), [4], "what comes after it");
    assert_eq!(poll("z3"), [4]);
    assert_eq!(poll("z4"), [0i64; 0]);
    let last = hub.publish("a", "5");
    assert_eq!(poll("z4"), [5]);
    assert_eq!(poll("z4"), [5]);
    assert_eq!(poll(&last), [0i64; 0]);
}

#[test]
fn what_a_cache_channel_had_is_no_poll_from_the_past() {
    let hub = Hub::start();
    let newest = hub.publish("cache-a", "1");
    hub.publish("other", "0");
    let mut client = Client::connect(hub.address());
    let (first, next) = session(&mut client, "&channel=cache-a&timeout=0");
    assert_eq!(data(&first), [1]);
    hub.publish("a", "2");
    // By the id of the last that it has got, and not by the cursor.
    let path = format!("{next}&timeout=1&since={newest}");
    assert_eq!(data(&client.get(&path).json()), [2]);
}

#[test]
fn a_newer_poll_takes_the_place_of_an_older_one() {
    let hub = Hub::start();
    let mut old = Client::connect(hub.address());
    let (_, next) = session(&mut old, "&timeout=0");
    let poll = format!("GET {next}&timeout=60 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut new = Client::connect(hub.address());
    // Whichever of the two comes first, the other one waits for the message.
    old.send(poll.as_bytes());
    new.send(poll.as_bytes());
    hub.await_subscribers("a", 1);
    let (early, late) = std::thread::scope(|scope| {
        let answers =
            [&mut old, &mut new].map(|client| scope.spawn(|| data(&client.response(true).json())));
        crate::harness::eventually("one that gave way", || {
            answers.iter().any(|answer| answer.is_finished())
        });
        hub.publish("a", "1");
        let mut all = answers.map(|answer| answer.join().unwrap());
        all.sort();
        (all[0].clone(), all[1].clone())
    });
    assert_eq!((early, late), (vec![], vec![1]));
}

#[test]
fn a_session_takes_its_own_key_only() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let (first, next) = session(&mut client, "&timeout=0");
    let key = first["key"].as_str().unwrap();
    for wrong in ["", "0", "0000000000000000", "zz"] {
        let answer = client.get(&next.replace(key, wrong));
        assert_eq!(
            (answer.status, &*answer.code()),
            (404, "no_session"),
            "{wrong}"
        );
    }
    assert_eq!(client.get(&format!("{next}&timeout=0")).status, 200);
}

#[test]
fn a_session_that_is_not_fetched_ends_at_the_backlog_limit() {
    let hub = Hub::with(&[("realtime.max_backlog", "4K")]);
    let mut client = Client::connect(hub.address());
    let (first, next) = session(&mut client, "&timeout=0");
    let text = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..6 {
        hub.publish("a", &text);
    }
    hub.await_subscribers("a", 0);
    let gone = client.get(&next);
    assert_eq!((gone.status, &*gone.code()), (404, "no_session"));
    let mut since = cursor(&first).to_owned();
    let mut count = 0;
    while count < 6 {
        let answer = client
            .get(&format!("/poll?channel=a&timeout=5&since={since}"))
            .json();
        assert_eq!(answer["recovered"], true);
        count += answer["messages"].as_array().unwrap().len();
        since = cursor(&answer).to_owned();
    }
    assert_eq!(count, 6);
}

#[test]
fn a_stopping_server_answers_who_waits() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    client.send(b"GET /poll?channel=a HTTP/1.1\r\nHost: a\r\n\r\n");
    hub.await_subscribers("a", 1);
    drop(hub);
    assert_eq!(data(&client.response(true).json()), [0i64; 0]);
}
