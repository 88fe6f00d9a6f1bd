//! `realtime.history = disk`: what was acknowledged is there again, whatever has happened to the server or its files.

use std::path::Path;
use std::sync::Arc;

use realtime::backend::queue::EventQueue;
use realtime::node::HistoryPage;
use realtime::server::Server;
use tempfile::TempDir;

use crate::harness::{channel_named, config, directory, message};

/// A server that keeps its history in `directory`, with these other settings.
pub fn server(directory: &TempDir, settings: &[(&str, &str)]) -> Server {
    let data = data_dir(directory);
    let mut all = vec![("realtime.history", "disk"), ("realtime.data_dir", &*data)];
    all.extend(settings);
    let config = config(directory, &all);
    let queue = Arc::new(EventQueue::new(config.queue_bytes).unwrap());
    Server::start(config, queue).unwrap()
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
    server.node().history(&channel, 100_000, since).unwrap()
}

fn numbers(page: &HistoryPage) -> Vec<usize> {
    let numbers = page.entries.iter().map(|entry| match &entry.payload {
        realtime::message::Payload::Json(bytes) => {
            std::str::from_utf8(bytes).unwrap().parse().unwrap()
        }
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
    for file in std::fs::read_dir(directory.path().join("data")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    copy
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
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
