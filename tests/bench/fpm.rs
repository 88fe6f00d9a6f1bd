//! A real PHP-FPM pool: its workers publish, each on a kept FastCGI connection of its own, and the hub is the process
//! that the extension starts in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use realtime::wire::fastcgi::{Answer, Part, Request};

use crate::Outcome;
use crate::process::{Process, Publisher, Server, Setup};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running pool.
#[derive(Debug)]
pub struct Pool {
    master: Process,
    directory: PathBuf,
}

/// The PHP-FPM that belongs to the PHP of this run, if it is installed.
pub fn find(setup: &Setup) -> Option<PathBuf> {
    let version = Command::new(&setup.php)
        .args([
            "-n",
            "-r",
            "echo PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION;",
        ])
        .output()
        .ok()?;
    let version = String::from_utf8(version.stdout).ok()?;
    let names = [format!("php-fpm{version}"), "php-fpm".to_owned()];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .collect();
    names
        .iter()
        .flat_map(|name| {
            directories
                .iter()
                .map(move |directory| directory.join(name))
        })
        .find(|file| file.is_file())
}

impl Pool {
    /// Starts one with `workers` on `cores`, and waits until it takes requests.
    pub fn start(
        setup: &Setup,
        fpm: &Path,
        workers: usize,
        cores: &[usize],
        settings: &[(&str, &str)],
    ) -> Outcome<Self> {
        let directory = setup.scratch.join(format!("fpm-{}", crate::cpu::now()));
        let fail = |error: std::io::Error| format!("{}: {error}", directory.display());
        fs::create_dir(&directory).map_err(fail)?;
        let place = directory.display();
        fs::write(
            directory.join("fpm.conf"),
            format!(
                "[global]\nerror_log = {place}/log\n[bench]\nuser = root\ngroup = root\nlisten = {place}/fpm.sock\n\
                 pm = static\npm.max_children = {workers}\n"
            ),
        )
        .map_err(fail)?;
        let mut command = Command::new(fpm);
        // -R: the bench may be run by root, for whom all this is one user's as for anybody else.
        command.args(["-n", "-F", "-R", "-y"]);
        command.arg(directory.join("fpm.conf"));
        let socket = directory.join("hub.sock").display().to_string();
        let log = directory.join("hub.log").display().to_string();
        let address = format!("unix:{place}/fpm.sock");
        let own = [
            // As on any real site; where it is missing, PHP only says so.
            ("zend_extension", "opcache".to_owned()),
            ("realtime.fastcgi", address),
            ("extension", setup.extension.display().to_string()),
            ("max_execution_time", "0".to_owned()),
            ("realtime.socket", socket),
            ("realtime.listen", "127.0.0.1:0".to_owned()),
            ("realtime.max_connections", "20000".to_owned()),
            ("realtime.log", log),
            ("realtime.allow_root", "1".to_owned()),
            // Counted, and never reached.
            ("realtime.rate_messages", "1000000".to_owned()),
            ("realtime.rate_bytes", "1024G".to_owned()),
        ];
        for (name, value) in own {
            command.arg("-d").arg(format!("{name}={value}"));
        }
        for (name, value) in settings {
            command.arg("-d").arg(format!("{name}={value}"));
        }
        command.stderr(Stdio::null());
        // Gently: killed, it would leave its workers behind.
        let master = Process::start_until("php-fpm", &mut command, cores, None, libc::SIGTERM)?;
        let mut pool = Self { master, directory };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(pool.address()).is_err() {
            if !pool.master.is_running() || Instant::now() > deadline {
                return Err(pool.explain("it does not listen"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(pool)
    }

    /// Where it takes requests.
    pub fn address(&self) -> PathBuf {
        self.directory.join("fpm.sock")
    }

    /// A worker of it, busy with our connection alone from its first request on.
    pub fn worker(&self) -> Outcome<Worker> {
        let fail = |error: std::io::Error| self.explain(&error.to_string());
        let stream = UnixStream::connect(self.address()).map_err(fail)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
        let fifo = self
            .directory
            .join(format!("signals-{}", crate::cpu::now()));
        let name =
            std::ffi::CString::new(fifo.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: the kernel reads the name, which lives through the call.
        if unsafe { libc::mkfifo(name.as_ptr(), 0o600) } != 0 {
            return Err(fail(std::io::Error::last_os_error()));
        }
        // For both, so that neither side waits for the other to open it.
        let signals = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&fifo)
            .map_err(fail)?;
        let mut worker = Worker {
            stream,
            fifo,
            signals,
            published: 0,
            pid: 0,
            hub: 0,
            address: String::new(),
        };
        worker.tell("who")?;
        let words = worker.hear().map_err(|error| self.explain(&error))?;
        let [pid, hub, address] = &words[..] else {
            return Err(self.explain(&words.join(" ")));
        };
        let number = |text: &String| text.parse::<u32>().map_err(|e| format!("{text}: {e}"));
        (worker.pid, worker.hub) = (number(pid)?, number(hub)?);
        worker.address.clone_from(address);
        Ok(worker)
    }

    /// The server that its first worker has started, with that worker to publish.
    pub fn server(self) -> Outcome<Server> {
        let worker = self.worker()?;
        let address = worker.address.parse();
        Ok(Server {
            address: Some(address.map_err(|e| format!("{}: {e}", worker.address))?),
            hub: Some(worker.hub),
            other: Some(Publisher::Worker(worker)),
            process: self.master,
        })
    }

    /// The process id of its master.
    pub fn pid(&self) -> u32 {
        self.master.pid()
    }

    /// The process that ends the pool.
    pub fn keeper(self) -> Process {
        self.master
    }

    /// With what its logs say.
    fn explain(&self, error: &str) -> String {
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        format!("php-fpm: {error}\n{}{}", read("log"), read("hub.log"))
    }
}

/// A worker and the connection that keeps it.
#[derive(Debug)]
pub struct Worker {
    stream: UnixStream,
    fifo: PathBuf,
    signals: File,
    published: usize,
    /// Its process.
    pub pid: u32,
    /// The hub's.
    pub hub: u32,
    /// Where the hub's clients connect.
    pub address: String,
}

impl Worker {
    /// Where a byte says that all clients have one more message.
    pub fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Sends one line, as a request.
    pub fn tell(&mut self, line: &str) -> Outcome<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/php/worker.php");
        let query = format!(
            "line={}&signals={}&first={}",
            line.replace(' ', "+"),
            self.fifo.display(),
            self.published
        );
        if let ["run", _, _, messages, ..] = line.split(' ').collect::<Vec<_>>()[..] {
            self.published += messages.parse::<usize>().map_err(|e| e.to_string())?;
        }
        let mut request = Request::default();
        for (name, value) in [
            ("SCRIPT_FILENAME", &*script.to_string_lossy()),
            ("QUERY_STRING", &query),
            ("REQUEST_METHOD", "GET"),
            ("CONTENT_LENGTH", "0"),
        ] {
            request.param(name, value);
        }
        let sent = self.stream.write_all(&request.bytes(b""));
        sent.map_err(|e| format!("php-fpm: {e}"))
    }

    /// Waits for the answer to it, and returns what follows `DONE`.
    pub fn hear(&mut self) -> Outcome<Vec<String>> {
        let mut answer = Answer::default();
        let (mut text, mut room) = (Vec::new(), [0; 4096]);
        'reading: loop {
            let count = self.stream.read(&mut room);
            let count = count.map_err(|e| format!("php-fpm: {e}"))?;
            if count == 0 {
                return Err("php-fpm: hung up".into());
            }
            let mut bytes = &room[..count];
            while let Some(part) = answer.next(&mut bytes).map_err(|e| e.to_string())? {
                match part {
                    Part::Output(bytes) | Part::Error(bytes) => text.extend_from_slice(bytes),
                    Part::End { .. } => break 'reading,
                }
            }
        }
        let text = String::from_utf8_lossy(&text);
        let done = text.lines().find_map(|line| line.strip_prefix("DONE "));
        match done {
            Some(words) => Ok(words.split_whitespace().map(str::to_owned).collect()),
            None => Err(format!("php-fpm: {text}")),
        }
    }
}
