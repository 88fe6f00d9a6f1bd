//! Fan-out: CPU per delivery of WebSocket and SSE beside the floor, and latency.
//!
//! All contestants of a size are alive at once and take turns, the floor before each, so that what drifts on the machine
//! drifts for all. The median over the rounds counts.

use std::path::Path;

use crate::client::Manner;
use crate::fpm::Pool;
use crate::process::{self, Process, Publisher, Server, Setup};
use crate::report::{Figure, Report};
use crate::stats::median;
use crate::tls;
use crate::wire::Kind;
use crate::{MESSAGE, Outcome, Plan};

/// Messages before each taking that are not counted. After a pause longer than its retransmission time-out TCP
/// acknowledges the next 16 segments at once, which the writer pays for: whoever had paused longer would look slower.
const SETTLE: usize = 24;

/// How messages follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The next one when all clients have the last.
    Alone,
    /// Eight under way; the next as soon as one has reached all.
    Sliding,
    /// Eight at a time; the next eight when all have reached all.
    Burst,
}

impl Mode {
    fn window(self) -> usize {
        match self {
            Self::Alone => 1,
            Self::Sliding | Self::Burst => 8,
        }
    }

    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Sliding => "eight under way",
            Self::Burst => "bursts of eight",
        }
    }
}

/// One taking.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taking {
    /// Server CPU per delivery, ns.
    pub cpu: f64,
    /// Of which the server threads (`rt-…`).
    pub hub: f64,
    /// Median latency, us.
    pub p50: f64,
    /// 99th percentile, us.
    pub p99: f64,
    /// Deliveries a second.
    pub rate: f64,
    /// Bytes per delivery that reached a client.
    pub bytes: f64,
    /// CPU per delivery of the floor just before, ns.
    floor: f64,
}

/// A server and its clients.
pub struct Contestant {
    /// The server.
    pub server: Server,
    clients: Process,
    channel: &'static str,
    count: usize,
}

impl Contestant {
    /// The floor with `count` clients.
    pub fn floor(setup: &Setup, count: usize) -> Outcome<Self> {
        let server = Server::floor(setup, count)?;
        Self::open(setup, server, Kind::Floor, count)
    }

    /// A PHP server with `count` clients of one kind.
    pub fn php(setup: &Setup, kind: Kind, count: usize) -> Outcome<Self> {
        Self::php_with(setup, kind, count, &[])
    }

    /// The same with these settings, without their `realtime.`.
    pub fn php_with(
        setup: &Setup,
        kind: Kind,
        count: usize,
        settings: &[(&str, &str)],
    ) -> Outcome<Self> {
        let (server, _) = Self::server(setup, kind, settings)?;
        Self::open(setup, server, kind, count)
    }

    /// A PHP server with `count` clients of one kind on a channel of that name.
    pub fn php_on(setup: &Setup, kind: Kind, count: usize, channel: &'static str) -> Outcome<Self> {
        let (server, _) = Self::server(setup, kind, &[])?;
        Self::open_on(setup, server, kind, count, channel)
    }

    /// A PHP server with `count` clients of one kind, and the publisher in another PHP process.
    pub fn apart(setup: &Setup, kind: Kind, count: usize) -> Outcome<Self> {
        let (mut server, socket) = Self::server(setup, kind, &[])?;
        let cores = &setup.cores.server;
        let publisher = Server::php(setup, cores, "publish.php", &socket, false, &[])?;
        server.other = Some(Publisher::Process(publisher.process));
        Self::open(setup, server, kind, count)
    }

    /// The same, with a worker of PHP-FPM that publishes and the server that it has started.
    pub fn fpm(setup: &Setup, fpm: &Path, kind: Kind, count: usize) -> Outcome<Self> {
        let cores = &setup.cores.server;
        let settings = [("realtime.ping_interval", "3600")];
        let server = Pool::start(setup, fpm, 1, cores, &settings)?.server()?;
        Self::open(setup, server, kind, count)
    }

    /// A PHP server, and the name of its control socket.
    fn server(setup: &Setup, kind: Kind, settings: &[(&str, &str)]) -> Outcome<(Server, String)> {
        // Thousands that opened together would be pinged together, in the middle of one taking or another.
        let mut all = vec![("ping_interval", "3600")];
        all.extend(settings);
        all.extend(kind.settings());
        // A name that no other server of this run had.
        let socket = format!("{}-{}.sock", kind.name(), crate::cpu::now());
        let files = tls::settings(setup);
        if kind.is_secure() {
            all.extend(files.iter().map(|(name, path)| (*name, &**path)));
        }
        let cores = &setup.cores.server;
        let server = Server::php(setup, cores, "publish.php", &socket, true, &all)?;
        Ok((server, socket))
    }

    fn open(setup: &Setup, server: Server, kind: Kind, count: usize) -> Outcome<Self> {
        Self::open_on(setup, server, kind, count, "bench")
    }

    fn open_on(
        setup: &Setup,
        server: Server,
        kind: Kind,
        count: usize,
        channel: &'static str,
    ) -> Outcome<Self> {
        // Only with a core of its own: else it would take the server's.
        let manner = match setup.cores.server == setup.cores.client {
            true => Manner::Plain,
            false => Manner::Awake,
        };
        let clients = process::clients(setup, &server, kind, count, channel, manner)?;
        // The last subscriptions may stand a moment after their handshakes' answers.
        std::thread::sleep(std::time::Duration::from_millis(100));
        Ok(Self {
            server,
            clients,
            channel,
            count,
        })
    }

    /// Publishes `messages` of `bytes`, after some that are not counted, and waits until all clients have all of them.
    pub fn take(&mut self, mode: Mode, messages: usize, bytes: usize) -> Outcome<Taking> {
        self.take_at_once(mode, SETTLE, bytes)?;
        self.take_at_once(mode, messages, bytes)
    }

    /// The same, of exactly these messages.
    pub fn take_at_once(&mut self, mode: Mode, messages: usize, bytes: usize) -> Outcome<Taking> {
        self.clients.tell(&format!("expect {messages} {bytes}"))?;
        self.clients.hear("ARMED")?;
        let before = self.server.cpu()?;
        let pace = if mode == Mode::Burst {
            "burst"
        } else {
            "sliding"
        };
        self.server.tell(&format!(
            "run {pace} {} {messages} {} {bytes}",
            self.channel,
            mode.window()
        ))?;
        // The clients first: they notice what is lost, and the server would wait for it forever.
        let times = numbers(&self.clients.hear("DONE")?)?;
        let wall = numbers(&self.server.hear()?)?;
        let used = self.server.cpu()?.since(before);
        let (&[_, p50, p99, bytes, _], &[wall]) = (times.as_slice(), wall.as_slice()) else {
            return Err("a DONE without its figures".into());
        };
        let deliveries = (messages * self.count) as f64;
        Ok(Taking {
            cpu: used.process as f64 / deliveries,
            hub: used.hub as f64 / deliveries,
            p50: p50 / 1e3,
            p99: p99 / 1e3,
            rate: deliveries / wall * 1e9,
            bytes: bytes / deliveries,
            floor: 0.0,
        })
    }
}

/// Measures and prints every size.
pub fn run(setup: &Setup, plan: &Plan, report: &mut Report) -> Outcome<()> {
    for &size in &plan.sizes {
        measure(setup, plan, size, report)?;
    }
    Ok(())
}

const TURNS: [(Kind, Mode); 7] = [
    (Kind::Raw, Mode::Alone),
    (Kind::Raw, Mode::Sliding),
    (Kind::Raw, Mode::Burst),
    (Kind::Sse, Mode::Alone),
    (Kind::Sse, Mode::Sliding),
    (Kind::Native, Mode::Alone),
    (Kind::Native, Mode::Sliding),
];

fn measure(setup: &Setup, plan: &Plan, size: usize, report: &mut Report) -> Outcome<()> {
    let mut floor = Contestant::floor(setup, size)?;
    let mut contestants = Vec::new();
    for kind in [Kind::Raw, Kind::Sse, Kind::Native] {
        contestants.push((kind, Contestant::php(setup, kind, size)?));
    }
    // Whole windows only, so that sliding and burst end as they began.
    let messages = (plan.deliveries / size).next_multiple_of(8).max(8);
    let warm_up = (messages / 4).next_multiple_of(8);
    let mut floors = Vec::new();
    let mut takings = vec![Vec::new(); TURNS.len()];
    for round in 0..=plan.rounds {
        for ((kind, mode), taken) in TURNS.into_iter().zip(&mut takings) {
            let Some((_, contestant)) = contestants.iter_mut().find(|(k, _)| *k == kind) else {
                continue;
            };
            if round == 0 {
                contestant.take(mode, warm_up, MESSAGE)?;
                floor.take(Mode::Alone, warm_up, MESSAGE)?;
            } else {
                let under = floor.take(Mode::Alone, messages, MESSAGE)?;
                let mut taking = contestant.take(mode, messages, MESSAGE)?;
                taking.floor = under.cpu;
                floors.push(under);
                taken.push(taking);
            }
        }
    }
    show(size, &floors, &takings, report);
    Ok(())
}

fn show(size: usize, floors: &[Taking], all: &[Vec<Taking>], report: &mut Report) {
    let middle = |takings: &[Taking], of: fn(&Taking) -> f64| {
        median(&takings.iter().map(of).collect::<Vec<_>>())
    };
    let floor = middle(floors, |t| t.cpu);
    let spread = floors.iter().map(|t| t.cpu).fold(0.0, f64::max)
        / floors.iter().map(|t| t.cpu).fold(f64::MAX, f64::min);
    let mut cpu = vec![
        Figure::new("floor: one write(2) each, alone", floor, "ns")
            .over_floor(1.0)
            .note(format!("highest/lowest taking {spread:.2}")),
    ];
    let mut hub = Vec::new();
    let mut latency = vec![
        Figure::new("floor, alone, p50", middle(floors, |t| t.p50), "us"),
        Figure::new("floor, alone, p99", middle(floors, |t| t.p99), "us"),
    ];
    // Round by round, so that a change of the machine's mood between rounds does not count.
    let over_raw = |wanted: Mode, takings: &[Taking]| {
        let raw = TURNS
            .iter()
            .zip(all)
            .find(|(turn, _)| **turn == (Kind::Raw, wanted));
        let pairs = raw.into_iter().flat_map(|(_, raw)| takings.iter().zip(raw));
        median(
            &pairs
                .map(|(taking, raw)| taking.cpu / raw.cpu)
                .collect::<Vec<_>>(),
        )
    };
    for ((kind, mode), takings) in TURNS.into_iter().zip(all) {
        let label = match kind {
            Kind::Raw => "WebSocket /raw",
            Kind::Sse => "SSE",
            _ => "WebSocket /ws",
        };
        let name = format!("{label}, {}", mode.name());
        let value = middle(takings, |t| t.cpu);
        let figure =
            Figure::new(&name, value, "ns").over_floor(middle(takings, |t| t.cpu / t.floor));
        let figure = match (kind, mode) {
            (Kind::Raw, Mode::Alone) => figure.at_most_floors(1.15),
            (Kind::Raw, _) => figure.at_most_floors(0.35),
            (Kind::Sse, _) => figure.at_most_times(over_raw(mode, takings), 1.2, "/raw"),
            _ => figure,
        };
        let rate = middle(takings, |t| t.rate);
        cpu.push(figure.note(format!("{:.2} M deliveries/s", rate / 1e6)));
        hub.push(
            Figure::new(&name, middle(takings, |t| t.hub), "ns")
                .over_floor(middle(takings, |t| t.hub / t.floor)),
        );
        if mode == Mode::Alone {
            let of = |t: fn(&Taking) -> f64| middle(takings, t);
            latency.push(Figure::new(format!("{name}, p50"), of(|t| t.p50), "us"));
            latency.push(Figure::new(format!("{name}, p99"), of(|t| t.p99), "us"));
        }
    }
    report.section(
        &format!("CPU per delivery, N = {size}, whole server process"),
        &cpu,
    );
    report.section(
        &format!("CPU per delivery, N = {size}, the server threads (rt-*) without PHP's own"),
        &hub,
    );
    report.section(
        &format!(
            "Latency of a message alone, N = {size}, from before rt_broadcast() to the client"
        ),
        &latency,
    );
}

/// The numbers of an answer.
pub fn numbers(words: &[String]) -> Outcome<Vec<f64>> {
    words
        .iter()
        .map(|word| word.parse().map_err(|e| format!("\"{word}\": {e}")))
        .collect()
}
