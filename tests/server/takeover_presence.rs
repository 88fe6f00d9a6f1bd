//! Who is present stays so while one hub takes over from another: nobody leaves and joins by it.

use realtime::control::client::Client as Link;
use realtime::node::MemberSummary;
use serde_json::json as value;

use crate::client::{Client, handshake};
use crate::harness::{channel_named, eventually, message};
use crate::issuer::{SETTING, token};
use crate::takeover::Site;

const ROOM: &str = "presence-room";

fn enter(address: &str, user: &str) -> Client {
    let token = token(value!({"sub": user, "channels": "presence-*", "info": [user]}));
    let mut client = Client::connect(address);
    let offer = format!("Sec-WebSocket-Protocol: realtime.v1, realtime.token.{token}\r\n");
    client.send(handshake("/ws", &offer).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.json()["type"], "welcome");
    client
}

fn subscribe(client: &mut Client) -> Vec<String> {
    let answer = client.subscribe(ROOM, None);
    let members = answer["members"].as_array().unwrap().iter();
    members
        .map(|member| format!("{} {}", member["user"].as_str().unwrap(), member["info"]))
        .collect()
}

fn members(link: &mut Link) -> Vec<String> {
    let text = |m: &MemberSummary| format!("{} {}", m.user, m.connections);
    let members = link.members(&channel_named(ROOM)).unwrap();
    members.iter().map(text).collect()
}

/// The next frame in short; of the end of the connection, its code.
fn next(client: &mut Client) -> String {
    let frame = client.frame();
    if frame.opcode == 8 {
        return frame.close().0.to_string();
    }
    let frame: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
    let what = frame["type"].as_str().unwrap();
    match what {
        "message" => format!("{what} {}", frame["data"]),
        _ => format!("{what} {}", frame["user"].as_str().unwrap_or_default()),
    }
}

#[test]
fn nobody_leaves_and_nobody_joins() {
    let settings = [
        SETTING,
        ("realtime.drain", "0.3"),
        ("realtime.presence_grace", "600"),
    ];
    let site = Site::new(&settings);
    let old = site.first();
    let address = old.address().to_owned();
    let mut link = site.link();
    let mut clients = ["ada", "bob", "eve"].map(|user| enter(&address, user));
    for client in &mut clients {
        subscribe(client);
    }
    // Whose connection is just being lost is awaited by the next hub as well.
    drop(enter(&address, "joe"));
    let mut joe = enter(&address, "joe");
    subscribe(&mut joe);
    drop(joe);
    eventually("the end of joe's", || {
        members(&mut link) == ["ada 1", "bob 1", "eve 1", "joe 0"]
    });
    let new = site.next();
    let awaited = ["ada", "bob", "eve", "joe"].map(|user| format!("{user} [\"{user}\"]"));
    let names = |members: Vec<String>| -> Vec<String> {
        let name = |member: &String| member.split(' ').next().unwrap().to_owned();
        members.iter().map(name).collect()
    };
    assert_eq!(names(members(&mut link)), ["ada", "bob", "eve", "joe"]);
    // They are told to move, and do: all that any of them hears is what was published.
    let mut moved = Vec::new();
    for (client, user) in clients.iter_mut().zip(["ada", "bob", "eve"]) {
        loop {
            let word = next(client);
            if word == "1012" {
                break;
            }
            // Those that came before it, when it had just come.
            assert!(word.starts_with("join "), "{user}: {word}");
        }
        let mut fresh = enter(&address, user);
        assert_eq!(subscribe(&mut fresh), awaited);
        moved.push(fresh);
    }
    link.publish(&message(ROOM, "1")).unwrap();
    for client in &mut moved {
        assert_eq!(next(client), "message 1");
    }
    eventually("the end of the old hub", || old.has_ended());
    // What the old hub still had ends for the new one when it hears of that.
    eventually("those who are left", || {
        members(&mut link) == ["ada 1", "bob 1", "eve 1", "joe 0"]
    });
    drop(new);
}

#[test]
fn who_comes_and_goes_meanwhile_is_told_to_both() {
    let settings = [
        SETTING,
        ("realtime.drain", "300"),
        ("realtime.presence_grace", "0"),
    ];
    let site = Site::new(&settings);
    let old = site.first();
    let address = old.address().to_owned();
    let mut link = site.link();
    let mut there = enter(&address, "ada");
    let mut late = enter(&address, "bob");
    let mut watcher = enter(&address, "watcher");
    subscribe(&mut there);
    subscribe(&mut watcher);
    assert_eq!(next(&mut there), "join watcher");
    // Held back, so that the drain of the old hub does not close them before this test is over.
    let new = site.next();
    let mut here = enter(&address, "eve");
    let awaited = ["ada [\"ada\"]", "eve [\"eve\"]", "watcher [\"watcher\"]"];
    assert_eq!(subscribe(&mut here), awaited);
    // Of the new hub's, at the old one.
    assert_eq!(next(&mut there), "join eve");
    // Of the old one's, at the new one, and to itself not.
    let known = [
        "ada [\"ada\"]",
        "bob [\"bob\"]",
        "eve [\"eve\"]",
        "watcher [\"watcher\"]",
    ];
    assert_eq!(subscribe(&mut late), known);
    assert_eq!(next(&mut here), "join bob");
    assert_eq!(next(&mut there), "join bob");
    eventually("all of them", || {
        members(&mut link) == ["ada 1", "bob 1", "eve 1", "watcher 1"]
    });
    late.say(&value!({"type": "unsubscribe", "channel": ROOM}).to_string());
    assert_eq!(next(&mut late), "unsubscribed ");
    assert_eq!(next(&mut here), "leave bob");
    assert_eq!(next(&mut there), "leave bob");
    drop(here);
    assert_eq!(next(&mut there), "leave eve");
    assert_eq!(subscribe(&mut late), [known[0], known[1], known[3]]);
    assert_eq!(next(&mut there), "join bob");
    eventually("those who are left", || {
        members(&mut link) == ["ada 1", "bob 1", "watcher 1"]
    });
    drop((new, old));
}

#[test]
fn a_takeover_that_does_not_happen_changes_nothing() {
    let settings = [SETTING, ("realtime.presence_grace", "0")];
    let site = Site::new(&settings);
    let hub = site.first();
    let mut ada = enter(hub.address(), "ada");
    subscribe(&mut ada);
    // What was left to the other hub is said after all.
    let node = hub.node();
    let taken = realtime::server::takeover::take(&site.config()).unwrap();
    drop(taken);
    let mut bob = enter(hub.address(), "bob");
    subscribe(&mut bob);
    assert_eq!(next(&mut ada), "join bob");
    assert_eq!(node.members(&channel_named(ROOM)).unwrap().len(), 2);
}
