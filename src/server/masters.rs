//! How long a hub in a process of its own lives: as long as one of the PHP masters that it serves, and a little longer.
//!
//! A master (of PHP-FPM, Apache ...) becomes the hub's when one of its workers says hello on the control socket. A
//! daemonized PHP-FPM gets a new process number when it is reloaded: then the hub finds its master's successor itself.
//! Runs on a thread of its own, which also waits for the signals that end the hub. Imports `procfs`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::process;
use crate::procfs::Process;
use crate::wire::handover::Master;

/// Masters at a time: more than run on any machine.
const MASTERS_MAX: usize = 64;
/// How often an orphaned hub looks for a successor of its master.
const LOOK: Duration = Duration::from_millis(250);
/// How often masters are looked at where the system cannot tell of their end.
const CHECK: Duration = Duration::from_secs(1);
/// How long the end may take from when it was asked for. Clients get some seconds to take leave.
const END: Duration = Duration::from_secs(15);

/// The masters of this hub.
#[derive(Debug)]
pub struct Masters {
    list: Mutex<Vec<Known>>,
    /// An eventfd: readable when the list has grown.
    grown: OwnedFd,
}

#[derive(Debug)]
struct Known {
    pid: u32,
    /// None where /proc hides other users' processes.
    process: Option<Process>,
    /// Readable when it has ended. None before Linux 5.3, and in containers that forbid it.
    end: Option<OwnedFd>,
}

impl Masters {
    /// None yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; the descriptor is nobody else's.
        let grown = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self {
            list: Mutex::default(),
            grown,
        })
    }

    /// From now on the hub lives at least as long as `pid`. Costs one look when it is known already.
    pub fn adopt(&self, pid: u32) {
        let mut list = self.lock();
        if list.iter().any(|m| m.pid == pid && m.is_alive()) {
            return;
        }
        if list.len() >= MASTERS_MAX {
            tracing::warn!(
                "not adopted by process {pid}: there are {MASTERS_MAX} masters of PHP already"
            );
            return;
        }
        // In this order: the descriptor then is of the process that was looked at, or of none.
        let end = pidfd(pid);
        let process = Process::look(pid);
        if end.is_none() && process.is_none() {
            return;
        }
        list.push(Known { pid, process, end });
        drop(list);
        tracing::info!("serving the PHP master {pid}");
        let one = 1u64;
        // SAFETY: writes 8 bytes from a local of 8 bytes; the descriptor is ours.
        unsafe { libc::write(self.grown.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Those that live, for a hub that takes over. Without those of which /proc tells nothing: they cannot be known again.
    pub fn living(&self) -> Vec<Master> {
        let list = self.lock();
        let living = list.iter().filter(|m| m.is_alive());
        let names = living.filter_map(|m| {
            m.process.as_ref().map(|process| Master {
                pid: m.pid,
                started: process.started,
            })
        });
        names.collect()
    }

    /// Blocks until the hub is to end, because of a signal or because all masters have ended `linger` ago, then has `stop`
    /// say so. Returns only when the whole process is at its end, or ends it itself when that takes too long.
    pub fn watch(&self, signals: &OwnedFd, linger: Duration, stop: &watch::Sender<bool>) {
        let why = self.wait_for_end(signals, linger);
        tracing::info!("ending: {why}");
        // An error means that it has ended already.
        let _ = stop.send(true);
        // A second signal is impatience.
        poll(&[signals.as_raw_fd()], END);
        tracing::error!("the end takes too long, clients are cut off");
        process::exit(1);
    }

    fn wait_for_end(&self, signals: &OwnedFd, linger: Duration) -> &'static str {
        let mut orphaned: Option<Instant> = None;
        let mut last: Option<Process> = None;
        loop {
            let (mut watched, seeing) = {
                let list = self.lock();
                let ends = list
                    .iter()
                    .filter_map(|m| m.end.as_ref())
                    .map(AsRawFd::as_raw_fd);
                let watched: Vec<i32> = ends.collect();
                let seeing = watched.len() == list.len();
                (watched, seeing)
            };
            watched.extend([self.grown.as_raw_fd(), signals.as_raw_fd()]);
            let pause = match orphaned {
                Some(since) => LOOK.min(linger.saturating_sub(since.elapsed())),
                None if seeing => Duration::MAX,
                None => CHECK,
            };
            poll(&watched, pause);
            if take_signal(signals) {
                return "asked to by a signal";
            }
            drain(&self.grown);
            if let Some(dead) = self.bury() {
                last = Some(dead);
            }
            if !self.lock().is_empty() {
                orphaned = None;
                continue;
            }
            if let Some(successor) = last.as_ref().and_then(successor) {
                self.adopt(successor);
                continue;
            }
            let since = *orphaned.get_or_insert_with(|| {
                tracing::info!("the PHP master has ended, waiting {linger:?} for another");
                Instant::now()
            });
            if since.elapsed() >= linger {
                return "PHP has ended";
            }
        }
    }

    /// Forgets the masters that have ended; returns one of them.
    fn bury(&self) -> Option<Process> {
        let mut list = self.lock();
        let (alive, mut dead): (Vec<_>, Vec<_>) = list.drain(..).partition(Known::is_alive);
        *list = alive;
        dead.pop().and_then(|master| master.process)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_alive(&self) -> bool {
        match &self.end {
            Some(end) => !poll(&[end.as_raw_fd()], Duration::ZERO),
            None => {
                let now = Process::look(self.pid);
                now.map(|now| now.started) == self.process.as_ref().map(|then| then.started)
            }
        }
    }
}

/// A process with the same title and user that began after `dead`.
fn successor(dead: &Process) -> Option<u32> {
    if dead.title.is_empty() {
        return None;
    }
    Process::all()
        .find(|process| {
            process.pid != dead.pid
                && process.uid == dead.uid
                && process.started >= dead.started
                && process.title == dead.title
        })
        .map(|process| process.pid)
}

fn pidfd(pid: u32) -> Option<OwnedFd> {
    // SAFETY: takes no pointer; the descriptor, closed on exec by itself, is nobody else's.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Waits until one of `descriptors` is readable, and says whether one is.
fn poll(descriptors: &[i32], time: Duration) -> bool {
    let mut polled: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let time = match time {
        Duration::MAX => -1,
        // Rounded up, or the last millisecond would be spent spinning.
        time => i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    };
    // SAFETY: a local list and its length.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, time) > 0 }
}

fn take_signal(signals: &OwnedFd) -> bool {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    // SAFETY: reads at most its size into a local; the descriptor is ours and non-blocking.
    unsafe { libc::read(signals.as_raw_fd(), info.as_mut_ptr().cast(), info.len()) > 0 }
}

fn drain(eventfd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: reads 8 bytes into a local of 8 bytes; the descriptor is ours and non-blocking.
    unsafe { libc::read(eventfd.as_raw_fd(), (&raw mut count).cast(), 8) };
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;

    use super::*;

    /// No signal will ever come on it.
    fn silence() -> OwnedFd {
        // SAFETY: takes no pointer; the descriptor is nobody else's.
        unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }
    }

    /// A process that does nothing, for as long as this lives.
    struct Sleeper(Child);

    impl Sleeper {
        fn id(&self) -> u32 {
            self.0.id()
        }

        /// Ends it, and leaves a zombie.
        fn kill(&mut self) {
            self.0.kill().unwrap();
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn sleeper(seconds: &str) -> Sleeper {
        let mut command = Command::new("sleep");
        // Not the test's own: who reads its output waits for everybody who has it.
        let command = command.arg(seconds).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let sleeper = Sleeper(child.unwrap());
        // Until it has become `sleep` its title is this test's.
        while Process::look(sleeper.id()).is_none_or(|p| !p.title.starts_with(b"sleep\0")) {
            std::thread::sleep(Duration::from_millis(5));
        }
        sleeper
    }

    fn waiting(
        masters: &Arc<Masters>,
        linger: Duration,
    ) -> std::sync::mpsc::Receiver<&'static str> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let masters = masters.clone();
        std::thread::spawn(move || {
            let _ = sender.send(masters.wait_for_end(&silence(), linger));
        });
        receiver
    }

    #[test]
    fn ends_after_the_last_master() {
        let masters = Arc::new(Masters::new().unwrap());
        let (one, mut two) = (sleeper("1000.11"), sleeper("1000.12"));
        masters.adopt(one.id());
        masters.adopt(one.id());
        assert_eq!(masters.lock().len(), 1);
        let end = waiting(&masters, Duration::from_millis(300));
        masters.adopt(two.id());
        drop(one);
        assert!(end.recv_timeout(Duration::from_millis(800)).is_err());
        // Before the kill, or a pause between the two would count as too early an end.
        let begun = Instant::now();
        // A zombie counts as ended.
        two.kill();
        assert_eq!(
            end.recv_timeout(Duration::from_secs(60)),
            Ok("PHP has ended")
        );
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn follows_a_master_that_was_started_anew() {
        let masters = Arc::new(Masters::new().unwrap());
        let old = sleeper("1000.21");
        masters.adopt(old.id());
        let end = waiting(&masters, Duration::ZERO);
        let new = sleeper("1000.21");
        let _other = sleeper("1000.22");
        drop(old);
        assert!(end.recv_timeout(Duration::from_millis(500)).is_err());
        drop(new);
        assert_eq!(
            end.recv_timeout(Duration::from_secs(60)),
            Ok("PHP has ended")
        );
    }

    #[test]
    fn lingers_for_a_worker() {
        let masters = Arc::new(Masters::new().unwrap());
        let end = waiting(&masters, Duration::from_secs(4));
        std::thread::sleep(Duration::from_millis(300));
        let late = sleeper("1000.31");
        masters.adopt(late.id());
        assert!(end.recv_timeout(Duration::from_millis(4500)).is_err());
        drop(late);
        assert!(end.recv_timeout(Duration::from_secs(60)).is_ok());
    }
}
