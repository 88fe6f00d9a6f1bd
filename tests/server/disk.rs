//! `realtime.history = disk`: what was acknowledged is there again, whatever has happened to the server or its files.

mod beginning;
mod damage;
mod killed;
pub mod syncs;

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use realtime::backend::queue::EventQueue;
use realtime::ids::Channel;
use realtime::message::{Payload, Publish};
use realtime::node::{Failure, HistoryPage};
use realtime::server::{Server, StartError};
use realtime::store::StoreError;
use serde_json::json as value;
use tempfile::TempDir;

use crate::client::Client;
use crate::harness::{PATIENCE, channel_named, config, directory, message, start_after};
use crate::issuer::{self, token};
use crate::takeover::Site;

/// A server that keeps its history in `directory`, with these other settings.
fn server(directory: &TempDir, settings: &[(&str, &str)]) -> Server {
    start(directory, settings).unwrap()
}

/// The same, which may be refused.
fn start(directory: &TempDir, settings: &[(&str, &str)]) -> Result<Server, StartError> {
    start_after(|| attempt(directory, settings))
}

/// The same, whose directory may be another's.
fn attempt(directory: &TempDir, settings: &[(&str, &str)]) -> Result<Server, StartError> {
    let data = data_dir(directory);
    let mut all = vec![("realtime.history", "disk"), ("realtime.data_dir", &*data)];
    all.extend(settings);
    let config = config(directory, &all);
    let queue = Arc::new(EventQueue::new(config.queue_bytes).unwrap());
    Server::start(config, queue)
}

fn data_dir(directory: &TempDir) -> String {
    directory.path().join("data").display().to_string()
}

fn publish(server: &Server, channel: &str, number: usize) -> String {
    let message = message(channel, &number.to_string());
    server.node().publish(message).unwrap()
}

fn page(server: &Server, channel: &str, since: Option<&str>) -> HistoryPage {
    let channel = channel_named(channel);
    let patience = Instant::now() + PATIENCE;
    loop {
        match server.node().history(&channel, 100_000, since) {
            // Where the disk is busy the server says so, and "try again".
            Err(Failure::Unstored(text))
                if text.contains("still being written") && Instant::now() < patience =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            page => return page.unwrap(),
        }
    }
}

fn numbers(page: &HistoryPage) -> Vec<usize> {
    let numbers = page.entries.iter().map(|entry| match &entry.payload {
        Payload::Json(bytes) => std::str::from_utf8(bytes).unwrap().parse().unwrap(),
        other => panic!("{other:?}"),
    });
    numbers.collect()
}

/// What `directory/data` is at this moment, as a crash would leave it.
fn copy(directory: &TempDir) -> TempDir {
    let copy = self::directory();
    let to = copy.path().join("data");
    std::fs::create_dir(&to).unwrap();
    set_mode(&to, 0o700);
    let files = std::fs::read_dir(directory.path().join("data")).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    // The ring first: what leaves it while the others are copied is in them by then.
    names.sort_by_key(|name| name != "recent");
    for name in names {
        std::fs::copy(directory.path().join("data").join(&name), to.join(&name)).unwrap();
    }
    copy
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_history_outlives_its_server() {
    for fsync in ["always", "interval", "never"] {
        let directory = directory();
        let settings = [("realtime.fsync", fsync)];
        let first = server(&directory, &settings);
        let ids: Vec<_> = (0..250).map(|n| publish(&first, "a", n)).collect();
        publish(&first, "b", 1);
        drop(first);
        let second = server(&directory, &settings);
        let all = page(&second, "a", Some(&ids[150]));
        assert_eq!(numbers(&all), (151..250).collect::<Vec<_>>(), "{fsync}");
        assert!(all.recovered, "{fsync}");
        // history_size is 100.
        assert!(!page(&second, "a", Some(&ids[148])).recovered, "{fsync}");
        assert!(page(&second, "never", Some(&ids[3])).recovered, "{fsync}");
        let next = publish(&second, "a", 250);
        let number = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
        assert_eq!(number(&next), number(&ids[249]) + 2, "{fsync}");
    }
}

#[test]
fn its_files_are_for_their_owner_alone() {
    let directory = directory();
    let server = server(&directory, &[]);
    publish(&server, "a", 1);
    let mut modes = Vec::new();
    for entry in std::fs::read_dir(data_dir(&directory)).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        modes.push((entry.file_name(), mode));
    }
    assert!(modes.len() >= 3, "{modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[test]
fn ids_of_publishers_and_ages_outlive_it_too() {
    let directory = directory();
    let settings = [("realtime.history_size", "3")];
    let own = |id: &str, store| Publish {
        id: Some(id.into()),
        store,
        ..message("a", "0")
    };
    let first = server(&directory, &settings);
    for (id, store) in [("early", true), ("unkept", false)] {
        first.node().publish(own(id, store)).unwrap();
    }
    for number in 1..=5 {
        publish(&first, "a", number);
    }
    std::thread::sleep(std::time::Duration::from_millis(30));
    let before = page(&first, "a", None);
    drop(first);
    for _ in 0..2 {
        let next = server(&directory, &settings);
        let now = page(&next, "a", None);
        assert_eq!(numbers(&now), [3, 4, 5]);
        for (then, now) in before.entries.iter().zip(&now.entries) {
            assert_eq!(then.id, now.id);
            assert!(then.age <= now.age, "{then:?} {now:?}");
        }
        for (id, store) in [("early", true), ("unkept", false)] {
            next.node().publish(own(id, store)).unwrap();
        }
        assert_eq!(numbers(&page(&next, "a", None)), [3, 4, 5], "known already");
    }
    // A shorter life is over after the restart.
    let short = server(&directory, &[("realtime.history_ttl", "0.001")]);
    assert!(page(&short, "a", None).entries.is_empty());
    assert!(!page(&short, "a", Some(&before.entries[0].id)).recovered);
    drop(short);
    // And what is pushed out does not come back.
    let last = server(&directory, &settings);
    assert!(page(&last, "a", None).entries.is_empty());
    assert!(!page(&last, "a", Some(&before.entries[0].id)).recovered);
}

#[test]
fn the_disk_is_bounded_like_memory() {
    let directory = directory();
    let settings = [
        ("realtime.history_size", "1000000"),
        ("realtime.history_bytes", "1M"),
    ];
    let first = server(&directory, &settings);
    let json = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..30_000 {
        first.node().publish(message("a", &json)).unwrap();
    }
    let kept = page(&first, "a", None).entries.len();
    drop(first);
    let file = directory.path().join("data/history.db");
    let size = std::fs::metadata(file).unwrap().len();
    // 30 MB went through. What one batch brings may be there before the oldest goes.
    assert!(size < 12 << 20, "{size} bytes");
    let second = server(&directory, &settings);
    assert_eq!(page(&second, "a", None).entries.len(), kept);
}

#[test]
fn revocations_outlive_it() {
    let directory = directory();
    let settings = [issuer::SETTING];
    let ada = token(value!({"sub": "ada"}));
    let bob = token(value!({"sub": "bob"}));
    let eve = token(value!({"sub": "eve"}));
    let first = server(&directory, &settings);
    first.node().revoke_user("ada").unwrap();
    first.node().revoke_token(&bob).unwrap();
    drop(first);
    let second = server(&directory, &settings);
    let connects = |token: &str| {
        let path = format!("/poll?channel=a&timeout=0&token={token}");
        Client::connect(second.address()).get(&path).status
    };
    assert_eq!(
        [&ada, &bob, &eve].map(|token| connects(token)),
        [401, 401, 200]
    );
}

#[test]
fn a_takeover_hands_the_directory_on() {
    let directory = directory();
    let data = data_dir(&directory).leak();
    let site = Site::new(&[
        ("realtime.drain", "0.1"),
        ("realtime.history", "disk"),
        ("realtime.data_dir", data),
    ]);
    let mut hubs = vec![site.first()];
    let mut link = site.link();
    let mut ids = Vec::new();
    for number in 0..40 {
        ids.push(link.publish(&message("a", &number.to_string())).unwrap());
        if number % 10 == 9 && number < 30 {
            hubs.push(site.next());
        }
    }
    drop(link);
    drop(hubs);
    // As if the machine's web server had been stopped and started.
    let next = site.first();
    let page = page(&next, "a", Some(&ids[4]));
    assert_eq!(numbers(&page), (5..40).collect::<Vec<_>>());
    assert!(page.recovered);
}

#[test]
fn a_directory_of_others_is_refused() {
    let directory = directory();
    let first = server(&directory, &[]);
    publish(&first, "a", 1);
    let socket = directory.path().join("second.sock");
    let settings = [("realtime.socket", socket.to_str().unwrap())];
    let error = attempt(&directory, &settings).unwrap_err();
    assert!(
        matches!(error, StartError::Store(StoreError::Taken(_))),
        "{error}"
    );
    drop(first);
    let data = directory.path().join("data");
    for (mode, fits) in [(0o750, false), (0o707, false), (0o700, true)] {
        set_mode(&data, mode);
        match start(&directory, &[]) {
            Ok(next) => {
                assert!(fits, "{mode:o}");
                assert_eq!(numbers(&page(&next, "a", None)), [1]);
            }
            Err(error) => {
                assert!(!fits, "{error}");
                let text = error.to_string();
                assert!(
                    text.contains("realtime.data_dir") && text.contains("chmod 700"),
                    "{text}"
                );
            }
        }
    }
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::write(&data, "a file").unwrap();
    let error = start(&directory, &[]).unwrap_err().to_string();
    assert!(error.contains("realtime.data_dir"), "{error}");
}

#[test]
fn disk_needs_a_directory() {
    let load = |name: &str| (name == "realtime.history").then(|| "disk".to_owned());
    let error = realtime::config::Config::load(load).unwrap_err();
    assert!(error.to_string().starts_with("realtime.data_dir must be"));
}

/// What no client can name is kept, and found again, like everything else.
#[test]
fn a_users_own_channel_does_not_end_what_is_read_back() {
    let directory = directory();
    let first = server(&directory, &[]);
    let since = publish(&first, "a", 0);
    for number in 1..4 {
        publish(&first, "a", number);
        let own = Publish {
            channels: vec![Channel::of_user("ada")],
            ..message("a", "null")
        };
        first.node().publish(own).unwrap();
    }
    // In the ring alone, and a while later in the database as well.
    for pause in [0, 300] {
        std::thread::sleep(Duration::from_millis(pause));
        let crashed = copy(&directory);
        let next = server(&crashed, &[]);
        let found = page(&next, "a", Some(&since));
        assert!(found.recovered, "after {pause} ms");
        assert_eq!(numbers(&page(&next, "a", None)), [0, 1, 2, 3]);
    }
    drop(first);
    // Ended as it should: nothing is in doubt.
    let next = server(&directory, &[]);
    assert!(page(&next, "a", Some(&since)).recovered);
}

/// The machine's run is another one: only what was on the disk before it was acknowledged is beyond doubt.
#[test]
fn after_a_power_cut_what_was_not_on_the_disk_is_in_doubt() {
    for (before, after, certain) in [
        ("always", "always", true),
        ("always", "interval", true),
        ("interval", "interval", false),
        ("interval", "always", false),
        ("never", "never", false),
    ] {
        let directory = directory();
        let first = server(&directory, &[("realtime.fsync", before)]);
        let ids: Vec<_> = (0..3).map(|number| publish(&first, "a", number)).collect();
        let crashed = copy(&directory);
        let ring = crashed.path().join("data/recent");
        let ring = std::fs::File::options()
            .read(true)
            .write(true)
            .open(ring)
            .unwrap();
        // `Field::Boot` of `store::ring`.
        ring.write_all_at(&7_u64.to_le_bytes(), 3 * 8).unwrap();
        if before == "always" {
            // The beginning of a record that nobody was told of had got there, and no more: `Field::Head`.
            let mut head = [0; 8];
            ring.read_exact_at(&mut head, 10 * 8).unwrap();
            let head = u64::from_le_bytes(head) + 64;
            ring.write_all_at(&head.to_le_bytes(), 10 * 8).unwrap();
        }
        let next = server(&crashed, &[("realtime.fsync", after)]);
        let found = page(&next, "a", Some(&ids[0]));
        assert_eq!(found.recovered, certain, "{before}, then {after}");
        let oldest = certain.then(|| ids[0].clone());
        assert_eq!(found.oldest, oldest, "{before}, then {after}");
        assert_eq!(numbers(&page(&next, "a", None)), [0, 1, 2]);
        // Also numbers that nobody here knows may have been given.
        let new = publish(&next, "a", 3);
        assert!(!ids.contains(&new));
        assert_eq!(
            page(&next, "a", Some(&ids[0])).oldest,
            Some(if certain { ids[0].clone() } else { new.clone() })
        );
        assert!(page(&next, "a", Some(&new)).recovered);
    }
}
