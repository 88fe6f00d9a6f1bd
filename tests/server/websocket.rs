//! RFC 6455: handshakes, frames and what breaks them; `/raw`.

use realtime::message::Incoming;

use crate::client::{Client, handshake, header, masked};
use crate::harness::{Hub, MESSAGES, NONE, Seen, eventually, json};

#[test]
fn raw_frames_are_the_payload() {
    let hub = Hub::start();
    let mut client = Client::websocket(hub.address(), "/raw/news");
    hub.await_subscribers("news", 1);
    hub.publish("news", r#""plain""#);
    hub.publish("news", "[1,2]");
    assert_eq!(client.frame().text(), "plain");
    assert_eq!(client.frame().text(), "[1,2]");
    client.send(&masked(0x89, b"are you there"));
    let pong = client.frame();
    assert_eq!(
        (pong.opcode, &pong.payload[..]),
        (10, &b"are you there"[..])
    );
    client.send(&masked(0x88, &1000u16.to_be_bytes()));
    assert_eq!(client.frame().close(), (1000, ""));
    assert!(client.is_ended());
}

#[test]
fn raw_messages_go_to_php_as_they_are_and_replies_come_back() {
    let hub = Hub::start();
    let _php = hub.php(MESSAGES, |node, event| {
        let realtime::backend::Event::Message { message, reply_to } = event else {
            panic!("{event:?}")
        };
        assert_eq!(message.channel.as_str(), "a/b");
        let reply = match message.data {
            Incoming::Text(text) => json(&format!("\"got {}\"", text.len())),
            Incoming::Binary(bytes) => realtime::message::Payload::Binary(bytes),
            Incoming::Json(_) => panic!("raw frames are not JSON"),
        };
        node.reply(reply_to, Ok(Some(reply)));
    });
    let mut client = Client::websocket(hub.address(), "/raw/a%2Fb");
    client.say("häh");
    assert_eq!(client.frame().text(), "got 4");
    client.send(&masked(0x82, &[0, 255, 7]));
    let frame = client.frame();
    assert_eq!((frame.opcode, &frame.payload[..]), (2, &[0, 255, 7][..]));
}

#[test]
fn fragments_are_one_message_and_pings_may_come_between() {
    let hub = Hub::start();
    let (_php, seen) = hub.recording(MESSAGES);
    let mut client = Client::websocket(hub.address(), "/raw/a");
    let mut bytes = masked(0x01, "h\u{e4}".as_bytes()[..2].into());
    bytes.extend(masked(0x89, b"?"));
    bytes.extend(masked(0x00, &"h\u{e4}".as_bytes()[2..]));
    bytes.extend(masked(0x80, b"h"));
    // Byte by byte, so that every header is seen in parts.
    for byte in bytes {
        client.send(&[byte]);
    }
    assert_eq!(client.frame().opcode, 10);
    let expected = Incoming::Text("häh".as_bytes().into());
    assert_eq!(seen.recv().unwrap(), Seen::Message("a".into(), expected));
}

#[test]
fn frames_in_the_handshakes_packet_are_read() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let mut bytes = handshake("/ws", "").into_bytes();
    bytes.extend(masked(0x81, br#"{"type":"ping","ref":1}"#));
    client.send(&bytes);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.json()["type"], "welcome");
    assert_eq!(client.frame().text(), r#"{"type":"pong","ref":1}"#);
}

#[test]
fn broken_frames_close_their_sender_alone() {
    let hub = Hub::start();
    let (_php, _) = hub.recording(MESSAGES);
    let mut other = Client::websocket(hub.address(), "/raw/a");
    hub.await_subscribers("a", 1);
    let unmasked = b"\x81\x02hi".to_vec();
    let chain = |frames: &[(u8, &[u8])]| -> Vec<u8> {
        frames.iter().flat_map(|(b, p)| masked(*b, p)).collect()
    };
    let cases: Vec<(&str, u16, Vec<u8>)> = vec![
        ("unmasked", 1002, unmasked),
        ("first reserved bit", 1002, masked(0xc1, b"x")),
        ("second reserved bit", 1002, masked(0xa1, b"x")),
        ("third reserved bit", 1002, masked(0x91, b"x")),
        ("reserved data opcode", 1002, masked(0x83, b"x")),
        ("reserved control opcode", 1002, masked(0x8b, b"x")),
        ("fragmented ping", 1002, masked(0x09, b"x")),
        ("fragmented close", 1002, masked(0x08, &[3, 232])),
        ("long ping", 1002, masked(0x89, &[b'x'; 126])),
        ("continuation of nothing", 1002, masked(0x80, b"x")),
        (
            "a new message within one",
            1002,
            chain(&[(0x01, b"a"), (0x81, b"b")]),
        ),
        ("close of one byte", 1002, masked(0x88, &[3])),
        ("text that is not UTF-8", 1007, masked(0x81, b"a\xff")),
        ("an overlong encoding", 1007, masked(0x81, b"\xc0\xaf")),
        ("a surrogate", 1007, masked(0x81, b"\xed\xa0\x80")),
        (
            "a character cut off at the end",
            1007,
            chain(&[(0x01, b"a\xe2\x82"), (0x80, b"")]),
        ),
        (
            "a character broken by the next fragment",
            1007,
            chain(&[(0x01, b"a\xe2\x82"), (0x80, b"x")]),
        ),
        (
            "a close reason that is not UTF-8",
            1007,
            masked(0x88, b"\x03\xe8\xff"),
        ),
        (
            "too long, by the header alone",
            1009,
            [&[0x82, 0xff][..], &65537u64.to_be_bytes(), &[1, 2, 3, 4]].concat(),
        ),
        (
            "2^63 - 1 bytes announced",
            1009,
            [&[0x82, 0xff][..], &i64::MAX.to_be_bytes(), &[1, 2, 3, 4]].concat(),
        ),
        (
            "too long, in fragments",
            1009,
            chain(&[(0x01, &[b'x'; 40_000]), (0x00, &[b'x'; 30_000])]),
        ),
    ];
    for (what, code, bytes) in cases {
        let mut client = Client::websocket(hub.address(), "/raw/b");
        client.send(&bytes);
        let frame = client.frame();
        assert_eq!(frame.opcode, 8, "{what}: {frame:?}");
        assert_eq!(frame.close().0, code, "{what}: {frame:?}");
        client.shut_write();
        assert!(client.is_ended(), "{what}");
        hub.publish("a", "1");
        assert_eq!(other.frame().text(), "1", "{what}");
    }
}

#[test]
fn what_came_before_a_mistake_is_still_answered() {
    let hub = Hub::start();
    let _php = hub.php(MESSAGES, |node, event| {
        let realtime::backend::Event::Message { reply_to, .. } = event else {
            panic!("{event:?}")
        };
        std::thread::sleep(std::time::Duration::from_millis(50));
        node.reply(reply_to, Ok(Some(json("1"))));
    });
    let mut client = Client::websocket(hub.address(), "/raw/a");
    let mistake = masked(0xa1, b"x");
    client.send(&[masked(0x81, b"a"), masked(0x81, b"b"), mistake].concat());
    assert_eq!(client.frame().text(), "1");
    assert_eq!(client.frame().text(), "1");
    assert_eq!(client.frame().close().0, 1002);
}

#[test]
fn a_mistake_does_not_wait_for_a_php_that_does_not_answer() {
    let hub = Hub::start();
    let (_php, seen) = hub.recording(MESSAGES);
    let mut client = Client::websocket(hub.address(), "/raw/a");
    client.send(&[masked(0x81, b"a"), masked(0xa1, b"x")].concat());
    seen.recv().unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(client.frame().close().0, 1002);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn text_is_refused_at_its_first_wrong_byte() {
    let hub = Hub::start();
    let (_php, _) = hub.recording(MESSAGES);
    let mut client = Client::websocket(hub.address(), "/raw/a");
    // The frame is never finished.
    client.send(&masked(0x81, &[b"fine \xed\xa0".as_slice(), &[b'x'; 90]].concat())[..13]);
    assert_eq!(client.frame().close().0, 1007);
}

#[test]
fn a_message_of_just_the_limit_passes() {
    let hub = Hub::with(&[("realtime.max_message_size", "1000")]);
    let (_php, seen) = hub.recording(MESSAGES);
    let mut client = Client::websocket(hub.address(), "/raw/a");
    client.send(&masked(0x82, &[7; 1000]));
    let expected = Incoming::Binary(vec![7; 1000].into());
    assert_eq!(seen.recv().unwrap(), Seen::Message("a".into(), expected));
    client.send(&masked(0x82, &[7; 1001]));
    let close = client.frame();
    assert_eq!(
        close.close(),
        (1009, "messages may have at most 1000 bytes")
    );
}

#[test]
fn no_data_follows_the_close_frame() {
    let hub = Hub::start();
    let mut client = Client::websocket(hub.address(), "/raw/a");
    hub.await_subscribers("a", 1);
    client.send(&masked(0x88, b"\x0f\xa0bye"));
    // While the client does not end its side, the server waits a moment: by then it is subscribed no more.
    hub.await_subscribers("a", 0);
    hub.publish("a", "1");
    assert_eq!(client.frame().close(), (4000, "bye"));
    client.shut_write();
    assert!(client.rest().is_empty());
}

#[test]
fn no_data_follows_a_close_frame_that_has_to_wait() {
    let hub = Hub::with(&[("realtime.max_backlog", "64M")]);
    let mut slow = Client::with_receive_buffer(hub.address(), Some(4096));
    slow.send(handshake("/raw/a", "").as_bytes());
    slow.head();
    hub.await_subscribers("a", 1);
    // More than the kernel takes: the answer to the close has to wait behind it.
    let text = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..200 {
        hub.publish("a", &text);
    }
    eventually("the backlog", || hub.stats().delivered == 200);
    slow.send(&masked(0x88, b"\x0f\xa0bye"));
    // Each question is answered by the thread that reads the close, between two looks at its sockets.
    for _ in 0..200 {
        hub.stats();
        hub.publish("a", "1");
    }
    // Read to the end first: how much of it the server still got rid of in time is not the question.
    let bytes = slow.rest();
    let (mut at, mut frames) = (0, 0);
    while at + 4 <= bytes.len() && bytes[at] != 0x88 {
        assert_eq!(bytes[at], 0x81);
        at += match bytes[at + 1] {
            126 => 4 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])),
            short => 2 + usize::from(short),
        };
        frames += 1;
    }
    assert!(frames > 0);
    if at < bytes.len() {
        assert_eq!(
            &bytes[at..],
            b"\x88\x05\x0f\xa0bye",
            "the close frame, and no more"
        );
    }
}

#[test]
fn raw_without_a_handler_says_so() {
    let hub = Hub::start();
    let mut client = Client::websocket(hub.address(), "/raw/a");
    client.say("anybody?");
    let close = client.frame();
    let (code, reason) = close.close();
    assert_eq!(code, 1008);
    assert!(reason.contains("rt_on_message()"), "{reason}");
}

#[test]
fn lengths_are_written_in_the_shortest_form() {
    let hub = Hub::with(&[("realtime.max_message_size", "70000")]);
    let mut client = Client::websocket(hub.address(), "/raw/a");
    hub.await_subscribers("a", 1);
    let forms = [(0, 0), (125, 125), (126, 126), (65535, 126), (65536, 127)];
    for (length, form) in forms {
        hub.publish("a", &format!("\"{}\"", "x".repeat(length)));
        assert_eq!(client.take(2), [0x81, form], "{length}");
        let extended = match form {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        client.take(extended);
        assert_eq!(client.take(length), vec![b'x'; length]);
    }
}

#[test]
fn sub_protocols_are_chosen_or_refused() {
    let hub = Hub::start();
    let offer = |path: &str, offered: &str| {
        let mut client = Client::connect(hub.address());
        let line = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        client.send(handshake(path, &line).as_bytes());
        client.response(true)
    };
    let chosen = offer("/ws", "other, realtime.v1");
    assert_eq!(chosen.status, 101);
    assert_eq!(chosen.header("Sec-WebSocket-Protocol"), Some("realtime.v1"));
    let chosen = offer("/raw/a", "mine, yours");
    assert_eq!(chosen.header("Sec-WebSocket-Protocol"), Some("mine"));
    let refused = offer("/ws", "realtime.v2");
    assert_eq!((refused.status, &*refused.code()), (400, "bad_protocol"));
    let mut none = Client::connect(hub.address());
    none.send(handshake("/ws", "").as_bytes());
    assert_eq!(header(&none.head(), "Sec-WebSocket-Protocol"), None);
}

#[test]
fn bad_handshakes_are_told_what_is_wrong() {
    let hub = Hub::start();
    let good = handshake("/ws", "");
    let cases = [
        ("Version: 13", "Version: 8", 426, "bad_version"),
        ("Sec-WebSocket-Version: 13\r\n", "", 426, "bad_version"),
        ("Upgrade: websocket\r\n", "", 426, "upgrade_required"),
        (
            "Upgrade: websocket",
            "Upgrade: h2c",
            426,
            "upgrade_required",
        ),
        ("Connection: Upgrade\r\n", "", 426, "upgrade_required"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400, "bad_handshake"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "!", 400, "bad_handshake"),
        (
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "",
            400,
            "bad_handshake",
        ),
        ("HTTP/1.1", "HTTP/1.0", 400, "bad_handshake"),
        ("GET /ws", "HEAD /ws", 400, ""),
        ("GET /ws", "POST /ws", 405, "bad_method"),
        ("/ws", "/raw/a%20b", 400, "bad_channel"),
        ("/ws", "/raw/", 400, "bad_channel"),
        ("/ws", "/raw/%ff", 400, "bad_channel"),
        ("/ws", "/raw/private-a", 403, "forbidden"),
    ];
    for (part, wrong, status, code) in cases {
        let mut client = Client::connect(hub.address());
        client.send(good.replacen(part, wrong, 1).as_bytes());
        let response = client.response(!code.is_empty());
        assert_eq!(response.status, status, "{part} -> {wrong}: {response:?}");
        if !code.is_empty() {
            assert_eq!(response.code(), code, "{part} -> {wrong}");
        }
        if code == "bad_version" {
            assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"));
        }
    }
    let long = format!("/raw/{}", "x".repeat(201));
    let mut client = Client::connect(hub.address());
    client.send(handshake(&long, "").as_bytes());
    assert_eq!(client.response(true).code(), "bad_channel");
}

#[test]
fn a_client_that_goes_without_a_word_is_gone() {
    let hub = Hub::start();
    let close = realtime::backend::Interest {
        close: true,
        ..NONE
    };
    let (_php, seen) = hub.recording(close);
    let mut client = Client::websocket(hub.address(), "/ws");
    client.frame();
    drop(client);
    assert_eq!(seen.recv().unwrap(), Seen::Close(1006, String::new()));
    eventually("its end", || hub.node().connection_count() == 0);
}
