//! Publishing, subscribing, dropping, reading slowly, taking over and forgetting in any order, over every transport that
//! resumes, against a model: what a client sees of a channel is whole, in order and without doubles, or it was told
//! that it is not, with the oldest id that is left.
//!
//! `MODEL_SEED=7 cargo test --test server -- model` repeats one run; `MODEL_SEEDS=500` makes more of them.

mod ledger;
mod reader;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use realtime::control::client::Client as Link;
use realtime::server::Server;

use self::ledger::{Bounds, CHANNELS, Dice, Ledger};
use self::reader::{Kind, Reader};
use crate::harness::eventually;
use crate::takeover::Site;

/// What history forgets by.
const BOUNDS: [(&str, Bounds); 4] = [
    (
        "nothing",
        Bounds {
            count: None,
            ttl: None,
            bytes: None,
        },
    ),
    (
        "count",
        Bounds {
            count: Some(12),
            ttl: None,
            bytes: None,
        },
    ),
    (
        "age",
        Bounds {
            count: None,
            ttl: Some(Duration::from_millis(250)),
            bytes: None,
        },
    ),
    (
        "bytes",
        Bounds {
            count: None,
            ttl: None,
            bytes: Some(60_000),
        },
    ),
];
const STEPS: usize = 400;
const READERS: usize = 9;
/// Each of them takes its time: the old hub lets its clients go one after the other.
const TAKEOVERS: usize = 4;

/// Says how to repeat a run that failed.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("to repeat it: MODEL_SEED={}", self.0);
        }
    }
}

fn site(bounds: Bounds, dice: &mut Dice) -> Site {
    let mut settings = vec![
        ("realtime.drain", ["0", "0.05", "0.2"][dice.below(3)]),
        ("realtime.max_backlog", ["16K", "128K"][dice.below(2)]),
        ("realtime.rate_messages", "0"),
    ];
    let text = |text: String| -> &'static str { text.leak() };
    settings.extend(
        bounds
            .ttl
            .map(|ttl| ("realtime.history_ttl", text(ttl.as_secs_f64().to_string()))),
    );
    settings.extend(
        bounds
            .bytes
            .map(|bytes| ("realtime.history_bytes", text(bytes.to_string()))),
    );
    settings.extend(
        bounds
            .count
            .map(|count| ("realtime.history_size", text(count.to_string()))),
    );
    Site::new(&settings)
}

fn wander(seed: u64) {
    let _tell = Tell(seed);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (name, bounds) = BOUNDS[seed as usize % BOUNDS.len()];
    let site = site(bounds, &mut dice);
    let mut hub = site.first();
    let mut old: Vec<Server> = Vec::new();
    let address = hub.address().to_owned();
    let mut links: Vec<Link> = (0..3).map(|_| site.link()).collect();
    let mut ledger = Ledger::new(bounds);
    // Positions need an epoch.
    ledger.push_all(&mut links[0]);
    let mut readers: Vec<Reader> = (0..READERS)
        .map(|index| {
            let kind = Kind::ALL[index % Kind::ALL.len()];
            Reader::new(&address, kind, dice.one_in(2), &ledger)
        })
        .collect();
    for _ in 0..STEPS {
        let reader = dice.below(readers.len());
        let reader = &mut readers[reader];
        let link = &mut links[dice.below(3)];
        match dice.below(100) {
            0..2 if old.len() < TAKEOVERS => old.push(std::mem::replace(&mut hub, site.next())),
            2..6 => reader.reconnect(&ledger),
            6..14 => {
                let channel = dice.channel();
                if !reader.subscribed.contains(&channel) {
                    reader.subscribe(channel, &ledger);
                }
            }
            14..17 if !reader.subscribed.is_empty() => {
                let channel = reader.subscribed[dice.below(reader.subscribed.len())];
                reader.unsubscribe(channel, &ledger);
            }
            17..30 => {
                let most = [1, 5, usize::MAX / 2][dice.below(3)];
                reader.read(most, &mut dice, &ledger);
            }
            30..34 => reader.leave_waiting(&ledger),
            34..36 => ledger.flood(&mut dice, link),
            36..38 if bounds.ttl.is_some() => {
                let part = [0.3, 0.6, 1.1][dice.below(3)];
                std::thread::sleep(bounds.ttl.unwrap_or_default().mul_f64(part));
            }
            _ => ledger.publish(&mut dice, link),
        }
    }
    ledger.push_all(&mut links[0]);
    let mut ends: BTreeMap<u16, usize> = BTreeMap::new();
    let (mut read, mut gaps, mut lost) = (0, 0, 0);
    for reader in &mut readers {
        for channel in CHANNELS {
            if reader.has_joined(channel) && !reader.subscribed.contains(&channel) {
                reader.subscribe(channel, &ledger);
            }
        }
        while reader.lacks(&ledger) {
            reader.read(usize::MAX / 2, &mut dice, &ledger);
        }
        for (code, count) in &reader.notes.ends {
            *ends.entry(*code).or_default() += count;
        }
        read += reader.notes.read;
        gaps += reader.notes.gaps;
        lost += reader.notes.lost;
    }
    println!(
        "seed {seed}, history forgets by {name}: {} published, {read} read, {} takeovers, {gaps} gaps told with {lost} lost, \
         ends by code {ends:?}",
        ledger.seq,
        old.len()
    );
    if bounds
        .count
        .or(bounds.bytes)
        .or(bounds.ttl.map(|_| 0))
        .is_none()
    {
        assert_eq!((gaps, lost), (0, 0), "nothing is forgotten");
    }
    drop(readers);
    for hub in old {
        eventually("the end of an old hub", || hub.has_ended());
    }
}

#[test]
fn whatever_happens_each_channel_is_seen_whole_or_the_gap_is_told() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("MODEL_SEED") {
        Some(seed) => wander(seed),
        None => (1..=number("MODEL_SEEDS").unwrap_or(8)).for_each(wander),
    }
}
