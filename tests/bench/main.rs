//! `make bench`: what a push costs, beside a floor of our own measured in the same run.
//!
//! `cargo bench --bench fanout -- --extension modules/realtime.so [--php php] [--quick] [filter]`
//!
//! The driver starts a real PHP with the extension on one core and the clients on another; both the clients and
//! the floor are this same program in another role. Prints a table with each target of the project beside its figure.
//! A missed target is shown; a message that is lost, doubled or late ends the run with exit code 1.

mod calls;
mod client;
mod control;
mod cpu;
mod deflate;
mod disk;
mod echo;
mod epoll;
mod fanout;
mod floor;
mod fpm;
mod handler;
mod memory;
mod presence;
mod process;
mod protocols;
mod report;
mod resume;
mod roundtrip;
mod slow;
mod stats;
mod syscalls;
mod tls;
mod wire;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cpu::Cores;
use process::Setup;
use report::Report;
use wire::Kind;

/// Errors are for the reader of the bench alone, so a sentence is all they need to be.
pub type Outcome<T> = Result<T, String>;

const USAGE: &str = "usage: cargo bench --bench fanout -- --extension PATH [--php PATH] [--quick] \
    [--connections N[,N]] [FILTER]\n  FILTER is part of a section's name: fanout, protocols, deflate, tls, memory, calls, control, disk, echo, handler, slow, resume, syscalls";

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Numbers of connections for the fan-out.
    pub sizes: Vec<usize>,
    /// Idle connections for the memory figure.
    pub idle: usize,
    /// How often each figure is taken; the median counts.
    pub rounds: usize,
    /// Deliveries in one taking; 5,000 clients make few messages of them, which is why rounds and not this make a
    /// figure steady.
    pub deliveries: usize,
}

/// The size of every message, bytes.
pub const MESSAGE: usize = 128;

/// Prints a line to standard output, at once.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A driver that no longer listens has ended or given up: so do we.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let texts: Option<Vec<&str>> = arguments.iter().map(|a| a.to_str()).collect();
    let result = match texts.as_deref() {
        Some(["--role", "floor", connections]) => connections
            .parse()
            .map_err(|e| format!("{e}"))
            .and_then(floor::run),
        Some(["--role", "answer", path]) => roundtrip::answer(path),
        Some(["--role", "request", path]) => handler::ask(path),
        Some(["--role", "ask", path]) => roundtrip::ask(path),
        Some(["--role", "client", rest @ ..]) => client_options(rest)
            .ok_or_else(|| "wrong client arguments".to_owned())
            .and_then(|options| client::run(&options)),
        _ => drive(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A role's error is the driver's to show, a driver's error the user's.
            match texts.as_deref() {
                Some(["--role", ..]) => say(&error),
                _ => eprintln!("bench: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn client_options(arguments: &[&str]) -> Option<client::Options> {
    let [kind, address, connections, channel, manner] = *arguments else {
        return None;
    };
    Some(client::Options {
        kind: Kind::parse(kind)?,
        address: address.parse().ok()?,
        connections: connections.parse().ok()?,
        channel: channel.to_owned(),
        manner: client::Manner::parse(manner)?,
    })
}

fn drive(arguments: &[OsString]) -> Outcome<()> {
    let mut extension = None;
    let mut php = PathBuf::from("php");
    let mut quick = false;
    let mut sizes: Option<Vec<usize>> = None;
    let mut filter = String::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--extension") => extension = rest.next().map(PathBuf::from),
            Some("--php") => php = rest.next().ok_or(USAGE)?.into(),
            Some("--quick") => quick = true,
            Some("--connections") => {
                let text = rest.next().ok_or(USAGE)?;
                let list = text.to_str().ok_or(USAGE)?.split(',').map(str::parse);
                sizes = Some(list.collect::<Result<_, _>>().map_err(|_| USAGE)?);
            }
            // `cargo bench` adds this one.
            Some("--bench") => {}
            Some(word) if !word.starts_with('-') && filter.is_empty() => filter = word.to_owned(),
            _ => return Err(USAGE.into()),
        }
    }
    let mut plan = if quick {
        Plan {
            sizes: vec![1000],
            idle: 1000,
            rounds: 1,
            deliveries: 16_000,
        }
    } else {
        Plan {
            sizes: vec![1000, 5000],
            idle: 5000,
            rounds: 7,
            deliveries: 60_000,
        }
    };
    if let Some(sizes) = sizes.filter(|sizes| sizes.iter().all(|&n| n > 0)) {
        plan.idle = sizes.iter().copied().max().unwrap_or(plan.idle);
        plan.sizes = sizes;
    }
    let extension = extension.ok_or(USAGE)?;
    let extension = extension
        .canonicalize()
        .map_err(|e| format!("{}: {e}", extension.display()))?;
    let scratch = std::env::temp_dir().join(format!("realtime-bench-{}", std::process::id()));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&scratch)
        .map_err(|e| format!("{}: {e}", scratch.display()))?;
    let setup = Setup {
        php,
        extension,
        cores: Cores::choose(),
        scratch,
    };
    let result = measure(&setup, &plan, quick, &filter);
    // Only stale sockets are in it; a failure to remove them is no failure of the bench.
    let _ = std::fs::remove_dir_all(&setup.scratch);
    result
}

fn measure(setup: &Setup, plan: &Plan, quick: bool, filter: &str) -> Outcome<()> {
    let started = Instant::now();
    let stolen = cpu::business().1;
    introduce(setup, plan, quick)?;
    // Beside the clients, so that the driver never takes the server's core.
    cpu::Mask::new(&setup.cores.client)
        .apply()
        .map_err(|e| format!("sched_setaffinity: {e}"))?;
    type Section = fn(&Setup, &Plan, &mut Report) -> Outcome<()>;
    let sections: [(&str, Section); 14] = [
        ("fanout", fanout::run),
        ("protocols", protocols::run),
        ("deflate", deflate::run),
        ("tls", tls::run),
        ("memory", memory::run),
        ("calls", calls::run),
        ("control", control::run),
        ("disk", disk::run),
        ("presence", presence::run),
        ("echo", echo::run),
        ("handler", handler::run),
        ("slow", slow::run),
        ("resume", resume::run),
        ("syscalls", syscalls::run),
    ];
    let mut report = Report::default();
    let mut ran = 0;
    for (name, section) in sections {
        if name.contains(filter) {
            section(setup, plan, &mut report).map_err(|e| format!("{name}: {e}"))?;
            ran += 1;
        }
    }
    if ran == 0 {
        return Err(format!("nothing is called \"{filter}\"\n{USAGE}"));
    }
    let result = report.end();
    say(&format!(
        "{:.0} s, of which the hypervisor took {:.1} s of a core",
        started.elapsed().as_secs_f64(),
        cpu::business().1 - stolen
    ));
    result
}

fn introduce(setup: &Setup, plan: &Plan, quick: bool) -> Outcome<()> {
    let files = cpu::raise_file_limit()?;
    let cores = &setup.cores;
    say(&format!(
        "{} cores, {}, load {} at the start",
        cores.all.len(),
        cpu::machine(),
        cpu::business().0
    ));
    if cores.pinned() {
        say(&format!(
            "server on core {:?}, clients on core {:?}; messages of {MESSAGE} bytes, medians of {}",
            cores.server, cores.client, plan.rounds
        ));
    } else {
        say(
            "only one core: server and clients share it, NOT PINNED; the figures include their switching",
        );
    }
    if quick {
        say("--quick: shows that it works; the figures are rough");
    }
    let most = plan.sizes.iter().copied().max().unwrap_or(0).max(plan.idle);
    if files < most as u64 + 200 {
        return Err(format!(
            "{most} connections need {} open files, and the hard limit is {files}: raise it (ulimit -Hn) or pass --connections",
            most + 200
        ));
    }
    Ok(())
}
