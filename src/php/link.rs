//! Where this process's calls go: to the server in it, or over the control socket to another process's.
//!
//! Each PHP thread keeps a link of its own ([`with`]); a forked child drops it and connects anew. Where a web server
//! recycles its workers, the link is also what has the server's process started. Nothing in here runs PHP code, so
//! locks may be held. Imports `server_here`, `hub_process`, `control`, `node` and `ini`.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::sapi::Home;
use super::server_here::{self, Here};
use super::server_link::Link;
use super::{hub_process, ini};
use crate::auth;
use crate::control::client::{Client, ConnectError};
use crate::node::{Failure, Stats};
use crate::server::detached::NotStarted;

/// Why a call did not get through. The words are for a `Realtime\Exception`.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The server refused it.
    #[error("{0}")]
    Failure(#[from] Failure),
    /// There is no server to ask.
    #[error("{0}")]
    NoServer(#[from] ConnectError),
    /// There is none, and starting it failed.
    #[error("{0}")]
    NotStarted(String),
    /// The settings are contradictory.
    #[error("{0}")]
    Setting(#[from] crate::config::InvalidSetting),
}

/// The [`Home`] of the server that this SAPI starts by itself, with realtime.autostart.
static AUTOSTART: AtomicU8 = AtomicU8::new(Home::Nowhere as u8);

#[derive(Default)]
struct Local {
    /// [`server_here::changes`] when it was last looked at.
    seen: u32,
    here: Option<Here>,
    client: Option<Client>,
    /// The process of the server with which this worker was compared last.
    compared: Option<u32>,
    /// What a server in another process has told last.
    secret: String,
    /// Why autostart failed in this process.
    failed: Option<String>,
    /// When it may be tried again. Never, where there is no time.
    again: Option<Instant>,
}

/// How long a request that may need no server at all waits for its greeting.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long requests do without a server that does not answer.
const SILENCE: Duration = Duration::from_secs(5);
/// How often somebody who waits for a server that is just starting looks.
const LOOK: Duration = Duration::from_millis(5);

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::default();
}

/// The server in this process, if there is one.
pub fn here() -> Option<Here> {
    LOCAL.with_borrow_mut(|local| {
        local.refresh();
        local.here.clone()
    })
}

/// Stops the server of this process. For MSHUTDOWN.
pub fn stop() {
    server_here::stop();
    // The thread's own link must not outlive the module; it is looked at no more.
    let _ = LOCAL.try_with(|local| local.take());
}

/// From now on a server is started when none is found. For RINIT: tries at once, and returns what to log if it failed,
/// once.
pub fn autostart(home: Home) -> Option<String> {
    AUTOSTART.store(home as u8, Ordering::Relaxed);
    LOCAL.with_borrow_mut(|local| {
        local.refresh();
        if local.here.is_some() {
            return None;
        }
        match &local.client {
            // A link that was made in the middle of a script has brought no newer server yet.
            Some(client) if client.is_alive() => {
                return (home == Home::Process).then(|| local.compare()).flatten();
            }
            _ => local.client = None,
        }
        if local.failed.is_some() {
            if local.again.is_none_or(|again| Instant::now() < again) {
                return None;
            }
            local.failed = None;
        }
        match home {
            Home::Nowhere => None,
            Home::Threads => match local.connect(soon()) {
                Ok(_) => None,
                Err(_) => local.failed.as_deref().map(not_started),
            },
            Home::Process => local.find_or_start(),
        }
    })
}

/// Whether `secret` is that of the server in another process. One that is stopping greets nobody any more and still has
/// events handled, so what an earlier one of its links has told counts as well.
pub fn is_secret(secret: &str) -> Result<bool, LinkError> {
    LOCAL.with_borrow_mut(|local| {
        local.refresh();
        if let Some(client) = &local.client {
            local.secret.clone_from(&client.identity().secret);
        }
        if same(&local.secret, secret) {
            return Ok(true);
        }
        // The link may be to one that is gone.
        local.client = None;
        let client = local.client.insert(connect()?);
        local.secret.clone_from(&client.identity().secret);
        Ok(same(&local.secret, secret))
    })
}

/// Compares in constant time. A server without a secret has none that fits.
fn same(known: &str, given: &str) -> bool {
    !known.is_empty() && auth::is_same(known.as_bytes(), given.as_bytes())
}

/// What this thread is linked to, for phpinfo(): connects when a server is there, starts none.
pub fn state() -> State {
    LOCAL.with_borrow_mut(|local| {
        local.refresh();
        if let Some(here) = &local.here {
            return State::Here(here.address.clone(), here.node.stats().ok());
        }
        if local.client.is_none() {
            local.client = connect().ok();
        }
        match &mut local.client {
            Some(client) => State::Attached {
                pid: client.pid(),
                address: client.address().to_owned(),
                stats: client.stats().ok(),
            },
            None => State::None,
        }
    })
}

/// See [`state`].
pub enum State {
    /// No server.
    None,
    /// The server is in this process.
    Here(String, Option<Stats>),
    /// The server is in another process.
    Attached {
        /// Which.
        pid: u32,
        /// Where it listens.
        address: String,
        /// Its numbers.
        stats: Option<Stats>,
    },
}

/// Calls the server, wherever it is. A link that broke (its process ended) is made anew, once; one on which no answer
/// came in time is not, or what is published might be so twice.
pub fn with<T>(mut call: impl FnMut(&mut Link<'_>) -> Result<T, Failure>) -> Result<T, LinkError> {
    LOCAL.with_borrow_mut(|local| {
        local.refresh();
        if let Some(here) = &local.here {
            return Ok(call(&mut Link::Here(&here.node))?);
        }
        let timeout = ini::config()?.timeout;
        let deadline = Instant::now() + timeout;
        if let Some(client) = &mut local.client {
            match call(&mut Link::Remote(client)) {
                Err(Failure::Link(_) | Failure::Stopped) if Instant::now() < deadline => {
                    local.client = None;
                }
                Err(error @ (Failure::Link(_) | Failure::Stopped)) => {
                    local.client = None;
                    return Err(error.into());
                }
                other => return Ok(other?),
            }
        }
        let result = match local.connect(deadline)? {
            mut here @ Link::Here(_) => call(&mut here),
            Link::Remote(client) => {
                // All of it together takes no longer than one call may.
                client.limit(deadline.saturating_duration_since(Instant::now()));
                let result = call(&mut Link::Remote(client));
                client.limit(timeout);
                result
            }
        };
        if let Err(Failure::Link(_) | Failure::Stopped) = result {
            local.client = None;
        }
        Ok(result?)
    })
}

impl Local {
    /// Notices what has changed since the last call. One atomic load when nothing has.
    fn refresh(&mut self) {
        let changes = server_here::changes();
        if self.seen != changes {
            self.seen = changes;
            self.client = None;
            self.failed = None;
            self.here = server_here::find();
        }
    }

    /// Finds a server, or starts one where this SAPI does that.
    fn connect(&mut self, deadline: Instant) -> Result<Link<'_>, LinkError> {
        let absent = match connect_until(deadline) {
            Ok(client) => return Ok(Link::Remote(self.client.insert(client))),
            Err(LinkError::NoServer(error)) if error.is_absent() => error,
            Err(error) => return Err(error),
        };
        let home = AUTOSTART.load(Ordering::Relaxed);
        if home == Home::Process as u8 {
            return self.start_process(deadline);
        }
        if home == Home::Nowhere as u8 {
            return Err(absent.into());
        }
        if let Some(why) = &self.failed {
            return Err(LinkError::NotStarted(why.clone()));
        }
        let error = match server_here::start(None) {
            Ok(here) => {
                self.seen = server_here::changes();
                return Ok(Link::Here(&self.here.insert(here).node));
            }
            Err(error) => error,
        };
        // Another worker of this server may have been faster.
        match connect() {
            Ok(client) => Ok(Link::Remote(self.client.insert(client))),
            Err(_) => {
                self.failed = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// At the start of a request: joins the server, or starts one and does not wait for it. What went wrong is told once.
    fn find_or_start(&mut self) -> Option<String> {
        let config = ini::config().ok()?;
        let (error, pause) = match connect_until(Instant::now() + PATIENCE.min(config.timeout)) {
            Ok(client) => {
                self.client = Some(client);
                self.compared = None;
                return self.compare();
            }
            Err(LinkError::NoServer(error)) if error.is_absent() => {
                match hub_process::start(config) {
                    Ok(()) | Err(NotStarted::Elsewhere(_)) => return None,
                    // Told by whoever failed.
                    Err(NotStarted::Wait { .. }) => return None,
                    Err(error) => (not_started(error), LOOK),
                }
            }
            // Whoever needs an answer waits longer for it, and hears of it.
            Err(LinkError::NoServer(ConnectError::Silent(_))) => (String::new(), SILENCE),
            Err(error) => (format!("realtime: {error}"), SILENCE),
        };
        self.again = Instant::now().checked_add(pause);
        self.failed = Some(error.clone());
        (!error.is_empty()).then_some(error)
    }

    /// Has a new server take over where this worker is newer than the one that it is linked to. What went wrong is told.
    fn compare(&mut self) -> Option<String> {
        let client = self.client.as_ref()?;
        if self.compared.replace(client.pid()) == Some(client.pid()) {
            return None;
        }
        // Whether it takes over or not, this one serves meanwhile.
        match hub_process::take_over(ini::config().ok()?, client) {
            Err(error @ (NotStarted::Failed(_) | NotStarted::NoProcess(_))) => {
                Some(not_started(error))
            }
            _ => None,
        }
    }

    /// In the middle of a script: joins the server that just now was not there, and starts it if nobody else does.
    fn start_process(&mut self, deadline: Instant) -> Result<Link<'_>, LinkError> {
        let config = ini::config()?;
        loop {
            let pause = match hub_process::start(config) {
                Ok(()) => Duration::ZERO,
                Err(NotStarted::Elsewhere(_)) => LOOK,
                Err(NotStarted::Wait {
                    time, ran: true, ..
                }) if Instant::now() + time < deadline => time,
                Err(error) => return Err(LinkError::NotStarted(error.to_string())),
            };
            std::thread::sleep(pause);
            match connect_until(deadline) {
                Ok(client) => return Ok(Link::Remote(self.client.insert(client))),
                Err(LinkError::NoServer(error))
                    if error.is_absent() && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn not_started(why: impl std::fmt::Display) -> String {
    format!("realtime cannot start its server: {why}")
}

/// When a call that begins now has to end.
fn soon() -> Instant {
    Instant::now() + ini::config().map_or(Duration::ZERO, |config| config.timeout)
}

fn connect() -> Result<Client, LinkError> {
    connect_until(soon())
}

fn connect_until(deadline: Instant) -> Result<Client, LinkError> {
    let config = ini::config()?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut client = Client::connect_as(Path::new(&config.socket), left, hub_process::worker())?;
    client.limit(config.timeout);
    Ok(client)
}
