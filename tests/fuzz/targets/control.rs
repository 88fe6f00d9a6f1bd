//! What other processes say on the control socket before they are trusted with more, and their requests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use realtime::message::Publish;
use realtime::wire::control::{self, Greeting, Hello, Request, Response, WireConnection};
use realtime_fuzz::{again, choices, within};

fuzz_target!(|input: &[u8]| {
    let Some(([kind], bytes)) = choices(input) else {
        return;
    };
    // Lists of small numbers grow most: a byte on the wire is up to 8 in memory, and a Vec doubles.
    let room = 64 * bytes.len() + 16_384;
    match kind % 4 {
        0 => {
            if let Ok(hello) = within(room, || serde_json::from_slice::<Hello>(bytes)) {
                control::json_frame(&hello);
            }
            if let Ok(greeting) = within(room, || serde_json::from_slice::<Greeting>(bytes)) {
                control::json_frame(&greeting);
            }
        }
        1 => {
            if let Ok(response) = within(room, || control::read::<Response>(bytes)) {
                again!(Response, &response);
                if let Response::Connections(list) = response {
                    list.into_iter().for_each(connection);
                }
            }
        }
        2 => frames(bytes),
        _ => request(bytes),
    }
});

/// One request after the other, as a link gathers them.
fn frames(mut bytes: &[u8]) {
    while let Some((content, rest)) = control::split(bytes) {
        assert_eq!(control::announced(bytes), Some(content.len()));
        request(content);
        bytes = rest;
    }
}

fn request(bytes: &[u8]) {
    let room = 64 * bytes.len() + 16_384;
    let Ok(request) = within(room, || control::read::<Request>(bytes)) else {
        return;
    };
    again!(Request, &request);
    if let Request::Publish(publish) = request {
        let Ok(publish) = within(room, || Publish::try_from(publish)) else {
            return;
        };
        // What was accepted is accepted by the next one that it is passed on to.
        let wire = control::WirePublish::from(&publish);
        let passed_on = Publish::try_from(wire).expect("valid stays valid");
        assert_eq!(format!("{passed_on:?}"), format!("{publish:?}"));
    }
}

/// Whatever head another process claims, looking at it takes no harm.
fn connection(wire: WireConnection) {
    let length = wire.head.len();
    if let Some(info) = wire.into_info() {
        assert!(info.target().len() <= length);
        assert!(info.path().len() + info.query().len() <= info.target().len());
        let headers: usize = info
            .headers()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(headers <= length);
    }
}
