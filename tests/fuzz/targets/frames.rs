//! A client's WebSocket frames, with and without compression.
#![no_main]

use libfuzzer_sys::fuzz_target;
use realtime::wire::deflate::Inflater;
use realtime::wire::frames::{Broken, Event, Reader};
use realtime_fuzz::{choices, pieces, within};

fuzz_target!(|input: &[u8]| {
    let Some(([limit, flags, seed], bytes)) = choices(input) else {
        return;
    };
    let limit = usize::from(limit) * 16;
    let compression = flags & 1 == 1;
    let whole = read(limit, compression, bytes, 0);
    let piecewise = read(limit, compression, bytes, seed.max(1));
    assert_eq!(whole, piecewise, "pieces make a difference");
    for event in &whole.0 {
        match event {
            Event::Text(text) => {
                assert!(text.len() <= limit);
                assert!(std::str::from_utf8(text.as_bytes()).is_ok());
            }
            Event::Binary(bytes) => assert!(bytes.len() <= limit),
            Event::Ping(payload) => assert!(payload.len() <= 125),
            Event::Pong | Event::Close(None) => {}
            Event::Close(Some((code, reason))) => {
                assert!((1000..5000).contains(code) && reason.len() <= 123);
            }
        }
    }
    if let Some(broken) = &whole.1 {
        assert!(matches!(broken.code(), 1002 | 1007 | 1009));
    }
});

/// All that is read, and how it ended when it did. The bytes that compression added are checked on the way.
fn read(limit: usize, compression: bool, bytes: &[u8], seed: u8) -> (Vec<Event>, Option<Broken>) {
    let mut reader = Reader::new(limit, compression);
    // A decompressor's window and tables.
    let mut inflater = Inflater::default();
    let mut events = Vec::new();
    for mut piece in pieces(bytes, seed) {
        loop {
            // What came is held, unmasked, while as much is put together; a message is at most the limit, which may be
            // asked for twice while its room grows.
            let room = 4 * (bytes.len() + limit) + (64 << 10);
            let before = piece.len();
            match within(room, || reader.read(&mut piece, &mut inflater)) {
                Ok(Some(event)) => {
                    assert!(piece.len() < before, "an event of nothing");
                    let end = matches!(event, Event::Close(_));
                    events.push(event);
                    if end {
                        return (events, None);
                    }
                }
                Ok(None) => {
                    assert!(piece.is_empty(), "something was left");
                    break;
                }
                Err(broken) => return (events, Some(broken)),
            }
        }
        assert!(reader.take_unpacked() <= limit * (1 + bytes.len() / 6));
    }
    (events, None)
}
