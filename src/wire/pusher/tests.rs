//! Both ways, and what is neither.

use bytes::Bytes;

use super::*;
use crate::message::{EventName, Payload};
use crate::wire::Outgoing;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn data_comes_back_as_it_was_published() {
    for data in [
        "hello",
        "",
        "5",
        r#"{"a": [1.0, "x"]}"#,
        "null",
        "\"",
        "{broken",
        "\u{0}\u{1f600}",
    ] {
        assert_eq!(super::data(&payload(data)), data);
    }
    let Payload::Json(json) = payload("hello") else {
        panic!("not JSON")
    };
    assert_eq!(&json[..], b"\"hello\"");
    // A string of PHP's that would be taken for a number.
    let five = Payload::Json(Bytes::from_static(b"\"5\""));
    assert_eq!(super::data(&five), "\"5\"");
    // What a JSON string says may be written in two ways.
    assert_eq!(super::data(&payload("\"hello\"")), "hello");
}

#[test]
fn messages() {
    let payload = Payload::Json(Bytes::from_static(b"{\"a\":\"b\\\"\"}"));
    let event = EventName::Said {
        name: "client-typing".into(),
        by: "ada".into(),
    };
    let outgoing = Outgoing {
        channel: Some("presence-a"),
        id: Some("own"),
        cursor: Some("00000001-2"),
        event: &event,
        payload: &payload,
        retry: None,
    };
    assert_eq!(
        text(message(&outgoing)),
        r#"{"event":"client-typing","channel":"presence-a","data":"{\"a\":\"b\\\"\"}","user_id":"ada","id":"00000001-2"}"#
    );
}

#[test]
fn frames_are_read() {
    let subscribe =
        |data: &str| parse(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#)).unwrap();
    let expected = Command::Subscribe(Subscribe {
        channel: "a".into(),
        auth: Some("k:s".into()),
        ..Subscribe::default()
    });
    assert_eq!(subscribe(r#"{"channel":"a","auth":"k:s"}"#), expected);
    // As some clients write it.
    assert_eq!(
        subscribe(r#""{\"channel\":\"a\",\"auth\":\"k:s\",\"more\":1}""#),
        expected
    );
    let event = |data: &str| {
        let frame = format!(r#"{{"event":"client-x","channel":"private-a","data":{data}}}"#);
        match parse(&frame).unwrap() {
            Command::Event { data, .. } => super::data(&data),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(event(r#"{"a": 1}"#), r#"{"a": 1}"#);
    assert_eq!(event(r#""{\"a\":1}""#), r#"{"a":1}"#);
    assert_eq!(event(r#""plain""#), "plain");
    assert_eq!(parse(r#"{"event":"pusher:ping"}"#), Ok(Command::Ping));
    for bad in [
        "",
        "[]",
        "{}",
        "nonsense",
        r#"{"event":7}"#,
        r#"{"event":"pusher:subscribe"}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
        r#"{"event":"pusher:signin","data":{"auth":"x"}}"#,
        r#"{"event":"client-x","data":{}}"#,
        r#"{"event":"client-x","channel":"a","data":"\ud83d"}"#,
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    let deep = format!(
        r#"{{"event":"client-x","channel":"a","data":{}"#,
        "[".repeat(200)
    );
    assert!(parse(&deep).is_err());
}

#[test]
fn a_client_is_told_whether_to_come_back() {
    let code_in = |farewell: Bytes| {
        let close = &farewell[farewell.len() - 5..];
        u16::from_be_bytes([close[0], close[1]])
    };
    let codes = [1001, 1012, 4000, 4008, 4009, 4011, 4100, 4900];
    assert_eq!(
        codes.map(|code| code_in(farewell(code, "why"))),
        [1001, 4200, 4003, 4200, 4201, 4009, 4100, 4900]
    );
    assert_eq!(
        codes.map(|code| code_in(dismissal(code, "why"))),
        [1001, 1012, 4003, 4008, 4009, 4009, 4100, 4900]
    );
    assert!(farewell(4100, "why").starts_with(b"\x81"));
}
