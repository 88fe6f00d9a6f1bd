//! What is bounded: connections, subscriptions, backlogs, silence. And the end of the server.

use std::net::TcpListener;
use std::sync::Arc;

use realtime::hub::mailbox::{Command, Shard};
use realtime::ids::ConnectionId;
use realtime::message::{ConnectionInfo, Transport};
use realtime::node::Failure;
use realtime::wire::Format;
use realtime::wire::deflate::Packing;

use crate::client::{Client, handshake, masked};
use crate::harness::{Hub, channel_named, eventually, message};

#[test]
fn connections_over_the_limit_are_refused_until_one_leaves() {
    let hub = Hub::with(&[("realtime.max_connections", "2")]);
    let (first, _) = Client::native(hub.address());
    let _second = Client::stream(hub.address(), "/sse?channel=a", "");
    hub.await_subscribers("a", 1);
    let mut third = Client::connect(hub.address());
    for path in ["/sse?channel=a", "/poll?channel=a", "/stream?channel=a"] {
        let refused = third.get(path);
        assert_eq!(
            (refused.status, &*refused.code()),
            (503, "too_many_connections"),
            "{path}"
        );
        assert!(refused.header("Retry-After").is_some());
    }
    third.send(handshake("/ws", "").as_bytes());
    assert_eq!(third.response(true).status, 503);
    assert_eq!(third.get("/healthz").status, 200, "not a connection");
    drop(first);
    eventually("a free place", || hub.node().connection_count() == 1);
    Client::native(hub.address());
}

#[test]
fn subscriptions_are_limited_for_each_connection() {
    let hub = Hub::with(&[("realtime.max_subscriptions", "2")]);
    let (mut client, welcome) = Client::native(hub.address());
    client.subscribe("a", None);
    client.subscribe("b", None);
    client.subscribe("b", None);
    let error = client.ask(r#"{"type":"subscribe","channel":"c","ref":1}"#);
    assert_eq!(error["code"], "too_many_subscriptions");
    assert_eq!((&error["channel"], &error["ref"]), (&"c".into(), &1.into()));
    let by_php = hub.node().subscribe(welcome.id(), channel_named("c"));
    assert!(!by_php.unwrap());
    client.ask(r#"{"type":"unsubscribe","channel":"a"}"#);
    client.subscribe("c", None);
    assert_eq!(hub.stats().subscriptions, 2);
    let mut http = Client::connect(hub.address());
    let refused = http.get("/sse?channel=a&channel=b&channel=c");
    assert_eq!(
        (refused.status, &*refused.code()),
        (400, "too_many_subscriptions")
    );
    // The same one twice is one.
    Client::stream(hub.address(), "/sse?channel=a&channel=b&channel=a", "");
}

/// Publishes to `a` until a client was dropped as too slow, while a witness reads each message as it comes.
fn drown_the_slow(hub: &Hub) -> i64 {
    let (mut witness, _) = Client::native(hub.address());
    witness.subscribe("a", None);
    let text = "x".repeat(30_000);
    let mut count = 0;
    while hub.stats().dropped_slow == 0 {
        count += 1;
        assert!(count < 2000, "60 MB wait for one client");
        hub.publish("a", &format!("[{count},\"{text}\"]"));
        assert_eq!(witness.json()["data"][0], count);
    }
    count
}

#[test]
fn a_client_that_never_reads_is_closed_and_can_resume() {
    let hub = Hub::with(&[
        ("realtime.max_backlog", "256K"),
        ("realtime.history_size", "100000"),
    ]);
    let mut slow = Client::with_receive_buffer(hub.address(), Some(4096));
    slow.send(handshake("/ws", "").as_bytes());
    slow.head();
    slow.frame();
    let start = slow.subscribe("a", None)["id"].as_str().unwrap().to_owned();
    let count = drown_the_slow(&hub);
    let mut seen = 0;
    let mut since = start;
    loop {
        let frame = slow.frame();
        if frame.opcode == 8 {
            assert_eq!(frame.close(), (4008, "too slow, reconnect and resume"));
            break;
        }
        let message: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
        seen += 1;
        assert_eq!(
            message["data"][0], seen,
            "whole frames in order up to the close"
        );
        message["id"].as_str().unwrap().clone_into(&mut since);
    }
    assert!(seen < count);
    let (mut again, _) = Client::native(hub.address());
    assert_eq!(again.subscribe("a", Some(&since))["recovered"], true);
    for n in seen + 1..=count {
        assert_eq!(again.json()["data"][0], n);
    }
}

#[test]
fn a_slow_event_stream_ends_properly_and_can_resume() {
    let hub = Hub::with(&[
        ("realtime.max_backlog", "256K"),
        ("realtime.history_size", "100000"),
    ]);
    let mut slow = Client::with_receive_buffer(hub.address(), Some(4096));
    slow.send(b"GET /sse?channel=a HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.head();
    assert!(slow.chunk().unwrap().starts_with("retry: "));
    hub.await_subscribers("a", 1);
    let count = drown_the_slow(&hub);
    let (mut seen, mut since) = (0, String::new());
    while let Some(chunk) = slow.chunk() {
        if let Some((id, data)) = chunk.split_once("\ndata: [") {
            seen += 1;
            assert!(data.starts_with(&format!("{seen},")));
            since = id.trim_start_matches("id: ").to_owned();
        }
    }
    assert!(seen < count);
    let more = format!("Last-Event-ID: {since}\r\n");
    let mut again = Client::stream(hub.address(), "/sse?channel=a", &more);
    for n in seen + 1..=count {
        again.chunk_with(&format!("data: [{n},"));
    }
}

#[test]
fn a_burst_over_the_limit_does_not_close_a_client_that_reads() {
    let hub = Hub::with(&[("realtime.max_backlog", "64K")]);
    let (mut native, _) = Client::native(hub.address());
    native.subscribe("a", None);
    let mut stream = Client::stream(hub.address(), "/sse?channel=a", "");
    hub.await_subscribers("a", 2);
    let text = "x".repeat(12_000);
    hub.stall(|| {
        for n in 1..=10 {
            hub.publish("a", &format!("[{n},\"{text}\"]"));
        }
    });
    for n in 1..=10 {
        assert_eq!(native.json()["data"][0], n);
        stream.chunk_with(&format!("data: [{n},"));
    }
    assert_eq!(hub.stats().dropped_slow, 0);
}

#[test]
fn one_message_may_be_larger_than_the_backlog() {
    let hub = Hub::with(&[("realtime.max_backlog", "16K")]);
    let (mut native, welcome) = Client::native(hub.address());
    native.subscribe("a", None);
    let large = format!("\"{}\"", "x".repeat(50_000));
    let send = |json: &str| {
        let message = message("a", json);
        let sent = hub
            .node()
            .send(welcome.id(), message.payload, message.event);
        assert!(sent.unwrap());
    };
    hub.stall(|| {
        hub.publish("a", "1");
        hub.publish("a", &large);
        send(&large);
        hub.publish("a", "2");
    });
    for length in [1, 51, 51, 1] {
        let data = native.json()["data"].to_string();
        assert_eq!(data.len().div_ceil(1000), length);
    }
    assert_eq!(hub.stats().dropped_slow, 0);
}

#[test]
fn pongs_that_nobody_reads_are_a_backlog_too() {
    let hub = Hub::with(&[
        ("realtime.max_backlog", "64K"),
        ("realtime.rate_messages", "0"),
        ("realtime.rate_bytes", "0"),
    ]);
    let mut slow = Client::with_receive_buffer(hub.address(), Some(4096));
    slow.send(handshake("/ws", "").as_bytes());
    slow.head();
    let ping = masked(0x89, &[b'x'; 125]).repeat(100);
    let mut sent = 0;
    while hub.stats().dropped_slow == 0 && sent < 4000 {
        slow.send(&ping);
        sent += 1;
    }
    eventually("the end", || hub.stats().dropped_slow == 1);
}

#[test]
fn silence_is_asked_about_and_then_ended() {
    let hub = Hub::with(&[("realtime.ping_interval", "1")]);
    let (mut dead, _) = Client::native(hub.address());
    let (mut alive, _) = Client::native(hub.address());
    for _ in 0..3 {
        let ping = alive.frame();
        assert_eq!((ping.opcode, &ping.payload[..]), (9, &[][..]));
        alive.send(&masked(0x8a, b""));
    }
    assert_eq!(dead.frame().opcode, 9);
    assert_eq!(dead.frame().close(), (4009, "no answer to a ping"));
    alive.say(r#"{"type":"ping"}"#);
    // It may have been asked once more.
    let answer = loop {
        let frame = alive.frame();
        if frame.opcode != 9 {
            break frame;
        }
    };
    assert_eq!(answer.text(), r#"{"type":"pong"}"#);
}

#[test]
fn nobody_is_asked_before_the_interval_has_passed() {
    let shard = Arc::new(Shard::default());
    let mut hub = realtime::hub::Hub::new(shard, 1 << 20, 256);
    let none = std::iter::empty();
    let id = ConnectionId::new(0, 1);
    let info = ConnectionInfo::new(id, 0, Transport::WebSocket, "", "/ws", none);
    let slot = hub.add(Arc::new(info), Format::Native(Packing::Plain), None);
    // The first visit finds that something was heard, the second that nothing was since.
    for second in 0..=25 {
        assert!(hub.is_flushed(slot), "pinged after {second} seconds");
        hub.sweep(25);
    }
    assert!(!hub.is_flushed(slot), "pinged at the second visit");
    assert!(hub.closing(slot).is_none());
    for _ in 0..25 {
        hub.sweep(25);
    }
    assert_eq!(hub.closing(slot).unwrap().code, 4009);
}

#[test]
fn a_message_over_the_limit_is_its_publishers_mistake() {
    let hub = Hub::with(&[("realtime.max_message_size", "1K")]);
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("a", None);
    let text = format!("\"{}\"", "x".repeat(1022));
    hub.publish("a", &text);
    assert_eq!(client.json()["data"].as_str().unwrap().len(), 1022);
    let large = text.replacen('x', "xx", 1);
    let refused = hub.node().publish(message("a", &large)).unwrap_err();
    assert_eq!(
        refused,
        Failure::TooLarge {
            size: 1025,
            limit: 1024
        }
    );
}

#[test]
fn the_history_is_bounded_in_bytes_over_all_channels() {
    let hub = Hub::with(&[
        ("realtime.history_bytes", "100K"),
        ("realtime.history_size", "1000"),
    ]);
    let text = format!("\"{}\"", "x".repeat(1000));
    for n in 0..500 {
        hub.publish(&format!("c{}", n % 50), &text);
        assert!(hub.stats().history_bytes <= 100 << 10);
    }
    assert!(hub.stats().history_messages > 50);
}

#[test]
fn a_panic_in_a_shard_silences_nobody() {
    let hub = Hub::start();
    let (mut client, welcome) = Client::native(hub.address());
    client.subscribe("a", None);
    let shard = hub.node().shard(welcome.id().shard());
    shard.put(Command::Run(Box::new(|_| panic!("as a bug would"))));
    eventually("the end of the work", || shard.waiting() == 0);
    hub.publish("a", "1");
    assert_eq!(client.json()["data"], 1);
}

#[test]
fn the_end_of_the_server_is_said_to_everybody() {
    let hub = Hub::start();
    let address = hub.address().to_owned();
    let (mut native, _) = Client::native(&address);
    native.subscribe("a", None);
    let mut sse = Client::stream(&address, "/sse?channel=a", "");
    sse.chunk();
    hub.await_subscribers("a", 2);
    for n in 0..100 {
        hub.publish("a", &n.to_string());
    }
    let stopping = std::thread::spawn(move || drop(hub));
    for n in 0..100 {
        assert_eq!(native.json()["data"], n, "what waits is sent");
        sse.chunk_with(&format!("data: {n}\n"));
    }
    assert_eq!(native.frame().close(), (1001, "the server is going away"));
    native.send(&masked(0x88, &1001u16.to_be_bytes()));
    assert!(native.is_ended());
    assert_eq!(sse.chunk(), None);
    sse.shut_write();
    assert!(sse.is_ended());
    stopping.join().unwrap();
    // A process that another test is just starting has the socket as well, up to its exec.
    eventually("the address to be free again", || {
        TcpListener::bind(&address).is_ok()
    });
}

#[test]
fn an_answer_that_nobody_reads_is_given_up() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("large.txt"), vec![b'x'; 15 << 20]).unwrap();
    let hub = Hub::with(&[
        ("realtime.docroot", root.path().to_str().unwrap()),
        ("realtime.handshake_timeout", "3"),
    ]);
    let mut lazy = Client::with_receive_buffer(hub.address(), Some(4096));
    lazy.send(b"GET /large.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    // Nothing tells this side when the other gives up: its end comes behind what was not read.
    std::thread::sleep(std::time::Duration::from_secs(8));
    let read = lazy.rest().len();
    assert!(
        read < 15 << 20,
        "{read} bytes of an answer that was to be cut"
    );
    let mut prompt = Client::connect(hub.address());
    assert_eq!(prompt.get("/large.txt").body.len(), 15 << 20);
}
