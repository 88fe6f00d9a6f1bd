//! What the kernel tells of processes: cores, CPU time, memory, limits.
//!
//! Reads /proc and the CPU clocks of other processes. Imports nothing of the bench.

use std::fs;
use std::io;
use std::mem;
use std::path::Path;

use crate::Outcome;

/// Which cores the two sides run on.
#[derive(Clone, Debug)]
pub struct Cores {
    /// All that this process may use.
    pub all: Vec<usize>,
    /// Where servers run: one core, or all when there is only one.
    pub server: Vec<usize>,
    /// Where clients and the driver run.
    pub client: Vec<usize>,
}

impl Cores {
    /// The first allowed core for servers, the last for clients.
    pub fn choose() -> Self {
        let all = allowed();
        match (all.first(), all.last()) {
            (Some(&first), Some(&last)) if first != last => Self {
                server: vec![first],
                client: vec![last],
                all,
            },
            _ => Self {
                server: all.clone(),
                client: all.clone(),
                all,
            },
        }
    }

    /// Whether server and client have a core of their own each.
    pub fn pinned(&self) -> bool {
        self.all.len() > 1
    }
}

/// A set of cores in the kernel's form; made before a fork, used after it.
#[derive(Clone, Copy)]
pub struct Mask(libc::cpu_set_t);

impl Mask {
    /// The set of `cores`.
    pub fn new(cores: &[usize]) -> Self {
        // SAFETY: cpu_set_t is plain bits, for which all zero means the empty set; the value is ours alone.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        for &core in cores {
            // SAFETY: sets one bit of our own `set`; `core` came from sched_getaffinity(), so it is in range.
            unsafe { libc::CPU_SET(core, &mut set) };
        }
        Self(set)
    }

    /// Moves the calling thread, and what it starts from now on, to the set. Safe between fork and exec.
    pub fn apply(&self) -> io::Result<()> {
        // SAFETY: the kernel only reads `self.0`, which lives through the call and is nobody else's to write.
        match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Moves a running process, with all its threads.
    pub fn apply_to(&self, pid: u32) -> Outcome<()> {
        for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| gone(pid, &e))? {
            let name = entry.map_err(|e| gone(pid, &e))?.file_name();
            let thread = name.to_string_lossy().parse::<i32>();
            let thread = thread.map_err(|e| format!("{name:?}: {e}"))?;
            // SAFETY: as above.
            let moved =
                unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &self.0) };
            if moved != 0 {
                return Err(gone(pid, &io::Error::last_os_error()));
            }
        }
        Ok(())
    }
}

/// CPU time of a process so far, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// All threads, ended ones too: user and system.
    pub process: u64,
    /// The threads of the embedded server, whose names begin with `rt-`.
    pub hub: u64,
    /// The first thread: the one that runs PHP.
    pub main: u64,
}

impl CpuTime {
    /// Reads the clocks of `pid`.
    pub fn of(pid: u32) -> Outcome<Self> {
        let mut time = Self {
            process: process_ns(pid)?,
            ..Self::default()
        };
        for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| gone(pid, &e))? {
            let task = entry.map_err(|e| gone(pid, &e))?.path();
            // A thread that ended since the listing has no files any more; the process clock keeps its time.
            let (Ok(name), Ok(ns)) = (fs::read_to_string(task.join("comm")), thread_ns(&task))
            else {
                continue;
            };
            if name.starts_with("rt-") {
                time.hub += ns;
            }
            if task.ends_with(pid.to_string()) {
                time.main = ns;
            }
        }
        Ok(time)
    }

    /// What was used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            process: self.process.saturating_sub(before.process),
            hub: self.hub.saturating_sub(before.hub),
            main: self.main.saturating_sub(before.main),
        }
    }
}

/// The CPU time so far of the threads of `pid` that have this name, nanoseconds.
pub fn threads_named(pid: u32, name: &str) -> Outcome<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| gone(pid, &e))? {
        let task = entry.map_err(|e| gone(pid, &e))?.path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            sum += thread_ns(&task)?;
        }
    }
    Ok(sum)
}

/// The CPU time so far of the children of `pid`, nanoseconds.
pub fn children(pid: u32) -> Outcome<u64> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.map_err(|e| gone(pid, &e))?;
    list.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .map(process_ns)
        .sum()
}

/// The proportional set size of `pid`, bytes.
pub fn pss(pid: u32) -> Outcome<u64> {
    let rollup =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(|e| gone(pid, &e))?;
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib << 10)
        .ok_or_else(|| format!("/proc/{pid}/smaps_rollup has no Pss"))
}

/// Raises the soft limit of open files to the hard one and returns it.
pub fn raise_file_limit() -> Outcome<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills our own `limit`, which nobody else sees.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(format!("getrlimit: {}", io::Error::last_os_error()));
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel only reads our own `limit`.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(format!("setrlimit: {}", io::Error::last_os_error()));
    }
    Ok(limit.rlim_cur)
}

/// Nanoseconds of CLOCK_MONOTONIC: the clock of PHP's hrtime(), the same in all processes.
pub fn now() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// One line on the machine: processor, cores, kernel.
pub fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, kernel {}", kernel.trim())
}

/// How busy the machine is with other things: the load average, and what the hypervisor kept (`steal`), seconds.
pub fn business() -> (String, f64) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    // cpu user nice system idle iowait irq softirq steal, in hundredths of a second.
    let steal = stat
        .split_whitespace()
        .nth(8)
        .and_then(|ticks| ticks.parse::<f64>().ok());
    (load, steal.unwrap_or(0.0) / 100.0)
}

fn allowed() -> Vec<usize> {
    // SAFETY: cpu_set_t is plain bits; the kernel fills our own copy, and CPU_ISSET reads it within its size.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize)
            .filter(|&core| libc::CPU_ISSET(core, &set))
            .collect()
    }
}

fn thread_ns(task: &Path) -> Outcome<u64> {
    let stat = fs::read_to_string(task.join("schedstat"));
    let stat = stat.map_err(|e| format!("{}: {e}", task.display()))?;
    stat.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .ok_or_else(|| format!("{}/schedstat is not as expected", task.display()))
}

fn process_ns(pid: u32) -> Outcome<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: fills our own `clock`; the pid is a number to it.
    let code = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &mut clock) };
    if code != 0 {
        return Err(gone(pid, &io::Error::from_raw_os_error(code)));
    }
    read_clock(clock).map_err(|e| gone(pid, &e))
}

fn read_clock(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills our own `time`, which nobody else sees.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn gone(pid: u32, error: &io::Error) -> String {
    format!("process {pid}: {error}")
}
