//! What /proc says about a process. Imports nothing of this crate.

use std::os::unix::fs::MetadataExt;

/// A process as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// When it was started, in the kernel's clock ticks. With the number it names one process for good.
    pub started: u64,
    /// Its effective user.
    pub uid: u32,
    /// Its command line, or the title that it gave itself.
    pub title: Vec<u8>,
}

impl Process {
    /// Looks at `pid`. `None` when it is not there, has ended and was not waited for, or cannot be seen.
    pub fn look(pid: u32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name in the second field may hold anything, parentheses and spaces too.
        let rest = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
        let fields: Vec<&str> = std::str::from_utf8(rest).ok()?.split_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            uid: std::fs::metadata(format!("/proc/{pid}")).ok()?.uid(),
            title: std::fs::read(format!("/proc/{pid}/cmdline")).ok()?,
        })
    }

    /// Every process that can be seen.
    pub fn all() -> impl Iterator<Item = Self> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::look(entry.file_name().to_str()?.parse().ok()?))
    }
}

/// The short name of a process, which even processes of other users may see.
pub fn name(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()
}

/// Time since the machine was started, sleep included, in nanoseconds: the same for every process.
pub fn uptime_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: fills a local of the right type; the clock exists on every Linux that Rust supports.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let me = Process::look(std::process::id()).unwrap();
        assert_eq!(me.parent, std::os::unix::process::parent_id());
        assert!(!me.title.is_empty());
        assert!(Process::all().any(|process| process == me));
    }

    #[test]
    fn the_dead_are_not_there() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        for _ in 0..500 {
            if Process::look(pid).is_none() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // Not waited for yet: a zombie.
        assert_eq!(Process::look(pid), None);
        child.wait().unwrap();
    }
}
