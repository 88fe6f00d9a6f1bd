//! `make test-faults`: 500 connected clients that count what they get, while PHP publishes numbered messages from four
//! PHP-FPM workers without pause and something is killed, recycled, reloaded or replaced.
//!
//! `cargo bench --bench faults -- --extension modules/realtime.so [--php php] [--clients N] [FILTER]`
//!
//! A bench target only for the profile: clients that are not optimised would be the slow part. Prints one row for each
//! fault, then how many came out as they must.

mod clients;
#[path = "../bench/epoll.rs"]
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
mod epoll;
mod fastcgi;
mod fpm;
mod publishers;
mod scenarios;
mod tally;
#[path = "../bench/wire.rs"]
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use scenarios::Setup;

/// Errors are for the reader alone, so a sentence is all they need to be.
pub type Outcome<T> = Result<T, String>;

const USAGE: &str = "usage: cargo bench --bench faults -- --extension PATH [--php PATH] [--clients N] [FILTER]\n  \
    FILTER is part of a fault's name: recycles, reloads, workers, takeover, hub";

fn main() -> ExitCode {
    match drive() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the command line asks for; returns how many faults did harm.
fn drive() -> Outcome<usize> {
    let mut extension = None;
    let mut php = PathBuf::from("php");
    let mut clients = 500;
    let mut filter = String::new();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--extension") => extension = rest.next().map(PathBuf::from),
            Some("--php") => php = rest.next().ok_or(USAGE)?.into(),
            Some("--clients") => {
                let number = rest.next().and_then(|text| text.to_str()).ok_or(USAGE)?;
                clients = number.parse().map_err(|_| USAGE)?;
            }
            // `cargo bench` adds this one.
            Some("--bench") => {}
            Some(word) if !word.starts_with('-') && filter.is_empty() => filter = word.to_owned(),
            _ => return Err(USAGE.into()),
        }
    }
    let extension = extension.ok_or(USAGE)?;
    let setup = Setup {
        extension: extension
            .canonicalize()
            .map_err(|e| format!("{}: {e}", extension.display()))?,
        php,
        clients,
    };
    let started = Instant::now();
    println!(
        "{clients} clients on /ws, four PHP-FPM workers that publish without pause\n\n{}",
        tally::HEAD
    );
    let mut complaints = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for scenario in scenarios::ALL {
        if !scenario.name.contains(filter.as_str()) {
            continue;
        }
        match scenario.run(&setup) {
            Ok(tally) => {
                println!("{}", tally.row(scenario.name));
                let wrong = (scenario.judge)(&tally);
                passed += usize::from(wrong.is_empty());
                failed += usize::from(!wrong.is_empty());
                complaints.extend(
                    wrong
                        .iter()
                        .map(|what| format!("{}: {what}", scenario.name)),
                );
            }
            Err(error) => {
                failed += 1;
                println!("{:<28} FAILED", scenario.name);
                complaints.push(format!("{}: {error}", scenario.name));
            }
        }
    }
    println!("\n{}", tally::LEGEND);
    for complaint in &complaints {
        println!("FAILED  {complaint}");
    }
    println!(
        "{:.0} s\n\n{passed} passed, {failed} failed",
        started.elapsed().as_secs_f64()
    );
    if passed + failed == 0 {
        return Err(format!("nothing is called \"{filter}\"\n{USAGE}"));
    }
    Ok(failed)
}
