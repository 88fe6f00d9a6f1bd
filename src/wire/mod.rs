//! Bytes <-> values, and no I/O: what clients and processes on this machine read and write.
//!
//! [`encode`] turns one message into the bytes of one [`Format`]; whoever has the bytes shares them with every
//! subscriber of that format. Imports `ids` and `message`.

pub mod control;
pub mod deflate;
pub mod envelope;
pub mod events;
pub mod fastcgi;
pub mod frames;
pub mod handover;
pub mod mercure;
pub mod native;
pub mod output;
pub mod pusher;
pub mod sse;
pub mod websocket;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use crate::message::{EventName, Payload, Publication};
use deflate::{Packer, Packing};

/// How a connection wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A WebSocket text frame with the native envelope (`/ws`).
    Native(Packing),
    /// A WebSocket frame that is the payload (`/raw`).
    Raw(Packing),
    /// A WebSocket text frame with an event of the Pusher protocol (`/app/{key}`).
    Pusher(Packing),
    /// Server-Sent Events.
    Sse {
        /// What an event's data is.
        flavour: Flavour,
        /// How the HTTP body is framed.
        body: Body,
    },
    /// One native envelope a line.
    Stream {
        /// How the HTTP body is framed.
        body: Body,
    },
    /// The bare native envelope, for `/poll` to put into an array.
    Object,
}

/// What the data of a Server-Sent Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// The message's (`/sse`).
    Data,
    /// The native envelope (`/sse?meta=1`).
    Meta,
    /// An update's (`/.well-known/mercure`).
    Mercure,
}

/// How an endless HTTP/1 body is framed (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Chunked, for HTTP/1.1.
    Chunked,
    /// Up to the end of the connection, for HTTP/1.0.
    UntilClose,
}

impl Format {
    /// How many different formats there are.
    pub const COUNT: usize = 9 + 3 * Packing::COUNT;

    /// A number below [`Format::COUNT`] of its own.
    pub fn index(self) -> usize {
        match self {
            Self::Object => 0,
            Self::Sse { flavour, body } => 1 + flavour as usize * 2 + body.index(),
            Self::Stream { body } => 7 + body.index(),
            Self::Native(packing) => 9 + packing.index(),
            Self::Raw(packing) => 9 + Packing::COUNT + packing.index(),
            Self::Pusher(packing) => 9 + 2 * Packing::COUNT + packing.index(),
        }
    }

    /// How messages are compressed in it.
    pub fn packing(self) -> Packing {
        match self {
            Self::Native(packing) | Self::Raw(packing) | Self::Pusher(packing) => packing,
            Self::Sse { .. } | Self::Stream { .. } | Self::Object => Packing::Plain,
        }
    }
}

/// What a shard asks, which knows no protocol by name.
impl Format {
    /// Whether it is spoken over a WebSocket, whose client answers a heartbeat.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Native(_) | Self::Raw(_) | Self::Pusher(_))
    }

    /// Whether it is a body without end, on which a client says nothing.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Sse { .. } | Self::Stream { .. })
    }

    /// Whether its clients can tell who comes and goes from a message.
    pub fn tells_events(self) -> bool {
        !matches!(self, Self::Raw(_))
    }

    /// Whether its clients get one copy alone of what is published on several channels as one update.
    pub fn wants_one_copy(self) -> bool {
        match self {
            Self::Sse { flavour, .. } => flavour == Flavour::Mercure,
            _ => false,
        }
    }
}

impl Body {
    fn index(self) -> usize {
        match self {
            Self::Chunked => 0,
            Self::UntilClose => 1,
        }
    }

    /// Frames `content` for the body.
    pub fn frame(self, content: Vec<u8>) -> Bytes {
        match self {
            Self::UntilClose => content.into(),
            Self::Chunked => {
                let mut chunk = Vec::with_capacity(content.len() + 16);
                chunk.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
                chunk.extend_from_slice(&content);
                chunk.extend_from_slice(b"\r\n");
                chunk.into()
            }
        }
    }

    /// What ends the body properly.
    pub fn end(self) -> &'static [u8] {
        match self {
            Self::Chunked => b"0\r\n\r\n",
            Self::UntilClose => b"",
        }
    }
}

/// A message on its way to a client, borrowed from wherever it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The channel; none when it is for one connection alone.
    pub channel: Option<&'a str>,
    /// The id; none when it is for one connection alone.
    pub id: Option<&'a str>,
    /// The position, when the id is the publisher's own and does not tell it.
    pub cursor: Option<&'a str>,
    /// The event's name.
    pub event: &'a EventName,
    /// The content.
    pub payload: &'a Payload,
    /// How long EventSource is to wait before it reconnects, in milliseconds, where the publisher said that.
    pub retry: Option<u64>,
}

/// Encodes a publication for subscribers with `format`.
pub fn encode_publication(publication: &Publication, format: Format, packer: &mut Packer) -> Bytes {
    let id = match format {
        Format::Sse {
            flavour: Flavour::Mercure,
            ..
        } => mercure::update_id(publication),
        _ => publication.public_id(),
    };
    let cursor = publication.id.as_ref().map(|_| publication.position.text());
    encode(
        &Outgoing {
            channel: Some(publication.channel.as_str()),
            id: Some(&id),
            cursor: cursor.as_deref(),
            event: &publication.event,
            payload: &publication.payload,
            retry: publication.terms.as_ref().and_then(|terms| terms.retry),
        },
        format,
        packer,
    )
}

/// Encodes a message for clients with `format`. Small ones, and those that compression would not make smaller, are the
/// same for a compressed format as without compression.
pub fn encode(message: &Outgoing<'_>, format: Format, packer: &mut Packer) -> Bytes {
    match format {
        Format::Native(packing) => websocket::text(&envelope::message(message), packing, packer),
        Format::Raw(packing) => websocket::raw(message.payload, packing, packer),
        Format::Pusher(packing) => websocket::text(&pusher::message(message), packing, packer),
        Format::Object => envelope::message(message).into(),
        Format::Sse { flavour, body } => body.frame(match flavour {
            Flavour::Data => sse::message(message, false),
            Flavour::Meta => sse::message(message, true),
            Flavour::Mercure => mercure::event(message),
        }),
        Format::Stream { body } => {
            let mut line = envelope::message_line(message);
            line.push(b'\n');
            body.frame(line)
        }
    }
}

/// Encodes a server frame (`welcome`, `subscribed`, `error` ...) for `format`; `None` where it has no place.
pub fn encode_server_frame(frame: &envelope::ServerFrame<'_>, format: Format) -> Option<Bytes> {
    let json = || envelope::server_frame(frame);
    match format {
        Format::Native(_) => Some(websocket::plain_text(&json())),
        Format::Raw(_) | Format::Object => None,
        Format::Pusher(_) => pusher::server_frame(frame).map(|json| websocket::plain_text(&json)),
        Format::Sse { flavour, body } => match flavour {
            Flavour::Data => sse::server_frame(frame, false).map(|text| body.frame(text)),
            Flavour::Meta => sse::server_frame(frame, true).map(|text| body.frame(text)),
            Flavour::Mercure => None,
        },
        Format::Stream { body } => {
            let mut line = json();
            line.push(b'\n');
            Some(body.frame(line))
        }
    }
}

/// Encodes the answer to a client's message for `format`: what was returned, or why nothing was. `reference` is the message's own,
/// as JSON. `None` where no answer has a place.
pub fn encode_reply(
    reference: Option<&str>,
    answer: Result<Option<&Payload>, &str>,
    format: Format,
    packer: &mut Packer,
) -> Option<Bytes> {
    match (format, answer) {
        (Format::Native(packing), Ok(payload)) if payload.is_some() || reference.is_some() => {
            let envelope = envelope::reply(reference, payload);
            Some(websocket::text(&envelope, packing, packer))
        }
        (Format::Raw(packing), Ok(Some(payload))) => Some(websocket::raw(payload, packing, packer)),
        (Format::Native(_), Err(message)) => {
            let reference = reference.and_then(|text| serde_json::from_str(text).ok());
            let frame = envelope::ServerFrame::Error {
                code: "handler_failed",
                message,
                reference,
                channel: None,
            };
            Some(websocket::plain_text(&envelope::server_frame(&frame)))
        }
        _ => None,
    }
}

/// What keeps a silent connection alive in `format`.
pub fn heartbeat(format: Format) -> Bytes {
    match format {
        Format::Native(_) | Format::Raw(_) => Bytes::from_static(websocket::PING),
        Format::Pusher(_) => websocket::plain_text(&pusher::ping()),
        Format::Sse { body, .. } => body.frame(b":\n\n".to_vec()),
        Format::Stream { body } => body.frame(b"\n".to_vec()),
        Format::Object => Bytes::new(),
    }
}

/// The last that a connection with `format` gets which PHP closes.
pub fn dismissal(format: Format, code: u16, reason: &str) -> Bytes {
    match format {
        Format::Pusher(_) => pusher::dismissal(code, reason),
        _ => farewell(format, code, reason),
    }
}

/// The last that a connection with `format` gets.
pub fn farewell(format: Format, code: u16, reason: &str) -> Bytes {
    match format {
        Format::Native(_) | Format::Raw(_) => websocket::close(code, reason),
        Format::Pusher(_) => pusher::farewell(code, reason),
        Format::Sse { body, .. } | Format::Stream { body } => Bytes::from_static(body.end()),
        Format::Object => Bytes::new(),
    }
}

/// Base64 of `bytes`, as a JSON string.
fn base64_json(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.push(b'"');
}
