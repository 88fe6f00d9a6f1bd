//! How a process is: its memory, its descriptors, its threads.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::Outcome;

/// How long a process may take to be as it was.
const PATIENCE: Duration = Duration::from_secs(30);

/// Descriptors that it may have more than before: links of PHP processes, kept connections to the pool. A leak is one for
/// each client.
const SLACK: usize = 16;
/// Threads: those of file access come and go.
const THREADS: usize = 4;

/// A look at it.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// Its memory, with its share of what it shares, in bytes; without files.
    pub pss: u64,
    /// Its share of the files that it has mapped, whose pages the kernel may take back at any time.
    pub files: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Vitals {
    /// Looks at `pid`.
    pub fn of(pid: u32) -> Outcome<Self> {
        let count = |what: &str| -> Outcome<usize> {
            let path = format!("/proc/{pid}/{what}");
            let entries = fs::read_dir(&path).map_err(|e| format!("{path}: {e}"))?;
            Ok(entries.count())
        };
        let path = format!("/proc/{pid}/smaps_rollup");
        let memory = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let bytes = |name: &str| {
            let mut lines = memory.lines();
            let kib = lines.find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
            let kib = kib.and_then(|kib| kib.trim().parse::<u64>().ok());
            kib.map(|kib| kib << 10)
                .ok_or(format!("no {name} in smaps_rollup"))
        };
        Ok(Self {
            pss: bytes("Pss_Anon:")? + bytes("Pss_Shmem:")?,
            files: bytes("Pss_File:")?,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }
}

impl fmt::Display for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MiB (and {:.1} of files), {} descriptors, {} threads",
            self.pss as f64 / f64::from(1 << 20),
            self.files as f64 / f64::from(1 << 20),
            self.descriptors,
            self.threads
        )
    }
}

/// Waits until `pid` has the descriptors and threads that it had `before`, or until they do not change any more.
pub fn settle(pid: u32, before: Option<Vitals>) -> Outcome<Vitals> {
    let end = Instant::now() + PATIENCE;
    let mut last = Vitals::of(pid)?;
    let mut still = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = Vitals::of(pid)?;
        if (now.descriptors, now.threads) != (last.descriptors, last.threads) {
            still = Instant::now();
        }
        last = now;
        match before {
            Some(before)
                if now.descriptors <= before.descriptors + SLACK
                    && now.threads <= before.threads + THREADS =>
            {
                return Ok(now);
            }
            None if still.elapsed() > Duration::from_secs(3) => return Ok(now),
            _ if Instant::now() > end => {
                return Err(format!(
                    "{} descriptors and {} threads are left within {PATIENCE:?}{}",
                    now.descriptors,
                    now.threads,
                    before.map_or(String::new(), |before| format!(", before it was {before}"))
                ));
            }
            _ => {}
        }
    }
}

/// As many files as the system lets us have.
pub fn raise_file_limit() -> Outcome<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills our own `limit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err("getrlimit".to_owned());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel only reads our own `limit`.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err("setrlimit".to_owned()),
    }
}
