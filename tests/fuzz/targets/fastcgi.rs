//! What a FastCGI pool answers, and the outcomes that stand between what the script prints.
#![no_main]

use libfuzzer_sys::fuzz_target;
use realtime::wire::control;
use realtime::wire::events::{Mark, Outcomes};
use realtime::wire::fastcgi::{Answer, Part, Request};
use realtime::wire::output::{Output, Piece};
use realtime_fuzz::{again, choices, pieces, within};

/// It repeats itself, so that finding it again after a false start is not easy.
const MARK: Mark = *b"aabaabaacaabaabc";
/// The largest frame.
const LIMIT: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some(([kind, seed], bytes)) = choices(input) else {
        return;
    };
    match kind % 3 {
        0 => {
            let whole = answer(bytes, 0);
            assert_eq!(
                whole,
                answer(bytes, seed.max(1)),
                "pieces make a difference"
            );
            output(&whole.output, seed);
        }
        1 => output(bytes, seed),
        _ => request(bytes),
    }
});

#[derive(Debug, Default, PartialEq, Eq)]
struct All {
    output: Vec<u8>,
    errors: Vec<u8>,
    ends: Vec<(u32, u8)>,
    garbage: Option<String>,
}

fn answer(bytes: &[u8], seed: u8) -> All {
    let mut answer = Answer::default();
    let mut all = All::default();
    for mut piece in pieces(bytes, seed) {
        loop {
            // Nothing is kept.
            match within(64, || answer.next(&mut piece)) {
                Ok(Some(Part::Output(part))) => all.output.extend_from_slice(part),
                Ok(Some(Part::Error(part))) => all.errors.extend_from_slice(part),
                Ok(Some(Part::End { status, refused })) => all.ends.push((status, refused)),
                Ok(None) => break,
                Err(garbage) => {
                    all.garbage = Some(garbage.to_string());
                    return all;
                }
            }
        }
        assert!(piece.is_empty());
    }
    all
}

fn output(bytes: &[u8], seed: u8) {
    let whole = marked(bytes, 0);
    assert_eq!(
        whole,
        marked(bytes, seed.max(1)),
        "pieces make a difference"
    );
    let (text, frames, failed) = whole;
    for frame in &frames {
        assert!(frame.len() <= LIMIT);
        let room = 64 * frame.len() + 16_384;
        if let Ok(outcomes) = within(room, || control::read::<Outcomes>(frame)) {
            again!(Outcomes, &outcomes);
        }
    }
    if !failed {
        assert!(text.len() + frames.iter().map(|f| f.len() + 20).sum::<usize>() <= bytes.len());
    }
    // What was found is the same by the plainest of all ways.
    let first = bytes.windows(MARK.len()).position(|window| window == MARK);
    match first {
        None => assert_eq!((text.as_slice(), frames.len(), failed), (bytes, 0, false)),
        Some(at) => assert!(text.starts_with(&bytes[..at])),
    }
}

fn marked(bytes: &[u8], seed: u8) -> (Vec<u8>, Vec<Vec<u8>>, bool) {
    let mut output = Output::new(MARK, LIMIT);
    let (mut text, mut frames) = (Vec::new(), Vec::new());
    for mut piece in pieces(bytes, seed) {
        loop {
            match within(2 * (bytes.len() + MARK.len()), || output.next(&mut piece)) {
                Ok(Some(Piece::Text(part))) => text.extend_from_slice(&part),
                Ok(Some(Piece::Frame(frame))) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (text, frames, true),
            }
        }
    }
    text.extend_from_slice(output.rest());
    (text, frames, false)
}

/// What a client's handshake and a batch make of a request is read as such by the other side.
fn request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut request = Request::default();
    let mut expected = Vec::new();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        request.param_of(&["HTTP_", name], &[value]);
        expected.push((format!("HTTP_{name}"), value.to_owned()));
    }
    let written = request.bytes(bytes);
    let (params, stdin) = streams(&written);
    assert_eq!(stdin, bytes);
    assert_eq!(pairs(&params), expected);
}

/// PARAMS and STDIN of a request, as its specification has it.
fn streams(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut params, mut stdin) = (Vec::new(), Vec::new());
    let mut ended = 0;
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let [version, kind, _, id, high, low, padding, _] = *header;
        assert_eq!((version, id, padding), (1, 1, 0));
        let (content, rest) = rest.split_at(usize::from(high) << 8 | usize::from(low));
        match kind {
            1 => assert_eq!(content, [0, 1, 1, 0, 0, 0, 0, 0]),
            4 => params.extend_from_slice(content),
            5 => stdin.extend_from_slice(content),
            other => panic!("a record of type {other}"),
        }
        ended += usize::from(kind != 1 && content.is_empty());
        bytes = rest;
    }
    assert!(bytes.is_empty() && ended == 2);
    (params, stdin)
}

fn pairs(mut bytes: &[u8]) -> Vec<(String, String)> {
    let length = |bytes: &mut &[u8]| {
        let (first, rest) = bytes.split_first().expect("a length");
        if *first < 0x80 {
            *bytes = rest;
            return usize::from(*first);
        }
        let (long, rest) = bytes.split_first_chunk().expect("a long length");
        *bytes = rest;
        (u32::from_be_bytes(*long) & !(1 << 31)) as usize
    };
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        let (name, value) = (length(&mut bytes), length(&mut bytes));
        let (pair, rest) = bytes.split_at(name + value);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        pairs.push((text(&pair[..name]), text(&pair[name..])));
        bytes = rest;
    }
    pairs
}
