//! How the server's own threads are started. Imports nothing of this crate.

use std::io;
use std::thread::JoinHandle;

/// Starts a thread on which no signal is ever handled: they belong to PHP's own thread.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    // SAFETY: both sets are locals that nobody else can reach. The mask belongs to the calling thread and is
    // put back before this returns; the new thread inherits the full one.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let thread = builder.spawn(work);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        thread
    }
}
