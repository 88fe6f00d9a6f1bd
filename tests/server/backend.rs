//! What PHP decides: verdicts on connections and subscriptions, messages, a queue that is full, and ends.

use std::sync::mpsc::{Receiver, channel};

use realtime::backend::{Answer, Event, Interest};
use realtime::message::{EventName, Incoming};

use crate::client::{Client, handshake, masked};
use crate::harness::{Hub, MESSAGES, NONE, Php, Seen, eventually, json};

const OPEN: Interest = Interest { open: true, ..NONE };
const SUBSCRIBE: Interest = Interest {
    subscribe: true,
    ..NONE
};
const CLOSE: Interest = Interest {
    close: true,
    ..NONE
};

fn upgrade(hub: &Hub, path: &str) -> Client {
    let mut client = Client::connect(hub.address());
    client.send(handshake(path, "").as_bytes());
    client
}

/// A PHP that hands each verdict to the test.
fn undecided(hub: &Hub, interest: Interest) -> (Php, Receiver<Answer>) {
    let (sender, receiver) = channel();
    let php = hub.php(interest, move |_, event| match event {
        Event::Open { answer, .. } | Event::Subscribe { answer, .. } => {
            sender.send(answer).unwrap();
        }
        other => panic!("{other:?}"),
    });
    (php, receiver)
}

#[test]
fn a_refused_connection_is_forbidden_and_has_no_end() {
    let hub = Hub::start();
    let both = Interest {
        close: true,
        ..OPEN
    };
    let (sender, closed) = channel();
    let php = hub.php(both, move |_, event| match event {
        Event::Open { connection, answer } => answer.decide(connection.query().contains("yes")),
        Event::Close { connection, .. } => sender.send(connection.path().to_owned()).unwrap(),
        other => panic!("{other:?}"),
    });
    for path in ["/ws?no", "/raw/a?no"] {
        let refused = upgrade(&hub, path).response(true);
        assert_eq!(
            (refused.status, &*refused.code()),
            (403, "forbidden"),
            "{path}"
        );
    }
    let mut http = Client::connect(hub.address());
    for path in [
        "/sse?channel=a",
        "/stream?channel=a",
        "/poll?channel=a&timeout=0",
    ] {
        let refused = http.get(path);
        assert_eq!(
            (refused.status, &*refused.code()),
            (403, "forbidden"),
            "{path}"
        );
    }
    assert_eq!(http.get("/poll?channel=a&timeout=0&yes").status, 200);
    assert!(upgrade(&hub, "/ws?yes").head().starts_with("HTTP/1.1 101 "));
    assert_eq!(closed.recv().unwrap(), "/poll");
    assert_eq!(closed.recv().unwrap(), "/ws");
    drop(php);
    assert!(
        closed.try_recv().is_err(),
        "who was refused never was there"
    );
}

#[test]
fn a_verdict_that_does_not_come_is_a_time_out() {
    let hub = Hub::with(&[("realtime.handshake_timeout", "1.5")]);
    let (_php, answers) = undecided(&hub, OPEN);
    let late = upgrade(&hub, "/ws").response(true);
    assert_eq!((late.status, &*late.code()), (504, "timeout"));
    answers.recv().unwrap().decide(true);
    assert_eq!(hub.node().connection_count(), 0);
    // A handler that ends without a verdict.
    let mut client = upgrade(&hub, "/ws");
    drop(answers.recv().unwrap());
    let gone = client.response(true);
    assert_eq!((gone.status, &*gone.code()), (503, "gone"));
}

#[test]
fn on_subscribe_opens_and_closes_channels() {
    let hub = Hub::start();
    let _php = hub.php(SUBSCRIBE, |_, event| match event {
        Event::Subscribe {
            channel, answer, ..
        } => answer.decide(channel.as_str().ends_with("open")),
        other => panic!("{other:?}"),
    });
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("private-open", None);
    for channel in ["private-shut", "shut"] {
        let error = client.ask(&format!(
            r#"{{"type":"subscribe","channel":"{channel}","ref":9}}"#
        ));
        assert_eq!(
            (&error["code"], &error["ref"]),
            (&"forbidden".into(), &9.into())
        );
        assert_eq!(error["channel"], channel);
        let refused = upgrade(&hub, &format!("/raw/{channel}")).response(true);
        assert_eq!(refused.status, 403);
        let query = format!("channel=open&channel={channel}");
        let mut http = Client::connect(hub.address());
        for path in ["sse", "stream", "poll"] {
            assert_eq!(http.get(&format!("/{path}?{query}")).status, 403, "{path}");
        }
    }
    hub.await_subscribers("open", 0);
    hub.publish("private-open", "1");
    assert_eq!(client.json()["data"], 1);
    assert!(
        upgrade(&hub, "/raw/private-open")
            .head()
            .starts_with("HTTP/1.1 101 ")
    );
}

#[test]
fn while_a_verdict_is_awaited_messages_flow() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("a", None);
    let (_php, answers) = undecided(&hub, SUBSCRIBE);
    // In one packet: what is answered before the question does not wait for the verdict.
    let mut packet = masked(0x81, br#"{"type":"ping"}"#);
    packet.extend(masked(0x81, br#"{"type":"subscribe","channel":"b"}"#));
    client.send(&packet);
    let answer = answers.recv().unwrap();
    assert_eq!(client.json()["type"], "pong");
    hub.publish("a", "1");
    assert_eq!(client.json()["data"], 1);
    hub.publish("b", "2");
    answer.decide(true);
    assert_eq!(client.json()["channel"], "b");
    hub.publish("b", "3");
    assert_eq!(
        client.json()["data"],
        3,
        "what came before the subscription is not its"
    );
}

#[test]
fn a_client_that_leaves_before_the_verdict_is_forgotten() {
    let hub = Hub::start();
    let (_php, answers) = undecided(&hub, SUBSCRIBE);
    let (mut client, welcome) = Client::native(hub.address());
    client.say(r#"{"type":"subscribe","channel":"b"}"#);
    let answer = answers.recv().unwrap();
    hub.node().close(welcome.id(), 1000, String::new()).unwrap();
    assert_eq!(client.frame().close().0, 1000);
    drop(client);
    answer.decide(true);
    eventually("the end", || hub.node().connection_count() == 0);
    hub.await_subscribers("b", 0);
}

#[test]
fn a_clients_messages_reach_php_in_their_order() {
    const CLIENTS: usize = 4;
    const EACH: usize = 300;
    let hub = Hub::start();
    let (_php, seen) = hub.recording(MESSAGES);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let hub = &hub;
            scope.spawn(move || {
                let (mut client, _) = Client::native(hub.address());
                for n in 0..EACH {
                    client.say(&format!(
                        r#"{{"type":"publish","channel":"c{number}","data":{n}}}"#
                    ));
                }
                // The connection stays until all of it was read.
                assert_eq!(client.ask(r#"{"type":"ping"}"#)["type"], "pong");
            });
        }
        let mut next = [0; CLIENTS];
        for _ in 0..CLIENTS * EACH {
            let Seen::Message(channel, Incoming::Json(data)) = seen.recv().unwrap() else {
                panic!("a message")
            };
            let number: usize = channel[1..].parse().unwrap();
            assert_eq!(data, next[number].to_string());
            next[number] += 1;
        }
    });
}

#[test]
fn a_full_queue_makes_clients_wait_and_then_says_busy() {
    let hub = Hub::with(&[
        ("realtime.queue_bytes", "64K"),
        ("realtime.timeout", "0.05"),
    ]);
    hub.queue.set_interest(MESSAGES);
    let (mut client, _) = Client::native(hub.address());
    let text = "x".repeat(40_000);
    let publish = format!(r#"{{"type":"publish","channel":"a","data":"{text}","ref":1}}"#);
    client.say(&publish);
    let error = client.ask(&publish);
    assert_eq!((&error["code"], &error["ref"]), (&"busy".into(), &1.into()));
    let mut raw = Client::websocket(hub.address(), "/raw/a");
    raw.say(&text);
    assert_eq!(raw.frame().close().0, 1013);
    // PHP takes the one that waits, and there is room again.
    let (_php, seen) = hub.recording(MESSAGES);
    for _ in 0..2 {
        let Seen::Message(_, data) = seen.recv().unwrap() else {
            panic!("a message")
        };
        assert_eq!(data.len(), 40_002);
        client.say(&publish);
    }
}

#[test]
fn waiting_for_room_ends_when_there_is_some() {
    let hub = Hub::with(&[("realtime.queue_bytes", "64K"), ("realtime.timeout", "20")]);
    hub.queue.set_interest(MESSAGES);
    let (mut client, _) = Client::native(hub.address());
    let text = "x".repeat(40_000);
    for _ in 0..3 {
        client.say(&format!(
            r#"{{"type":"publish","channel":"a","data":"{text}"}}"#
        ));
    }
    eventually("the first message", || hub.queue.len() == 1);
    let (_php, seen) = hub.recording(MESSAGES);
    for _ in 0..3 {
        assert!(matches!(seen.recv().unwrap(), Seen::Message(..)));
    }
    assert_eq!(client.ask(r#"{"type":"ping"}"#)["type"], "pong");
}

#[test]
fn php_that_has_ended_is_gone() {
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    let mut raw = Client::websocket(hub.address(), "/raw/a");
    hub.queue.set_interest(Interest {
        message: true,
        ..OPEN
    });
    hub.queue.shut_down();
    let error = client.ask(r#"{"type":"publish","channel":"a","ref":1}"#);
    assert_eq!(error["code"], "gone");
    raw.say("x");
    assert_eq!(raw.frame().close().0, 1001);
    let refused = upgrade(&hub, "/ws").response(true);
    assert_eq!((refused.status, &*refused.code()), (503, "gone"));
}

#[test]
fn every_end_is_told_with_its_code() {
    let hub = Hub::with(&[("realtime.max_message_size", "1K")]);
    let (_php, seen) = hub.recording(CLOSE);
    let (mut client, _) = Client::native(hub.address());
    client.send(&masked(0x88, b"\x0f\xa1done"));
    assert_eq!(seen.recv().unwrap(), Seen::Close(4001, "done".into()));
    let (mut client, _) = Client::native(hub.address());
    client.send(&masked(0x88, b""));
    assert_eq!(seen.recv().unwrap(), Seen::Close(1005, String::new()));
    let (client, _) = Client::native(hub.address());
    drop(client);
    assert_eq!(seen.recv().unwrap(), Seen::Close(1006, String::new()));
    let (mut client, _) = Client::native(hub.address());
    client.send(&masked(0x83, b""));
    assert_eq!(client.frame().close().0, 1002);
    assert!(matches!(seen.recv().unwrap(), Seen::Close(1002, _)));
    let (mut client, _) = Client::native(hub.address());
    client.send(&masked(0x82, &[0; 1025]));
    assert_eq!(client.frame().close().0, 1009);
    assert!(matches!(seen.recv().unwrap(), Seen::Close(1009, _)));
    let (mut client, welcome) = Client::native(hub.address());
    hub.node().close(welcome.id(), 4002, "out".into()).unwrap();
    assert_eq!(client.frame().close(), (4002, "out"));
    client.send(&masked(0x88, &4002u16.to_be_bytes()));
    assert_eq!(seen.recv().unwrap(), Seen::Close(4002, "out".into()));
    drop(Client::stream(hub.address(), "/sse?channel=a", ""));
    assert_eq!(seen.recv().unwrap(), Seen::Close(1001, String::new()));
    Client::connect(hub.address()).get("/poll?channel=a&timeout=0");
    assert_eq!(seen.recv().unwrap(), Seen::Close(1000, String::new()));
    let (mut client, _) = Client::native(hub.address());
    let stopping = std::thread::spawn(move || drop(hub));
    assert_eq!(client.frame().close().0, 1001);
    drop(client);
    assert!(matches!(seen.recv().unwrap(), Seen::Close(1001, _)));
    stopping.join().unwrap();
}

#[test]
fn ends_that_php_does_not_take_stop_new_connections_and_none_is_lost() {
    let hub = Hub::with(&[("realtime.queue_bytes", "64K")]);
    hub.queue.set_interest(CLOSE);
    let cookie = format!("Cookie: {}\r\n", "x".repeat(8000));
    let mut ended = 0;
    loop {
        let mut client = Client::connect(hub.address());
        client.send(handshake("/ws", &cookie).as_bytes());
        let answer = client.response(false);
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 101);
        drop(client);
        ended += 1;
        eventually("the end", || hub.queue.len() == ended);
        assert!(ended < 20, "heads of 8 KB each, in a queue of 64 KB");
    }
    let (_php, seen) = hub.recording(CLOSE);
    for _ in 0..ended {
        assert_eq!(seen.recv().unwrap(), Seen::Close(1006, String::new()));
    }
    Client::native(hub.address());
}

#[test]
fn a_handler_may_send_and_close_before_it_answers() {
    let hub = Hub::start();
    let _php = hub.php(MESSAGES, |node, event| {
        let Event::Message { message, reply_to } = event else {
            panic!("{event:?}")
        };
        let id = message.from.id;
        node.send(id, json("1"), EventName::Message).unwrap();
        node.reply(reply_to, Ok(Some(json("2"))));
        node.close(id, 4003, "done".into()).unwrap();
    });
    let (mut client, _) = Client::native(hub.address());
    assert_eq!(client.ask(r#"{"type":"publish","channel":"a"}"#)["data"], 1);
    assert_eq!(client.json()["data"], 2);
    assert_eq!(client.frame().close(), (4003, "done"));
}
