//! The clients: one thread, one epoll, N connections of the native protocol that note every number they get, and that
//! come back with their cursor when they lose the connection.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::Outcome;
use crate::epoll::Epoll;
use crate::publishers::PUBLISHERS;
use crate::wire::{self, Kind};

/// The code with which a server that hands over closes its clients.
const RECONNECT: u16 = 1012;

/// How the clients get on, for other threads to look at.
#[derive(Debug, Default)]
pub struct Progress {
    /// How many clients there are.
    pub clients: u64,
    /// Deliveries so far.
    pub delivered: AtomicU64,
    /// Deliveries that are not waited for any more.
    pub forgiven: AtomicU64,
    /// Clients whose subscription stands.
    pub subscribed: AtomicU64,
    /// Connections that ended.
    pub dropped: AtomicU64,
    /// Reconnects that stand, with or without a gap.
    pub back: AtomicU64,
    stop: AtomicBool,
}

/// What one client has noted.
#[derive(Debug, Default)]
pub struct Notes {
    /// A bit for each number that came, by publisher.
    seen: [Vec<u64>; PUBLISHERS],
    newest: [Option<u64>; PUBLISHERS],
    /// Messages that came again.
    pub doubled: u64,
    /// Messages that came after a later one of the same publisher.
    pub disordered: u64,
    /// Reconnects whose `since` gave everything.
    pub resumed: u64,
    /// Reconnects that were told of a gap.
    pub gaps: u64,
    /// How its connections ended, by close code; 0 is without one.
    pub ends: BTreeMap<u16, u64>,
    /// Connection attempts that were refused, or broke off before they were answered.
    pub refused: u64,
}

impl Notes {
    /// Whether a message came.
    pub fn has(&self, publisher: usize, number: u64) -> bool {
        let word = self.seen[publisher].get((number / 64) as usize);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Connections that ended otherwise than with "reconnect".
    pub fn torn(&self) -> u64 {
        self.ends
            .iter()
            .filter(|(code, _)| **code != RECONNECT)
            .map(|(_, count)| count)
            .sum()
    }

    fn note(&mut self, publisher: usize, number: u64) {
        let words = &mut self.seen[publisher];
        let index = (number / 64) as usize;
        if words.len() <= index {
            words.resize(index + 1, 0);
        }
        let bit = 1 << (number % 64);
        self.doubled += u64::from(words[index] & bit != 0);
        words[index] |= bit;
        let newest = &mut self.newest[publisher];
        self.disordered += u64::from(newest.is_some_and(|newest| newest > number));
        *newest = (*newest).max(Some(number));
    }
}

/// The running thread.
pub struct Clients {
    /// How they get on.
    pub progress: Arc<Progress>,
    thread: JoinHandle<Outcome<Vec<Notes>>>,
}

impl Clients {
    /// Connects `count` clients to `address`; returns when all have subscribed.
    pub fn start(count: usize, address: SocketAddr) -> Outcome<Self> {
        let progress = Arc::new(Progress {
            clients: count as u64,
            ..Progress::default()
        });
        let shared = progress.clone();
        let clients = Self {
            thread: std::thread::spawn(move || Crowd::open(count, address, shared)?.run()),
            progress,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while clients.progress.subscribed.load(Ordering::Relaxed) < count as u64 {
            if Instant::now() > end || clients.thread.is_finished() {
                let open = clients.progress.subscribed.load(Ordering::Relaxed);
                let why = clients.stop().err().unwrap_or_default();
                return Err(format!("{open} of {count} clients could subscribe {why}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(clients)
    }

    /// Ends them; returns what they have noted.
    pub fn stop(self) -> Outcome<Vec<Notes>> {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| "the clients' thread panicked".to_owned())?
    }
}

struct Crowd {
    address: SocketAddr,
    epoll: Epoll,
    clients: Vec<Client>,
    buffer: Box<[u8]>,
    progress: Arc<Progress>,
    /// Grows; spreads what clients do at random.
    dice: u64,
}

#[derive(Default)]
struct Client {
    socket: Option<Socket>,
    /// When to try again.
    again: Option<Instant>,
    pending: Vec<u8>,
    upgraded: bool,
    subscribed: bool,
    /// The id of the newest message, or of the subscription.
    cursor: Option<String>,
    notes: Notes,
}

/// Why a connection is over.
enum Lost {
    Closed(u16),
    Wrong(String),
}

impl Crowd {
    fn open(count: usize, address: SocketAddr, progress: Arc<Progress>) -> Outcome<Self> {
        let mut crowd = Self {
            address,
            epoll: Epoll::new()?,
            clients: Vec::new(),
            buffer: vec![0; 256 << 10].into(),
            progress,
            dice: 1,
        };
        crowd.clients.resize_with(count, Client::default);
        let now = Instant::now();
        for (index, client) in crowd.clients.iter_mut().enumerate() {
            // Not all at once: the listen backlog is not what is looked at here.
            client.again = Some(now + Duration::from_micros(500) * index as u32);
        }
        Ok(crowd)
    }

    fn run(mut self) -> Outcome<Vec<Notes>> {
        while !self.progress.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            for index in 0..self.clients.len() {
                if self.clients[index].again.is_some_and(|at| at <= now) {
                    self.connect(index)?;
                }
            }
            let ready: Vec<u64> = self.epoll.wait(Duration::from_millis(2))?.collect();
            for token in ready {
                self.read(token as usize)?;
            }
        }
        Ok(self
            .clients
            .into_iter()
            .map(|client| client.notes)
            .collect())
    }

    fn connect(&mut self, index: usize) -> Outcome<()> {
        let client = &mut self.clients[index];
        client.again = None;
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)
            .map_err(|e| e.to_string())?;
        // Connecting to loopback ends at once.
        if socket
            .connect_timeout(&self.address.into(), Duration::from_secs(5))
            .is_err()
        {
            client.notes.refused += 1;
            client.again = Some(Instant::now() + Duration::from_millis(50));
            return Ok(());
        }
        socket.set_nonblocking(true).map_err(|e| e.to_string())?;
        self.epoll.add(socket.as_raw_fd(), index as u64)?;
        (client.upgraded, client.subscribed) = (false, false);
        client.pending.clear();
        let request = Kind::Native.request("faults");
        let sent = socket.send(&request);
        client.socket = Some(socket);
        if sent.is_err() {
            self.lose(index, 0);
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Outcome<()> {
        let client = &mut self.clients[index];
        let Some(socket) = &client.socket else {
            return Ok(());
        };
        match (&mut &*socket).read(&mut self.buffer) {
            Ok(0) => self.lose(index, 0),
            Ok(length) => {
                client.pending.extend_from_slice(&self.buffer[..length]);
                match client.digest(&self.progress) {
                    Ok(()) => {}
                    Err(Lost::Closed(code)) => self.lose(index, code),
                    Err(Lost::Wrong(what)) => return Err(format!("client {index}: {what}")),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.lose(index, 0),
        }
        Ok(())
    }

    fn lose(&mut self, index: usize, code: u16) {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let client = &mut self.clients[index];
        client.socket = None;
        if client.upgraded || code != 0 {
            *client.notes.ends.entry(code).or_default() += 1;
            self.progress.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            // Never a connection: its place in the queue of a listener that was closed is all that it had.
            client.notes.refused += 1;
        }
        if client.subscribed {
            self.progress.subscribed.fetch_sub(1, Ordering::Relaxed);
        }
        client.subscribed = false;
        client.again = Some(Instant::now() + Duration::from_millis((self.dice >> 33) % 100));
    }
}

impl Client {
    /// Takes what is complete out of `pending`.
    fn digest(&mut self, progress: &Progress) -> Result<(), Lost> {
        let pending = std::mem::take(&mut self.pending);
        let mut used = 0;
        if !self.upgraded {
            let Some(end) = wire::find(&pending, b"\r\n\r\n") else {
                self.pending = pending;
                return Ok(());
            };
            if !pending.starts_with(b"HTTP/1.1 101") {
                // A server that is going: what a proxy would answer too. Come back.
                return Err(Lost::Closed(0));
            }
            self.upgraded = true;
            used = end + 4;
        }
        while let Some((opcode, body, length)) = frame(&pending[used..]) {
            used += length;
            match opcode {
                1 => self.text(body, progress)?,
                8 => {
                    let code = body
                        .first_chunk()
                        .map_or(1005, |code| u16::from_be_bytes(*code));
                    return Err(Lost::Closed(code));
                }
                9 => self.send(0xA, body),
                _ => {}
            }
        }
        self.pending = pending;
        self.pending.drain(..used);
        Ok(())
    }

    fn text(&mut self, text: &[u8], progress: &Progress) -> Result<(), Lost> {
        let wrong = |what: &str| Lost::Wrong(format!("{what}: {}", String::from_utf8_lossy(text)));
        let id = || string(text, br#""id":""#);
        match string(text, br#""type":""#).as_deref() {
            Some("message") => {
                let data = string(text, br#""data":""#).ok_or_else(|| wrong("no data"))?;
                let (publisher, number) = data
                    .split_once(' ')
                    .and_then(|(p, n)| Some((p.parse::<usize>().ok()?, n.parse::<u64>().ok()?)))
                    .filter(|(publisher, _)| *publisher < PUBLISHERS)
                    .ok_or_else(|| wrong("not a number of ours"))?;
                self.notes.note(publisher, number);
                self.cursor = Some(id().ok_or_else(|| wrong("no id"))?);
                progress.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Some("welcome") => {
                let since = self
                    .cursor
                    .as_ref()
                    .map_or_else(String::new, |id| format!(r#","since":"{id}""#));
                let subscribe =
                    format!(r#"{{"type":"subscribe","channel":"faults","ref":1{since}}}"#);
                self.send(1, subscribe.as_bytes());
            }
            Some("subscribed") => {
                self.subscribed = true;
                progress.subscribed.fetch_add(1, Ordering::Relaxed);
                if self.cursor.is_some() {
                    match wire::find(text, br#""recovered":true"#) {
                        Some(_) => self.notes.resumed += 1,
                        None => {
                            self.notes.gaps += 1;
                            // Nothing before it can be had any more: from here on.
                            self.cursor = id();
                        }
                    }
                    progress.back.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.cursor = id();
                }
            }
            _ => return Err(wrong("unexpected")),
        }
        Ok(())
    }

    /// Writes a few bytes; a connection that does not take them will say so when it is read.
    fn send(&mut self, opcode: u8, content: &[u8]) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(&wire::client_frame(opcode, content));
        }
    }
}

/// The first whole frame: its opcode, its content, and its length with the head.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (start, length) = match *bytes {
        [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => (
            10,
            usize::try_from(u64::from_be_bytes([a, b, c, d, e, f, g, h])).ok()?,
        ),
        [_, length, ..] if length < 126 => (2, usize::from(length)),
        _ => return None,
    };
    Some((
        bytes[0] & 0x0f,
        bytes.get(start..start + length)?,
        start + length,
    ))
}

/// The string that follows `name`; ours hold no escapes.
fn string(text: &[u8], name: &[u8]) -> Option<String> {
    let rest = &text[wire::find(text, name)? + name.len()..];
    let end = rest.iter().position(|&byte| byte == b'"')?;
    String::from_utf8(rest[..end].to_vec()).ok()
}
