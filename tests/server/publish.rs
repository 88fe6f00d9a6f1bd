//! `POST /publish`: a client without a WebSocket talks to PHP.

use realtime::backend::{Event, HandlerFailed, Interest, ReplyTo};
use realtime::message::{Incoming, Payload};
use serde_json::json as value;

use std::time::Instant;

use crate::client::{Client, Welcome};
use crate::harness::{Hub, MESSAGES, NONE, Php, Seen, json};

/// Answers each message with who sent it and what.
fn echo(hub: &Hub) -> Php {
    hub.php(MESSAGES, |node, event| {
        let Event::Message { message, reply_to } = event else {
            panic!("{event:?}")
        };
        let Incoming::Json(data) = &message.data else {
            panic!("{message:?}")
        };
        let reply = value!({
            "from": message.from.id.to_string(), "transport": message.from.transport.as_str(),
            "channel": message.channel.as_str(), "event": message.event.as_str(),
            "data": std::str::from_utf8(data).unwrap(),
        });
        node.reply(reply_to, Ok(Some(json(&reply.to_string()))));
    })
}

#[test]
fn the_handlers_reply_is_the_answer() {
    let hub = Hub::start();
    let _php = echo(&hub);
    let mut client = Client::connect(hub.address());
    let response = client.post(r#"{"channel":"chat","event":"said","data":{"x": 1}}"#);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    let reply = &response.json()["data"];
    assert_eq!(reply["transport"], "http");
    assert_eq!(reply["channel"], "chat");
    assert_eq!(reply["event"], "said");
    assert_eq!(reply["data"], r#"{"x": 1}"#);
    let bare = client.post(r#"{"channel":"chat"}"#).json();
    assert_eq!(bare["data"]["data"], "null");
    assert_eq!(bare["data"]["event"], "message");
}

#[test]
fn a_connections_key_proves_who_sends() {
    let hub = Hub::start();
    let _php = echo(&hub);
    let (_ws, welcome) = Client::native(hub.address());
    let (_other, stranger) = Client::native(hub.address());
    let mut client = Client::connect(hub.address());
    let claim = |connection: &str, key: &str| {
        format!(r#"{{"channel":"chat","data":1,"connection":"{connection}","key":"{key}"}}"#)
    };
    let reply = client
        .post(&claim(welcome.connection(), welcome.key()))
        .json();
    assert_eq!(reply["data"]["from"], welcome.connection());
    assert_eq!(reply["data"]["transport"], "websocket");
    let nobody = "0".repeat(32);
    let wrong = [
        (welcome.connection(), stranger.key()),
        (welcome.connection(), "0000000000000000"),
        (welcome.connection(), ""),
        (&*nobody, welcome.key()),
        ("x", welcome.key()),
    ];
    for (connection, key) in wrong {
        let refused = client.post(&claim(connection, key));
        assert_eq!(
            (refused.status, &*refused.code()),
            (403, "forbidden"),
            "{connection} {key}"
        );
    }
    let half = client.post(r#"{"channel":"a","connection":"1"}"#);
    assert_eq!((half.status, &*half.code()), (400, "bad_frame"));
}

#[test]
fn whoever_names_a_connection_is_of_its_pace_on_any_socket() {
    let hub = Hub::with(&[("realtime.rate_messages", "5")]);
    let _php = echo(&hub);
    let (mut ws, welcome) = Client::native(hub.address());
    let (_other, stranger) = Client::native(hub.address());
    let post = |welcome: &Welcome, key: &str| {
        let connection = welcome.connection();
        let body = format!(r#"{{"channel":"chat","connection":"{connection}","key":"{key}"}}"#);
        Client::connect(hub.address()).post(&body)
    };
    // Who has not its key takes nothing away from it.
    for _ in 0..70 {
        assert_eq!(post(&welcome, stranger.key()).status, 403);
    }
    let begun = Instant::now();
    // What comes over the connection itself counts, too.
    for _ in 0..20 {
        assert_eq!(ws.ask(r#"{"type":"ping"}"#)["type"], "pong");
    }
    let mut answers = (0..1000).map(|_| post(&welcome, welcome.key()));
    let done = answers.by_ref().take_while(|it| it.status == 200).count();
    // Ten seconds' worth, and what the rate allows meanwhile.
    let meanwhile = begun.elapsed().as_secs_f64() * 5.0;
    assert!(
        done >= 30 && done as f64 <= 31.0 + meanwhile,
        "{done}, {meanwhile} of them meanwhile"
    );
    let refused = answers.find(|it| it.status != 200).expect("too many");
    assert_eq!((refused.status, &*refused.code()), (429, "busy"));
    assert!(refused.header("Retry-After").is_some());
    assert_eq!(post(&stranger, stranger.key()).status, 200, "nobody else");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(post(&welcome, welcome.key()).status, 200, "a second later");
}

#[test]
fn mistakes_have_their_status() {
    let hub = Hub::with(&[("realtime.max_message_size", "1K")]);
    let mut client = Client::connect(hub.address());
    let refused = client.post(r#"{"channel":"a"}"#);
    assert_eq!((refused.status, &*refused.code()), (503, "no_handler"));
    assert!(refused.header("Retry-After").is_some());
    let _php = echo(&hub);
    let deep = format!(
        r#"{{"channel":"a","data":{}1{}}}"#,
        "[".repeat(129),
        "]".repeat(129)
    );
    let cases = [
        ("", 400, "bad_json"),
        ("[]", 400, "bad_json"),
        ("{\"channel\":", 400, "bad_json"),
        (&deep, 400, "bad_json"),
        ("{}", 400, "bad_frame"),
        (r#"{"channel":7}"#, 400, "bad_frame"),
        (r#"{"channel":"a b"}"#, 400, "bad_channel"),
        (r#"{"channel":"a","event":"\u0000"}"#, 400, "bad_event"),
    ];
    for (body, status, code) in cases {
        let refused = client.post(body);
        assert_eq!((refused.status, &*refused.code()), (status, code), "{body}");
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let refused = client.request("POST", "/publish", form, "{}");
    assert_eq!((refused.status, &*refused.code()), (415, "not_json"));
    // Not read, so the connection ends with the answer.
    let mut client = Client::connect(hub.address());
    assert_eq!(client.request("POST", "/publish", "", "").status, 415);
    let mut client = Client::connect(hub.address());
    client.send(
        b"POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\n\
          Content-Length: 2\r\n\r\n\xff\xfe",
    );
    assert_eq!(client.response(true).code(), "bad_json");
    let mut client = Client::connect(hub.address());
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(4000));
    let refused = client.post(&large);
    assert_eq!((refused.status, &*refused.code()), (413, "too_large"));
}

#[test]
fn failing_and_late_handlers_are_told_apart() {
    let hub = Hub::with(&[("realtime.handshake_timeout", "1.5")]);
    let mut kept = Vec::new();
    let _php = hub.php(MESSAGES, move |node, event| {
        let Event::Message { message, reply_to } = event else {
            panic!("{event:?}")
        };
        match message.event.as_str() {
            "fail" => node.reply(reply_to, Err(HandlerFailed)),
            "die" => drop(reply_to),
            "quiet" => node.reply(reply_to, Ok(None)),
            _ => kept.push(reply_to),
        }
    });
    let mut client = Client::connect(hub.address());
    let mut answer = |event: &str| client.post(&format!(r#"{{"channel":"a","event":"{event}"}}"#));
    assert_eq!(answer("quiet").json()["data"], value!(null));
    let failed = answer("fail");
    assert_eq!((failed.status, &*failed.code()), (502, "handler_failed"));
    let died = answer("die");
    assert_eq!((died.status, &*died.code()), (502, "handler_failed"));
    let late = answer("never");
    assert_eq!((late.status, &*late.code()), (504, "timeout"));
    assert_eq!(answer("quiet").status, 200);
}

#[test]
fn a_full_queue_says_busy_and_when_to_come_back() {
    let hub = Hub::with(&[
        ("realtime.queue_bytes", "64K"),
        ("realtime.timeout", "0.05"),
        ("realtime.handshake_timeout", "20"),
    ]);
    // Nobody takes anything out.
    hub.queue.set_interest(MESSAGES);
    let body = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(60_000));
    let mut first = Client::connect(hub.address());
    first.send(
        format!(
            "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    crate::harness::eventually("the first message", || hub.queue.len() == 1);
    let mut second = Client::connect(hub.address());
    let refused = second.post(&body);
    assert_eq!((refused.status, &*refused.code()), (429, "busy"));
    assert!(refused.header("Retry-After").is_some());
    // PHP comes back, and both go on.
    let _php = hub.php(MESSAGES, |node, event| {
        if let Event::Message { reply_to, .. } = event {
            node.reply(reply_to, Ok(Some(Payload::Json("1".into()))));
        }
    });
    hub.queue.signal();
    assert_eq!(first.response(true).status, 200);
    assert_eq!(second.post(&body).status, 200);
}

#[test]
fn without_a_connection_each_post_is_one() {
    let hub = Hub::start();
    let all = Interest {
        open: true,
        message: true,
        close: true,
        ..NONE
    };
    let (sender, seen) = std::sync::mpsc::channel();
    let _php = hub.php(all, move |node, event| {
        sender
            .send(match event {
                Event::Open { connection, answer } => {
                    answer.decide(true);
                    Seen::Open(connection.transport.as_str(), connection.path().to_owned())
                }
                Event::Message { message, reply_to } => {
                    assert!(matches!(reply_to, ReplyTo::Request(_)));
                    node.reply(reply_to, Ok(None));
                    Seen::Message(message.channel.to_string(), message.data)
                }
                Event::Close { code, reason, .. } => Seen::Close(code, reason),
                Event::Subscribe { .. } => panic!("nobody subscribes"),
            })
            .unwrap();
    });
    let mut client = Client::connect(hub.address());
    assert_eq!(client.post(r#"{"channel":"a","data":1}"#).status, 200);
    assert_eq!(seen.recv().unwrap(), Seen::Open("http", "/publish".into()));
    let data = Incoming::Json("1".into());
    assert_eq!(seen.recv().unwrap(), Seen::Message("a".into(), data));
    assert_eq!(seen.recv().unwrap(), Seen::Close(1000, String::new()));
}
