//! What clients say in the native protocol: frames of `/ws`, and bodies of `POST /publish`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use realtime::message::Payload;
use realtime::wire::deflate::{Packer, Packing};
use realtime::wire::native::{self, ClientPublish, Command, REF_MAX};
use realtime::wire::{Body, Flavour, Format, Outgoing, encode};
use realtime_fuzz::within;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let room = 16 * text.len() + 4096;
    match within(room, || native::parse(text)) {
        Ok((command, reference)) => {
            if let Some(reference) = reference {
                assert!(reference.get().len() <= REF_MAX);
                let value: Value = from_json(reference.get()).expect("a ref is JSON");
                assert!(value.is_string() || value.is_number());
            }
            if let Command::Publish(publish) = command {
                published(&publish);
            }
        }
        Err(mistake) => {
            if let Some(reference) = mistake.reference {
                assert!(reference.get().len() <= REF_MAX);
            }
        }
    }
    if let Ok((publish, _)) = within(room, || native::parse_publish(text)) {
        published(&publish);
    }
});

/// Everybody who gets the message can read it.
fn published(publish: &ClientPublish) {
    let text = std::str::from_utf8(&publish.data).expect("data is UTF-8");
    let Some(data) = from_json(text) else { return };
    let payload = Payload::Json(publish.data.clone());
    let outgoing = Outgoing {
        channel: Some(publish.channel.as_str()),
        id: Some("0123abcd-1"),
        cursor: None,
        event: &publish.event,
        payload: &payload,
        retry: None,
    };
    let body = Body::UntilClose;
    let bytes = |format| encode(&outgoing, format, &mut Packer::default());
    let object = bytes(Format::Object);
    let line = bytes(Format::Stream { body });
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    for json in [&object, &line] {
        let message: Value = serde_json::from_slice(json).expect("an envelope is JSON");
        assert_eq!(message["data"], data);
        assert_eq!(message["event"], publish.event.as_str());
        assert_eq!(message["channel"], publish.channel.as_str());
    }
    let event = bytes(Format::Sse {
        flavour: Flavour::Data,
        body,
    });
    assert_eq!(sse(&event).and_then(|text| from_json(&text)), Some(data));
    bytes(Format::Raw(Packing::Plain));
}

/// The `data` of the one event in `stream`, as the HTML standard has it read.
fn sse(stream: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(stream).ok()?;
    let text = text.strip_suffix("\n\n").expect("an event ends");
    let lines = text.split(['\n', '\r']);
    let data: Vec<&str> = lines
        .inspect(|line| assert!(line.contains(": "), "a line that is no field: {line:?}"))
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    Some(data.join("\n"))
}

/// None for numbers that serde_json alone cannot hold: PHP and browsers make them infinite.
fn from_json(text: &str) -> Option<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(error) => panic!("not JSON after all: {error}"),
    }
}
