//! What `realtime.history = disk` costs: a publisher in the server's process, several through the control socket, and a delivery.
//!
//! Memory and the ways to keep on disk take turns, so that what drifts on the machine drifts for all.

use crate::control::{Condition, Side};
use crate::fanout::{Contestant, Mode, numbers};
use crate::process::{Server, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan, syscalls};

/// Publishers at once.
const MANY: usize = 4;
/// `realtime.fsync`; memory first, and of the others the first is the one with a target.
const WAYS: [&str; 4] = ["memory", "interval", "never", "always"];

/// Measures and prints.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    in_process(setup, plan, report)?;
    at_once(setup, plan, report)?;
    per_delivery(setup, plan, report)
}

/// The settings of one way, without their `realtime.`.
struct Way {
    data: String,
    name: &'static str,
}

impl Way {
    fn new(setup: &Setup, name: &'static str) -> Self {
        let data = setup.scratch.join(format!("data-{}", crate::cpu::now()));
        let data = data.display().to_string();
        Self { data, name }
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        match self.name {
            "memory" => Vec::new(),
            name => vec![
                ("history", "disk"),
                ("data_dir", &self.data),
                ("fsync", name),
                ("timeout", "20"),
            ],
        }
    }

    fn label(&self) -> String {
        match self.name {
            "memory" => "history = memory".to_owned(),
            name => format!("history = disk, fsync = {name}"),
        }
    }

    /// How many calls are enough: each waits for the disk with `always`.
    fn calls(&self, calls: usize) -> usize {
        match self.name {
            "always" => (calls / 100).next_multiple_of(100),
            _ => calls.next_multiple_of(100),
        }
    }
}

/// Lines of a table from takings of all ways, wall time per call in us.
fn table(ways: &[Way], taken: &[Vec<f64>]) -> Vec<Figure> {
    let lines = ways.iter().zip(taken).map(|(way, times)| {
        let wall = median(times);
        let ratios = times
            .iter()
            .zip(&taken[0])
            .map(|(time, memory)| time / memory);
        let ratio = median(&ratios.collect::<Vec<_>>());
        let figure = Figure::new(way.label(), wall, "us");
        let figure = match way.name {
            "memory" => figure,
            "interval" => figure.at_most_times(ratio, 2.0, "memory"),
            _ => figure.over_floor(ratio),
        };
        figure.note(format!("{:.1} thousand calls/s", 1e3 / wall))
    });
    lines.collect()
}

fn in_process(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let ways = WAYS.map(|name| Way::new(setup, name));
    let mut servers = Vec::new();
    for way in &ways {
        let socket = format!("disk-{}.sock", crate::cpu::now());
        let settings = way.settings();
        servers.push(Server::php(
            setup,
            &setup.cores.all,
            "publish.php",
            &socket,
            true,
            &settings,
        )?);
    }
    let mut taken = vec![Vec::new(); ways.len()];
    for round in 0..=plan.rounds {
        for ((way, server), taken) in ways.iter().zip(&mut servers).zip(&mut taken) {
            let calls = way.calls(plan.deliveries * 2);
            server.tell(&format!("loop nobody {calls} {MESSAGE}"))?;
            let times = numbers(&server.hear()?)?;
            if round > 0 {
                taken.push(times[0] / calls as f64 / 1e3);
            }
        }
    }
    report.section(
        &format!("rt_broadcast() of {MESSAGE} bytes in the server's process, wall time per call"),
        &table(&ways, &taken),
    );
    Ok(())
}

fn at_once(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let ways = WAYS.map(|name| Way::new(setup, name));
    let cores = &setup.cores;
    let mut sides = Vec::new();
    for way in &ways {
        let settings = way.settings();
        sides.push(Side::hub_with(
            setup, &cores.all, &cores.all, MANY, &settings,
        )?);
    }
    let mut taken = vec![Vec::new(); ways.len()];
    for round in 0..=plan.rounds {
        for ((way, side), taken) in ways.iter().zip(&mut sides).zip(&mut taken) {
            let each = way.calls(plan.deliveries / 6 / MANY);
            let cost = side.take(Condition::Row(each))?;
            if round > 0 {
                taken.push(cost.wall);
            }
        }
    }
    let mut figures = table(&ways, &taken);
    if syscalls::can_count() {
        let side = &mut sides[3];
        let pid = side.answering;
        let each = ways[3].calls(plan.deliveries / 6 / MANY);
        let mut work = || side.take(Condition::Row(each)).map(drop);
        let counts = syscalls::count(setup, pid, &mut work)?;
        let synced: u64 = ["fsync", "fdatasync"]
            .iter()
            .filter_map(|name| counts.get(*name))
            .sum();
        let each = synced as f64 / (each * MANY) as f64;
        figures.push(
            Figure::new("fsync = always, fsyncs per call", each, "calls")
                .at_most(0.99)
                .counted(),
        );
    }
    report.section(
        &format!(
            "{MANY} publishers at once through the control socket, any core, wall time per call"
        ),
        &figures,
    );
    Ok(())
}

/// CPU per delivery of the whole process, history off, in memory and on disk.
fn per_delivery(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let size = plan.sizes.first().copied().unwrap_or(1000);
    let messages = (plan.deliveries / size).next_multiple_of(8).max(8);
    let way = Way::new(setup, "interval");
    let disk = way.settings();
    let mut contestants = [
        (
            "history_size = 0",
            Contestant::php_with(setup, Kind::Raw, size, &[("history_size", "0")])?,
        ),
        ("history = memory", Contestant::php(setup, Kind::Raw, size)?),
        (
            "history = disk",
            Contestant::php_with(setup, Kind::Raw, size, &disk)?,
        ),
    ];
    let mut figures = Vec::new();
    for mode in [Mode::Alone, Mode::Sliding] {
        let mut taken = [const { Vec::new() }; 3];
        for round in 0..=plan.rounds {
            for ((_, contestant), taken) in contestants.iter_mut().zip(&mut taken) {
                let one = contestant.take(mode, messages, MESSAGE)?;
                if round > 0 {
                    taken.push(one.cpu);
                }
            }
        }
        for ((name, _), times) in contestants.iter().zip(&taken) {
            let ratios = times.iter().zip(&taken[0]).map(|(time, off)| time / off);
            let ratio = median(&ratios.collect::<Vec<_>>());
            let figure = Figure::new(format!("{name}, {}", mode.name()), median(times), "ns");
            figures.push(match *name {
                "history_size = 0" => figure,
                _ => figure.at_most_times(ratio, 1.05, "without"),
            });
        }
    }
    report.section(
        &format!("CPU per delivery with and without a history, N = {size}, /raw"),
        &figures,
    );
    Ok(())
}
