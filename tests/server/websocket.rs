//! `/ws` and `/raw`.

use crate::client::{Client, masked};
use crate::harness::Hub;

#[test]
fn a_subscriber_gets_what_is_published() {
    let hub = Hub::start();
    let mut client = Client::websocket(hub.server.address(), "/ws");
    let welcome = client.frame();
    assert!(
        welcome
            .text()
            .starts_with(r#"{"type":"welcome","connection":""#),
        "{welcome:?}"
    );
    client.say(r#"{"type":"subscribe","channel":"news","ref":1}"#);
    let subscribed = client.frame();
    assert!(
        subscribed
            .text()
            .starts_with(r#"{"type":"subscribed","channel":"news","ref":1,"id":""#),
        "{subscribed:?}"
    );
    let id = hub.publish("news", r#"{"a":1}"#);
    assert_eq!(
        client.frame().text(),
        format!(
            r#"{{"type":"message","channel":"news","event":"message","id":"{id}","data":{{"a":1}}}}"#
        )
    );
}

#[test]
fn raw_frames_are_the_payload() {
    let hub = Hub::start();
    let mut client = Client::websocket(hub.server.address(), "/raw/news");
    while hub
        .server
        .node()
        .channels(&realtime::ids::Pattern::any())
        .unwrap()
        .is_empty()
    {}
    hub.publish("news", r#""plain""#);
    hub.publish("news", "[1,2]");
    assert_eq!(client.frame().text(), "plain");
    assert_eq!(client.frame().text(), "[1,2]");
    client.send(&masked(0x89, b"are you there"));
    let pong = client.frame();
    assert_eq!(
        (pong.opcode, &pong.payload[..]),
        (10, &b"are you there"[..])
    );
    client.send(&masked(0x88, &1000u16.to_be_bytes()));
    assert_eq!(client.frame().close(), (1000, ""));
    assert!(client.is_ended());
}

#[test]
fn the_end_of_the_server_is_said() {
    let hub = Hub::start();
    let mut client = Client::websocket(hub.server.address(), "/ws");
    client.frame();
    drop(hub.server);
    assert_eq!(client.frame().close(), (1001, "the server is going away"));
}
