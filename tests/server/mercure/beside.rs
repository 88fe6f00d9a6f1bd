//! The Mercure protocol beside what else there is: users' own channels, cache channels, pages of history, a history on disk.

use realtime::ids::Channel;
use realtime::message::Publish;
use serde_json::json;

use super::{Client, get, open_hub, publish, subscribe, subscriber};
use crate::harness::{directory, message};

const TOPIC: &str = "https://b.example/1";

#[test]
fn what_is_for_one_user_is_no_topic() {
    let hub = open_hub(&[]);
    let token = subscriber(json!(["*"]));
    let mut client = subscribe(&hub, "topic=*&topic=%7B%2Bany%7D", Some(&token));
    let own = Publish {
        channels: vec![Channel::of_user("ada")],
        ..message("a", "\"for ada alone\"")
    };
    let before = hub.node().publish(own.clone()).unwrap();
    hub.publish("a", "\"for all\"");
    assert!(client.chunk().unwrap().contains("for all"));
    // Nor from the past.
    let query = format!("topic=*&lastEventID={before}");
    assert!(
        subscribe(&hub, &query, Some(&token))
            .chunk()
            .unwrap()
            .contains("for all")
    );
    let mut all = subscribe(&hub, "topic=*&lastEventID=earliest", Some(&token));
    assert!(all.chunk().unwrap().contains("for all"));
    let named = get(&hub, "/.well-known/mercure?topic=%23server-to-user-ada", "");
    assert_eq!(named.status, 400, "{named:?}");
}

#[test]
fn private_updates_are_on_no_page_of_history() {
    let hub = open_hub(&[]);
    hub.publish(TOPIC, "1");
    publish(&hub, &format!("topic={TOPIC}&private=on&data=2"));
    hub.publish(TOPIC, "3");
    let page = get(&hub, &format!("/history?channel={TOPIC}"), "").json();
    let seen: Vec<_> = page["messages"].as_array().unwrap().iter().collect();
    let seen: Vec<_> = seen.iter().map(|message| &message["data"]).collect();
    assert_eq!(seen, [&json!(1), &json!(3)], "{page}");
}

#[test]
fn a_private_update_is_nobody_elses_newest() {
    let hub = open_hub(&[]);
    publish(&hub, "topic=cache-a&private=on&data=secret");
    let (mut native, _) = Client::native(hub.address());
    let answer = native.subscribe("cache-a", None);
    assert_eq!(answer.get("cached"), None, "{answer}");
    let poll = get(&hub, "/poll?channel=cache-a&timeout=0.05", "").json();
    assert_eq!(poll["messages"], json!([]), "{poll}");
    hub.publish("cache-a", "\"open\"");
    assert_eq!(native.json()["data"], "open");
    assert_eq!(
        Client::native(hub.address()).0.subscribe("cache-a", None)["cached"],
        true
    );
}

#[test]
fn on_disk_an_update_stays_what_it_was() {
    let directory = directory();
    let data = directory.path().join("data").display().to_string();
    let on_disk = [("realtime.history", "disk"), ("realtime.data_dir", &*data)];
    let id = {
        let hub = open_hub(&on_disk);
        publish(&hub, &format!("topic={TOPIC}&private=on&data=secret"));
        publish(&hub, "topic=a&topic=b&data=both&retry=7")
    };
    let hub = open_hub(&on_disk);
    let from = "lastEventID=earliest";
    let mut open = subscribe(&hub, &format!("topic=*&{from}"), None);
    let both = open.chunk().unwrap();
    assert_eq!(
        both.lines().collect::<Vec<_>>(),
        ["retry: 7", &format!("id: {id}"), "data: both", ""]
    );
    hub.publish("a", "\"end\"");
    assert!(
        open.chunk().unwrap().contains("end"),
        "one copy of an update is enough"
    );
    let token = subscriber(json!([TOPIC]));
    let mut mine = subscribe(&hub, &format!("topic={TOPIC}&{from}"), Some(&token));
    assert!(mine.chunk().unwrap().contains("secret"));
}
