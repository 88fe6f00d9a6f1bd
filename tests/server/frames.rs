//! The reader of clients' frames beside tungstenite's: the same bytes, however they are cut, are the same messages and
//! the same mistake. What tungstenite does not have (compression) is at the end.

use std::io::Cursor;

use realtime::wire::deflate::{Inflater, Packer, Packing};
use realtime::wire::frames::{Broken, Event, Reader};
use tungstenite::Message;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::client::masked;

const LIMIT: usize = 3000;

/// Numbers that look random and are the same in each run: what fails can be tried again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn text(&mut self, length: usize) -> Vec<u8> {
        let mut text = String::new();
        while text.len() < length {
            text.push_str(self.pick::<&str>(&["plain ", "ä", "€", "😀", "\u{0}"]));
        }
        text.into_bytes()
    }
}

/// What came of some bytes: events in words, and the close code of the mistake that ended it.
type Story = (Vec<String>, Option<u16>);

fn ours(bytes: &[u8], dice: &mut Dice) -> Story {
    let mut reader = Reader::new(LIMIT, false);
    let mut inflater = Inflater::default();
    let mut events = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = *dice.pick(&[1, 2, 7, 100, 10_000]);
        let (mut piece, after) = rest.split_at(most.min(rest.len()));
        rest = after;
        loop {
            match reader.read(&mut piece, &mut inflater) {
                Ok(None) => {
                    assert!(piece.is_empty());
                    break;
                }
                Ok(Some(Event::Close(frame))) => {
                    let code = frame.as_ref().map_or(1005, |(code, _)| *code);
                    let reason = frame.map(|(_, reason)| reason).unwrap_or_default();
                    events.push(format!("close {code} {reason}"));
                    return (events, None);
                }
                Ok(Some(event)) => events.push(match event {
                    Event::Text(text) => format!("text {text}"),
                    Event::Binary(bytes) => format!("binary {bytes:?}"),
                    Event::Ping(bytes) => format!("ping {bytes:?}"),
                    Event::Pong | Event::Close(_) => "pong".into(),
                }),
                Err(broken) => return (events, Some(broken.code())),
            }
        }
    }
    (events, None)
}

struct Memory<'a>(Cursor<&'a [u8]>);

impl std::io::Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl std::io::Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn theirs(bytes: &[u8]) -> Story {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let mut memory = Memory(Cursor::new(bytes));
    let mut events = Vec::new();
    loop {
        match context.read(&mut memory) {
            Ok(Message::Text(text)) => events.push(format!("text {text}")),
            Ok(Message::Binary(bytes)) => events.push(format!("binary {bytes:?}")),
            Ok(Message::Ping(bytes)) => events.push(format!("ping {bytes:?}")),
            Ok(Message::Pong(_)) => events.push("pong".into()),
            Ok(Message::Close(frame)) => {
                let code = frame.as_ref().map_or(1005, |frame| frame.code.into());
                let reason = frame.map(|frame| frame.reason.to_string());
                // It answers 1002 to a code that is not allowed, and gives that out.
                if code == 1002 && reason.as_deref() == Some("Protocol violation") {
                    return (events, Some(1002));
                }
                events.push(format!("close {code} {}", reason.unwrap_or_default()));
                return (events, None);
            }
            Ok(Message::Frame(_)) => unreachable!(),
            Err(Error::Io(_)) => return (events, None),
            Err(Error::Utf8(_)) => return (events, Some(1007)),
            Err(Error::Capacity(_)) => return (events, Some(1009)),
            Err(Error::Protocol(ProtocolError::InvalidCloseSequence)) => {
                return (events, Some(1002));
            }
            Err(Error::Protocol(_)) => return (events, Some(1002)),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Some messages in fragments with control frames between them, of which at most one thing is wrong; the end may be cut off.
fn stream(dice: &mut Dice) -> (Vec<u8>, bool) {
    let mut frames: Vec<(u8, Vec<u8>)> = Vec::new();
    for _ in 0..dice.below(6) {
        let length = *dice.pick(&[0, 1, 5, 125, 126, 800]);
        let (opcode, payload) = match dice.below(2) {
            0 => (1, dice.text(length)),
            _ => (2, vec![0xfe; length]),
        };
        let mut rest = &payload[..];
        let mut first = opcode;
        for _ in 0..dice.below(4) {
            let (piece, after) = rest.split_at(dice.below(rest.len() + 1));
            rest = after;
            frames.push((first, piece.to_vec()));
            first = 0;
            if dice.below(3) == 0 {
                let length = dice.below(126);
                let opcode = *dice.pick(&[0x89, 0x8a]);
                frames.push((opcode, vec![dice.below(256) as u8; length]));
            }
        }
        frames.push((0x80 | first, rest.to_vec()));
    }
    if dice.below(3) == 0 {
        let code = *dice.pick(&[999, 1000, 1004, 1005, 1011, 1016, 2999, 3000, 4999, 5000]);
        let reason = dice.text(5);
        frames.push((0x88, [&u16::to_be_bytes(code)[..], &reason].concat()));
    }
    let mut bytes: Vec<Vec<u8>> = frames.iter().map(|(b, p)| masked(*b, p)).collect();
    if !frames.is_empty() && dice.below(2) == 0 {
        let at = dice.below(frames.len());
        let (first, payload) = &mut frames[at];
        let mut unmasked = false;
        match dice.below(7) {
            0 => *first ^= *dice.pick(&[0x40, 0x20, 0x10]),
            1 => *first ^= 1 << dice.below(4),
            2 => *first ^= 0x80,
            3 if !payload.is_empty() => {
                let place = dice.below(payload.len());
                payload[place] ^= *dice.pick(&[0x80, 0x40, 0xff]);
            }
            // A control frame would have two mistakes then, and which counts is a matter of taste.
            4 if *first & 8 == 0 => payload.extend([b'x'; 3000]),
            5 => *first = *dice.pick(&[0x88, 0x81, 0x80, 0x01]),
            _ => unmasked = true,
        }
        bytes[at] = masked(*first, payload);
        if unmasked {
            bytes[at][1] &= 0x7f;
        }
    }
    let mut bytes = bytes.concat();
    let cut = dice.below(4) == 0;
    if cut {
        bytes.truncate(dice.below(bytes.len() + 1));
    }
    (bytes, cut)
}

#[test]
fn bytes_mean_to_us_what_they_mean_to_tungstenite() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut mistakes, mut messages, mut differ) = (0, 0, 0);
    for round in 0..20_000 {
        let (bytes, cut) = stream(&mut dice);
        let expected = theirs(&bytes);
        let found = ours(&bytes, &mut dice);
        // A mistake is refused here at its first byte: in what is cut off they may not have seen it yet.
        if cut && expected.1.is_none() {
            assert_eq!(found.0, expected.0, "round {round}");
        } else {
            assert_eq!(found.0, expected.0, "round {round}");
            assert_eq!(found.1.is_some(), expected.1.is_some(), "round {round}");
            // Of two mistakes in one frame they may see the other one first.
            differ += usize::from(found.1 != expected.1);
        }
        mistakes += usize::from(found.1.is_some());
        messages += found.0.len();
    }
    assert!(
        mistakes > 2000 && messages > 20_000,
        "{mistakes} {messages}"
    );
    assert!(differ < mistakes / 20, "{differ} of {mistakes}");
}

fn read(frames: &[Vec<u8>]) -> Result<Vec<Event>, Broken> {
    let mut reader = Reader::new(LIMIT, true);
    let mut inflater = Inflater::default();
    let mut events = Vec::new();
    let bytes = frames.concat();
    let mut rest = &bytes[..];
    while let Some(event) = reader.read(&mut rest, &mut inflater)? {
        events.push(event);
    }
    let unpacked = reader.take_unpacked();
    let made = |event: &Event| match event {
        Event::Text(text) => text.len(),
        Event::Binary(bytes) => bytes.len(),
        _ => 0,
    };
    let made: usize = events.iter().map(made).sum();
    assert!(unpacked <= made && (unpacked > 0 || made < 100));
    Ok(events)
}

#[test]
fn compressed_messages_come_whole_in_fragments_and_between_others() {
    let text = "häh? ".repeat(100);
    let mut packer = Packer::new(1);
    let packed = packer.pack(text.as_bytes(), Packing::Wide).unwrap();
    let (head, tail) = packed.split_at(packed.len() / 2);
    let expected = Event::Text(text.clone().into());
    let events = read(&[
        masked(0xc1, packed),
        masked(0x41, head),
        masked(0x89, b"?"),
        masked(0x00, b""),
        masked(0x80, tail),
        masked(0x81, b"plain"),
        masked(0xc2, packed),
    ]);
    assert_eq!(
        events.unwrap(),
        [
            expected.clone(),
            Event::Ping(b"?"[..].into()),
            expected,
            Event::Text("plain".into()),
            Event::Binary(text.into()),
        ]
    );
}

#[test]
fn compression_has_its_own_mistakes() {
    let mut packer = Packer::new(1);
    let fits = packer.pack(&[b'x'; LIMIT], Packing::Wide).unwrap().to_vec();
    assert!(read(&[masked(0xc1, &fits)]).is_ok());
    let bomb = packer
        .pack(&[b'x'; LIMIT + 1], Packing::Wide)
        .unwrap()
        .to_vec();
    let latin = packer.pack(&[0xe4; 200], Packing::Wide).unwrap().to_vec();
    let short = packer.pack(&[b'x'; 200], Packing::Wide).unwrap().to_vec();
    let cut = &short[..short.len() - 1];
    let cases: [(&str, u16, Vec<Vec<u8>>); 9] = [
        ("a bomb", 1009, vec![masked(0xc1, &bomb)]),
        ("too long as it is", 1009, vec![masked(0xc2, &[0; 3100])]),
        ("text that is not UTF-8", 1007, vec![masked(0xc1, &latin)]),
        ("cut off", 1007, vec![masked(0xc1, cut)]),
        ("nothing at all", 1007, vec![masked(0xc1, b"")]),
        ("not compressed", 1007, vec![masked(0xc1, b"plain text")]),
        ("a compressed ping", 1002, vec![masked(0xc9, b"")]),
        ("a compressed close", 1002, vec![masked(0xc8, b"")]),
        (
            "the bit in a later fragment",
            1002,
            vec![masked(0x41, &fits), masked(0xc0, b"")],
        ),
    ];
    for (what, code, frames) in cases {
        assert_eq!(read(&frames).unwrap_err().code(), code, "{what}");
    }
}
