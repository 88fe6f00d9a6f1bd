//! `make soak`: clients that come, go, stall and misbehave while PHP publishes, for long.
//!
//! `cargo bench --bench soak -- --extension modules/realtime.so [--php php] [--clients N] [--seconds N]`
//!
//! A bench target only for the profile. Prints the memory of the hub and of PHP-FPM's workers as it goes, its slope after
//! half of the time, and what is left when all have gone: no descriptor, no connection, no subscription.

mod crowd;
#[path = "../bench/epoll.rs"]
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
mod epoll;
#[path = "../faults/fastcgi.rs"]
mod fastcgi;
#[path = "../faults/fpm.rs"]
#[expect(dead_code, reason = "shared with the faults, which use all of it")]
mod fpm;
#[path = "../hostile/pest.rs"]
#[expect(
    dead_code,
    reason = "shared with the hostile run, which uses all of it"
)]
mod pest;
mod slope;
mod vitals;
#[path = "../bench/wire.rs"]
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crowd::{Crowd, ROOMS};
use fpm::Fpm;
use slope::Slope;
use vitals::{Vitals, settle};

/// Errors are for the reader alone, so a sentence is all they need to be.
pub type Outcome<T> = Result<T, String>;

const USAGE: &str =
    "usage: cargo bench --bench soak -- --extension PATH [--php PATH] [--clients N] [--seconds N]";

/// What memory may grow by from the end of the warm-up to the end, along the line through all that was measured: a part
/// of it, and so many bytes.
const GROWTH: (f64, f64) = (0.05, (2 << 20) as f64);
/// What the hub may have more than at the start when all have gone, in bytes: its history has 8 MiB.
const KEPT: u64 = 24 << 20;
/// Messages that fill the histories of all rooms: 100 are kept for each.
const FILL: usize = 150 * ROOMS;
/// Messages that one page publishes.
const PAGE: usize = 10;

const SETTINGS: [(&str, &str); 5] = [
    ("handler", "{home}/handler.php"),
    ("max_connections", "20000"),
    ("handshake_timeout", "5"),
    ("history_bytes", "8M"),
    ("max_backlog", "128K"),
];

fn main() -> ExitCode {
    match drive() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the command line asks for; returns how much was wrong.
fn drive() -> Outcome<usize> {
    let mut extension = None;
    let mut php = PathBuf::from("php");
    let (mut clients, mut seconds) = (5000, 600);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || -> Outcome<usize> {
            let text = rest.next().and_then(|text| text.to_str()).ok_or(USAGE)?;
            text.parse().map_err(|_| USAGE.to_owned())
        };
        match argument.to_str() {
            Some("--clients") => clients = number()?,
            Some("--seconds") => seconds = number()?,
            Some("--extension") => extension = rest.next().map(PathBuf::from),
            Some("--php") => php = rest.next().ok_or(USAGE)?.into(),
            // `cargo bench` adds this one.
            Some("--bench") => {}
            _ => return Err(USAGE.into()),
        }
    }
    let extension: PathBuf = extension.ok_or(USAGE)?;
    let extension = extension
        .canonicalize()
        .map_err(|e| format!("{}: {e}", extension.display()))?;
    let files = vitals::raise_file_limit()?;
    if files < clients as u64 + 200 {
        return Err(format!(
            "{clients} clients need more open files than {files}: raise it (ulimit -Hn)"
        ));
    }
    let pool = "pm = static\npm.max_children = 6";
    let pages = ["soak/publish.php", "hostile/handler.php"];
    let fpm = Fpm::start(&php, &extension, pool, &SETTINGS, &pages)?;
    // Each worker has its link then.
    for _ in 0..30 {
        numbers(&fpm, 0)?;
    }
    fpm.until("a hub", |fpm| fpm.hubs().len() == 1)?;
    let time = Duration::from_secs(seconds as u64);
    soak(&fpm, clients, time).map_err(|error| format!("{error}{}", fpm.logs()))
}

fn soak(fpm: &Fpm, clients: usize, time: Duration) -> Outcome<usize> {
    let hub = fpm.hubs()[0];
    let before = settle(hub, None)?;
    println!("{clients} clients for {time:?}; the hub before {before}");
    // Until every room's history is full: from then on it keeps as much as it forgets.
    for _ in 0..FILL.div_ceil(250) {
        numbers(fpm, 250)?;
    }
    let began = Instant::now();
    // Each client's place is taken many times over in the time that is measured; and more often before it: messages that are
    // kept come to lie between what comes and goes, until there is one in most of the memory's pages.
    let stay = time.div_f64(10.0).min(Duration::from_secs(30));
    let crowd = Crowd::start(clients, fpm.address, stay.div_f64(6.0));
    let (mut memory, mut of_php) = (Slope::default(), Slope::default());
    let mut next = Duration::ZERO;
    let mut published = 0;
    while began.elapsed() < time {
        numbers(fpm, PAGE)?;
        published += PAGE;
        if crowd.has_ended() {
            return Err(crowd.stop()?);
        }
        std::thread::sleep(Duration::from_millis(80));
        if began.elapsed() < next {
            continue;
        }
        next += time / 120;
        let now = Vitals::of(hub)?;
        let workers = fpm.workers();
        let mut php = 0;
        for worker in &workers {
            php += Vitals::of(*worker)?.pss;
        }
        if began.elapsed() > time / 3 {
            crowd.stay(stay);
        }
        if began.elapsed() > time / 2 {
            memory.add(began.elapsed(), now.pss);
            of_php.add(began.elapsed(), php);
        }
        if next.as_millis().is_multiple_of((time / 12).as_millis()) {
            let numbers = numbers(fpm, 0)?;
            println!(
                "{:>5.0} s: {now}; workers {:.1} MiB; {} connections, {} subscriptions, {} delivered",
                began.elapsed().as_secs_f64(),
                mebibytes(php),
                numbers["connections"],
                numbers["subscriptions"],
                numbers["delivered"],
            );
        }
    }
    let heard = crowd.heard.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "{published} published, {} MiB came to the clients",
        heard >> 20
    );
    println!("{}", crowd.stop()?);
    let mut wrong = Vec::new();
    for (what, slope) in [("the hub", &memory), ("PHP-FPM's workers", &of_php)] {
        println!("memory of {what}: {slope}");
        if slope.growth() > GROWTH.0 * slope.mean() + GROWTH.1 {
            wrong.push(format!("the memory of {what} grows: {slope}"));
        }
    }
    if fpm.hubs() != [hub] {
        wrong.push("the hub has ended".to_owned());
    }
    wrong.extend(left(fpm)?);
    let gone = Instant::now();
    let mut after = settle(hub, Some(before))?;
    // It gives memory back within seconds, and once more a minute later, when it has forgotten more.
    while after.pss > before.pss + KEPT && gone.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_secs(1));
        after = settle(hub, Some(before))?;
    }
    println!("the hub after {after}");
    if after.pss > before.pss + KEPT {
        wrong.push(format!(
            "memory did not come back: {after}, before {before}"
        ));
    }
    for what in &wrong {
        println!("FAILED  {what}");
    }
    // Two slopes, what is left, the hub itself, its memory.
    println!(
        "\n{} passed, {} failed",
        5_usize.saturating_sub(wrong.len()),
        wrong.len()
    );
    Ok(wrong.len())
}

/// What is left of clients that have gone.
fn left(fpm: &Fpm) -> Outcome<Option<String>> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let numbers = numbers(fpm, 0)?;
        let names = ["connections", "subscriptions", "channels", "handler_queued"];
        let left: Vec<_> = names.iter().filter(|name| numbers[**name] > 0).collect();
        if left.is_empty() {
            return Ok(None);
        }
        if Instant::now() > end {
            return Ok(Some(format!("there still are {left:?}: {numbers:?}")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Has PHP publish so many messages, and returns the server's numbers as `rt_stats()` gives them.
fn numbers(fpm: &Fpm, publish: usize) -> Outcome<BTreeMap<String, u64>> {
    let mut numbers = BTreeMap::new();
    let query = format!("count={publish}&rooms={ROOMS}");
    fastcgi::request(&fpm.socket(), fpm.script(), &query, |line| {
        if let Some((name, Ok(number))) = line.split_once(' ').map(|(n, v)| (n, v.parse())) {
            numbers.insert(name.to_owned(), number);
        }
    })?;
    if numbers.contains_key("connections") {
        Ok(numbers)
    } else {
        Err("PHP told no numbers".to_owned())
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
