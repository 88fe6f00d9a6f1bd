//! Files that are torn or changed: the server starts, has messages that are whole, and says when some are missing.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use realtime::server::Server;
use tempfile::TempDir;

use super::{copy, numbers, page, publish, server};
use crate::harness::directory;

const MESSAGES: usize = 60;

/// A directory as a crash leaves it, the ids of its messages, and whether the last of them are in the ring alone.
fn crashed(in_ring: bool) -> (TempDir, Vec<String>) {
    let directory = directory();
    // What was published is in the database, and nobody writes anything more.
    let first = server(&directory, &[("realtime.fsync", "always")]);
    let mut ids: Vec<_> = (0..MESSAGES / 2).map(|n| publish(&first, "a", n)).collect();
    let before = copy(&directory);
    ids.extend((MESSAGES / 2..MESSAGES).map(|n| publish(&first, "a", n)));
    let ring = Path::new("data/recent");
    if in_ring {
        // The database as it was, and the ring as it is.
        let recent = directory.path().join(ring);
        std::fs::copy(recent, before.path().join(ring)).unwrap();
        return (before, ids);
    }
    (copy(&directory), ids)
}

fn files(directory: &TempDir) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory.path().join("data")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| std::fs::metadata(path).unwrap().len() > 0);
    files.sort();
    files
}

/// What is there may be less, but then a client is told so, whatever it had.
#[track_caller]
fn check(server: &Server, ids: &[String], damage: &str) {
    let all = page(server, "a", None);
    let kept = numbers(&all);
    assert!(kept.is_sorted(), "{damage}: {kept:?}");
    for entry in &all.entries {
        assert!(ids.contains(&entry.id), "{damage}: {entry:?}");
    }
    for (number, id) in ids.iter().enumerate() {
        let after = page(server, "a", Some(id));
        if after.recovered {
            let expected: Vec<_> = (number + 1..MESSAGES).collect();
            assert_eq!(numbers(&after), expected, "{damage}, since {number}");
        }
    }
    let next = publish(server, "a", MESSAGES);
    assert!(!ids.contains(&next), "{damage}: {next} was given before");
}

#[test]
fn a_crash_alone_loses_nothing() {
    for in_ring in [false, true] {
        let (directory, ids) = crashed(in_ring);
        let next = server(&directory, &[]);
        let all = page(&next, "a", Some(&ids[0]));
        assert!(all.recovered);
        assert_eq!(numbers(&all), (1..MESSAGES).collect::<Vec<_>>());
        check(&next, &ids, "none");
    }
}

#[test]
fn torn_files_are_repaired_or_put_aside() {
    for in_ring in [false, true] {
        let (crashed, ids) = crashed(in_ring);
        for file in files(&crashed) {
            let length = std::fs::metadata(&file).unwrap().len();
            let name = file.file_name().unwrap();
            for part in 0..12 {
                // Also right behind the beginning, and right before the end.
                let torn = match part {
                    0 => 0,
                    1 => 7,
                    2 => length - 1,
                    part => length * (part - 2) / 10 + part * 13 % 29,
                };
                let directory = copy(&crashed);
                let path = directory.path().join("data").join(name);
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_len(torn.min(length)).unwrap();
                let damage = format!("{name:?} of {length} bytes torn at {torn}");
                check(&server(&directory, &[]), &ids, &damage);
            }
        }
    }
}

#[test]
fn changed_bytes_are_seen() {
    for in_ring in [false, true] {
        let (crashed, ids) = crashed(in_ring);
        for file in files(&crashed) {
            let content = std::fs::read(&file).unwrap();
            let name = file.file_name().unwrap();
            // Where there is something: most of the ring is empty.
            let filled: Vec<_> = (0..content.len()).filter(|&at| content[at] != 0).collect();
            let step = (filled.len() / 40).max(1);
            for &at in filled.iter().step_by(step) {
                let directory = copy(&crashed);
                let path = directory.path().join("data").join(name);
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.write_all_at(&[content[at] ^ 0x24], at as u64).unwrap();
                let damage = format!("{name:?}, byte {at} changed");
                check(&server(&directory, &[]), &ids, &damage);
            }
        }
    }
}
