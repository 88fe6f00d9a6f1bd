//! System calls per delivery, counted by `strace -c` in a pass of their own (tracing slows what it counts).

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fanout::{Contestant, Mode};
use crate::process::Setup;
use crate::report::{Figure, Report};
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan, say};

/// Counts and prints the floor's and the server's.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    if !can_count() {
        return Ok(());
    }
    let size = plan.sizes.first().copied().unwrap_or(1000);
    let messages = (plan.deliveries / 5 / size).next_multiple_of(8).max(8);
    let mut figures = Vec::new();
    let mut floor = Contestant::floor(setup, size)?;
    let mut raw = Contestant::php(setup, Kind::Raw, size)?;
    let mut sse = Contestant::php(setup, Kind::Sse, size)?;
    let turns: [(&str, &mut Contestant, &[Mode]); 3] = [
        ("floor", &mut floor, &[Mode::Alone]),
        (
            "WebSocket /raw",
            &mut raw,
            &[Mode::Alone, Mode::Sliding, Mode::Burst],
        ),
        ("SSE", &mut sse, &[Mode::Alone, Mode::Sliding]),
    ];
    for (label, contestant, modes) in turns {
        for &mode in modes {
            contestant.take(mode, 8, MESSAGE)?;
            let pid = contestant.server.process.pid();
            let mut work = || contestant.take_at_once(mode, messages, MESSAGE).map(|_| ());
            let counts = count(setup, pid, &mut work)?;
            let deliveries = (messages * size) as f64;
            let name = format!("{label}, {}", mode.name());
            let figure = figure(name, &counts, deliveries);
            figures.push(match (label, mode) {
                ("floor", _) => figure,
                // One write for each, and a few for the message.
                (_, Mode::Alone) => figure.at_most(1.1).counted(),
                // One write for all eight.
                (_, Mode::Burst) => figure.at_most(0.3).counted(),
                // How many meet in one write is a matter of time.
                (_, Mode::Sliding) => figure,
            });
        }
    }
    report.section(
        &format!("System calls per delivery, N = {size}, whole process, under strace"),
        &figures,
    );
    Ok(())
}

/// Whether they can be counted here; says so when not.
pub fn can_count() -> bool {
    let found = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        say("\nSystem calls: strace not installed");
    }
    found
}

/// How often each was made, by `times` pieces of work.
pub fn figure(name: String, counts: &BTreeMap<String, u64>, times: f64) -> Figure {
    let total: u64 = counts.values().sum();
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1));
    let detail: Vec<String> = sorted
        .iter()
        .take(5)
        .map(|(name, count)| format!("{name} {:.4}", **count as f64 / times))
        .collect();
    Figure::new(name, total as f64 / times, "calls").note(detail.join(", "))
}

/// Counts those of the process `pid` while `work` is done.
pub fn count(
    setup: &Setup,
    pid: u32,
    work: &mut dyn FnMut() -> Outcome<()>,
) -> Outcome<BTreeMap<String, u64>> {
    let summary = setup.scratch.join("strace");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(&summary)
        .args(["-p", &pid.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("strace: {e}"))?;
    let done = attached(pid, &mut strace).and_then(|()| work());
    // SAFETY: sends a signal to a child that we started and have not waited for, so that its id is still its own.
    unsafe { libc::kill(strace.id().cast_signed(), libc::SIGINT) };
    strace.wait().map_err(|e| format!("strace: {e}"))?;
    done?;
    let text = fs::read_to_string(&summary).map_err(|e| format!("strace's summary: {e}"))?;
    let counts: BTreeMap<String, u64> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let count = words.next()?.parse().ok()?;
            let name = words.next()?;
            (name != "total").then(|| (name.to_owned(), count))
        })
        .collect();
    if counts.is_empty() {
        return Err(format!("strace counted nothing:\n{text}"));
    }
    Ok(counts)
}

/// Waits until every thread of `pid` is traced.
fn attached(pid: u32, strace: &mut Child) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Some(status) = strace.try_wait().map_err(|e| e.to_string())? {
            return Err(format!(
                "strace could not attach to process {pid} ({status}); is ptrace allowed?"
            ));
        }
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
        let untraced = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .filter(|status| status.contains("TracerPid:\t0\n"))
            .count();
        if untraced == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("strace did not attach to process {pid} in time"))
}
