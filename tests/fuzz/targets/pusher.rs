//! What clients of the Pusher protocol say: frames of `/app/{key}`, and the data that applications publish.
#![no_main]

use libfuzzer_sys::fuzz_target;
use realtime::message::{EventName, Payload};
use realtime::pusher::auth;
use realtime::wire::Outgoing;
use realtime::wire::pusher::{self, Command};
use realtime_fuzz::within;
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|text: &str| {
    let room = 16 * text.len() + 4096;
    if let Ok(Command::Event {
        channel,
        event,
        data,
    }) = within(room, || pusher::parse(text))
    {
        sent_on(&channel, &event, &data);
    }
    let payload = within(room, || pusher::payload(text));
    sent_on("a", "message", &payload);
    // Clients read data as JSON, and as a text where it is none.
    assert_eq!(read(&pusher::data(&payload)), read(text));
    let _ = auth::is_socket_id(text);
});

fn read(data: &str) -> Value {
    let trimmed = data.trim_matches([' ', '\t', '\n', '\r']);
    match serde_json::from_str::<&RawValue>(data) {
        Ok(_) if trimmed.starts_with('"') => {
            serde_json::from_str(data).unwrap_or_else(|_| data.into())
        }
        // To the byte: no number is to be read and written anew.
        _ => data.into(),
    }
}

/// Whoever subscribes can read it, and its data is a string.
fn sent_on(channel: &str, event: &str, payload: &Payload) {
    let frame = pusher::message(&Outgoing {
        channel: Some(channel),
        id: Some("0123abcd-1"),
        cursor: None,
        event: &EventName::new(event),
        payload,
        retry: None,
    });
    let frame: Value = serde_json::from_slice(&frame).expect("a frame is JSON");
    assert_eq!(frame["channel"], channel);
    assert!(frame["data"].is_string());
    // Those of every other protocol get JSON.
    let Payload::Json(json) = payload else {
        panic!("data became {payload:?}");
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(json).expect("data is JSON");
}
