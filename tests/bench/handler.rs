//! Events of clients that a script under PHP-FPM handles (`realtime.handler`): what handing one out costs beside a bare
//! FastCGI request of an empty script on a kept connection, and what handing out several at a time saves.
//!
//! The hub and the pool share one core, as do the bare asker and its pool: then the time of an event, when there is always
//! one more to do, is all that it costs.

use std::io::{self, BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use realtime::wire::fastcgi::{Answer, Part, Request};

use crate::client::Manner;
use crate::cpu::{self, Mask};
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
    let bare_pool = Pool::start(setup, &fpm, 1, &cores.server, &[])?;
    let mut bare = Process::role(
        "request",
        &bare_pool.address().to_string_lossy(),
        &cores.server,
    )?;
    let settings = [("realtime.handler", &*handler)];
    // One more for the request that tells where the server is.
    let pool = Pool::start(setup, &fpm, CONCURRENCY + 1, &cores.server, &settings)?;
    let mut server = pool.server()?;
    Mask::new(&cores.server).apply_to(server.hub.unwrap_or_default())?;
    let events = plan.deliveries / 10;
    let turns = [(1, 1), (100, 1), (100, 16)];
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
    let mut takings = vec![Vec::new(); turns.len()];
    for round in 0..=plan.rounds {
        for ((connections, window), taken) in turns.into_iter().zip(&mut takings) {
            bare.tell(&format!("loop empty {events} 0"))?;
            let floor = numbers(&bare.hear("DONE")?)?[0] / events as f64 / 1e3;
            let requests = handler_requests(&mut server)?;
            let each = (events / connections).max(window);
            let clients = &mut clients[usize::from(connections > 1)];
            clients.tell(&format!("echo {each} {window} {MESSAGE}"))?;
            let wall = numbers(&clients.hear("DONE")?)?[0];
            let count = (each * connections) as f64;
            let requests = handler_requests(&mut server)? - requests;
            if round > 0 {
                taken.push((floor, wall / count / 1e3, count / requests));
            }
        }
    }
    let middle = |index: usize, of: fn(&(f64, f64, f64)) -> f64| {
        median(&takings[index].iter().map(of).collect::<Vec<_>>())
    };
    let mut figures = vec![
        Figure::new("bare request of an empty script", middle(1, |t| t.0), "us").over_floor(1.0),
    ];
    for (index, (connections, window)) in turns.into_iter().enumerate() {
        let value = middle(index, |t| t.1);
        let name = format!("event, {connections} connections, {window} under way each");
        let figure = Figure::new(name, value, "us")
            .over_floor(middle(index, |t| t.1 / t.0))
            .note(format!(
                "{:.1} thousand/s, {:.1} events a request",
                1e3 / value,
                middle(index, |t| t.2)
            ));
        figures.push(match index {
            0 => figure.note("with the way to the client and back"),
            1 => figure.at_most_floors(1.3),
            _ => figure.at_most_times(value / middle(1, |t| t.1), 1.0, "one under way"),
        });
    }
    report.section(
        &format!("Events of {MESSAGE} bytes that PHP-FPM handles and answers, wall time of one"),
        &figures,
    );
    Ok(())
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
    let mut stream = UnixStream::connect(address).map_err(fail)?;
    let mut room = vec![0; 4096];
    let mut call = || -> Outcome<()> {
        stream.write_all(&request).map_err(fail)?;
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
    say("LISTEN -");
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let calls = line.split(' ').nth(2).and_then(|word| word.parse().ok());
        let calls: usize = calls.ok_or_else(|| format!("request: cannot do \"{line}\""))?;
        let started = cpu::now();
        for _ in 0..calls {
            call()?;
        }
        say(&format!("DONE {}", cpu::now() - started));
    }
    Ok(())
}
