//! Events of clients that a script under PHP-FPM handles (`realtime.handler`): what handing one out costs beside a bare
//! FastCGI request of an empty script on a kept connection, and what handing out several at a time saves. Bare requests are
//! made one at a time, and as many at a time as the hub makes: then the workers take turns on their core, as they do there.
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
    let events = plan.deliveries / 10;
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
                Ok::<_, String>(cpu::children(bare_pool.pid())? + cpu::CpuTime::of(asker)?.process)
            };
            let mut ask = |at_once: usize| {
                let before = used()?;
                bare.tell(&format!("loop empty {events} {at_once}"))?;
                let wall = numbers(&bare.hear("DONE")?)?[0];
                Ok::<_, String>(Cost::of(wall, used()? - before, events))
            };
            let floor = ask(1)?;
            let floors = ask(CONCURRENCY)?;
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
            let dispatch = after.0 - before.0 + after.1 - before.1;
            let rest = (after.2 - before.2) - (after.0 - before.0);
            let requests = handler_requests(&mut server)? - requests;
            if round > 0 {
                taken.push(Taking {
                    floor,
                    floors,
                    event: Cost::of(wall, dispatch, count),
                    rest: Cost::of(0.0, rest, count).cpu,
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
    cpu: f64,
}

impl Cost {
    fn of(wall: f64, cpu: u64, count: usize) -> Self {
        let each = |nanoseconds: f64| nanoseconds / count as f64 / 1e3;
        Self {
            wall: each(wall),
            cpu: each(cpu as f64),
        }
    }
}

struct Taking {
    /// Of a bare request, one at a time.
    floor: Cost,
    /// The same, [`CONCURRENCY`] at a time.
    floors: Cost,
    /// The CPU time is of the hub's thread that hands out, and of the workers.
    event: Cost,
    /// CPU of the rest of the hub.
    rest: f64,
    /// Events in a request.
    batch: f64,
}

fn show(takings: &[Vec<Taking>], report: &mut Report) {
    let middle = |index: usize, of: fn(&Taking) -> f64| {
        median(&takings[index].iter().map(of).collect::<Vec<_>>())
    };
    let mut figures = vec![
        Figure::new(
            "bare request of an empty script",
            middle(1, |t| t.floor.cpu),
            "us",
        )
        .over_floor(1.0)
        .note(format!("wall time {:.1} us", middle(1, |t| t.floor.wall))),
        Figure::new(
            format!("the same, {CONCURRENCY} at a time"),
            middle(1, |t| t.floors.cpu),
            "us",
        )
        .over_floor(middle(1, |t| t.floors.cpu / t.floor.cpu))
        .note(format!("wall time {:.1} us", middle(1, |t| t.floors.wall))),
    ];
    for (index, (connections, window)) in TURNS.into_iter().enumerate() {
        let value = middle(index, |t| t.event.cpu);
        let wall = middle(index, |t| t.event.wall);
        let name = format!("event, connections {connections}, under way {window}");
        let figure = Figure::new(name, value, "us")
            .over_floor(middle(index, |t| t.event.cpu / t.floor.cpu))
            .note(format!(
                "{:.1} events a request; with the client wall time {wall:.1} us, {:.1} thousand/s, {:.1} us CPU more",
                middle(index, |t| t.batch),
                1e3 / wall,
                middle(index, |t| t.rest)
            ));
        figures.push(match index {
            0 => figure,
            1 => figure.at_most_floors(1.3),
            _ => figure.at_most_times(
                wall / middle(1, |t| t.event.wall),
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

/// The role that asks the pool at `address` for an empty script, as often as told on standard input.
pub fn ask(address: &str) -> Outcome<()> {
    let fail = |error: io::Error| format!("{address}: {error}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/php/empty.php");
    let mut request = Request::default();
    // What a web server sends.
    for (name, value) in [
        ("SCRIPT_FILENAME", &*script.to_string_lossy()),
        ("QUERY_STRING", ""),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", "0"),
        ("SCRIPT_NAME", "/empty.php"),
        ("REQUEST_URI", "/empty.php"),
        ("DOCUMENT_URI", "/empty.php"),
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
    let request = request.bytes(b"");
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
        let words: Option<Vec<usize>> = line
            .split(' ')
            .skip(2)
            .map(|word| word.parse().ok())
            .collect();
        let Some(&[calls, at_once @ 1..=CONCURRENCY]) = words.as_deref() else {
            return Err(format!("request: cannot do \"{line}\""));
        };
        while streams.len() < at_once {
            streams.push(UnixStream::connect(address).map_err(fail)?);
        }
        let started = cpu::now();
        for _ in 0..calls / at_once {
            for stream in &mut streams[..at_once] {
                stream.write_all(&request).map_err(fail)?;
            }
            for stream in &mut streams[..at_once] {
                hear(stream)?;
            }
        }
        say(&format!("DONE {}", cpu::now() - started));
    }
    Ok(())
}
