//! Mercure 1.0 (`realtime.mercure_version = 1`): its matchers, access tokens, answers and subscription documents.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::subscriptions::{LIST, data};
use super::{HUB, PUBLISHERS, SUBSCRIBERS, bearer, get, post, subscribe};
use crate::client::{Client, header};
use crate::harness::Hub;
use crate::issuer::at;

const URL: &str = "https://hub.example/.well-known/mercure";
const ISSUER: &str = "https://shop.example";
const TYPE: &str = "https://mercure.rocks/authorization-detail";

fn hub(more: &[(&str, &str)]) -> Hub {
    let one = [
        ("realtime.mercure_version", "1"),
        ("realtime.mercure_url", URL),
        ("realtime.mercure_issuer", ISSUER),
        ("realtime.mercure_anonymous", "1"),
    ];
    // The first of a name counts.
    super::hub(&[more, &one].concat())
}

fn detail(action: &str, topics: Value) -> Value {
    json!({"type": TYPE, "actions": [action], "topics": topics})
}

fn claims(details: Value) -> Value {
    json!({"iss": ISSUER, "aud": URL, "exp": at(60.0), "authorization_details": details})
}

fn signed(key: &str, kind: &str, claims: &Value) -> String {
    let header = Header {
        typ: Some(kind.to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    encode(&header, claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

fn token(key: &str, details: Value) -> String {
    signed(key, "at+jwt", &claims(details))
}

fn publisher() -> String {
    token(
        PUBLISHERS,
        json!([detail("publish", json!([{"match": "*"}]))]),
    )
}

fn subscriber(topics: Value) -> String {
    token(SUBSCRIBERS, json!([detail("subscribe", topics)]))
}

fn url_pattern(pattern: &str) -> Value {
    json!({"match": pattern, "match_type": "urlpattern"})
}

#[track_caller]
fn publish(hub: &Hub, form: &str) -> String {
    let answer = post(hub, &publisher(), form);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// The data of the next update.
fn next(client: &mut Client) -> String {
    let event = client.chunk().unwrap();
    event.trim_end().rsplit("data: ").next().unwrap().to_owned()
}

#[test]
fn matchers_have_their_own_parameters() {
    let hub = hub(&[]);
    let query = "match=a&match_exact=https://b.example/%7Bid%7D-no-channel";
    assert_eq!(get(&hub, &format!("{HUB}?{query}"), "").status, 400);
    let query = "match=a&match_urlpattern=https://b.example/:id&match_urlpattern=/c/*";
    let mut some = subscribe(&hub, query, None);
    let mut all = subscribe(&hub, "match=*", None);
    let topics = [
        "a",
        "https://b.example/1",
        "https://b.example/1/2",
        "/c/1/2",
        "c",
    ];
    for topic in topics {
        publish(&hub, &format!("topic={topic}&data={topic}"));
    }
    for topic in ["a", "https://b.example/1", "/c/1/2"] {
        assert_eq!(next(&mut some), topic);
    }
    for topic in topics {
        assert_eq!(next(&mut all), topic);
    }
    for (query, message) in [
        ("topic=a", "match_urlpattern"),
        ("match=a&Match=b", "\\\"Match\\\""),
        ("match=a&match_uritemplate=b", "match_uritemplate"),
        ("match=a&matches=b", "\\\"matches\\\""),
        ("match_urlpattern=https://b.example/(a|b)", "URL pattern"),
        ("match_urlpattern=urn:x:*", "URL pattern"),
    ] {
        let answer = get(&hub, &format!("{HUB}?{query}"), "");
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.body.contains(message), "{query}: {answer:?}");
    }
    // Those of 0.x know nothing of these.
    let old = super::open_hub(&[]);
    assert_eq!(get(&old, &format!("{HUB}?match=a"), "").status, 400);
}

#[test]
fn private_updates_are_for_those_whom_details_grant_them() {
    let hub = hub(&[]);
    let topics =
        json!([{"match": "https://b.example/7"}, url_pattern("https://b.example/users/42/*")]);
    let token = subscriber(topics);
    let query = "match_urlpattern=https://b.example/:id";
    let mut ann = subscribe(&hub, query, Some(&token));
    let cookie = format!("Cookie: __Secure-mercure_access_token={token}\r\n");
    let mut by_cookie = Client::stream(hub.address(), &format!("{HUB}?{query}"), &cookie);
    by_cookie.chunk_with("retry: ");
    let mut anonymous = subscribe(&hub, query, None);
    // An action that nobody knows grants nothing, and is no mistake.
    let reader = self::token(
        SUBSCRIBERS,
        json!([{"type": "https://other.example/detail"}, detail("read", json!([{"match": "*"}]))]),
    );
    let mut reader = subscribe(&hub, query, Some(&reader));
    publish(&hub, "topic=https://b.example/8&data=no&private=on");
    publish(&hub, "topic=https://b.example/7&data=7&private=");
    let alternate = "topic=https://b.example/users/42/8";
    publish(
        &hub,
        &format!("topic=https://b.example/8&{alternate}&data=8&private=on"),
    );
    publish(&hub, "topic=https://b.example/9&data=open");
    for client in [&mut ann, &mut by_cookie] {
        assert_eq!([(); 3].map(|()| next(client)), ["7", "8", "open"]);
    }
    assert_eq!(next(&mut anonymous), "open");
    assert_eq!(next(&mut reader), "open");
    // No token in an address, which logs keep, and none in the cookie of before.
    let closed = self::hub(&[("realtime.mercure_anonymous", "0")]);
    let answer = get(&closed, &format!("{HUB}?match=a&authorization={token}"), "");
    assert_eq!(
        (answer.status, answer.header("WWW-Authenticate")),
        (401, Some("Bearer"))
    );
    let old = format!("Cookie: mercureAuthorization={token}\r\n");
    assert_eq!(get(&closed, &format!("{HUB}?match=a"), &old).status, 401);
}

#[test]
fn tokens_must_be_access_tokens_for_this_hub() {
    let hub = hub(&[]);
    let good = || {
        claims(json!([
            detail("publish", json!([{"match": "a"}])),
            detail("subscribe", json!([{"match": "a"}]))
        ]))
    };
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let details = |detail: Value| with("authorization_details", json!([detail]));
    let named = |mut detail: Value, name: &str, value: Value| {
        detail[name] = value;
        details(detail)
    };
    let any = || detail("publish", json!([{"match": "*"}]));
    for (what, claims) in [
        ("no exp", without("exp")),
        ("expired", with("exp", json!(at(-1.0)))),
        ("no iss", without("iss")),
        ("other iss", with("iss", json!("https://other.example"))),
        ("no aud", without("aud")),
        ("other aud", with("aud", json!(["https://other.example"]))),
        ("no actions", named(any(), "actions", json!([]))),
        (
            "an action that is a number",
            named(any(), "actions", json!(["publish", 1])),
        ),
        ("no topics", named(any(), "topics", json!([]))),
        (
            "a topic that is a string",
            named(any(), "topics", json!(["*"])),
        ),
        (
            "a type that is not known",
            named(
                any(),
                "topics",
                json!([{"match": "*", "match_type": "Exact"}]),
            ),
        ),
        (
            "a pattern that is none",
            named(any(), "topics", json!([url_pattern("https://b.example/(")])),
        ),
        (
            "a payload that is no object",
            named(any(), "payload", json!("ada")),
        ),
        (
            "many topics",
            named(any(), "topics", json!(vec![json!({"match": "a"}); 201])),
        ),
        (
            "details that are no list",
            with("authorization_details", any()),
        ),
    ] {
        for (key, is_post) in [(PUBLISHERS, true), (SUBSCRIBERS, false)] {
            let token = signed(key, "at+jwt", &claims);
            let answer = match is_post {
                true => post(&hub, &token, "topic=a&data=1"),
                false => get(&hub, &format!("{HUB}?match=a"), &bearer(Some(&token))),
            };
            let challenge = answer.header("WWW-Authenticate");
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
            assert_eq!(challenge, Some("Bearer error=\"invalid_token\""), "{what}");
        }
    }
    for kind in ["JWT", "jwt", "at+jwt2"] {
        let token = signed(PUBLISHERS, kind, &good());
        assert_eq!(post(&hub, &token, "topic=a").status, 401, "{kind}");
    }
    for kind in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        let token = signed(PUBLISHERS, kind, &with("aud", json!(["x", URL])));
        assert_eq!(post(&hub, &token, "topic=a").status, 200, "{kind}");
    }
    // The claim of 0.x grants nothing, and what is granted is no more than that.
    let mut old = good();
    old["authorization_details"] = json!([]);
    old["mercure"] = json!({"publish": ["*"]});
    for (claims, topics) in [(old, "topic=a"), (good(), "topic=a&topic=b")] {
        let answer = post(&hub, &signed(PUBLISHERS, "at+jwt", &claims), topics);
        let challenge = answer.header("WWW-Authenticate");
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(challenge, Some("Bearer error=\"insufficient_scope\""));
    }
}

#[test]
fn what_is_the_hubs_own_nobody_publishes() {
    let hub = hub(&[]);
    for form in [
        "topic=/.well-known/mercure/subscriptions/exact/a/b",
        "topic=a&topic=https://other.example/.well-known/mercure",
        "topic=/.well-known/%256Dercure/x",
        "topic=mercure",
        "topic=*",
        "topic=a&type=mercure",
        "topic=a&id=earliest",
        "topic=a&id=%23x",
        "topic=a&retry=%2B5",
    ] {
        let answer = post(&hub, &publisher(), form);
        assert_eq!(answer.status, 400, "{form}: {answer:?}");
    }
    assert_eq!(hub.stats().published, 0);
}

#[test]
fn where_one_stands_has_other_names() {
    let hub = hub(&[]);
    let first = publish(&hub, "topic=a&data=1");
    publish(&hub, "topic=a&data=2");
    let ask = |query: &str, more: &str| {
        let mut client = Client::connect(hub.address());
        client.send(format!("GET {HUB}?{query} HTTP/1.1\r\nHost: h\r\n{more}\r\n").as_bytes());
        let head = client.head();
        let id = header(&head, "Mercure-Last-Event-ID").map(str::to_owned);
        assert_eq!(header(&head, "Last-Event-ID"), None);
        client.chunk_with("retry");
        (client, id)
    };
    let (mut client, id) = ask(&format!("match=a&last_event_id={first}"), "");
    assert_eq!(
        (next(&mut client), id),
        ("2".to_owned(), Some(first.clone()))
    );
    // The header goes before.
    let more = format!("Last-Event-ID: {first}\r\n");
    let (mut client, id) = ask("match=a&last_event_id=earliest", &more);
    assert_eq!((next(&mut client), id), ("2".to_owned(), Some(first)));
    let (mut client, id) = ask("match=a&last_event_id=earliest", "");
    assert_eq!(
        (next(&mut client), id),
        ("1".to_owned(), Some("earliest".into()))
    );
    let (_, id) = ask("match=a&lastEventID=earliest", "");
    assert_eq!(id, None);
}

#[test]
fn subscriptions_are_told_and_listed() {
    let hub = hub(&[("realtime.mercure_subscriptions", "1")]);
    let all = format!("{LIST}/:type/:match/:subscriber");
    let watcher = subscriber(json!([url_pattern(&format!("{LIST}*"))]));
    let mut watching = subscribe(&hub, &format!("match_urlpattern={all}"), Some(&watcher));
    let payload = |topic: Value, payload: Value| {
        let mut detail = detail("subscribe", json!([topic]));
        detail["payload"] = payload;
        detail
    };
    let details = json!([
        payload(url_pattern("https://b.example/:id"), json!({"of": "b"})),
        payload(json!({"match": "*"}), json!({"of": "all"})),
    ]);
    let token = token(SUBSCRIBERS, details);
    let client = subscribe(
        &hub,
        "match_urlpattern=https://b.example/:id&match=a",
        Some(&token),
    );
    let event = watching.chunk().unwrap();
    assert!(event.starts_with("event: mercure\n"), "{event}");
    let one = data(&event);
    let who = one["subscriber"].as_str().unwrap().to_owned();
    let of_who = who.replace(':', "%3A");
    let id = format!("{LIST}/urlpattern/https%3A%2F%2Fb.example%2F%3Aid/{of_who}");
    let expected = json!({
        "id": id, "type": "subscription", "match_type": "urlpattern", "match": "https://b.example/:id",
        "subscriber": who, "active": true, "payload": {"of": "b"},
    });
    assert_eq!(one, expected);
    let two = data(&watching.chunk().unwrap());
    assert_eq!(
        (&two["match_type"], &two["payload"]),
        (&json!("exact"), &json!({"of": "all"}))
    );

    let more = bearer(Some(&watcher));
    let answer = get(&hub, LIST, &more);
    let list = answer.json();
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let link = answer.header("Link").unwrap();
    let last = answer.header("ETag").unwrap();
    let expected = format!(
        "<{URL}>; rel=\"mercure\"; last-event-id={last}; type=\"mercure\"; content-type=\"application/json\""
    );
    assert_eq!(link, expected);
    assert_eq!(
        (&list["id"], &list["type"]),
        (&json!(LIST), &json!("subscriptions"))
    );
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 3, "{list}");
    assert_eq!(list.as_object().unwrap().len(), 3, "{list}");
    let of_b = format!("{LIST}/urlpattern/https%3A%2F%2Fb.example%2F%3Aid");
    assert_eq!(
        get(&hub, &of_b, &more).json()["subscriptions"],
        json!([one])
    );
    assert_eq!(get(&hub, &id, &more).json(), one);
    for none in [
        &of_b.replace("urlpattern", "exact"),
        &format!("{LIST}/exact"),
    ] {
        let answer = get(&hub, none, &more);
        let found = answer.status == 200 && answer.json()["subscriptions"] != json!([]);
        assert!(!found, "{none}: {answer:?}");
    }
    drop(client);
    for _ in 0..2 {
        let gone = data(&watching.chunk().unwrap());
        assert_eq!(
            (&gone["active"], &gone["subscriber"]),
            (&json!(false), &json!(who))
        );
    }
}
