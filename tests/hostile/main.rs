//! `tests/run.sh hostile`: clients that mean no good against a real PHP-FPM and its hub, while one that behaves is served.
//!
//! `cargo bench --bench hostile -- --extension modules/realtime.so [--php php] [--seconds N] [FILTER]`
//!
//! A bench target only for the profile. Prints a row for each attack: how long the client that behaves had to wait, beside
//! one of a server that nobody attacks; then whether memory, descriptors and connections are back where they were.

mod attacks;
mod bystander;
#[path = "../faults/fastcgi.rs"]
mod fastcgi;
#[path = "../faults/fpm.rs"]
#[expect(dead_code, reason = "shared with the faults, which use all of it")]
mod fpm;
mod healthy;
mod machine;
#[expect(dead_code, reason = "shared with the soak")]
mod pest;
#[path = "../soak/vitals.rs"]
mod vitals;
#[path = "../bench/wire.rs"]
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use attacks::{Attack, Field};
use bystander::Bystander;
use fpm::Fpm;
use healthy::{Healthy, Probe};
use machine::Clock;
use pest::Dice;
use vitals::{Vitals, settle};

/// Errors are for the reader alone, so a sentence is all they need to be.
pub type Outcome<T> = Result<T, String>;

const USAGE: &str = "usage: cargo bench --bench hostile -- --extension PATH [--php PATH] [--seconds N] [FILTER]\n  \
    FILTER is part of an attack's name";

/// No probe may take longer, with the machine to ourselves. Where others take a part of it, as much longer as they take.
const SOON: Duration = Duration::from_secs(1);
/// What memory may have grown by from the first time that all attacks were over to the last, in bytes.
const GROWTH: u64 = 12 << 20;
/// What it may keep that was not there when it was new: its history has 4 MiB, and each thread the room that it works in.
const KEPT: u64 = 32 << 20;

/// The hub gives memory back within seconds, or a minute after the last time.
const PATIENCE: Duration = Duration::from_secs(90);

const SETTINGS: [(&str, &str); 6] = [
    // What takes longer is told by the client that behaves, and no call throws meanwhile.
    ("timeout", "20"),
    ("handler", "{home}/handler.php"),
    // Else the loopback addresses of all who attack were a proxy's, whose connections are not counted.
    ("trusted_proxies", ""),
    ("handshake_timeout", "2"),
    ("history_bytes", "4M"),
    ("log_level", "error"),
];

fn main() -> ExitCode {
    match drive() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hostile: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the command line asks for; returns how many attacks did harm.
fn drive() -> Outcome<usize> {
    let mut extension = None;
    let mut php = PathBuf::from("php");
    let mut time = Duration::from_secs(2);
    let mut filter = String::new();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--extension") => extension = rest.next().map(PathBuf::from),
            Some("--php") => php = rest.next().ok_or(USAGE)?.into(),
            Some("--seconds") => {
                let number = rest.next().and_then(|text| text.to_str()).ok_or(USAGE)?;
                time = Duration::from_secs(number.parse().map_err(|_| USAGE)?);
            }
            // `cargo bench` adds this one.
            Some("--bench") => {}
            Some(word) if !word.starts_with('-') && filter.is_empty() => filter = word.to_owned(),
            _ => return Err(USAGE.into()),
        }
    }
    let extension: PathBuf = extension.ok_or(USAGE)?;
    let extension = extension
        .canonicalize()
        .map_err(|e| format!("{}: {e}", extension.display()))?;
    vitals::raise_file_limit()?;
    let chosen: Vec<&Attack> = attacks::ALL
        .iter()
        .filter(|attack| attack.name.contains(filter.as_str()))
        .collect();
    if chosen.is_empty() {
        return Err(format!("nothing is called \"{filter}\"\n{USAGE}"));
    }
    let pool = "pm = static\npm.max_children = 6";
    let pages = ["hostile/page.php", "hostile/handler.php"];
    let fpm = Fpm::start(&php, &extension, pool, &SETTINGS, &pages)?;
    numbers(&fpm, 0)?;
    fpm.until("a hub", |fpm| fpm.hubs().len() == 1)?;
    let mut site = Site {
        bystander: Bystander::start(&php, &extension)?,
        hub: fpm.hubs()[0],
        healthy: Healthy::start(fpm.address),
        fpm,
    };
    let result = site.run(&chosen, time);
    result.map_err(|error| format!("{error}{}", site.fpm.logs()))
}

/// What is attacked, and who looks on.
struct Site {
    fpm: Fpm,
    hub: u32,
    healthy: Healthy,
    bystander: Bystander,
}

impl Site {
    fn run(&mut self, chosen: &[&Attack], time: Duration) -> Outcome<usize> {
        println!(
            "{} attacks of {time:?}; beside each the longest that a client had to wait that behaves and one of a server that \
             nobody attacks, in milliseconds;\nthe share of the machine that others took; and the hub's memory\n\n\
             {:<34} {:>8} {:>9} {:>7} {:>7} {:>10}   what happened",
            chosen.len(),
            "attack",
            "probes",
            "longest",
            "beside",
            "others",
            "memory",
        );
        let cold = self.rest(None)?;
        // Once in short, so that what is kept for ever is there before anything is measured. It is bounded, too.
        for attack in chosen {
            self.attack(attack, Duration::from_millis(700), false)?;
        }
        let idle = self.come_back(cold, cold.pss + KEPT)?;
        let (mut passed, mut complaints) = (0, Vec::new());
        for attack in chosen {
            let before = complaints.len();
            match self.measured(attack, time, idle) {
                Ok(row) => {
                    println!("{}", row.text);
                    complaints.extend(row.late.map(|late| format!("{}: {late}", attack.name)));
                }
                Err(error) => {
                    println!("{:<34} FAILED", attack.name);
                    complaints.push(format!("{}: {error}", attack.name));
                }
            }
            passed += usize::from(complaints.len() == before);
        }
        let after = self.come_back(idle, (cold.pss + KEPT).min(idle.pss + GROWTH))?;
        println!(
            "\nthe hub when it was new        {cold}\nthe hub after a short round    {idle}\nthe hub after all              {after}"
        );
        if after.pss > cold.pss + KEPT {
            complaints.push(format!(
                "{} KiB are kept that were not there when it was new",
                (after.pss - cold.pss) >> 10
            ));
        } else {
            passed += 1;
        }
        if after.pss > idle.pss + GROWTH {
            complaints.push(format!(
                "memory did not come back: {} KiB more",
                (after.pss - idle.pss) >> 10
            ));
        } else {
            passed += 1;
        }
        for complaint in &complaints {
            println!("FAILED  {complaint}");
        }
        println!("\n{passed} passed, {} failed", complaints.len());
        Ok(complaints.len())
    }

    /// An attack, and whether memory comes back from it where that is asked.
    fn measured(&mut self, attack: &Attack, time: Duration, idle: Vitals) -> Outcome<Row> {
        let mut row = self.attack(attack, time, true)?;
        if attack.comes_back {
            let after = self.come_back(idle, idle.pss + GROWTH)?;
            row.text.push_str(&format!("; then {after}"));
            if after.pss > idle.pss + GROWTH {
                row.late = Some(format!("memory did not come back: {after}, before {idle}"));
            }
        }
        Ok(row)
    }

    /// How the hub is when it has no more memory than `limit` again, or has had the time for it; all else is as it was before.
    fn come_back(&self, before: Vitals, limit: u64) -> Outcome<Vitals> {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.rest(Some(before))?;
            if now.pss <= limit || Instant::now() > end {
                return Ok(now);
            }
        }
    }

    fn attack(&mut self, attack: &Attack, time: Duration, whole: bool) -> Outcome<Row> {
        self.healthy.take()?;
        self.bystander.healthy.take()?;
        let mut ours = self.fpm.workers();
        ours.extend([self.hub, self.bystander.pid(), std::process::id()]);
        let clock = Clock::now(&ours)?;
        let began = Instant::now();
        let mut field = Field {
            address: self.fpm.address,
            end: began + time,
            whole,
            dice: Dice(0x9e37_79b9_7f4a_7c15),
        };
        let firehose = attack.with_firehose.then(|| Firehose::start(&self.fpm));
        let what = (attack.run)(&mut field);
        let pss = Vitals::of(self.hub)?.pss;
        if let Some(firehose) = firehose {
            firehose.stop()?;
        }
        let what = what?;
        // What it has left behind is a part of it.
        self.quiet()?;
        if self.fpm.hubs() != [self.hub] {
            return Err("the hub has ended".to_owned());
        }
        Ok(Row::of(
            attack.name,
            &self.healthy.take()?,
            &self.bystander.healthy.take()?,
            (clock.taken_by_others()?, pss),
            &what,
        ))
    }

    /// Waits until nothing of an attack is left.
    fn quiet(&self) -> Outcome<()> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let numbers = numbers(&self.fpm, 0);
            // The client that behaves, or just not. A server that has much to do may not answer in time.
            let is_left = |(name, number): &(String, u64)| *number > 1 && name != "history_bytes";
            if numbers
                .as_ref()
                .is_ok_and(|numbers| !numbers.iter().any(is_left))
            {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the server still has {numbers:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How the hub is when nothing of an attack is left.
    fn rest(&self, before: Option<Vitals>) -> Outcome<Vitals> {
        self.quiet()?;
        // It looks every five seconds whether it has memory to give back.
        std::thread::sleep(Duration::from_secs(6));
        settle(self.hub, before)
    }
}

/// A row of the table.
struct Row {
    text: String,
    late: Option<String>,
}

impl Row {
    fn of(
        name: &str,
        probes: &[Probe],
        beside: &[Probe],
        (others, pss): (f64, u64),
        what: &str,
    ) -> Self {
        let soon = SOON.div_f64((1.0 - others).max(0.1));
        let longest = |probes: &[Probe]| {
            probes
                .iter()
                .map(|(_, time)| *time)
                .max()
                .unwrap_or_default()
        };
        // While the machine has no time for a server that nobody attacks, it says nothing that it has none for the other.
        let excused = |(began, time): &Probe| {
            beside.iter().any(|(other, took)| {
                *took > SOON / 2 && *other < *began + *time && *began < *other + *took
            })
        };
        let late = probes
            .iter()
            .find(|probe| probe.1 > soon && !excused(probe))
            .map(|(_, time)| format!("the client that behaves waited {time:?}"));
        let late = late.or_else(|| {
            probes
                .is_empty()
                .then(|| "no probe was answered".to_owned())
        });
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            text: format!(
                "{name:<34} {:>8} {:>9.1} {:>7.1} {:>5.0} % {:>6} MiB   {what}",
                probes.len(),
                milliseconds(longest(probes)),
                milliseconds(longest(beside)),
                others * 100.0,
                pss >> 20
            ),
            late,
        }
    }
}

/// PHP pages that publish large messages one after the other.
struct Firehose {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Outcome<()>>,
}

impl Firehose {
    fn start(fpm: &Fpm) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (socket, script) = (fpm.socket(), fpm.script().to_owned());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                fastcgi::request(&socket, &script, "count=20", |_| {})?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        Self { stop, thread }
    }

    fn stop(self) -> Outcome<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the publisher panicked")?
    }
}

/// Has PHP publish so many messages, and returns the server's numbers as `rt_stats()` gives them.
fn numbers(fpm: &Fpm, publish: usize) -> Outcome<Vec<(String, u64)>> {
    let mut numbers = Vec::new();
    fastcgi::request(
        &fpm.socket(),
        fpm.script(),
        &format!("count={publish}"),
        |line| {
            if let Some((name, number)) = line.split_once(' ')
                && let Ok(number) = number.parse()
            {
                numbers.push((name.to_owned(), number));
            }
        },
    )?;
    if numbers.is_empty() {
        return Err("PHP told no numbers".to_owned());
    }
    Ok(numbers)
}
