//! Who subscribes to what, and hears what of it.

use realtime::message::{Publish, Terms};
use realtime::pusher::auth;
use serde_json::json as value;

use super::api::signed;
use super::{app, connect, hub, next, subscribe, subscribed};
use crate::client::Client;
use crate::harness::{Hub, channel_named, message};

/// A connected client that PHP subscribes to channels of which it knows nothing.
fn subscribed_by_php(hub: &Hub, channels: &[&str]) -> (Client, String) {
    let (mut client, id) = connect(hub);
    for channel in channels {
        let subscribed = hub
            .node()
            .subscribe(id.parse().unwrap(), channel_named(channel));
        assert!(subscribed.unwrap());
        assert_eq!(
            next(&mut client)["event"],
            "pusher_internal:subscription_succeeded"
        );
    }
    (client, id)
}

#[test]
fn a_client_may_subscribe_to_what_php_has_subscribed_it_to() {
    let hub = hub(&[]);
    let (mut client, id) = subscribed_by_php(&hub, &["news", "presence-a"]);
    let (mut other, other_id) = connect(&hub);
    let join = |id: &str, user: &str| {
        let data = format!(r#"{{"user_id":"{user}"}}"#);
        let auth = auth::sign_channel(&app(), id, "presence-a", Some(&data));
        value!({ "channel": "presence-a", "auth": auth, "channel_data": data })
    };
    subscribe(&mut other, &join(&other_id, "bob"));
    assert_eq!(next(&mut other)["data"]["presence"]["ids"], value!(["bob"]));
    assert_eq!(next(&mut client)["event"], "pusher_internal:member_added");

    let news = value!({ "channel": "news" });
    subscribe(&mut client, &news);
    let answer = next(&mut client);
    assert_eq!(
        (&answer["event"], &answer["channel"]),
        (
            &"pusher_internal:subscription_succeeded".into(),
            &"news".into()
        )
    );
    hub.publish("news", "1");
    assert_eq!(next(&mut client)["data"], 1, "once");
    // Now it is known who it is.
    subscribe(&mut client, &join(&id, "ada"));
    assert_eq!(
        next(&mut client)["data"]["presence"]["ids"],
        value!(["ada", "bob"])
    );
    let added = next(&mut other);
    assert_eq!(
        (&added["event"], &added["data"]["user_id"]),
        (&"pusher_internal:member_added".into(), &"ada".into())
    );
    // A second time it would be the client's own mistake.
    subscribe(&mut client, &news);
    assert_eq!(next(&mut client)["event"], "pusher:subscription_error");
    assert_eq!(next(&mut client)["event"], "pusher:error");
    client.say(r#"{"event":"pusher:unsubscribe","data":{"channel":"presence-a"}}"#);
    assert_eq!(next(&mut other)["event"], "pusher_internal:member_removed");
}

/// What `/pusher-resume.js` has noted when all that arrives is the answer.
#[test]
fn who_is_cut_off_after_the_answer_asks_for_what_was_to_come_again() {
    let hub = hub(&[("realtime.history_size", "2")]);
    let answer = |data: &serde_json::Value| {
        let (mut client, _) = connect(&hub);
        subscribe(&mut client, data);
        (next(&mut client), client)
    };
    let ids: Vec<String> = (1..=3)
        .map(|n| hub.publish("news", &n.to_string()))
        .collect();
    hub.publish("other", "4");
    for (since, recovered) in [(&ids[0], true), (&"00000000-1".to_owned(), false)] {
        let (first, _) = answer(&value!({ "channel": "news", "since": since }));
        assert_eq!(first["recovered"], recovered, "{first}");
        let again = value!({ "channel": "news", "since": first["id"] });
        let (second, mut client) = answer(&again);
        assert_eq!(second["recovered"], true, "{second}");
        assert_eq!(
            [next(&mut client), next(&mut client)].map(|m| m["data"].clone()),
            [2, 3]
        );
    }
    // Who has all is told where it stands.
    let (whole, _) = answer(&value!({ "channel": "news", "since": ids[2] }));
    assert!(whole["id"].as_str().unwrap().ends_with("-4"), "{whole}");
    hub.publish("cache-a", "5");
    hub.publish("other", "6");
    let (first, _) = answer(&value!({ "channel": "cache-a" }));
    let (_, mut client) = answer(&value!({ "channel": "cache-a", "since": first["id"] }));
    assert_eq!(next(&mut client)["data"], 5);
}

#[test]
fn on_a_cache_channel_it_gets_the_newest_message_then() {
    let hub = hub(&[]);
    hub.publish("cache-a", "1");
    let (mut client, _) = subscribed_by_php(&hub, &["cache-a"]);
    assert_eq!(next(&mut client)["data"], 1);
    subscribe(&mut client, &value!({ "channel": "cache-a" }));
    assert_eq!(
        next(&mut client)["event"],
        "pusher_internal:subscription_succeeded"
    );
    assert_eq!(next(&mut client)["data"], 1);
}

#[test]
fn a_cache_channel_whose_newest_message_is_for_others_has_none() {
    let hub = hub(&[]);
    let channel = "cache-a";
    hub.publish(channel, "1");
    let private = Publish {
        terms: Some(Box::new(Terms {
            topics: vec![channel_named(channel)].into(),
            private: true,
            ..Terms::default()
        })),
        ..message(channel, "2")
    };
    hub.node().publish(private).unwrap();
    let mut client = subscribed(&hub, channel);
    assert_eq!(next(&mut client)["event"], "pusher:cache_miss");
    let answer = signed(&hub, "GET", "/apps/4711/channels/cache-a", "info=cache", "");
    assert_eq!(answer, (200, value!({ "occupied": true, "cache": null })));
    hub.publish(channel, "3");
    assert_eq!(next(&mut client)["data"], 3);
}

#[test]
fn who_has_come_is_told_how_many_there_are_though_somebody_has_gone() {
    let hub = hub(&[("realtime.pusher_subscription_count", "1")]);
    let count = |client: &mut Client| {
        let frame = next(client);
        assert_eq!(frame["event"], "pusher_internal:subscription_count");
        frame["data"]["subscription_count"].clone()
    };
    let mut first = subscribed(&hub, "news");
    assert_eq!(count(&mut first), 1);
    let mut second = subscribed(&hub, "news");
    assert_eq!(
        (count(&mut first), count(&mut second)),
        (2.into(), 2.into())
    );
    // Within one second: both numbers are 2.
    second.say(r#"{"event":"pusher:unsubscribe","data":{"channel":"news"}}"#);
    hub.await_subscribers("news", 1);
    let mut third = subscribed(&hub, "news");
    assert_eq!(count(&mut third), 2);
}
