//! Echo through PHP: `rt_on_message()` -> `$m->from->send()`, CPU per echo of all threads.

use crate::client::Manner;
use crate::fanout::numbers;
use crate::process::{self, Server, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan};

const CONNECTIONS: usize = 100;

/// Measures and prints 16 and 1 messages under way per connection.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    let server = Server::php(
        setup,
        &setup.cores.server,
        "echo.php",
        "echo.sock",
        true,
        &[],
    )?;
    let mut clients = process::clients(
        setup,
        &server,
        Kind::Raw,
        CONNECTIONS,
        "echo",
        Manner::Plain,
    )?;
    let each = plan.deliveries / CONNECTIONS;
    let mut figures = Vec::new();
    for window in [16, 1] {
        let mut process = Vec::new();
        let mut hub = Vec::new();
        let mut rate = Vec::new();
        for round in 0..=plan.rounds {
            let before = server.cpu()?;
            clients.tell(&format!("echo {each} {window} {MESSAGE}"))?;
            let wall = numbers(&clients.hear("DONE")?)?[0];
            let used = server.cpu()?.since(before);
            let echoes = (each * CONNECTIONS) as f64;
            // The first is to warm up.
            if round > 0 {
                process.push(used.process as f64 / echoes / 1e3);
                hub.push(used.hub as f64 / echoes / 1e3);
                rate.push(echoes / wall * 1e9);
            }
        }
        let figure = Figure::new(
            format!("{window} under way per connection"),
            median(&process),
            "us",
        );
        let figure = if window == 16 {
            figure.at_most(4.0)
        } else {
            figure
        };
        figures.push(figure.note(format!(
            "server threads {:.2} us; {:.0} k echoes/s",
            median(&hub),
            median(&rate) / 1e3
        )));
    }
    report.section(
        &format!("CPU per echo through PHP, {CONNECTIONS} connections, all threads"),
        &figures,
    );
    Ok(())
}
