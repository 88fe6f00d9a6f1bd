//! What a broker does with what is published and asked for.

use std::time::Duration;

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::*;
use crate::broker::recall::STEP;
use crate::history::{Past, wire_note};
use crate::message::{EventName, Payload};
use crate::selector::Selector;

#[derive(Default)]
struct Seen(Mutex<Vec<u64>>);

impl BrokerEvents for Seen {
    fn publication(&self, publication: Arc<Publication>) {
        self.0.lock().unwrap().push(publication.position.seq);
    }
}

fn broker() -> Memory<Seen> {
    let limits = Limits {
        count: 3,
        age: Duration::from_secs(60),
        bytes: 1 << 20,
    };
    let cache = Cache::new(Vec::new(), 1 << 20);
    Memory::new(limits, cache, 7, Seen::default())
}

fn from(id: Option<&str>) -> Since<'_> {
    Since { id, except: &[] }
}

fn publish(channels: &[&str], id: Option<&str>) -> Publish {
    Publish {
        channels: channels
            .iter()
            .map(|c| Channel::parse(c).unwrap())
            .collect(),
        payload: Payload::Json(Bytes::from_static(b"1")),
        event: EventName::Message,
        except: None,
        id: id.map(Into::into),
        store: true,
        terms: None,
    }
}

impl Memory<Seen> {
    fn id_of(&self, publish: Publish) -> String {
        match self.publish(publish) {
            Published::Done { id, receipt: None } => id,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_id_is_accepted_once_a_channel() {
    let broker = broker();
    assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
    assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
    assert_eq!(broker.id_of(publish(&["a", "b"], Some("x"))), "x");
    assert_eq!(*broker.events.0.lock().unwrap(), [1, 2]);
}

#[test]
fn an_own_id_of_several_channels_skips_none() {
    let broker = broker();
    broker.id_of(publish(&["a", "b"], Some("x")));
    let channels = ["b", "a"].map(|name| Channel::parse(name).unwrap());
    let caught = broker.catch_up(&channels, from(Some("x")));
    let missed = caught.missed.iter().map(|m| m.publications.len());
    assert_eq!(missed.collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn since_takes_positions_and_own_ids() {
    let broker = broker();
    let a = [Channel::parse("a").unwrap()];
    assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
    assert_eq!(broker.id_of(publish(&["a"], None)), "00000007-2");
    for since in ["x", "00000007-1"] {
        let caught = broker.catch_up(&a, from(Some(since)));
        assert_eq!(caught.missed[0].publications.len(), 1, "{since}");
        assert!(caught.missed[0].recovered, "{since}");
    }
    for unknown in ["y", "00000008-1", "00000007-9", ""] {
        let caught = broker.catch_up(&a, from(Some(unknown)));
        assert!(!caught.missed[0].recovered, "{unknown}");
        assert_eq!(caught.missed[0].publications.len(), 2, "{unknown}");
    }
}

#[test]
fn publishers_do_not_wait_for_a_long_walk() {
    let broker = Arc::new(broker());
    for channel in 0..10_000 {
        let name = format!("https://shop.example/items/{channel}/news");
        broker.id_of(publish(&[&name], None));
    }
    let patterns: Vec<_> = (0..80)
        .map(|n| Selector::parse(&format!("{{+all}}/items/{{id}}/{n}{{rest}}")).unwrap())
        .collect();
    let is_done = Arc::new(AtomicBool::new(false));
    let walking = std::thread::spawn({
        let (broker, is_done) = (broker.clone(), is_done.clone());
        move || {
            let wanted = Wanted {
                channels: &[],
                patterns: &patterns,
            };
            let begin = Instant::now();
            let recall = walk(&broker, "earliest", wanted, || {});
            is_done.store(true, Ordering::Relaxed);
            (begin.elapsed(), recall.into_publications().len())
        }
    });
    let (mut published, mut longest) = (0, Duration::ZERO);
    while !is_done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        broker.id_of(publish(&["live"], None));
        longest = longest.max(begin.elapsed());
        published += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let (took, found) = walking.join().unwrap();
    println!("{published} published, the longest in {longest:?}, while a walk took {took:?}");
    assert_eq!(found, 0);
    // With the history held all along it is one or two.
    assert!(published > 20, "{published}");
}

/// Looks up what is wanted, and does something else between any two steps.
fn walk(
    broker: &Memory<Seen>,
    since: &str,
    wanted: Wanted<'_>,
    mut between: impl FnMut(),
) -> Recall {
    let mut recall = Recall::new(since);
    while broker.recall(wanted, &mut recall) {
        while !recall.sift(wanted) {}
        between();
    }
    recall
}

#[test]
fn a_walk_misses_nothing_that_is_published_meanwhile() {
    for since in ["earliest", "00000007-100", "own"] {
        let broker = broker();
        for seq in 1..=1000 {
            let id = (seq == 100).then_some("own");
            broker.id_of(publish(&[&format!("t/{}", seq % 400)], id));
        }
        let patterns = [Selector::parse("t/{n}").unwrap()];
        let wanted = Wanted {
            channels: &[],
            patterns: &patterns,
        };
        let mut n = 1000;
        let mut steps = 0;
        let mut recall = walk(&broker, since, wanted, || {
            steps += 1;
            // New channels, and messages that push out others.
            for channel in [n, n % 400, 0, 0] {
                broker.id_of(publish(&[&format!("t/{channel}")], None));
                n += 1;
            }
        });
        assert!(steps > 10, "{steps}");
        let stands = recall.position().seq;
        let (begins, lost) = (recall.since(), recall.forgotten());
        recall.go_on();
        while broker.recall(wanted, &mut recall) {
            recall.sift(wanted);
        }
        let newest = recall.position().seq;
        assert!(stands < newest && newest == n, "{stands} {newest} {n}");
        assert_eq!(begins, (since != "earliest").then_some(100), "{since}");
        let lost_meanwhile = recall.forgotten();
        assert!(lost_meanwhile > 0, "one channel has three places");
        let seqs = recall.into_publications();
        let seqs: Vec<u64> = seqs.iter().map(|it| it.position.seq).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{since}");
        // Whatever is not among them is said to be lost, or was never asked for.
        let mut missing = (begins.unwrap_or(0) + 1..=newest).filter(|seq| !seqs.contains(seq));
        let is_told = |seq| seq <= lost || (stands < seq && seq <= lost_meanwhile);
        assert!(missing.all(is_told), "{since} {lost} {lost_meanwhile}");
        assert!(seqs.contains(&newest));
    }
}

#[test]
fn a_walk_takes_small_steps() {
    let broker = broker();
    for channel in 0..1000 {
        broker.id_of(publish(&[&format!("t/{channel}")], None));
    }
    let patterns = [Selector::parse("*").unwrap()];
    let wanted = Wanted {
        channels: &[],
        patterns: &patterns,
    };
    let mut steps = 0;
    let recall = walk(&broker, "unknown", wanted, || steps += 1);
    assert_eq!(recall.into_publications().len(), 1000);
    // What it is, in all channels, where that stands, then all messages, then that nothing is missing.
    assert_eq!(steps, 1 + 2 * 1000_usize.div_ceil(STEP) + 2);
}

#[test]
fn an_own_id_that_is_left_on_one_of_its_channels_skips_none() {
    let limits = Limits {
        count: 100,
        age: Duration::from_secs(60),
        bytes: 10_000,
    };
    let broker = Memory::new(limits, Cache::new(Vec::new(), 1 << 20), 7, Seen::default());
    broker.id_of(publish(&["a", "b"], Some("x")));
    let has = |channel: &str| broker.lock().history.knows(channel, "x");
    while has("a") {
        broker.id_of(publish(&["c"], None));
    }
    assert!(has("b"));
    // Who inherits knows it as well.
    let snapshot = broker.follow(1 << 20);
    let now = Instant::now();
    let marks = snapshot.marks.iter();
    let heir = Memory::new(limits, Cache::new(Vec::new(), 1 << 20), 8, Seen::default());
    heir.inherit(Past {
        epoch: snapshot.epoch,
        seq: snapshot.seq,
        forgotten: snapshot.forgotten,
        marks: marks.map(|(name, seq)| (name.to_string(), *seq)).collect(),
        notes: snapshot
            .notes
            .iter()
            .map(|note| wire_note(note, now))
            .collect(),
        cached: Vec::new(),
    })
    .unwrap();
    for broker in [&broker, &heir] {
        let parse = |name: &&str| Channel::parse(name).unwrap();
        let missed = |channels: &[&str]| -> Vec<(usize, bool)> {
            let channels: Vec<_> = channels.iter().map(parse).collect();
            let caught = broker.catch_up(&channels, from(Some("x")));
            let missed = caught.missed.iter();
            missed
                .map(|its| (its.publications.len(), its.recovered))
                .collect()
        };
        // Who was cut off between the two has the first.
        assert_eq!(missed(&["a", "b"]), [(0, true), (1, true)]);
        assert_eq!(missed(&["b"]), [(0, true)], "who has it has it");
        assert!(missed(&["b", "c"])[0].1);
        // Nor one of a pattern's.
        let patterns = [Selector::parse("{any}").unwrap()];
        let wanted = Wanted {
            channels: &[],
            patterns: &patterns,
        };
        let recall = walk(broker, "x", wanted, || {});
        assert_eq!(recall.since(), Some(1));
    }
}

#[test]
fn a_copy_that_comes_later_is_one_of_the_first() {
    let limits = Limits {
        count: 100,
        age: Duration::from_secs(60),
        bytes: 1 << 20,
    };
    let broker = Memory::new(limits, Cache::new(Vec::new(), 1 << 20), 7, Seen::default());
    // Sent again by a publisher that got no answer, with what it had not reached.
    broker.id_of(publish(&["a"], Some("x")));
    broker.id_of(publish(&["c"], None));
    broker.id_of(publish(&["a", "b"], Some("x")));
    for number in 0..100 {
        broker.id_of(publish(&["a"], Some(&number.to_string())));
    }
    assert!(!broker.lock().history.knows("a", "x"));
    let channels = ["a", "b"].map(|name| Channel::parse(name).unwrap());
    let caught = broker.catch_up(&channels, from(Some("x")));
    assert_eq!(caught.missed[1].publications.len(), 1);
}

#[test]
fn the_newest_of_a_cache_channel_is_repacked_with_history_and_without() {
    let limits = Limits {
        count: 3,
        age: Duration::from_secs(60),
        bytes: 4000,
    };
    let broker = Memory::new(limits, Cache::new(Vec::new(), 1 << 20), 7, Seen::default());
    for n in 0..300 {
        broker.id_of(publish(&[&format!("cache-{n}")], None));
    }
    let messages = |broker: &Memory<Seen>| {
        let state = broker.lock();
        let all: Vec<_> = state.cache.all().cloned().collect();
        (all, state.history.messages())
    };
    let (old, in_history) = messages(&broker);
    assert!(old.len() == 300 && (1..100).contains(&in_history));
    let mut repack = Repack::default();
    while broker.repack(&mut repack) {}
    let (new, _) = messages(&broker);
    assert_eq!(format!("{old:?}"), format!("{new:?}"));
    for (old, new) in old.iter().zip(&new) {
        let (was, is) = (old.channel.as_str().as_ptr(), new.channel.as_str().as_ptr());
        assert!(!Arc::ptr_eq(old, new) && was != is);
    }
    // It is known as the one that history has.
    let snapshot = broker.follow(1 << 20);
    assert_eq!(snapshot.notes.len(), in_history);
    assert_eq!(snapshot.cached.len(), 300 - in_history);
    let position = broker.catch_up(&[Channel::parse("cache-7").unwrap()], from(None));
    assert_eq!(position.cached.len(), 1);
}
