//! The bytes of a ring: a file that is mapped into memory, or memory alone where there is no file (yet).
//!
//! Imports nothing of this crate.

use std::alloc::Layout;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// What they begin at a multiple of.
const PAGE: usize = 4096;

/// Bytes at an address of their own, zero where nobody has written.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    length: usize,
    /// Kept open: its blocks are ours.
    file: Option<File>,
}

// SAFETY: the address is this value's own until it is dropped, on whichever thread; who may touch which bytes when is the
// business of whoever has it.
unsafe impl Send for Memory {}
// SAFETY: as above; by itself it reads and writes none of them.
unsafe impl Sync for Memory {}

impl Memory {
    /// The first `length` bytes of `file`, which is as long.
    pub fn map(file: File, length: usize) -> io::Result<Self> {
        // SAFETY: a mapping of its own; nothing else in this process knows the address. The file is as long, and in a directory that
        // only its owner can write.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping just made. A forked child has no part in it.
        unsafe { libc::madvise(memory, length, libc::MADV_DONTFORK) };
        Ok(Self {
            start: NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            length,
            file: Some(file),
        })
    }

    /// Memory of this process alone.
    pub fn alone(length: usize) -> Self {
        let layout = layout(length);
        // SAFETY: no caller has a use for no bytes: the layout is not empty.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(memory) else {
            std::alloc::handle_alloc_error(layout);
        };
        Self {
            start,
            length,
            file: None,
        }
    }

    /// Where they begin, at a multiple of 4096.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Has the disk write them.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.file {
            // SAFETY: the mapping of `map`; whoever had a part of it borrowed `self`.
            Some(_) => unsafe {
                libc::munmap(self.start.as_ptr().cast(), self.length);
            },
            // SAFETY: the memory of `alone`, which was asked for with this layout; as above.
            None => unsafe { std::alloc::dealloc(self.start.as_ptr(), layout(self.length)) },
        }
    }
}

fn layout(length: usize) -> Layout {
    Layout::from_size_align(length.max(1), PAGE).expect("a ring's size")
}
