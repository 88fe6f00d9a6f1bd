//! WebSockets that are used wrongly, or too much.

use std::time::{Duration, Instant};

use realtime::wire::deflate::{Packer, Packing};

use super::Field;
use crate::Outcome;
use crate::pest::Pest;
use crate::wire::{Kind, client_frame};

const HOST: u8 = 8;

fn crowd(field: &Field, count: usize, kind: Kind) -> Outcome<Vec<Pest>> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.extend(Pest::websocket(HOST, field.address, kind)?);
    }
    Ok(open)
}

/// So many subscriptions are asked for.
const SUBSCRIPTIONS: usize = 1_000_000;
/// Longer than a busy machine takes for them.
const PATIENCE: Duration = Duration::from_secs(60);
/// What `realtime.max_subscriptions` allows to each connection.
const ALLOWED: usize = 100;
const SUBSCRIBED: &[u8] = br#""type":"subscribed""#;

/// A thousand connections, a thousand subscriptions each. Goes on until all are asked for, and each connection has as many as
/// it may.
pub fn subscriptions(field: &mut Field) -> Outcome<String> {
    let mut open = crowd(field, 990, Kind::Native)?;
    let (mut asked, mut answered) = (0_usize, 0);
    let mut granted = vec![0_usize; open.len()];
    let mut rest: Vec<Vec<u8>> = vec![Vec::new(); open.len()];
    let mut cut = rest.clone();
    let end = Instant::now() + PATIENCE;
    let mut next = 0;
    // In its turn each asks for twenty more.
    loop {
        let all = asked >= SUBSCRIPTIONS && granted.iter().all(|granted| *granted >= ALLOWED);
        if all || !(field.whole || field.goes_on()) || Instant::now() > end {
            break;
        }
        let (round, index) = (next / open.len(), next % open.len());
        let pest = &mut open[index];
        let unsent = &mut rest[index];
        if unsent.is_empty() && asked < SUBSCRIPTIONS {
            for number in 0..20 {
                let name = round * 20 + number;
                let frame = format!(r#"{{"type":"subscribe","channel":"pest-{index}-{name}"}}"#);
                unsent.extend(client_frame(1, frame.as_bytes()));
            }
        }
        if !unsent.is_empty() {
            let sent = pest.send(unsent);
            unsent.drain(..sent);
            asked += if unsent.is_empty() { 20 } else { 0 };
        }
        let mut answers = std::mem::take(&mut cut[index]);
        let read = pest.read();
        answered += read.len();
        answers.extend(read);
        granted[index] += count(&answers, SUBSCRIBED);
        // One may be cut in two.
        let start = answers.len().saturating_sub(SUBSCRIBED.len() - 1);
        cut[index] = answers.split_off(start);
        next += 1;
        if next.is_multiple_of(100) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let ended = open.iter().filter(|pest| pest.ended).count();
    let had: usize = granted.iter().sum();
    let told = format!(
        "{asked} asked for by {}, {had} granted, {} KiB of answers, {ended} ended",
        open.len(),
        answered >> 10
    );
    let lacking = granted.iter().filter(|granted| **granted < ALLOWED).count();
    if field.whole && (asked < SUBSCRIPTIONS || lacking > 0 || had > open.len() * ALLOWED) {
        return Err(format!("{lacking} have not all that they may: {told}"));
    }
    Ok(told)
}

/// How often a text is there.
fn count(hay: &[u8], needle: &[u8]) -> usize {
    hay.windows(needle.len())
        .filter(|part| *part == needle)
        .count()
}

/// Arrays in arrays, whole and cut off.
pub fn deep_json(field: &mut Field) -> Outcome<String> {
    let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let object = |count: usize| format!("{}1{}", r#"{"a":"#.repeat(count), "}".repeat(count));
    let texts = [
        deep(30_000),
        "[".repeat(60_000),
        object(10_000),
        format!(
            r#"{{"type":"publish","channel":"a","data":{}}}"#,
            deep(30_000)
        ),
        format!(r#"{{"type":"publish","channel":"a","data":{}}}"#, deep(127)),
        format!(
            r#"{{"type":"publish","channel":"a","data":{}}}"#,
            object(9000)
        ),
        format!(
            r#"{{"type":"publish","channel":"a","data":"{}"}}"#,
            r"\ud800".repeat(9000)
        ),
        format!(
            r#"{{"type":"publish","channel":"a","data":{}}}"#,
            "1".repeat(60_000)
        ),
        format!(
            r#"{{"type":"publish","channel":"a","data":1e{}}}"#,
            "9".repeat(60_000)
        ),
    ];
    let mut sent = 0_u64;
    let mut open = crowd(field, 50, Kind::Native)?;
    while field.goes_on() {
        let index = field.dice.below(open.len());
        let text = &texts[field.dice.below(texts.len())];
        let pest = &mut open[index];
        let frame = client_frame(1, text.as_bytes());
        if pest.ended || pest.send(&frame) < frame.len() {
            *pest = match Pest::websocket(HOST, field.address, Kind::Native)? {
                Some(fresh) => fresh,
                None => continue,
            };
        }
        pest.read();
        sent += 1;
        if sent.is_multiple_of(4) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(format!("{sent} messages of up to 60 KiB"))
}

/// Frames against RFC 6455: reserved bits, no mask, broken UTF-8, fragments without end, control frames in pieces.
pub fn wrong_frames(field: &mut Field) -> Outcome<String> {
    let mut connections = 0_u64;
    let mut open: Vec<Pest> = Vec::new();
    while field.goes_on() {
        let kind = [Kind::Native, Kind::Raw, Kind::Deflate][field.dice.below(3)];
        let Some(mut pest) = Pest::websocket(HOST, field.address, kind)? else {
            continue;
        };
        connections += 1;
        let size = field.dice.below(300);
        let mut frame = client_frame(1, &field.dice.bytes(size));
        match field.dice.below(6) {
            0 => frame[0] = field.dice.below(256) as u8,
            1 => frame[1] ^= 0x80,
            2 => frame[0] = 0x01,
            3 => frame[0] = 0xc1,
            4 => frame.truncate(frame.len() / 2),
            _ => {}
        }
        pest.send(&frame);
        // Fragments, of which none is the last.
        let mut part = client_frame(0, &[b'x'; 1000]);
        part[0] = 0;
        for _ in 0..field.dice.below(100) {
            pest.send(&part);
        }
        open.push(pest);
        if open.len() > 100 {
            drop(open.swap_remove(field.dice.below(100)));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(format!("{connections} connections"))
}

/// Messages of some kilobytes that would be megabytes.
pub fn bombs(field: &mut Field) -> Outcome<String> {
    let large = vec![b' '; 32 << 20];
    let mut packer = Packer::new(1);
    let packed = packer
        .pack(&large, Packing::Wide)
        .ok_or("a bomb that does not pack")?;
    let mut frame = client_frame(1, packed);
    frame[0] |= 0x40;
    drop(large);
    let (mut sent, mut refused) = (0_u64, 0_u64);
    let mut open: Vec<Pest> = Vec::new();
    while field.goes_on() {
        if let Some(mut pest) = Pest::websocket(HOST, field.address, Kind::Deflate)? {
            pest.send(&frame);
            sent += 1;
            open.push(pest);
        }
        if open.len() > 50 {
            let mut pest = open.swap_remove(field.dice.below(50));
            // 1009: too large.
            refused += u64::from(
                pest.read()
                    .windows(4)
                    .any(|part| part[0] == 0x88 && part[2..] == [0x03, 0xf1]),
            );
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(format!(
        "{sent} of {} KiB that would be 32 MiB, {refused} of those looked at were told 1009",
        frame.len() >> 10
    ))
}

/// More for PHP than it can do.
pub fn publishes(field: &mut Field) -> Outcome<String> {
    let mut open = crowd(field, 300, Kind::Native)?;
    let frame = client_frame(
        1,
        format!(
            r#"{{"type":"publish","channel":"a","data":"{}"}}"#,
            "x".repeat(500)
        )
        .as_bytes(),
    );
    let burst = frame.repeat(10);
    let mut sent = 0;
    while field.goes_on() {
        for pest in &mut open {
            sent += pest.send(&burst) / frame.len();
            pest.read();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(format!("{sent} messages of {} clients", open.len()))
}
