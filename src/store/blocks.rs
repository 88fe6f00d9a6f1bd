//! The blocks of a ring's file: reserved before anything is in it, since a write to a mapping that finds no room ends the process
//! (SIGBUS).
//!
//! Imports nothing of this crate.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FallocateFlags, IFlags, fallocate, ioctl_getflags, ioctl_setflags, statfs};
use rustix::io::Errno;

/// btrfs, which writes changes to a new place unless it is told not to.
const BTRFS: u64 = 0x9123_683e;
/// File systems that write changes to a new place, whatever a file's owner wants.
const COPYING: [(u64, &str); 4] = [
    (0x2fc1_2fc1, "ZFS"),
    (0xca45_1a4e, "bcachefs"),
    (0xf2f5_2010, "F2FS"),
    (0x3434, "NILFS2"),
];

/// Has `file`, which is empty, be of `length` zeros with blocks of its own.
pub fn reserve(file: &File, length: u64) -> io::Result<()> {
    // As long as it is empty, and only where there is such a thing: btrfs then writes changes to where the zeros are.
    if let Ok(flags) = ioctl_getflags(file) {
        let _ = ioctl_setflags(file, flags | IFlags::NOCOW);
    }
    // Says at once when there is no room, and does not take the last of it from others on the way there.
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(error) if error != Errno::OPNOTSUPP => return Err(error.into()),
        _ => {}
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

/// The file system of `directory`, where reserved blocks do not help: every change of them wants new ones.
pub fn is_copied(directory: &Path, ring: &Path) -> Option<&'static str> {
    let kind = statfs(directory).ok()?.f_type as u64 & 0xffff_ffff;
    let is_shielded = || {
        let flags = File::open(ring).map(ioctl_getflags);
        // One that is not there yet will be.
        flags.map_or(true, |flags| {
            flags.is_ok_and(|it| it.contains(IFlags::NOCOW))
        })
    };
    name(kind, is_shielded)
}

fn name(kind: u64, is_shielded: impl FnOnce() -> bool) -> Option<&'static str> {
    if kind == BTRFS {
        return (!is_shielded()).then_some("btrfs");
    }
    let found = COPYING.iter().find(|(its, _)| *its == kind);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn every_block_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        reserve(&file, 300_000).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 300_000);
        assert!(metadata.blocks() * 512 >= 300_000, "{}", metadata.blocks());
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
        // Where they are shared, too, if the tests' TMPDIR is on btrfs.
        assert_ne!(is_copied(directory.path(), &path), Some("btrfs"));
        // More than any disk has, and nothing of it is left behind.
        let error = reserve(&file, 1 << 60).unwrap_err();
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "{error}");
    }

    #[test]
    fn what_copies_on_write_is_named() {
        assert_eq!(name(0x2fc1_2fc1, || true), Some("ZFS"));
        assert_eq!(name(BTRFS, || true), None);
        assert_eq!(name(BTRFS, || false), Some("btrfs"));
        // ext4, XFS, tmpfs.
        for kind in [0xef53, 0x5846_5342, 0x0102_1994] {
            assert_eq!(name(kind, || false), None);
        }
        let proc = Path::new("/proc");
        assert_eq!(is_copied(proc, &proc.join("version")), None);
    }
}
