//! Clients that write bytes and read bytes: HTTP and WebSocket by hand, so that wrong ones can be sent too.

use std::io::{Read, Write};
use std::net::SocketAddr;

use realtime::ids::ConnectionId;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::PATIENCE;

/// A socket to the server, on which waiting too long ends a test.
pub struct Client {
    stream: Socket,
    buffer: Vec<u8>,
}

/// An HTTP answer with a length.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        let json = self.json();
        assert!(
            json["error"]["message"]
                .as_str()
                .is_some_and(|m| !m.is_empty()),
            "{json}"
        );
        json["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// A WebSocket frame as it was received.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(&self) -> &str {
        assert_eq!(self.opcode, 1, "a text frame, not {self:?}");
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// The code and the reason of a close frame.
    pub fn close(&self) -> (u16, &str) {
        assert_eq!(self.opcode, 8, "a close frame, not {self:?}");
        let code = u16::from_be_bytes([self.payload[0], self.payload[1]]);
        (code, std::str::from_utf8(&self.payload[2..]).unwrap())
    }
}

impl Client {
    pub fn connect(address: &str) -> Self {
        Self::with_receive_buffer(address, None)
    }

    /// With a receive buffer of so many bytes, for clients that shall be slow.
    pub fn with_receive_buffer(address: &str, size: Option<usize>) -> Self {
        let (domain, at) = match address.strip_prefix("unix:") {
            Some(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
            None => (Domain::IPV4, address.parse::<SocketAddr>().unwrap().into()),
        };
        let stream = Socket::new(domain, Type::STREAM, None).unwrap();
        if let Some(size) = size {
            stream.set_recv_buffer_size(size).unwrap();
        }
        stream.connect(&at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        if domain == Domain::IPV4 {
            stream.set_tcp_nodelay(true).unwrap();
        }
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Connects to `/ws` and takes the welcome.
    pub fn native(address: &str) -> (Self, Welcome) {
        let mut client = Self::websocket(address, "/ws");
        let welcome = client.json();
        assert_eq!(welcome["type"], "welcome");
        (client, Welcome(welcome))
    }

    /// Sends a request without a body and reads the answer.
    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, "", "")
    }

    /// Sends a request and reads the answer. `more` are header lines, each with its line end.
    pub fn request(&mut self, method: &str, path: &str, more: &str, body: &str) -> Response {
        let length = match method {
            "POST" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let host = "Host: test.example\r\n";
        self.send(format!("{method} {path} HTTP/1.1\r\n{host}{length}{more}\r\n{body}").as_bytes());
        self.response(method != "HEAD")
    }

    /// Posts JSON to `/publish`.
    pub fn post(&mut self, body: &str) -> Response {
        self.request(
            "POST",
            "/publish",
            "Content-Type: application/json\r\n",
            body,
        )
    }

    /// Reads an answer with a length.
    pub fn response(&mut self, with_body: bool) -> Response {
        let head = self.head();
        let status = head[9..12].parse().unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = if with_body {
            self.take(length)
        } else {
            Vec::new()
        };
        Response {
            status,
            body: String::from_utf8(body).unwrap(),
            head,
        }
    }

    /// Asks for a stream, and reads its head.
    pub fn stream(address: &str, path: &str, more: &str) -> Self {
        let mut client = Self::connect(address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test.example\r\n{more}\r\n").as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(
            header(&head, "transfer-encoding"),
            Some("chunked"),
            "{head}"
        );
        client
    }

    /// Reads one chunk of a chunked body, exactly framed; `None` is the last.
    pub fn chunk(&mut self) -> Option<String> {
        let size = self.until(b"\r\n");
        let size = size.trim_end();
        assert!(
            !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit()),
            "{size:?}"
        );
        let size = usize::from_str_radix(size, 16).unwrap();
        let content = String::from_utf8(self.take(size)).unwrap();
        assert_eq!(self.take(2), b"\r\n");
        (size > 0).then_some(content)
    }

    /// Reads chunks up to one that contains `text`.
    pub fn chunk_with(&mut self, text: &str) -> String {
        loop {
            let chunk = self.chunk().expect("the stream goes on");
            if chunk.contains(text) {
                return chunk;
            }
        }
    }

    /// Reads a text frame of JSON.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        let frame = self.frame();
        serde_json::from_str(frame.text()).unwrap()
    }

    /// Says `text` and reads the answer.
    #[track_caller]
    pub fn ask(&mut self, text: &str) -> Value {
        self.say(text);
        self.json()
    }

    /// Subscribes on `/ws`, from `since` on when given, and returns the answer.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str, since: Option<&str>) -> Value {
        let since = since.map_or(String::new(), |since| format!(r#","since":"{since}""#));
        let answer = self.ask(&format!(
            r#"{{"type":"subscribe","channel":"{channel}"{since}}}"#
        ));
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// Ends the sending side.
    pub fn shut_write(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// What comes up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut more = [0; 16384];
        loop {
            match self.stream.read(&mut more) {
                Ok(0) => break,
                Ok(count) => self.buffer.extend_from_slice(&more[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.buffer)),
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// Connects and goes through the WebSocket handshake.
    pub fn websocket(address: &str, path: &str) -> Self {
        let mut client = Self::connect(address);
        client.send(handshake(path, "").as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "RFC 6455's own example: {head}"
        );
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends to a server that may have had enough.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads a response's head, up to and with the empty line.
    pub fn head(&mut self) -> String {
        self.until(b"\r\n\r\n")
    }

    /// Reads up to and with `end`.
    pub fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                let rest = self.buffer.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.buffer, rest)).unwrap();
            }
            self.fill();
        }
    }

    /// Reads exactly so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.fill();
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads one WebSocket frame.
    pub fn frame(&mut self) -> Frame {
        let head = self.take(2);
        assert_eq!(head[0] & 0x70, 0, "no reserved bits");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().unwrap()) as usize,
            127 => u64::from_be_bytes(self.take(8).try_into().unwrap()) as usize,
            short => short as usize,
        };
        Frame {
            opcode: head[0] & 0x0f,
            payload: self.take(length),
        }
    }

    /// Sends a masked text frame.
    pub fn say(&mut self, text: &str) {
        self.send(&masked(0x81, text.as_bytes()));
    }

    /// Whether the server has ended the connection.
    pub fn is_ended(&mut self) -> bool {
        let mut rest = [0; 1024];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    fn fill(&mut self) {
        let mut more = [0; 16384];
        let count = self.stream.read(&mut more).unwrap_or_else(|error| {
            panic!("{error} after {:?}", String::from_utf8_lossy(&self.buffer))
        });
        assert_ne!(
            count,
            0,
            "the server closed after {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
        self.buffer.extend_from_slice(&more[..count]);
    }
}

/// A welcome frame.
pub struct Welcome(pub Value);

impl Welcome {
    pub fn connection(&self) -> &str {
        self.0["connection"].as_str().unwrap()
    }

    pub fn id(&self) -> ConnectionId {
        self.connection().parse().unwrap()
    }

    pub fn key(&self) -> &str {
        self.0["key"].as_str().unwrap()
    }
}

/// A header's value in a response's head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// A handshake with the key of RFC 6455, section 1.3, and more header lines, each with its line end.
pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's frame: the first byte as given, the payload masked.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ mask[i % 4]),
    );
    frame
}
