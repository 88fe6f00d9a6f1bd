//! The hub as a process of its own. Workers are this test program, started anew: [`start_one`] plays one when it is told to.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use realtime::config::Config;
use realtime::control::client::Client as Link;
use realtime::server::PhpLog;
use realtime::server::detached::{self, Birth};
use realtime::wire::control::Worker as Introduction;
use tempfile::TempDir;

use crate::client::Client;
use crate::harness::{PATIENCE, directory, eventually, message};

const ORDER: &str = "REALTIME_TEST_WORKER";

/// A process that plays a PHP worker, and is its own master.
pub struct Worker {
    process: Child,
    output: BufReader<ChildStdout>,
    /// What came of the start: "ok", or why not.
    pub answer: String,
}

impl Worker {
    /// `order` is "start" or "take", `build` the generation and the fingerprint.
    fn send(
        order: &str,
        directory: &TempDir,
        build: (u64, &str),
        settings: &[(&str, &str)],
    ) -> Self {
        Self::send_limited(order, directory, build, settings, libc::RLIM_INFINITY)
    }

    /// Its files, and its hub's, may not become larger than `files` bytes.
    pub fn send_limited(
        order: &str,
        directory: &TempDir,
        build: (u64, &str),
        settings: &[(&str, &str)],
        files: u64,
    ) -> Self {
        let mut order = format!("{order}\n{}\n{}\n", build.0, build.1);
        let socket = directory.path().join("hub.sock");
        let basic = [
            ("realtime.socket", socket.to_str().unwrap()),
            ("realtime.listen", "127.0.0.1:0"),
            ("realtime.threads", "1"),
            ("realtime.linger", "1"),
            ("realtime.drain", "1"),
            // Of the 1 s that is the default a busy machine may need all for something else.
            ("realtime.timeout", "20"),
            ("realtime.allow_root", "1"),
        ];
        for (name, value) in basic.iter().chain(settings) {
            order += &format!("{name}={value}\n");
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        let limit = libc::rlimit {
            rlim_cur: files,
            rlim_max: libc::RLIM_INFINITY,
        };
        let set = move || match limit_files(&limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        // SAFETY: what is called between fork() and exec() allocates nothing and takes no lock.
        unsafe { command.pre_exec(set) };
        let mut process = command
            .args([
                "--exact",
                "detached::start_one",
                "--nocapture",
                "--test-threads=1",
                // A title of its own: of the same title another one, of another test, would pass for its successor.
                "--skip",
                &format!("no test {:?}", directory.path()),
            ])
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        let answer = loop {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the worker ended");
            // libtest writes its own words in front.
            if let Some((_, answer)) = line.split_once("answer: ") {
                break answer.trim().to_owned();
            }
        };
        Self {
            process,
            output,
            answer,
        }
    }

    pub fn start(directory: &TempDir, settings: &[(&str, &str)]) -> Self {
        Self::send("start", directory, (1, "a"), settings)
    }

    /// One of a newer build, whose hub is to take over.
    pub fn take(directory: &TempDir, build: (u64, &str), settings: &[(&str, &str)]) -> Self {
        Self::send("take", directory, build, settings)
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn limit_files(limit: &libc::rlimit) -> i32 {
    // SAFETY: reads what `limit` borrows.
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, limit) }
}

/// A hub's process, killed with the test.
pub struct Hub {
    pub pid: u32,
    pub address: String,
    pub link: Link,
}

impl Hub {
    pub fn of(directory: &TempDir) -> Self {
        let socket = directory.path().join("hub.sock");
        let link = Link::connect(&socket, PATIENCE).unwrap();
        Self {
            pid: link.pid(),
            address: link.address().to_owned(),
            link,
        }
    }

    fn publish(&mut self, json: &str) -> String {
        self.link.publish(&message("a", json)).unwrap()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: takes no pointer; the process is of this test.
        unsafe { libc::kill(self.pid as i32, signal) };
    }

    fn is_alive(&self) -> bool {
        // A zombie has no command line.
        fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|title| !title.is_empty())
    }

    pub fn await_end(&self) {
        eventually("the end of the hub", || !self.is_alive());
    }

    /// What its descriptors are.
    fn descriptors(&self) -> Vec<String> {
        let list = fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        list.flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|path| path.display().to_string())
            .collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if self.is_alive() {
            self.signal(libc::SIGKILL);
        }
    }
}

fn play_worker(order: &str) {
    let mut lines = order.lines();
    let (kind, generation, fingerprint) = (
        lines.next().unwrap(),
        lines.next().unwrap(),
        lines.next().unwrap(),
    );
    let settings: Vec<(&str, &str)> = lines.map(|line| line.split_once('=').unwrap()).collect();
    let value = |name: &str| {
        let found = settings.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let birth = Birth {
        config: Config::load(value).unwrap(),
        worker: Introduction {
            master: std::process::id(),
            generation: generation.parse().unwrap(),
            fingerprint: fingerprint.to_owned(),
        },
        log: PhpLog::StandardError,
        standard_error: false,
        pool: None,
    };
    // What a worker has open beside: none of it is the hub's.
    let _file = fs::File::open("/etc/passwd").unwrap();
    let result = match kind {
        "start" => detached::start(&birth),
        _ => detached::take_over(&birth),
    };
    let answer = result.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    println!("answer: {answer}");
    // Until the test ends it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[test]
fn start_one() {
    if let Ok(order) = std::env::var(ORDER) {
        return play_worker(&order);
    }
    let directory = directory();
    // Long enough for what the hub has to do after the end of its worker.
    let mut worker = Worker::start(&directory, &[("realtime.linger", "6")]);
    assert_eq!(worker.answer, "ok");
    let mut hub = Hub::of(&directory);
    assert_ne!(hub.pid, worker.process.id());
    assert!(hub.link.identity().detached);
    assert_eq!(hub.link.identity().secret.len(), 32);
    let title = fs::read(format!("/proc/{}/cmdline", hub.pid)).unwrap();
    let title = String::from_utf8(title).unwrap();
    assert_eq!(
        title.trim_end_matches('\0'),
        format!("realtime: hub on {}", hub.address)
    );
    let limits = fs::read_to_string(format!("/proc/{}/limits", hub.pid)).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let files: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(files[3], files[4], "soft and hard");
    let mut listener = Client::stream(&hub.address, "/sse?channel=a", "");
    eventually("the subscription", || {
        hub.link.stats().unwrap().subscriptions == 1
    });
    hub.publish("1");
    listener.chunk_with("data: 1");
    // It lives on without the worker, and holds nothing of it: the pipe is at its end.
    worker.kill();
    let mut rest = String::new();
    worker.output.read_to_string(&mut rest).unwrap();
    assert!(hub.is_alive());
    let held = hub.descriptors();
    assert!(
        !held
            .iter()
            .any(|path| path.contains("passwd") || path.contains("pipe")),
        "{held:?}"
    );
    hub.publish("2");
    listener.chunk_with("data: 2");
    // Until the linger time is over.
    hub.await_end();
    assert_eq!(listener.chunk(), None);
    assert!(!fs::exists(directory.path().join("hub.sock")).unwrap());
    let lock = fs::read(directory.path().join("hub.sock.lock")).unwrap();
    assert_eq!(lock, b"", "no trace of a start in vain");
}

#[test]
fn lives_as_long_as_any_of_its_masters() {
    let directory = directory();
    let mut first = Worker::start(&directory, &[]);
    let hub = Hub::of(&directory);
    let socket = directory.path().join("hub.sock");
    let introduction = |master| {
        Some(Introduction {
            master,
            generation: 1,
            fingerprint: "a".into(),
        })
    };
    // Names a process that is neither itself nor its parent: the parent, cargo or a shell, counts.
    let me = introduction(std::process::id());
    let _link = Link::connect_as(&socket, PATIENCE, me).unwrap();
    first.kill();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(hub.is_alive());
    let second = Worker::start(&directory, &[]);
    assert!(
        second
            .answer
            .contains("another process is the realtime server"),
        "{}",
        second.answer
    );
    hub.signal(libc::SIGTERM);
    hub.await_end();
}

#[test]
fn a_signal_ends_it_and_the_next_one_starts_at_once() {
    let directory = directory();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT] {
        let worker = Worker::start(&directory, &[]);
        assert_eq!(worker.answer, "ok");
        let hub = Hub::of(&directory);
        let (mut client, _) = Client::native(&hub.address);
        // What a reload of everything sends does no harm.
        hub.signal(libc::SIGHUP);
        hub.signal(libc::SIGUSR1);
        hub.signal(libc::SIGUSR2);
        hub.signal(signal);
        assert_eq!(client.frame().close().0, 1001);
        drop(client);
        hub.await_end();
    }
}

#[test]
fn sudden_ends_in_a_row_make_the_next_start_wait() {
    let directory = directory();
    // Each is longer than the one before: in the end longer than it takes to try.
    let mut refused = false;
    for round in 0..12 {
        loop {
            let worker = Worker::start(&directory, &[]);
            if worker.answer == "ok" {
                break;
            }
            // It lets go of the lock a moment after it is seen to have ended.
            if worker.answer.contains("another process") {
                continue;
            }
            assert!(
                round >= 2,
                "one sudden end costs nothing: {}",
                worker.answer
            );
            assert!(
                worker.answer.contains("times in a row"),
                "{}",
                worker.answer
            );
            refused = true;
        }
        let hub = Hub::of(&directory);
        hub.signal(libc::SIGKILL);
        hub.await_end();
        if refused {
            break;
        }
    }
    assert!(refused);
    // PHP was reloaded: anew.
    let worker = loop {
        let worker = Worker::send("start", &directory, (2, "a"), &[]);
        if !worker.answer.contains("another process") {
            break worker;
        }
    };
    assert_eq!(worker.answer, "ok");
    Hub::of(&directory).signal(libc::SIGTERM);
}

#[test]
fn an_address_that_is_taken_is_named_every_time() {
    let directory = directory();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let settings = [("realtime.listen", &*address)];
    for _ in 0..3 {
        let worker = Worker::start(&directory, &settings);
        let wanted = format!("cannot listen on {address} (realtime.listen): it is taken");
        assert!(worker.answer.starts_with(&wanted), "{}", worker.answer);
    }
    let record = fs::read_to_string(directory.path().join("hub.sock.lock")).unwrap();
    assert!(record.contains(&address), "{record}");
    assert!(!fs::exists(directory.path().join("hub.sock")).unwrap());
    drop(other);
    // With other settings nobody waits.
    let worker = Worker::send("start", &directory, (1, "b"), &settings);
    assert_eq!(worker.answer, "ok");
    let hub = Hub::of(&directory);
    assert_eq!(hub.address, address);
    hub.signal(libc::SIGTERM);
    hub.await_end();
}

#[test]
fn a_server_that_is_found_at_the_address_but_not_at_the_socket_is_named() {
    let before = directory();
    for listen in ["127.0.0.1:0", "unix"] {
        let path = format!("unix:{}/http.sock", before.path().display());
        let listen = if listen == "unix" { &*path } else { listen };
        let first = Worker::start(&before, &[("realtime.listen", listen)]);
        assert_eq!(first.answer, "ok");
        let hub = Hub::of(&before);
        // Not the same twice, where the first failure would be remembered.
        let after = directory();
        let second = Worker::start(&after, &[("realtime.listen", &hub.address)]);
        let named = format!(
            "process {}, a realtime server with another realtime.socket",
            hub.pid
        );
        assert!(second.answer.contains(&named), "{}", second.answer);
        hub.signal(libc::SIGTERM);
        hub.await_end();
    }
}

#[test]
fn a_stale_socket_and_garbage_in_the_lock_are_no_obstacle() {
    let directory = directory();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("hub.sock")).unwrap());
    fs::write(
        directory.path().join("hub.sock.lock"),
        "{\"starts\":99}\0garbage",
    )
    .unwrap();
    let worker = Worker::start(&directory, &[]);
    assert_eq!(worker.answer, "ok");
    Hub::of(&directory).publish("1");
}

#[test]
fn does_not_serve_as_root() {
    // SAFETY: reads a number of this process and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let directory = directory();
    let worker = Worker::start(&directory, &[("realtime.allow_root", "0")]);
    assert!(
        worker.answer.contains("realtime.allow_root=1"),
        "{}",
        worker.answer
    );
    assert!(is_empty(directory.path()));
}

#[test]
fn a_newer_build_takes_over() {
    let directory = directory();
    // The listener is closed when two thirds of it are over.
    let _old = Worker::start(&directory, &[("realtime.drain", "6")]);
    let mut hub = Hub::of(&directory);
    let first = hub.publish("1");
    let mut listener = Client::stream(&hub.address, "/sse?channel=a", "");
    let address = hub.address.clone();
    let _new = Worker::send("take", &directory, (2, "b"), &[]);
    assert_eq!(_new.answer, "ok");
    let socket = directory.path().join("hub.sock");
    eventually("the new hub", || {
        Link::connect(&socket, PATIENCE).is_ok_and(|link| link.identity().generation == 2)
    });
    let mut next = Hub::of(&directory);
    assert_ne!(next.pid, hub.pid);
    assert_eq!(next.address, address);
    assert_eq!(next.link.identity().fingerprint, "b");
    let secret = &hub.link.identity().secret;
    assert_eq!(
        next.link.identity().secret,
        *secret,
        "requests under way know it"
    );
    next.publish("2");
    listener.chunk_with("data: 2");
    // The old one closes its clients and ends; they find everything at the new one.
    hub.await_end();
    let resume = format!("/sse?channel=a&since={first}");
    Client::stream(&next.address, &resume, "").chunk_with("data: 2");
    assert!(next.is_alive());
    next.signal(libc::SIGTERM);
    next.await_end();
    assert!(!fs::exists(&socket).unwrap());
}

#[test]
fn a_new_hub_lives_for_all_masters_of_the_old_one() {
    let directory = directory();
    let mut old = Worker::start(&directory, &[]);
    let hub = Hub::of(&directory);
    let socket = directory.path().join("hub.sock");
    // This test's own parent is a second one, and says no more from here on.
    let me = Introduction {
        master: std::process::id(),
        generation: 1,
        fingerprint: "a".into(),
    };
    drop(Link::connect_as(&socket, PATIENCE, Some(me)).unwrap());
    let mut new = Worker::send("take", &directory, (2, "b"), &[]);
    assert_eq!(new.answer, "ok");
    hub.await_end();
    let next = Hub::of(&directory);
    assert_eq!(next.link.identity().generation, 2);
    for worker in [&mut old, &mut new] {
        worker.kill();
    }
    // Longer than realtime.linger.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(next.is_alive());
    next.signal(libc::SIGTERM);
    next.await_end();
}

#[test]
fn of_many_workers_of_a_new_build_one_takes_over() {
    let directory = directory();
    let _old = Worker::start(&directory, &[]);
    let old = Hub::of(&directory);
    // All have found the old one, as workers do that a reload has started at the same time.
    let workers: Vec<Worker> = (0..6)
        .map(|_| Worker::send("take", &directory, (2, "b"), &[]))
        .collect();
    assert!(workers.iter().all(|worker| worker.answer == "ok"));
    let socket = directory.path().join("hub.sock");
    eventually("the new hub", || {
        Link::connect(&socket, PATIENCE).is_ok_and(|link| link.identity().generation == 2)
    });
    let next = Hub::of(&directory);
    old.await_end();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(Link::connect(&socket, PATIENCE).unwrap().pid(), next.pid);
}

#[test]
fn a_takeover_that_fails_leaves_the_old_one_and_is_not_repeated_at_once() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    fail_to_take_over(("realtime.listen", &taken), &taken);
    // What is seen only when the old one has let go.
    fail_to_take_over(("realtime.socket_group", "nobodys-group"), "nobodys-group");
}

/// With this setting no takeover succeeds, and what came of it names this.
fn fail_to_take_over(setting: (&str, &str), why: &str) {
    let directory = directory();
    let _old = Worker::start(&directory, &[]);
    let mut hub = Hub::of(&directory);
    let settings = [setting];
    let worker = Worker::send("take", &directory, (2, "b"), &settings);
    assert_eq!(worker.answer, "ok", "it is tried in a process of its own");
    let tried = directory.path().join("hub.sock.takeover");
    eventually("the failure", || {
        fs::read_to_string(&tried).is_ok_and(|text| text.contains(why))
    });
    // Where a try takes longer than it would have to wait, the next one has to wait for longer: some try is refused for sure.
    let mut answers = Vec::new();
    while !answers
        .last()
        .is_some_and(|answer: &String| answer.contains(why))
    {
        assert!(answers.len() < 20, "{answers:?}");
        let worker = Worker::send("take", &directory, (2, "b"), &settings);
        answers.push(worker.answer.clone());
    }
    hub.publish("1");
    assert_eq!(Hub::of(&directory).pid, hub.pid);
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}
