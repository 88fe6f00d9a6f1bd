//! Starts a server for one test, with a socket directory and a port of its own, and plays PHP's part in it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use realtime::backend::queue::EventQueue;
use realtime::backend::{Event, Interest};
use realtime::config::Config;
use realtime::control::election::NotElected;
use realtime::ids::{Channel, Pattern};
use realtime::message::{EventName, Payload, Publish};
use realtime::node::{Node, Stats};
use realtime::server::{Server, StartError};
use realtime::store::StoreError;
use tempfile::TempDir;

use crate::authority::files_of_all;

/// Tells a thread to end when it is dropped, also by a failure: or the test would wait for it for ever.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// No handler at all.
pub const NONE: Interest = Interest {
    open: false,
    subscribe: false,
    message: false,
    close: false,
};
/// `rt_on_message()` alone.
pub const MESSAGES: Interest = Interest {
    message: true,
    ..NONE
};

/// Runs the test of that name once more in a process of its own, and tells whether this is that process. For what is decided once in
/// a process, such as where it logs to.
pub fn alone(test: &str) -> bool {
    const MARK: &str = "REALTIME_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // A name that is no test's would pass as well.
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// A running server and PHP's end of it.
pub struct Hub {
    pub server: Server,
    pub queue: Arc<EventQueue>,
    directory: TempDir,
}

impl Hub {
    /// With the default settings.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With these settings, written as in php.ini.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let directory = directory();
        let config = config(&directory, settings);
        let queue = Arc::new(EventQueue::new(config.queue_bytes).unwrap());
        let server = Server::start(config, queue.clone()).unwrap();
        Self {
            server,
            queue,
            directory,
        }
    }

    pub fn address(&self) -> &str {
        self.server.address()
    }

    pub fn node(&self) -> &Arc<Node> {
        self.server.node()
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("hub.sock")
    }

    /// Does `work` while no shard takes anything up: what it publishes arrives as one batch.
    pub fn stall(&self, work: impl FnOnce()) {
        stall(self.node(), work);
    }

    /// Publishes JSON.
    pub fn publish(&self, channel: &str, json: &str) -> String {
        self.node().publish(message(channel, json)).unwrap()
    }

    pub fn stats(&self) -> Stats {
        self.node().stats().unwrap()
    }

    /// Waits until `channel` has so many subscribers.
    pub fn await_subscribers(&self, channel: &str, count: usize) {
        let pattern = Pattern::parse(channel).unwrap();
        eventually(&format!("{count} subscribers of {channel}"), || {
            let channels = self.node().channels(&pattern).unwrap();
            channels.first().map_or(0, |c| c.subscribers) == count
        });
    }

    /// A PHP process that has these handlers; `handle` is all of them.
    pub fn php(
        &self,
        interest: Interest,
        mut handle: impl FnMut(&Arc<Node>, Event) + Send + 'static,
    ) -> Php {
        let stop = Arc::new(AtomicBool::new(false));
        self.queue.set_interest(interest);
        let (queue, node, stopped) = (self.queue.clone(), self.node().clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                await_readable(queue.fd());
                queue.clear();
                while let Some(event) = queue.pop() {
                    handle(&node, event);
                }
            }
        });
        Php {
            stop,
            queue: self.queue.clone(),
            thread: Some(thread),
        }
    }

    /// A PHP process that says yes to everything and tells what it saw.
    pub fn recording(&self, interest: Interest) -> (Php, Receiver<Seen>) {
        let (sender, receiver) = channel();
        let php = self.php(interest, move |_, event| {
            // The test may have seen enough.
            let _ = sender.send(match event {
                Event::Open { connection, answer } => {
                    answer.decide(true);
                    Seen::Open(connection.transport.as_str(), connection.id.to_string())
                }
                Event::Subscribe {
                    channel, answer, ..
                } => {
                    answer.decide(true);
                    Seen::Subscribe(channel.to_string())
                }
                Event::Message { message, .. } => {
                    Seen::Message(message.channel.to_string(), message.data)
                }
                Event::Close { code, reason, .. } => Seen::Close(code, reason),
            });
        });
        (php, receiver)
    }
}

/// What a recording PHP process saw.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// The transport and the connection's id.
    Open(&'static str, String),
    Subscribe(String),
    Message(String, realtime::message::Incoming),
    Close(u16, String),
}

/// The PHP process of a test; ends with it.
pub struct Php {
    stop: Arc<AtomicBool>,
    queue: Arc<EventQueue>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Php {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.queue.signal();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the handlers do not panic");
        }
    }
}

/// A directory that only its owner can write.
pub fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("realtime")
        .tempdir()
        .unwrap()
}

/// The settings of a server whose control socket is in `directory`.
pub fn config(directory: &TempDir, settings: &[(&str, &str)]) -> Config {
    let socket = directory.path().join("hub.sock").display().to_string();
    Config::load(|name| {
        let given = settings.iter().find(|(given, _)| *given == name);
        match name {
            _ if given.is_some() => given.map(|(_, value)| (*value).to_owned()),
            "realtime.listen" => Some("127.0.0.1:0".to_owned()),
            "realtime.socket" => Some(socket.clone()),
            "realtime.threads" => Some("2".to_owned()),
            "realtime.log_level" => Some("off".to_owned()),
            // Of the 1 s that is the default a busy machine may need all for something else.
            "realtime.timeout" => Some("20".to_owned()),
            "realtime.tls_cert" => files_of_all().map(|files| files.settings()[0].1.to_owned()),
            "realtime.tls_key" => files_of_all().map(|files| files.settings()[1].1.to_owned()),
            _ => None,
        }
    })
    .unwrap()
}

/// Does `work` while no shard of `node` takes anything up.
pub fn stall(node: &Node, work: impl FnOnce()) {
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let (begun, begin) = crossbeam_channel::bounded::<()>(64);
    for index in 0..node.config().threads {
        let (begun, ended) = (begun.clone(), ended.clone());
        let wait = move |_: &mut realtime::hub::Hub| {
            begun.send(()).unwrap();
            let _ = ended.recv();
        };
        let stalled = realtime::hub::mailbox::Command::Run(Box::new(wait));
        node.shard(index).put(stalled);
        begin.recv().unwrap();
    }
    work();
    drop(end);
}

/// A publication with every default.
pub fn message(channel: &str, json: &str) -> Publish {
    Publish {
        channels: vec![Channel::parse(channel).unwrap()],
        payload: Payload::Json(json.as_bytes().to_vec().into()),
        event: EventName::Message,
        except: None,
        id: None,
        store: true,
        terms: None,
    }
}

pub fn channel_named(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub fn json(text: &str) -> Payload {
    Payload::Json(text.as_bytes().to_vec().into())
}

/// Starts a server where another has just ended. A process that another test is just starting has that one's lock and sockets as
/// well, up to its exec: until then they are not free.
pub fn start_after<T>(mut start: impl FnMut() -> Result<T, StartError>) -> Result<T, StartError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match start() {
            Err(
                StartError::Control(NotElected::Running { .. })
                | StartError::Store(StoreError::Taken(_))
                | StartError::Taken { .. },
            ) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            started => return started,
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn await_readable(fd: i32) {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd on this stack; the descriptor is open for as long as the queue lives.
    unsafe { libc::poll(&raw mut poll, 1, -1) };
}
