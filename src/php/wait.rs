//! How the PHP thread sleeps: until an event, a timer or a signal ([`until`]), or in an event loop of the script's own
//! ([`stream`]).
//!
//! Imports `link`, `timers`, `fault` and `zend`.

use std::cell::RefCell;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::fault::{self, Unwinding};
use super::{server_here, timers, zend};

/// SIGINT or SIGTERM came while `rt_run()` had taken them over.
static SIGNALLED: AtomicBool = AtomicBool::new(false);

/// SIGINT and SIGTERM, taken over where the script has not done so, given back when dropped.
#[derive(Debug)]
pub struct Signals([Option<libc::sigaction>; 2]);

const SIGNALS: [c_int; 2] = [libc::SIGINT, libc::SIGTERM];

impl Signals {
    /// Takes them over.
    pub fn take() -> Self {
        SIGNALLED.store(false, Ordering::SeqCst);
        Self(SIGNALS.map(|signo| {
            // SAFETY: a C struct of numbers and sets, valid when zero; filled by the call.
            let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: on the PHP thread; the handler only does what is safe in one.
            let taken = unsafe { zend::rt_signal_take(signo, on_signal, &raw mut before) };
            taken.then_some(before)
        }))
    }

    /// Whether one of them came.
    pub fn came() -> bool {
        SIGNALLED.load(Ordering::SeqCst)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signo, before) in SIGNALS.into_iter().zip(&self.0) {
            if let Some(before) = before {
                // SAFETY: on the PHP thread; gives back what take() found.
                unsafe { zend::rt_signal_give_back(signo, on_signal, before) };
            }
        }
    }
}

extern "C" fn on_signal(signo: c_int) {
    if SIGNALLED.swap(true, Ordering::SeqCst) {
        // The second time: a callback does not return, and its user is impatient.
        // SAFETY: both are allowed in a signal handler.
        unsafe {
            libc::signal(signo, libc::SIG_DFL);
            libc::raise(signo);
        }
    }
}

/// Sleeps until `fd` is readable, a signal comes or `until` is reached. Runs what signals ask for, as the VM does
/// between two instructions. Whether `fd` is readable.
pub fn until(fd: RawFd, until: Option<Instant>) -> Result<bool, Unwinding> {
    // SAFETY: on the PHP thread.
    fault::check(unsafe { zend::rt_interrupt() })?;
    let masked = Masked::all();
    // From here to ppoll() no signal is handled, so none can come between the looking and the sleeping.
    // SAFETY: on the PHP thread; pcntl masks signals itself while it runs handlers.
    fault::check(unsafe { zend::rt_pcntl_dispatch() })?;
    // SAFETY: reads a flag of this PHP thread.
    if unsafe { zend::rt_interrupted() } || Signals::came() || super::event_loop::stopped() {
        return Ok(false);
    }
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.map(|left| libc::timespec {
        tv_sec: left.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: libc::c_long::from(left.subsec_nanos()),
    });
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: all pointers are to locals, or null for "no limit"; the mask is the one from before.
    let ready = unsafe {
        libc::ppoll(
            &raw mut poll,
            1,
            left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            &raw const masked.before,
        )
    };
    drop(masked);
    // SAFETY: on the PHP thread.
    fault::check(unsafe { zend::rt_interrupt() })?;
    Ok(ready > 0)
}

/// All signals blocked on this thread, until dropped.
struct Masked {
    before: libc::sigset_t,
}

impl Masked {
    fn all() -> Self {
        // SAFETY: both sets are locals; changes the mask of this thread only.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: gives back what all() found.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
    }
}

/// What makes `rt_stream()` readable: an epoll descriptor over the queue's and a timer's.
struct Watch {
    epoll: OwnedFd,
    timer: OwnedFd,
    queue: RawFd,
    /// [`server_here::forks`] when it was made: a child's would watch its parent's.
    forks: u32,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// A descriptor for a stream of the script's own: readable when `queue` is, or a timer is due.
pub fn stream(queue: RawFd) -> std::io::Result<OwnedFd> {
    let epoll = WATCH.with_borrow_mut(|watch| {
        let fits = |w: &Watch| w.forks == server_here::forks() && w.queue == queue;
        if !watch.as_ref().is_some_and(fits) {
            *watch = Some(Watch::over(queue)?);
        }
        watch.as_ref().map_or_else(
            || Err(std::io::Error::other("no watch")),
            |watch| watch.epoll.try_clone(),
        )
    })?;
    rearm();
    Ok(epoll)
}

/// Sets the timer of the stream to the next one of the loop. To be called whenever that may have changed.
pub fn rearm() {
    WATCH.with_borrow(|watch| {
        let Some(watch) = watch else { return };
        let mut spec: libc::itimerspec = libc::itimerspec {
            it_interval: zero(),
            it_value: zero(),
        };
        if let Some(due) = timers::next_due() {
            // Zero would disarm it.
            let left = due
                .saturating_duration_since(Instant::now())
                .max(Duration::from_nanos(1));
            spec.it_value.tv_sec = left.as_secs() as libc::time_t;
            spec.it_value.tv_nsec = libc::c_long::from(left.subsec_nanos());
        }
        // SAFETY: our own descriptor and a local; setting it also makes it unreadable until it is due.
        unsafe {
            libc::timerfd_settime(
                watch.timer.as_raw_fd(),
                0,
                &raw const spec,
                std::ptr::null_mut(),
            );
        }
    });
}

/// Lets the watch go: the request ends. Streams that the script holds are PHP's to close.
pub fn forget() {
    WATCH.set(None);
}

impl Watch {
    fn over(queue: RawFd) -> std::io::Result<Self> {
        // SAFETY: neither call takes a pointer; the descriptors are nobody else's.
        let (epoll, timer) = unsafe {
            let epoll = owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
            (
                epoll,
                owned(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?,
            )
        };
        watch(&epoll, queue)?;
        watch(&epoll, timer.as_raw_fd())?;
        Ok(Self {
            epoll,
            timer,
            queue,
            forks: server_here::forks(),
        })
    }
}

/// Has `epoll` be readable while `fd` is.
pub fn watch(epoll: &OwnedFd, fd: RawFd) -> std::io::Result<()> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    // SAFETY: two live descriptors and a local.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// # Safety
/// `fd` is negative, or a descriptor that nobody else closes.
pub unsafe fn owned(fd: RawFd) -> std::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: as promised by the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn zero() -> libc::timespec {
    libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    }
}
