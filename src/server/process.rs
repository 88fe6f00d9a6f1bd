//! A process for the hub alone, forked from a PHP worker: what it has to get rid of, and what it needs.
//!
//! Used by `server::detached`. Everything here is plain system calls; nothing of it knows PHP. Imports nothing of this
//! crate.

use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The signals that end the hub.
const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
/// What an operator may send to every process of PHP at once (reload, log rotation), and a client that is gone.
const IGNORED: [i32; 4] = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPIPE];

/// On which side of the fork the caller is.
#[derive(Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it was.
    Parent,
    /// In the new process. It must end with [`exit`]: nothing of its parent's is to be run there.
    Child,
}

/// Forks a process that is nobody's child: in a session of its own, waited for by the system. In it no signal has a
/// handler, those that end it are blocked ([`ending_signals`]), and of the descriptors there are only `kept` and, if asked
/// for, standard error.
pub fn fork(kept: &[RawFd], standard_error: bool) -> io::Result<Side> {
    // Or a handler of PHP's could run in the child.
    let before = mask(&all_signals());
    // SAFETY: the child runs on a copy of this thread alone. It takes locks of other threads' only in the allocator,
    // which the C library keeps usable over a fork.
    let child = unsafe { libc::fork() };
    match child {
        -1 => {
            let error = io::Error::last_os_error();
            mask(&before);
            Err(error)
        }
        0 => {
            // SAFETY: as above; the process between the two ends at once, running nothing else.
            unsafe {
                libc::setsid();
                match libc::fork() {
                    -1 => libc::_exit(io::Error::last_os_error().raw_os_error().unwrap_or(1)),
                    0 => {}
                    _ => libc::_exit(0),
                }
            }
            let mut kept = kept.to_vec();
            kept.push(libc::STDERR_FILENO);
            default_signals();
            standard_streams(standard_error);
            close_others(&mut kept);
            // SAFETY: a constant path; keeps no directory in use.
            unsafe { libc::chdir(c"/".as_ptr()) };
            Ok(Side::Child)
        }
        child => {
            let ended = wait_for(child);
            mask(&before);
            match ended {
                Some(status) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 0 => {
                    Err(io::Error::from_raw_os_error(libc::WEXITSTATUS(status)))
                }
                _ => Ok(Side::Parent),
            }
        }
    }
}

/// Ends this process, and runs nothing on the way out.
pub fn exit(code: i32) -> ! {
    // SAFETY: the kernel takes everything back; nothing is run.
    unsafe { libc::_exit(code) }
}

/// A descriptor that is readable when one of the signals that end the hub has come. For the process that [`fork`] made,
/// where they are blocked.
pub fn ending_signals() -> io::Result<OwnedFd> {
    let set = signals(&ENDING);
    // SAFETY: the set is a local; the descriptor is nobody else's.
    unsafe {
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Raises the limit on open files as far as it goes.
pub fn raise_limits() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: reads into, and writes from, a local.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// What `ps` and `top` show. For a process with one thread.
pub fn set_title(short: &str, long: &str) {
    if let Ok(short) = CString::new(short) {
        // SAFETY: copies at most 16 bytes of a string that lives during the call.
        unsafe { libc::prctl(libc::PR_SET_NAME, short.as_ptr()) };
    }
    // Where the kernel reads the command line from; the environment is right behind it.
    let Some([arg_start, arg_end, env_start, env_end]) = command_line() else {
        return;
    };
    let end = if env_start == arg_end {
        env_end
    } else {
        arg_end
    };
    keep_environment(arg_start..end);
    let space = end.saturating_sub(arg_start);
    // One zero at the end at least, and one in the last byte of the arguments unless the title goes on behind it: by
    // that the kernel knows where to stop.
    let length = long.len().min(space.saturating_sub(1));
    // SAFETY: the kernel put arguments and environment there, on this process's stack, writable and never unmapped. The
    // environment has been copied, PHP's own use of the arguments ended with the fork, and there is no other thread.
    unsafe {
        let start = arg_start as *mut u8;
        std::ptr::write_bytes(start, 0, space);
        std::ptr::copy_nonoverlapping(long.as_ptr(), start, length);
    }
}

/// Takes the strings of the environment away from where [`set_title`] writes: those that are `there`, so that a second title
/// does not copy, and lose, the copies of the first.
fn keep_environment(there: Range<usize>) {
    unsafe extern "C" {
        static environ: *mut *mut libc::c_char;
    }
    // SAFETY: there is one thread. Each pointer up to the null one is a string, as the C library keeps them; the copies
    // stay for good.
    unsafe {
        let mut variable = environ;
        while !variable.is_null() && !(*variable).is_null() {
            if there.contains(&(*variable).addr()) {
                let copy = libc::strdup(*variable);
                if !copy.is_null() {
                    *variable = copy;
                }
            }
            variable = variable.add(1);
        }
    }
}

/// Start and end of the arguments, start and end of the environment.
fn command_line() -> Option<[usize; 4]> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let rest = &stat[stat.rfind(')')? + 1..];
    // proc(5) counts from 1, and two fields are before the rest: these are 48 to 51.
    let mut fields = rest.split_whitespace().skip(45).map(str::parse);
    let mut next = || fields.next()?.ok();
    let places: [usize; 4] = [next()?, next()?, next()?, next()?];
    (places[0] != 0 && places[0] < places[1] && places[2] <= places[3]).then_some(places)
}

fn wait_for(child: libc::pid_t) -> Option<i32> {
    let mut status = 0;
    loop {
        // SAFETY: writes to a local.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Some(status);
        }
        // ECHILD: signals of children are ignored here, and the system has waited for it.
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        let action = match IGNORED.contains(&signal) {
            true => libc::SIG_IGN,
            false => libc::SIG_DFL,
        };
        // SAFETY: all zeroes is a valid `sigaction`, a local; no handler is installed. Fails harmlessly for those that
        // cannot be changed.
        unsafe {
            let mut act: libc::sigaction = std::mem::zeroed();
            act.sa_sigaction = action;
            libc::sigaction(signal, &raw const act, std::ptr::null_mut());
        }
    }
    mask(&signals(&ENDING));
}

fn standard_streams(standard_error: bool) {
    // SAFETY: constant paths; the descriptors 0 to 2 are this process's alone since the fork, and nothing in it owns
    // them.
    unsafe {
        let mut null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if null < 0 {
            // A jail without it, or one that was damaged. Nothing can be read or written here either, and what PHP's process
            // has had there, its web server's connection perhaps, must not stay open.
            null = libc::open(c"/".as_ptr(), libc::O_PATH);
        }
        if null < 0 {
            return;
        }
        libc::dup2(null, libc::STDIN_FILENO);
        libc::dup2(null, libc::STDOUT_FILENO);
        if !standard_error {
            libc::dup2(null, libc::STDERR_FILENO);
        }
        if null > libc::STDERR_FILENO {
            libc::close(null);
        }
    }
}

/// Closes every descriptor from 3 on that is not `kept`.
fn close_others(kept: &mut [RawFd]) {
    kept.sort_unstable();
    let mut first = 3;
    for &fd in kept.iter().filter(|&&fd| fd >= 3) {
        close_range(first, fd - 1);
        first = fd + 1;
    }
    close_range(first, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: what these descriptors belong to is a copy of the parent's, which nothing in this process will use.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // Linux before 5.9.
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open {
        if (first..=last).contains(&fd) {
            // SAFETY: as above. The directory's own has been closed already, and closing it again fails harmlessly.
            unsafe { libc::close(fd) };
        }
    }
}

fn all_signals() -> libc::sigset_t {
    // SAFETY: fills a local.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

fn signals(list: &[i32]) -> libc::sigset_t {
    // SAFETY: fills a local.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in list {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Sets this thread's signal mask and returns the one before.
fn mask(set: &libc::sigset_t) -> libc::sigset_t {
    // SAFETY: both sets live during the call, and nobody else can reach the one that is written.
    unsafe {
        let mut before = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_SETMASK, set, &raw mut before);
        before
    }
}

/// Whether `fd` is something that may be kept open as long as one likes: nobody waits for the end of a file or a terminal,
/// as they do for a pipe's.
pub fn is_patient(fd: &impl AsRawFd) -> bool {
    // SAFETY: all zeroes is a valid `stat`, a local that the call fills.
    let mode = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd.as_raw_fd(), &raw mut stat) != 0 {
            return false;
        }
        stat.st_mode & libc::S_IFMT
    };
    mode == libc::S_IFREG || mode == libc::S_IFCHR
}
