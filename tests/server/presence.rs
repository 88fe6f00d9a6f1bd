//! Presence channels: who is there, who comes and goes, over every transport, and by more than one connection.

use std::time::Duration;

use realtime::backend::{Event, Interest, Ruling};
use realtime::control::client::Client as Link;
use realtime::presence::Attendee;
use serde_json::{Value, json as value};

use crate::client::{Client, handshake};
use crate::harness::{Hub, NONE, PATIENCE, channel_named, eventually};
use crate::issuer::{SETTING, token};

const ROOM: &str = "presence-room";

/// With a grace time that no test outlasts.
fn patient() -> Hub {
    Hub::with(&[SETTING, ("realtime.presence_grace", "600")])
}

/// With one that no test notices.
fn hasty() -> Hub {
    Hub::with(&[SETTING, ("realtime.presence_grace", "0")])
}

fn token_of(user: &str) -> String {
    token(value!({"sub": user, "channels": "presence-*", "info": {"name": user.to_uppercase()}}))
}

/// Connects to `/ws` as `user`.
fn connect(address: &str, user: &str) -> Client {
    let mut client = Client::connect(address);
    let offer = format!(
        "Sec-WebSocket-Protocol: realtime.v1, realtime.token.{}\r\n",
        token_of(user)
    );
    client.send(handshake("/ws", &offer).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.json()["type"], "welcome");
    client
}

/// Connects as `user`, subscribes, and returns whom it was told of.
fn enter(address: &str, user: &str) -> (Client, Vec<String>) {
    let mut client = connect(address, user);
    let answer = client.subscribe(ROOM, None);
    let there = users(&answer["members"]);
    (client, there)
}

fn users(members: &Value) -> Vec<String> {
    let members = members.as_array().unwrap_or_else(|| panic!("{members}"));
    let user = |member: &Value| member["user"].as_str().unwrap().to_owned();
    members.iter().map(user).collect()
}

/// The next frame, as `join ada`.
#[track_caller]
fn next(client: &mut Client) -> String {
    let frame = client.json();
    assert_eq!(frame["channel"], ROOM, "{frame}");
    match frame["type"].as_str() {
        Some("message") => format!("message {}", frame["data"]),
        Some(what) => format!("{what} {}", frame["user"].as_str().unwrap_or_default()),
        None => panic!("{frame}"),
    }
}

fn members(hub: &Hub) -> Vec<String> {
    let members = hub.node().members(&channel_named(ROOM)).unwrap();
    let text = |m: &realtime::node::MemberSummary| format!("{} {}", m.user, m.connections);
    members.iter().map(text).collect()
}

#[test]
fn who_comes_is_told_and_tells() {
    let hub = hasty();
    let (mut ada, there) = enter(hub.address(), "ada");
    assert_eq!(there, ["ada"]);
    let (mut bob, there) = enter(hub.address(), "bob");
    assert_eq!(there, ["ada", "bob"]);
    let joined = ada.json();
    let id = joined["id"].as_str().unwrap();
    assert_eq!(
        joined,
        value!({"type": "join", "channel": ROOM, "id": id, "user": "bob", "info": {"name": "BOB"}})
    );
    let before = hub.publish(ROOM, "1");
    assert_eq!(next(&mut ada), "message 1");
    assert_eq!(next(&mut bob), "message 1", "and nothing of its own coming");
    drop(ada);
    let left = bob.json();
    let id = left["id"].as_str().unwrap();
    assert_eq!(
        left,
        value!({"type": "leave", "channel": ROOM, "id": id, "user": "ada"})
    );
    // Its place among the messages.
    let number = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(number(id), number(&before) + 1);
    let again = bob.ask(&value!({"type": "presence", "channel": ROOM, "ref": 7}).to_string());
    assert_eq!(
        again,
        value!({"type": "presence", "channel": ROOM, "ref": 7, "members": [{"user": "bob", "info": {"name": "BOB"}}]})
    );
    let refused = bob.ask(&value!({"type": "presence", "channel": "presence-b"}).to_string());
    assert_eq!(refused["code"], "not_subscribed");
    // It is nobody's message: neither kept, nor a gap for who resumes.
    let page = hub.node().history(&channel_named(ROOM), 10, None).unwrap();
    assert_eq!(page.entries.len(), 1);
    let (mut eve, _) = enter(hub.address(), "eve");
    assert_eq!(next(&mut bob), "join eve");
    eve.ask(&value!({"type": "unsubscribe", "channel": ROOM}).to_string());
    let answer = eve.subscribe(ROOM, Some(id));
    assert_eq!(answer["recovered"], true);
    assert_eq!(next(&mut bob), "leave eve");
    assert_eq!(next(&mut bob), "join eve");
}

#[test]
fn a_user_with_many_connections_comes_and_goes_once() {
    let hub = hasty();
    let (mut bob, _) = enter(hub.address(), "bob");
    let (mut first, _) = enter(hub.address(), "ada");
    let (second, _) = enter(hub.address(), "ada");
    let mut sse = Client::stream(
        hub.address(),
        &format!("/sse?channel={ROOM}&meta=1&token={}", token_of("ada")),
        "",
    );
    sse.chunk_with("realtime.subscribed");
    assert_eq!(members(&hub), ["ada 3", "bob 1"]);
    first.subscribe(ROOM, None);
    assert_eq!(members(&hub), ["ada 3", "bob 1"], "twice is once");
    first.ask(&value!({"type": "unsubscribe", "channel": ROOM}).to_string());
    drop(second);
    eventually("one connection", || members(&hub) == ["ada 1", "bob 1"]);
    assert_eq!(next(&mut bob), "join ada");
    hub.publish(ROOM, "1");
    assert_eq!(next(&mut bob), "message 1");
    drop(sse);
    assert_eq!(next(&mut bob), "leave ada");
    assert_eq!(members(&hub), ["bob 1"]);
}

#[test]
fn who_comes_back_in_time_was_never_away() {
    let hub = patient();
    let (mut bob, _) = enter(hub.address(), "bob");
    let (ada, _) = enter(hub.address(), "ada");
    drop(ada);
    eventually("its end", || members(&hub) == ["ada 0", "bob 1"]);
    let (mut ada, there) = enter(hub.address(), "ada");
    assert_eq!(there, ["ada", "bob"]);
    assert_eq!(members(&hub), ["ada 1", "bob 1"]);
    // On purpose is another matter.
    ada.ask(&value!({"type": "unsubscribe", "channel": ROOM}).to_string());
    assert_eq!(
        [next(&mut bob), next(&mut bob)],
        ["join ada", "leave ada"],
        "once each"
    );
}

#[test]
fn who_does_not_is_given_up() {
    let hub = Hub::with(&[SETTING, ("realtime.presence_grace", "0.01")]);
    let (mut bob, _) = enter(hub.address(), "bob");
    let (ada, _) = enter(hub.address(), "ada");
    drop(ada);
    assert_eq!([next(&mut bob), next(&mut bob)], ["join ada", "leave ada"]);
    assert_eq!(members(&hub), ["bob 1"]);
}

#[test]
fn who_is_sent_away_by_php_leaves_at_once() {
    let hub = patient();
    let (mut bob, _) = enter(hub.address(), "bob");
    let (ada, _) = enter(hub.address(), "ada");
    assert_eq!(next(&mut bob), "join ada");
    hub.node().disconnect("ada", 1000, "out").unwrap();
    assert_eq!(next(&mut bob), "leave ada");
    drop(ada);
    let (ada, _) = enter(hub.address(), "ada");
    assert_eq!(next(&mut bob), "join ada");
    hub.node().revoke_user("ada").unwrap();
    assert_eq!(next(&mut bob), "leave ada");
    drop(ada);
    let mut eve = connect(hub.address(), "eve");
    let id = hub.node().connections(None).unwrap();
    let id = id.iter().find(|c| c.user() == Some("eve")).unwrap().id;
    assert!(hub.node().subscribe(id, channel_named(ROOM)).unwrap());
    assert_eq!(users(&eve.json()["members"]), ["bob", "eve"]);
    assert!(hub.node().unsubscribe(id, channel_named(ROOM)).unwrap());
    assert_eq!([next(&mut bob), next(&mut bob)], ["join eve", "leave eve"]);
}

#[test]
fn a_client_that_falls_silent_does_not_stay() {
    let hub = Hub::with(&[
        SETTING,
        ("realtime.presence_grace", "0"),
        ("realtime.ping_interval", "1"),
    ]);
    let mut sse = Client::stream(
        hub.address(),
        &format!("/sse?channel={ROOM}&meta=1&token={}", token_of("bob")),
        "",
    );
    sse.chunk_with("realtime.subscribed");
    // It answers no ping, though its socket stays open.
    let (_ada, _) = enter(hub.address(), "ada");
    sse.chunk_with("\"type\":\"join\"");
    assert!(sse.chunk_with("\"type\":\"leave\"").contains("ada"));
}

#[test]
fn every_transport_tells() {
    let hub = hasty();
    let query = format!("channel={ROOM}&token={}", token_of("ada"));
    let address = hub.address();
    let mut meta = Client::stream(address, &format!("/sse?meta=1&{query}"), "");
    let subscribed = meta.chunk_with("realtime.subscribed");
    assert!(
        subscribed.contains(r#""members":[{"user":"ada","info":{"name":"ADA"}}]"#),
        "{subscribed}"
    );
    let mut bare = Client::stream(address, &format!("/sse?{query}"), "");
    bare.chunk_with("id: ");
    let mut stream = Client::stream(address, &format!("/stream?{query}"), "");
    assert!(stream.chunk_with("subscribed").contains(r#""members":[{"#));
    let mut raw = Client::websocket(address, &format!("/raw/{ROOM}?token={}", token_of("ada")));
    hub.await_subscribers(ROOM, 4);
    let (bob, _) = enter(address, "bob");
    let frame = r#""user":"bob","info":{"name":"BOB"}}"#;
    let event = meta.chunk_with("bob");
    assert!(
        event.contains("event: realtime.join\ndata: {\"type\":\"join\"") && event.contains(frame),
        "{event}"
    );
    let event = bare.chunk_with("bob");
    let data = "event: realtime.join\ndata: {\"user\":\"bob\",\"info\":{\"name\":\"BOB\"}}\n\n";
    assert!(event.ends_with(data), "{event}");
    let line = stream.chunk_with("bob");
    assert!(line.starts_with("{\"type\":\"join\"") && line.ends_with(&format!("{frame}\n")));
    drop(bob);
    assert!(
        meta.chunk_with("realtime.leave")
            .contains(r#""user":"bob"}"#)
    );
    assert!(
        bare.chunk_with("realtime.leave")
            .contains(r#"{"user":"bob"}"#)
    );
    assert!(stream.chunk_with("bob").starts_with("{\"type\":\"leave\""));
    // Only messages: whoever speaks its protocol could not tell them apart.
    hub.publish(ROOM, "\"hello\"");
    assert_eq!(raw.frame().text(), "hello");
    assert_eq!(members(&hub), ["ada 4"]);
}

#[test]
fn a_poll_tells() {
    let hub = patient();
    let (mut bob, _) = enter(hub.address(), "bob");
    let query = format!("channel={ROOM}&token={}", token_of("ada"));
    let poll = |more: &str| {
        let path = format!("/poll?{query}{more}");
        let answer = Client::connect(hub.address()).get(&path);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let first = poll("&timeout=0");
    assert_eq!(users(&first["members"][ROOM]), ["ada", "bob"]);
    assert_eq!(next(&mut bob), "join ada");
    let cursor = first["cursor"].as_str().unwrap();
    // Between two polls it is awaited.
    assert_eq!(members(&hub), ["ada 0", "bob 1"]);
    let mut waiting = Client::connect(hub.address());
    let path = format!("/poll?{query}&timeout=60&since={cursor}");
    waiting.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    eventually("a poll", || members(&hub) == ["ada 1", "bob 1"]);
    let (mut eve, _) = enter(hub.address(), "eve");
    let answer = waiting.response(true).json();
    assert_eq!(users(&answer["members"][ROOM]), ["ada", "bob"]);
    assert_eq!(answer["messages"][0]["type"], "join");
    assert_eq!(answer["messages"][0]["user"], "eve");
    // A session is told once, and then of what changes.
    let first = poll("&timeout=0&session=1");
    assert_eq!(users(&first["members"][ROOM]), ["ada", "bob", "eve"]);
    eve.ask(&value!({"type": "unsubscribe", "channel": ROOM}).to_string());
    let part = |name: &str| first[name].as_str().unwrap().to_owned();
    let (connection, key) = (part("connection"), part("key"));
    let next_poll = poll(&format!(
        "&timeout=20&connection={connection}&key={key}&since={}",
        part("cursor")
    ));
    assert!(next_poll.get("members").is_none(), "{next_poll}");
    assert_eq!(next_poll["messages"][0]["type"], "leave");
    assert_eq!([next(&mut bob), next(&mut bob)], ["join eve", "leave eve"]);
    assert_eq!(members(&hub), ["ada 1", "bob 1"]);
}

#[test]
fn a_past_that_comes_in_parts_does_not_leave_somebody_behind() {
    let hub = Hub::with(&[
        SETTING,
        ("realtime.presence_grace", "0"),
        ("realtime.max_backlog", "1K"),
    ]);
    let start = hub.publish("other", "0");
    for _ in 0..4 {
        hub.publish(ROOM, &format!("\"{}\"", "x".repeat(500)));
    }
    let path = format!(
        "/poll?session=1&timeout=0&since={start}&channel={ROOM}&token={}",
        token_of("ada")
    );
    let part = Client::connect(hub.address()).get(&path).json();
    assert!(part.get("connection").is_none() && part.get("members").is_none());
    eventually("nobody", || members(&hub).is_empty());
}

#[test]
fn of_whom_nobody_knows_who_it_is_sees_and_is_not_seen() {
    let hub = hasty();
    let anonymous = token(value!({"channels": "presence-*"}));
    let (mut ada, _) = enter(hub.address(), "ada");
    let mut sse = Client::stream(
        hub.address(),
        &format!("/sse?channel={ROOM}&meta=1&token={anonymous}"),
        "",
    );
    let subscribed = sse.chunk_with("realtime.subscribed");
    assert!(subscribed.contains(r#""members":[{"user":"ada""#));
    let (_bob, there) = enter(hub.address(), "bob");
    assert_eq!(there, ["ada", "bob"]);
    assert_eq!(next(&mut ada), "join bob");
    assert!(sse.chunk_with("realtime.join").contains("bob"));
    assert_eq!(members(&hub), ["ada 1", "bob 1"]);
    // Nobody is a member of a channel that is not of that kind.
    let mut ada = connect(hub.address(), "ada");
    assert!(ada.subscribe("open", None).get("members").is_none());
    assert!(
        hub.node()
            .members(&channel_named("open"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_handler_says_who_it_is() {
    let hub = patient();
    let interest = Interest {
        subscribe: true,
        ..NONE
    };
    let _php = hub.php(interest, |_, event| match event {
        Event::Subscribe {
            connection, answer, ..
        } => {
            let name = connection.query().split('=').nth(1).unwrap().to_owned();
            answer.rule(match &*name {
                "nobody" => Ruling::Admitted,
                "none" => Ruling::Refused,
                name => Ruling::AdmittedAs(Attendee::new(name, Some("[1]"))),
            });
        }
        other => panic!("{other:?}"),
    });
    let enter = |name: &str| {
        let mut client = Client::websocket(hub.address(), &format!("/ws?user={name}"));
        client.json();
        let answer = client.ask(&value!({"type": "subscribe", "channel": ROOM}).to_string());
        (client, answer)
    };
    let (mut joe, answer) = enter("joe");
    assert_eq!(answer["members"], value!([{"user": "joe", "info": [1]}]));
    let (_eve, _) = enter("eve");
    assert_eq!(next(&mut joe), "join eve");
    let (_nobody, answer) = enter("nobody");
    assert_eq!(users(&answer["members"]), ["eve", "joe"]);
    assert_eq!(enter("none").1["code"], "forbidden");
    assert_eq!(members(&hub), ["eve 1", "joe 1"]);
}

#[test]
fn there_are_limits() {
    let hub = Hub::with(&[
        SETTING,
        ("realtime.presence_members", "2"),
        ("realtime.presence_info", "20"),
    ]);
    let (_ada, _) = enter(hub.address(), "ada");
    let (_bob, _) = enter(hub.address(), "bob");
    let (_second, _) = enter(hub.address(), "bob");
    let subscribe = value!({"type": "subscribe", "channel": ROOM, "ref": 1}).to_string();
    let error = connect(hub.address(), "eve").ask(&subscribe);
    assert_eq!(error["code"], "too_many_members", "{error}");
    assert_eq!(
        (&error["ref"], &error["channel"]),
        (&1.into(), &ROOM.into())
    );
    let large = connect(hub.address(), "a-name-of-twenty-one").ask(&subscribe);
    assert_eq!(large["code"], "too_large", "{large}");
    for (user, status, code) in [
        ("eve", 503, "too_many_members"),
        ("a-name-of-twenty-one", 413, "too_large"),
    ] {
        for path in ["/sse?", "/stream?", "/poll?timeout=0&"] {
            let path = format!("{path}channel={ROOM}&token={}", token_of(user));
            let refused = Client::connect(hub.address()).get(&path);
            assert_eq!((refused.status, &*refused.code()), (status, code), "{path}");
        }
    }
    assert_eq!(members(&hub), ["ada 1", "bob 2"]);
}

#[test]
fn other_processes_ask() {
    let hub = hasty();
    let (_ada, _) = enter(hub.address(), "ada");
    let (_second, _) = enter(hub.address(), "ada");
    let mut link = Link::connect(&hub.socket(), PATIENCE).unwrap();
    let found = link.members(&channel_named(ROOM)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].user, found[0].connections), ("ada", 2));
    assert_eq!(found[0].info.as_ref().unwrap().get(), r#"{"name":"ADA"}"#);
    assert!(
        link.members(&channel_named("presence-b"))
            .unwrap()
            .is_empty()
    );
}

/// Whoever listens and keeps a list of its own, as clients do, has the right one at every moment at which nothing is under
/// way: many users on all shards come and go as fast as they can.
#[test]
fn lists_that_clients_keep_are_right() {
    const USERS: usize = 6;
    let hub = Hub::with(&[
        SETTING,
        ("realtime.presence_grace", "0"),
        ("realtime.threads", "4"),
        ("realtime.rate_messages", "0"),
    ]);
    let address = hub.address().to_owned();
    std::thread::scope(|scope| {
        let busy: Vec<_> = (0..USERS)
            .map(|number| {
                let address = address.clone();
                scope.spawn(move || {
                    let user = format!("user-{}", number / 2);
                    for turn in 0..20 {
                        let (client, there) = enter(&address, &user);
                        assert!(there.contains(&user), "{there:?}");
                        if turn % 2 == 0 {
                            unsubscribe(client);
                        }
                    }
                })
            })
            .collect();
        // Each begins at another moment.
        let mut watchers = Vec::new();
        for number in 0..8 {
            let (client, there) = enter(&address, &format!("watcher-{number}"));
            watchers.push((client, there));
            std::thread::sleep(Duration::from_millis(3));
        }
        for thread in busy {
            thread.join().unwrap();
        }
        hub.publish(ROOM, "\"end\"");
        let expected: Vec<String> = (0..8).map(|n| format!("watcher-{n}")).collect();
        eventually("only those who watch", || {
            let members = hub.node().members(&channel_named(ROOM)).unwrap();
            members
                .iter()
                .map(|m| m.user.to_string())
                .eq(expected.iter().cloned())
        });
        hub.publish(ROOM, "\"last\"");
        for (mut client, mut there) in watchers {
            loop {
                let word = next(&mut client);
                match word.split_once(' ').unwrap() {
                    ("join", user) => {
                        assert!(!there.iter().any(|it| it == user), "{user} came twice");
                        there.push(user.to_owned());
                    }
                    ("leave", user) => {
                        let at = there.iter().position(|it| it == user);
                        there.remove(at.unwrap_or_else(|| panic!("{user} was not there")));
                    }
                    ("message", "\"last\"") => break,
                    ("message", _) => {}
                    other => panic!("{other:?}"),
                }
            }
            there.sort_unstable();
            assert_eq!(there, expected);
        }
    });
}

fn unsubscribe(mut client: Client) {
    let unsubscribe = value!({"type": "unsubscribe", "channel": ROOM});
    client.say(&unsubscribe.to_string());
    while client.json()["type"] != "unsubscribed" {}
}
