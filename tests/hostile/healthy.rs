//! A client that behaves: again and again it sends a message to PHP, and waits for the reply and for what PHP publishes.
//!
//! Each probe is timed. One at a server that nobody attacks tells how slow the machine was meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::wire::{self, Kind};

/// How long an answer may take before the client gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two probes.
const PAUSE: Duration = Duration::from_millis(20);
/// So many probes go over one connection before it opens another.
const EACH: usize = 10;

/// One probe: when it began, and how long it took.
pub type Probe = (Instant, Duration);

/// A client that runs for as long as the program.
pub struct Healthy {
    probes: Arc<Mutex<Vec<Probe>>>,
    thread: Option<JoinHandle<Outcome<()>>>,
}

impl Healthy {
    /// Starts one.
    pub fn start(address: SocketAddr) -> Self {
        let probes = Arc::default();
        let noted = Arc::clone(&probes);
        Self {
            probes,
            thread: Some(std::thread::spawn(move || live(address, &noted))),
        }
    }

    /// The probes since the last call; or what ended it.
    pub fn take(&mut self) -> Outcome<Vec<Probe>> {
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            let met = thread.join().map_err(|_| "it panicked")?;
            met.map_err(|what| format!("the client that behaves: {what}"))?;
        }
        let mut probes = self.probes.lock().map_err(|e| e.to_string())?;
        Ok(std::mem::take(&mut *probes))
    }
}

fn live(address: SocketAddr, noted: &Mutex<Vec<Probe>>) -> Outcome<()> {
    loop {
        let began = Instant::now();
        // The first probe of a connection has its handshake in it.
        let mut client = Client::open(address)?;
        for number in 0..EACH {
            let began = if number == 0 { began } else { Instant::now() };
            client.probe(number)?;
            let mut probes = noted.lock().map_err(|e| e.to_string())?;
            probes.push((began, began.elapsed()));
            drop(probes);
            std::thread::sleep(PAUSE);
        }
    }
}

struct Client {
    stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).map_err(|e| format!("connect: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(|e| e.to_string())?;
        let mut client = Self {
            stream,
            pending: Vec::new(),
        };
        client.write(&Kind::Native.request("probe"))?;
        client.until(|bytes| wire::find(bytes, b"\r\n\r\n").map(|at| at + 4))?;
        client.await_text(br#""type":"welcome""#)?;
        client.say(br#"{"type":"subscribe","channel":"probe"}"#)?;
        client.await_text(br#""type":"subscribed""#)?;
        Ok(client)
    }

    fn probe(&mut self, number: usize) -> Outcome<()> {
        let frame =
            format!(r#"{{"type":"publish","channel":"probe","ref":{number},"data":{number}}}"#);
        self.say(frame.as_bytes())?;
        let mut left = 2;
        while left > 0 {
            let text = self.text()?;
            let published = wire::find(&text, br#""type":"message""#).is_some();
            let replied = wire::find(&text, br#""type":"reply""#).is_some();
            if !(published || replied) {
                return Err(format!("got {}", String::from_utf8_lossy(&text)));
            }
            left -= 1;
        }
        Ok(())
    }

    fn await_text(&mut self, what: &[u8]) -> Outcome<()> {
        let text = self.text()?;
        match wire::find(&text, what) {
            Some(_) => Ok(()),
            None => Err(format!("got {}", String::from_utf8_lossy(&text))),
        }
    }

    fn say(&mut self, text: &[u8]) -> Outcome<()> {
        self.write(&wire::client_frame(1, text))
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.stream
            .write_all(bytes)
            .map_err(|e| format!("write: {e}"))
    }

    /// The next text frame; ours are short.
    fn text(&mut self) -> Outcome<Vec<u8>> {
        let frame = self.until(|bytes| match *bytes {
            [_, 126, a, b, ..] => Some(4 + usize::from(u16::from_be_bytes([a, b]))),
            [_, length, ..] if length < 126 => Some(2 + usize::from(length)),
            _ => None,
        })?;
        match frame[0] {
            0x81 => Ok(frame),
            0x89 => self.text(),
            other => Err(format!(
                "got a frame that begins with {other:#x}: {frame:?}"
            )),
        }
    }

    fn until(&mut self, whole: impl Fn(&[u8]) -> Option<usize>) -> Outcome<Vec<u8>> {
        loop {
            if let Some(length) =
                whole(&self.pending).filter(|length| *length <= self.pending.len())
            {
                return Ok(self.pending.drain(..length).collect());
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => {
                    return Err(format!(
                        "closed after {:?}",
                        String::from_utf8_lossy(&self.pending)
                    ));
                }
                Ok(length) => self.pending.extend_from_slice(&more[..length]),
                Err(error) => return Err(format!("nothing came within {PATIENCE:?}: {error}")),
            }
        }
    }
}
