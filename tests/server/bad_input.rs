//! HTTP that is broken, slow or too large: its sender is told, and everybody else is served on.

use crate::client::{Client, handshake};
use crate::harness::{Hub, MESSAGES};

/// A subscriber that has to see every message while others misbehave.
struct Witness<'a> {
    hub: &'a Hub,
    client: Client,
    count: u32,
}

impl<'a> Witness<'a> {
    fn new(hub: &'a Hub) -> Self {
        let (mut client, _) = Client::native(hub.address());
        client.subscribe("witness", None);
        Self {
            hub,
            client,
            count: 0,
        }
    }

    #[track_caller]
    fn is_served(&mut self) {
        self.count += 1;
        self.hub.publish("witness", &self.count.to_string());
        assert_eq!(self.client.json()["data"], self.count);
    }
}

#[test]
fn garbage_in_place_of_a_request_is_answered_and_ended() {
    let hub = Hub::start();
    let mut witness = Witness::new(&hub);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000));
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(200)
    );
    let cases: [(&[u8], &[&str]); 12] = [
        (b"nonsense\r\n\r\n", &["400"]),
        (b"GET / HTTP/9.9\r\n\r\n", &["400"]),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", &["400"]),
        (b"GET / HTTP/1.1\r\nA: \x01\r\n\r\n", &["400"]),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            &["400"],
        ),
        (
            b"POST /publish HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            &["400"],
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            &["400"],
        ),
        (b"\x00\x00\x00\x00\r\n\r\n", &["400"]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[""]),
        (long.as_bytes(), &["414", "431"]),
        (large.as_bytes(), &["431"]),
        (many.as_bytes(), &["431"]),
    ];
    for (bytes, statuses) in cases {
        let mut client = Client::connect(hub.address());
        client.send(bytes);
        let rest = client.rest();
        let answer = String::from_utf8_lossy(&rest);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let status = answer.get(9..12).unwrap_or_default();
        assert!(statuses.contains(&status), "{shown:?}: {answer:?}");
        witness.is_served();
    }
}

#[test]
fn a_length_and_chunks_at_once_smuggle_nothing() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    client.send(
        b"POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\
          Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let rest = client.rest();
    let answers = String::from_utf8_lossy(&rest);
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
}

#[test]
fn a_slow_head_is_not_waited_for() {
    let hub = Hub::with(&[("realtime.handshake_timeout", "1.5")]);
    let mut witness = Witness::new(&hub);
    let whole = handshake("/ws", "");
    for part in ["", "GET /ws HT", &whole[..whole.len() - 2]] {
        let mut client = Client::connect(hub.address());
        client.send(part.as_bytes());
        let rest = client.rest();
        let answer = String::from_utf8_lossy(&rest);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{part:?}: {answer}"
        );
        witness.is_served();
    }
}

#[test]
fn a_client_that_leaves_in_its_handshake_is_forgotten() {
    let hub = Hub::start();
    let mut witness = Witness::new(&hub);
    let whole = handshake("/ws", "");
    for end in [1, 20, whole.len() - 1] {
        let mut client = Client::connect(hub.address());
        client.send(&whole.as_bytes()[..end]);
        client.shut_write();
        assert!(client.is_ended());
        witness.is_served();
    }
    assert_eq!(hub.node().connection_count(), 1);
}

#[test]
fn a_slow_body_is_not_waited_for() {
    let hub = Hub::with(&[("realtime.handshake_timeout", "1.5")]);
    let mut client = Client::connect(hub.address());
    client.send(
        b"POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
    );
    let response = client.response(true);
    assert_eq!((response.status, &*response.code()), (408, "timeout"));
    assert!(client.is_ended());
}

#[test]
fn a_giant_body_is_refused_by_its_announcement() {
    let hub = Hub::start();
    let _php = hub.recording(MESSAGES);
    for length in ["67585", "1099511627776", "18446744073709551615"] {
        let mut client = Client::connect(hub.address());
        let head = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        client.send(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes());
        let rest = client.rest();
        let answer = String::from_utf8_lossy(&rest);
        // The largest number is no length to hyper, and it calls that a header too large.
        let status = if length.len() < 20 { "413" } else { "431" };
        assert_eq!(answer.get(9..12), Some(status), "{length}: {answer}");
    }
}

#[test]
fn a_body_that_grows_beyond_the_limit_is_cut_off() {
    let hub = Hub::with(&[("realtime.max_message_size", "1K")]);
    let mut client = Client::connect(hub.address());
    client.send(
        b"POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..4 {
        client.send(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes());
    }
    let response = client.response(true);
    assert_eq!((response.status, &*response.code()), (413, "too_large"));
}

#[test]
fn queries_are_checked() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let many: String = (0..101).map(|n| format!("channel=c{n}&")).collect();
    let cases = [
        ("/poll".to_owned(), 400, "bad_channel"),
        ("/poll?session=0".into(), 400, "bad_channel"),
        ("/sse?meta=0".into(), 400, "bad_channel"),
        ("/stream?meta=1&session=1".into(), 400, "bad_channel"),
        ("/sse?channel=".into(), 400, "bad_channel"),
        ("/stream?channel=a%20b".into(), 400, "bad_channel"),
        ("/sse?channel=a&channel=%00".into(), 400, "bad_channel"),
        ("/sse?channel=private-a".into(), 403, "forbidden"),
        (
            "/stream?channel=a&channel=presence-a".into(),
            403,
            "forbidden",
        ),
        ("/poll?channel=private-a&timeout=0".into(), 403, "forbidden"),
        (format!("/sse?{many}"), 400, "too_many_subscriptions"),
        (
            format!("/poll?timeout=0&{many}"),
            400,
            "too_many_subscriptions",
        ),
        ("/poll?channel=a&timeout=-1".into(), 400, "bad_timeout"),
        ("/poll?channel=a&timeout=61".into(), 400, "bad_timeout"),
        ("/poll?channel=a&timeout=NaN".into(), 400, "bad_timeout"),
        ("/poll?channel=a&timeout=x".into(), 400, "bad_timeout"),
        ("/poll?channel=a&connection=1".into(), 400, "bad_frame"),
        (
            "/poll?channel=a&connection=1&key=2".into(),
            404,
            "no_session",
        ),
    ];
    for (path, status, code) in cases {
        let response = client.get(&path);
        assert_eq!(
            (response.status, &*response.code()),
            (status, code),
            "{path}"
        );
    }
    for path in ["/sse?channel=a&channel=b%20c", "/poll?channel=b%20c"] {
        let refused = client.get(path).json();
        assert_eq!(refused["error"]["channel"], "b c", "{path}");
    }
    let refused = client.post(r#"{"channel":"b c"}"#).json();
    assert_eq!(refused["error"]["channel"], "b c");
}
