//! Clients that write bytes and read bytes: HTTP and WebSocket by hand, so that wrong ones can be sent too.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use realtime::ids::ConnectionId;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::authority;
use crate::harness::PATIENCE;

/// A socket to the server, on which waiting too long ends a test.
pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
}

/// With TLS or without.
enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
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
        Self::over(socket(address, size))
    }

    /// One for which the kernel keeps some 100 KiB and not megabytes, on its own side and on the server's.
    pub fn narrow(address: &str) -> Self {
        let prepare = |socket: &Socket| {
            socket.set_recv_buffer_size(16 << 10).unwrap();
            // The server's send buffer is sized by it.
            socket.set_tcp_mss(1400).unwrap();
        };
        Self::over(prepared(address, prepare))
    }

    fn over(socket: Socket) -> Self {
        match authority::of_all() {
            Some(authority) => Self::secure_on(socket, &authority.clients()),
            None => Self::on(Stream::Plain(socket)),
        }
    }

    /// Without TLS, whatever the other tests have.
    pub fn plain(address: &str) -> Self {
        Self::on(Stream::Plain(socket(address, None)))
    }

    /// With TLS. The handshake comes with the first bytes that are sent or read.
    pub fn secure(address: &str, config: &Arc<ClientConfig>) -> Self {
        Self::secure_on(socket(address, None), config)
    }

    /// With TLS and a receive buffer of so many bytes.
    pub fn secure_with_receive_buffer(
        address: &str,
        size: usize,
        config: &Arc<ClientConfig>,
    ) -> Self {
        Self::secure_on(socket(address, Some(size)), config)
    }

    fn secure_on(socket: Socket, config: &Arc<ClientConfig>) -> Self {
        let name = "test.example".try_into().unwrap();
        let tls = ClientConnection::new(config.clone(), name).unwrap();
        Self::on(Stream::Tls(Box::new(StreamOwned::new(tls, socket))))
    }

    fn on(stream: Stream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The next bytes, whatever they are; `None` at the end of the connection.
    pub fn some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() {
            let mut more = [0; 16384];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&more[..count]),
                Err(error) if is_cut(&error) => return None,
                Err(error) => panic!("nothing comes: {error}"),
            }
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// What is known of its TLS.
    pub fn tls(&mut self) -> &mut ClientConnection {
        match &mut self.stream {
            Stream::Tls(tls) => &mut tls.conn,
            Stream::Plain(_) => panic!("a connection without TLS"),
        }
    }

    /// Goes through the TLS handshake.
    pub fn try_handshake(&mut self) -> std::io::Result<()> {
        let Stream::Tls(tls) = &mut self.stream else {
            return Ok(());
        };
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(())
    }

    /// Reads once.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer)
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

    /// Goes through the WebSocket handshake.
    pub fn upgrade(&mut self, path: &str) {
        self.send(handshake(path, "").as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "RFC 6455's own example: {head}"
        );
    }

    /// Ends the sending side.
    pub fn shut_write(&self) {
        self.stream
            .socket()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }

    /// What comes up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut more = [0; 16384];
        loop {
            match self.stream.read(&mut more) {
                Ok(0) => break,
                Ok(count) => self.buffer.extend_from_slice(&more[..count]),
                Err(error) if is_cut(&error) => break,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.buffer)),
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// Connects and goes through the WebSocket handshake.
    pub fn websocket(address: &str, path: &str) -> Self {
        let mut client = Self::connect(address);
        client.upgrade(path);
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends to a server that may have had enough.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends past TLS.
    pub fn try_send_bare(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut socket = self.stream.socket();
        socket.write_all(bytes)
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
                Err(error) => return is_cut(&error),
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

impl Stream {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => {
                let count = tls.write(bytes)?;
                // Else it would wait for the next write.
                tls.flush()?;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Ended without a goodbye: TCP's or that of TLS.
fn is_cut(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | UnexpectedEof)
}

fn socket(address: &str, receive_buffer: Option<usize>) -> Socket {
    prepared(address, |socket| {
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
    })
}

fn prepared(address: &str, prepare: impl FnOnce(&Socket)) -> Socket {
    let (domain, at) = match address.strip_prefix("unix:") {
        Some(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
        None => (Domain::IPV4, address.parse::<SocketAddr>().unwrap().into()),
    };
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    prepare(&socket);
    socket.connect(&at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    if domain == Domain::IPV4 {
        socket.set_tcp_nodelay(true).unwrap();
    }
    socket
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
