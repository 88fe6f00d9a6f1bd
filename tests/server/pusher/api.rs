//! The HTTP API.

use realtime::pusher::auth;
use serde_json::{Value, json as value};

use super::{app, hub, next, subscribed};
use crate::client::Client;
use crate::harness::Hub;

/// The status and the answer of a signed request of the HTTP API.
pub fn signed(hub: &Hub, method: &str, path: &str, query: &str, body: &str) -> (u16, Value) {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut query = format!(
        "auth_key=a-key&auth_timestamp={now}&auth_version=1.0&{}{query}",
        match body {
            "" => String::new(),
            body => format!("body_md5={:x}&", md5::compute(body)),
        }
    );
    query.truncate(query.trim_end_matches('&').len());
    let text = format!("{method}\n{path}\n{query}");
    let signature = auth::sign_body(&app(), text.as_bytes());
    let target = format!("{path}?{query}&auth_signature={signature}");
    let mut client = Client::connect(hub.address());
    let answer = client.request(method, &target, "", body);
    (answer.status, answer.json())
}

#[test]
fn of_a_batch_all_events_are_published_or_none() {
    let hub = hub(&[("realtime.max_message_size", "1K")]);
    let mut client = subscribed(&hub, "news");
    let batch = |sizes: &[usize]| {
        let events: Vec<Value> = sizes
            .iter()
            .map(|size| value!({ "name": "x", "channel": "news", "data": "x".repeat(*size) }))
            .collect();
        let body = value!({ "batch": events }).to_string();
        signed(&hub, "POST", "/apps/4711/batch_events", "", &body).0
    };
    // The data and two quotes.
    assert_eq!(batch(&[10, 1023, 20]), 413);
    assert_eq!(batch(&[30, 1022]), 200);
    assert_eq!(next(&mut client)["data"].as_str().unwrap().len(), 30);
    assert_eq!(next(&mut client)["data"].as_str().unwrap().len(), 1022);
}

/// Who is told of an error publishes once more: so none is told because a shard is too late to say how many subscribe there.
#[test]
fn what_is_published_is_told_so_also_when_what_was_asked_beside_cannot_be() {
    let hub = hub(&[("realtime.timeout", "0.5")]);
    // One for each shard.
    let mut clients = [0; 2].map(|_| subscribed(&hub, "news"));
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let wait = move |_: &mut realtime::hub::Hub| {
        let _ = ended.recv();
    };
    let stalled = realtime::hub::mailbox::Command::Run(Box::new(wait));
    hub.node().shard(0).put(stalled);
    let event =
        value!({ "name": "x", "channel": "news", "data": "1", "info": "subscription_count" });
    let bodies = [
        ("events", event.clone()),
        ("batch_events", value!({ "batch": [event] })),
    ];
    let told: Vec<_> = std::thread::scope(|scope| {
        // Of each two, one comes to a shard that works.
        let asked: Vec<_> = bodies
            .iter()
            .flat_map(|body| [body, body])
            .map(|(path, body)| {
                let (hub, path) = (&hub, format!("/apps/4711/{path}"));
                scope.spawn(move || signed(hub, "POST", &path, "", &body.to_string()).0)
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        drop(end);
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(told, [200; 4]);
    for client in &mut clients {
        for _ in 0..4 {
            assert_eq!(next(client)["event"], "x");
        }
    }
}

#[test]
fn requests_of_the_api_need_a_signature() {
    let hub = hub(&[]);
    let mut client = Client::connect(hub.address());
    for (method, path, status) in [
        ("GET", "/apps/4711/channels", 401),
        ("GET", "/apps/4711", 401),
        (
            "POST",
            "/apps/4711/events?auth_key=a-key&auth_signature=x",
            401,
        ),
        ("GET", "/apps/nobody/channels", 404),
        ("GET", "/apps/", 404),
    ] {
        assert_eq!(
            client.request(method, path, "", "").status,
            status,
            "{path}"
        );
    }
    let without = Hub::start();
    let mut client = Client::connect(without.address());
    assert_eq!(client.get("/apps/4711/channels").status, 404);
    assert_eq!(client.get("/app/a-key?protocol=7").status, 404);
}
