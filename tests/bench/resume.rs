//! A thousand clients that come back at once, with a hundred messages missed each: how long it takes beside the same bytes
//! written to bare sockets, and what live messages notice of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::client::Manner;
use crate::cpu::Mask;
use crate::epoll::Epoll;
use crate::fanout::numbers;
use crate::process::{self, Server, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::{self, Decoder, Event, Kind};
use crate::{MESSAGE, Outcome, Plan};

/// Clients that come back.
const CLIENTS: usize = 1000;
/// What each has missed.
const MISSED: usize = 100;
/// Clients that were there all along.
const LIVE: usize = 50;
/// Live messages, one after the other, while the others come back.
const MESSAGES: usize = 3000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures and prints it.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let settings = [("ping_interval", "3600"), ("history_size", "1000")];
    let cores = &setup.cores.server;
    let mut server = Server::php(setup, cores, "publish.php", "resume.sock", true, &settings)?;
    let address = server.address.ok_or("no address")?;
    let since = Crowd::open(address, 1)?.place()?;
    // So many calls make one block.
    server.tell(&format!("loop missed {MISSED} {MESSAGE}"))?;
    server.hear()?;
    let mut live = process::clients(setup, &server, Kind::Native, LIVE, "bench", Manner::Plain)?;
    let (mut resumes, mut floors, mut alone, mut beside) = (vec![], vec![], vec![], vec![]);
    let mut bytes = 0;
    for _ in 0..plan.rounds.max(3) {
        for (with, longest) in [(false, &mut alone), (true, &mut beside)] {
            let mut crowd = if with {
                Some(Crowd::open(address, CLIENTS)?)
            } else {
                None
            };
            live.tell(&format!("expect {MESSAGES} {MESSAGE}"))?;
            live.hear("ARMED")?;
            server.tell(&format!("run sliding bench {MESSAGES} 1 {MESSAGE}"))?;
            std::thread::sleep(Duration::from_millis(20));
            if let Some(crowd) = &mut crowd {
                let frame =
                    format!(r#"{{"type":"subscribe","channel":"missed","since":"{since}"}}"#);
                let took = crowd.ask(&wire::client_frame(1, frame.as_bytes()))?;
                resumes.push(took.as_secs_f64() * 1e3);
                bytes = crowd.bytes / CLIENTS;
            }
            longest.push(numbers(&live.hear("DONE")?)?[4] / 1e6);
            server.hear()?;
        }
        floors.push(floor(setup, bytes)?.as_secs_f64() * 1e3);
    }
    let (took, floor) = (median(&resumes), median(&floors));
    let rate = (CLIENTS * MISSED) as f64 / took;
    let figures = [
        Figure::new("the same bytes from a bare loop of writes", floor, "ms"),
        Figure::new("until all have everything", took, "ms")
            .over_floor(took / floor)
            .note(format!(
                "{rate:.0} messages a ms, {} KiB for each client",
                bytes >> 10
            )),
        Figure::new(
            "a live message, longest, without them",
            median(&alone),
            "ms",
        ),
        Figure::new("a live message, longest, meanwhile", median(&beside), "ms").at_most(50.0),
    ];
    let title = format!("Resume of {CLIENTS} clients at once, {MISSED} messages each");
    report.section(&title, &figures);
    Ok(())
}

/// Clients on one epoll, each with its decoder.
struct Crowd {
    epoll: Epoll,
    clients: Vec<(TcpStream, Decoder, usize)>,
    /// All that came after the question.
    bytes: usize,
}

impl Crowd {
    fn open(address: SocketAddr, count: usize) -> Outcome<Self> {
        let mut crowd = Self {
            epoll: Epoll::new()?,
            clients: Vec::new(),
            bytes: 0,
        };
        for index in 0..count {
            let fail = |error: std::io::Error| format!("client {index}: {error}");
            let mut stream = TcpStream::connect(address).map_err(fail)?;
            stream.set_nodelay(true).map_err(fail)?;
            stream.write_all(&Kind::Native.request("")).map_err(fail)?;
            stream.set_nonblocking(true).map_err(fail)?;
            crowd.epoll.add(stream.as_raw_fd(), index as u64)?;
            crowd.clients.push((stream, Decoder::new(Kind::Native), 0));
        }
        // The welcome.
        crowd.read(1, |_| {})?;
        Ok(crowd)
    }

    /// Where the channel stands before anything was published: what a client has that then goes away.
    fn place(&mut self) -> Outcome<String> {
        let frame = br#"{"type":"subscribe","channel":"missed"}"#;
        let mut answer = String::new();
        self.clients[0].2 = 0;
        self.clients[0]
            .0
            .write_all(&wire::client_frame(1, frame))
            .map_err(|e| format!("subscribe: {e}"))?;
        self.read(1, |text| {
            answer = String::from_utf8_lossy(text).into_owned()
        })?;
        let id = answer
            .split_once(r#""id":""#)
            .map(|(_, rest)| rest.split('"').next());
        id.flatten()
            .map(ToOwned::to_owned)
            .ok_or_else(|| format!("no id in {answer}"))
    }

    /// Asks with all at once; how long it took until all had everything.
    fn ask(&mut self, frame: &[u8]) -> Outcome<Duration> {
        let began = Instant::now();
        self.bytes = 0;
        for (stream, _, texts) in &mut self.clients {
            *texts = 0;
            stream
                .write_all(frame)
                .map_err(|e| format!("subscribe: {e}"))?;
        }
        // And the answer that it is subscribed.
        let mut whole = 0;
        self.read(MISSED + 1, |text| {
            whole += usize::from(wire::find(text, br#""recovered":true"#).is_some());
        })?;
        if whole < self.clients.len() {
            return Err(format!(
                "{whole} of {} clients recovered",
                self.clients.len()
            ));
        }
        Ok(began.elapsed())
    }

    /// Reads until each has so many texts, and hands them to `look`.
    fn read(&mut self, texts: usize, mut look: impl FnMut(&[u8])) -> Outcome<()> {
        let mut missing = self.clients.len();
        let mut buffer = vec![0; 256 << 10];
        while missing > 0 {
            let ready: Vec<u64> = self.epoll.wait(PATIENCE)?.collect();
            if ready.is_empty() {
                return Err(format!("{missing} clients wait in vain for {texts} texts"));
            }
            for token in ready {
                let (stream, decoder, count) = &mut self.clients[token as usize];
                let length = stream.read(&mut buffer).map_err(|e| format!("read: {e}"))?;
                if length == 0 {
                    return Err("the server hung up".to_owned());
                }
                self.bytes += length;
                let before = *count;
                decoder.feed(&buffer[..length], &mut |event| {
                    if let Event::Text(text) = event {
                        *count += 1;
                        look(text);
                    }
                    Ok(())
                })?;
                missing -= usize::from(before < texts && *count >= texts);
            }
        }
        Ok(())
    }
}

/// So many bytes to each of as many sockets, written by one thread on the server's core and read here.
fn floor(setup: &Setup, bytes: usize) -> Outcome<Duration> {
    let fail = |error: std::io::Error| format!("floor: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let epoll = Epoll::new()?;
    let mut clients = Vec::new();
    let mut served = Vec::new();
    for index in 0..CLIENTS {
        let stream = TcpStream::connect(address).map_err(fail)?;
        epoll.add(stream.as_raw_fd(), index as u64)?;
        clients.push((stream, 0));
        served.push(listener.accept().map_err(fail)?.0);
    }
    let mask = Mask::new(&setup.cores.server);
    let (go, gone) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        mask.apply()?;
        let content = vec![b'x'; bytes];
        // An error is a sender that was dropped: nothing to do.
        if gone.recv().is_ok() {
            for stream in &mut served {
                stream.write_all(&content)?;
            }
        }
        Ok(served)
    });
    let began = Instant::now();
    go.send(()).map_err(|e| e.to_string())?;
    let mut epoll = epoll;
    let mut missing = clients.len();
    let mut buffer = vec![0; 256 << 10];
    while missing > 0 {
        let ready: Vec<u64> = epoll.wait(PATIENCE)?.collect();
        if ready.is_empty() {
            return Err("the floor's clients wait in vain".to_owned());
        }
        for token in ready {
            let (stream, count) = &mut clients[token as usize];
            *count += stream.read(&mut buffer).map_err(fail)?;
            missing -= usize::from(*count == bytes);
        }
    }
    let took = began.elapsed();
    let served: std::io::Result<Vec<TcpStream>> =
        writer.join().map_err(|_| "the floor panicked")?;
    served.map(|_| took).map_err(fail)
}
