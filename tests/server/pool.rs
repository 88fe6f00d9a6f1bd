//! A pool that speaks FastCGI's records on a Unix socket as PHP-FPM does, and whose every answer is the test's.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use realtime::procfs::uptime_ns;
use realtime::wire::control;
use realtime::wire::events::{
    self, Batch, Mark, Outcomes, WireOutcome, WireResult, WireWhat, marked,
};

use crate::harness::PATIENCE;

/// The secret of the servers in these tests.
pub const SECRET: &str = "5ec4e7";

/// A running pool.
pub struct Pool {
    pub path: PathBuf,
    requests: Receiver<Taken>,
    shared: Arc<Shared>,
}

struct Shared {
    /// What the script says that it handles.
    interest: AtomicU8,
    /// Whether questions without events are answered.
    probes: AtomicBool,
    /// Connections at the moment, and ever.
    connections: AtomicUsize,
    connected: AtomicUsize,
    stop: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
}

/// A request that waits for its answer. Dropped without an end, it breaks off.
pub struct Taken {
    pub params: HashMap<String, String>,
    pub batch: Batch,
    stream: UnixStream,
    interest: u8,
    over: Sender<bool>,
    ended: bool,
}

impl Pool {
    /// Listens at `path`, for a script with these handlers.
    pub fn listen(path: &Path, interest: u8) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared {
            interest: AtomicU8::new(interest),
            probes: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let (sender, requests) = channel();
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, sender, shared) = (stream.unwrap(), sender.clone(), accepting.clone());
                shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.connected.fetch_add(1, Ordering::SeqCst);
                shared
                    .open
                    .lock()
                    .unwrap()
                    .push(stream.try_clone().unwrap());
                std::thread::spawn(move || {
                    serve(stream, &sender, &shared);
                    shared.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            path: path.to_owned(),
            requests,
            shared,
        }
    }

    /// The next request with events.
    #[track_caller]
    pub fn next(&self) -> Taken {
        self.requests
            .recv_timeout(PATIENCE)
            .expect("a handler request")
    }

    /// Whether none comes for a while.
    pub fn is_quiet(&self) -> bool {
        let next = self.requests.recv_timeout(Duration::from_millis(150));
        matches!(next, Err(RecvTimeoutError::Timeout))
    }

    pub fn set_interest(&self, interest: u8) {
        self.shared.interest.store(interest, Ordering::SeqCst);
    }

    pub fn answer_probes(&self, yes: bool) {
        self.shared.probes.store(yes, Ordering::SeqCst);
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::SeqCst)
    }

    /// Closes all connections, as processes do that end.
    pub fn close_all(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        self.close_all();
    }
}

impl Taken {
    /// The only event.
    #[track_caller]
    pub fn what(&self) -> &WireWhat {
        assert_eq!(self.batch.events.len(), 1, "{:?}", self.batch);
        &self.batch.events[0].what
    }

    /// The data of the messages.
    pub fn data(&self) -> Vec<String> {
        let data = self.batch.events.iter().map(|event| match &event.what {
            WireWhat::Message { data, .. } => match data {
                events::WireIncoming::Json(bytes)
                | events::WireIncoming::Text(bytes)
                | events::WireIncoming::Binary(bytes) => String::from_utf8_lossy(bytes).into(),
            },
            other => format!("{other:?}"),
        });
        data.collect()
    }

    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// What the connection keeps.
    pub fn state(&self) -> String {
        String::from_utf8(self.batch.parties[0].state.to_vec()).unwrap()
    }

    /// Answers the events from `from` on, `count` of them: verdicts are yes, replies are what was sent.
    pub fn settle(&mut self, from: usize, count: usize, state: Option<&str>) {
        let events = self.batch.events.iter().skip(from).take(count);
        let outcomes = events.map(|event| WireOutcome {
            number: event.number,
            result: good(&event.what),
            state: state.map(|state| state.as_bytes().to_vec().into()),
        });
        let outcomes = outcomes.collect();
        self.outcomes(outcomes);
    }

    /// Answers the only event.
    pub fn answer(mut self, result: WireResult) {
        let number = self.batch.events[0].number;
        self.outcomes(vec![WireOutcome {
            number,
            result,
            state: None,
        }]);
        self.end();
    }

    /// Answers all events well, and ends.
    pub fn succeed(mut self) {
        self.settle(0, usize::MAX, None);
        self.end();
    }

    pub fn outcomes(&mut self, outcomes: Vec<WireOutcome>) {
        self.tell(self.interest, outcomes);
    }

    /// Says something in place of what the script handles.
    pub fn say(&mut self, instead: u8) {
        self.tell(instead, Vec::new());
    }

    fn tell(&mut self, interest: u8, outcomes: Vec<WireOutcome>) {
        let outcomes = Outcomes { interest, outcomes };
        let bytes = marked(&self.mark(), &outcomes);
        self.print(&bytes);
    }

    /// Whether it was sent behind another one that took too long.
    fn is_too_late(&self) -> bool {
        let until = self.params.get(events::AHEAD_PARAM);
        until.is_some_and(|until| uptime_ns() > until.parse().unwrap())
    }

    pub fn mark(&self) -> Mark {
        let hex = self.param(events::MARK_PARAM);
        let byte = |index: usize| u8::from_str_radix(&hex[index * 2..][..2], 16).unwrap();
        std::array::from_fn(byte)
    }

    /// Puts bytes into the script's output.
    pub fn print(&mut self, bytes: &[u8]) {
        self.record(6, bytes);
    }

    pub fn record(&mut self, kind: u8, bytes: &[u8]) {
        let mut records = Vec::new();
        for part in bytes.chunks(60_000) {
            let [high, low] = (part.len() as u16).to_be_bytes();
            // With padding, as PHP sends it.
            let padding = (8 - part.len() % 8) % 8;
            records.extend([1, kind, 0, 1, high, low, padding as u8, 0]);
            records.extend(part);
            records.extend(vec![0; padding]);
        }
        self.raw(&records);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        // The server may have given up.
        let _ = self.stream.write_all(bytes);
    }

    /// Ends in order.
    pub fn end(self) {
        self.end_with([0; 8]);
    }

    pub fn end_with(mut self, end: [u8; 8]) {
        self.record(3, &end);
        self.ended = true;
    }

    /// Whether the server sends another request behind this one, within a moment.
    pub fn is_followed(&self) -> bool {
        let socket = socket2::SockRef::from(&self.stream);
        let moment = Some(Duration::from_millis(5));
        socket.set_read_timeout(moment).unwrap();
        let peeked = socket.peek(&mut [std::mem::MaybeUninit::uninit(); 1]);
        socket.set_read_timeout(None).unwrap();
        peeked.is_ok_and(|count| count > 0)
    }

    /// As [`Taken::is_given_up`], for a request with others behind it.
    pub fn reads_to_the_end(mut self) -> bool {
        self.ended = true;
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::copy(&mut self.stream, &mut std::io::sink()).is_ok()
    }

    /// Whether the server has closed the connection.
    pub fn is_given_up(&mut self) -> bool {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(self.stream.read(&mut [0; 64]), Ok(0))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
        let _ = self.over.send(self.ended);
    }
}

fn good(what: &WireWhat) -> WireResult {
    match what {
        WireWhat::Open | WireWhat::Subscribe { .. } => WireResult::Verdict(true),
        WireWhat::Message { data, .. } => WireResult::Reply(match data {
            events::WireIncoming::Json(bytes) => Some(control::WirePayload::Json(bytes.clone())),
            _ => None,
        }),
        WireWhat::Close { .. } => WireResult::Done,
    }
}

fn serve(mut stream: UnixStream, requests: &Sender<Taken>, shared: &Shared) {
    while let Some((params, body)) = read(&mut stream) {
        assert_eq!(params[events::SECRET_PARAM], SECRET);
        let body = match params.get(events::BATCH_PARAM) {
            Some(text) => events::of_param(text.as_bytes()),
            None => body,
        };
        let batch: Batch = control::read(&body).unwrap();
        let (over, is_over) = channel();
        let probe = batch.events.is_empty();
        let mut taken = Taken {
            params,
            batch,
            stream: stream.try_clone().unwrap(),
            interest: shared.interest.load(Ordering::SeqCst),
            over,
            ended: false,
        };
        let too_late = taken.is_too_late();
        if too_late {
            taken.say(events::REFUSED);
            taken.end();
        } else if probe {
            if shared.probes.load(Ordering::SeqCst) {
                taken.outcomes(Vec::new());
                taken.end();
            } else {
                taken.is_given_up();
                drop(taken);
            }
        } else if requests.send(taken).is_err() {
            return;
        }
        if !is_over.recv().unwrap() {
            return;
        }
    }
}

/// Reads one request: its parameters and its body. `None` at the end of the connection.
fn read(stream: &mut UnixStream) -> Option<(HashMap<String, String>, Vec<u8>)> {
    let (mut params, mut body) = (Vec::new(), Vec::new());
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).ok()?;
        let [version, kind, id_high, id_low, high, low, padding, _] = header;
        assert_eq!((version, id_high, id_low), (1, 0, 1));
        let length = usize::from(u16::from_be_bytes([high, low]));
        let mut content = vec![0; length + usize::from(padding)];
        stream.read_exact(&mut content).ok()?;
        content.truncate(length);
        match kind {
            1 => assert_eq!(content[..3], [0, 1, 1], "a responder, on a kept connection"),
            4 => params.extend(content),
            5 if content.is_empty() => break,
            5 => body.extend(content),
            other => panic!("a record of type {other}"),
        }
    }
    let mut list = HashMap::new();
    let mut rest = &params[..];
    while !rest.is_empty() {
        let lengths = [length(&mut rest), length(&mut rest)];
        let [name, value] = lengths.map(|length| {
            let (text, after) = rest.split_at(length);
            rest = after;
            String::from_utf8(text.to_vec()).unwrap()
        });
        assert!(list.insert(name, value).is_none(), "each parameter once");
    }
    assert_eq!(list["CONTENT_LENGTH"], body.len().to_string());
    Some((list, body))
}

fn length(bytes: &mut &[u8]) -> usize {
    let (length, size) = match bytes[0] {
        short @ 0..0x80 => (usize::from(short), 1),
        _ => {
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            ((length & 0x7fff_ffff) as usize, 4)
        }
    };
    *bytes = &bytes[size..];
    length
}
