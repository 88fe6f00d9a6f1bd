//! What presence costs a delivery: the same clients on a channel that knows who is there, and on one that does not.

use crate::fanout::{Contestant, Mode};
use crate::process::Setup;
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan};

/// Members of one channel: as many as `realtime.presence_members` allows where it is not set.
const MEMBERS: usize = 1000;
const CHANNELS: [(&str, &str); 2] = [
    ("without presence", "private-bench"),
    ("as many members", "presence-bench"),
];

/// Measures and prints.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let size = plan.sizes.first().map_or(MEMBERS, |n| (*n).min(MEMBERS));
    let messages = (plan.deliveries / size).next_multiple_of(8).max(8);
    let mut contestants = Vec::new();
    for (name, channel) in CHANNELS {
        contestants.push((
            name,
            Contestant::php_on(setup, Kind::Member, size, channel)?,
        ));
    }
    let mut figures = Vec::new();
    for mode in [Mode::Alone, Mode::Sliding] {
        let mut taken = [const { Vec::new() }; 2];
        for round in 0..=plan.rounds {
            for ((_, contestant), taken) in contestants.iter_mut().zip(&mut taken) {
                let one = contestant.take(mode, messages, MESSAGE)?;
                if round > 0 {
                    taken.push(one.cpu);
                }
            }
        }
        let ratios = taken[1].iter().zip(&taken[0]).map(|(with, off)| with / off);
        let ratio = median(&ratios.collect::<Vec<_>>());
        for ((name, _), times) in contestants.iter().zip(&taken) {
            let figure = Figure::new(format!("{name}, {}", mode.name()), median(times), "ns");
            figures.push(match *name {
                "without presence" => figure,
                _ => figure.at_most_times(ratio, 1.05, "without"),
            });
        }
    }
    report.section(
        &format!("CPU per delivery with and without presence, N = {size}, /ws"),
        &figures,
    );
    Ok(())
}
