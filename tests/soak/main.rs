//! `make soak`: clients that come, go, stall and misbehave while PHP publishes, for long.
//!
//! `cargo bench --bench soak -- --extension modules/realtime.so [--php php] [--clients N] [--seconds N]`
//!
//! A bench target only for the profile. Two hubs, of which one has TLS and the other its history on disk. Prints the memory of
//! each and of PHP-FPM's workers as it goes, its slope after half of the time, and what is left when all have gone: no
//! descriptor, no task, no connection, no subscription, no member.

mod crowd;
#[path = "../bench/epoll.rs"]
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
mod epoll;
#[path = "../faults/fastcgi.rs"]
mod fastcgi;
#[path = "../faults/fpm.rs"]
#[expect(dead_code, reason = "shared with the faults, which use all of it")]
mod fpm;
mod manner;
#[path = "../hostile/pest.rs"]
#[expect(
    dead_code,
    reason = "shared with the hostile run, which uses all of it"
)]
mod pest;
mod site;
mod slope;
mod vitals;
#[path = "../bench/wire.rs"]
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use site::Site;

/// Errors are for the reader alone, so a sentence is all they need to be.
pub type Outcome<T> = Result<T, String>;

const USAGE: &str =
    "usage: cargo bench --bench soak -- --extension PATH [--php PATH] [--clients N] [--seconds N]";

/// What memory may grow by from the end of the warm-up to the end, along the line through all that was measured: a part
/// of it, and so many bytes.
const GROWTH: (f64, f64) = (0.05, (2 << 20) as f64);
/// What the hub may have more than at the start when all have gone, in bytes: its history has 8 MiB.
const KEPT: u64 = 24 << 20;
/// Messages that one page publishes.
const PAGE: usize = 10;

/// The part of the clients that comes with TLS, to a hub of their own.
const SECURE: f64 = 0.15;

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
    let few = (clients as f64 * SECURE) as usize;
    let mut sites = [
        Site::plain(&php, &extension, clients - few)?,
        Site::secure(&php, &extension, few)?,
    ];
    let time = Duration::from_secs(seconds as u64);
    soak(&mut sites, time).map_err(|error| {
        let logs: Vec<_> = sites.iter().map(Site::logs).collect();
        format!("{error}{}", logs.concat())
    })
}

fn soak(sites: &mut [Site], time: Duration) -> Outcome<usize> {
    // Each client's place is taken many times over in the time that is measured; and more often before it: messages that are
    // kept come to lie between what comes and goes, until there is one in most of the memory's pages.
    let stay = time.div_f64(10.0).min(Duration::from_secs(30));
    for site in &mut *sites {
        site.fill()?;
        site.open(stay.div_f64(6.0));
    }
    let began = Instant::now();
    let mut looks = 0;
    while began.elapsed() < time {
        for site in &mut *sites {
            site.publish(PAGE)?;
        }
        std::thread::sleep(Duration::from_millis(80));
        if began.elapsed() < time / 120 * looks {
            continue;
        }
        looks += 1;
        for site in &mut *sites {
            if began.elapsed() > time / 3 {
                site.stay(stay);
            }
            let told = looks.is_multiple_of(10);
            site.look(began.elapsed(), began.elapsed() > time / 2, told)?;
        }
    }
    let mut wrong = Vec::new();
    sites.iter_mut().try_for_each(Site::close)?;
    for site in &*sites {
        wrong.extend(site.wrong()?);
    }
    for what in &wrong {
        println!("FAILED  {what}");
    }
    // Of each two slopes, what is left, the hub itself, its memory.
    println!(
        "\n{} passed, {} failed",
        (5 * sites.len()).saturating_sub(wrong.len()),
        wrong.len()
    );
    Ok(wrong.len())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
