//! Clients that write bytes and read bytes: HTTP and WebSocket by hand, so that wrong ones can be sent too.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A socket to the server, on which waiting ends a test after ten seconds.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
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
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
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

    /// Reads frames up to one that contains `text`.
    pub fn frame_with(&mut self, text: &str) -> String {
        loop {
            let frame = self.frame();
            let found = frame.text();
            if found.contains(text) {
                return found.to_owned();
            }
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
