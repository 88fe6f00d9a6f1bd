//! What clients of the Mercure protocol say: the form of an update, ids to resume from, and topic selectors, which are also
//! in tokens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use realtime::message::{EventName, Payload, Terms};
use realtime::selector::{SELECTOR_MAX, Selector};
use realtime::wire::Outgoing;
use realtime::wire::mercure::{self, Update};
use realtime_fuzz::within;

fuzz_target!(|input: &[u8]| {
    let room = 16 * input.len() + 4096;
    if let Ok(update) = within(room, || Update::parse(input, Terms::TOPICS_MAX)) {
        assert!((1..=Terms::TOPICS_MAX).contains(&update.topics.len()));
        published(&update);
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let since = mercure::since(text);
    assert!(since == text || since.len() < 40);
    let (selector, topic) = text.split_once('\n').unwrap_or((text, text));
    // However a template is written, it takes a few words for each of its bytes.
    if let Ok(selector) = within(64 * selector.len() + 1024, || Selector::parse(selector)) {
        assert!(selector.as_str().len() <= SELECTOR_MAX);
        assert!(selector.matches(selector.as_str()));
        within(1024, || selector.matches(topic));
    }
});

/// A subscriber reads the text that was posted, with the line ends of an event stream.
fn published(update: &Update) {
    let payload = mercure::payload(update.data.clone());
    let Payload::Json(json) = &payload else {
        panic!("an update became {payload:?}");
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(json).expect("an update is JSON");
    let event = mercure::event(&Outgoing {
        channel: None,
        id: Some("0123abcd-1"),
        cursor: None,
        event: &EventName::Message,
        payload: &payload,
        retry: update.retry,
    });
    let event = String::from_utf8(event).expect("an event is UTF-8");
    let event = event.strip_suffix("\n\n").expect("an event ends");
    let data: Vec<&str> = event
        .split(['\n', '\r'])
        .inspect(|line| assert!(line.contains(": "), "a line that is no field: {line:?}"))
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    let sent = update.data.replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(data.join("\n"), sent);
}
