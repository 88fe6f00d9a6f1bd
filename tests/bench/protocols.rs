//! CPU per delivery to clients of other protocols, beside those of ours in the same form: Pusher's beside `/ws`, Mercure's beside
//! `/sse`.

use crate::fanout::{Contestant, Mode, Taking};
use crate::process::Setup;
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan};

/// Another protocol's clients, and those that they stand beside.
const PAIRS: [(Kind, &str, Kind, &str); 2] = [
    (Kind::Pusher, "Pusher", Kind::Native, "/ws"),
    (Kind::Mercure, "Mercure", Kind::Sse, "/sse"),
];

/// Measures and prints.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let count = plan.sizes.iter().copied().min().unwrap_or(1000);
    let messages = (plan.deliveries / count).next_multiple_of(8).max(16);
    let mut figures = Vec::new();
    for (kind, name, ours, our_name) in PAIRS {
        let mut own = Contestant::php(setup, ours, count)?;
        let mut other = Contestant::php(setup, kind, count)?;
        for mode in [Mode::Alone, Mode::Sliding] {
            let mut takings: Vec<(Taking, Taking)> = Vec::new();
            for round in 0..=plan.rounds {
                let pair = (
                    own.take(mode, messages, MESSAGE)?,
                    other.take(mode, messages, MESSAGE)?,
                );
                if round > 0 {
                    takings.push(pair);
                }
            }
            let of = |get: fn(&(Taking, Taking)) -> f64| {
                median(&takings.iter().map(get).collect::<Vec<_>>())
            };
            let times = of(|(own, other)| other.cpu / own.cpu);
            let mode = mode.name();
            figures.push(
                Figure::new(format!("{our_name}, {mode}"), of(|t| t.0.cpu), "ns")
                    .note(format!("{:.0} bytes", of(|t| t.0.bytes))),
            );
            figures.push(
                Figure::new(format!("{name}, {mode}"), of(|t| t.1.cpu), "ns")
                    .at_most_times(times, 1.1, our_name)
                    .note(format!("{:.0} bytes", of(|t| t.1.bytes))),
            );
        }
    }
    report.section(
        &format!("Other protocols: CPU per delivery, N = {count}, whole server process"),
        &figures,
    );
    Ok(())
}
