//! Who may subscribe, who may publish, and who sees what.

use jsonwebtoken::{Header, encode};
use realtime::backend::{Event, Interest};
use serde_json::{Value, json};

use super::{
    HUB, PUBLISHERS, SUBSCRIBERS, bearer, get, hub, jwt, open_hub, post, publish, publisher,
    subscribe, subscriber,
};
use crate::client::{Client, header};
use crate::harness::{Hub, NONE};
use crate::issuer::{Pair, at};

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

#[test]
fn a_stream_ends_when_its_token_does() {
    let hub = hub(&[]);
    let claims = json!({"exp": at(4.0), "mercure": {"subscribe": ["a"]}});
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
