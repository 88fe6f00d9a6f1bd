//! What a token opens.

use realtime::backend::Interest;
use serde_json::json as value;

use super::{hub, native, subscribe};
use crate::client::Client;
use crate::harness::{Hub, NONE, PATIENCE, Seen};
use crate::issuer::{SETTING, token};

#[test]
fn only_what_the_token_names_is_open() {
    let hub = hub();
    let mut client = native(
        &hub,
        &token(value!({
            "sub": "ada", "channels": ["private-user.ada", "presence-*"],
        })),
    );
    assert!(client.json()["expires"].as_u64().unwrap() > 50);
    assert_eq!(subscribe(&mut client, "private-user.ada"), "subscribed");
    assert_eq!(subscribe(&mut client, "presence-lobby"), "subscribed");
    assert_eq!(subscribe(&mut client, "private-user.bob"), "forbidden");
    assert_eq!(subscribe(&mut client, "private-user.ada2"), "forbidden");
    assert_eq!(subscribe(&mut client, "news"), "subscribed");
    let (mut anonymous, _) = Client::native(hub.address());
    assert_eq!(subscribe(&mut anonymous, "private-user.ada"), "forbidden");
}

#[test]
fn a_handler_is_asked_about_the_others_alone() {
    let hub = hub();
    let interest = Interest {
        subscribe: true,
        ..NONE
    };
    let (_php, seen) = hub.recording(interest);
    let mut client = native(&hub, &token(value!({"channels": "private-a"})));
    client.json();
    assert_eq!(subscribe(&mut client, "private-a"), "subscribed");
    assert_eq!(subscribe(&mut client, "private-b"), "subscribed");
    assert_eq!(
        seen.recv_timeout(PATIENCE).unwrap(),
        Seen::Subscribe("private-b".into())
    );
}

#[test]
fn a_token_lets_its_client_publish() {
    let hub = hub();
    let mut reader = native(&hub, &token(value!({"channels": "private-*"})));
    reader.json();
    subscribe(&mut reader, "private-room");
    let mut writer = native(
        &hub,
        &token(value!({"channels": "private-*", "publish": "private-room"})),
    );
    writer.json();
    subscribe(&mut writer, "private-room");
    let answer = writer.ask(
        r#"{"type":"publish","channel":"private-room","event":"said","data":{"a":1},"ref":1}"#,
    );
    assert_eq!(
        (&answer["type"], &answer["ref"]),
        (&"reply".into(), &1.into())
    );
    let message = reader.json();
    assert_eq!(
        (&message["event"], &message["data"]["a"]),
        (&"said".into(), &1.into())
    );
    assert!(message["id"].is_string());
    let refused = writer.ask(r#"{"type":"publish","channel":"private-other","data":1}"#);
    assert_eq!(refused["code"], "no_handler");
    let refused = reader.ask(r#"{"type":"publish","channel":"private-room","data":1}"#);
    assert_eq!(refused["code"], "no_handler");
    // Over HTTP, and from /raw.
    let posted = token(value!({"publish": "private-*"}));
    let head = format!("Content-Type: application/json\r\nAuthorization: Bearer {posted}\r\n");
    let body = r#"{"channel":"private-room","data":2}"#;
    let answer = Client::connect(hub.address()).request("POST", "/publish", &head, body);
    assert_eq!(
        (answer.status, &*answer.body),
        (200, r#"{"type":"reply","data":null}"#)
    );
    assert_eq!(reader.json()["data"], 2);
    assert_eq!(writer.json()["data"], 2, "nothing of its own came before");
    let all = token(value!({"channels": "*", "publish": "*"}));
    let mut raw = Client::websocket(hub.address(), &format!("/raw/private-room?token={all}"));
    raw.say("say \"three\"");
    assert_eq!(reader.json()["data"], "say \"three\"");
}

#[test]
fn client_events_are_for_subscribers_of_closed_channels() {
    let hub = Hub::with(&[SETTING, ("realtime.client_events", "1")]);
    let opens = || token(value!({"channels": "private-room"}));
    let (mut a, mut b, mut c) = (
        native(&hub, &opens()),
        native(&hub, &opens()),
        native(&hub, &opens()),
    );
    let welcome = a.json();
    b.json();
    c.json();
    subscribe(&mut a, "private-room");
    subscribe(&mut b, "private-room");
    let publish = |channel: &str, event: &str| {
        value!({"type": "publish", "channel": channel, "event": event, "data": 1, "ref": 1})
            .to_string()
    };
    assert_eq!(
        a.ask(&publish("private-room", "client-typing"))["type"],
        "reply"
    );
    assert_eq!(b.json()["event"], "client-typing");
    subscribe(&mut a, "news");
    // Not another's event name, not an open channel, not without being there.
    for (client, channel, event) in [
        (&mut a, "private-room", "typing"),
        (&mut b, "private-other", "client-typing"),
        (&mut c, "private-room", "client-typing"),
    ] {
        assert_eq!(client.ask(&publish(channel, event))["code"], "no_handler");
    }
    assert_eq!(
        a.ask(&publish("news", "client-typing"))["code"],
        "no_handler"
    );
    let body = value!({
        "channel": "private-room", "event": "client-typing", "data": 2,
        "connection": welcome["connection"], "key": welcome["key"],
    });
    assert_eq!(
        Client::connect(hub.address())
            .post(&body.to_string())
            .status,
        200
    );
    assert_eq!(b.json()["data"], 2);
    assert_eq!(
        hub.stats().history_messages,
        0,
        "they are for those who are there"
    );
}
