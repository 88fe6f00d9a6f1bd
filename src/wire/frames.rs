//! A client's WebSocket frames (RFC 6455, section 5), read as they come: bytes in, messages out, and no I/O.
//!
//! Every rule is checked as soon as the byte that breaks it is there. Between two messages a [`Reader`] holds nothing
//! but its few fields. The header is parsed by tungstenite, whose own reader knows no extension, checks text only when
//! a frame is whole and wants a buffer for each connection. Imports `wire::deflate`.

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{FrameHeader, Utf8Bytes};

use super::deflate::{Inflater, Unpackable};

/// The longest header that a client sends.
const HEADER_MAX: usize = 14;
/// The longest payload of a control frame.
const CONTROL_MAX: u64 = 125;

/// What a client has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message that is UTF-8.
    Text(Utf8Bytes),
    /// Any other message.
    Binary(Bytes),
    /// To be answered with the same payload.
    Ping(Bytes),
    /// An answer to a ping.
    Pong,
    /// The end, with a code and a reason or without both.
    Close(Option<(u16, String)>),
}

impl Event {
    /// The bytes of a message.
    pub fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Ping(_) | Self::Pong | Self::Close(_) => 0,
        }
    }
}

/// How a client broke the protocol. It is not read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A rule of RFC 6455 or RFC 7692.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text, or a reason, that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
    /// A message that does not decompress.
    #[error("not a compressed message")]
    Compression,
    /// A message over the limit.
    #[error("messages may have at most {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

impl Broken {
    /// The close code for it (RFC 6455, section 7.4.1).
    pub fn code(&self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Text | Self::Compression => 1007,
            Self::TooLong { .. } => 1009,
        }
    }
}

/// Reads one connection.
#[derive(Debug)]
pub struct Reader {
    limit: usize,
    compression: bool,
    /// The header that is being read, of which `have` bytes are there.
    header: [u8; HEADER_MAX],
    have: u8,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The message that is being read, in one or more frames.
    message: Option<Message>,
    /// The payload of the control frame that is being read.
    control: Vec<u8>,
    /// By how much messages were larger than what came for them.
    unpacked: usize,
}

#[derive(Debug)]
struct Frame {
    /// None for data.
    control: Option<Control>,
    last: bool,
    /// Turned so that its first byte is for the next byte of the payload.
    mask: [u8; 4],
    left: usize,
}

#[derive(Debug)]
struct Message {
    text: bool,
    compressed: bool,
    bytes: Vec<u8>,
    /// How many of `bytes` are known to be UTF-8; what follows is the beginning of a character.
    valid: usize,
}

impl Reader {
    /// For messages of at most `limit` bytes, with or without compression.
    pub fn new(limit: usize, compression: bool) -> Self {
        Self {
            limit,
            compression,
            header: [0; HEADER_MAX],
            have: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            unpacked: 0,
        }
    }

    /// How many bytes decompression has added since the last call: a client pays for them as if it had sent them.
    pub fn take_unpacked(&mut self) -> usize {
        std::mem::take(&mut self.unpacked)
    }

    /// Takes from the beginning of `input` up to the end of the next message or control frame. Without one, all of
    /// `input` has been taken, and more is needed.
    pub fn read(
        &mut self,
        input: &mut &[u8],
        inflater: &mut Inflater,
    ) -> Result<Option<Event>, Broken> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.begin(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let (payload, rest) = input.split_at(frame.left.min(input.len()));
            *input = rest;
            frame.left -= payload.len();
            match (&frame.control, &mut self.message) {
                (None, Some(message)) => {
                    put(&mut message.bytes, payload, frame.mask);
                    message.check_text()?;
                }
                _ => put(&mut self.control, payload, frame.mask),
            }
            frame.mask.rotate_left(payload.len() % 4);
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            match frame.control {
                Some(control) => return self.control(control).map(Some),
                None if !frame.last => {}
                None => {
                    if let Some(message) = self.message.take() {
                        let came = message.bytes.len();
                        let event = message.finish(self.limit, inflater)?;
                        self.unpacked += event.length().saturating_sub(came);
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// Reads a header, and begins its frame when it is whole.
    fn begin(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Broken> {
        let have = usize::from(self.have);
        let more = input.len().min(HEADER_MAX - have);
        self.header[have..have + more].copy_from_slice(&input[..more]);
        let mut cursor = Cursor::new(&self.header[..have + more]);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| Broken::Protocol("unknown opcode"))?;
        let Some((header, length)) = parsed else {
            self.have = (have + more) as u8;
            *input = &input[more..];
            return Ok(None);
        };
        // All that was there before is of the header: else it had been parsed then.
        *input = &input[cursor.position() as usize - have..];
        self.have = 0;
        self.check(&header, length).map(Some)
    }

    fn check(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, Broken> {
        let wrong = |what| Err(Broken::Protocol(what));
        if header.rsv2 || header.rsv3 {
            return wrong("a reserved bit is set");
        }
        let Some(mask) = header.mask else {
            return wrong("a frame that is not masked");
        };
        let begins = match header.opcode {
            OpCode::Data(Data::Continue) => None,
            OpCode::Data(Data::Text) => Some(true),
            OpCode::Data(_) => Some(false),
            OpCode::Control(control) => {
                if header.rsv1 {
                    return wrong("a compressed control frame");
                }
                if !header.is_final || length > CONTROL_MAX {
                    return wrong("a control frame that is fragmented or too long");
                }
                return Ok(Frame {
                    control: Some(control),
                    last: true,
                    mask,
                    left: length as usize,
                });
            }
        };
        match (begins, &self.message) {
            (Some(_), Some(_)) => return wrong("a message within a message"),
            (None, None) => return wrong("the continuation of nothing"),
            _ => {}
        }
        if header.rsv1 && (!self.compression || begins.is_none()) {
            return wrong("the first reserved bit is set");
        }
        if let Some(text) = begins {
            self.message = Some(Message {
                text,
                compressed: header.rsv1,
                bytes: Vec::new(),
                valid: 0,
            });
        }
        let (before, compressed) = self
            .message
            .as_ref()
            .map_or((0, false), |m| (m.bytes.len(), m.compressed));
        // What does not compress grows by some bytes in each 16 KiB.
        let limit = match compressed {
            true => self.limit + self.limit / 1024 + 64,
            false => self.limit,
        };
        if length > (limit - before) as u64 {
            return Err(Broken::TooLong { limit: self.limit });
        }
        Ok(Frame {
            control: None,
            last: header.is_final,
            mask,
            left: length as usize,
        })
    }

    fn control(&mut self, control: Control) -> Result<Event, Broken> {
        let payload = std::mem::take(&mut self.control);
        match control {
            Control::Ping => Ok(Event::Ping(payload.into())),
            Control::Pong => Ok(Event::Pong),
            _ => close(&payload),
        }
    }
}

impl Message {
    /// Fails at the first byte that cannot be part of UTF-8, however the text is cut into pieces.
    fn check_text(&mut self) -> Result<(), Broken> {
        if !self.text || self.compressed {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(_) => self.valid = self.bytes.len(),
            Err(error) if error.error_len().is_some() => return Err(Broken::Text),
            Err(error) => self.valid += error.valid_up_to(),
        }
        Ok(())
    }

    fn finish(mut self, limit: usize, inflater: &mut Inflater) -> Result<Event, Broken> {
        if self.compressed {
            self.bytes =
                inflater
                    .unpack(self.bytes, limit)
                    .map_err(|unpackable| match unpackable {
                        Unpackable::TooLong => Broken::TooLong { limit },
                        Unpackable::Broken => Broken::Compression,
                    })?;
            self.compressed = false;
            self.check_text()?;
        }
        if !self.text {
            return Ok(Event::Binary(self.bytes.into()));
        }
        if self.valid < self.bytes.len() {
            return Err(Broken::Text);
        }
        // SAFETY: all of the bytes, which nobody else has, were found to be UTF-8 as they came.
        let text = unsafe { Utf8Bytes::from_bytes_unchecked(self.bytes.into()) };
        Ok(Event::Text(text))
    }
}

fn close(payload: &[u8]) -> Result<Event, Broken> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(Event::Close(None)),
            _ => Err(Broken::Protocol("half of a close code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(Broken::Protocol("not a close code"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Broken::Text)?;
    Ok(Event::Close(Some((code, reason.to_owned()))))
}

fn put(into: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    let start = into.len();
    into.extend_from_slice(payload);
    unmask(&mut into[start..], mask);
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let narrow = u64::from(u32::from_ne_bytes(mask));
    let wide = narrow << 32 | narrow;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
