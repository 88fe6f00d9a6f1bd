//! Cache channels: whoever subscribes gets the newest message at once, however old it is, once, and before what is live.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use realtime::message::Publish;
use serde_json::{Value, json as value};

use crate::client::Client;
use crate::harness::{Hub, Stop, channel_named, eventually, message};
use crate::issuer::{SETTING, token};
use crate::takeover::Site;

/// With a history that forgets at once.
fn forgetful(more: &[(&'static str, &'static str)]) -> Hub {
    let mut settings = vec![("realtime.history_ttl", "0")];
    settings.extend(more);
    Hub::with(&settings)
}

#[test]
fn a_new_subscriber_gets_the_newest_at_once() {
    let hub = forgetful(&[("realtime.cache_channels", "state.* price")]);
    for channel in ["cache-a", "state.x", "price", "other", "cachea"] {
        for n in 1..=3 {
            hub.publish(channel, &n.to_string());
        }
    }
    eventually("an empty history", || hub.stats().history_messages == 0);
    for channel in ["cache-a", "state.x", "price"] {
        let (mut client, _) = Client::native(hub.address());
        let answer = client.subscribe(channel, None);
        assert_eq!(answer["cached"], true, "{answer}");
        assert!(answer.get("recovered").is_none(), "{answer}");
        let first = client.json();
        assert_eq!(
            (&first["channel"], &first["data"]),
            (&channel.into(), &3.into())
        );
        hub.publish(channel, "4");
        assert_eq!(client.json()["data"], 4, "once");
        // Subscribing twice changes nothing.
        assert!(client.subscribe(channel, None).get("cached").is_none());
        let id = first["id"].as_str().unwrap();
        // Who resumes has missed the other, and only that; who has it has missed nothing.
        client.ask(&value!({"type": "unsubscribe", "channel": channel}).to_string());
        assert!(client.subscribe(channel, Some(id)).get("cached").is_none());
        let missed = client.json();
        assert_eq!(missed["data"], 4);
        client.ask(&value!({"type": "unsubscribe", "channel": channel}).to_string());
        let answer = client.subscribe(channel, missed["id"].as_str());
        assert_eq!(answer["recovered"], true, "{answer}");
        assert_eq!(client.ask(r#"{"type":"ping"}"#)["type"], "pong");
    }
    for channel in ["other", "cachea", "cache-none"] {
        let (mut client, _) = Client::native(hub.address());
        assert!(client.subscribe(channel, None).get("cached").is_none());
        assert_eq!(client.ask(r#"{"type":"ping"}"#)["type"], "pong");
    }
}

#[test]
fn what_is_not_kept_is_not_cached() {
    let hub = forgetful(&[]);
    hub.publish("cache-a", "1");
    let passing = Publish {
        store: false,
        ..message("cache-a", "2")
    };
    hub.node().publish(passing).unwrap();
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("cache-a", None);
    assert_eq!(client.json()["data"], 1);
    let none = forgetful(&[("realtime.cache_bytes", "0")]);
    none.publish("cache-a", "1");
    let (mut client, _) = Client::native(none.address());
    assert!(client.subscribe("cache-a", None).get("cached").is_none());
}

#[test]
fn every_transport_has_it() {
    let hub = forgetful(&[SETTING]);
    let address = hub.address();
    let old = hub.publish("cache-a", "1");
    let newer = hub.publish("cache-b", "2");
    let latest = hub.publish("other", "3");
    let both = "channel=cache-b&channel=cache-a&channel=other";
    let mut raw = Client::websocket(address, "/raw/cache-a");
    assert_eq!(raw.frame().text(), "1");
    let mut sse = Client::stream(address, &format!("/sse?{both}"), "");
    let mut text = sse.chunk_with(&newer);
    text.push_str(
        &sse.chunk()
            .filter(|_| !text.contains(&latest))
            .unwrap_or_default(),
    );
    let place = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("{what} in {text:?}"))
    };
    // An EventSource comes back with the last of these.
    let last = place(&format!("id: {latest}\n\n"));
    assert!(place(&format!("id: {newer}\ndata: 2\n\n")) < last, "{text}");
    let mut stream = Client::stream(address, &format!("/stream?{both}"), "");
    assert!(stream.chunk_with(&old).contains("\"data\":1"));
    assert!(stream.chunk_with(&newer).contains("\"data\":2"));
    let poll = |query: &str| {
        let answer = Client::connect(address).get(&format!("/poll?timeout=0&{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let data = |answer: &Value| -> Vec<Value> {
        let messages = answer["messages"].as_array().unwrap();
        messages.iter().map(|it| it["data"].clone()).collect()
    };
    for query in [both.to_owned(), format!("{both}&session=1")] {
        let first = poll(&query);
        assert_eq!(data(&first), [1, 2]);
        assert_eq!(first["cached"], value!(["cache-a", "cache-b"]));
        let cursor = first["cursor"].as_str().unwrap();
        assert_eq!(cursor, latest);
        let next = poll(&format!("{both}&since={cursor}"));
        assert!(
            data(&next).is_empty() && next.get("cached").is_none(),
            "{next}"
        );
        assert_eq!(next["recovered"], true);
    }
    // A client that has something of one channel and nothing of another.
    for path in ["/sse?meta=1", "/stream?", "/poll?timeout=0"] {
        let path = format!("{path}&channel=cache-b&new=cache-a&since={latest}");
        let text = match path.starts_with("/poll") {
            true => Client::connect(address).get(&path).body,
            false => Client::stream(address, &path, "").chunk_with(&old),
        };
        assert!(text.contains(&old) && !text.contains(&newer), "{text}");
    }
    // With who is there: all of a channel's ways at once.
    hub.publish("presence-cache-c", "\"topic\"");
    let token = token(value!({"sub": "ada", "channels": "presence-*"}));
    let path = format!("/poll?timeout=0&channel=presence-cache-c&token={token}");
    let answer = Client::connect(address).get(&path).json();
    assert_eq!(data(&answer), ["topic"]);
    assert_eq!(answer["members"]["presence-cache-c"][0]["user"], "ada");
    let refused = Client::connect(address).get("/sse?channel=private-cache-d");
    assert_eq!(refused.status, 403);
}

#[test]
fn a_large_past_and_caches_fit_into_polls() {
    let hub = Hub::with(&[("realtime.max_backlog", "1K")]);
    let start = hub.publish("log", "0");
    for n in 1..=4 {
        hub.publish("log", &format!("\"{n} {}\"", "x".repeat(500)));
    }
    for channel in ["cache-a", "cache-b", "cache-c"] {
        hub.publish(channel, &format!("\"{}\"", "x".repeat(600)));
    }
    let mut since = start;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let path = format!(
            "/poll?timeout=0&channel=log&new=cache-a&new=cache-b&new=cache-c&since={since}"
        );
        let answer = Client::connect(hub.address()).get(&path).json();
        let messages = answer["messages"].as_array().unwrap().iter();
        let (log, caches): (Vec<_>, Vec<_>) = messages.partition(|it| it["channel"] == "log");
        assert_eq!(caches.len(), 3);
        seen.extend(
            log.iter()
                .map(|it| it["data"].as_str().unwrap()[..1].to_owned()),
        );
        since = answer["cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!(seen, ["1", "2", "3", "4"]);
}

/// Whoever subscribes while others publish gets a newest message, and then every one after it.
#[test]
fn nothing_is_doubled_or_missing_while_publishing_goes_on() {
    let hub = forgetful(&[]);
    hub.publish("cache-n", "0");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                hub.publish("cache-n", &n.to_string());
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let _stopping = Stop(&stop);
        for _ in 0..60 {
            let (mut client, _) = Client::native(hub.address());
            client.subscribe("cache-n", None);
            let mut expected = client.json()["data"].as_u64().unwrap();
            for _ in 0..20 {
                expected += 1;
                assert_eq!(client.json()["data"], expected);
            }
        }
    });
}

#[test]
fn the_next_hub_has_it() {
    let site = Site::new(&[("realtime.drain", "0.1"), ("realtime.history_ttl", "0")]);
    let old = site.first();
    let mut link = site.link();
    link.publish(&message("cache-a", "1")).unwrap();
    let own = Publish {
        id: Some("own".into()),
        ..message("cache-b", "2")
    };
    link.publish(&own).unwrap();
    let new = site.next();
    eventually("the end of the old hub", || old.has_ended());
    let page = new
        .node()
        .history(&channel_named("cache-a"), 9, None)
        .unwrap();
    assert!(page.entries.is_empty());
    let (mut client, _) = Client::native(new.address());
    client.subscribe("cache-a", None);
    assert_eq!(client.json()["data"], 1);
    client.subscribe("cache-b", None);
    let second = client.json();
    assert_eq!((&second["data"], &second["id"]), (&2.into(), &"own".into()));
    link.publish(&message("cache-a", "3")).unwrap();
    assert_eq!(client.json()["data"], 3);
}

#[test]
fn the_next_hub_has_it_of_the_history_too() {
    let site = Site::new(&[("realtime.drain", "0.1")]);
    let old = site.first();
    site.link().publish(&message("cache-a", "1")).unwrap();
    let new = site.next();
    eventually("the end of the old hub", || old.has_ended());
    let (mut client, _) = Client::native(new.address());
    assert_eq!(client.subscribe("cache-a", None)["cached"], true);
    assert_eq!(client.json()["data"], 1);
}
