//! Without a hub and without a clock: whoever calls says what time it is.

use bytes::Bytes;

use super::log::{CHANNEL_COST, ENTRY_COST};
use super::*;
use crate::ids::Position;
use crate::message::{EventName, Payload};

fn history(count: usize, bytes: usize) -> History {
    History::new(
        Limits {
            count,
            age: Duration::from_secs(10),
            bytes,
        },
        0,
    )
}

fn publication(channel: &str, seq: u64, at: Instant) -> Arc<Publication> {
    Arc::new(Publication {
        channel: Channel::parse(channel).unwrap(),
        position: Position { epoch: 1, seq },
        id: None,
        event: EventName::Message,
        payload: Payload::Json(Bytes::from_static(b"1")),
        except: None,
        at,
        terms: None,
    })
}

fn seqs(missed: &Missed) -> Vec<u64> {
    missed.publications.iter().map(|p| p.position.seq).collect()
}

#[test]
fn count_pushes_out_and_is_told() {
    let now = Instant::now();
    let mut history = history(3, 1 << 20);
    for seq in 1..=5 {
        history.add(&publication("a", seq, now), true);
    }
    assert_eq!(seqs(&history.after("a", Some(3))), [4, 5]);
    assert!(history.after("a", Some(2)).recovered);
    let gap = history.after("a", Some(1));
    assert!(!gap.recovered);
    assert_eq!(gap.oldest.unwrap().position.seq, 3);
    assert!(!history.after("a", None).recovered);
}

#[test]
fn a_forgotten_channel_is_not_taken_for_an_empty_one() {
    let now = Instant::now();
    let mut history = history(3, 1 << 20);
    assert!(history.after("a", Some(0)).recovered);
    history.add(&publication("a", 1, now), true);
    history.expire(now + Duration::from_secs(11));
    assert_eq!(history.bytes(), 0);
    assert!(!history.after("a", Some(0)).recovered);
    assert!(history.after("a", Some(1)).recovered);
}

#[test]
fn a_channel_that_comes_back_does_not_hide_what_it_forgot() {
    let now = Instant::now();
    let later = now + Duration::from_secs(11);
    let mut history = history(3, 1 << 20);
    history.add(&publication("a", 1, now), true);
    history.add(&publication("a", 2, now), true);
    history.add(&publication("a", 3, later), true);
    let missed = history.after("a", Some(1));
    assert_eq!(seqs(&missed), [3]);
    assert!(!missed.recovered);
    assert!(history.after("a", Some(2)).recovered);
}

#[test]
fn nothing_kept_is_nothing_recovered() {
    let now = Instant::now();
    let mut history = history(0, 1 << 20);
    let with_id = |seq| {
        let publication = publication("a", seq, now);
        Arc::new(Publication {
            id: Some("own".into()),
            ..Arc::into_inner(publication).unwrap()
        })
    };
    history.add(&with_id(1), true);
    assert!(!history.after("a", Some(0)).recovered);
    history.add(&publication("a", 2, now), true);
    assert!(!history.after("a", Some(1)).recovered);
    assert!(history.after("a", Some(2)).recovered);
}

#[test]
fn bytes_push_out_the_oldest_of_all_channels() {
    let now = Instant::now();
    let mut history = history(100, 3 * (CHANNEL_COST + 1 + ENTRY_COST + 8));
    for (seq, channel) in ["a", "b", "c", "d"].into_iter().enumerate() {
        history.add(&publication(channel, seq as u64 + 1, now), true);
    }
    assert!(seqs(&history.after("a", Some(0))).is_empty());
    assert_eq!(seqs(&history.after("d", Some(0))), [4]);
    assert_eq!(history.messages(), 3);
}

#[test]
fn a_busy_channel_does_not_grow_the_order() {
    let now = Instant::now();
    let mut history = history(10, 1 << 30);
    history.add(&publication("quiet", 1, now), true);
    for seq in 2..100_000 {
        history.add(&publication("busy", seq, now), true);
    }
    assert!(history.order.len() < 5000, "{}", history.order.len());
    assert_eq!(seqs(&history.after("quiet", Some(0))), [1]);
}

/// One history's notes into another.
fn moved(from: &History, mut into: History) -> History {
    let (forgotten, marks, notes) = from.notes();
    let now = Instant::now();
    let past = Past {
        epoch: 1,
        seq: 0,
        forgotten,
        marks: marks
            .into_iter()
            .map(|(channel, seq)| (channel.to_string(), seq))
            .collect(),
        notes: notes.iter().map(|note| wire_note(note, now)).collect(),
        cached: Vec::new(),
    };
    into.restore(past).unwrap();
    into
}

#[test]
fn another_hub_knows_the_same() {
    let now = Instant::now();
    let mut old = history(3, 1 << 20);
    old.add(&publication("gone", 1, now - Duration::from_secs(11)), true);
    for seq in 2..=6 {
        old.add(&publication("a", seq, now), true);
    }
    let own = publication("b", 7, now);
    let own = Publication {
        id: Some("own".into()),
        ..Arc::into_inner(own).unwrap()
    };
    old.add(&Arc::new(own), true);
    for seq in 8..=10 {
        old.add(&publication("b", seq, now), true);
    }
    let new = moved(&old, history(3, 1 << 20));
    for channel in ["a", "b", "gone", "never"] {
        for since in 0..=10 {
            let (left, right) = (
                old.after(channel, Some(since)),
                new.after(channel, Some(since)),
            );
            assert_eq!(seqs(&left), seqs(&right), "{channel} {since}");
            assert_eq!(left.recovered, right.recovered, "{channel} {since}");
        }
    }
    // Its message was pushed out by count, but the id is still known.
    assert!(new.knows("b", "own"));
    assert_eq!((new.bytes(), new.messages()), (old.bytes(), old.messages()));
    // With less room the rest is said to be missing.
    let small = moved(&old, history(1, 1 << 20));
    assert_eq!(seqs(&small.after("a", Some(5))), [6]);
    assert!(!small.after("a", Some(4)).recovered);
    let none = moved(&old, history(0, 1 << 20));
    assert!(!none.after("a", Some(5)).recovered);
    assert!(none.after("a", Some(10)).recovered);
    assert!(none.knows("b", "own"));
}
