//! The subscription events and the subscription API.

use serde_json::{Value, json};

use super::{bearer, get, open_hub, subscribe, subscriber};
use crate::client::Client;

const EVENTS: (&str, &str) = ("realtime.mercure_subscriptions", "1");
pub const LIST: &str = "/.well-known/mercure/subscriptions";

pub fn data(event: &str) -> Value {
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
