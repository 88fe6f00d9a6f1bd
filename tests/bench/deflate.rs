//! Compressed fan-out beside plain: CPU per delivery and bytes on the wire, of messages like JSON.
//!
//! One server and one publisher, and two crowds of clients that take turns: only the clients' offer differs.

use crate::fanout::{Contestant, Mode, Taking};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{Outcome, Plan, process::Setup};

/// The sizes of messages, bytes.
const SIZES: [usize; 2] = [1024, 8192];

/// Measures and prints each number of clients: one, where the compression counts, and the smallest crowd of the plan.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let crowd = plan.sizes.iter().copied().min().unwrap_or(1000);
    for count in [1, crowd] {
        measure(setup, plan, count, report)?;
    }
    Ok(())
}

fn measure(setup: &Setup, plan: &Plan, count: usize, report: &mut Report) -> Outcome<()> {
    let mut plain = Contestant::php(setup, Kind::Raw, count)?;
    let mut packed = Contestant::php(setup, Kind::Deflate, count)?;
    let messages = (plan.deliveries / 2 / count).clamp(16, 4000);
    let messages = messages.next_multiple_of(8);
    let mut cpu = Vec::new();
    let mut wire = Vec::new();
    for bytes in SIZES {
        for mode in [Mode::Alone, Mode::Sliding] {
            let mut takings: Vec<(Taking, Taking)> = Vec::new();
            for round in 0..=plan.rounds {
                let pair = (
                    plain.take(mode, messages, bytes)?,
                    packed.take(mode, messages, bytes)?,
                );
                if round > 0 {
                    takings.push(pair);
                }
            }
            let of = |get: fn(&(Taking, Taking)) -> f64| {
                median(&takings.iter().map(get).collect::<Vec<_>>())
            };
            let name = format!("{bytes} bytes, {}", mode.name());
            let times = of(|(plain, packed)| packed.cpu / plain.cpu);
            cpu.push(Figure::new(format!("plain, {name}"), of(|t| t.0.cpu), "ns"));
            cpu.push(
                Figure::new(format!("compressed, {name}"), of(|t| t.1.cpu), "ns")
                    .note(format!("{times:.2} x plain")),
            );
            if mode == Mode::Alone {
                let share = of(|(plain, packed)| packed.bytes / plain.bytes);
                wire.push(Figure::new(
                    format!("plain, {bytes} bytes"),
                    of(|t| t.0.bytes),
                    "bytes",
                ));
                wire.push(
                    Figure::new(
                        format!("compressed, {bytes} bytes"),
                        of(|t| t.1.bytes),
                        "bytes",
                    )
                    .note(format!("{:.0}% of plain", share * 100.0)),
                );
            }
        }
    }
    report.section(
        &format!("permessage-deflate: CPU per delivery, N = {count}, whole server process"),
        &cpu,
    );
    report.section(
        &format!("permessage-deflate: bytes on the wire per delivery, N = {count}"),
        &wire,
    );
    Ok(())
}
