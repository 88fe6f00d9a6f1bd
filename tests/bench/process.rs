//! Child processes: a server (PHP or the floor) and the clients of one server, each on its core.
//!
//! They obey lines on standard input and answer with lines on standard output. A child dies with the driver and
//! with its handle.

use std::io::{self, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::client::Manner;
use crate::client::SIGNAL_FD;
use crate::cpu::{self, Cores, CpuTime, Mask};
use crate::epoll;
use crate::fpm::Worker;
use crate::tls;
use crate::wire::Kind;

/// How long a command may take; longer than the clients' own patience, whose error says more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every measurement needs to start its processes.
#[derive(Debug)]
pub struct Setup {
    /// The PHP binary.
    pub php: PathBuf,
    /// The extension under test.
    pub extension: PathBuf,
    /// Which cores to run on.
    pub cores: Cores,
    /// Where control sockets go; removed at the end.
    pub scratch: PathBuf,
}

/// A child with a line to talk on.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    input: PipeWriter,
    output: ChildStdout,
    unread: Vec<u8>,
    /// The signal that ends it.
    end: i32,
}

impl Process {
    fn start(
        name: &str,
        command: &mut Command,
        cores: &[usize],
        signal: Option<BorrowedFd<'_>>,
    ) -> Outcome<Self> {
        Self::start_until(name, command, cores, signal, libc::SIGKILL)
    }

    /// Starts one on `cores` that the signal `end` ends.
    pub fn start_until(
        name: &str,
        command: &mut Command,
        cores: &[usize],
        signal: Option<BorrowedFd<'_>>,
        end: i32,
    ) -> Outcome<Self> {
        let fail = |error: io::Error| format!("{name}: {error}");
        let (input, ours) = io::pipe().map_err(fail)?;
        let mask = Mask::new(cores);
        let signal = signal.map(|fd| fd.as_raw_fd());
        // SAFETY: between fork and exec only system calls are made, on values that were copied into the closure.
        unsafe {
            command.pre_exec(move || {
                mask.apply()?;
                if libc::prctl(libc::PR_SET_PDEATHSIG, end) != 0 {
                    return Err(io::Error::last_os_error());
                }
                match signal {
                    // dup2() also clears close-on-exec, unless both are the same descriptor.
                    Some(fd) if fd == SIGNAL_FD => match libc::fcntl(fd, libc::F_SETFD, 0) {
                        0 => Ok(()),
                        _ => Err(io::Error::last_os_error()),
                    },
                    Some(fd) if libc::dup2(fd, SIGNAL_FD) < 0 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                }
            });
        }
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let output = child.stdout.take().ok_or("a child without an output")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            input: ours,
            output,
            unread: Vec::new(),
            end,
        })
    }

    /// This program in the role that asks or answers at the Unix socket `path`.
    pub fn role(role: &str, path: &str, cores: &[usize]) -> Outcome<Self> {
        let mut command = myself()?;
        command.args(["--role", role, path]);
        let mut process = Self::start(role, &mut command, cores, None)?;
        process.hear("LISTEN")?;
        Ok(process)
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one line.
    pub fn tell(&mut self, line: &str) -> Outcome<()> {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|e| format!("{}: {e}", self.name))
    }

    /// Waits for the line that begins with `word` and returns what follows it.
    pub fn hear(&mut self, word: &str) -> Outcome<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let line = line.trim();
                return match line.split_once(' ') {
                    Some((first, rest)) if first == word => {
                        Ok(rest.split_whitespace().map(str::to_owned).collect())
                    }
                    None if line == word => Ok(Vec::new()),
                    _ => Err(format!("{}: {line}", self.name)),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !epoll::readable(self.output.as_raw_fd(), left)? {
                return Err(format!("{}: no {word} within {PATIENCE:?}", self.name));
            }
            let mut buffer = [0; 4096];
            let length = self
                .output
                .read(&mut buffer)
                .map_err(|e| format!("{}: {e}", self.name))?;
            if length == 0 {
                let status = self.child.wait().map_err(|e| e.to_string())?;
                return Err(format!(
                    "{}: ended without {word} ({status}); its own words are above",
                    self.name
                ));
            }
            self.unread.extend_from_slice(&buffer[..length]);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left to say to it.
        // SAFETY: sends a signal to a child that we started and have not waited for, so that its id is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), self.end) };
        let _ = self.child.wait();
    }
}

/// A process that obeys lines.
#[derive(Debug)]
pub enum Publisher {
    /// On its standard input.
    Process(Process),
    /// As requests.
    Worker(Worker),
}

impl Publisher {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Process(process) => process.pid(),
            Self::Worker(worker) => worker.pid,
        }
    }

    /// Sends one line.
    pub fn tell(&mut self, line: &str) -> Outcome<()> {
        match self {
            Self::Process(process) => process.tell(line),
            Self::Worker(worker) => worker.tell(line),
        }
    }

    /// Waits until it is done with it and returns what it says then.
    pub fn hear(&mut self) -> Outcome<Vec<String>> {
        match self {
            Self::Process(process) => process.hear("DONE"),
            Self::Worker(worker) => worker.hear(),
        }
    }

    fn signals(&self) -> BorrowedFd<'_> {
        match self {
            Self::Process(process) => process.input.as_fd(),
            Self::Worker(worker) => worker.signals(),
        }
    }
}

/// A server process and where it listens.
#[derive(Debug)]
pub struct Server {
    /// The process, or the one that keeps it.
    pub process: Process,
    /// Its address; none when it only publishes through a control socket.
    pub address: Option<SocketAddr>,
    /// The process that publishes, when it is another one.
    pub other: Option<Publisher>,
    /// The process id of the server, when it is another one.
    pub hub: Option<u32>,
}

impl Server {
    /// The floor for `connections` clients.
    pub fn floor(setup: &Setup, connections: usize) -> Outcome<Self> {
        let mut command = myself()?;
        command.args(["--role", "floor", &connections.to_string()]);
        Self::listening(Process::start(
            "floor",
            &mut command,
            &setup.cores.server,
            None,
        )?)
    }

    /// A PHP script of `php/` with the extension, on `cores`. `socket` names its control socket; a script that is not
    /// to `listen` joins the server that has it.
    pub fn php(
        setup: &Setup,
        cores: &[usize],
        script: &str,
        socket: &str,
        listen: bool,
        settings: &[(&str, &str)],
    ) -> Outcome<Self> {
        let mut command = Command::new(&setup.php);
        command.arg("-n").arg("-d");
        command.arg(format!("extension={}", setup.extension.display()));
        let socket = setup.scratch.join(socket);
        let socket = socket.to_string_lossy();
        let own = [
            ("socket", &*socket),
            ("max_connections", "20000"),
            ("log_level", "error"),
            // Counted, and never reached.
            ("rate_messages", "1000000"),
            ("rate_bytes", "1024G"),
        ];
        for (name, value) in own.iter().chain(settings) {
            command.arg("-d").arg(format!("realtime.{name}={value}"));
        }
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/php");
        command.arg(scripts.join(script));
        command.arg(if listen { "127.0.0.1:0" } else { "-" });
        Self::listening(Process::start(
            &format!("php {script}"),
            &mut command,
            cores,
            None,
        )?)
    }

    fn listening(mut process: Process) -> Outcome<Self> {
        let words = process.hear("LISTEN")?;
        let address = words.first().map_or("", String::as_str);
        let address = match address {
            "-" => None,
            text => Some(
                text.parse()
                    .map_err(|e| format!("{}: listens on \"{text}\": {e}", process.name))?,
            ),
        };
        if let Some(clock) = words.get(1) {
            let clock: u64 = clock.parse().map_err(|e| format!("hrtime: {e}"))?;
            // Latency is taken across processes, which needs one clock for all.
            if cpu::now().abs_diff(clock) > 1_000_000_000 {
                return Err(
                    "PHP's hrtime() is not CLOCK_MONOTONIC here: no latency to be had".into(),
                );
            }
        }
        Ok(Self {
            process,
            address,
            other: None,
            hub: None,
        })
    }

    /// Has whoever publishes obey a line.
    pub fn tell(&mut self, line: &str) -> Outcome<()> {
        match &mut self.other {
            Some(publisher) => publisher.tell(line),
            None => self.process.tell(line),
        }
    }

    /// Waits until it is done with it.
    pub fn hear(&mut self) -> Outcome<Vec<String>> {
        match &mut self.other {
            Some(publisher) => publisher.hear(),
            None => self.process.hear("DONE"),
        }
    }

    /// Its CPU time so far, when it has nothing to do; with the publisher's.
    pub fn cpu(&self) -> Outcome<CpuTime> {
        // What was delivered may still have something to tidy up after it.
        std::thread::sleep(Duration::from_millis(5));
        let mut time = CpuTime::of(self.hub.unwrap_or(self.process.pid()))?;
        if let Some(other) = &self.other {
            time.process += CpuTime::of(other.pid())?.process;
        }
        Ok(time)
    }
}

/// Starts `count` clients of `server`; returns when all are open.
pub fn clients(
    setup: &Setup,
    server: &Server,
    kind: Kind,
    count: usize,
    channel: &str,
    manner: Manner,
) -> Outcome<Process> {
    let address = server
        .address
        .ok_or("no clients without an address")?
        .to_string();
    let mut command = myself()?;
    command.args(["--role", "client", kind.name(), &address]);
    command.env(tls::TRUST, setup.scratch.join("cert.pem"));
    command.args([&count.to_string(), channel, manner.name()]);
    let mut clients = Process::start(
        &format!("{} clients", kind.name()),
        &mut command,
        &setup.cores.client,
        Some(match &server.other {
            Some(publisher) => publisher.signals(),
            None => server.process.input.as_fd(),
        }),
    )?;
    clients.hear("OPEN")?;
    Ok(clients)
}

fn myself() -> Outcome<Command> {
    std::env::current_exe()
        .map(Command::new)
        .map_err(|e| format!("where am I: {e}"))
}
