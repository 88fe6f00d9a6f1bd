//! A reader that never reads, among a thousand: do the others notice?

use std::fs;
use std::net::SocketAddr;

use crate::client::Manner;
use crate::fanout::{Contestant, Mode, numbers};
use crate::process::{self, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan};

/// Enough to fill the slow reader's socket buffers and to wait in its outbox, and less than `max_backlog`.
const FILL: (usize, usize) = (20, 32 << 10);

/// Measures and prints the others' latency without and with it.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let size = plan.sizes.first().copied().unwrap_or(1000);
    let messages = (plan.deliveries / size).clamp(20, 200);
    let mut figures = Vec::new();
    let mut contestant = Contestant::php(setup, Kind::Raw, size)?;
    let mut quantiles = |contestant: &mut Contestant, name: &str| -> Outcome<f64> {
        let mut p50 = Vec::new();
        let mut p99 = Vec::new();
        for _ in 0..plan.rounds.max(3) {
            let taking = contestant.take_at_once(Mode::Alone, messages, MESSAGE)?;
            p50.push(taking.p50);
            p99.push(taking.p99);
        }
        figures.push(Figure::new(format!("{name}, p50"), median(&p50), "us"));
        figures.push(Figure::new(format!("{name}, p99"), median(&p99), "us"));
        Ok(median(&p99))
    };
    contestant.take_at_once(Mode::Alone, FILL.0, FILL.1)?;
    quantiles(&mut contestant, "without a slow reader")?;
    let mut slow = process::clients(
        setup,
        &contestant.server,
        Kind::Raw,
        1,
        "bench",
        Manner::Small,
    )?;
    contestant.take_at_once(Mode::Alone, FILL.0, FILL.1)?;
    quantiles(&mut contestant, "with one that never reads")?;
    let address = contestant.server.address.ok_or("no address")?;
    let queued = unsent(address)?;
    if queued == 0 {
        return Err("the slow reader was not slow: nothing waits in its socket".into());
    }
    let all = FILL.0 + plan.rounds.max(3) * messages;
    slow.tell(&format!("count {all}"))?;
    slow.hear("ARMED")?;
    let wall = numbers(&slow.hear("DONE")?)?[0];
    let figure = Figure::new("its backlog, read at last", wall / 1e6, "ms");
    figures.push(figure.note(format!(
        "all {all} messages; {} KiB of them waited in its socket",
        queued >> 10
    )));
    report.section(
        &format!("Latency of a message alone beside a slow reader, N = {size}"),
        &figures,
    );
    Ok(())
}

/// Bytes in the send queues of all sockets of the server at `address`, which is on 127.0.0.1.
fn unsent(address: SocketAddr) -> Outcome<u64> {
    let table = fs::read_to_string("/proc/net/tcp").map_err(|e| format!("/proc/net/tcp: {e}"))?;
    let local = format!(":{:04X}", address.port());
    Ok(table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let of_server = words.next()?.ends_with(&local);
            let queues = words.nth(2)?;
            let unsent = u64::from_str_radix(queues.split_once(':')?.0, 16).ok()?;
            of_server.then_some(unsent)
        })
        .sum())
}
