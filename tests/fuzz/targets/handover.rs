//! What a new hub takes over from an old one, and what they tell each other afterwards.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use realtime::auth::Revocations;
use realtime::history::{History, Limits, Past, publication};
use realtime::ids::Channel;
use realtime::presence::{Attendee, Presence};
use realtime::wire::control::{self, Request, Response, WirePayload};
use realtime::wire::envelope::{self, ServerFrame};
use realtime::wire::handover::{
    self, Estate, Part, Said, WireAttendee, WireChange, WireNote, WireTerms,
};
use realtime_fuzz::{again, choices, within};

const PRESENCE: realtime::presence::Limits = realtime::presence::Limits {
    members: 3,
    info: 100,
    bytes: 2000,
    grace: Duration::from_secs(60),
};

/// What a [`Part::Revoked`] begins with.
const REVOKED: u8 = 6;

fuzz_target!(|input: &[u8]| {
    let Some(([kind, count, kilobytes], mut bytes)) = choices(input) else {
        return;
    };
    let _ = within(room(bytes), || serde_json::from_slice::<Estate>(bytes));
    let limits = Limits {
        count: usize::from(count),
        age: Duration::from_secs(60),
        bytes: usize::from(kilobytes) << 10,
    };
    if kind % 2 == 1 {
        return restore(limits, made(bytes));
    }
    let mut past = Past::default();
    let revocations = Revocations::new(1000);
    let mut presence = Presence::new(PRESENCE);
    while let Some((content, rest)) = control::split(bytes) {
        bytes = rest;
        let Ok(said) = within(room(content), || handover::read(content)) else {
            break;
        };
        match said {
            Said::Step(step) => {
                let word = control::json_frame(&step);
                assert!(matches!(handover::read(&word[4..]), Ok(Said::Step(back)) if back == step));
            }
            Said::Part(part) => {
                match part {
                    // Two maps with the same entries have them in different orders.
                    Part::Revoked(_) => again!(Part, &part, sorted),
                    _ => again!(Part, &part),
                }
                take(part, &mut past, &revocations, &mut presence);
            }
        }
    }
    restore(limits, past);
});

fn sorted(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.sort_unstable();
    bytes
}

/// Marks and notes are several times larger in memory than on the wire. For a map serde believes an announced number of
/// entries up to a mebibyte, which a table rounds up.
fn room(bytes: &[u8]) -> usize {
    let map = match bytes.first() {
        // Its low bits: the number may be written longer than it need be.
        Some(first) if first & 0x7f == REVOKED => 4 << 20,
        _ => 16 << 10,
    };
    128 * bytes.len() + map
}

fn take(part: Part, past: &mut Past, revocations: &Revocations, presence: &mut Presence) {
    match part {
        Part::Begin {
            epoch,
            seq,
            forgotten,
        } => (past.epoch, past.seq, past.forgotten) = (epoch, seq, forgotten),
        Part::Marks(marks) => past.marks.extend(marks),
        Part::Notes(notes) => past.notes.extend(notes),
        Part::End => {}
        Part::Ask { request, .. } => {
            let _ = within(room(&request), || control::read::<Request>(&request));
        }
        Part::Answer { response, .. } => {
            let _ = within(room(&response), || control::read::<Response>(&response));
        }
        Part::Revoked(lists) => revocations.adopt(lists),
        Part::Cached(notes) => past.cached.extend(notes),
        Part::Present(_, everybody) => {
            everybody.iter().for_each(|wire| attend(presence, wire));
            tell(presence);
        }
        Part::Changes(changes) => {
            for change in changes {
                match change {
                    WireChange::Joined(wire, _) => attend(presence, &wire),
                    WireChange::Left { channel, user } => {
                        if let Ok(channel) = Channel::parse(&channel) {
                            presence.give_up(&channel, &user);
                        }
                    }
                }
            }
            tell(presence);
        }
    }
}

fn attend(presence: &mut Presence, wire: &WireAttendee) {
    if let Ok(channel) = Channel::parse(&wire.channel) {
        let attendee = Attendee::new(&wire.user, wire.info.as_deref());
        let until = Instant::now() + PRESENCE.grace;
        let _ = presence.expect(&channel, &attendee, until);
    }
    assert!(presence.bytes() <= PRESENCE.bytes);
}

/// Whatever is known of somebody, a frame about it is one line of JSON, and when all have gone nothing is left.
fn tell(presence: &mut Presence) {
    for (channel, attendee) in presence.all() {
        let members = [envelope::Attendee {
            user: &attendee.user,
            info: attendee.info.as_deref(),
        }];
        let json = envelope::server_frame(&ServerFrame::Presence {
            channel: channel.as_str(),
            reference: None,
            members: &members,
        });
        assert!(!json.contains(&b'\n') && !json.contains(&b'\r'));
        serde_json::from_slice::<serde::de::IgnoredAny>(&json).expect("JSON");
    }
    presence.expire(Instant::now() + 2 * PRESENCE.grace);
    assert_eq!(presence.bytes(), 0);
}

/// Valid notes in an order that no sane hub sends.
fn made(bytes: &[u8]) -> Past {
    let mut past = Past {
        epoch: 1,
        ..Past::default()
    };
    let name = |byte: u8| char::from(b'a' + byte % 8).to_string();
    for chunk in bytes.as_chunks::<6>().0 {
        let [channel, seq, id, size, age, flags] = *chunk;
        past.seq = past.seq.max(seq.into());
        if flags & 4 != 0 {
            past.marks.push((name(channel), seq.into()));
        }
        past.notes.push(WireNote {
            channel: name(channel),
            seq: seq.into(),
            id: (flags & 2 != 0).then(|| name(id)),
            event: "message".to_owned(),
            payload: WirePayload::Binary(vec![0; usize::from(size) * 4].into()),
            except: None,
            age: Duration::from_secs(age.into()),
            store: flags & 1 != 0,
            terms: (flags & 8 != 0).then(|| WireTerms {
                private: flags & 16 != 0,
                retry: None,
                topics: [channel, id].map(name).into(),
                first: age.into(),
            }),
        });
    }
    past
}

/// Whatever the other hub says, what is kept stays within the limits, and can be handed on.
fn restore(limits: Limits, past: Past) {
    let mut history = History::new(limits, 0);
    if history.restore(past).is_err() {
        return;
    }
    let (_, marks, notes) = history.notes();
    assert!(marks.len() <= history.bytes());
    assert!(notes.len() >= history.messages());
    let stored = notes.iter().filter(|note| note.store).count();
    assert_eq!(stored, history.messages());
    let now = Instant::now();
    for note in &notes {
        let wire = realtime::history::wire_note(note, now);
        let back = publication(wire, 1, now).expect("valid stays valid");
        assert_eq!(back.channel, note.publication.channel);
        assert_eq!(back.position.seq, note.publication.position.seq);
    }
    for (channel, _) in &marks {
        let missed = history.after(channel.as_str(), Some(0));
        assert!(missed.publications.len() <= limits.count);
        assert!(
            missed
                .publications
                .is_sorted_by_key(|entry| entry.position.seq)
        );
    }
    assert!(history.bytes() <= limits.bytes);
    // All of it can be forgotten again, and then nothing is left.
    history.expire(now + limits.age + Duration::from_secs(1));
    assert_eq!((history.bytes(), history.messages()), (0, 0));
}
