//! The hub as a process of its own, under web servers that recycle their PHP workers: a worker starts it ([`start`]) or
//! replaces an older one ([`take_over`]), and goes on with its request.
//!
//! What can fail is done in the worker, before it forks, so that it can be told in a log and in an exception. Knows nothing
//! of PHP but what [`Birth`] says. Imports everything above `server`, and its `process`, `masters`, `takeover`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::listen::StartError;
use super::logging::{self, PhpLog};
use super::masters::Masters;
use super::process::{self, Side};
use super::takeover::{self, TakeoverError};
use super::{Listeners, run, spawn};
use crate::backend::workers::Workers;
use crate::config::{Config, ListenAddress};
use crate::control::client::Client;
use crate::control::election::{self, NotElected};
use crate::control::restarts::Record;
use crate::hub::mailbox::Shard;
use crate::node::Node;
use crate::wire::control::{Identity, Worker};

/// What the hub has to know from the worker that starts it.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The settings.
    pub config: Config,
    /// Whose worker it is, and of which build.
    pub worker: Worker,
    /// Where PHP logs its errors.
    pub log: PhpLog,
    /// Whether the hub may keep the worker's standard error open.
    pub standard_error: bool,
    /// Where the worker's pool takes FastCGI requests, if it does.
    pub pool: Option<ListenAddress>,
}

/// Why there is no new hub. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// It would serve the network as root.
    #[error(
        "the server does not serve as root: give the PHP pool a user of its own, or set realtime.allow_root=1"
    )]
    Root,
    /// Another process is just starting one, or has one.
    #[error("another process is the realtime server on {}", .0.display())]
    Elsewhere(PathBuf),
    /// It has failed before, and is to be tried again later.
    #[error("{why}")]
    Wait {
        /// How much later.
        time: Duration,
        /// What went wrong; told already.
        why: String,
        /// Whether it ran, and was not seen to fail: then waiting may be worth it.
        ran: bool,
    },
    /// What it needs cannot be had.
    #[error("{0}")]
    Failed(#[from] StartError),
    /// The system refuses a process.
    #[error("cannot start a process for the realtime server: {0}")]
    NoProcess(io::Error),
}

/// Becomes the one that starts the hub, and starts it. The control socket takes connections when this returns.
pub fn start(birth: &Birth) -> Result<(), NotStarted> {
    let config = &birth.config;
    check_user(config)?;
    let claim = election::claim(config).map_err(|error| match error {
        NotElected::Running { socket, .. } => NotStarted::Elsewhere(socket),
        error => NotStarted::Failed(error.into()),
    })?;
    let mut record = Record::read(claim.lock());
    let by = birth.name();
    wait(&record, &by)?;
    record.started(&by);
    let bound = super::check_files(config)
        .and_then(|()| super::Listener::bind(&config.listen))
        .inspect_err(|error| record.failed(&error.to_string()));
    // Before it starts: what kills it at once counts, too.
    record.write(claim.lock());
    let listeners = Listeners {
        clients: bound?,
        control: claim.bind(config).map_err(StartError::from)?,
        legacy: None,
    };
    fork(birth, Some(listeners))
}

/// Starts a hub that takes over from the one that runs. Whether it succeeds is seen later: until then the old one serves.
pub fn take_over(birth: &Birth) -> Result<(), NotStarted> {
    check_user(&birth.config)?;
    if let Some(tried) = tried(&birth.config) {
        wait(&Record::read(&tried), &birth.name())?;
    }
    fork(birth, None)
}

/// Whether `hub` is of an older start of PHP than `worker`, which brought another version or other settings.
pub fn is_outdated(hub: &Identity, worker: &Worker) -> bool {
    hub.detached && worker.generation > hub.generation && worker.fingerprint != hub.fingerprint
}

/// How a hub that serves clients at `address` calls its process.
pub fn title(address: &str) -> String {
    format!("realtime: hub on {address}")
}

/// Returns in the worker only.
fn fork(birth: &Birth, listeners: Option<Listeners>) -> Result<(), NotStarted> {
    let kept = listeners.as_ref().map_or(Vec::new(), descriptors);
    match process::fork(&kept, birth.standard_error).map_err(NotStarted::NoProcess)? {
        Side::Parent => {
            if let Some(listeners) = &listeners {
                // The child's from now on, files included.
                listeners.clients.set_owned(false);
                listeners.control.set_owned(false);
            }
            Ok(())
        }
        Side::Child => {
            let work = AssertUnwindSafe(|| live(birth, listeners));
            let code = std::panic::catch_unwind(work).unwrap_or(70);
            process::exit(code)
        }
    }
}

/// The life of the hub's process. Returns its exit code.
fn live(birth: &Birth, listeners: Option<Listeners>) -> i32 {
    logging::start_like(&birth.config, &birth.log);
    process::raise_limits();
    process::set_title("realtime: hub", "realtime: hub");
    let listeners = match listeners.map_or_else(|| inherit(birth), Ok) {
        Ok(listeners) => listeners,
        Err(code) => return code,
    };
    let address = listeners.clients.address().to_owned();
    process::set_title("realtime: hub", &title(&address));
    let mut record = listeners.control.record();
    let takes_over = listeners.legacy.is_some();
    match serve(birth, listeners, &address) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error}");
            // For whoever tries next, unless somebody has just done better.
            if let Ok(claim) = election::claim(&birth.config) {
                record.failed(&error.to_string());
                record.write(claim.lock());
            } else if takes_over {
                birth.note_failure(&error.to_string());
            }
            1
        }
    }
}

/// Takes over from the hub that runs. The error is an exit code.
fn inherit(birth: &Birth) -> Result<Listeners, i32> {
    // The one that began before may be done by now: then no hub need hear of this.
    if let Ok(link) = Client::connect(&birth.config.socket, birth.config.timeout)
        && !is_outdated(link.identity(), &birth.worker)
    {
        return Err(0);
    }
    // With settings that cannot be used nobody is to be disturbed.
    let taken = super::check_files(&birth.config)
        .map_err(TakeoverError::from)
        .and_then(|()| takeover::take_if(&birth.config, |hub| is_outdated(hub, &birth.worker)));
    let error = match taken {
        Ok(listeners) => return Ok(listeners),
        // Another worker was faster.
        Err(TakeoverError::Underway(_) | TakeoverError::Needless(_)) => return Err(0),
        // It has just ended; whoever finds that out first starts the next one.
        Err(TakeoverError::Absent(_)) => return Err(0),
        Err(error) => error,
    };
    tracing::error!("{error}; the server that runs serves on as it is");
    birth.note_failure(&error.to_string());
    Err(1)
}

fn serve(birth: &Birth, listeners: Listeners, address: &str) -> Result<(), StartError> {
    let config = Arc::new(birth.config.clone());
    let secret = match &listeners.legacy {
        Some(legacy) => legacy.secret.clone(),
        None => secret().map_err(StartError::Threads)?,
    };
    let shards: Arc<[Arc<Shard>]> = (0..config.threads)
        .map(|_| Arc::new(Shard::default()))
        .collect();
    let workers = Arc::new(Workers::new(
        config.clone(),
        birth.pool.clone(),
        secret.clone(),
    ));
    let node = Node::new(config.clone(), shards, workers.clone()).map_err(StartError::Threads)?;
    let node = Arc::new(node);
    node.set_address(address.to_owned());
    node.set_identity(Identity {
        generation: birth.worker.generation,
        fingerprint: birth.worker.fingerprint.clone(),
        detached: true,
        secret,
    });
    let masters = Arc::new(Masters::new().map_err(StartError::Threads)?);
    masters.adopt(birth.worker.master);
    let adopting = masters.clone();
    let living = masters.clone();
    node.set_masters(Box::new(move || living.living()));
    let newest = AtomicU64::new(birth.worker.generation);
    node.set_adopter(Box::new(move |master, generation| {
        adopting.adopt(master);
        if newest.fetch_max(generation, Ordering::Relaxed) < generation {
            // PHP was reloaded, and reads its files anew.
            workers.handler_may_have_changed();
        }
    }));
    let signals = process::ending_signals().map_err(StartError::Threads)?;
    let (stop, shutdown) = watch::channel(false);
    let linger = config.linger;
    // Never joined: it ends with the process.
    let watching = spawn("rt-masters", move || masters.watch(&signals, linger, &stop));
    watching.map_err(StartError::Threads)?;
    if listeners.legacy.is_none() {
        node.open_store()?;
    }
    let tls = node.tls().map_or("", |_| ", with TLS");
    tracing::info!(
        "process {} is the server on {address}{tls}",
        std::process::id()
    );
    run(listeners, node, shutdown).map_err(StartError::Threads)
}

impl Birth {
    /// By which failures are remembered: a new start of PHP, or other settings, may do better.
    fn name(&self) -> String {
        format!("{} {}", self.worker.generation, self.worker.fingerprint)
    }

    /// Has the next one who would take over wait: each try holds up whoever publishes.
    fn note_failure(&self, why: &str) {
        if let Some(tried) = tried(&self.config) {
            let mut record = Record::read(&tried);
            record.started(&self.name());
            record.failed(why);
            record.write(&tried);
        }
    }
}

fn check_user(config: &Config) -> Result<(), NotStarted> {
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    if unsafe { libc::geteuid() } == 0 && !config.allow_root {
        return Err(NotStarted::Root);
    }
    Ok(())
}

fn wait(record: &Record, by: &str) -> Result<(), NotStarted> {
    let time = record.wait(by);
    if time.is_zero() {
        return Ok(());
    }
    let why = record.why.clone().unwrap_or_else(|| {
        format!(
            "the realtime server's process has ended {} times in a row without being asked to; see its log",
            record.starts
        )
    });
    Err(NotStarted::Wait {
        time,
        why,
        ran: record.why.is_none(),
    })
}

fn descriptors(listeners: &Listeners) -> Vec<RawFd> {
    let mut kept = listeners.control.descriptors().to_vec();
    kept.push(listeners.clients.as_raw_fd());
    kept
}

/// The file that remembers takeovers which failed. Its lock is whoever's who is at one.
fn tried(config: &Config) -> Option<std::fs::File> {
    let mut name = config.socket.as_os_str().to_owned();
    name.push(".takeover");
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW);
    options.open(name).ok()
}

/// 16 random bytes in hexadecimal.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
