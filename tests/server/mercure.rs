//! The Mercure protocol, byte by byte: updates, rights, where one stands, and who is subscribed.

mod beside;
mod one;
mod resume;
mod rights;
mod subscriptions;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::client::{Client, Response, header};
use crate::harness::{Hub, eventually};

const PUBLISHERS: &str = "a-key-of-publishers-that-is-long-enough";
const SUBSCRIBERS: &str = "a-key-of-subscribers-that-is-long-enough";
const ON: [(&str, &str); 2] = [
    ("realtime.mercure_publisher_key", PUBLISHERS),
    ("realtime.mercure_subscriber_key", SUBSCRIBERS),
];
const HUB: &str = "/.well-known/mercure";

fn hub(more: &[(&str, &str)]) -> Hub {
    Hub::with(&[&ON, more].concat())
}

fn open_hub(more: &[(&str, &str)]) -> Hub {
    hub(&[&[("realtime.mercure_anonymous", "1")], more].concat())
}

fn jwt(key: &str, claims: Value) -> String {
    let key = EncodingKey::from_secret(key.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

fn publisher() -> String {
    jwt(PUBLISHERS, json!({"mercure": {"publish": ["*"]}}))
}

fn subscriber(topics: Value) -> String {
    let claims = json!({"mercure": {"subscribe": topics, "payload": {"name": "ada"}}});
    jwt(SUBSCRIBERS, claims)
}

/// Posts a form with this token.
fn post(hub: &Hub, token: &str, form: &str) -> Response {
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let more = format!("{kind}Authorization: Bearer {token}\r\n");
    Client::connect(hub.address()).request("POST", HUB, &more, form)
}

/// Publishes as one who may. Returns the update's id.
#[track_caller]
fn publish(hub: &Hub, form: &str) -> String {
    let response = post(hub, &publisher(), form);
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("Content-Type"), Some("text/plain"));
    response.body
}

/// Subscribes, and takes what comes before updates.
fn subscribe(hub: &Hub, query: &str, token: Option<&str>) -> Client {
    let before = hub.stats().connections_total;
    let mut client = Client::stream(hub.address(), &format!("{HUB}?{query}"), &bearer(token));
    client.chunk_with("retry: ");
    assert!(hub.stats().connections_total > before);
    client
}

fn bearer(token: Option<&str>) -> String {
    token.map_or(String::new(), |token| {
        format!("Authorization: Bearer {token}\r\n")
    })
}

fn get(hub: &Hub, path: &str, more: &str) -> Response {
    Client::connect(hub.address()).request("GET", path, more, "")
}

#[test]
fn an_update_is_an_event() {
    let hub = open_hub(&[]);
    let mut client = Client::connect(hub.address());
    let topic = "topic=https%3A%2F%2Fshop.example%2Forders%2F1";
    client.send(format!("GET {HUB}?{topic} HTTP/1.1\r\nHost: test.example\r\n\r\n").as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(header(&head, "Content-Type"), Some("text/event-stream"));
    assert_eq!(header(&head, "Last-Event-ID"), None);
    assert!(header(&head, "Cache-Control").unwrap().contains("private"));
    let first = client.chunk().unwrap();
    assert!(first.starts_with("retry: 2000\n\nid: urn:uuid:"), "{first}");
    let id = publish(&hub, &format!("{topic}&data=hello+there%0Ayou"));
    assert!(
        id.starts_with("urn:uuid:") && id.ends_with("-000000000001"),
        "{id}"
    );
    let event = format!("id: {id}\ndata: hello there\ndata: you\n\n");
    assert_eq!(client.chunk().unwrap(), event);
    let id = publish(
        &hub,
        &format!("{topic}&data=%7B%22a%22%3A+1%7D&id=urn:x:1&type=paid&retry=70"),
    );
    assert_eq!(id, "urn:x:1");
    let event = "event: paid\nretry: 70\nid: urn:x:1\ndata: {\"a\": 1}\n\n";
    assert_eq!(client.chunk().unwrap(), event);
    // What PHP publishes is an update; a string is its text.
    hub.publish("https://shop.example/orders/1", r#"{"id":1}"#);
    assert!(client.chunk().unwrap().ends_with("\ndata: {\"id\":1}\n\n"));
    hub.publish("https://shop.example/orders/1", r#""<b>\u00e4</b>""#);
    assert!(client.chunk().unwrap().ends_with("\ndata: <b>ä</b>\n\n"));
}

#[test]
fn the_same_channel_in_every_protocol() {
    let hub = open_hub(&[]);
    let name = "https://shop.example/orders/1?a=b&c=%20#d";
    let encoded = "https%3A%2F%2Fshop.example%2Forders%2F1%3Fa%3Db%26c%3D%2520%23d";
    let (mut native, _) = Client::native(hub.address());
    native.subscribe(name, None);
    let mut sse = Client::stream(hub.address(), &format!("/sse?channel={encoded}"), "");
    let mut raw = Client::websocket(hub.address(), &format!("/raw/{encoded}"));
    let mut mercure = subscribe(&hub, &format!("topic={encoded}"), None);
    hub.await_subscribers(name, 4);
    publish(&hub, &format!("topic={encoded}&data=%5B1%5D&type=paid"));
    let message = native.json();
    assert_eq!(
        (&message["channel"], &message["event"]),
        (&name.into(), &"paid".into())
    );
    assert_eq!(message["data"], json!([1]));
    assert!(
        sse.chunk_with("data: ")
            .contains("event: paid\ndata: [1]\n")
    );
    assert_eq!(raw.frame().text(), "[1]");
    assert!(mercure.chunk().unwrap().ends_with("data: [1]\n\n"));
    publish(&hub, &format!("topic={encoded}&data=plain"));
    assert_eq!(native.json()["data"], "plain");
}

#[test]
fn without_keys_it_is_off() {
    let hub = Hub::with(&[("realtime.mercure_anonymous", "1")]);
    assert_eq!(get(&hub, &format!("{HUB}?topic=a"), "").status, 404);
    assert_eq!(post(&hub, &publisher(), "topic=a&data=1").status, 405);
    let publishing = Hub::with(&ON[..1]);
    let refused = get(&publishing, &format!("{HUB}?topic=a"), "");
    assert_eq!(refused.status, 401, "{refused:?}");
    let subscribing = Hub::with(&ON[1..]);
    assert_eq!(post(&subscribing, &publisher(), "topic=a").status, 401);
}

#[test]
fn bad_forms() {
    let hub = hub(&[("realtime.max_message_size", "1000")]);
    let token = publisher();
    let long = "x".repeat(201);
    for (form, status) in [
        ("", 400),
        ("data=1", 400),
        ("topic=", 400),
        ("topic=a+b", 400),
        (&format!("topic={long}"), 400),
        ("topic=a&id=%0Ax", 400),
        ("topic=a&id=%23x", 400),
        ("topic=a&type=%0Ddata:x", 400),
        ("topic=a&retry=soon", 400),
        (&"topic=a&".repeat(101), 400),
        ("topic=/.well-known/mercure/subscriptions/x/y", 403),
        ("topic=https://a.example/.well-known/mercure/x", 403),
        (&format!("topic=a&data={}", "%41".repeat(1001)), 413),
        (&format!("topic=a&data={}", "x".repeat(80_000)), 413),
        (&format!("topic=a&data={}", "%41".repeat(990)), 200),
    ] {
        let answer = post(&hub, &token, form);
        let start = &form[..form.len().min(60)];
        assert_eq!(answer.status, status, "{start}: {answer:?}");
    }
    let more = format!("Content-Type: application/json\r\n{}", bearer(Some(&token)));
    let answer = Client::connect(hub.address()).request("POST", HUB, &more, "{}");
    assert_eq!(answer.status, 415);
    let answer = Client::connect(hub.address()).request("DELETE", HUB, "", "");
    assert_eq!(answer.status, 405);
}

#[test]
fn bad_topics() {
    let hub = open_hub(&[
        ("realtime.max_subscriptions", "3"),
        ("realtime.max_patterns", "4"),
    ]);
    let status = |query: &str| get(&hub, &format!("{HUB}?{query}"), "").status;
    assert_eq!(status(""), 400);
    assert_eq!(status("topic="), 400);
    assert_eq!(status("topic=%0A"), 400);
    assert_eq!(status("topic=a%20b"), 400);
    assert_eq!(status(&format!("topic={}", "{a}".repeat(67))), 400);
    assert_eq!(status("topic=a&topic=b&topic=c&topic=d"), 400);
    assert_eq!(status("topic=private-a"), 403);
    let _three = subscribe(&hub, "topic=a&topic=a&topic=b&topic=c", None);
    // The limit is one thread's: with both full nobody finds room.
    let mut clients = Vec::new();
    let mut refused = 0;
    for n in 0..12 {
        let path = format!("{HUB}?topic=%7Ba%7D/{n}");
        let mut client = Client::connect(hub.address());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n").as_bytes());
        let head = client.head();
        match &head[9..12] {
            "200" => drop(client.chunk_with("retry")),
            "503" => refused += 1,
            other => panic!("{other}"),
        }
        clients.push(client);
    }
    assert!(refused >= 4, "{refused}");
}

#[test]
fn patterns_get_what_fits() {
    let hub = open_hub(&[]);
    let template = "topic=https%3A%2F%2Fb.example%2F%7Bid%7D";
    let mut books = subscribe(&hub, template, None);
    let mut all = subscribe(&hub, "topic=*", None);
    let mut both = subscribe(
        &hub,
        &format!("{template}&topic=*&topic=https://b.example/1"),
        None,
    );
    assert_eq!(hub.stats().subscriptions, 5);
    for topic in [
        "https://b.example/1",
        "https://b.example/1/2",
        "https://b.example/3",
    ] {
        publish(&hub, &format!("topic={topic}&data={topic}"));
    }
    let data = |client: &mut Client| {
        let event = client.chunk().unwrap();
        event.trim_end().rsplit("data: ").next().unwrap().to_owned()
    };
    for client in [&mut all, &mut both] {
        for topic in [
            "https://b.example/1",
            "https://b.example/1/2",
            "https://b.example/3",
        ] {
            assert_eq!(data(client), topic, "each once");
        }
    }
    assert_eq!(data(&mut books), "https://b.example/1");
    assert_eq!(data(&mut books), "https://b.example/3");
    drop((books, all, both));
    eventually("nobody follows", || hub.stats().subscriptions == 0);
    // Nobody is there; the next one finds its pattern again.
    let mut again = subscribe(&hub, template, None);
    publish(&hub, "topic=https://b.example/4&data=4");
    assert_eq!(data(&mut again), "4");
}

#[test]
fn an_update_of_several_topics_comes_once() {
    let hub = open_hub(&[]);
    let mut both = subscribe(&hub, "topic=a&topic=b", None);
    let mut second = subscribe(&hub, "topic=b&topic=c%7B%2Fx%7D", None);
    let (mut native, _) = Client::native(hub.address());
    native.subscribe("a", None);
    native.subscribe("b", None);
    let id = publish(&hub, "topic=a&topic=b&topic=c/1&topic=a&data=1");
    let event = format!("id: {id}\ndata: 1\n\n");
    assert_eq!(both.chunk().unwrap(), event);
    assert_eq!(second.chunk().unwrap(), event);
    // Here a channel is a channel.
    assert_eq!(native.json()["channel"], "a");
    assert_eq!(native.json()["channel"], "b");
    let last = publish(&hub, "topic=a&topic=b&topic=c/2&data=2");
    for client in [&mut both, &mut second] {
        assert_eq!(client.chunk().unwrap(), format!("id: {last}\ndata: 2\n\n"));
    }
    let more = format!("Last-Event-ID: {id}\r\n");
    for query in ["topic=a&topic=b", "topic=b&topic=c%7B%2Fx%7D"] {
        let mut client = Client::stream(hub.address(), &format!("{HUB}?{query}"), &more);
        client.chunk_with("retry");
        assert_eq!(client.chunk().unwrap(), format!("id: {last}\ndata: 2\n\n"));
        hub.publish("b", "\"end\"");
        assert!(client.chunk().unwrap().ends_with("data: end\n\n"));
    }
}

#[test]
fn a_head_connects_nobody() {
    let hub = open_hub(&[]);
    let mut client = Client::connect(hub.address());
    let head = client.request("HEAD", &format!("{HUB}?topic=a"), "", "");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(hub.stats().connections_total, 0);
}
