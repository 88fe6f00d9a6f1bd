//! Clients that take more than their share: connections of one address or user, and messages faster than allowed.

use std::time::{Duration, Instant};

use serde_json::json as value;

use crate::client::{Client, handshake, masked};
use crate::harness::{Hub, eventually};
use crate::issuer::{SETTING, token};

#[test]
fn one_address_has_its_limit() {
    let hub = Hub::with(&[
        ("realtime.trusted_proxies", ""),
        ("realtime.max_connections_per_address", "2"),
    ]);
    let (first, _) = Client::native(hub.address());
    let (_second, _) = Client::native(hub.address());
    let mut third = Client::connect(hub.address());
    let refused = String::from_utf8(third.rest()).unwrap();
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    drop(first);
    eventually("a free place", || {
        let mut client = Client::connect(hub.address());
        client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.rest().starts_with(b"HTTP/1.1 200")
    });
}

#[test]
fn a_proxys_connections_are_not_counted() {
    let hub = Hub::with(&[("realtime.max_connections_per_address", "1")]);
    let _clients: Vec<_> = (0..5).map(|_| Client::native(hub.address())).collect();
    assert_eq!(hub.node().connection_count(), 5);
}

#[test]
fn one_user_has_its_limit() {
    let hub = Hub::with(&[SETTING, ("realtime.max_connections_per_user", "2")]);
    let ada = token(value!({"sub": "ada"}));
    let path = format!("/sse?channel=a&token={ada}");
    let first = Client::stream(hub.address(), &path, "");
    let _second = Client::websocket(hub.address(), &format!("/ws?token={ada}"));
    hub.await_subscribers("a", 1);
    eventually("both", || hub.node().connection_count() == 2);
    let refused = Client::connect(hub.address()).get(&path);
    assert_eq!(
        (refused.status, &*refused.code()),
        (429, "too_many_connections")
    );
    let mut ws = Client::connect(hub.address());
    ws.send(handshake(&format!("/ws?token={ada}"), "").as_bytes());
    assert_eq!(ws.response(true).status, 429);
    let bob = token(value!({"sub": "bob"}));
    let _bob = Client::stream(hub.address(), &format!("/sse?channel=a&token={bob}"), "");
    Client::native(hub.address());
    drop(first);
    eventually("a free place", || {
        Client::connect(hub.address())
            .get(&format!("/poll?channel=a&timeout=0&token={ada}"))
            .status
            == 200
    });
}

/// How long it takes until `count` pings are answered.
fn pinging(hub: &Hub, count: usize) -> Duration {
    let (mut client, _) = Client::native(hub.address());
    let begun = Instant::now();
    let ping = masked(0x81, br#"{"type":"ping"}"#);
    client.send(&ping.repeat(count));
    for _ in 0..count {
        assert_eq!(client.json()["type"], "pong");
    }
    begun.elapsed()
}

#[test]
fn who_talks_too_fast_is_read_slowly() {
    let hub = Hub::with(&[("realtime.rate_messages", "20")]);
    // Ten seconds' worth is free; all after it comes at the rate, and none is lost.
    let took = pinging(&hub, 230);
    assert!(took >= Duration::from_millis(1400), "{took:?}");
    let hub = Hub::with(&[
        ("realtime.rate_messages", "0"),
        ("realtime.rate_bytes", "0"),
    ]);
    assert!(pinging(&hub, 3000) < Duration::from_secs(10));
}

#[test]
fn bytes_have_a_rate_of_their_own() {
    let hub = Hub::with(&[("realtime.rate_bytes", "1K")]);
    let (mut client, _) = Client::native(hub.address());
    let (mut other, _) = Client::native(hub.address());
    let begun = Instant::now();
    let long = value!({"type": "ping", "x": "x".repeat(18_000)}).to_string();
    client.say(&long);
    client.say(r#"{"type":"ping"}"#);
    assert_eq!(
        other.ask(r#"{"type":"ping"}"#)["type"],
        "pong",
        "nobody else waits"
    );
    // It has to for almost eight seconds.
    assert!(begun.elapsed() < Duration::from_secs(7));
    client.json();
    client.json();
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(7), "{took:?}");
}

#[test]
fn a_paused_client_can_be_closed() {
    let hub = Hub::with(&[("realtime.rate_bytes", "1K")]);
    let (mut client, welcome) = Client::native(hub.address());
    client.say(&value!({"type": "ping", "x": "x".repeat(60_000)}).to_string());
    client.say(r#"{"type":"ping"}"#);
    std::thread::sleep(Duration::from_millis(200));
    hub.node()
        .close(welcome.id(), 4000, "enough".into())
        .unwrap();
    let begun = Instant::now();
    loop {
        let frame = client.frame();
        if frame.opcode == 8 {
            assert_eq!(frame.close(), (4000, "enough"));
            break;
        }
    }
    // It would have to wait for fifty seconds.
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn requests_on_one_socket_have_the_same_rate() {
    let hub = Hub::with(&[("realtime.rate_messages", "20")]);
    let mut client = Client::connect(hub.address());
    let begun = Instant::now();
    for _ in 0..225 {
        assert_eq!(client.get("/healthz").status, 200);
    }
    assert!(begun.elapsed() >= Duration::from_millis(1200));
}

#[test]
fn neither_drops_of_a_head_nor_silence_after_an_answer_keep_a_socket() {
    let hub = Hub::with(&[("realtime.handshake_timeout", "1.5")]);
    let mut idle = Client::connect(hub.address());
    assert_eq!(idle.get("/healthz").status, 200);
    let begun = Instant::now();
    assert!(idle.is_ended());
    assert!(begun.elapsed() < Duration::from_secs(9));
    // A byte now and then is no head: the time is that of the whole.
    let mut slow = Client::connect(hub.address());
    let begun = Instant::now();
    let mut drops = handshake("/ws", "").into_bytes().into_iter().cycle();
    while begun.elapsed() < Duration::from_secs(3) {
        let drop = drops.next().unwrap();
        if slow.try_send(&[drop]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(slow.is_ended());
    // Nor does one of a body.
    let mut slow = Client::connect(hub.address());
    slow.send(
        b"POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n",
    );
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) && slow.try_send(b"{").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(slow.is_ended());
}
