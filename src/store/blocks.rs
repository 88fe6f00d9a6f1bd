//! The blocks of a ring's file: reserved before anything is in it, since a write to a mapping that finds no room ends the process.
//!
//! Imports nothing of this crate.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// Has `file`, which is empty, be of `length` zeros with blocks of its own.
pub fn reserve(file: &File, length: u64) -> io::Result<()> {
    let wanted = libc::off_t::try_from(length).map_err(io::Error::other)?;
    // Says at once when there is no room, and does not take the last of it from others on the way there.
    // SAFETY: fallocate() takes no pointer; the descriptor is open for as long as `file` is borrowed.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, wanted) } != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error);
        }
    }
    // Every block is written, and not only promised.
    let zeros = [0; 64 << 10];
    let mut rest = length;
    while rest > 0 {
        let count = rest.min(zeros.len() as u64) as usize;
        let mut file = file;
        file.write_all(&zeros[..count])?;
        rest -= count as u64;
    }
    Ok(())
}
