//! `realtime.fsync`: when the disk is asked to write, as the system calls of the server's process tell.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use realtime::control::client::Client as Link;
use realtime::node::Failure;
use tempfile::TempDir;

use super::killed::{Publishers, started};
use crate::detached::{Hub, Worker};
use crate::harness::{PATIENCE, channel_named, directory, eventually, message};

/// What makes a file safe from a power cut.
const SYNCS: &str = "fsync,fdatasync,sync_file_range,msync,sync,syncfs";

pub struct Place {
    pub directory: TempDir,
    fsync: &'static str,
    _worker: Worker,
    pub hub: Hub,
}

/// A server that has begun: what it found is written.
pub fn place(fsync: &'static str) -> Place {
    let directory = directory();
    let worker = with_settings(&directory, fsync, |settings| started(&directory, settings));
    let mut hub = Hub::of(&directory);
    hub.link.publish(&message("a", "0")).unwrap();
    // The last of it, with `interval`.
    std::thread::sleep(Duration::from_millis(3000));
    Place {
        directory,
        fsync,
        _worker: worker,
        hub,
    }
}

fn with_settings<T>(
    directory: &TempDir,
    fsync: &str,
    start: impl FnOnce(&[(&str, &str)]) -> T,
) -> T {
    let data = directory.path().join("data").display().to_string();
    start(&[
        ("realtime.history", "disk"),
        ("realtime.data_dir", &data),
        ("realtime.fsync", fsync),
        ("realtime.timeout", "20"),
        ("realtime.history_size", "1000000"),
    ])
}

/// strace at the server's process.
pub struct Trace {
    process: Child,
    file: PathBuf,
}

impl Trace {
    /// `what` happens to calls that sync, beside that they are noted.
    fn of(place: &Place, what: &str) -> Self {
        let all = format!("-f -e trace={SYNCS} -p {} {what}", place.hub.pid);
        let trace = Self::at(place, "trace", &all);
        eventually("strace at every thread", || trace.has_all(place.hub.pid));
        trace
    }

    /// The same for certain calls of the thread of that name alone.
    fn of_thread(place: &Place, name: &str, calls: &str, what: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", place.hub.pid)).unwrap();
        let mut named = tasks.flatten().filter(|task| {
            let comm = std::fs::read_to_string(task.path().join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        });
        let thread = named.next().expect("a thread of that name").file_name();
        let thread = thread.display();
        let some = format!("-e trace={calls} -p {thread} -e inject={calls}:{what}");
        Self::at(place, name, &some)
    }

    /// Whatever strace is told to do, at whomever.
    pub fn at(place: &Place, name: &str, what: &str) -> Self {
        let file = place.directory.path().join(name);
        let mut process = Command::new("strace")
            .args(["-ttt", "-e", "signal=none", "-o"])
            .arg(&file)
            .args(what.split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace, which tests/setup.sh installs");
        let said = BufReader::new(process.stderr.take().unwrap());
        let mut said = said.lines();
        let first = said.next().expect("strace says what it does").unwrap();
        assert!(first.contains("attached"), "{first}");
        // Threads come one by one; it must not wait for whoever reads.
        std::thread::spawn(move || said.for_each(drop));
        Self { process, file }
    }

    fn has_all(&self, pid: u32) -> bool {
        let tracer = format!("TracerPid:\t{}\n", self.process.id());
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.flatten().all(|task| {
            let status = std::fs::read_to_string(task.path().join("status"));
            status.is_ok_and(|status| status.contains(&tracer))
        })
    }

    /// When the disk was asked to write, and did, in seconds since 1970.
    fn end(mut self) -> Vec<f64> {
        self.detach();
        let text = std::fs::read_to_string(&self.file).unwrap();
        let done = text.lines().filter(|line| line.ends_with("= 0"));
        let when = done.map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap());
        when.collect()
    }

    fn detach(&mut self) {
        // SAFETY: takes no pointer; the process is this value's own, and not waited for yet.
        unsafe { libc::kill(self.process.id() as i32, libc::SIGINT) };
        self.process.wait().unwrap();
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn now() -> f64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

#[test]
fn always_is_less_than_one_sync_a_message_and_never_none() {
    let mut place = place("always");
    // One after the other: each has waited for a sync of its own.
    let trace = Trace::of(&place, "");
    for number in 0..50 {
        place
            .hub
            .link
            .publish(&message("a", &number.to_string()))
            .unwrap();
    }
    let alone = trace.end().len();
    assert!(alone >= 50, "{alone} syncs for 50 messages");
    // Several at a time: who waits while another's is written shares the next.
    let trace = Trace::of(&place, "");
    let publishers = Publishers::start(&place.directory, 1);
    publishers.await_messages(600);
    let acknowledged = publishers.end();
    let syncs = trace.end().len();
    let messages: usize = acknowledged.iter().map(Vec::len).sum();
    let distinct: HashSet<_> = acknowledged.iter().flatten().collect();
    assert_eq!(distinct.len(), messages);
    println!(
        "{syncs} syncs for {messages} messages of {} publishers",
        acknowledged.len()
    );
    assert!(syncs < messages, "{syncs} syncs for {messages} messages");
    // One for what all of them wait for, and no less.
    let least = messages / acknowledged.len();
    assert!(syncs >= least, "{syncs} syncs for {messages} messages");
}

/// With a disk that writes nothing when it is asked to, the one that waits for it is told so, and no other.
#[test]
fn what_is_not_on_the_disk_is_not_acknowledged() {
    for (fsync, waits) in [("always", true), ("interval", false), ("never", false)] {
        let mut place = place(fsync);
        let inject = format!("-e inject={SYNCS}:error=EIO");
        let mut trace = Trace::of(&place, &inject);
        let answer = place.hub.link.publish(&message("a", "1"));
        match answer {
            Err(Failure::Refused(text) | Failure::Unstored(text)) if waits => {
                assert!(text.contains("realtime.data_dir"), "{text}");
            }
            Ok(_) if !waits => {}
            other => panic!("{fsync}: {other:?}"),
        }
        trace.detach();
        let mut link = Link::connect(&place.directory.path().join("hub.sock"), PATIENCE).unwrap();
        eventually("a disk that writes", || {
            link.publish(&message("a", "2")).is_ok()
        });
    }
}

/// What waits for the disk when another server takes over is published once, and its publisher hears that it was.
#[test]
fn a_takeover_while_the_disk_stands_still() {
    let place = place("always");
    // Longer than the old server waits for requests that are under way, and less than the new one waits for it.
    let inject = format!("-e inject={SYNCS}:delay_enter=1500000:when=1");
    let trace = Trace::of(&place, &inject);
    let (directory, fsync) = (&place.directory, place.fsync);
    let socket = directory.path().join("hub.sock");
    let mut link = Link::connect(&socket, PATIENCE).unwrap();
    let publishing = std::thread::spawn(move || {
        let begin = Instant::now();
        (link.publish(&message("a", "1")), begin.elapsed())
    });
    // By now it has the disk write.
    std::thread::sleep(Duration::from_millis(300));
    let next = with_settings(directory, fsync, |settings| {
        Worker::take(directory, (2, "b"), settings)
    });
    assert_eq!(next.answer, "ok");
    let (published, took) = publishing.join().unwrap();
    assert!(took > Duration::from_millis(1500), "the disk took {took:?}");
    let id = published.unwrap();
    drop(trace);
    let mut hub = None;
    eventually("the new server", || {
        hub = Link::connect(&socket, PATIENCE).ok();
        hub.as_ref().is_some_and(|link| link.pid() != place.hub.pid)
    });
    let mut link = hub.unwrap();
    let page = link.history(&channel_named("a"), 100, None).unwrap();
    assert_eq!(super::numbers(&page), [0, 1]);
    let after = link.publish(&message("a", "2")).unwrap();
    let number = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(number(&after), number(&id) + 1);
}

/// A server that stops has published some copies, and the rest of them waits for the disk: nobody is told that nothing was done, as
/// PHP then asks the next server for all of them.
#[test]
fn what_has_begun_when_the_server_stops_is_not_begun_anew() {
    let place = place("always");
    let inject = format!("-e inject={SYNCS}:delay_enter=2000000:when=1");
    let trace = Trace::of(&place, &inject);
    let socket = place.directory.path().join("hub.sock");
    let mut link = Link::connect(&socket, PATIENCE).unwrap();
    // More than may wait for the disk.
    let mut large = message("a", &format!("\"{}\"", "x".repeat(60_000)));
    large.channels = (0..400).map(|n| channel_named(&format!("c{n}"))).collect();
    let publishing = std::thread::spawn(move || link.publish(&large));
    std::thread::sleep(Duration::from_millis(500));
    place.hub.signal(libc::SIGTERM);
    assert_eq!(publishing.join().unwrap().unwrap_err(), Failure::Busy);
    drop(trace);
    place.hub.await_end();
}

/// The thread that answers publishers gets to it when the server has done all else.
#[test]
fn what_is_on_the_disk_when_the_server_stops_its_publisher_is_told() {
    let place = place("always");
    let delay = "delay_enter=2000000:when=1";
    let slow = Trace::of_thread(&place, "rt-store", SYNCS, delay);
    let socket = place.directory.path().join("hub.sock");
    let mut link = Link::connect(&socket, PATIENCE).unwrap();
    let publishing = std::thread::spawn(move || link.publish(&message("a", "1")));
    std::thread::sleep(Duration::from_millis(500));
    let delay = "delay_enter=5000000:when=1";
    let late = Trace::of_thread(&place, "rt-links", "epoll_wait", delay);
    std::thread::sleep(Duration::from_millis(300));
    place.hub.signal(libc::SIGTERM);
    publishing.join().unwrap().unwrap();
    drop((slow, late));
    place.hub.await_end();
}

#[test]
fn interval_is_about_a_second_and_never_never() {
    for (fsync, syncs) in [("interval", true), ("never", false)] {
        let mut place = place(fsync);
        let trace = Trace::of(&place, "");
        let begin = Instant::now();
        let mut published = Vec::new();
        while begin.elapsed() < Duration::from_millis(3500) {
            place.hub.link.publish(&message("a", "1")).unwrap();
            published.push(now());
            std::thread::sleep(Duration::from_millis(20));
        }
        // And the last of them.
        std::thread::sleep(Duration::from_millis(6500));
        let when = trace.end();
        if !syncs {
            assert!(when.is_empty(), "{fsync}: {when:?}");
            continue;
        }
        for at in &published {
            let next = when.iter().find(|sync| *sync >= at);
            let after = next.map(|sync| sync - at);
            // A second, and as much again and more where the disk is somebody else's just then.
            assert!(after.is_some_and(|after| after < 6.0), "{after:?} s");
        }
        // What 3.5 seconds have of them, and a few for the log that is full: not one a message.
        assert!(when.len() < 20, "{} for {}", when.len(), published.len());
    }
}
