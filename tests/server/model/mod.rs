//! Subscribing, dropping, reading slowly, taking over and forgetting in any order while others publish, over every
//! transport and protocol that resumes, against a model: what a client sees of a channel is whole, in order and without
//! doubles, or it was told that it is not; in the native protocol with the oldest id that is left, in Mercure's with the update
//! after which it is whole. Half of the runs have their history on disk, and end and begin
//! the server with what is there.
//!
//! `MODEL_SEED=7 cargo test --test server -- model` repeats one run, with publishers that are as fast as they happen to be;
//! `MODEL_SEEDS=500` makes more of them.

mod client;
mod ledger;
mod reader;
mod updates;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use realtime::history::Repack;
use realtime::server::Server;
use tempfile::TempDir;

use self::client::{Client, Notes};
use self::ledger::{Bounds, Dice, Ledger};
use self::reader::{Kind, Reader};
use self::updates::Subscriber;
use crate::harness::{Stop, directory, eventually};
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
const STEPS: usize = 500;
/// With a disk, which each publisher waits for.
const STEPS_ON_DISK: usize = 250;
const READERS: usize = 11;
/// Of the Mercure protocol, by name and by template.
const SUBSCRIBERS: usize = 4;
const MERCURE_KEY: &str = "a-key-of-subscribers-that-is-long-enough";
/// Each of them takes its time: the old hub lets its clients go one after the other.
const TAKEOVERS: usize = 4;
const RESTARTS: usize = 4;

/// Says how to repeat a run that failed.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("to repeat it: MODEL_SEED={}", self.0);
        }
    }
}

fn site(bounds: Bounds, disk: Option<&TempDir>, dice: &mut Dice) -> Site {
    let mut settings = vec![
        ("realtime.drain", ["0", "0.05", "0.2"][dice.below(3)]),
        ("realtime.max_backlog", ["16K", "128K"][dice.below(2)]),
        ("realtime.rate_messages", "0"),
        ("realtime.mercure_anonymous", "1"),
        ("realtime.mercure_subscriber_key", MERCURE_KEY),
        ("realtime.pusher_app", "4711:a-key:a-secret-of-the-tests"),
    ];
    let text = |text: String| -> &'static str { text.leak() };
    let seconds = |ttl: Duration| ttl.as_secs_f64().to_string();
    let bounds = [
        ("realtime.history_ttl", bounds.ttl.map(seconds)),
        (
            "realtime.history_bytes",
            bounds.bytes.map(|n| n.to_string()),
        ),
        ("realtime.history_size", bounds.count.map(|n| n.to_string())),
    ];
    for (name, value) in bounds {
        settings.extend(value.map(|value| (name, text(value))));
    }
    if let Some(directory) = disk {
        let data = directory.path().join("data").display().to_string();
        settings.extend([
            ("realtime.history", "disk"),
            ("realtime.data_dir", text(data)),
            (
                "realtime.fsync",
                ["always", "interval", "never"][dice.below(3)],
            ),
        ]);
    }
    Site::new(&settings)
}

/// The hubs, one after the other.
struct Hubs {
    site: Site,
    now: Option<Server>,
    old: Vec<Server>,
    takeovers: usize,
    restarts: usize,
    /// That of the newest.
    repack: Repack,
}

impl Hubs {
    /// Has a step of its messages put into other memory, again and again.
    fn repack(&mut self) {
        if let Some(hub) = &self.now
            && !hub.node().repack(&mut self.repack)
        {
            self.repack = Repack::default();
        }
    }

    fn take_over(&mut self) {
        self.repack = Repack::default();
        let new = self.site.next();
        self.old.extend(self.now.replace(new));
        self.takeovers += 1;
    }

    /// Ends the server and begins another with what is on disk.
    fn restart(&mut self, readers: &mut [Box<dyn Client>], ledger: &Ledger) {
        let mut links = ledger.pause();
        self.await_old();
        self.repack = Repack::default();
        self.now = None;
        let hub = self.site.first();
        for link in &mut *links {
            *link = self.site.link();
        }
        for reader in readers {
            reader.follow(hub.address());
        }
        self.now = Some(hub);
        self.restarts += 1;
    }

    fn await_old(&mut self) {
        for hub in self.old.drain(..) {
            eventually("the end of an old hub", || hub.has_ended());
        }
    }
}

/// Runs one; returns how many resumes met with publishing.
fn wander(seed: u64) -> usize {
    let _tell = Tell(seed);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (name, bounds) = BOUNDS[seed as usize % BOUNDS.len()];
    let disk = (seed as usize / BOUNDS.len() % 2 == 1).then(directory);
    let site = site(bounds, disk.as_ref(), &mut dice);
    let hub = site.first();
    let address = hub.address().to_owned();
    let ledger = Ledger::new(bounds, (0..3).map(|_| site.link()).collect());
    let mut hubs = Hubs {
        site,
        now: Some(hub),
        old: Vec::new(),
        takeovers: 0,
        restarts: 0,
        repack: Repack::default(),
    };
    // Positions need an epoch.
    ledger.push_all();
    let mut readers: Vec<Box<dyn Client>> = Vec::new();
    for index in 0..READERS {
        let kind = Kind::ALL[index % Kind::ALL.len()];
        readers.push(Box::new(Reader::new(
            &address,
            kind,
            dice.one_in(2),
            &ledger,
        )));
    }
    for index in 0..SUBSCRIBERS {
        readers.push(Box::new(Subscriber::new(
            &address,
            index % 2 == 0,
            dice.one_in(2),
        )));
    }
    let others = Dice(dice.0.rotate_left(32));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| ledger.publish_on(others, &stop));
        let _stop = Stop(&stop);
        let steps = disk.as_ref().map_or(STEPS, |_| STEPS_ON_DISK);
        for _ in 0..steps {
            hubs.repack();
            match dice.below(100) {
                0..2 if hubs.takeovers < TAKEOVERS => hubs.take_over(),
                2..4 if disk.is_some() && hubs.restarts < RESTARTS => {
                    hubs.restart(&mut readers, &ledger);
                }
                34..36 => ledger.flood(&mut dice),
                36..38 if bounds.ttl.is_some() => {
                    let part = [0.3, 0.6, 1.1][dice.below(3)];
                    std::thread::sleep(bounds.ttl.unwrap_or_default().mul_f64(part));
                }
                38.. => ledger.publish(&mut dice),
                what => {
                    let reader = dice.below(readers.len());
                    step(what, &mut *readers[reader], &mut dice, &ledger);
                }
            }
        }
    });
    ledger.push_all();
    let mut ends: BTreeMap<u16, usize> = BTreeMap::new();
    let mut all = Notes::default();
    for reader in &mut readers {
        reader.return_to_all(&ledger);
        while reader.lacks(u64::MAX, &ledger.book()) {
            reader.read(usize::MAX / 2, &mut dice, &ledger);
        }
        let notes = reader.notes();
        for (code, count) in &notes.ends {
            *ends.entry(*code).or_default() += count;
        }
        all.read += notes.read;
        all.gaps += notes.gaps;
        all.lost += notes.lost;
        all.overlaps += notes.overlaps;
    }
    println!(
        "seed {seed}, history {} that forgets by {name}: {} published, {} read, {} takeovers, {} restarts, {} resumes met \
         with publishing, {} gaps told with {} lost, ends by code {ends:?}",
        if disk.is_some() {
            "on disk"
        } else {
            "in memory"
        },
        ledger.book().seq,
        all.read,
        hubs.takeovers,
        hubs.restarts,
        all.overlaps,
        all.gaps,
        all.lost,
    );
    if name == "nothing" {
        assert_eq!((all.gaps, all.lost), (0, 0), "nothing is forgotten");
    }
    drop(readers);
    hubs.await_old();
    all.overlaps
}

/// Something that a client does.
fn step(what: usize, reader: &mut dyn Client, dice: &mut Dice, ledger: &Ledger) {
    match what {
        0..6 => reader.reconnect(ledger),
        6..14 => {
            let channel = dice.channel();
            if !reader.subscribed().contains(&channel) {
                reader.subscribe(channel, ledger);
            }
        }
        14..17 if !reader.subscribed().is_empty() => {
            let subscribed = reader.subscribed();
            let channel = subscribed[dice.below(subscribed.len())];
            reader.unsubscribe(channel, ledger);
        }
        17..30 => {
            let most = [1, 5, usize::MAX / 2][dice.below(3)];
            reader.read(most, dice, ledger);
        }
        _ => reader.leave_waiting(ledger),
    }
}

#[test]
fn whatever_happens_each_channel_is_seen_whole_or_the_gap_is_told() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let overlaps: usize = match number("MODEL_SEED") {
        Some(seed) => wander(seed),
        None => (1..=number("MODEL_SEEDS").unwrap_or(8)).map(wander).sum(),
    };
    assert!(overlaps > 0, "nobody published while somebody resumed");
}
