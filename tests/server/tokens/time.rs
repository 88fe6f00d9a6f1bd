//! How long a token is good for.

use std::time::{Duration, Instant};

use realtime::auth::sign;
use realtime::config::Config;
use realtime::control::client::Client as Link;
use realtime::node::Failure;
use serde_json::json as value;

use super::{all_refuse, hub, native, subscribe};
use crate::client::Client;
use crate::harness::{Hub, PATIENCE, eventually};
use crate::issuer::{SETTING, at, token};

#[test]
fn a_connection_ends_with_its_token() {
    let hub = hub();
    let short = || token(value!({"exp": at(3.95), "channels": "private-a"}));
    let mut ws = native(&hub, &short());
    ws.json();
    let mut sse = Client::stream(
        hub.address(),
        &format!("/sse?channel=private-a&token={}", short()),
        "",
    );
    let path = format!(
        "/poll?channel=private-a&session=1&timeout=0&token={}",
        short()
    );
    let mut http = Client::connect(hub.address());
    let poll = http.get(&path).json();
    let expires = poll["expires"].as_u64().unwrap();
    assert!((1..=3).contains(&expires), "{expires}");
    let (mut anonymous, _) = Client::native(hub.address());
    let next = format!(
        "/poll?channel=private-a&timeout=20&connection={}&key={}&since={}",
        poll["connection"].as_str().unwrap(),
        poll["key"].as_str().unwrap(),
        poll["cursor"].as_str().unwrap(),
    );
    let ended = http.get(&next);
    assert_eq!((ended.status, &*ended.code()), (404, "no_session"));
    let frame = ws.frame();
    assert_eq!(frame.close(), (4010, "the token has expired"));
    while sse.chunk().is_some() {}
    assert_eq!(anonymous.ask(r#"{"type":"ping"}"#)["type"], "pong");
    eventually("their end", || hub.node().connection_count() == 1);
}

#[test]
fn a_fresh_token_prolongs_a_connection() {
    let hub = hub();
    let claims =
        |exp: f64| value!({"sub": "ada", "channels": ["private-a", "private-b"], "exp": at(exp)});
    let mut client = native(&hub, &token(claims(5.0)));
    client.json();
    assert_eq!(subscribe(&mut client, "private-a"), "subscribed");
    assert_eq!(subscribe(&mut client, "private-b"), "subscribed");
    assert_eq!(subscribe(&mut client, "news"), "subscribed");
    let mut refresh = |claims| {
        let token = token(claims);
        client.ask(&value!({"type": "token", "token": token, "ref": "r"}).to_string())
    };
    for bad in [
        value!({"sub": "bob"}),
        value!({}),
        value!({"sub": "ada", "exp": at(-1.0)}),
    ] {
        let answer = refresh(bad);
        assert_eq!(
            (&answer["type"], &answer["ref"]),
            (&"error".into(), &"r".into())
        );
    }
    assert_eq!(client.ask(r#"{"type":"token"}"#)["code"], "bad_frame");
    let token = token(value!({"sub": "ada", "channels": "private-b", "exp": at(60.0)}));
    client.say(&value!({"type": "token", "token": token, "ref": "r"}).to_string());
    // What the new one does not open any more is closed.
    let closed = client.json();
    assert_eq!(
        (&closed["type"], &closed["channel"]),
        (&"unsubscribed".into(), &"private-a".into())
    );
    let answer = client.json();
    assert_eq!(
        (&answer["type"], &answer["ref"]),
        (&"token".into(), &"r".into())
    );
    assert!(answer["expires"].as_u64().unwrap() > 50, "{answer}");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(
        client.ask(r#"{"type":"ping"}"#)["type"],
        "pong",
        "the first token has expired"
    );
    assert_eq!(subscribe(&mut client, "private-a"), "forbidden");
    let (mut anonymous, _) = Client::native(hub.address());
    let answer = anonymous.ask(&value!({"type": "token", "token": token}).to_string());
    assert_eq!(
        answer["code"], "bad_token",
        "who began as nobody stays nobody"
    );
}

#[test]
fn users_and_tokens_are_taken_back() {
    let hub = hub();
    let mut link = Link::connect(&hub.socket(), PATIENCE).unwrap();
    let (first, second) = (
        token(value!({"sub": "ada"})),
        token(value!({"sub": "ada", "info": 2})),
    );
    let mut clients = [
        native(&hub, &first),
        native(&hub, &first),
        native(&hub, &second),
    ];
    let mut bob = native(&hub, &token(value!({"sub": "bob"})));
    clients.iter_mut().for_each(|client| drop(client.json()));
    bob.json();
    let seen = link.connections(None).unwrap();
    assert_eq!(seen.iter().filter(|c| c.user() == Some("ada")).count(), 3);
    assert_eq!(link.revoke_token(&first).unwrap(), 2);
    for client in &mut clients[..2] {
        assert_eq!(client.frame().close(), (4011, "the token was revoked"));
    }
    assert_eq!(all_refuse(&hub, &first), (401, "bad_token".into()));
    assert_eq!(clients[2].ask(r#"{"type":"ping"}"#)["type"], "pong");
    let answer = clients[2].ask(&value!({"type": "token", "token": first}).to_string());
    assert_eq!(answer["code"], "bad_token");
    eventually("their end", || hub.node().connection_count() == 2);
    assert_eq!(link.revoke_user("ada").unwrap(), 1);
    assert_eq!(clients[2].frame().close().0, 4011);
    assert_eq!(all_refuse(&hub, &second), (401, "bad_token".into()));
    native(&hub, &of_php("ada")).json();
    assert_eq!(link.disconnect("bob", 4321, "off you go").unwrap(), 1);
    assert_eq!(bob.frame().close(), (4321, "off you go"));
    native(&hub, &token(value!({"sub": "bob"}))).json();
    assert_eq!(link.disconnect("nobody", 1000, "").unwrap(), 0);
    let refused = link.revoke_token("garbage").unwrap_err();
    assert!(matches!(refused, Failure::Refused(_)), "{refused:?}");
    assert!(link.stats().is_ok(), "the link goes on");
}

/// As rt_token() makes it on the server's machine.
fn of_php(user: &str) -> String {
    let config = Config::load(|name| (name == SETTING.0).then(|| SETTING.1.to_owned())).unwrap();
    sign(
        &config,
        value!({ "sub": user }).to_string().as_bytes(),
        3600,
    )
    .unwrap()
}

#[test]
fn who_was_revoked_does_not_come_back_by_a_clock_that_is_ahead() {
    let hub = hub();
    let claims = value!({"sub": "ada", "iat": at(3.0), "channels": "private-a"});
    let ahead = token(claims);
    let mut ada = native(&hub, &ahead);
    ada.json();
    let mut other = native(&hub, &token(value!({"sub": "ada", "iat": at(-60.0)})));
    other.json();
    assert_eq!(hub.node().revoke_user("ada"), Ok(2));
    assert_eq!(ada.frame().close(), (4011, "the token was revoked"));
    assert_eq!(all_refuse(&hub, &ahead), (401, "bad_token".into()));
    eventually("their end", || hub.node().connection_count() == 0);
    // Who logs in anew at once is somebody else.
    let mut fresh = native(&hub, &of_php("ada"));
    fresh.json();
    let answer = fresh.ask(&value!({"type": "token", "token": ahead}).to_string());
    assert_eq!(answer["code"], "bad_token");
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(all_refuse(&hub, &ahead), (401, "bad_token".into()));
    assert_eq!(fresh.ask(r#"{"type":"ping"}"#)["type"], "pong");
}

#[test]
fn who_is_revoked_is_sent_away_by_every_shard_however_late_one_is() {
    let hub = Hub::with(&[
        SETTING,
        ("realtime.threads", "2"),
        ("realtime.timeout", "0.1"),
    ]);
    let ada = token(value!({"sub": "ada"}));
    let mut clients: Vec<Client> = (0..4).map(|_| native(&hub, &ada)).collect();
    for client in &mut clients {
        client.json();
    }
    hub.stall(|| assert_eq!(hub.node().revoke_user("ada"), Err(Failure::Busy)));
    for client in &mut clients {
        assert_eq!(client.frame().close().0, 4011);
    }
}

#[test]
fn who_is_revoked_is_sent_away_where_it_can_not_be_remembered() {
    let hub = Hub::with(&[SETTING, ("realtime.max_revocations", "1")]);
    hub.node().revoke_user("nobody").unwrap();
    let (ada, bob) = (token(value!({"sub": "ada"})), token(value!({"sub": "bob"})));
    let (mut first, mut second) = (native(&hub, &ada), native(&hub, &bob));
    first.json();
    second.json();
    for refused in [hub.node().revoke_user("ada"), hub.node().revoke_token(&bob)] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("realtime.max_revocations"), "{text}");
        assert!(text.contains("connections were closed: 1"), "{text}");
    }
    assert_eq!(first.frame().close().0, 4011);
    assert_eq!(second.frame().close().0, 4011);
    // As the exception says: their tokens are as good as before.
    native(&hub, &ada).json();
}

#[test]
fn refreshing_does_not_wait_for_the_sweep() {
    // A connection's entry is looked at when it is due, wherever it stands among others.
    let hub = hub();
    let begun = Instant::now();
    let mut clients: Vec<Client> = (0..20)
        .map(|n| native(&hub, &token(value!({"exp": at(3.0 + f64::from(n % 3))}))))
        .collect();
    for client in &mut clients {
        client.json();
        assert_eq!(client.frame().close().0, 4010);
    }
    assert!(begun.elapsed() >= Duration::from_secs(5));
}
