//! User memory of an idle connection: PSS growth of the server process.

use std::time::Duration;

use crate::client::Manner;
use crate::cpu;
use crate::process::{self, Server, Setup};
use crate::report::{Figure, Report};
use crate::wire::Kind;
use crate::{Outcome, Plan};

/// Connections before the first sample, so that what is made once is not counted as theirs.
const WARM_UP: usize = 20;

/// Measures and prints each transport.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let mut figures = Vec::new();
    for (kind, name) in [
        (Kind::Raw, "WebSocket /raw"),
        (Kind::Deflate, "WebSocket /raw, compression agreed on"),
        (Kind::Native, "WebSocket /ws, one subscription"),
        (Kind::Sse, "SSE"),
    ] {
        // A new process for each: an allocator reuses what another transport's connections left behind.
        let server = Server::php(
            setup,
            &setup.cores.server,
            "publish.php",
            &format!("idle-{}.sock", kind.name()),
            true,
            &[],
        )?;
        let pid = server.process.pid();
        let _warm = process::clients(setup, &server, kind, WARM_UP, "idle", Manner::Plain)?;
        std::thread::sleep(Duration::from_millis(300));
        let before = cpu::pss(pid)?;
        let _idle = process::clients(setup, &server, kind, plan.idle, "idle", Manner::Plain)?;
        std::thread::sleep(Duration::from_secs(1));
        let growth = cpu::pss(pid)?.saturating_sub(before);
        figures.push(
            Figure::new(name, growth as f64 / plan.idle as f64, "bytes")
                .at_most(4096.0)
                .note(format!("PSS {} KiB before", before >> 10)),
        );
    }
    report.section(
        &format!(
            "User memory of an idle connection, PSS growth over {}",
            plan.idle
        ),
        &figures,
    );
    Ok(())
}
