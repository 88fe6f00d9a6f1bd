//! The client role: one thread, one epoll, N connections that count, check and time what arrives.
//!
//! Obeys lines on standard input, answers on standard output. When all connections have a message it writes
//! one byte to descriptor 3, the publisher's standard input: the same signal for every contestant. Anything
//! lost, doubled, reordered, closed or late is an error and ends the process.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustls::ClientConnection;
use socket2::{Domain, Socket, Type};

use realtime::wire::deflate::Inflater;

use crate::cpu;
use crate::epoll::Epoll;
use crate::stats::Histogram;
use crate::tls;
use crate::wire::{self, Decoder, Event, Kind};
use crate::{Outcome, say};

/// The descriptor on which a message that all have is signalled.
pub const SIGNAL_FD: i32 = 3;

/// How long nothing may arrive before a message counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many handshakes are under way at a time; below any sane listen backlog.
const OPENING: usize = 100;

/// What the role is told on its command line.
#[derive(Debug)]
pub struct Options {
    /// How to talk.
    pub kind: Kind,
    /// Where the server is.
    pub address: SocketAddr,
    /// How many connections.
    pub connections: usize,
    /// The channel to subscribe to.
    pub channel: String,
    /// How it waits and reads.
    pub manner: Manner,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Sleeps until something arrives.
    Plain,
    /// Never sleeps while it waits for messages. A sleeping client has to be woken by the server's write, which costs the
    /// writer as much again as the write: whether it slept would decide the figure.
    Awake,
    /// Has tiny socket buffers, for a client that is to be slow.
    Small,
}

/// After so long nothing comes any more.
const QUIET: Duration = Duration::from_millis(500);

/// Takes what a member is told of another.
fn joined(text: &[u8]) -> Outcome<()> {
    match wire::find(text, br#""type":"join""#) {
        Some(_) => Ok(()),
        None => Err(format!(
            "unexpected frame: {}",
            String::from_utf8_lossy(text)
        )),
    }
}

impl Manner {
    const ALL: [Self; 3] = [Self::Plain, Self::Awake, Self::Small];

    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Awake => "awake",
            Self::Small => "small",
        }
    }

    /// The manner of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|manner| manner.name() == name)
    }
}

/// Runs the role: connects all, says `OPEN`, then obeys until standard input ends.
pub fn run(options: &Options) -> Outcome<()> {
    let mut client = Client::open(options)?;
    say("OPEN");
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.parse::<usize>().map_err(|e| format!("client: {e}"));
        match words[..] {
            // All connections get MESSAGES of BYTES; `count` is without sequence, latency and signal.
            ["expect", messages, bytes] => {
                client.expect(number(messages)?, Some(number(bytes)?))?;
            }
            ["count", messages] => client.expect(number(messages)?, None)?,
            ["echo", each, window, bytes] => {
                client.echo(number(each)?, number(window)?, number(bytes)?)?;
            }
            _ => return Err(format!("client: cannot do \"{line}\"")),
        }
    }
    Ok(())
}

struct Client {
    kind: Kind,
    awake: bool,
    epoll: Epoll,
    connections: Vec<Connection>,
    buffer: Box<[u8]>,
    signal: std::fs::File,
    /// Bytes that came.
    bytes: u64,
    inflater: Inflater,
}

struct Connection {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    decoder: Decoder,
    received: u64,
    sent: usize,
    open: bool,
}

impl Connection {
    /// Writes a few bytes that surely fit the socket's buffer.
    fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        let written = match &mut self.tls {
            Some(tls) => tls::send(tls, &self.socket, bytes),
            None => self.socket.write(bytes),
        };
        match written {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(written) => Err(format!("wrote {written} of {} bytes", bytes.len())),
            Err(error) => Err(format!("write: {error}")),
        }
    }

    /// Reads once, all that is there up to the buffer, and hands the texts to `text` (with this connection). Returns how
    /// many bytes came.
    fn read(
        &mut self,
        buffer: &mut [u8],
        inflater: &mut Inflater,
        mut text: impl FnMut(&mut State<'_>, &[u8]) -> Outcome<()>,
    ) -> Outcome<u64> {
        let length = match &mut self.tls {
            Some(tls) => tls::receive(tls, &self.socket, buffer),
            None => (&self.socket).read(buffer),
        };
        let length = match length {
            Ok(0) => return Err("the server hung up".into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(format!("read: {error}")),
        };
        let mut state = State {
            socket: &self.socket,
            received: &mut self.received,
            open: &mut self.open,
        };
        self.decoder
            .feed(&buffer[..length], &mut |event| match event {
                Event::Open => {
                    *state.open = true;
                    Ok(())
                }
                Event::Text(bytes) => text(&mut state, bytes),
                Event::Packed(bytes) => {
                    let unpacked = inflater.unpack(bytes.to_vec(), 1 << 20);
                    let unpacked = unpacked.map_err(|e| format!("decompression: {e:?}"))?;
                    text(&mut state, &unpacked)
                }
                Event::Ping(bytes) => state
                    .socket
                    .send(&wire::client_frame(0xA, bytes))
                    .map(|_| ())
                    .map_err(|e| format!("pong: {e}")),
            })?;
        Ok(length as u64)
    }
}

/// What a text may look at and change of its connection while the decoder is at work.
struct State<'a> {
    socket: &'a Socket,
    received: &'a mut u64,
    open: &'a mut bool,
}

impl Client {
    fn open(options: &Options) -> Outcome<Self> {
        // SAFETY: the driver put a pipe at descriptor 3 for this role alone; nothing else in the process owns it.
        let signal = unsafe { OwnedFd::from_raw_fd(SIGNAL_FD) };
        let mut client = Self {
            kind: options.kind,
            awake: options.manner == Manner::Awake,
            epoll: Epoll::new()?,
            connections: Vec::with_capacity(options.connections),
            buffer: vec![0; 256 << 10].into(),
            signal: signal.into(),
            bytes: 0,
            inflater: Inflater::default(),
        };
        let mut opened = 0;
        while opened < options.connections {
            while client.connections.len() < options.connections
                && client.connections.len() < opened + OPENING
            {
                client.connect(options)?;
            }
            opened += client.advance_handshakes(options)?;
        }
        if options.kind == Kind::Member {
            client.pass_joins()?;
        }
        Ok(client)
    }

    fn connect(&mut self, options: &Options) -> Outcome<()> {
        let fail = |error: io::Error| format!("connect to {}: {error}", options.address);
        let socket =
            Socket::new(Domain::for_address(options.address), Type::STREAM, None).map_err(fail)?;
        if options.manner == Manner::Small {
            socket.set_recv_buffer_size(2048).map_err(fail)?;
            socket.set_tcp_mss(536).map_err(fail)?;
        }
        // Connecting to loopback ends at once; only what follows needs an event loop.
        socket
            .connect_timeout(&options.address.into(), PATIENCE)
            .map_err(fail)?;
        socket.set_tcp_nodelay(true).map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        let token = self.connections.len();
        self.epoll.add(socket.as_raw_fd(), token as u64)?;
        let mut connection = Connection {
            socket,
            tls: tls::connect(options.kind)?,
            decoder: Decoder::new(options.kind),
            received: 0,
            sent: 0,
            open: false,
        };
        connection.write(&options.kind.request(&options.channel))?;
        self.connections.push(connection);
        Ok(())
    }

    /// Reads what members are told of those who came after them.
    fn pass_joins(&mut self) -> Outcome<()> {
        loop {
            let ready: Vec<u64> = self.epoll.wait(QUIET)?.collect();
            if ready.is_empty() {
                return Ok(());
            }
            for token in ready {
                let connection = &mut self.connections[token as usize];
                connection.read(&mut self.buffer, &mut self.inflater, |_, text| joined(text))?;
            }
        }
    }

    /// Waits for handshakes; returns how many connections became ready to be published to.
    fn advance_handshakes(&mut self, options: &Options) -> Outcome<usize> {
        let greeting = options.kind.greeting(&options.channel);
        let mut opened = 0;
        let ready: Vec<u64> = self.epoll.wait(PATIENCE)?.collect();
        if ready.is_empty() {
            return Err(format!(
                "{} of {} connections opened, then nothing for {PATIENCE:?}",
                self.connections.iter().filter(|c| c.open).count(),
                options.connections
            ));
        }
        for token in ready {
            let connection = &mut self.connections[token as usize];
            let was_open = connection.open;
            connection.read(&mut self.buffer, &mut self.inflater, |state, text| {
                let Some(greeting) = &greeting else {
                    return Err("a message came before any was published".into());
                };
                if wire::find(text, greeting.welcome.as_bytes()).is_some() {
                    let frame = wire::client_frame(1, greeting.subscribe.as_bytes());
                    state
                        .socket
                        .send(&frame)
                        .map_err(|e| format!("subscribe: {e}"))?;
                } else if wire::find(text, greeting.subscribed.as_bytes()).is_some() {
                    opened += 1;
                } else {
                    joined(text)?;
                }
                Ok(())
            })?;
            if greeting.is_none() && connection.open && !was_open {
                opened += 1;
            }
        }
        Ok(opened)
    }

    fn expect(&mut self, messages: usize, bytes: Option<usize>) -> Outcome<()> {
        let all = self.connections.len();
        let base = self.connections[0].received;
        let mut arrived = vec![0_usize; messages];
        let mut complete = 0;
        let mut latency = Histogram::new();
        let started = cpu::now();
        self.bytes = 0;
        say("ARMED");
        while complete < messages {
            let before = complete;
            let mut any = false;
            let ready = match self.awake {
                true => self.epoll.spin(PATIENCE)?,
                false => self.epoll.wait(PATIENCE)?,
            };
            for token in ready {
                any = true;
                let mut clock = 0;
                let connection = &mut self.connections[token as usize];
                self.bytes +=
                    connection.read(&mut self.buffer, &mut self.inflater, |state, text| {
                        let Some(payload) = wire::unwrap(self.kind, text) else {
                            return Err(format!(
                                "not a message: {}",
                                String::from_utf8_lossy(text)
                            ));
                        };
                        if let Some(bytes) = bytes {
                            let (sequence, published) = wire::read_payload(payload, bytes)?;
                            if sequence != *state.received {
                                return Err(format!(
                                    "connection {token} got message {sequence} instead of {}",
                                    state.received
                                ));
                            }
                            if clock == 0 {
                                clock = cpu::now();
                            }
                            latency.add(clock.saturating_sub(published));
                        }
                        let index = (*state.received - base) as usize;
                        *state.received += 1;
                        let count = arrived
                            .get_mut(index)
                            .ok_or("more messages arrived than were published")?;
                        *count += 1;
                        complete += usize::from(*count == all);
                        Ok(())
                    })?;
            }
            if !any {
                return Err(format!(
                    "message {complete} of {messages} reached {} of {all} clients, then nothing came for {PATIENCE:?}",
                    arrived.get(complete).unwrap_or(&0)
                ));
            }
            if bytes.is_some() && complete > before {
                self.signal
                    .write_all(&vec![b'.'; complete - before])
                    .map_err(|e| format!("signal: {e}"))?;
            }
        }
        say(&format!(
            "DONE {} {} {} {} {}",
            cpu::now() - started,
            latency.quantile(0.5),
            latency.quantile(0.99),
            self.bytes,
            latency.quantile(1.0)
        ));
        Ok(())
    }

    fn echo(&mut self, each: usize, window: usize, bytes: usize) -> Outcome<()> {
        let payload = wire::payload(0, 0, bytes);
        let frame = wire::client_frame(1, &payload);
        let burst = frame.repeat(window);
        let started = cpu::now();
        let mut left = each * self.connections.len();
        for connection in &mut self.connections {
            connection.received = 0;
            connection.sent = window.min(each);
            let length = connection.sent * frame.len();
            connection.write(&burst[..length])?;
        }
        while left > 0 {
            let mut any = false;
            for token in self.epoll.wait(PATIENCE)? {
                any = true;
                let connection = &mut self.connections[token as usize];
                let before = connection.received;
                connection.read(&mut self.buffer, &mut self.inflater, |state, text| {
                    if text != payload {
                        return Err(format!(
                            "not what was sent: {}",
                            String::from_utf8_lossy(text)
                        ));
                    }
                    *state.received += 1;
                    Ok(())
                })?;
                let arrived = (connection.received - before) as usize;
                left = left
                    .checked_sub(arrived)
                    .ok_or("more echoes than messages")?;
                // What arrived together is answered together, as a client that pipelines would.
                let next = arrived.min(each - connection.sent);
                connection.sent += next;
                if next > 0 {
                    connection.write(&burst[..next * frame.len()])?;
                }
            }
            if !any {
                return Err(format!(
                    "{left} echoes did not come back within {PATIENCE:?}"
                ));
            }
        }
        say(&format!("DONE {} 0 0 0", cpu::now() - started));
        Ok(())
    }
}
