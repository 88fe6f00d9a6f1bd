//! The five faults: what is done while PHP publishes, and how the outcome is judged.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::clients::{Clients, Notes};
use crate::fpm::{Fpm, signal};
use crate::publishers::{PUBLISHERS, Published, Publishers};
use crate::tally::Tally;

/// How long a fault may go on.
const PATIENCE: Duration = Duration::from_secs(90);

/// What every fault needs.
pub struct Setup {
    /// The PHP binary, which names the version of PHP-FPM.
    pub php: PathBuf,
    /// The extension under test.
    pub extension: PathBuf,
    /// How many clients.
    pub clients: usize,
}

/// One fault.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Lines of the pool.
    pool: &'static str,
    act: fn(&mut Field) -> Outcome<String>,
    /// What is wrong with its outcome.
    pub judge: fn(&Tally) -> Vec<String>,
}

/// All of them.
pub const ALL: [Scenario; 5] = [
    Scenario {
        name: "200 worker recycles",
        pool: "pm = static\npm.max_children = 4\npm.max_requests = 2",
        act: recycles,
        judge: Tally::unharmed,
    },
    Scenario {
        name: "10 reloads",
        pool: "pm = static\npm.max_children = 4",
        act: reloads,
        judge: Tally::unharmed,
    },
    Scenario {
        name: "SIGKILL of workers",
        pool: "pm = static\npm.max_children = 4",
        act: kills,
        judge: Tally::unharmed,
    },
    Scenario {
        name: "takeover by a new hub",
        pool: "pm = static\npm.max_children = 4",
        act: takeover,
        judge: Tally::taken_over,
    },
    Scenario {
        name: "SIGKILL of the hub",
        pool: "pm = static\npm.max_children = 4",
        act: death,
        judge: Tally::told,
    },
];

/// A fault on its way.
struct Field {
    fpm: Fpm,
    clients: Clients,
    publishers: Publishers,
    /// From which number on, of each publisher, nothing acknowledged may be missing, whatever happened.
    marks: [u64; PUBLISHERS],
}

impl Field {
    fn published(&self) -> &Published {
        &self.publishers.published
    }

    fn until(&self, what: &str, mut check: impl FnMut(&Self) -> bool) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        while !check(self) {
            if Instant::now() > end {
                return Err(format!(
                    "within {PATIENCE:?} there was not: {what}{}{}",
                    self.state(),
                    self.fpm.logs()
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets `count` more messages be acknowledged.
    fn publish(&self, count: u64) -> Outcome<()> {
        let goal = self.published().count.load(Ordering::Relaxed) + count;
        self.until("more messages", |field| {
            field.published().count.load(Ordering::Relaxed) >= goal
        })
    }

    fn state(&self) -> String {
        let (published, progress) = (self.published(), &self.clients.progress);
        format!(
            " ({} acknowledged, {} calls threw {:?}, {} pages broke off, {} clients subscribed, {} back)",
            published.count.load(Ordering::Relaxed),
            published.refused.load(Ordering::Relaxed),
            published.words.lock().expect("no publisher panics"),
            published.broken.load(Ordering::Relaxed),
            progress.subscribed.load(Ordering::Relaxed),
            progress.back.load(Ordering::Relaxed),
        )
    }

    fn all_subscribed(&self) -> bool {
        let progress = &self.clients.progress;
        progress.subscribed.load(Ordering::Relaxed) == progress.clients
    }
}

impl Scenario {
    /// Runs it.
    pub fn run(&self, setup: &Setup) -> Outcome<Tally> {
        let settings = [
            ("history_size", "100000"),
            ("drain", "3"),
            // Of the 1 s that is the default a busy machine may need all for something else, and no call may throw.
            ("timeout", "20"),
        ];
        let pages = ["faults/publish.php"];
        let fpm = Fpm::start(&setup.php, &setup.extension, self.pool, &settings, &pages)?;
        let socket = fpm.socket();
        // The first request brings the hub.
        crate::fastcgi::request(&socket, fpm.script(), "publisher=0&from=0&count=0", |_| {})?;
        fpm.until("a hub", |fpm| fpm.hubs().len() == 1)?;
        let clients = Clients::start(setup.clients, fpm.address)
            .map_err(|error| format!("{error}{}", fpm.logs()))?;
        let publishers = Publishers::start(socket, fpm.script().to_owned(), &clients.progress);
        let mut field = Field {
            fpm,
            clients,
            publishers,
            marks: [0; PUBLISHERS],
        };
        field.publish(50)?;
        let what = (self.act)(&mut field)?;
        field.publish(50)?;
        field.finish(what)
    }
}

impl Field {
    /// Ends it all and counts.
    fn finish(self, what: String) -> Outcome<Tally> {
        let published = self.publishers.stop();
        let progress = self.clients.progress.clone();
        // Until nothing comes any more. By looks and not by the clock: while the machine stands still nothing comes, either.
        let (mut before, mut quiet) = (0, 0);
        while quiet < 50 {
            std::thread::sleep(Duration::from_millis(20));
            let now = progress.delivered.load(Ordering::Relaxed);
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
        let mut tally = Tally {
            acknowledged: published.count.load(Ordering::Relaxed),
            refused: published.refused.load(Ordering::Relaxed),
            delivered: before,
            dropped: progress.dropped.load(Ordering::Relaxed),
            connected: (
                progress.subscribed.load(Ordering::Relaxed),
                progress.clients,
            ),
            what,
            ..Tally::default()
        };
        let broken = published.broken.load(Ordering::Relaxed);
        if broken > 0 {
            tally.what.push_str(&format!(", {broken} pages broke off"));
        }
        if tally.refused > 0 {
            let words = published.words.lock().expect("no publisher panics");
            tally
                .what
                .push_str(&format!(", {} calls threw {words:?}", tally.refused));
        }
        for notes in self.clients.stop()? {
            tally.add(&notes, &published, &self.marks);
        }
        Ok(tally)
    }
}

impl Tally {
    fn add(&mut self, notes: &Notes, published: &Published, marks: &[u64; PUBLISHERS]) {
        let before = self.lost;
        for (publisher, numbers) in published.acknowledged.iter().enumerate() {
            for &number in numbers.lock().expect("no publisher panics").iter() {
                if !notes.has(publisher, number) {
                    self.lost += 1;
                    self.lost_after +=
                        u64::from(marks[publisher] > 0 && number >= marks[publisher]);
                }
            }
        }
        self.deceived += u64::from(self.lost > before && notes.gaps == 0);
        self.doubled += notes.doubled;
        self.disordered += notes.disordered;
        self.resumed += notes.resumed;
        self.gaps += notes.gaps;
        self.torn += notes.torn();
        self.attempts_refused += notes.refused;
    }
}

/// `pm.max_requests` lets a worker serve two pages.
fn recycles(field: &mut Field) -> Outcome<String> {
    let met = |field: &Field| {
        field
            .published()
            .workers
            .lock()
            .expect("no publisher panics")
            .len()
    };
    field.until("200 recycled workers", |field| met(field) >= 204)?;
    Ok(format!("{} workers came and went", met(field)))
}

fn reloads(field: &mut Field) -> Outcome<String> {
    for _ in 0..10 {
        field.fpm.reload()?;
        field.publish(60)?;
    }
    Ok("kill -USR2, ten times".to_owned())
}

fn kills(field: &mut Field) -> Outcome<String> {
    let (mut killed, mut dice) = (0, 1_u64);
    while killed < 60 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let workers = field.fpm.workers();
        if let Some(&victim) = workers.get((dice >> 33) as usize % workers.len().max(1)) {
            signal(victim, libc::SIGKILL);
            killed += 1;
        }
        std::thread::sleep(Duration::from_millis(20 + (dice >> 33) % 80));
    }
    field.publish(100)?;
    Ok(format!("{killed} workers killed"))
}

fn takeover(field: &mut Field) -> Outcome<String> {
    let old = field.fpm.hubs();
    field.fpm.configure("ping_interval", "24")?;
    field.fpm.reload()?;
    field.until("the end of the old hub", |field| {
        let hubs = field.fpm.hubs();
        hubs.len() == 1 && hubs != old
    })?;
    let all = field.clients.progress.clients;
    field.until("all clients back", |field| {
        field.clients.progress.back.load(Ordering::Relaxed) >= all && field.all_subscribed()
    })?;
    field.publish(200)?;
    Ok("changed settings and kill -USR2".to_owned())
}

fn death(field: &mut Field) -> Outcome<String> {
    let old = field.fpm.hubs();
    let started = Instant::now();
    old.iter().for_each(|hub| signal(*hub, libc::SIGKILL));
    field.until("a new hub", |field| {
        let hubs = field.fpm.hubs();
        hubs.len() == 1 && hubs != old
    })?;
    let all = field.clients.progress.clients;
    field.until("all clients back", |field| {
        field.clients.progress.back.load(Ordering::Relaxed) >= all && field.all_subscribed()
    })?;
    let back = started.elapsed();
    field.marks = field.published().marks();
    field.publish(200)?;
    Ok(format!("all back after {:.1} s", back.as_secs_f64()))
}
