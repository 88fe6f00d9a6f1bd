//! `/ws`: the native protocol frame by frame, as php/docs/protocol.md has it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use realtime::backend::{Event, HandlerFailed};
use realtime::message::{EventName, Payload, Publish};
use serde_json::json as value;

use crate::client::{Client, masked};
use crate::harness::{Hub, MESSAGES, channel_named, json, message};

#[test]
fn the_welcome_says_who_and_how() {
    let hub = Hub::with(&[
        ("realtime.ping_interval", "7"),
        ("realtime.max_message_size", "1000"),
    ]);
    let (_client, welcome) = Client::native(hub.address());
    let key = welcome.key();
    assert!(key.len() == 16 && key.bytes().all(|b| b.is_ascii_hexdigit()));
    let expected = value!({
        "type": "welcome", "connection": welcome.connection(), "key": key,
        "version": 1, "ping": 7, "max_message_size": 1000,
    });
    assert_eq!(welcome.0, expected);
    let known = hub.node().connections(None).unwrap();
    assert_eq!(known[0].id, welcome.id());
}

#[test]
fn a_subscriber_gets_what_is_published() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    client.say(r#"{"type":"subscribe","channel":"news","ref":1}"#);
    let subscribed = client.frame();
    let start = r#"{"type":"subscribed","channel":"news","ref":1,"id":""#;
    assert!(subscribed.text().starts_with(start), "{subscribed:?}");
    assert!(!subscribed.text().contains("recovered"), "{subscribed:?}");
    let id = hub.publish("news", r#"{"a":1}"#);
    assert_eq!(
        client.frame().text(),
        format!(
            r#"{{"type":"message","channel":"news","event":"message","id":"{id}","data":{{"a":1}}}}"#
        )
    );
    let binary = Publish {
        payload: Payload::Binary(Bytes::from_static(&[0, 255])),
        event: EventName::new("said"),
        id: Some("own-7".into()),
        ..message("news", "")
    };
    assert_eq!(hub.node().publish(binary).unwrap(), "own-7");
    // Its own id does not tell its place: that is the number after the last one's.
    let (epoch, number) = id.split_once('-').unwrap();
    let cursor = format!("{epoch}-{}", number.parse::<u64>().unwrap() + 1);
    assert_eq!(
        client.frame().text(),
        format!(
            r#"{{"type":"message","channel":"news","event":"said","id":"own-7","cursor":"{cursor}","encoding":"base64","data":"AP8="}}"#
        )
    );
    let (mut late, _) = Client::native(hub.address());
    for (since, expected) in [(&*id, 1), (&cursor, 0), ("own-7", 0)] {
        let subscribed = late.subscribe("news", Some(since));
        assert_eq!(subscribed["recovered"], true, "{since}");
        for _ in 0..expected {
            assert_eq!(late.json()["cursor"], cursor);
        }
        let gone = late.ask(r#"{"type":"unsubscribe","channel":"news"}"#);
        assert_eq!(gone["type"], "unsubscribed", "{since}");
    }
}

#[test]
fn a_refused_name_comes_back_as_it_was_sent() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    for name in ["", "a b", "\u{e4}", &"x".repeat(201)] {
        let error = client.ask(&value!({"type": "subscribe", "channel": name}).to_string());
        assert_eq!(error["code"], "bad_channel");
        assert_eq!(error["channel"], name);
    }
    let error = client.ask(r#"{"type":"publish","channel":"a","event":"","ref":1}"#);
    assert_eq!(
        (&error["code"], &error["channel"], &error["ref"]),
        (&"bad_event".into(), &"a".into(), &1.into())
    );
    let error = client.ask(r#"{"type":"subscribe","channel":["a"]}"#);
    assert_eq!(error["code"], "bad_frame");
    assert!(error.get("channel").is_none(), "{error}");
}

#[test]
fn the_cursor_of_a_subscription_is_where_live_messages_begin() {
    let hub = Hub::start();
    let before = hub.publish("a", "1");
    let (mut client, _) = Client::native(hub.address());
    let subscribed = client.subscribe("a", None);
    assert_eq!(subscribed["id"], before);
    let again = client.subscribe("a", Some(&before));
    assert_eq!(again["type"], "subscribed", "twice is answered");
    hub.publish("a", "2");
    assert_eq!(client.json()["data"], 2);
    assert_eq!(client.ask(r#"{"type":"ping"}"#), value!({"type": "pong"}));
}

#[test]
fn refs_come_back_as_they_were_written() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    let long = format!("\"{}\"", "x".repeat(62));
    for reference in ["1", "-0.50e+1", "\"\\u0041\"", &long] {
        client.say(&format!(r#"{{"type":"ping","ref":{reference}}}"#));
        let expected = format!(r#"{{"type":"pong","ref":{reference}}}"#);
        assert_eq!(client.frame().text(), expected);
    }
    client.say(r#"{"type":"ping","ref":null}"#);
    assert_eq!(client.frame().text(), r#"{"type":"pong"}"#);
}

#[test]
fn unsubscribing_ends_the_messages() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("a", None);
    client.subscribe("b", None);
    let answer = client.ask(r#"{"type":"unsubscribe","channel":"a","ref":"u"}"#);
    assert_eq!(
        answer,
        value!({"type": "unsubscribed", "channel": "a", "ref": "u"})
    );
    hub.publish("a", "1");
    hub.publish("b", "2");
    assert_eq!(client.json()["data"], 2);
    let error = client.ask(r#"{"type":"unsubscribe","channel":"a","ref":2}"#);
    assert_eq!(error["code"], "not_subscribed");
    assert_eq!(error["channel"], "a");
    assert_eq!(error["ref"], 2);
}

#[test]
fn mistakes_get_an_error_frame_and_the_connection_stays() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    let deep = format!(
        r#"{{"type":"publish","channel":"a","data":{}1{}}}"#,
        "[".repeat(129),
        "]".repeat(129)
    );
    let long_ref = format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(63));
    let long_name = format!(r#"{{"type":"subscribe","channel":"{}"}}"#, "x".repeat(201));
    let cases = [
        ("", "bad_json"),
        ("nonsense", "bad_json"),
        ("[]", "bad_json"),
        ("\"subscribe\"", "bad_json"),
        (r#"{"type":"ping""#, "bad_json"),
        (r#"{"type":"ping"}{}"#, "bad_json"),
        (r#"{"type":"ping","ref":01}"#, "bad_json"),
        (&deep, "bad_json"),
        ("{}", "bad_frame"),
        (r#"{"type":7}"#, "bad_frame"),
        (r#"{"type":"ping","ref":{}}"#, "bad_frame"),
        (r#"{"type":"ping","ref":true}"#, "bad_frame"),
        (&long_ref, "bad_frame"),
        (r#"{"type":"subscribe"}"#, "bad_frame"),
        (r#"{"type":"subscribe","channel":["a"]}"#, "bad_frame"),
        (
            r#"{"type":"subscribe","channel":"a","since":1}"#,
            "bad_frame",
        ),
        (r#"{"type":"dance"}"#, "unknown_type"),
        (r#"{"type":"presence"}"#, "bad_frame"),
        (r#"{"type":"presence","channel":"a"}"#, "not_subscribed"),
        (
            r#"{"type":"publish","channel":"a","event":"realtime.join"}"#,
            "bad_event",
        ),
        (r#"{"type":"subscribe","channel":""}"#, "bad_channel"),
        (r#"{"type":"subscribe","channel":"a b"}"#, "bad_channel"),
        (r#"{"type":"subscribe","channel":"a*"}"#, "bad_channel"),
        (r#"{"type":"subscribe","channel":"\u00e4"}"#, "bad_channel"),
        (&long_name, "bad_channel"),
        (
            r#"{"type":"publish","channel":"a","event":""}"#,
            "bad_event",
        ),
        (
            r#"{"type":"publish","channel":"a","event":"a\n"}"#,
            "bad_event",
        ),
        (r#"{"type":"publish","channel":"a"}"#, "no_handler"),
        (r#"{"type":"subscribe","channel":"private-a"}"#, "forbidden"),
        (
            r#"{"type":"subscribe","channel":"presence-a"}"#,
            "forbidden",
        ),
    ];
    for (text, code) in cases {
        let error = client.ask(text);
        assert_eq!(error["type"], "error", "{text}");
        assert_eq!(error["code"], code, "{text}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{text}");
    }
    client.send(&masked(0x82, b"{}"));
    assert_eq!(client.json()["code"], "bad_frame");
    let error = client.ask(r#"{"type":"dance","ref":"r"}"#);
    assert_eq!(error["ref"], "r");
    assert_eq!(client.ask(r#"{"type":"ping"}"#)["type"], "pong");
}

#[test]
fn a_publish_goes_to_php_and_its_reply_comes_back() {
    let hub = Hub::start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let _php = hub.php(MESSAGES, move |node, event| {
        let Event::Message { message, reply_to } = event else {
            panic!("{event:?}")
        };
        let event = message.event.as_str().to_owned();
        log.lock().unwrap().push(message.number);
        let outcome = match &*event {
            "echo" => match message.data {
                realtime::message::Incoming::Json(data) => Ok(Some(Payload::Json(data))),
                other => panic!("{other:?}"),
            },
            "quiet" => Ok(None),
            "fail" => Err(HandlerFailed),
            other => panic!("{other}"),
        };
        node.reply(reply_to, outcome);
    });
    let (mut client, _) = Client::native(hub.address());
    let publish = |event: &str, more: &str| {
        format!(r#"{{"type":"publish","channel":"chat","event":"{event}"{more}}}"#)
    };
    client.say(&publish("echo", r#","data":{"x": [1.0]},"ref":3"#));
    assert_eq!(
        client.frame().text(),
        r#"{"type":"reply","ref":3,"data":{"x": [1.0]}}"#
    );
    client.say(&publish("echo", r#","data":1"#));
    assert_eq!(client.frame().text(), r#"{"type":"reply","data":1}"#);
    client.say(&publish("quiet", r#","ref":4"#));
    assert_eq!(
        client.frame().text(),
        r#"{"type":"reply","ref":4,"data":null}"#
    );
    // Without a ref and with nothing to say, nothing comes: the next answer is the failure's.
    client.say(&publish("quiet", ""));
    let error = client.ask(&publish("fail", r#","ref":5"#));
    assert_eq!(error["code"], "handler_failed");
    assert_eq!(error["ref"], 5);
    assert_eq!(client.ask(&publish("fail", ""))["code"], "handler_failed");
    let numbers = seen.lock().unwrap();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(numbers.len(), 6);
}

#[test]
fn php_steers_a_connection() {
    let hub = Hub::start();
    let (mut client, welcome) = Client::native(hub.address());
    let (node, id) = (hub.node(), welcome.id());
    assert!(node.send(id, json("[1]"), EventName::new("hint")).unwrap());
    assert_eq!(
        client.frame().text(),
        r#"{"type":"message","event":"hint","data":[1]}"#
    );
    assert!(node.subscribe(id, channel_named("private-a")).unwrap());
    let subscribed = client.json();
    assert_eq!(subscribed["type"], "subscribed");
    assert_eq!(subscribed["channel"], "private-a");
    hub.publish("private-a", "7");
    assert_eq!(client.json()["data"], 7);
    assert!(node.unsubscribe(id, channel_named("private-a")).unwrap());
    assert!(!node.unsubscribe(id, channel_named("private-a")).unwrap());
    assert_eq!(
        client.json(),
        value!({"type": "unsubscribed", "channel": "private-a"})
    );
    node.send(id, json("2"), EventName::Message).unwrap();
    assert!(node.close(id, 4321, "enough".into()).unwrap());
    node.send(id, json("3"), EventName::Message).unwrap();
    assert_eq!(client.json()["data"], 2, "what waited is still sent");
    assert_eq!(client.frame().close(), (4321, "enough"));
    client.send(&masked(0x88, &4321u16.to_be_bytes()));
    assert!(client.is_ended());
    hub.await_subscribers("private-a", 0);
    crate::harness::eventually("the end", || node.connection_count() == 0);
    assert!(!node.send(id, json("4"), EventName::Message).unwrap());
    assert!(!node.close(id, 1000, String::new()).unwrap());
    assert!(!node.subscribe(id, channel_named("b")).unwrap());
}

#[test]
fn except_leaves_out_one_alone() {
    let hub = Hub::start();
    let (mut author, welcome) = Client::native(hub.address());
    let (mut other, _) = Client::native(hub.address());
    author.subscribe("chat", None);
    other.subscribe("chat", None);
    let to_others = Publish {
        except: Some(welcome.id()),
        ..message("chat", "1")
    };
    hub.node().publish(to_others).unwrap();
    hub.publish("chat", "2");
    assert_eq!(author.json()["data"], 2);
    assert_eq!(other.json()["data"], 1);
    assert_eq!(other.json()["data"], 2);
}
