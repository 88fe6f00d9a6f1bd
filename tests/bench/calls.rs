//! What one `rt_broadcast()` call costs its caller.

use crate::client::Manner;
use crate::fanout::numbers;
use crate::process::{self, Process, Server, Setup};
use crate::report::{Figure, Report};
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan};

/// Measures and prints: server thread awake and asleep, in process and through the control socket.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    // The smallest number that is whole in publish.php's blocks of 100.
    let calls = (plan.deliveries * 2).next_multiple_of(100);
    let asleep = (calls / 100).clamp(100, 1000);
    let socket = "calls.sock";
    // On all cores: PHP and the server thread run side by side, as in a real process.
    let mut server = Server::php(
        setup,
        &setup.cores.all,
        "publish.php",
        socket,
        true,
        // A loop without a pause outruns any single socket; its reader is not to be cut off for that.
        &[("max_backlog", "512M"), ("ping_interval", "3600")],
    )?;
    let mut figures = Vec::new();
    taking(&mut server.process, "nobody", calls, None)?;
    figures.extend(awake(
        "in process, awake, no subscriber",
        taking(&mut server.process, "nobody", calls, None)?,
        Some(1.0),
    ));
    let mut reader = process::clients(setup, &server, Kind::Raw, 1, "busy", Manner::Plain)?;
    figures.extend(awake(
        "in process, awake, one busy subscriber",
        taking(&mut server.process, "busy", calls, Some(&mut reader))?,
        Some(1.0),
    ));
    figures.push(sleeping("in process, asleep", &mut server.process, asleep)?);
    let mut other = Server::php(
        setup,
        &setup.cores.client,
        "publish.php",
        socket,
        false,
        &[],
    )?;
    let through = calls / 10;
    taking(&mut other.process, "nobody", through, None)?;
    figures.extend(awake(
        "control socket, in a row",
        taking(&mut other.process, "nobody", through, None)?,
        None,
    ));
    figures.push(sleeping(
        "control socket, asleep",
        &mut other.process,
        asleep,
    )?);
    report.section(
        &format!(
            "rt_broadcast(), {MESSAGE} bytes, cost of a call; server on cores {:?}",
            setup.cores.all
        ),
        &figures,
    );
    Ok(())
}

/// Microseconds per call.
struct Cost {
    wall: f64,
    typical: f64,
    cpu: f64,
    all_threads: f64,
}

fn taking(
    process: &mut Process,
    channel: &str,
    calls: usize,
    reader: Option<&mut Process>,
) -> Outcome<Cost> {
    let mut reader = reader;
    if let Some(reader) = &mut reader {
        reader.tell(&format!("count {calls}"))?;
        reader.hear("ARMED")?;
    }
    let before = crate::cpu::CpuTime::of(process.pid())?;
    process.tell(&format!("loop {channel} {calls} {MESSAGE}"))?;
    let times = numbers(&process.hear("DONE")?)?;
    if let Some(reader) = reader {
        reader.hear("DONE")?;
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    let used = crate::cpu::CpuTime::of(process.pid())?.since(before);
    let per_call = |nanoseconds: f64| nanoseconds / calls as f64 / 1e3;
    Ok(Cost {
        wall: per_call(times[0]),
        typical: times[1] / 100.0 / 1e3,
        cpu: per_call(used.main as f64),
        all_threads: per_call(used.process as f64),
    })
}

fn awake(name: &str, cost: Cost, limit: Option<f64>) -> Vec<Figure> {
    // The mean is what a program pays; the median leaves out the blocks in which it had to wait for the server.
    let limited = |figure: Figure| match limit {
        Some(limit) => figure.at_most(limit),
        None => figure,
    };
    let mean = Figure::new(format!("{name}, mean"), cost.wall, "us").note(format!(
        "CPU: PHP thread {:.2} us, all threads {:.2} us",
        cost.cpu, cost.all_threads
    ));
    let typical = Figure::new(format!("{name}, median of 100s"), cost.typical, "us");
    vec![limited(mean), limited(typical)]
}

fn sleeping(name: &str, process: &mut Process, calls: usize) -> Outcome<Figure> {
    process.tell(&format!("asleep nobody {calls} {MESSAGE} 1000"))?;
    let times = numbers(&process.hear("DONE")?)?;
    Ok(Figure::new(format!("{name}, median"), times[1] / 1e3, "us")
        .note(format!("mean {:.2} us", times[0] / calls as f64 / 1e3)))
}
