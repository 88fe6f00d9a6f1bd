//! Publishing, subscribing, dropping and taking over in any order, against a model: each client must have seen each of its
//! channels whole, in order, and once.

use std::collections::HashMap;

use realtime::control::client::Client as Link;
use realtime::message::Publish;
use realtime::server::Server;
use serde_json::Value;

use crate::client::Client;
use crate::harness::{channel_named, eventually, message};
use crate::takeover::Site;

const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];
const END: i64 = i64::MAX;

/// Small and seeded, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A client as it should be written.
struct Reader {
    address: String,
    client: Client,
    subscribed: Vec<&'static str>,
    /// For each channel it ever subscribed to: up to where it has everything.
    cursors: HashMap<&'static str, String>,
    seen: HashMap<&'static str, Vec<i64>>,
    moved: usize,
}

impl Reader {
    fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            client: Client::native(address).0,
            subscribed: Vec::new(),
            cursors: HashMap::new(),
            seen: HashMap::new(),
            moved: 0,
        }
    }

    /// Reads up to a frame of this type, which is returned, or to the end of the connection.
    fn up_to(&mut self, kind: &str) -> Option<Value> {
        loop {
            let frame = self.client.frame();
            match frame.opcode {
                8 => {
                    assert_eq!(frame.close(), (1012, "reconnect"));
                    self.moved += 1;
                    return None;
                }
                9 => continue,
                _ => {}
            }
            let frame: Value = serde_json::from_str(frame.text()).unwrap();
            if frame["type"] == "message" {
                let channel = named(&frame);
                assert!(self.subscribed.contains(&channel), "{frame}");
                let cursor = frame.get("cursor").unwrap_or(&frame["id"]);
                let cursor = cursor.as_str().unwrap().to_owned();
                self.cursors.insert(channel, cursor);
                let data = frame["data"].as_i64().unwrap();
                self.seen.entry(channel).or_default().push(data);
            }
            if frame["type"] == kind {
                return Some(frame);
            }
            assert_ne!(frame["type"], "error", "{frame}");
        }
    }

    fn subscribe(&mut self, channel: &'static str) {
        let since = self.cursors.get(channel);
        let since = since.map_or(String::new(), |since| format!(r#","since":"{since}""#));
        let frame = format!(r#"{{"type":"subscribe","channel":"{channel}"{since}}}"#);
        self.client.say(&frame);
        self.subscribed.push(channel);
        match self.up_to("subscribed") {
            Some(answer) => {
                assert_ne!(answer["recovered"], false, "{answer}");
                let id = answer["id"].as_str().unwrap().to_owned();
                self.cursors.entry(channel).or_insert(id);
            }
            None => self.reconnect(),
        }
    }

    fn unsubscribe(&mut self, channel: &'static str) {
        let frame = format!(r#"{{"type":"unsubscribe","channel":"{channel}"}}"#);
        self.client.say(&frame);
        let moved = self.up_to("unsubscribed").is_none();
        self.subscribed.retain(|subscribed| *subscribed != channel);
        if moved {
            self.reconnect();
        }
    }

    fn reconnect(&mut self) {
        self.client = Client::native(&self.address).0;
        for channel in std::mem::take(&mut self.subscribed) {
            self.subscribe(channel);
        }
    }

    /// Reads what has come.
    fn catch_up(&mut self) {
        self.client.say(r#"{"type":"ping"}"#);
        if self.up_to("pong").is_none() {
            self.reconnect();
        }
    }

    fn read_to_the_end(&mut self) {
        for channel in CHANNELS {
            if self.cursors.contains_key(channel) && !self.subscribed.contains(&channel) {
                self.subscribe(channel);
            }
        }
        for channel in CHANNELS {
            while self.cursors.contains_key(channel)
                && self.seen.get(channel).and_then(|seen| seen.last()) != Some(&END)
            {
                if self.up_to("message").is_none() {
                    self.reconnect();
                }
            }
        }
    }
}

fn named(frame: &Value) -> &'static str {
    CHANNELS
        .into_iter()
        .find(|name| frame["channel"] == *name)
        .unwrap()
}

/// What was published, and by whose id.
struct Model {
    next: HashMap<&'static str, i64>,
    ids: usize,
}

impl Model {
    fn publish(&mut self, dice: &mut Dice, link: &mut Link) {
        let channel = CHANNELS[dice.below(CHANNELS.len())];
        let next = self.next.entry(channel).or_default();
        let mut publish = message(channel, &next.to_string());
        *next += 1;
        if dice.below(3) == 0 {
            self.ids += 1;
            publish.id = Some(format!("own-{}", self.ids).into());
            link.publish(&publish).unwrap();
        }
        // With an id of its own it counts once, whichever hub gets it.
        link.publish(&publish).unwrap();
    }
}

fn wander(seed: u64, steps: usize) {
    let mut dice = Dice(seed);
    let drains = ["0", "0.05", "0.2"];
    let site = Site::new(&[("realtime.drain", drains[dice.below(3)])]);
    let mut hub = site.first();
    let mut old: Vec<Server> = Vec::new();
    let address = hub.address().to_owned();
    let mut links: Vec<Link> = (0..3).map(|_| site.link()).collect();
    let mut readers: Vec<Reader> = (0..5).map(|_| Reader::new(&address)).collect();
    let mut model = Model {
        next: HashMap::new(),
        ids: 0,
    };
    for _ in 0..steps {
        let reader = dice.below(readers.len());
        let reader = &mut readers[reader];
        match dice.below(100) {
            0..2 => old.push(std::mem::replace(&mut hub, site.next())),
            2..5 => reader.reconnect(),
            5..12 => {
                let channel = CHANNELS[dice.below(CHANNELS.len())];
                if !reader.subscribed.contains(&channel) {
                    reader.subscribe(channel);
                }
            }
            12..15 if !reader.subscribed.is_empty() => {
                let channel = reader.subscribed[dice.below(reader.subscribed.len())];
                reader.unsubscribe(channel);
            }
            15..30 => reader.catch_up(),
            _ => {
                let link = dice.below(links.len());
                model.publish(&mut dice, &mut links[link]);
            }
        }
    }
    let end = Publish {
        channels: CHANNELS.map(channel_named).into(),
        ..message("a", &END.to_string())
    };
    links[0].publish(&end).unwrap();
    let (mut moved, mut read) = (0, 0);
    for (number, mut reader) in readers.into_iter().enumerate() {
        reader.read_to_the_end();
        moved += reader.moved;
        for (channel, mut seen) in reader.seen {
            assert_eq!(seen.pop(), Some(END));
            read += seen.len();
            let next = model.next.get(channel).copied().unwrap_or(0);
            let from = next - seen.len() as i64;
            let whole: Vec<i64> = (from..next).collect();
            assert_eq!(seen, whole, "seed {seed}, reader {number}, {channel}");
        }
    }
    println!(
        "seed {seed}: {} takeovers, {moved} told to reconnect, {read} messages read",
        old.len()
    );
    for hub in old {
        eventually("the end of an old hub", || hub.has_ended());
    }
}

#[test]
fn whatever_happens_each_channel_is_seen_whole() {
    for seed in 1..=8 {
        wander(seed * 0x9e37_79b9, 400);
    }
}
