//! `/stream`: one JSON object a line.

use serde_json::Value;

use crate::client::Client;
use crate::harness::Hub;

fn line(client: &mut Client) -> Value {
    let chunk = client.chunk().expect("the stream goes on");
    assert!(
        chunk.ends_with('\n') && chunk.matches('\n').count() == 1,
        "{chunk:?}"
    );
    serde_json::from_str(&chunk).unwrap()
}

#[test]
fn each_line_is_an_object() {
    let hub = Hub::start();
    let mut client = Client::stream(hub.address(), "/stream?channel=a&channel=b", "");
    for channel in ["a", "b"] {
        let subscribed = line(&mut client);
        assert_eq!(subscribed["type"], "subscribed");
        assert_eq!(subscribed["channel"], channel);
    }
    let id = hub.publish("b", "\"x\"");
    let message = line(&mut client);
    assert_eq!(
        (&message["id"], &message["channel"]),
        (&id.into(), &"b".into())
    );
    assert_eq!(message["data"], "x");
    hub.publish("a", "{\n\"a\":\r\n1}");
    assert_eq!(line(&mut client)["data"]["a"], 1, "also of pretty data");
    let known = hub.node().connections(None).unwrap();
    hub.node().close(known[0].id, 1000, String::new()).unwrap();
    assert_eq!(client.chunk(), None);
}

#[test]
fn since_resumes_and_tells_what_is_missing() {
    let hub = Hub::with(&[("realtime.history_size", "2")]);
    let ids: Vec<String> = (1..=4).map(|n| hub.publish("a", &n.to_string())).collect();
    let path = format!("/stream?channel=a&since={}", ids[0]);
    let mut short = Client::stream(hub.address(), &path, "");
    let subscribed = line(&mut short);
    assert_eq!(subscribed["recovered"], false);
    assert_eq!(subscribed["oldest"], *ids[2]);
    assert_eq!(line(&mut short)["data"], 3);
    assert_eq!(line(&mut short)["data"], 4);
    let path = format!("/stream?channel=a&since={}", ids[2]);
    let mut whole = Client::stream(hub.address(), &path, "");
    assert_eq!(line(&mut whole)["recovered"], true);
    assert_eq!(line(&mut whole)["data"], 4);
    hub.publish("a", "5");
    assert_eq!(line(&mut short)["data"], 5);
    assert_eq!(line(&mut whole)["data"], 5);
}
