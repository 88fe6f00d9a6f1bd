//! What the server runs with.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
pub use std::sync::atomic::{AtomicBool, AtomicUsize};
pub use std::sync::{Mutex, MutexGuard};
pub use std::thread::{Thread, current, park, park_timeout};
pub use tokio::sync::Notify;
pub use tokio::time::timeout_at;

/// A descriptor (an eventfd) that one thread polls and others make readable.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// One that is not readable.
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: eventfd() takes no pointer; the descriptor it returns is nobody else's.
        let fd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(fd))
    }

    /// The descriptor, to be polled and nothing else.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes it readable.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: writes 8 bytes from a local of 8 bytes; the descriptor is ours.
        unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
    }

    /// Makes it unreadable.
    pub fn hush(&self) {
        let mut count = 0u64;
        // SAFETY: reads 8 bytes into a local of 8 bytes; the descriptor is ours and non-blocking.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
    }
}
