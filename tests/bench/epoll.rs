//! epoll and poll, as little of them as the bench needs. The only file with descriptors as numbers.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::Outcome;

/// One epoll instance with room for a batch of events.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// A new, empty one.
    pub fn new() -> Outcome<Self> {
        // SAFETY: makes a descriptor; no memory is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(format!("epoll_create1: {}", io::Error::last_os_error()));
        }
        Ok(Self {
            // SAFETY: the kernel just made `fd` for us and nobody else knows its number.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024],
        })
    }

    /// Adds a descriptor; `token` comes back with its events.
    pub fn add(&self, fd: RawFd, token: u64) -> Outcome<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN.cast_unsigned(),
            u64: token,
        };
        // SAFETY: the kernel copies our own `event` and keeps no pointer to it.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(format!("epoll_ctl: {}", io::Error::last_os_error())),
        }
    }

    /// Waits for events without ever sleeping.
    pub fn spin(&mut self, timeout: Duration) -> Outcome<Ready<'_>> {
        let end = Instant::now() + timeout;
        loop {
            let count = self.poll(Duration::ZERO)?;
            if count > 0 || Instant::now() >= end {
                return Ok(Ready(self.events[..count].iter()));
            }
        }
    }

    /// Waits for events; returns their tokens, none when time is up.
    pub fn wait(&mut self, timeout: Duration) -> Outcome<Ready<'_>> {
        let count = self.poll(timeout)?;
        Ok(Ready(self.events[..count].iter()))
    }

    fn poll(&mut self, timeout: Duration) -> Outcome<usize> {
        let room = self.events.len() as i32;
        let milliseconds = timeout.as_millis() as i32;
        // SAFETY: the kernel writes at most `room` events to our vector, which is that long and borrowed mutably.
        let count = unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                room,
                milliseconds,
            )
        };
        usize::try_from(count).map_err(|_| format!("epoll_wait: {}", io::Error::last_os_error()))
    }
}

/// The tokens of what is ready.
pub struct Ready<'a>(std::slice::Iter<'a, libc::epoll_event>);

impl Iterator for Ready<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0.next().map(|event| event.u64)
    }
}

/// Waits until `fd` has something to read (or its end); false when time is up.
pub fn readable(fd: RawFd, timeout: Duration) -> Outcome<bool> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the kernel writes to our own `poll`, of which there is one, as we say.
    match unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) } {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(format!("poll: {}", io::Error::last_os_error())),
    }
}
