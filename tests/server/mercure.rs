//! The Mercure protocol, byte by byte: updates, rights, where one stands, and who is subscribed.

mod beside;
mod one;

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use realtime::backend::{Event, Interest};
use serde_json::{Value, json};

use crate::client::{Client, Response, header};
use crate::harness::{Hub, NONE, eventually, message};
use crate::issuer::{Pair, at};

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
fn who_may_subscribe() {
    let closed = hub(&[]);
    let path = format!("{HUB}?topic=a");
    let refused = get(&closed, &path, "");
    assert_eq!((refused.status, refused.code()), (401, "bad_token".into()));
    assert!(
        refused
            .header("WWW-Authenticate")
            .unwrap()
            .starts_with("Bearer")
    );
    let good = subscriber(json!([]));
    subscribe(&closed, "topic=a", Some(&good));
    subscribe(&closed, &format!("topic=a&authorization={good}"), None);
    let cookie = format!("Cookie: x=y; mercureAuthorization={good}\r\n");
    Client::stream(closed.address(), &path, &cookie);
    // The header counts before the query, and that before the cookie.
    let wrong = publisher();
    for (query, more) in [
        (format!("&authorization={good}"), bearer(Some(&wrong))),
        (format!("&authorization={wrong}"), cookie),
        (
            format!("&authorization={good}"),
            "Authorization: Basic eDp5\r\n".to_owned(),
        ),
    ] {
        assert_eq!(
            get(&closed, &format!("{path}{query}"), &more).status,
            401,
            "{more}"
        );
    }
    let open = open_hub(&[]);
    assert_eq!(
        get(&open, &path, &bearer(Some(&wrong))).status,
        401,
        "a wrong token is wrong"
    );
    subscribe(&open, "topic=a", None);
}

#[test]
fn tokens_that_are_not_taken() {
    let hub = hub(&[]);
    let path = format!("{HUB}?topic=a");
    let claims = |more: Value| {
        let mut claims = json!({"mercure": {"subscribe": ["*"], "publish": ["*"]}});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let unsigned = "eyJhbGciOiJub25lIn0.eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdfX0.";
    let many = json!({"mercure": {"subscribe": vec!["x"; 201], "publish": vec!["x"; 201]}});
    type Spoil = Box<dyn Fn(&str) -> String>;
    let bad: Vec<(&str, Spoil)> = vec![
        ("none", Box::new(move |_| unsigned.to_owned())),
        ("garbage", Box::new(|_| "garbage".to_owned())),
        (
            "other key",
            Box::new(move |_| jwt("another-key-that-is-long-enough-too", claims(json!({})))),
        ),
        (
            "expired",
            Box::new(move |key| jwt(key, claims(json!({"exp": at(-1.0)})))),
        ),
        (
            "not yet",
            Box::new(move |key| jwt(key, claims(json!({"nbf": at(60.0)})))),
        ),
        ("many", Box::new(move |key| jwt(key, many.clone()))),
        (
            "a string",
            Box::new(move |key| jwt(key, json!({"mercure": {"subscribe": "*", "publish": "*"}}))),
        ),
    ];
    for (what, token) in &bad {
        let answer = get(&hub, &path, &bearer(Some(&token(SUBSCRIBERS))));
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        let answer = post(&hub, &token(PUBLISHERS), "topic=a&data=1");
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(
            !answer.body.contains("eyJ"),
            "no token is shown: {answer:?}"
        );
    }
    assert_eq!(hub.stats().published, 0);
    // The claim may have the longer name, and an audience is nobody's business.
    let long = json!({"https://mercure.rocks/": {"publish": ["a"]}, "aud": "x", "exp": at(60.0)});
    assert_eq!(post(&hub, &jwt(PUBLISHERS, long), "topic=a").status, 200);
}

#[test]
fn keys_may_be_in_a_file() {
    let pair = Pair::rsa();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &pair.public).unwrap();
    let path = file.path().display().to_string();
    let hub = Hub::with(&[("realtime.mercure_publisher_key", &path)]);
    let claims = json!({"mercure": {"publish": ["*"]}});
    let token = encode(&Header::new(pair.algorithm), &claims, &pair.signer).unwrap();
    assert_eq!(post(&hub, &token, "topic=a").status, 200);
    // The text of a public key is no secret.
    assert_eq!(
        post(&hub, &jwt(&pair.public, claims), "topic=a").status,
        401
    );
}

#[test]
fn who_may_publish() {
    let hub = hub(&[]);
    let token = jwt(
        PUBLISHERS,
        json!({"mercure": {"publish": ["a", "https://b.example/{id}"]}}),
    );
    assert_eq!(
        post(&hub, &token, "topic=a&topic=https://b.example/1").status,
        200
    );
    let half = post(&hub, &token, "topic=a&topic=c");
    assert_eq!((half.status, half.code()), (403, "forbidden".into()));
    assert_eq!(hub.stats().published, 2);
    for claims in [
        json!({}),
        json!({"mercure": {}}),
        json!({"mercure": {"publish": []}}),
    ] {
        assert_eq!(post(&hub, &jwt(PUBLISHERS, claims), "topic=a").status, 403);
    }
    // A browser's form comes with its cookies from anywhere.
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let cookie = format!("{kind}Cookie: mercureAuthorization={token}\r\n");
    let form = |more: &str| {
        let more = format!("{cookie}{more}");
        let mut client = Client::connect(hub.address());
        client.request("POST", HUB, &more, "topic=a").status
    };
    assert_eq!(form(""), 401);
    assert_eq!(form("Origin: http://test.example\r\n"), 200);
    assert_eq!(form("Origin: http://evil.example\r\n"), 403);
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
fn private_updates_are_for_those_who_may() {
    let hub = open_hub(&[]);
    let allowed = subscriber(json!(["https://b.example/{id}"]));
    let other = subscriber(json!(["https://b.example/2"]));
    let mut clients = [
        (
            subscribe(&hub, "topic=https://b.example/1", Some(&allowed)),
            true,
        ),
        (subscribe(&hub, "topic=*", Some(&allowed)), true),
        (
            subscribe(&hub, "topic=https://b.example/1", Some(&other)),
            false,
        ),
        (subscribe(&hub, "topic=*", Some(&other)), false),
        (
            subscribe(&hub, "topic=https://b.example/%7Bid%7D", None),
            false,
        ),
        (
            Client::stream(hub.address(), "/sse?channel=https://b.example/1", ""),
            false,
        ),
        (
            Client::stream(hub.address(), "/stream?channel=https://b.example/1", ""),
            false,
        ),
    ];
    let (mut native, _) = Client::native(hub.address());
    native.subscribe("https://b.example/1", None);
    hub.await_subscribers("https://b.example/1", 5);
    let first = hub.publish("https://b.example/1", "0");
    for (client, _) in &mut clients {
        client.chunk_with("0");
    }
    publish(&hub, "topic=https://b.example/1&private=on&data=secret");
    hub.publish("https://b.example/1", "\"end\"");
    for (client, may) in &mut clients {
        let mut seen = false;
        loop {
            let chunk = client.chunk().unwrap();
            seen |= chunk.contains("secret");
            if chunk.contains("end") {
                break;
            }
        }
        assert_eq!(seen, *may);
    }
    assert_eq!(native.json()["data"], 0);
    assert_eq!(native.json()["data"], "end");
    // Nor is it told to whoever comes back.
    let since = format!("since={first}");
    let path = format!("/poll?channel=https://b.example/1&{since}");
    let poll = get(&hub, &path, "").json();
    assert_eq!(poll["messages"].as_array().unwrap().len(), 1, "{poll}");
    let path = format!("/sse?channel=https://b.example/1&{since}");
    let mut sse = Client::stream(hub.address(), &path, "");
    assert!(sse.chunk_with("data: ").contains("end"));
    let mut again = Client::native(hub.address()).0;
    again.subscribe("https://b.example/1", Some(&first));
    assert_eq!(again.json()["data"], "end");
    for (token, expected) in [
        (Some(&allowed), "secret"),
        (Some(&other), "end"),
        (None, "end"),
    ] {
        for topic in ["*", "https://b.example/1"] {
            let query = format!("topic={topic}&lastEventID={first}");
            let mut client = subscribe(&hub, &query, token.map(String::as_str));
            assert!(
                client.chunk().unwrap().contains(expected),
                "{topic} {token:?}"
            );
        }
    }
}

#[test]
fn the_right_to_one_topic_is_the_right_to_the_update() {
    let hub = hub(&[]);
    let token = subscriber(json!(["https://e.example/users/ada/{?topic}"]));
    let mut client = subscribe(&hub, "topic=https://e.example/books/%7Bid%7D", Some(&token));
    let mine = "topic=https%3A%2F%2Fe.example%2Fusers%2Fada%2F%3Ftopic%3Dhttps%253A%252F%252Fe.example%252Fbooks%252F1";
    publish(
        &hub,
        "topic=https://e.example/books/2&private=on&data=not+mine",
    );
    let form = format!("topic=https://e.example/books/1&{mine}&private=on&data=mine");
    publish(&hub, &form);
    assert!(client.chunk().unwrap().ends_with("data: mine\n\n"));
}

#[test]
fn guarded_channels_stay_closed() {
    let hub = open_hub(&[]);
    let mut all = subscribe(&hub, "topic=*", None);
    let token = subscriber(json!(["private-a"]));
    let mut mine = subscribe(&hub, "topic=*", Some(&token));
    let mut named = subscribe(&hub, "topic=private-a", Some(&token));
    hub.publish("private-a", "1");
    hub.publish("private-b", "2");
    hub.publish("c", "3");
    assert!(all.chunk().unwrap().ends_with("data: 3\n\n"));
    assert!(mine.chunk().unwrap().ends_with("data: 1\n\n"));
    assert!(mine.chunk().unwrap().ends_with("data: 3\n\n"));
    assert!(named.chunk().unwrap().ends_with("data: 1\n\n"));
}

#[test]
fn php_decides_about_topics_with_a_name() {
    let hub = open_hub(&[]);
    let interest = Interest {
        subscribe: true,
        ..NONE
    };
    let _php = hub.php(interest, |_, event| {
        if let Event::Subscribe {
            channel, answer, ..
        } = event
        {
            answer.decide(channel.as_str() == "open");
        }
    });
    let status = |query: &str| get(&hub, &format!("{HUB}?{query}"), "").status;
    assert_eq!(status("topic=closed"), 403);
    assert_eq!(status("topic=open&topic=closed"), 403);
    let mut open = subscribe(&hub, "topic=open", None);
    // A pattern has no name to ask about: it gives what the token covers.
    let token = subscriber(json!(["closed"]));
    let mut all = subscribe(&hub, "topic=*", Some(&token));
    for topic in ["other", "closed", "open"] {
        hub.publish(topic, &format!("\"{topic}\""));
    }
    assert!(open.chunk().unwrap().ends_with("data: open\n\n"));
    assert!(all.chunk().unwrap().ends_with("data: closed\n\n"));
    let token = subscriber(json!(["*"]));
    let mut rest = subscribe(&hub, "topic=*&lastEventID=earliest", Some(&token));
    for topic in ["other", "closed", "open"] {
        assert!(rest.chunk().unwrap().contains(topic));
    }
}

/// What a client that says where it stands is told, and the data that it gets until `end`.
fn resumed(hub: &Hub, query: &str, more: &str) -> (String, Vec<String>) {
    let mut client = Client::connect(hub.address());
    let path = format!("{HUB}?{query}");
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{more}\r\n").as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client.chunk_with("retry");
    hub.publish("a", "\"end\"");
    let mut all = Vec::new();
    loop {
        let event = client.chunk().unwrap();
        let data = event.trim_end().rsplit("data: ").next().unwrap();
        if data == "end" {
            return (
                header(&head, "Last-Event-ID").unwrap_or("-").to_owned(),
                all,
            );
        }
        all.push(data.to_owned());
    }
}

#[test]
fn a_client_says_where_it_stands() {
    let hub = open_hub(&[("realtime.history_size", "4")]);
    let ids: Vec<String> = [("a", 1), ("b", 2), ("a", 3)]
        .map(|(topic, n)| publish(&hub, &format!("topic={topic}&data={n}")))
        .into();
    publish(&hub, "topic=b&data=4&id=own");
    let none = (ids[0].clone(), vec!["3".to_owned()]);
    assert_eq!(
        resumed(&hub, &format!("topic=a&lastEventID={}", ids[0]), ""),
        none
    );
    // Of all histories, not of one channel's. By now there is an "end" of the last client.
    let (id, data) = resumed(&hub, &format!("topic=*&lastEventID={}", ids[0]), "");
    assert_eq!(
        (id, &data[..]),
        (ids[0].clone(), &["2", "3", "4"].map(String::from)[..])
    );
}

#[test]
fn ids_of_all_kinds() {
    let start = |size| {
        let hub = open_hub(&[("realtime.history_size", size)]);
        let ids: Vec<String> = [("b", "1"), ("a", "2"), ("b", "3&id=own"), ("a", "4")]
            .map(|(topic, data)| publish(&hub, &format!("topic={topic}&data={data}")))
            .into();
        (hub, ids)
    };
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    for query in ["topic=a&topic=b", "topic=*", "topic=%7Bx%7D"] {
        let (hub, ids) = start("100");
        let more = format!("Last-Event-ID: {}\r\n", ids[1]);
        let expected = (ids[1].clone(), texts(&["3", "4"]));
        let before_header = format!("{query}&lastEventID=earliest");
        assert_eq!(resumed(&hub, &before_header, &more), expected);
        let (hub, _) = start("100");
        let expected = ("own".to_owned(), texts(&["4"]));
        assert_eq!(
            resumed(&hub, &format!("{query}&lastEventID=own"), ""),
            expected
        );
        for unknown in [
            "earliest",
            "never",
            "urn:uuid:00000000-0000-8000-8000-000000000001",
        ] {
            let (hub, _) = start("100");
            let expected = ("earliest".to_owned(), texts(&["1", "2", "3", "4"]));
            assert_eq!(
                resumed(&hub, &format!("{query}&lastEventID={unknown}"), ""),
                expected
            );
        }
        // Some is no longer there: the answer is the newest that is not.
        let (hub, ids) = start("1");
        let found = resumed(&hub, &format!("{query}&lastEventID={}", ids[0]), "");
        assert_eq!(found, (ids[1].clone(), texts(&["3", "4"])), "{query}");
        // The native id of a message is as good.
        let (hub, _) = start("100");
        let native = hub.publish("b", "5");
        hub.publish("a", "6");
        let expected = (native.clone(), texts(&["6"]));
        assert_eq!(
            resumed(&hub, &format!("{query}&lastEventID={native}"), ""),
            expected
        );
    }
    let empty = open_hub(&[]);
    let expected = ("earliest".to_owned(), texts(&[]));
    assert_eq!(
        resumed(&empty, "topic=a&lastEventID=earliest", ""),
        expected
    );
}

#[test]
fn nothing_is_lost_between_past_and_present() {
    let hub = open_hub(&[
        ("realtime.history_size", "100000"),
        ("realtime.max_backlog", "64M"),
    ]);
    hub.publish("t/0", "0");
    let node = hub.node().clone();
    let publishing = std::thread::spawn(move || {
        for n in 1..20_000 {
            node.publish(message(&format!("t/{}", n % 7), &n.to_string()))
                .unwrap();
        }
    });
    let mut clients: Vec<Client> = (0..8)
        .map(|n| {
            std::thread::sleep(Duration::from_millis(3));
            let topic = if n % 2 == 0 { "t%7B/n%7D" } else { "*" };
            subscribe(&hub, &format!("topic={topic}&lastEventID=earliest"), None)
        })
        .collect();
    publishing.join().unwrap();
    for client in &mut clients {
        let mut next = 0;
        while next < 20_000 {
            for data in client
                .chunk()
                .unwrap()
                .lines()
                .filter_map(|l| l.strip_prefix("data: "))
            {
                assert_eq!(data, next.to_string());
                next += 1;
            }
        }
    }
}

#[test]
fn a_stream_ends_when_its_token_does() {
    let hub = hub(&[]);
    let claims = json!({"exp": at(1.5), "mercure": {"subscribe": ["a"]}});
    let token = jwt(SUBSCRIBERS, claims);
    let mut client = subscribe(&hub, "topic=a", Some(&token));
    while client.chunk().is_some() {}
    assert_eq!(
        get(&hub, &format!("{HUB}?topic=a"), &bearer(Some(&token))).status,
        401
    );
    // And when it is taken back.
    let token = subscriber(json!(["a"]));
    let mut client = subscribe(&hub, "topic=a", Some(&token));
    assert_eq!(hub.node().revoke_token(&token), Ok(1));
    while client.chunk().is_some() {}
    assert_eq!(
        get(&hub, &format!("{HUB}?topic=a"), &bearer(Some(&token))).status,
        401
    );
}

#[test]
fn pages_of_other_origins() {
    let hub = open_hub(&[("realtime.allowed_origins", "https://app.example")]);
    let preflight = "Origin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n";
    let answer = Client::connect(hub.address()).request("OPTIONS", HUB, preflight, "");
    assert_eq!(answer.status, 204);
    let allowed = answer.header("Access-Control-Allow-Headers").unwrap();
    assert!(allowed.contains("Authorization") && allowed.contains("Last-Event-ID"));
    assert!(
        allowed.contains("Cache-Control"),
        "polyfills send it: {allowed}"
    );
    let mut client = Client::connect(hub.address());
    let origin = "Origin: https://app.example\r\n";
    client.send(format!("GET {HUB}?topic=a HTTP/1.1\r\nHost: x\r\n{origin}\r\n").as_bytes());
    let head = client.head();
    assert_eq!(
        header(&head, "Access-Control-Allow-Origin"),
        Some("https://app.example")
    );
    assert_eq!(
        header(&head, "Access-Control-Allow-Credentials"),
        Some("true")
    );
    assert!(
        header(&head, "Access-Control-Expose-Headers")
            .unwrap()
            .contains("Last-Event-ID")
    );
    let refused = get(
        &hub,
        &format!("{HUB}?topic=a"),
        "Origin: https://evil.example\r\n",
    );
    assert_eq!(refused.status, 403);
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

const EVENTS: (&str, &str) = ("realtime.mercure_subscriptions", "1");
const LIST: &str = "/.well-known/mercure/subscriptions";

fn data(event: &str) -> Value {
    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(data.unwrap()).unwrap()
}

#[test]
fn subscriptions_are_told() {
    let hub = open_hub(&[EVENTS]);
    let watcher = subscriber(json!([format!("{LIST}{{/topic}}{{/subscriber}}")]));
    let template = format!("topic={LIST}%7B/topic%7D%7B/subscriber%7D");
    let mut watching = subscribe(&hub, &template, Some(&watcher));
    let mut anonymous = subscribe(&hub, "topic=*", None);
    let of_anonymous = data(&watching.chunk().unwrap());
    assert_eq!(of_anonymous["topic"], "*");
    assert_eq!(of_anonymous["payload"], Value::Null);
    let token = subscriber(json!(["x"]));
    let client = subscribe(
        &hub,
        "topic=https://b.example/%7Bid%7D&topic=a",
        Some(&token),
    );
    let one = data(&watching.chunk().unwrap());
    let who = one["subscriber"].as_str().unwrap().to_owned();
    assert!(who.starts_with("urn:uuid:") && who.len() == 45, "{who}");
    let id = format!(
        "{LIST}/https%3A%2F%2Fb.example%2F%7Bid%7D/{}",
        who.replace(':', "%3A")
    );
    let expected = json!({
        "@context": "https://mercure.rocks/", "id": id, "type": "Subscription", "topic": "https://b.example/{id}",
        "subscriber": who, "active": true, "payload": {"name": "ada"},
    });
    assert_eq!(one, expected);
    let two = data(&watching.chunk().unwrap());
    assert_eq!((&two["topic"], &two["active"]), (&"a".into(), &true.into()));
    drop(client);
    for topic in ["https://b.example/{id}", "a"] {
        let gone = data(&watching.chunk().unwrap());
        assert_eq!(
            (&gone["topic"], &gone["active"]),
            (&topic.into(), &false.into())
        );
        assert_eq!(gone["subscriber"], who.as_str());
    }
    // They are private.
    hub.publish("a", "\"end\"");
    assert!(anonymous.chunk().unwrap().ends_with("data: end\n\n"));
}

#[test]
fn subscriptions_are_listed() {
    let hub = open_hub(&[EVENTS]);
    let watcher = subscriber(json!([LIST, format!("{LIST}{{/topic}}{{/subscriber}}")]));
    let more = bearer(Some(&watcher));
    let empty = get(&hub, LIST, &more);
    assert_eq!(empty.header("Content-Type"), Some("application/ld+json"));
    let expected = json!({
        "@context": "https://mercure.rocks/", "id": LIST, "type": "Subscriptions", "lastEventID": "earliest",
        "subscriptions": [],
    });
    assert_eq!(empty.json(), expected);
    let _one = subscribe(&hub, "topic=a&topic=https://b.example/%7Bid%7D", None);
    let _two = subscribe(&hub, "topic=a", Some(&watcher));
    let _sse = Client::stream(hub.address(), "/sse?channel=a", "");
    let all = get(&hub, LIST, &more);
    let list = all.json();
    let documents = list["subscriptions"].as_array().unwrap();
    assert_eq!(documents.len(), 3, "{list}");
    assert!(
        documents
            .iter()
            .all(|one| one["active"] == true && one.get("@context").is_none())
    );
    let last = list["lastEventID"].as_str().unwrap();
    assert_eq!(all.header("ETag"), Some(&*format!("\"{last}\"")));
    let known = format!("{more}If-None-Match: \"{last}\"\r\n");
    assert_eq!(get(&hub, LIST, &known).status, 304);
    let of_a = get(&hub, &format!("{LIST}/a"), &more).json();
    assert_eq!(of_a["subscriptions"].as_array().unwrap().len(), 2, "{of_a}");
    let ones = documents.iter().find(|one| one["topic"] != "a").unwrap();
    let path = ones["id"].as_str().unwrap();
    let mut one = get(&hub, path, &more).json();
    assert_eq!(one["lastEventID"], last);
    assert_eq!(one["@context"], "https://mercure.rocks/");
    for name in ["lastEventID", "@context"] {
        one.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(one, *ones);
    for missing in ["/a/urn%3Auuid%3Anobody", "/a/b/c", "//", "x"] {
        assert_eq!(
            get(&hub, &format!("{LIST}{missing}"), &more).status,
            404,
            "{missing}"
        );
    }
    assert_eq!(get(&hub, LIST, "").status, 401);
    let other = subscriber(json!(["a", format!("{LIST}/a")]));
    assert_eq!(get(&hub, LIST, &bearer(Some(&other))).status, 403);
    assert_eq!(
        get(&hub, &format!("{LIST}/a"), &bearer(Some(&other))).status,
        200
    );
    let off = open_hub(&[]);
    assert_eq!(get(&off, LIST, &more).status, 404);
}

#[test]
fn a_client_cannot_speak_for_the_hub() {
    use crate::issuer;
    let hub = open_hub(&[EVENTS, issuer::SETTING, ("realtime.client_events", "1")]);
    let token = issuer::token(json!({"publish": ["*"], "channels": ["*"]}));
    let mut native = Client::websocket(hub.address(), &format!("/ws?token={token}"));
    assert_eq!(native.json()["type"], "welcome");
    let forged = format!("{LIST}/a/urn%3Auuid%3Ax");
    let answer = native.ask(&format!(
        r#"{{"type":"publish","channel":"{forged}","data":1,"ref":1}}"#
    ));
    assert_eq!(answer["type"], "error", "{answer}");
    assert_eq!(hub.stats().published, 0);
}
