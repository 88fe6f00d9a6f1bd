//! Tokens: the ways they come, what they open, how they end, and those that are refused.

mod proof;
mod rights;
mod time;

use serde_json::json as value;

use crate::client::{Client, Response, handshake};
use crate::harness::{Hub, eventually};
use crate::issuer::{SETTING, token};

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
