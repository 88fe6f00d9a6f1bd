//! `rt_broadcast()` through the control socket, the hub in another process: beside a bare round trip over a Unix socket,
//! what it adds to a delivery, and several publishers at once.
//!
//! The bare round trip and the call take turns, so that what drifts on the machine drifts for both.

use crate::cpu::{CpuTime, Mask};
use crate::fanout::{Contestant, Mode, numbers};
use crate::fpm::{self, Pool};
use crate::process::{Process, Publisher, Server, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan, syscalls};

/// The pause before each call whose hub is to be asleep, microseconds.
const PAUSE: usize = 1000;
/// Publishers at once.
const MANY: usize = 4;

/// Measures and prints.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let calls = (plan.deliveries / 6).next_multiple_of(100);
    let cores = &setup.cores;
    let who = match fpm::find(setup) {
        Some(_) => "workers of PHP-FPM",
        None => "`php` processes, as PHP-FPM is not installed",
    };
    let mut figures = Vec::new();
    for (place, hub, publisher) in [
        ("a core each", &cores.server, &cores.client),
        ("one core", &cores.server, &cores.server),
        ("any core", &cores.all, &cores.all),
    ] {
        let mut bare = Side::bare(setup, hub, publisher, 1)?;
        let mut ours = Side::hub(setup, hub, publisher, 1)?;
        for (name, condition) in [
            ("in a row", Condition::Row(calls)),
            ("asleep", Condition::Asleep((calls / 50).clamp(50, 200))),
        ] {
            figures.extend(compare(
                &format!("{place}, {name}"),
                condition,
                plan.rounds,
                &mut bare,
                &mut ours,
            )?);
        }
    }
    report.section(
        &format!(
            "rt_broadcast() of {MESSAGE} bytes by {who}, beside a bare round trip of the same sizes"
        ),
        &figures,
    );
    at_once(setup, plan, calls, report)?;
    per_delivery(setup, plan, report)?;
    per_call(setup, calls, report)
}

/// An answering process and those that ask it.
pub struct Side {
    /// The process that answers.
    pub answering: u32,
    /// Those that ask.
    pub asking: Vec<Publisher>,
    /// The process that is to live as long.
    _keeper: Process,
}

/// How the calls follow each other.
#[derive(Clone, Copy)]
pub enum Condition {
    /// So many calls, each at once after the last.
    Row(usize),
    /// So many calls, each after a pause.
    Asleep(usize),
}

/// Microseconds per call.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    typical: f64,
    /// Of all who ask together.
    pub wall: f64,
    asking: f64,
    answering: f64,
}

impl Cost {
    fn cpu(self) -> f64 {
        self.asking + self.answering
    }
}

impl Side {
    fn bare(setup: &Setup, hub: &[usize], publisher: &[usize], count: usize) -> Outcome<Self> {
        let path = setup.scratch.join(format!("bare-{}", crate::cpu::now()));
        let path = path.to_string_lossy();
        let answering = Process::role("answer", &path, hub)?;
        let asking = (0..count)
            .map(|_| Process::role("ask", &path, publisher).map(Publisher::Process))
            .collect::<Outcome<_>>()?;
        Ok(Self {
            answering: answering.pid(),
            asking,
            _keeper: answering,
        })
    }

    /// Workers of PHP-FPM and the hub that they have started; without PHP-FPM, `php` processes.
    fn hub(setup: &Setup, hub: &[usize], publisher: &[usize], count: usize) -> Outcome<Self> {
        Self::hub_with(setup, hub, publisher, count, &[])
    }

    /// The same with these settings, without their `realtime.`.
    pub fn hub_with(
        setup: &Setup,
        hub: &[usize],
        publisher: &[usize],
        count: usize,
        settings: &[(&str, &str)],
    ) -> Outcome<Self> {
        if let Some(fpm) = fpm::find(setup) {
            let names: Vec<_> = settings
                .iter()
                .map(|(name, _)| format!("realtime.{name}"))
                .collect();
            let pairs = names.iter().zip(settings);
            let full: Vec<_> = pairs
                .map(|(name, (_, value))| (name.as_str(), *value))
                .collect();
            let pool = Pool::start(setup, &fpm, count, publisher, &full)?;
            let workers = (0..count).map(|_| pool.worker());
            let workers: Vec<_> = workers.collect::<Outcome<_>>()?;
            let answering = workers.first().map_or(0, |worker| worker.hub);
            Mask::new(hub).apply_to(answering)?;
            return Ok(Self {
                answering,
                asking: workers.into_iter().map(Publisher::Worker).collect(),
                _keeper: pool.keeper(),
            });
        }
        let socket = format!("hub-{}.sock", crate::cpu::now());
        let start = |cores, listen| {
            Server::php(setup, cores, "publish.php", &socket, listen, settings).map(|s| s.process)
        };
        let answering = start(hub, true)?;
        let asking = (0..count)
            .map(|_| start(publisher, false).map(Publisher::Process))
            .collect::<Outcome<_>>()?;
        Ok(Self {
            answering: answering.pid(),
            asking,
            _keeper: answering,
        })
    }

    /// Has all of them ask.
    pub fn take(&mut self, condition: Condition) -> Outcome<Cost> {
        let (line, calls, block) = match condition {
            Condition::Row(calls) => (format!("loop nobody {calls} {MESSAGE}"), calls, 100.0),
            Condition::Asleep(calls) => {
                let line = format!("asleep nobody {calls} {MESSAGE} {PAUSE}");
                (line, calls, 1.0)
            }
        };
        let of = |asking: &[Publisher]| {
            asking.iter().try_fold(0, |sum, process| {
                CpuTime::of(process.pid()).map(|time| sum + time.process)
            })
        };
        let hub = CpuTime::of(self.answering)?;
        let askers = of(&self.asking)?;
        for process in &mut self.asking {
            process.tell(&line)?;
        }
        let (mut longest, mut typical) = (0.0_f64, Vec::new());
        for process in &mut self.asking {
            let times = numbers(&process.hear()?)?;
            longest = longest.max(times[0]);
            typical.push(times[1] / block / 1e3);
        }
        let all = (calls * self.asking.len()) as f64 * 1e3;
        Ok(Cost {
            typical: median(&typical),
            wall: longest / all,
            asking: (of(&self.asking)? - askers) as f64 / all,
            answering: CpuTime::of(self.answering)?.since(hub).process as f64 / all,
        })
    }
}

fn compare(
    name: &str,
    condition: Condition,
    rounds: usize,
    bare: &mut Side,
    ours: &mut Side,
) -> Outcome<[Figure; 2]> {
    bare.take(condition)?;
    ours.take(condition)?;
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        pairs.push((bare.take(condition)?, ours.take(condition)?));
    }
    let middle =
        |of: &dyn Fn(&(Cost, Cost)) -> f64| median(&pairs.iter().map(of).collect::<Vec<_>>());
    let note = |asking: f64, answering: f64| {
        format!("CPU: asking {asking:.2} us, answering {answering:.2} us")
    };
    Ok([
        Figure::new(format!("bare, {name}"), middle(&|p| p.0.typical), "us")
            .over_floor(1.0)
            .note(note(middle(&|p| p.0.asking), middle(&|p| p.0.answering))),
        Figure::new(
            format!("rt_broadcast(), {name}"),
            middle(&|p| p.1.typical),
            "us",
        )
        .over_floor(middle(&|p| p.1.typical / p.0.typical))
        .at_most_floors(1.5)
        .note(note(middle(&|p| p.1.asking), middle(&|p| p.1.answering))),
    ])
}

/// One publisher beside several: the hub has one core, they share the other.
fn at_once(setup: &Setup, plan: &Plan, calls: usize, report: &mut Report) -> Outcome<()> {
    let cores = &setup.cores;
    let mut sides = [
        Side::bare(setup, &cores.server, &cores.client, 1)?,
        Side::bare(setup, &cores.server, &cores.client, MANY)?,
        Side::hub(setup, &cores.server, &cores.client, 1)?,
        Side::hub(setup, &cores.server, &cores.client, MANY)?,
    ];
    let mut taken: [Vec<Cost>; 4] = Default::default();
    for round in 0..=plan.rounds {
        for (side, taken) in sides.iter_mut().zip(&mut taken) {
            let each = (calls / side.asking.len()).next_multiple_of(100);
            let cost = side.take(Condition::Row(each))?;
            if round > 0 {
                taken.push(cost);
            }
        }
    }
    let middle = |index: usize, of: fn(Cost) -> f64| {
        median(&taken[index].iter().map(|&c| of(c)).collect::<Vec<_>>())
    };
    let ratio = |of: fn(Cost) -> f64| {
        let pairs = taken[2].iter().zip(&taken[3]);
        median(
            &pairs
                .map(|(&one, &four)| of(four) / of(one))
                .collect::<Vec<_>>(),
        )
    };
    let names = [
        "bare, 1 at once".to_owned(),
        format!("bare, {MANY} at once"),
        "rt_broadcast(), 1 at once".to_owned(),
        format!("rt_broadcast(), {MANY} at once"),
    ];
    let mut figures = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let (wall, cpu) = (middle(index, |c| c.wall), middle(index, Cost::cpu));
        let figure = Figure::new(format!("{name}, wall time per call"), wall, "us")
            .note(format!("{:.0} thousand calls/s", 1e3 / wall));
        let cost = Figure::new(format!("{name}, CPU per call"), cpu, "us").note(format!(
            "answering {:.2} us",
            middle(index, |c| c.answering)
        ));
        figures.extend(match index {
            3 => [
                figure.at_most_times(ratio(|c| c.wall), 1.0, "one publisher"),
                cost.at_most_times(ratio(Cost::cpu), 1.0, "one publisher"),
            ],
            _ => [figure, cost],
        });
    }
    report.section(
        &format!("{MANY} publishers at once on one core, the hub on another"),
        &figures,
    );
    Ok(())
}

/// CPU per delivery with the hub in the publishing process and in one of its own.
fn per_delivery(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let size = plan.sizes.first().copied().unwrap_or(1000);
    let messages = (plan.deliveries / size).next_multiple_of(8).max(8);
    let mut inside = Contestant::php(setup, Kind::Raw, size)?;
    let mut apart = match fpm::find(setup) {
        Some(fpm) => Contestant::fpm(setup, &fpm, Kind::Raw, size)?,
        None => Contestant::apart(setup, Kind::Raw, size)?,
    };
    let mut figures = Vec::new();
    for mode in [Mode::Alone, Mode::Sliding] {
        let mut pairs = Vec::new();
        for round in 0..=plan.rounds {
            let one = inside.take(mode, messages, MESSAGE)?;
            let other = apart.take(mode, messages, MESSAGE)?;
            if round > 0 {
                pairs.push((one.cpu, other.cpu));
            }
        }
        let middle = |of: fn(&(f64, f64)) -> f64| median(&pairs.iter().map(of).collect::<Vec<_>>());
        let name = mode.name();
        figures.push(Figure::new(
            format!("hub in the publishing process, {name}"),
            middle(|p| p.0),
            "ns",
        ));
        figures.push(
            Figure::new(
                format!("hub in a process of its own, {name}"),
                middle(|p| p.1),
                "ns",
            )
            .at_most_times(middle(|p| p.1 / p.0), 1.1, "in process"),
        );
    }
    report.section(
        &format!("CPU per delivery of hub and publisher together, N = {size}, /raw"),
        &figures,
    );
    Ok(())
}

/// System calls of a call, on both sides.
fn per_call(setup: &Setup, calls: usize, report: &mut Report) -> Outcome<()> {
    if !syscalls::can_count() {
        return Ok(());
    }
    let calls = (calls / 10).next_multiple_of(100);
    let cores = &setup.cores;
    let mut figures = Vec::new();
    for (label, mut side) in [
        ("bare", Side::bare(setup, &cores.server, &cores.client, 1)?),
        (
            "rt_broadcast()",
            Side::hub(setup, &cores.server, &cores.client, 1)?,
        ),
    ] {
        side.take(Condition::Row(100))?;
        for (who, pid) in [
            ("asking", side.asking[0].pid()),
            ("answering", side.answering),
        ] {
            // With pauses: under strace the answering side is so slow that in a row it would never have to wait.
            let mut work = || side.take(Condition::Asleep(calls)).map(|_| ());
            let mut counts = syscalls::count(setup, pid, &mut work)?;
            counts.remove("clock_nanosleep");
            figures.push(syscalls::figure(
                format!("{label}, {who}"),
                &counts,
                calls as f64,
            ));
        }
    }
    report.section("System calls per call, under strace", &figures);
    Ok(())
}
