//! Files that are torn or changed: the server starts, has messages that are whole, and says when some are missing.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use realtime::server::Server;
use tempfile::TempDir;

use super::{copy, numbers, page, publish, server};
use crate::client::Client;
use crate::harness::{directory, eventually, message};
use crate::issuer;
use crate::takeover::Site;

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
fn a_ring_without_its_database_is_put_aside() {
    let (directory, ids) = crashed(true);
    let data = directory.path().join("data");
    let ring = std::fs::read(data.join("recent")).unwrap();
    // As a power cut may leave it where nothing is synced.
    for file in files(&directory) {
        if file.file_name().unwrap() != "recent" {
            std::fs::write(file, "").unwrap();
        }
    }
    let next = server(&directory, &[]);
    check(&next, &ids, "an empty database");
    assert!(page(&next, "a", None).entries.len() <= 1);
    let aside = std::fs::read(data.join("recent.broken"));
    assert!(aside.unwrap() == ring, "what was put aside has changed");
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

/// More than SQLite keeps in memory of its file.
const LARGE: [(&str, &str); 2] = [
    ("realtime.history_size", "1000000"),
    ("realtime.history_bytes", "12M"),
];

fn publish_large(server: &Server, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let json = format!("\"{number}.{}\"", "x".repeat(2000));
        server.node().publish(message("large", &json)).unwrap();
    }
}

fn large(server: &Server) -> Vec<String> {
    let entries = page(server, "large", None).entries;
    entries.into_iter().map(|entry| entry.id).collect()
}

/// Changes what is in the database behind its first pages, as a disk that fails would.
fn scramble(directory: &TempDir) {
    for name in ["history.db", "history.db-wal"] {
        let path = directory.path().join("data").join(name);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        // Past the tables' roots, and past what a log of this size begins with.
        let from = 10 * 4096;
        let garbage = vec![0xa5; length.saturating_sub(from) as usize];
        file.write_all_at(&garbage, from).unwrap();
    }
}

fn aside(directory: &TempDir) -> bool {
    directory.path().join("data/history.db.broken").exists()
}

#[test]
fn a_database_that_is_damaged_under_a_server_is_put_aside() {
    for fsync in ["interval", "always"] {
        let directory = directory();
        let settings = [&LARGE[..], &[("realtime.fsync", fsync), issuer::SETTING]].concat();
        let first = server(&directory, &settings);
        let ada = issuer::token(serde_json::json!({"sub": "ada"}));
        first.node().revoke_user("ada").unwrap();
        // With `always` each waits.
        let count = if fsync == "always" { 2500 } else { 5000 };
        publish_large(&first, 0..count);
        std::thread::sleep(Duration::from_millis(300));
        // Before: a server that is still writing may find it out at once.
        assert!(!aside(&directory));
        scramble(&directory);
        let mut number = count;
        let mut last = String::new();
        eventually("a new database", || {
            publish_large(&first, number..number + 500);
            number += 500;
            last = publish(&first, "a", number);
            aside(&directory)
        });
        // Nobody was refused, and nothing is missing: neither now nor after a crash.
        let kept = large(&first);
        for _ in 0..2 {
            let after = publish(&first, "a", 7);
            std::thread::sleep(Duration::from_millis(200));
            let crashed = copy(&directory);
            let next = server(&crashed, &settings);
            assert_eq!(large(&next), kept, "{fsync}");
            assert!(page(&next, "a", Some(&last)).recovered);
            assert!(page(&next, "a", Some(&after)).recovered);
            let path = format!("/poll?channel=a&timeout=0&token={ada}");
            assert_eq!(Client::connect(next.address()).get(&path).status, 401);
        }
    }
}

#[test]
fn a_takeover_that_finds_a_damaged_database_puts_it_aside() {
    let directory = directory();
    let data = directory.path().join("data").display().to_string().leak();
    let mut settings = vec![("realtime.drain", "0.1"), ("realtime.history", "disk")];
    settings.extend([("realtime.data_dir", &*data), LARGE[1]]);
    let site = Site::new(&settings);
    let first = site.first();
    publish_large(&first, 0..5000);
    let since = publish(&first, "a", 1);
    std::thread::sleep(Duration::from_millis(300));
    scramble(&directory);
    let next = site.next();
    let kept = large(&next);
    eventually("a new database", || {
        site.link().publish(&message("a", "2")).is_ok() && aside(&directory)
    });
    drop(first);
    drop(next);
    let last = site.first();
    assert_eq!(large(&last), kept);
    assert!(page(&last, "a", Some(&since)).recovered);
}

/// What SQLite has other words for than that it is damaged.
#[test]
fn whatever_is_in_the_place_of_a_file_is_put_aside() {
    type Change = fn(&Path);
    fn put(path: &Path, at: u64, bytes: &[u8]) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }
    fn replace(path: &Path) {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }
    let changes: [(&str, &str, Change); 8] = [
        ("one for readers alone", "history.db", |path| {
            put(path, 18, &[3])
        }),
        ("of a newer SQLite", "history.db", |path| {
            put(path, 18, &[3, 3])
        }),
        ("without a layout", "history.db", |path| {
            put(path, 60, &[0; 4])
        }),
        ("of another layout", "history.db", |path| {
            put(path, 60, &[0, 0, 0, 9])
        }),
        ("a directory", "history.db", replace),
        ("without tables", "history.db", |path| {
            std::fs::remove_file(path).unwrap();
            let other = rusqlite::Connection::open(path).unwrap();
            let sql = "CREATE TABLE state (x); PRAGMA user_version = 1";
            other.execute_batch(sql).unwrap();
        }),
        ("a directory", "recent", replace),
        ("a link", "recent", |path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        }),
    ];
    for (what, name, change) in changes {
        let directory = directory();
        let first = server(&directory, &[]);
        let ids: Vec<_> = (0..MESSAGES).map(|n| publish(&first, "a", n)).collect();
        drop(first);
        // The second time something was put aside before.
        for time in 0..2 {
            let path = directory.path().join("data").join(name);
            change(&path);
            let damage = format!("{name} is {what}");
            let next = server(&directory, &[]);
            if time == 0 {
                check(&next, &ids, &damage);
            }
            let kept = numbers(&page(&next, "a", None));
            drop(next);
            let next = server(&directory, &[]);
            assert_eq!(numbers(&page(&next, "a", None)), kept, "{damage}");
            drop(next);
            let broken = directory.path().join(format!("data/{name}.broken"));
            assert!(broken.symlink_metadata().is_ok(), "{damage}");
        }
    }
}
