//! `/sse`: events, their framing, and resuming by `Last-Event-ID`.

use bytes::Bytes;
use realtime::message::{EventName, Payload, Publish};
use serde_json::Value;

use crate::client::{Client, header};
use crate::harness::{Hub, message};

#[test]
fn the_bytes_of_a_stream() {
    let hub = Hub::with(&[("realtime.retry", "1.5")]);
    let mut client = Client::connect(hub.address());
    client.send(b"GET /sse?channel=a HTTP/1.1\r\nHost: test.example\r\n\r\n");
    let head = client.head();
    assert_eq!(header(&head, "Content-Type"), Some("text/event-stream"));
    assert_eq!(
        header(&head, "Cache-Control"),
        Some("no-cache, no-transform")
    );
    assert_eq!(header(&head, "X-Accel-Buffering"), Some("no"));
    assert_eq!(client.chunk().unwrap(), "retry: 1500\n\n");
    let cursor = client.chunk().unwrap();
    assert!(
        cursor.starts_with("id: ") && cursor.ends_with("-0\n\n"),
        "{cursor:?}"
    );
    hub.await_subscribers("a", 1);
    let id = hub.publish("a", "{\"a\":\n1}");
    assert_eq!(
        client.chunk_with("data"),
        format!("id: {id}\ndata: {{\"a\":\ndata: 1}}\n\n")
    );
    let named = Publish {
        event: EventName::new("paid"),
        id: Some("own".into()),
        payload: Payload::Binary(Bytes::from_static(&[0, 255])),
        ..message("a", "")
    };
    hub.node().publish(named).unwrap();
    assert_eq!(
        client.chunk().unwrap(),
        "id: own\nevent: paid\ndata: \"AP8=\"\n\n"
    );
    let known = hub.node().connections(None).unwrap();
    hub.node().close(known[0].id, 1000, String::new()).unwrap();
    assert_eq!(client.chunk(), None, "the body ends properly");
    client.shut_write();
    assert!(client.is_ended());
}

#[test]
fn http_1_0_gets_a_stream_without_chunks() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    client.send(b"GET /sse?channel=a HTTP/1.0\r\n\r\n");
    let head = client.head();
    assert_eq!(header(&head, "Transfer-Encoding"), None, "{head}");
    assert_eq!(header(&head, "Content-Length"), None, "{head}");
    assert_eq!(client.until(b"\n\n"), "retry: 2000\n\n");
    assert!(client.until(b"\n\n").starts_with("id: "));
    hub.await_subscribers("a", 1);
    hub.publish("a", "1");
    assert!(client.until(b"data: 1\n\n").contains("id: "));
    let known = hub.node().connections(None).unwrap();
    hub.node().close(known[0].id, 1000, String::new()).unwrap();
    client.shut_write();
    assert!(client.rest().is_empty(), "no last chunk");
}

#[test]
fn meta_tells_the_channel_and_who_one_is() {
    let hub = Hub::start();
    let mut client = Client::stream(hub.address(), "/sse?channel=a&channel=b&meta=1", "");
    client.chunk();
    let event = |chunk: String, name: &str| -> Value {
        let (first, data) = chunk.split_once("\ndata: ").unwrap();
        assert_eq!(
            first.lines().last().unwrap(),
            format!("event: {name}"),
            "{chunk}"
        );
        serde_json::from_str(data.trim_end()).unwrap()
    };
    let welcome = event(client.chunk().unwrap(), "realtime.welcome");
    assert_eq!(welcome["key"].as_str().unwrap().len(), 16);
    for channel in ["a", "b"] {
        let subscribed = event(client.chunk().unwrap(), "realtime.subscribed");
        assert_eq!(subscribed["channel"], channel);
        assert_eq!(subscribed["type"], "subscribed");
    }
    assert!(client.chunk().unwrap().starts_with("id: "));
    let id = hub.publish("b", "[1]");
    let data =
        format!(r#"{{"type":"message","channel":"b","event":"message","id":"{id}","data":[1]}}"#);
    assert_eq!(
        client.chunk().unwrap(),
        format!("id: {id}\ndata: {data}\n\n")
    );
    let connection = welcome["connection"].as_str().unwrap().parse().unwrap();
    let direct = Payload::Json(Bytes::from_static(b"5"));
    hub.node()
        .send(connection, direct, EventName::new("hint"))
        .unwrap();
    assert!(client.chunk().unwrap().starts_with("event: hint\ndata: "));
}

#[test]
fn with_meta_an_envelope_is_one_line_and_names_its_place() {
    let hub = Hub::start();
    let mut client = Client::stream(hub.address(), "/sse?channel=a&meta=1", "");
    hub.await_subscribers("a", 1);
    let own = Publish {
        id: Some("own".into()),
        ..message("a", "{\n\"x\":\r\n1}")
    };
    hub.node().publish(own).unwrap();
    let chunk = client.chunk_with("\"own\"");
    assert!(chunk.starts_with("id: own\ndata: {"), "{chunk}");
    let data: Vec<&str> = chunk.trim_end().split("data: ").collect();
    let envelope: Value = serde_json::from_str(data[1]).unwrap();
    assert_eq!((data.len(), &envelope["data"]["x"]), (2, &1.into()));
    let next = hub.publish("a", "2");
    let (epoch, number) = next.split_once('-').unwrap();
    let number = number.parse::<u64>().unwrap() - 1;
    assert_eq!(envelope["cursor"], format!("{epoch}-{number}"));
    let data = client.chunk_with("data: ");
    assert!(!data.contains("cursor"), "{data}");
}

#[test]
fn with_meta_no_channel_is_needed() {
    let hub = Hub::start();
    let mut client = Client::stream(hub.address(), "/sse?meta=1", "");
    let welcome = client.chunk_with("realtime.welcome");
    let welcome: Value =
        serde_json::from_str(welcome.trim_end().split("data: ").nth(1).unwrap()).unwrap();
    let connection = welcome["connection"].as_str().unwrap().parse().unwrap();
    let direct = Payload::Json(Bytes::from_static(b"5"));
    hub.node()
        .send(connection, direct, EventName::Message)
        .unwrap();
    let sent = client.chunk_with("data: ");
    assert!(sent.contains("\"data\":5"), "{sent}");
}

#[test]
fn one_last_event_id_resumes_several_channels() {
    let hub = Hub::start();
    let first = hub.publish("a", "1");
    for (channel, data) in [("b", "2"), ("a", "3"), ("c", "4"), ("b", "5")] {
        hub.publish(channel, data);
    }
    // The header is newer than what the page wrote into the URL.
    let path = "/sse?channel=b&channel=a&since=00000000-0";
    let more = format!("Last-Event-ID: {first}\r\n");
    let mut client = Client::stream(hub.address(), path, &more);
    client.chunk();
    let mut data = Vec::new();
    for _ in 0..3 {
        let chunk = client.chunk().unwrap();
        assert!(!chunk.contains("recovered=false"), "{chunk}");
        data.push(chunk.trim_end().rsplit("data: ").next().unwrap().to_owned());
    }
    assert_eq!(data, ["2", "3", "5"]);
    hub.publish("a", "6");
    client.chunk_with("data: 6");
}

#[test]
fn a_stream_that_breaks_before_its_first_message_resumes() {
    let hub = Hub::start();
    hub.publish("a", "1");
    let mut client = Client::stream(hub.address(), "/sse?channel=a", "");
    client.chunk();
    let cursor = client.chunk().unwrap();
    drop(client);
    hub.publish("a", "2");
    let more = format!(
        "Last-Event-ID: {}\r\n",
        cursor.trim_start_matches("id: ").trim_end()
    );
    let mut client = Client::stream(hub.address(), "/sse?channel=a", &more);
    client.chunk();
    assert!(client.chunk().unwrap().ends_with("data: 2\n\n"));
}

#[test]
fn a_resume_that_falls_short_says_so() {
    let hub = Hub::with(&[("realtime.history_size", "2")]);
    let ids: Vec<String> = (1..=4).map(|n| hub.publish("a", &n.to_string())).collect();
    let more = format!("Last-Event-ID: {}\r\n", ids[0]);
    let mut client = Client::stream(hub.address(), "/sse?channel=a", &more);
    client.chunk();
    let said = client.chunk().unwrap();
    assert_eq!(said, format!(": recovered=false oldest={}\n\n", ids[2]));
    assert!(client.chunk().unwrap().contains("data: 3"));
    assert!(client.chunk().unwrap().contains("data: 4"));
    let more = format!("Last-Event-ID: {}\r\n", ids[1]);
    let mut client = Client::stream(hub.address(), "/sse?channel=a", &more);
    client.chunk();
    assert!(client.chunk().unwrap().contains("data: 3"), "all there");
}

#[test]
fn a_silent_stream_has_a_heartbeat() {
    let hub = Hub::with(&[("realtime.ping_interval", "1")]);
    let mut client = Client::stream(hub.address(), "/sse?channel=a", "");
    client.chunk();
    client.chunk();
    for _ in 0..2 {
        assert_eq!(client.chunk().unwrap(), ":\n\n");
    }
    let mut lines = Client::stream(hub.address(), "/stream?channel=a", "");
    lines.chunk();
    for _ in 0..2 {
        assert_eq!(lines.chunk().unwrap(), "\n");
    }
}

#[test]
fn head_shows_the_headers_and_connects_nobody() {
    let hub = Hub::start();
    let mut client = Client::connect(hub.address());
    let head = client.request("HEAD", "/sse?channel=a", "", "");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(hub.stats().connections_total, 0);
}

#[test]
fn a_client_that_leaves_is_gone() {
    let hub = Hub::start();
    let client = Client::stream(hub.address(), "/sse?channel=a&channel=b", "");
    hub.await_subscribers("b", 1);
    drop(client);
    hub.await_subscribers("a", 0);
    hub.await_subscribers("b", 0);
    assert_eq!(hub.stats().subscriptions, 0);
}
