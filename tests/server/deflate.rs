//! permessage-deflate (RFC 7692) on the wire: the handshake, compressed messages either way, and bombs.

use realtime::message::{EventName, Incoming, Payload};
use realtime::wire::deflate::{Inflater, Packer, Packing};

use crate::client::{Client, handshake, header, masked};
use crate::harness::{Hub, MESSAGES, Seen, eventually, json};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// Connects with header lines of its own, and returns what the server says about extensions.
fn connect(hub: &Hub, path: &str, lines: &str) -> (Client, Option<String>) {
    let mut client = Client::connect(hub.address());
    client.send(handshake(path, lines).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let answer = header(&head, "Sec-WebSocket-Extensions").map(str::to_owned);
    (client, answer)
}

fn compressing(hub: &Hub, path: &str) -> Client {
    let (client, answer) = connect(hub, path, OFFER);
    assert_eq!(
        answer.as_deref(),
        Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
    );
    client
}

/// The first byte of a frame and its payload as it was sent.
fn frame(client: &mut Client) -> (u8, Vec<u8>) {
    let head = client.take(2);
    let length = match head[1] {
        126 => u16::from_be_bytes(client.take(2).try_into().unwrap()).into(),
        127 => u64::from_be_bytes(client.take(8).try_into().unwrap()) as usize,
        short => short.into(),
    };
    (head[0], client.take(length))
}

fn unpack(bytes: Vec<u8>) -> String {
    let bytes = Inflater::default().unpack(bytes, 1 << 20).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn pack(text: &[u8]) -> Vec<u8> {
    let mut packer = Packer::new(1);
    packer.pack(text, Packing::Wide).unwrap().to_vec()
}

fn long(word: &str) -> String {
    format!("\"{}\"", word.repeat(200))
}

#[test]
fn it_is_agreed_on_when_it_is_offered_and_wanted() {
    let hub = Hub::start();
    for path in ["/ws", "/raw/a"] {
        compressing(&hub, path);
        let (_, answer) = connect(&hub, path, "");
        assert_eq!(answer, None);
        let bad = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n";
        assert_eq!(connect(&hub, path, bad).1, None);
        let two = "Sec-WebSocket-Extensions: x-unknown\r\n\
                   Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n";
        let answer = connect(&hub, path, two).1.unwrap();
        assert!(answer.ends_with("; server_max_window_bits=9"), "{answer}");
    }
    let without = Hub::with(&[("realtime.compress_min", "0")]);
    assert_eq!(connect(&without, "/ws", OFFER).1, None);
}

#[test]
fn a_broadcast_is_the_same_message_for_all_compressed_or_not() {
    let hub = Hub::with(&[("realtime.threads", "4")]);
    let mut plain = Client::websocket(hub.address(), "/raw/a");
    let mut packed: Vec<Client> = (0..8).map(|_| compressing(&hub, "/raw/a")).collect();
    let narrow = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    let (mut narrow, _) = connect(&hub, "/raw/a", narrow);
    hub.await_subscribers("a", 10);
    let word = "ab\u{e4} ".repeat(300);
    hub.publish("a", &format!("\"{word}\""));
    assert_eq!(frame(&mut plain), (0x81, word.as_bytes().to_vec()));
    let (first, bytes) = frame(&mut narrow);
    assert_eq!((first, unpack(bytes)), (0xc1, word.clone()));
    let frames: Vec<_> = packed.iter_mut().map(frame).collect();
    for (first, bytes) in &frames {
        assert_eq!(*first, 0xc1, "text, the last fragment, compressed");
        assert_eq!(*bytes, frames[0].1, "one compression for all");
        assert!(bytes.len() < 60, "{}", bytes.len());
    }
    assert_eq!(unpack(frames[0].1.clone()), word);
    // Below realtime.compress_min.
    hub.publish("a", &format!("\"{}\"", "x".repeat(255)));
    assert_eq!(frame(&mut packed[0]).0, 0x81);
    hub.publish("a", &format!("\"{}\"", "x".repeat(256)));
    assert_eq!(frame(&mut packed[0]).0, 0xc1);
    // What would only grow.
    let mut noise = vec![0; 1000];
    getrandom::fill(&mut noise).unwrap();
    let publish = realtime::message::Publish {
        payload: Payload::Binary(noise.clone().into()),
        ..crate::harness::message("a", "")
    };
    hub.node().publish(publish).unwrap();
    assert_eq!(frame(&mut packed[0]), (0x82, noise));
}

#[test]
fn several_in_one_batch_and_history_are_compressed_too() {
    let hub = Hub::start();
    let mut live = compressing(&hub, "/ws");
    frame(&mut live);
    live.say(r#"{"type":"subscribe","channel":"a"}"#);
    let (first, subscribed) = frame(&mut live);
    assert_eq!(first, 0x81, "the server's own frames are not");
    let subscribed: serde_json::Value = serde_json::from_slice(&subscribed).unwrap();
    hub.stall(|| {
        for n in 0..20 {
            hub.publish("a", &long(&format!("{n} ")));
        }
    });
    let took = |client: &mut Client| -> Vec<Vec<u8>> {
        (0..20)
            .map(|n| {
                let (first, bytes) = frame(client);
                assert_eq!(first, 0xc1);
                let text = unpack(bytes.clone());
                assert!(text.contains(&format!("\"{n} {n} ")), "{text}");
                bytes
            })
            .collect()
    };
    let seen = took(&mut live);
    let mut late = compressing(&hub, "/ws");
    frame(&mut late);
    let since = subscribed["id"].as_str().unwrap();
    late.say(&format!(
        r#"{{"type":"subscribe","channel":"a","since":"{since}"}}"#
    ));
    assert_eq!(frame(&mut late).0, 0x81);
    assert_eq!(took(&mut late), seen);
}

#[test]
fn what_is_for_one_connection_is_compressed_too() {
    let hub = Hub::start();
    let reply = json(&long("reply "));
    let _php = hub.php(MESSAGES, move |node, event| {
        let realtime::backend::Event::Message { message, reply_to } = event else {
            panic!("{event:?}")
        };
        let direct = json(&long("direct "));
        node.send(message.from.id, direct, EventName::Message)
            .unwrap();
        node.reply(reply_to, Ok(Some(reply.clone())));
    });
    for path in ["/ws", "/raw/a"] {
        let mut client = compressing(&hub, path);
        if path == "/ws" {
            frame(&mut client);
            client.say(r#"{"type":"publish","channel":"a","data":1,"ref":1}"#);
        } else {
            client.say("1");
        }
        for word in ["direct direct ", "reply reply "] {
            let (first, bytes) = frame(&mut client);
            assert_eq!(first, 0xc1, "{path}");
            let text = unpack(bytes);
            assert!(text.contains(word), "{path}: {text}");
        }
    }
}

#[test]
fn what_clients_compress_is_read() {
    let hub = Hub::start();
    let (_php, seen) = hub.recording(MESSAGES);
    let mut raw = compressing(&hub, "/raw/a");
    let text = "häh? ".repeat(500);
    let packed = pack(text.as_bytes());
    let (head, tail) = packed.split_at(7);
    raw.send(&[masked(0x41, head), masked(0x80, tail)].concat());
    let expected = Incoming::Text(text.into_bytes().into());
    assert_eq!(seen.recv().unwrap(), Seen::Message("a".into(), expected));
    let mut native = compressing(&hub, "/ws");
    frame(&mut native);
    let ping = pack(format!(r#"{{"type":"ping","ref":"{}"}}"#, "r".repeat(60)).as_bytes());
    native.send(&masked(0xc1, &ping));
    let (_, pong) = frame(&mut native);
    assert!(pong.starts_with(br#"{"type":"pong","ref":"rrrr"#));
}

#[test]
fn bombs_and_rubbish_close_their_sender_alone() {
    let hub = Hub::start();
    let (_php, _) = hub.recording(MESSAGES);
    let mut other = compressing(&hub, "/raw/a");
    hub.await_subscribers("a", 1);
    let bomb = pack(&vec![b'0'; 60 << 20]);
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    let half = pack(&[b'0'; 1000]);
    let cases = [
        ("a bomb", 1009, masked(0xc1, &bomb)),
        ("rubbish", 1007, masked(0xc1, b"rubbish")),
        (
            "half a message",
            1007,
            masked(0xc2, &half[..half.len() / 2]),
        ),
        ("not UTF-8", 1007, masked(0xc1, &pack(&[0xff; 300]))),
        ("a compressed ping", 1002, masked(0xc9, b"")),
        ("another reserved bit", 1002, masked(0xa1, b"x")),
    ];
    for (what, code, bytes) in cases {
        let mut client = compressing(&hub, "/raw/b");
        client.send(&bytes);
        assert_eq!(client.frame().close().0, code, "{what}");
        hub.publish("a", &long("still there "));
        assert_eq!(frame(&mut other).0, 0xc1, "{what}");
    }
}

#[test]
fn a_client_that_does_not_read_gets_the_rest_compressed() {
    let hub = Hub::with(&[("realtime.max_backlog", "64M")]);
    let mut slow = Client::with_receive_buffer(hub.address(), Some(4096));
    slow.send(handshake("/raw/a", OFFER).as_bytes());
    slow.head();
    hub.await_subscribers("a", 1);
    let mut noise = vec![0; 20_000];
    getrandom::fill(&mut noise).unwrap();
    let hex: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
    for _ in 0..200 {
        hub.publish("a", &format!("\"{hex}\""));
    }
    eventually("the backlog", || hub.stats().delivered == 200);
    for _ in 0..200 {
        let (first, bytes) = frame(&mut slow);
        assert_eq!(first, 0xc1);
        assert!(bytes.len() < hex.len() * 2 / 3);
        assert_eq!(unpack(bytes), hex);
    }
}
