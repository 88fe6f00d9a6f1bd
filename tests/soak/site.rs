//! One hub with its PHP-FPM and its crowd: what it is like before, meanwhile, and when all have gone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::crowd::Crowd;
use crate::fpm::Fpm;
use crate::manner::{GUARDED, ROOMS, SECRETS};
use crate::slope::Slope;
use crate::vitals::{Vitals, settle};
use crate::{GROWTH, KEPT, Outcome, fastcgi, mebibytes};

/// Messages that fill the histories of all rooms: 100 are kept for each.
const FILL: usize = 150 * (ROOMS + 2 * GUARDED);
/// How long what clients have left behind may be there.
const PATIENCE: Duration = Duration::from_secs(60);

const SETTINGS: [(&str, &str); 6] = [
    // Of the 1 s that is the default a busy machine may need all for something else, and no page may fail.
    ("timeout", "20"),
    ("handler", "{home}/handler.php"),
    ("max_connections", "20000"),
    ("handshake_timeout", "5"),
    ("history_bytes", "8M"),
    ("max_backlog", "128K"),
];
/// The database's cache, and what is on its way there.
const FOR_DISK: u64 = 12 << 20;
const ON_DISK: [(&str, &str); 2] = [("history", "disk"), ("data_dir", "{home}/run/data")];

/// The hub and all around it.
pub struct Site {
    name: &'static str,
    fpm: Fpm,
    hub: u32,
    clients: usize,
    trust: Option<Arc<ClientConfig>>,
    /// What it may have more than before when all have gone, in bytes.
    kept: u64,
    before: Vitals,
    tasks: u64,
    crowd: Option<Crowd>,
    memory: Slope,
    of_php: Slope,
    published: usize,
    _certificate: Option<tempfile::TempDir>,
}

impl Site {
    /// One whose history is on disk, for clients without TLS.
    pub fn plain(php: &Path, extension: &Path, clients: usize) -> Outcome<Self> {
        let settings: Vec<_> = [&SETTINGS[..], &SECRETS, &ON_DISK].concat();
        let mut site = Self::start("plain, on disk", php, extension, (clients, 6), &settings)?;
        site.kept += FOR_DISK;
        Ok(site)
    }

    /// One whose clients come with TLS.
    pub fn secure(php: &Path, extension: &Path, clients: usize) -> Outcome<Self> {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let key = key.map_err(|e| format!("certificate: {e}"))?;
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let file = |name: &str| directory.path().join(name).display().to_string();
        let (cert, private) = (file("cert.pem"), file("key.pem"));
        for (path, content) in [
            (&cert, key.cert.pem()),
            (&private, key.signing_key.serialize_pem()),
        ] {
            std::fs::write(path, content).map_err(|e| format!("{path}: {e}"))?;
        }
        // The pool's user is another one.
        crate::fpm::allow(directory.path(), 0o755)?;
        let own = [("tls_cert", &*cert), ("tls_key", &*private)];
        let settings: Vec<_> = [&SETTINGS[..], &SECRETS, &own].concat();
        let mut site = Self::start("TLS", php, extension, (clients, 3), &settings)?;
        let mut roots = RootCertStore::empty();
        let cert = CertificateDer::from_pem_slice(key.cert.pem().as_bytes());
        roots
            .add(cert.map_err(|e| e.to_string())?)
            .map_err(|e| e.to_string())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        site.trust = Some(Arc::new(
            config.with_root_certificates(roots).with_no_client_auth(),
        ));
        site._certificate = Some(directory);
        Ok(site)
    }

    fn start(
        name: &'static str,
        php: &Path,
        extension: &Path,
        (clients, workers): (usize, usize),
        settings: &[(&'static str, &str)],
    ) -> Outcome<Self> {
        let pool = format!("pm = static\npm.max_children = {workers}");
        let pages = ["soak/publish.php", "hostile/handler.php"];
        let fpm = Fpm::start(php, extension, &pool, settings, &pages)?;
        let logs = |error: String| format!("{error}{}", fpm.logs());
        // Each worker has its link then.
        for _ in 0..5 * workers {
            numbers(&fpm, 0).map_err(logs)?;
        }
        fpm.until("a hub", |fpm| fpm.hubs().len() == 1)?;
        let hub = fpm.hubs()[0];
        let before = settle(hub, None)?;
        let tasks = numbers(&fpm, 0)?["tasks"];
        println!("{name}: {clients} clients; the hub before {before}, {tasks} tasks");
        Ok(Self {
            name,
            hub,
            clients,
            trust: None,
            kept: KEPT,
            before,
            tasks,
            crowd: None,
            memory: Slope::default(),
            of_php: Slope::default(),
            published: 0,
            _certificate: None,
            fpm,
        })
    }

    /// Publishes until every room's history is full: from then on it keeps as much as it forgets.
    pub fn fill(&self) -> Outcome<()> {
        for _ in 0..FILL.div_ceil(250) {
            numbers(&self.fpm, 250)?;
        }
        Ok(())
    }

    /// Lets the crowd in.
    pub fn open(&mut self, stay: Duration) {
        let trust = self.trust.clone();
        self.crowd = Some(Crowd::start(self.clients, self.fpm.address, stay, trust));
    }

    /// Publishes a page of messages.
    pub fn publish(&mut self, count: usize) -> Outcome<()> {
        numbers(&self.fpm, count)?;
        self.published += count;
        match self.crowd.take_if(|crowd| crowd.has_ended()) {
            Some(crowd) => Err(crowd.stop()?),
            None => Ok(()),
        }
    }

    /// From now on those who come stay about this long.
    pub fn stay(&self, stay: Duration) {
        if let Some(crowd) = &self.crowd {
            crowd.stay(stay);
        }
    }

    /// Looks at its memory; notes it when that is `measured`, and prints it when it is to be `told`.
    pub fn look(&mut self, at: Duration, measured: bool, told: bool) -> Outcome<()> {
        let now = Vitals::of(self.hub)?;
        let mut php = 0;
        for worker in &self.fpm.workers() {
            php += Vitals::of(*worker)?.pss;
        }
        if measured {
            self.memory.add(at, now.pss);
            self.of_php.add(at, php);
        }
        if told {
            let numbers = numbers(&self.fpm, 0)?;
            println!(
                "{:>5.0} s, {}: {now}; workers {:.1} MiB; {} connections, {} subscriptions, {} members, {} tasks, {} delivered",
                at.as_secs_f64(),
                self.name,
                mebibytes(php),
                numbers["connections"],
                numbers["subscriptions"],
                numbers["members"],
                numbers["tasks"],
                numbers["delivered"],
            );
        }
        Ok(())
    }

    /// Lets all of them go.
    pub fn close(&mut self) -> Outcome<()> {
        if let Some(crowd) = self.crowd.take() {
            let heard = crowd.heard.load(std::sync::atomic::Ordering::Relaxed);
            let (name, published) = (self.name, self.published);
            println!(
                "{name}: {published} published, {} MiB came to the clients",
                heard >> 20
            );
            println!("{name}: {}", crowd.stop()?);
        }
        Ok(())
    }

    /// What is wrong when all have gone.
    pub fn wrong(&self) -> Outcome<Vec<String>> {
        let (name, hub, before) = (self.name, self.hub, self.before);
        let mut wrong = Vec::new();
        for (what, slope) in [
            ("the hub", &self.memory),
            ("PHP-FPM's workers", &self.of_php),
        ] {
            println!("{name}: memory of {what}: {slope}");
            if slope.growth() > GROWTH.0 * slope.mean() + GROWTH.1 {
                wrong.push(format!("{name}: the memory of {what} grows: {slope}"));
            }
        }
        if self.fpm.hubs() != [hub] {
            wrong.push(format!("{name}: the hub has ended"));
        }
        wrong.extend(self.left()?.map(|left| format!("{name}: {left}")));
        let gone = Instant::now();
        let mut after = settle(hub, Some(before))?;
        // It gives memory back within seconds, and once more a minute later, when it has forgotten more.
        while after.pss > before.pss + self.kept && gone.elapsed() < Duration::from_secs(90) {
            std::thread::sleep(Duration::from_secs(1));
            after = settle(hub, Some(before))?;
        }
        println!("{name}: the hub after {after}");
        if after.pss > before.pss + self.kept {
            wrong.push(format!(
                "{name}: memory did not come back: {after}, before {before}"
            ));
        }
        Ok(wrong)
    }

    /// What is left of clients that have gone.
    fn left(&self) -> Outcome<Option<String>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let numbers = numbers(&self.fpm, 0)?;
            let names = [
                "connections",
                "subscriptions",
                "channels",
                "handler_queued",
                "members",
            ];
            let mut left: Vec<_> = names
                .into_iter()
                .filter(|name| numbers[*name] > 0)
                .collect();
            if numbers["tasks"] > self.tasks {
                left.push("tasks");
            }
            if left.is_empty() {
                println!(
                    "{}: {} tasks after, {} before",
                    self.name, numbers["tasks"], self.tasks
                );
                return Ok(None);
            }
            if Instant::now() > end {
                let tasks = self.tasks;
                return Ok(Some(format!(
                    "there still are {left:?}: {numbers:?}, before {tasks} tasks"
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What was logged.
    pub fn logs(&self) -> String {
        self.fpm.logs()
    }
}

/// Has PHP publish so many messages, and returns the server's numbers as `rt_stats()` gives them.
fn numbers(fpm: &Fpm, publish: usize) -> Outcome<BTreeMap<String, u64>> {
    let mut numbers = BTreeMap::new();
    let query = format!("count={publish}&rooms={ROOMS}&guarded={GUARDED}");
    fastcgi::request(&fpm.socket(), fpm.script(), &query, |line| {
        if let Some((name, Ok(number))) = line.split_once(' ').map(|(n, v)| (n, v.parse())) {
            numbers.insert(name.to_owned(), number);
        }
    })?;
    if numbers.contains_key("members") {
        Ok(numbers)
    } else {
        Err("PHP told no numbers".to_owned())
    }
}
