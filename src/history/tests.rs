//! Without a hub and without a clock: whoever calls says what time it is.

use bytes::Bytes;

use super::log::{CHANNEL_COST, ENTRY_COST};
use super::*;
use crate::ids::Position;
use crate::message::{EventName, Payload, Terms};

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

/// Publishes to 20 channels, of which some copies share their content and their id.
fn rows(history: &mut History, seqs: std::ops::Range<u64>, now: Instant) {
    for row in seqs.step_by(2) {
        let payload = Bytes::from(row.to_string().into_bytes());
        let terms = Arc::new(Terms {
            first: row,
            ..Terms::default()
        });
        for seq in [row, row + 1] {
            let name = format!("c{}", seq % 20);
            let interned = history.interned(&name);
            let entry = Publication {
                channel: interned.unwrap_or_else(|| Channel::parse(&name).unwrap()),
                id: (row % 6 == 0).then(|| row.to_string().into()),
                payload: Payload::Json(payload.clone()),
                terms: (row % 6 == 0).then(|| terms.clone()),
                ..Arc::into_inner(publication(&name, seq, now)).unwrap()
            };
            history.add(&Arc::new(entry), seq % 10 != 0);
        }
    }
}

fn all_of(history: &History) -> String {
    let (forgotten, mut marks, notes) = history.notes();
    marks.sort();
    let rest = (history.bytes, history.messages, history.ids, history.lost);
    let ids = (0..3000).filter(|id| history.knows(&format!("c{}", id % 20), &id.to_string()));
    let ids: Vec<_> = ids.collect();
    format!("{forgotten} {marks:?} {rest:?} {ids:?} {notes:?}")
}

#[test]
fn what_was_repacked_is_the_same_in_other_memory() {
    let now = Instant::now();
    let mut history = history(40, 1 << 20);
    rows(&mut history, 1..1001, now);
    rows(&mut history, 1002..2000, now);
    let before = all_of(&history);
    let places = |history: &History| {
        let mut places = std::collections::HashSet::new();
        for (name, log) in &history.channels {
            places.insert(name.as_str().as_ptr().addr());
            for entry in &log.entries {
                places.insert(Arc::as_ptr(entry).addr());
                places.insert(entry.channel.as_str().as_ptr().addr());
                let (Payload::Json(bytes) | Payload::Binary(bytes)) = &entry.payload;
                places.insert(bytes.as_ptr().addr());
            }
            for id in log.ids.keys().chain(log.ids_order.iter().map(|(_, id)| id)) {
                places.insert(id.as_ptr().addr());
            }
        }
        let order = history.order.iter();
        places.extend(order.map(|(_, _, name)| name.as_str().as_ptr().addr()));
        places
    };
    let old = places(&history);
    let mut repack = Repack::default();
    let (mut steps, mut renewed) = (0, 0);
    while history.repack(&mut repack, |_, _| renewed += 1) {
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(renewed, history.messages());
    assert_eq!(all_of(&history), before);
    // What it was copied from is still there, so nothing can be in its place.
    let new = places(&history);
    let both: Vec<_> = old.intersection(&new).collect();
    assert!(
        new.len() > 1000 && both.is_empty(),
        "{} {both:?}",
        new.len()
    );
    assert!(!history.repack(&mut repack, |_, _| renewed += 1));
    // Another time, all of it is once more.
    let mut again = Repack::default();
    while history.repack(&mut again, |_, _| renewed += 1) {}
    assert_eq!(renewed, 2 * history.messages());
    assert!(new.is_disjoint(&places(&history)));
}

#[test]
fn a_step_of_repacking_is_short() {
    let now = Instant::now();
    let mut history = history(10_000, 1 << 30);
    for seq in 1..5000 {
        let entry = Publication {
            // Those that are small share nothing, either.
            payload: Payload::Binary(Bytes::from(vec![0; [50, 10_000][seq as usize / 2500]])),
            id: Some(seq.to_string().into()),
            ..Arc::into_inner(publication("a", seq, now)).unwrap()
        };
        history.add(&Arc::new(entry), true);
    }
    let mut repack = Repack::default();
    let mut aside = 0;
    loop {
        let (mut count, mut bytes) = (0, 0);
        let goes_on = history.repack(&mut repack, |_, copy| {
            count += 1;
            bytes += copy.payload.len();
        });
        if !goes_on {
            break;
        }
        assert!(count <= 128 && bytes < 300_000, "{count} of {bytes} bytes");
        aside += bytes + count * 500;
        if repack.is_full() {
            assert!(aside < 1_500_000, "{aside}");
            repack.release();
            aside = 0;
        }
    }
}

#[test]
fn what_comes_and_goes_while_it_is_repacked_is_not_missed() {
    let now = Instant::now();
    let (mut history, mut other) = (history(40, 100_000), history(40, 100_000));
    let mut seq = 2;
    for round in 0..50 {
        for history in [&mut history, &mut other] {
            rows(history, seq..seq + 200, now);
        }
        seq += 200;
        let mut repack = Repack::default();
        let mut steps = 0;
        while history.repack(&mut repack, |_, _| {}) {
            steps += 1;
            if steps % 2 == round % 2 {
                for history in [&mut history, &mut other] {
                    rows(history, seq..seq + 60, now);
                }
                seq += 60;
            }
            if steps % 3 == 0 {
                repack.release();
            }
        }
        // No more than those that were there when it began.
        assert!(steps <= 5000, "it has an end: {steps}");
        assert_eq!(all_of(&history), all_of(&other));
    }
    let later = now + Duration::from_secs(11);
    for history in [&mut history, &mut other] {
        history.expire(later);
        assert_eq!((history.bytes, history.order.len()), (0, 0));
    }
    let mut repack = Repack::default();
    while history.repack(&mut repack, |_, _| {}) {}
    assert_eq!(all_of(&history), all_of(&other));
}
