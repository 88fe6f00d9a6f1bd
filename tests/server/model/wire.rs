//! One connection of any transport: what comes on it, item by item, to its end.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::client::{Client, handshake, masked};

const PUSHER_PATH: &str = "/app/a-key?protocol=7&client=test";

/// What came.
#[derive(Debug)]
pub enum Item {
    /// A frame of the native protocol, on whatever transport.
    Frame(Value),
    /// The id of a server-sent event.
    Id(String),
    /// The head of a stream of updates: after which of them it begins.
    Head(Option<String>),
    /// One of them: its id and its data, each if it has one.
    Update(Option<String>, Option<Value>),
    /// An answer of HTTP with its status.
    Answer(u16, Value),
    /// The end; with WebSocket's close code.
    End(Option<u16>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Frames,
    /// The Pusher protocol's, which are told as the native one's.
    Pusher,
    Events,
    /// Of the Mercure protocol.
    Updates,
    Lines,
    Answers,
}

/// The connection.
pub struct Wire {
    client: Client,
    form: Form,
    bytes: Vec<u8>,
    /// The body so far, without HTTP's chunks.
    text: Vec<u8>,
    ready: VecDeque<Item>,
    began: bool,
    /// The last chunk has come.
    ended: bool,
}

impl Wire {
    /// Opens one for `form`; `narrow` ones hold little in the kernel.
    pub fn open(address: &str, form: Form, narrow: bool) -> Self {
        let client = if narrow {
            Client::narrow(address)
        } else {
            Client::connect(address)
        };
        let mut wire = Self {
            client,
            form,
            bytes: Vec::new(),
            text: Vec::new(),
            ready: VecDeque::new(),
            began: false,
            ended: false,
        };
        match form {
            Form::Frames => wire.client.send(handshake("/ws", "").as_bytes()),
            Form::Pusher => wire.client.send(handshake(PUSHER_PATH, "").as_bytes()),
            _ => {}
        }
        wire
    }

    /// Sends a frame of the native protocol. A connection that has ended says so when it is read.
    pub fn say(&mut self, text: &str) {
        let _ = self.client.try_send(&masked(0x81, text.as_bytes()));
    }

    /// Sends a request. `more` are header lines, each with its line end.
    pub fn request(&mut self, path: &str, more: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{more}\r\n");
        let _ = self.client.try_send(head.as_bytes());
    }

    /// Waits for the next item.
    pub fn next(&mut self) -> Item {
        loop {
            self.digest();
            if let Some(item) = self.ready.pop_front() {
                return item;
            }
            match self.client.some() {
                Some(more) => self.bytes.extend(more),
                None => return Item::End(None),
            }
        }
    }

    fn digest(&mut self) {
        if !self.began && self.form != Form::Answers {
            let Some(end) = find(&self.bytes, b"\r\n\r\n") else {
                return;
            };
            let head = String::from_utf8(self.bytes.drain(..end + 4).collect()).unwrap();
            let status = match self.form {
                Form::Frames | Form::Pusher => "101",
                _ => "200",
            };
            assert_eq!(&head[9..12], status, "{head}");
            self.began = true;
            if self.form == Form::Updates {
                let preceding = crate::client::header(&head, "last-event-id");
                let preceding = preceding.map(ToOwned::to_owned);
                self.ready.push_back(Item::Head(preceding));
            }
        }
        match self.form {
            Form::Frames | Form::Pusher => while self.frame().is_some() {},
            Form::Answers => while self.answer().is_some() {},
            Form::Events | Form::Updates | Form::Lines => {
                while self.chunk().is_some() {}
                let end: &[u8] = if self.form == Form::Lines {
                    b"\n"
                } else {
                    b"\n\n"
                };
                while let Some(at) = find(&self.text, end) {
                    let part: Vec<u8> = self.text.drain(..at + end.len()).collect();
                    self.part(std::str::from_utf8(&part).unwrap());
                }
                if self.ended {
                    self.ready.push_back(Item::End(None));
                }
            }
        }
    }

    fn frame(&mut self) -> Option<()> {
        let (start, length) = match *self.bytes {
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, length, ..] if length < 126 => (2, usize::from(length)),
            [_, 127, ..] => panic!("no frame here is that long"),
            _ => return None,
        };
        let body = self.bytes.get(start..start + length)?;
        match self.bytes[0] {
            0x81 => {
                let frame: Value = serde_json::from_slice(body).unwrap();
                let frame = match self.form {
                    Form::Pusher => native(&frame),
                    _ => frame,
                };
                self.ready.push_back(Item::Frame(frame));
            }
            0x88 => {
                let code = u16::from_be_bytes([body[0], body[1]]);
                self.ready.push_back(Item::End(Some(code)));
            }
            // The test is over before a ping must be answered.
            0x89 => {}
            other => panic!("a frame that begins with {other:#x}"),
        }
        self.bytes.drain(..start + length);
        Some(())
    }

    fn answer(&mut self) -> Option<()> {
        let end = find(&self.bytes, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.bytes[..end]).unwrap();
        let status = head[9..12].parse().unwrap();
        let length = crate::client::header(head, "content-length").unwrap();
        let length: usize = length.parse().unwrap();
        let body = self.bytes.get(end..end + length)?;
        let body = serde_json::from_slice(body).unwrap();
        self.ready.push_back(Item::Answer(status, body));
        self.bytes.drain(..end + length);
        Some(())
    }

    fn chunk(&mut self) -> Option<()> {
        let line = find(&self.bytes, b"\r\n")?;
        let size = std::str::from_utf8(&self.bytes[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let end = line + 2 + size;
        if self.bytes.len() < end + 2 {
            return None;
        }
        self.ended |= size == 0;
        self.text.extend_from_slice(&self.bytes[line + 2..end]);
        self.bytes.drain(..end + 2);
        Some(())
    }

    /// A whole event, or a whole line.
    fn part(&mut self, text: &str) {
        if self.form == Form::Lines {
            if !text.trim().is_empty() {
                let frame = serde_json::from_str(text).unwrap();
                self.ready.push_back(Item::Frame(frame));
            }
            return;
        }
        let mut data = String::new();
        let mut id = None;
        for line in text.lines() {
            if let Some(more) = line.strip_prefix("data: ") {
                data.push_str(more);
            } else if let Some(given) = line.strip_prefix("id: ") {
                id = Some(given.to_owned());
            }
        }
        if self.form == Form::Updates {
            let data = serde_json::from_str(&data).ok();
            return self.ready.push_back(Item::Update(id, data));
        }
        if !data.is_empty() {
            let frame = serde_json::from_str(&data).unwrap();
            self.ready.push_back(Item::Frame(frame));
        }
        self.ready.extend(id.map(Item::Id));
    }
}

/// What an event of the Pusher protocol is called in the native one.
fn native(frame: &Value) -> Value {
    let data = || serde_json::from_str::<Value>(frame["data"].as_str().unwrap()).unwrap();
    let (channel, id) = (&frame["channel"], &frame["id"]);
    match frame["event"].as_str().unwrap() {
        "pusher:connection_established" => json!({"type": "welcome"}),
        "pusher:pong" => json!({"type": "pong"}),
        "pusher_internal:subscription_succeeded" => {
            json!({"type": "subscribed", "channel": channel, "id": id, "recovered": frame["recovered"]})
        }
        // It says that the connection ends; the close frame behind it says why.
        "pusher:error" if data()["code"].as_u64() >= Some(4200) => json!({"type": "farewell"}),
        "message" => json!({"type": "message", "channel": channel, "id": id, "data": data()}),
        _ => json!({"type": "error", "said": frame}),
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|part| part == needle)
}
