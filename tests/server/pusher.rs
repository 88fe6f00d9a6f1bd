//! `/app` and `/apps`: the Pusher protocol byte by byte. What its own libraries make of it is tested by tests/protocols.

mod api;
mod subscriptions;

use realtime::config::{App, Apps};
use realtime::message::{EventName, Publish, Transport};
use realtime::pusher::auth;
use serde_json::{Value, json as value};

use crate::client::{Client, masked};
use crate::harness::{Hub, MESSAGES, eventually, message};

const APP: &str = "4711:a-key:a-secret-of-the-tests";

fn app() -> App {
    let apps = Apps::parse(APP).unwrap();
    (**apps.first().unwrap()).clone()
}

fn hub(more: &[(&str, &str)]) -> Hub {
    let settings = [
        &[("realtime.pusher_app", APP), ("realtime.threads", "2")],
        more,
    ]
    .concat();
    Hub::with(&settings)
}

/// The next frame, with its data decoded.
fn next(client: &mut Client) -> Value {
    let mut frame: Value = serde_json::from_str(client.frame().text()).unwrap();
    if let Some(data) = frame["data"].as_str() {
        frame["data"] = serde_json::from_str(data).unwrap_or_else(|_| data.into());
    }
    frame
}

/// A connected client and its socket_id.
fn connect(hub: &Hub) -> (Client, String) {
    let mut client = Client::websocket(hub.address(), "/app/a-key?protocol=7&client=test");
    let welcome = next(&mut client);
    assert_eq!(welcome["event"], "pusher:connection_established");
    let socket_id = welcome["data"]["socket_id"].as_str().unwrap().to_owned();
    (client, socket_id)
}

fn subscribe(client: &mut Client, data: &Value) {
    client.say(&value!({ "event": "pusher:subscribe", "data": data }).to_string());
}

fn subscribed(hub: &Hub, channel: &str) -> Client {
    let (mut client, _) = connect(hub);
    subscribe(&mut client, &value!({ "channel": channel }));
    let answer = next(&mut client);
    assert_eq!(
        answer["event"], "pusher_internal:subscription_succeeded",
        "{answer}"
    );
    client
}

#[test]
fn a_message_is_an_event_with_its_data_in_a_string() {
    let hub = hub(&[]);
    let mut client = subscribed(&hub, "news");
    let publish = Publish {
        event: EventName::new("said"),
        ..message("news", r#"{"a":"ä\n"}"#)
    };
    let id = hub.node().publish(publish).unwrap();
    let expected =
        format!(r#"{{"event":"said","channel":"news","data":"{{\"a\":\"ä\\n\"}}","id":"{id}"}}"#);
    assert_eq!(client.frame().text(), expected);
    assert_eq!(hub.stats().by_transport[Transport::Pusher.index()], 1);
}

#[test]
fn what_is_no_event_is_an_error_and_no_end() {
    let hub = hub(&[]);
    let mut other = subscribed(&hub, "news");
    let (mut client, _) = connect(&hub);
    let deep = format!(
        r#"{{"event":"client-x","channel":"a","data":{}"#,
        "[".repeat(5000)
    );
    let nonsense = [
        "",
        "\u{0}",
        "null",
        "7",
        "\"pusher:ping\"",
        "[1]",
        "{",
        r#"{"event":null}"#,
        r#"{"event":"pusher:subscribe","data":[]}"#,
        r#"{"event":"pusher:subscribe","data":"\"x\""}"#,
        r#"{"event":"pusher:signin","data":{}}"#,
        r#"{"event":"pusher:dance"}"#,
        &deep,
    ];
    for text in nonsense {
        client.say(text);
        let error = next(&mut client);
        assert_eq!(
            (&error["event"], &error["data"]["code"]),
            (&"pusher:error".into(), &Value::Null),
            "{text}"
        );
        hub.publish("news", "1");
        assert_eq!(next(&mut other)["data"], 1);
    }
    // Reserved and impossible names.
    for name in ["", "a b", "#server-to-user-ada", "#x", &"x".repeat(201)] {
        subscribe(&mut client, &value!({ "channel": name }));
        assert_eq!(
            next(&mut client)["event"],
            "pusher:subscription_error",
            "{name}"
        );
        assert_eq!(next(&mut client)["event"], "pusher:error", "{name}");
    }
    client.send(&masked(0x82, b"binary"));
    assert_eq!(next(&mut client)["event"], "pusher:error");
    client.say(r#"{"event":"pusher:ping","data":{}}"#);
    assert_eq!(next(&mut client)["event"], "pusher:pong");
    client.say(&format!("\"{}\"", "x".repeat(70_000)));
    assert_eq!(client.frame().close().0, 1009);
}

#[test]
fn presence_needs_to_know_who() {
    let hub = hub(&[
        ("realtime.presence_info", "100"),
        ("realtime.presence_members", "2"),
    ]);
    let (mut client, id) = connect(&hub);
    let join = |client: &mut Client, data: &str| {
        let auth = auth::sign_channel(&app(), &id, "presence-a", Some(data));
        subscribe(
            client,
            &value!({ "channel": "presence-a", "auth": auth, "channel_data": data }),
        );
        next(client)
    };
    let long = format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "x".repeat(100));
    for bad in [
        "",
        "nonsense",
        "[]",
        "[7]",
        "{}",
        r#"{"user_id":null}"#,
        r#"{"user_id":""}"#,
        &long,
    ] {
        let answer = join(&mut client, bad);
        assert_eq!(answer["event"], "pusher:subscription_error", "{bad}");
        assert_eq!(next(&mut client)["event"], "pusher:error");
    }
    let answer = join(&mut client, r#"{"user_id":7,"user_info":{"a":1}}"#);
    let expected =
        value!({ "presence": { "count": 1, "ids": ["7"], "hash": { "7": { "a": 1 } } } });
    assert_eq!(answer["data"], expected);
    // Twice is a mistake of the client's.
    let again = join(&mut client, r#"{"user_id":7}"#);
    assert_eq!(
        (&again["event"], &again["data"]["status"]),
        (&"pusher:subscription_error".into(), &400.into())
    );
}

#[test]
fn who_reads_too_slowly_comes_back_at_once() {
    let hub = hub(&[
        ("realtime.max_backlog", "1K"),
        ("realtime.max_message_size", "1M"),
    ]);
    let mut client = Client::with_receive_buffer(hub.address(), Some(2048));
    client.upgrade("/app/a-key?protocol=7");
    next(&mut client);
    subscribe(&mut client, &value!({ "channel": "much" }));
    next(&mut client);
    let large = format!("\"{}\"", "x".repeat(500_000));
    eventually("somebody is too slow", || {
        hub.publish("much", &large);
        hub.stats().dropped_slow == 1
    });
    loop {
        let frame = client.frame();
        if frame.opcode == 8 {
            assert_eq!(frame.close().0, 4200);
            break;
        }
    }
}

#[test]
fn a_stopping_server_says_so() {
    let hub = hub(&[]);
    let (mut client, _) = connect(&hub);
    drop(hub);
    assert_eq!(client.frame().close().0, 1001);
}

#[test]
fn a_client_event_without_the_setting_is_phps() {
    let hub = hub(&[]);
    let (mut client, id) = connect(&hub);
    let auth = auth::sign_channel(&app(), &id, "private-a", None);
    subscribe(
        &mut client,
        &value!({ "channel": "private-a", "auth": auth }),
    );
    next(&mut client);
    let say = r#"{"event":"client-x","channel":"private-a","data":{"a":1}}"#;
    client.say(say);
    let error = next(&mut client);
    let text = error["data"]["message"].as_str().unwrap();
    assert!(text.contains("realtime.client_events"), "{text}");
    let (_php, seen) = hub.recording(MESSAGES);
    client.say(say);
    let seen = seen.recv_timeout(crate::harness::PATIENCE).unwrap();
    assert!(format!("{seen:?}").contains("private-a"), "{seen:?}");
}

#[test]
fn where_no_app_can_be_there_is_nothing() {
    let hub = hub(&[]);
    for path in ["/app/", "/app/a-key/more", "/app//a-key"] {
        let mut client = Client::websocket(hub.address(), &format!("{path}?protocol=7"));
        let error = next(&mut client);
        assert_eq!(
            (&error["event"], &error["data"]["code"]),
            (&"pusher:error".into(), &4005.into()),
            "{path}"
        );
        assert_eq!(client.frame().close().0, 4005, "{path}");
    }
}
