//! Events of clients that a script under PHP-FPM handles (`realtime.handler`): what handing one out costs beside a bare
//! FastCGI request of an empty script on a kept connection, and what handing out several at a time saves. Bare requests are
//! made one at a time, and as many at a time as the hub makes: then the workers take turns on their core, as they do there.
//! Since an event is handled and answered too, it also stands beside a bare request of a script that decodes the same
//! message, calls the same closure and encodes what that returns, all in plain PHP.
//!
//! The hub and the pool share one core, as do the bare asker and its pool. What counts is the CPU time of both sides of
//! the FastCGI connection; reading from the client and writing to it is what any echo costs.

use std::io::{self, BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use realtime::wire::fastcgi::{Answer, Part, Request};

use crate::client::Manner;
use crate::cpu;
use crate::fanout::numbers;
use crate::fpm::{self, Pool};
use crate::process::{self, Process, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan, say};

/// Requests at once, the default of `realtime.handler_concurrency`.
const CONCURRENCY: usize = 4;

/// Measures and prints.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let Some(fpm) = fpm::find(setup) else {
        say("\nEvents that PHP-FPM handles: PHP-FPM is not installed");
        return Ok(());
    };
    let cores = &setup.cores;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/php");
    let handler = scripts.join("handler.php").display().to_string();
    let bare_pool = Pool::start(setup, &fpm, CONCURRENCY, &cores.server, &[])?;
    let mut bare = Process::role(
        "request",
        &bare_pool.address().to_string_lossy(),
        &cores.server,
    )?;
    let settings = [("realtime.handler", &*handler)];
    // One more for the request that tells where the server is.
    let pool = Pool::start(setup, &fpm, CONCURRENCY + 1, &cores.server, &settings)?;
    let mut server = pool.server()?;
    let hub = server.hub.unwrap_or_default();
    let (asker, workers) = (bare.pid(), server.process.pid());
    let events = plan.deliveries / 20;
    let mut clients = Vec::new();
    for connections in [1, 100] {
        let kind = Kind::Raw;
        clients.push(process::clients(
            setup,
            &server,
            kind,
            connections,
            "echo",
            Manner::Plain,
        )?);
    }
    let mut takings = [const { Vec::new() }; TURNS.len()];
    for round in 0..=plan.rounds {
        for ((connections, window), taken) in TURNS.into_iter().zip(&mut takings) {
            let used = || {
                Ok::<_, String>((
                    cpu::CpuTime::of(asker)?.process,
                    cpu::children(bare_pool.pid())?,
                ))
            };
            let mut ask = |what: &str, at_once: usize| {
                let before = used()?;
                bare.tell(&format!("loop {what} {events} {at_once}"))?;
                let wall = numbers(&bare.hear("DONE")?)?[0];
                let after = used()?;
                Ok::<_, String>(Cost::of(
                    wall,
                    after.0 - before.0,
                    after.1 - before.1,
                    events,
                ))
            };
            let floors = [
                ask("empty", 1)?,
                ask("empty", CONCURRENCY)?,
                ask("plain", 1)?,
                ask("plain", CONCURRENCY)?,
            ];
            let requests = handler_requests(&mut server)?;
            let each = (events / connections).max(window);
            let clients = &mut clients[usize::from(connections > 1)];
            let used = || {
                let handing = cpu::threads_named(hub, "rt-handler")?;
                Ok::<_, String>((
                    handing,
                    cpu::children(workers)?,
                    cpu::CpuTime::of(hub)?.process,
                ))
            };
            let before = used()?;
            clients.tell(&format!("echo {each} {window} {MESSAGE}"))?;
            let wall = numbers(&clients.hear("DONE")?)?[0];
            let after = used()?;
            let count = each * connections;
            let (asking, answering) = (after.0 - before.0, after.1 - before.1);
            let rest = (after.2 - before.2) - asking;
            let requests = handler_requests(&mut server)? - requests;
            if round > 0 {
                taken.push(Taking {
                    floors,
                    event: Cost::of(wall, asking, answering, count),
                    rest: Cost::of(0.0, rest, 0, count).asking,
                    batch: count as f64 / requests,
                });
            }
        }
    }
    show(&takings, report);
    Ok(())
}

/// Connections, and events that each has under way.
const TURNS: [(usize, usize); 3] = [(1, 1), (100, 1), (100, 16)];

/// Microseconds of one.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    /// CPU of who asks: of the hub, its thread that hands out.
    asking: f64,
    /// CPU of the workers.
    answering: f64,
}

impl Cost {
    fn of(wall: f64, asking: u64, answering: u64, count: usize) -> Self {
        let each = |nanoseconds: f64| nanoseconds / count as f64 / 1e3;
        Self {
            wall: each(wall),
            asking: each(asking as f64),
            answering: each(answering as f64),
        }
    }

    fn cpu(&self) -> f64 {
        self.asking + self.answering
    }
}

struct Taking {
    /// Of bare requests, see [`FLOORS`].
    floors: [Cost; FLOORS.len()],
    event: Cost,
    /// CPU of the rest of the hub.
    rest: f64,
    /// Events in a request.
    batch: f64,
}

/// Bare requests.
const FLOORS: [&str; 4] = [
    "bare request of an empty script",
    "the same, 4 at a time",
    "bare request of a script that does the handler's work",
    "the same, 4 at a time",
];

fn show(takings: &[Vec<Taking>], report: &mut Report) {
    let middle = |index: usize, of: &dyn Fn(&Taking) -> f64| {
        median(&takings[index].iter().map(of).collect::<Vec<_>>())
    };
    let mut figures = Vec::new();
    for (index, name) in FLOORS.into_iter().enumerate() {
        figures.push(
            Figure::new(name, middle(1, &|t| t.floors[index].cpu()), "us")
                .over_floor(middle(1, &|t| t.floors[index].cpu() / t.floors[0].cpu()))
                .note(format!(
                    "asker {:.1} us, worker {:.1} us; wall time {:.1} us",
                    middle(1, &|t| t.floors[index].asking),
                    middle(1, &|t| t.floors[index].answering),
                    middle(1, &|t| t.floors[index].wall)
                )),
        );
    }
    for (index, (connections, window)) in TURNS.into_iter().enumerate() {
        let value = middle(index, &|t| t.event.cpu());
        let wall = middle(index, &|t| t.event.wall);
        let name = format!("event, connections {connections}, under way {window}");
        let figure = Figure::new(name, value, "us")
            .over_floor(middle(index, &|t| t.event.cpu() / t.floors[0].cpu()))
            .note(format!(
                "{:.2} x the handler's work in plain PHP; hub {:.1} us, worker {:.1} us; {:.1} events a request; with the client \
                 wall time {wall:.1} us, {:.1} thousand/s, {:.1} us CPU more",
                middle(index, &|t| t.event.cpu() / t.floors[2].cpu()),
                middle(index, &|t| t.event.asking),
                middle(index, &|t| t.event.answering),
                middle(index, &|t| t.batch),
                1e3 / wall,
                middle(index, &|t| t.rest)
            ));
        figures.push(match index {
            0 => figure,
            1 => figure.at_most_floors(1.3),
            _ => figure.at_most_times(
                wall / middle(1, &|t| t.event.wall),
                1.0,
                "the wall time of one",
            ),
        });
    }
    report.section(
        &format!("Events of {MESSAGE} bytes that PHP-FPM handles and answers: CPU of handing out and handling one"),
        &figures,
    );
}

fn handler_requests(server: &mut process::Server) -> Outcome<f64> {
    server.tell("requests")?;
    Ok(numbers(&server.hear()?)?[0])
}

/// A request for one of the scripts, as a web server makes it.
fn request(script: &str, body: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/bench/php")
        .join(script);
    let (method, kind) = match body {
        "" => ("GET", ""),
        _ => ("POST", "application/json"),
    };
    let uri = format!("/{script}");
    let mut request = Request::default();
    for (name, value) in [
        ("SCRIPT_FILENAME", &*file.to_string_lossy()),
        ("QUERY_STRING", ""),
        ("REQUEST_METHOD", method),
        ("CONTENT_TYPE", kind),
        ("CONTENT_LENGTH", &body.len().to_string()),
        ("SCRIPT_NAME", &uri),
        ("REQUEST_URI", &uri),
        ("DOCUMENT_URI", &uri),
        ("DOCUMENT_ROOT", "/"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("HTTP_HOST", "localhost"),
    ] {
        request.param(name, value);
    }
    request.bytes(body.as_bytes())
}

/// The role that asks the pool at `address` for a script, as often as told on standard input.
pub fn ask(address: &str) -> Outcome<()> {
    let fail = |error: io::Error| format!("{address}: {error}");
    let empty = request("empty.php", "");
    let message = format!(
        r#"{{"channel":"echo","event":"message","data":"{}"}}"#,
        "x".repeat(MESSAGE)
    );
    let plain = request("plain.php", &message);
    let mut room = vec![0; 4096];
    let mut hear = |stream: &mut UnixStream| -> Outcome<()> {
        let mut answer = Answer::default();
        loop {
            let count = stream.read(&mut room).map_err(fail)?;
            if count == 0 {
                return Err(fail(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut bytes = &room[..count];
            while let Some(part) = answer.next(&mut bytes).map_err(|e| e.to_string())? {
                if let Part::End { .. } = part {
                    return Ok(());
                }
            }
        }
    };
    // Each keeps a worker to itself.
    let mut streams: Vec<UnixStream> = Vec::new();
    say("LISTEN -");
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let unknown = || format!("request: cannot do \"{line}\"");
        let (request, rest) = match line
            .split_once(' ')
            .and_then(|(_, rest)| rest.split_once(' '))
        {
            Some(("empty", rest)) => (&empty, rest),
            Some(("plain", rest)) => (&plain, rest),
            _ => return Err(unknown()),
        };
        let numbers: Option<Vec<usize>> = rest.split(' ').map(|word| word.parse().ok()).collect();
        let Some(&[calls, at_once @ 1..=CONCURRENCY]) = numbers.as_deref() else {
            return Err(unknown());
        };
        while streams.len() < at_once {
            streams.push(UnixStream::connect(address).map_err(fail)?);
        }
        let started = cpu::now();
        for _ in 0..calls / at_once {
            for stream in &mut streams[..at_once] {
                stream.write_all(request).map_err(fail)?;
            }
            for stream in &mut streams[..at_once] {
                hear(stream)?;
            }
        }
        say(&format!("DONE {}", cpu::now() - started));
    }
    Ok(())
}
