//! Tokens: the ways they come, what they open, how they end, and those that are refused.

use std::fs;
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use realtime::backend::Interest;
use realtime::control::client::Client as Link;
use realtime::node::Failure;
use realtime::server::StartError;
use serde_json::json as value;

use crate::client::{Client, Response, handshake, masked};
use crate::harness::{Hub, NONE, PATIENCE, Seen, alone, directory, eventually};
use crate::issuer::{Pair, SETTING, at, signed, token};

fn hub() -> Hub {
    Hub::with(&[SETTING])
}

/// Connects to `/ws` with a token as the sub-protocol.
fn native(hub: &Hub, token: &str) -> Client {
    let mut client = Client::connect(hub.address());
    let offer = format!("Sec-WebSocket-Protocol: realtime.v1, realtime.token.{token}\r\n");
    client.send(handshake("/ws", &offer).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(!head.contains(token), "{head}");
    client
}

/// Whom the server takes the clients for.
fn users(hub: &Hub) -> Vec<Option<String>> {
    let connections = hub.node().connections(None).unwrap();
    connections
        .iter()
        .map(|c| c.user().map(ToOwned::to_owned))
        .collect()
}

fn subscribe(client: &mut Client, channel: &str) -> String {
    let answer = client.ask(&value!({"type": "subscribe", "channel": channel}).to_string());
    let what = if answer["type"] == "error" {
        "code"
    } else {
        "type"
    };
    answer[what].as_str().unwrap().to_owned()
}

#[test]
fn a_token_comes_in_four_ways() {
    let hub = hub();
    let good = token(value!({"sub": "ada", "channels": "private-ada"}));
    let ways = [
        (format!("?token={good}"), String::new()),
        (String::new(), format!("Authorization: bearer {good}\r\n")),
        (
            String::new(),
            format!("Cookie: a=b; realtime_token={good}\r\n"),
        ),
        (
            String::new(),
            format!("Sec-WebSocket-Protocol: mine, realtime.token.{good}\r\n"),
        ),
    ];
    for (query, line) in ways {
        let mut client = Client::connect(hub.address());
        client.send(handshake(&format!("/raw/private-ada{query}"), &line).as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(!head.contains("realtime.token"), "{head}");
        hub.await_subscribers("private-ada", 1);
        assert_eq!(users(&hub), [Some("ada".to_owned())], "{query}{line}");
        drop(client);
        eventually("its end", || hub.node().connection_count() == 0);
        if line.starts_with("Sec-") {
            continue;
        }
        let and = if query.is_empty() { "?" } else { "&" };
        for path in ["/sse", "/stream"] {
            let path = format!("{path}{query}{and}channel=private-ada");
            let _stream = Client::stream(hub.address(), &path, &line);
            hub.await_subscribers("private-ada", 1);
            assert_eq!(users(&hub), [Some("ada".to_owned())]);
            drop(_stream);
            eventually("its end", || hub.node().connection_count() == 0);
        }
        let path = format!("/poll{query}{and}channel=private-ada&timeout=0");
        let answer = Client::connect(hub.address()).request("GET", &path, &line, "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn the_program_is_believed_before_the_browser() {
    let hub = hub();
    let (ada, bob) = (token(value!({"sub": "ada"})), token(value!({"sub": "bob"})));
    let cookie = format!("Cookie: realtime_token={bob}\r\n");
    let _client = Client::stream(
        hub.address(),
        &format!("/sse?channel=a&token={ada}"),
        &cookie,
    );
    hub.await_subscribers("a", 1);
    assert_eq!(users(&hub), [Some("ada".to_owned())]);
    // Another scheme, and another cookie, are somebody else's business.
    let others = "Authorization: Basic YTpi\r\nCookie: other=x; realtime_token=\r\n";
    let _client = Client::stream(hub.address(), "/sse?channel=b", others);
    hub.await_subscribers("b", 1);
    assert!(users(&hub).contains(&None));
}

#[test]
fn without_a_secret_a_token_is_the_applications_business() {
    let hub = Hub::start();
    let _client = Client::stream(hub.address(), "/sse?channel=a&token=let-me-in", "");
    hub.await_subscribers("a", 1);
    let (mut client, _) = Client::native(hub.address());
    let answer = client.ask(r#"{"type":"token","token":"x","ref":1}"#);
    assert_eq!(
        (&answer["code"], &answer["ref"]),
        (&"bad_token".into(), &1.into())
    );
}

#[test]
fn only_what_the_token_names_is_open() {
    let hub = hub();
    let mut client = native(
        &hub,
        &token(value!({
            "sub": "ada", "channels": ["private-user.ada", "presence-*"],
        })),
    );
    assert!(client.json()["expires"].as_u64().unwrap() > 50);
    assert_eq!(subscribe(&mut client, "private-user.ada"), "subscribed");
    assert_eq!(subscribe(&mut client, "presence-lobby"), "subscribed");
    assert_eq!(subscribe(&mut client, "private-user.bob"), "forbidden");
    assert_eq!(subscribe(&mut client, "private-user.ada2"), "forbidden");
    assert_eq!(subscribe(&mut client, "news"), "subscribed");
    let (mut anonymous, _) = Client::native(hub.address());
    assert_eq!(subscribe(&mut anonymous, "private-user.ada"), "forbidden");
}

#[test]
fn a_handler_is_asked_about_the_others_alone() {
    let hub = hub();
    let interest = Interest {
        subscribe: true,
        ..NONE
    };
    let (_php, seen) = hub.recording(interest);
    let mut client = native(&hub, &token(value!({"channels": "private-a"})));
    client.json();
    assert_eq!(subscribe(&mut client, "private-a"), "subscribed");
    assert_eq!(subscribe(&mut client, "private-b"), "subscribed");
    assert_eq!(
        seen.recv_timeout(PATIENCE).unwrap(),
        Seen::Subscribe("private-b".into())
    );
}

/// Every way in, with a token in the query.
fn all_refuse(hub: &Hub, token: &str) -> (u16, String) {
    let mut answers: Vec<Response> = Vec::new();
    for path in ["/ws", "/raw/a"] {
        let mut client = Client::connect(hub.address());
        client.send(handshake(&format!("{path}?token={token}"), "").as_bytes());
        answers.push(client.response(true));
    }
    for path in ["/sse?channel=a", "/stream?channel=a", "/poll?channel=a"] {
        answers.push(Client::connect(hub.address()).get(&format!("{path}&token={token}")));
    }
    let path = format!("/publish?token={token}");
    let json = "Content-Type: application/json\r\n";
    let mut client = Client::connect(hub.address());
    answers.push(client.request("POST", &path, json, r#"{"channel":"a"}"#));
    let first = (answers[0].status, answers[0].code());
    for answer in &answers {
        assert_eq!((answer.status, answer.code()), first, "{answer:?}");
        assert!(answer.header("WWW-Authenticate").is_some(), "{answer:?}");
        assert!(
            token.is_empty() || !answer.body.contains(token),
            "{answer:?}"
        );
    }
    first
}

#[test]
fn bad_tokens_are_refused_on_every_way_in() {
    let hub = Hub::with(&[SETTING, ("realtime.token_audience", "us")]);
    let bad = |claims| {
        let mut claims: serde_json::Value = claims;
        if claims.get("aud").is_none() {
            claims["aud"] = "us".into();
        }
        token(claims)
    };
    let good = bad(value!({"sub": "ada"}));
    assert!(hub.node().auth().check(&good).is_ok());
    let wrong_key = EncodingKey::from_secret(b"some other secret, as long as ours is");
    let aud = || value!({"aud": "us"});
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    let cases = [
        (String::new(), "bad_token"),
        ("garbage".into(), "bad_token"),
        ("a.b.c".into(), "bad_token"),
        ("%00%ff.%20.%0a".into(), "bad_token"),
        (none, "bad_token"),
        (good[..good.len() - 2].to_owned(), "bad_token"),
        (
            signed(&Header::new(Algorithm::HS256), aud(), &wrong_key),
            "bad_token",
        ),
        (
            signed(&Header::new(Algorithm::HS384), aud(), &wrong_key),
            "bad_token",
        ),
        (Pair::rsa().token(None, aud()), "bad_token"),
        (bad(value!({"exp": at(-1.0)})), "token_expired"),
        (bad(value!({"nbf": at(60.0)})), "bad_token"),
        (bad(value!({"aud": "them"})), "bad_token"),
        (token(value!({})), "bad_token"),
        ("x".repeat(9000), "bad_token"),
    ];
    for (token, code) in cases {
        assert_eq!(all_refuse(&hub, &token), (401, code.to_owned()), "{token}");
    }
    assert_eq!(hub.stats().connections_total, 0);
}

#[test]
fn a_huge_token_costs_its_sender_alone() {
    let hub = hub();
    let huge = "x".repeat(100_000);
    let mut client = Client::connect(hub.address());
    client.send(format!("GET /poll?channel=a&token={huge} HTTP/1.1\r\nHost: a\r\n").as_bytes());
    let refused = String::from_utf8(client.rest()).unwrap();
    assert!(refused.starts_with("HTTP/1.1 4"), "{refused}");
    let mut client = native(&hub, &token(value!({})));
    client.json();
    let frame = value!({"type": "token", "token": "x".repeat(50_000), "ref": 1}).to_string();
    assert_eq!(client.ask(&frame)["code"], "bad_token");
    client.send(&masked(
        0x81,
        value!({"type": "token", "token": huge})
            .to_string()
            .as_bytes(),
    ));
    assert_eq!(client.frame().close().0, 1009);
}

#[test]
fn public_keys_prove_what_others_sign() {
    let directory = directory();
    let file = directory.path().join("keys");
    let name = file.display().to_string();
    let (rsa, ec, stranger) = (Pair::rsa(), Pair::ec(), Pair::ec());
    fs::write(&file, format!("{}\n{}", rsa.public, ec.public)).unwrap();
    let hub = Hub::with(&[SETTING, ("realtime.token_keys", &name)]);
    let check = |token: &str| hub.node().auth().check(token).map_err(|bad| bad.code());
    for pair in [&rsa, &ec] {
        assert!(check(&pair.token(None, value!({}))).is_ok());
        assert!(
            check(&pair.token(Some("any"), value!({}))).is_ok(),
            "PEM names no keys"
        );
    }
    assert!(
        check(&token(value!({}))).is_ok(),
        "the secret holds beside them"
    );
    assert_eq!(check(&stranger.token(None, value!({}))), Err("bad_token"));
    // The public key is known to all: it must not pass for a secret.
    for public in [&rsa.public, &ec.public] {
        for text in [public.as_str(), public.trim_end()] {
            let key = EncodingKey::from_secret(text.as_bytes());
            let forged = signed(
                &Header::new(Algorithm::HS256),
                value!({"sub": "root"}),
                &key,
            );
            assert_eq!(check(&forged), Err("bad_token"));
        }
    }
    // A token may name its key; then that one counts. The file is read again when it changes.
    let set = value!({"keys": [
        rsa.jwk("one"), stranger.jwk("two"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "three"}, {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "four"},
    ]});
    fs::write(&file, set.to_string()).unwrap();
    eventually("the new keys", || {
        check(&stranger.token(Some("two"), value!({}))).is_ok()
    });
    assert!(check(&rsa.token(Some("one"), value!({}))).is_ok());
    assert_eq!(check(&rsa.token(Some("two"), value!({}))), Err("bad_token"));
    assert_eq!(
        check(&ec.token(None, value!({}))),
        Err("bad_token"),
        "it is gone"
    );
    let oct = EncodingKey::from_secret(b"secret");
    assert_eq!(
        check(&signed(&Header::new(Algorithm::HS256), value!({}), &oct)),
        Err("bad_token")
    );
    // What cannot be read changes nothing.
    fs::write(&file, "{broken").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(check(&rsa.token(Some("one"), value!({}))).is_ok());
}

#[test]
fn a_file_without_usable_keys_is_told_at_the_start() {
    let directory = directory();
    let file = directory.path().join("keys");
    let pair = Pair::ec();
    let cut = &pair.public[..pair.public.len() - 10];
    let cases = [
        ("", "neither PEM nor a JWK set"),
        (&*pair.private, "it has a private key"),
        (cut, "without end"),
        (
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
            "it has a CERTIFICATE",
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "neither RSA nor EC",
        ),
        ("{}", "no public key"),
        ("{broken", "it is no JWK set"),
        (r#"{"keys":[]}"#, "no public key"),
        (
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#,
            "no public key",
        ),
    ];
    for (content, expected) in cases {
        fs::write(&file, content).unwrap();
        let config = crate::harness::config(
            &directory,
            &[("realtime.token_keys", &file.display().to_string())],
        );
        let queue = realtime::backend::queue::EventQueue::new(1 << 20).unwrap();
        let error =
            realtime::server::Server::start(config, std::sync::Arc::new(queue)).unwrap_err();
        assert!(matches!(error, StartError::Keys(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.contains("realtime.token_keys"),
            "{text}"
        );
    }
}

#[test]
fn a_connection_ends_with_its_token() {
    let hub = hub();
    let short = || token(value!({"exp": at(1.5), "channels": "private-a"}));
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
    assert_eq!(poll["expires"], 1);
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
    let mut client = native(&hub, &token(claims(2.0)));
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
    std::thread::sleep(Duration::from_secs(4));
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
    native(&hub, &token(value!({"sub": "ada"}))).json();
    assert_eq!(link.disconnect("bob", 4321, "off you go").unwrap(), 1);
    assert_eq!(bob.frame().close(), (4321, "off you go"));
    native(&hub, &token(value!({"sub": "bob"}))).json();
    assert_eq!(link.disconnect("nobody", 1000, "").unwrap(), 0);
    let refused = link.revoke_token("garbage").unwrap_err();
    assert!(matches!(refused, Failure::Refused(_)), "{refused:?}");
    assert!(link.stats().is_ok(), "the link goes on");
}

#[test]
fn a_token_lets_its_client_publish() {
    let hub = hub();
    let mut reader = native(&hub, &token(value!({"channels": "private-*"})));
    reader.json();
    subscribe(&mut reader, "private-room");
    let mut writer = native(
        &hub,
        &token(value!({"channels": "private-*", "publish": "private-room"})),
    );
    writer.json();
    subscribe(&mut writer, "private-room");
    let answer = writer.ask(
        r#"{"type":"publish","channel":"private-room","event":"said","data":{"a":1},"ref":1}"#,
    );
    assert_eq!(
        (&answer["type"], &answer["ref"]),
        (&"reply".into(), &1.into())
    );
    let message = reader.json();
    assert_eq!(
        (&message["event"], &message["data"]["a"]),
        (&"said".into(), &1.into())
    );
    assert!(message["id"].is_string());
    let refused = writer.ask(r#"{"type":"publish","channel":"private-other","data":1}"#);
    assert_eq!(refused["code"], "no_handler");
    let refused = reader.ask(r#"{"type":"publish","channel":"private-room","data":1}"#);
    assert_eq!(refused["code"], "no_handler");
    // Over HTTP, and from /raw.
    let posted = token(value!({"publish": "private-*"}));
    let head = format!("Content-Type: application/json\r\nAuthorization: Bearer {posted}\r\n");
    let body = r#"{"channel":"private-room","data":2}"#;
    let answer = Client::connect(hub.address()).request("POST", "/publish", &head, body);
    assert_eq!(
        (answer.status, &*answer.body),
        (200, r#"{"type":"reply","data":null}"#)
    );
    assert_eq!(reader.json()["data"], 2);
    assert_eq!(writer.json()["data"], 2, "nothing of its own came before");
    let all = token(value!({"channels": "*", "publish": "*"}));
    let mut raw = Client::websocket(hub.address(), &format!("/raw/private-room?token={all}"));
    raw.say("say \"three\"");
    assert_eq!(reader.json()["data"], "say \"three\"");
}

#[test]
fn client_events_are_for_subscribers_of_closed_channels() {
    let hub = Hub::with(&[SETTING, ("realtime.client_events", "1")]);
    let opens = || token(value!({"channels": "private-room"}));
    let (mut a, mut b, mut c) = (
        native(&hub, &opens()),
        native(&hub, &opens()),
        native(&hub, &opens()),
    );
    let welcome = a.json();
    b.json();
    c.json();
    subscribe(&mut a, "private-room");
    subscribe(&mut b, "private-room");
    let publish = |channel: &str, event: &str| {
        value!({"type": "publish", "channel": channel, "event": event, "data": 1, "ref": 1})
            .to_string()
    };
    assert_eq!(
        a.ask(&publish("private-room", "client-typing"))["type"],
        "reply"
    );
    assert_eq!(b.json()["event"], "client-typing");
    subscribe(&mut a, "news");
    // Not another's event name, not an open channel, not without being there.
    for (client, channel, event) in [
        (&mut a, "private-room", "typing"),
        (&mut b, "private-other", "client-typing"),
        (&mut c, "private-room", "client-typing"),
    ] {
        assert_eq!(client.ask(&publish(channel, event))["code"], "no_handler");
    }
    assert_eq!(
        a.ask(&publish("news", "client-typing"))["code"],
        "no_handler"
    );
    let body = value!({
        "channel": "private-room", "event": "client-typing", "data": 2,
        "connection": welcome["connection"], "key": welcome["key"],
    });
    assert_eq!(
        Client::connect(hub.address())
            .post(&body.to_string())
            .status,
        200
    );
    assert_eq!(b.json()["data"], 2);
    assert_eq!(
        hub.stats().history_messages,
        0,
        "they are for those who are there"
    );
}

#[test]
fn nothing_secret_is_logged() {
    if !alone("tokens::nothing_secret_is_logged") {
        return;
    }
    let logs = directory();
    let file = logs.path().join("log").display().to_string();
    let hub = Hub::with(&[
        SETTING,
        ("realtime.log", &file),
        ("realtime.log_level", "trace"),
    ]);
    let good = token(value!({"sub": "ada", "exp": at(1.0)}));
    let mut client = native(&hub, &good);
    let welcome = client.json();
    let bad = format!("{}x", token(value!({})));
    all_refuse(&hub, &bad);
    client.ask(&value!({"type": "token", "token": bad}).to_string());
    client.say("{broken");
    client.json();
    client.frame();
    drop(client);
    eventually("its end", || hub.node().connection_count() == 0);
    let log = fs::read_to_string(&file).unwrap();
    assert!(log.contains("status=401"), "{log}");
    let key = welcome["key"].as_str().unwrap();
    let signature = good.rsplit('.').next().unwrap();
    for secret in [SETTING.1, &*bad, key, signature, &good] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    let stats = format!(
        "{:?} {:?}",
        hub.stats(),
        hub.node().connections(None).unwrap()
    );
    assert!(!stats.contains(signature));
    assert!(!format!("{:?}", hub.node().config()).contains(SETTING.1));
}

#[test]
fn where_any_page_may_connect_it_does_so_as_nobody() {
    let hub = Hub::with(&[
        SETTING,
        ("realtime.allowed_origins", "*, https://app.example"),
    ]);
    let cookie = format!(
        "Cookie: realtime_token={}\r\n",
        token(value!({"sub": "ada", "channels": "*"}))
    );
    let path = "/poll?channel=private-a&timeout=0";
    let ask = |more: &str| {
        Client::connect(hub.address()).request("GET", path, &format!("{cookie}{more}"), "")
    };
    let own = ask("");
    assert_eq!(own.status, 200);
    let listed = ask("Origin: https://app.example\r\n");
    assert_eq!(listed.status, 200);
    assert_eq!(
        listed.header("Access-Control-Allow-Credentials"),
        Some("true")
    );
    for foreign in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
    ] {
        let answer = ask(foreign);
        assert_eq!(
            (answer.status, &*answer.code()),
            (403, "forbidden"),
            "{foreign}"
        );
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
    }
    // The same over WebSocket, which no CORS guards.
    let mut client = Client::connect(hub.address());
    let head = format!("{cookie}Origin: https://evil.example\r\n");
    client.send(handshake("/ws", &head).as_bytes());
    client.head();
    client.json();
    assert_eq!(users(&hub), [None]);
    let info = hub.node().connections(None).unwrap().remove(0);
    assert!(
        info.headers().all(|(name, _)| name != "cookie"),
        "PHP sees no session of theirs"
    );
}

#[test]
fn a_page_elsewhere_cannot_use_the_cookie() {
    let hub = hub();
    let cookie = format!(
        "Cookie: realtime_token={}\r\n",
        token(value!({"sub": "ada"}))
    );
    for foreign in [
        "Origin: https://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        let mut client = Client::connect(hub.address());
        client.send(handshake("/ws", &format!("{cookie}{foreign}")).as_bytes());
        let refused = client.response(true);
        assert_eq!((refused.status, &*refused.code()), (403, "bad_origin"));
    }
    assert!(hub.stats().connections_total == 0);
}

#[test]
fn a_raw_client_offers_a_protocol_beside_its_token() {
    let hub = hub();
    let good = token(value!({}));
    for path in ["/ws", "/raw/a"] {
        let mut client = Client::connect(hub.address());
        let only = format!("Sec-WebSocket-Protocol: realtime.token.{good}\r\n");
        client.send(handshake(path, &only).as_bytes());
        let refused = client.response(true);
        assert_eq!((refused.status, &*refused.code()), (400, "bad_protocol"));
    }
}

#[test]
fn refreshing_does_not_wait_for_the_sweep() {
    // A connection's entry is looked at when it is due, wherever it stands among others.
    let hub = hub();
    let begun = Instant::now();
    let mut clients: Vec<Client> = (0..20)
        .map(|n| native(&hub, &token(value!({"exp": at(1.0 + f64::from(n % 3))}))))
        .collect();
    for client in &mut clients {
        client.json();
        assert_eq!(client.frame().close().0, 4010);
    }
    assert!(begun.elapsed() >= Duration::from_secs(3));
}
