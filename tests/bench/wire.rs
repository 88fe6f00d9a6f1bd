//! Just enough HTTP, WebSocket and Server-Sent Events to be a client, by length and never by read boundaries.
//!
//! Bytes in, events out; no I/O. Imports nothing of the bench but its error type.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use realtime::auth::sign;
use realtime::config::Config;

use crate::Outcome;

/// How a client talks to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WebSocket frames without a handshake: the floor.
    Floor,
    /// `/raw/{channel}`.
    Raw,
    /// The same with permessage-deflate.
    Deflate,
    /// `/raw/{channel}` over TLS, each connection with a whole handshake.
    Secure,
    /// The same, resumed from the second connection on.
    Resuming,
    /// `/ws` with one subscription.
    Native,
    /// The same with a token, each of another user.
    Member,
    /// `/sse?channel=`.
    Sse,
    /// `/app/{key}` with one subscription.
    Pusher,
    /// `/.well-known/mercure?topic=`.
    Mercure,
}

/// What a protocol says before messages come: the server, then the client, then the server again.
pub struct Greeting {
    /// Part of the first frame.
    pub welcome: &'static str,
    /// The subscription.
    pub subscribe: String,
    /// Part of the answer.
    pub subscribed: &'static str,
}

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Raw => "raw",
            Self::Deflate => "deflate",
            Self::Secure => "secure",
            Self::Resuming => "resuming",
            Self::Native => "ws",
            Self::Member => "member",
            Self::Sse => "sse",
            Self::Pusher => "pusher",
            Self::Mercure => "mercure",
        }
    }

    /// Whether it is spoken inside TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Secure | Self::Resuming)
    }

    /// Finds a kind by its name.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Floor,
            Self::Raw,
            Self::Deflate,
            Self::Secure,
            Self::Resuming,
            Self::Native,
            Self::Member,
            Self::Sse,
            Self::Pusher,
            Self::Mercure,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }

    /// What is said first, where that is more than a request.
    pub fn greeting(self, channel: &str) -> Option<Greeting> {
        match self {
            Self::Native | Self::Member => Some(Greeting {
                welcome: r#""type":"welcome""#,
                subscribe: format!(r#"{{"type":"subscribe","channel":"{channel}","ref":1}}"#),
                subscribed: r#""type":"subscribed""#,
            }),
            Self::Pusher => Some(Greeting {
                welcome: "pusher:connection_established",
                subscribe: format!(
                    r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#
                ),
                subscribed: "pusher_internal:subscription_succeeded",
            }),
            _ => None,
        }
    }

    /// The settings, without their `realtime.`, that a server needs to speak it.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Member => &[("secret", SECRET)],
            Self::Pusher => &[("pusher_app", "1:bench-key:bench-secret-of-some-length")],
            Self::Mercure => &[
                (
                    "mercure_subscriber_key",
                    "a-secret-of-at-least-32-bytes-of-text",
                ),
                ("mercure_anonymous", "1"),
            ],
            _ => &[],
        }
    }

    /// The request that opens a connection.
    pub fn request(self, channel: &str) -> Vec<u8> {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        let (path, headers) = match self {
            // The floor's sockets have to be in the same state: with a request behind them TCP acknowledges otherwise.
            Self::Floor | Self::Raw | Self::Secure | Self::Resuming => (
                format!("/raw/{channel}"),
                format!("{upgrade}Sec-WebSocket-Key: {KEY}\r\n"),
            ),
            Self::Deflate => (
                format!("/raw/{channel}"),
                format!(
                    "{upgrade}Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Extensions: {EXTENSION}\r\n"
                ),
            ),
            Self::Native => (
                "/ws".to_owned(),
                format!(
                    "{upgrade}Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: realtime.v1\r\n"
                ),
            ),
            Self::Member => (
                format!("/ws?token={}", token(channel)),
                format!("{upgrade}Sec-WebSocket-Key: {KEY}\r\n"),
            ),
            Self::Pusher => (
                "/app/bench-key?protocol=7".to_owned(),
                format!("{upgrade}Sec-WebSocket-Key: {KEY}\r\n"),
            ),
            Self::Mercure => (
                format!("/.well-known/mercure?topic={channel}"),
                "Accept: text/event-stream\r\n".to_owned(),
            ),
            Self::Sse => (
                format!("/sse?channel={channel}"),
                "Accept: text/event-stream\r\n".to_owned(),
            ),
        };
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
    }
}

/// What signs the tokens of [`Kind::Member`].
const SECRET: &str = "the secret of the bench that is long enough";

/// A token of a user that nobody else is, which opens `channel`.
fn token(channel: &str) -> String {
    static USERS: AtomicU64 = AtomicU64::new(0);
    let user = USERS.fetch_add(1, Ordering::Relaxed);
    let config = Config::load(|name| (name == "realtime.secret").then(|| SECRET.to_owned()));
    let config = config.expect("it is long enough");
    let claims = format!(r#"{{"sub":"user-{user}","channels":"{channel}"}}"#);
    sign(&config, claims.as_bytes(), 3600).expect("these are claims")
}

/// The sample key of RFC 6455 and its answer, so that no SHA-1 is needed here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The extension that a client with compression offers.
const EXTENSION: &str = "permessage-deflate";

/// A server's whole answer to it.
pub const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Any mask will do here; not zero, so that the server really has to unmask.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a server sent.
#[derive(Debug)]
pub enum Event<'a> {
    /// The response head was as it should be.
    Open,
    /// A text frame or an event's data.
    Text(&'a [u8]),
    /// A text frame that is compressed.
    Packed(&'a [u8]),
    /// A ping to answer.
    Ping(&'a [u8]),
}

/// A message's content: `#`, ten digits of sequence, a space, twenty digits of clock, a space, then `x`es.
pub fn payload(sequence: u64, clock: u64, bytes: usize) -> Vec<u8> {
    let mut payload = format!("#{sequence:010} {clock:020} ").into_bytes();
    payload.resize(bytes, b'x');
    payload
}

/// Sequence and clock of a payload of exactly `bytes`.
pub fn read_payload(payload: &[u8], bytes: usize) -> Outcome<(u64, u64)> {
    let wrong = || {
        format!(
            "expected a payload of {bytes} bytes, got {} bytes: {}",
            payload.len(),
            String::from_utf8_lossy(&payload[..payload.len().min(80)])
        )
    };
    if payload.len() != bytes || payload.len() < 33 || payload[0] != b'#' {
        return Err(wrong());
    }
    match (number(&payload[1..11]), number(&payload[12..32])) {
        (Some(sequence), Some(clock)) => Ok((sequence, clock)),
        _ => Err(wrong()),
    }
}

/// The payload within what arrived; none when it is not a message (a welcome, say).
pub fn unwrap(kind: Kind, text: &[u8]) -> Option<&[u8]> {
    match kind {
        Kind::Floor | Kind::Raw | Kind::Deflate | Kind::Secure | Kind::Resuming => Some(text),
        Kind::Mercure => Some(text),
        Kind::Sse => text.strip_prefix(b"\"")?.strip_suffix(b"\""),
        Kind::Native | Kind::Member | Kind::Pusher => {
            let mark: &[u8] = match kind {
                Kind::Pusher => br#""event":"message""#,
                _ => br#""type":"message""#,
            };
            find(text, mark)?;
            let rest = &text[find(text, br#""data":""#)? + 8..];
            Some(&rest[..rest.iter().position(|&byte| byte == b'"')?])
        }
    }
}

/// A text frame as a server sends it.
pub fn server_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = head(0x81, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// A masked frame as a client sends it.
pub fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(0x80 | opcode, 0x80, payload.len());
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|part| part == needle)
}

/// Reads one connection.
#[derive(Debug)]
pub struct Decoder {
    stage: Stage,
    pending: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    Head(Kind),
    Frames,
    Sse(Sse),
}

#[derive(Debug, Default)]
struct Sse {
    chunks: Option<Chunk>,
    text: Vec<u8>,
    data: Vec<u8>,
}

/// Where in HTTP's chunked coding a connection stands.
#[derive(Clone, Copy, Debug)]
enum Chunk {
    Size,
    Data(usize),
    End,
}

impl Decoder {
    /// For a connection on which nothing was read yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            stage: Stage::Head(kind),
            pending: Vec::new(),
        }
    }

    /// Takes what was read and hands every complete event to `sink`.
    pub fn feed(
        &mut self,
        input: &[u8],
        sink: &mut impl FnMut(Event<'_>) -> Outcome<()>,
    ) -> Outcome<()> {
        if self.pending.is_empty() {
            let used = self.stage.advance(input, sink)?;
            self.pending.extend_from_slice(&input[used..]);
        } else {
            self.pending.extend_from_slice(input);
            let used = self.stage.advance(&self.pending, sink)?;
            self.pending.drain(..used);
        }
        if self.pending.is_empty() && self.pending.capacity() > 4096 {
            self.pending = Vec::new();
        }
        Ok(())
    }
}

impl Stage {
    fn advance(
        &mut self,
        input: &[u8],
        sink: &mut impl FnMut(Event<'_>) -> Outcome<()>,
    ) -> Outcome<usize> {
        let mut used = 0;
        if let Self::Head(kind) = *self {
            let Some(end) = find(input, b"\r\n\r\n") else {
                return Ok(0);
            };
            *self = after_head(kind, &input[..end])?;
            used = end + 4;
            sink(Event::Open)?;
        }
        match self {
            Self::Head(_) => Ok(used),
            Self::Frames => Ok(used + frames(&input[used..], sink)?),
            Self::Sse(sse) => Ok(used + sse.advance(&input[used..], sink)?),
        }
    }
}

fn after_head(kind: Kind, head: &[u8]) -> Outcome<Stage> {
    let head = String::from_utf8_lossy(head);
    let lower = head.to_ascii_lowercase();
    let good = match kind {
        Kind::Sse | Kind::Mercure => {
            lower.starts_with("http/1.1 200") && lower.contains("text/event-stream")
        }
        Kind::Deflate => lower.starts_with("http/1.1 101") && head.contains(EXTENSION),
        _ => lower.starts_with("http/1.1 101") && head.contains(ACCEPT),
    };
    match kind {
        _ if !good => Err(format!(
            "the server answered the {} request with: {head}",
            kind.name()
        )),
        Kind::Sse | Kind::Mercure => Ok(Stage::Sse(Sse {
            chunks: lower
                .contains("transfer-encoding: chunked")
                .then_some(Chunk::Size),
            ..Sse::default()
        })),
        _ => Ok(Stage::Frames),
    }
}

fn frames(input: &[u8], sink: &mut impl FnMut(Event<'_>) -> Outcome<()>) -> Outcome<usize> {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        let [first, second, ..] = *rest else {
            return Ok(used);
        };
        if second & 0x80 != 0 {
            return Err("the server sent a masked frame".into());
        }
        let (start, length) = match (second, rest) {
            (126, [_, _, a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, [_, _, a, b, c, d, e, f, g, h, ..]) => (
                10,
                usize::try_from(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
                    .map_err(|e| e.to_string())?,
            ),
            (126 | 127, _) => return Ok(used),
            (short, _) => (2, usize::from(short)),
        };
        let Some(body) = rest.get(start..start + length) else {
            return Ok(used);
        };
        match first {
            0x81 => sink(Event::Text(body))?,
            0xc1 => sink(Event::Packed(body))?,
            0x88 => {
                let code = match body {
                    [a, b, ..] => u16::from_be_bytes([*a, *b]),
                    _ => 1005,
                };
                return Err(format!("the server closed a connection with code {code}"));
            }
            0x89 => sink(Event::Ping(body))?,
            0x8a => {}
            other => {
                return Err(format!(
                    "the server sent a frame that begins with {other:#x}"
                ));
            }
        }
        used += start + length;
    }
}

impl Sse {
    fn advance(
        &mut self,
        input: &[u8],
        sink: &mut impl FnMut(Event<'_>) -> Outcome<()>,
    ) -> Outcome<usize> {
        let used = self.unchunk(input)?;
        let text = mem::take(&mut self.text);
        let mut start = 0;
        while let Some(length) = text[start..].iter().position(|&byte| byte == b'\n') {
            let line = &text[start..start + length];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            start += length + 1;
            if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data
                    .extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            } else if line.is_empty() && !self.data.is_empty() {
                sink(Event::Text(&self.data))?;
                self.data.clear();
            }
        }
        self.text = text;
        self.text.drain(..start);
        Ok(used)
    }

    /// Moves what is complete from `input` to `self.text`; returns how much of `input` was used.
    fn unchunk(&mut self, input: &[u8]) -> Outcome<usize> {
        let Some(chunk) = &mut self.chunks else {
            self.text.extend_from_slice(input);
            return Ok(input.len());
        };
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match *chunk {
                Chunk::Size => {
                    let Some(end) = find(rest, b"\r\n") else {
                        return Ok(used);
                    };
                    let size = std::str::from_utf8(&rest[..end])
                        .ok()
                        .and_then(|hex| usize::from_str_radix(hex, 16).ok())
                        .ok_or("the server sent a chunk without a size")?;
                    if size == 0 {
                        return Err("the server ended an event stream".into());
                    }
                    used += end + 2;
                    *chunk = Chunk::Data(size);
                }
                Chunk::Data(left) => {
                    let part = &rest[..left.min(rest.len())];
                    self.text.extend_from_slice(part);
                    used += part.len();
                    if part.len() < left {
                        *chunk = Chunk::Data(left - part.len());
                        return Ok(used);
                    }
                    *chunk = Chunk::End;
                }
                Chunk::End => {
                    if rest.len() < 2 {
                        return Ok(used);
                    }
                    used += 2;
                    *chunk = Chunk::Size;
                }
            }
        }
    }
}

fn head(first: u8, masked: u8, length: usize) -> Vec<u8> {
    let mut head = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => head.push(masked | short),
        (_, Ok(medium)) => {
            head.push(masked | 126);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.push(masked | 127);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, &digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u64::from(digit - b'0'))
    })
}
