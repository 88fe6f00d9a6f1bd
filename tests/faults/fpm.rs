//! A PHP-FPM of our own with the documented pool (php/fpm/www.conf), and what /proc tells of it and of its hub.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// How long any of it may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running master and its directory.
pub struct Fpm {
    directory: tempfile::TempDir,
    master: Child,
    settings: Vec<(&'static str, String)>,
    scripts: Vec<PathBuf>,
    /// Where the hub listens.
    pub address: SocketAddr,
}

impl Fpm {
    /// Starts it with `pool` lines that win over the documented ones, and with these pages, of which the first is
    /// [`Fpm::script`]. `{home}` in a setting's value is where the pages are.
    pub fn start(
        php: &Path,
        extension: &Path,
        pool: &str,
        settings: &[(&'static str, &str)],
        pages: &[&str],
    ) -> Outcome<Self> {
        let directory = tempfile::Builder::new()
            .prefix("rt-faults-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        let home = directory.path();
        let user = Account::of_pool()?;
        allow(home, 0o755)?;
        fs::copy(extension, home.join("realtime.so")).map_err(|e| e.to_string())?;
        allow(&home.join("realtime.so"), 0o644)?;
        fs::create_dir(home.join("run")).map_err(|e| e.to_string())?;
        user.give(&home.join("run"))?;
        let mut scripts = Vec::new();
        for page in pages {
            let page = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests")
                .join(page);
            let copy = home.join(page.file_name().ok_or("a page without a name")?);
            fs::copy(page, &copy).map_err(|e| e.to_string())?;
            scripts.push(copy);
        }

        let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join("php/fpm/www.conf");
        let documented = fs::read_to_string(documented).map_err(|e| e.to_string())?;
        let run = home.join("run").display().to_string();
        let conf = documented
            .replace("/run/php", &run)
            .replace("group = www-data", &format!("group = {}", user.group))
            .replace("www-data", &user.name);
        let conf = format!(
            "[global]\nerror_log = {}/fpm.log\n{conf}\n{pool}\n",
            home.display()
        );
        fs::write(home.join("fpm.conf"), conf).map_err(|e| e.to_string())?;

        let address = free_address()?;
        let mut fpm = Self {
            master: Command::new("true").spawn().map_err(|e| e.to_string())?,
            settings: settings
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            address,
            directory,
            scripts,
        };
        fpm.configure("log_level", "warn")?;
        let mut command = Command::new(binary(php)?);
        command
            .args(["-F", "-c", "php.ini", "-y", "fpm.conf"])
            .current_dir(fpm.directory.path())
            .env("PHP_INI_SCAN_DIR", "")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec one system call is made, on constants.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        // The process that filled the place has long ended.
        let _ = fpm.master.wait();
        fpm.master = command.spawn().map_err(|e| format!("php-fpm: {e}"))?;
        fpm.until("PHP-FPM", |fpm| fpm.starts() > 0)?;
        Ok(fpm)
    }

    /// Where the pool listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/php8.2-fpm.sock")
    }

    /// The first of its pages.
    pub fn script(&self) -> &Path {
        &self.scripts[0]
    }

    /// Writes php.ini with one setting more, or changed.
    pub fn configure(&mut self, name: &'static str, value: &str) -> Outcome<()> {
        self.settings.retain(|(other, _)| *other != name);
        self.settings.push((name, value.to_owned()));
        let home = self.directory.path().display();
        let mut ini = format!(
            "extension={home}/realtime.so\nerror_log={home}/run/php.log\nlog_errors=1\nrealtime.socket={home}/run/hub.sock\n\
             realtime.log={home}/run/realtime.log\nrealtime.listen={}\n",
            self.address
        );
        for (name, value) in &self.settings {
            let value = value.replace("{home}", &home.to_string());
            ini.push_str(&format!("realtime.{name}=\"{value}\"\n"));
        }
        fs::write(self.directory.path().join("php.ini"), ini).map_err(|e| e.to_string())
    }

    /// Reloads it, as an operator does; returns when the new workers take requests.
    pub fn reload(&self) -> Outcome<()> {
        let before = self.starts();
        signal(self.master.id(), libc::SIGUSR2);
        self.until("the end of a reload", |fpm| fpm.starts() > before)
    }

    /// Its workers.
    pub fn workers(&self) -> Vec<u32> {
        processes(|process| {
            process.parent == self.master.id() && process.title.starts_with("php-fpm: pool")
        })
    }

    /// The hubs at our address; two while one takes over.
    pub fn hubs(&self) -> Vec<u32> {
        let title = format!("realtime: hub on {}", self.address);
        processes(|process| process.title.starts_with(&title))
    }

    /// What was logged, for who has to find out why.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for name in ["run/realtime.log", "run/php.log", "fpm.log"] {
            let text = fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(8)..] {
                all.push_str(&format!("\n        {name}: {line}"));
            }
        }
        all
    }

    /// Waits for something to become true.
    pub fn until(&self, what: &str, mut check: impl FnMut(&Self) -> bool) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        while !check(self) {
            if Instant::now() > end {
                return Err(format!(
                    "within {PATIENCE:?} there was not: {what}{}",
                    self.logs()
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn starts(&self) -> usize {
        fs::read_to_string(self.directory.path().join("fpm.log"))
            .unwrap_or_default()
            .matches("ready to handle connections")
            .count()
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        for (how, hubs) in [(libc::SIGTERM, false), (libc::SIGKILL, true)] {
            signal(self.master.id(), how);
            let end = Instant::now() + Duration::from_secs(5);
            while Instant::now() < end && matches!(self.master.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if hubs {
                self.hubs().into_iter().for_each(|hub| signal(hub, how));
            }
        }
    }
}

/// Sends a signal to a process that may have ended.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: sends a signal; no memory is passed. The number is of a process that we started or found below it.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

struct Process {
    parent: u32,
    title: String,
}

fn processes(wanted: impl Fn(&Process) -> bool) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| look(*pid).is_some_and(|process| wanted(&process)))
        .collect()
}

fn look(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title).replace('\0', " ");
    (state != "Z").then_some(Process { parent, title })
}

/// Who the pool's workers are: www-data when root runs this, else who runs it.
struct Account {
    name: String,
    group: String,
    ids: Option<(u32, u32)>,
}

impl Account {
    fn of_pool() -> Outcome<Self> {
        // SAFETY: asks for a number; no memory is passed.
        let mine = unsafe { libc::geteuid() };
        let passwd = fs::read_to_string("/etc/passwd").map_err(|e| e.to_string())?;
        let entry = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| {
                fields.len() > 3
                    && if mine == 0 {
                        fields[0] == "www-data"
                    } else {
                        fields[2] == mine.to_string()
                    }
            });
        let fields = entry.ok_or("no account in /etc/passwd to run a pool as")?;
        let ids = (
            fields[2].parse().map_err(|_| "passwd")?,
            fields[3].parse().map_err(|_| "passwd")?,
        );
        // A user's own group may have another name.
        let groups = fs::read_to_string("/etc/group").map_err(|e| e.to_string())?;
        let group = groups
            .lines()
            .find(|line| line.split(':').nth(2) == Some(fields[3]))
            .and_then(|line| line.split(':').next())
            .ok_or("no such group in /etc/group")?;
        Ok(Self {
            name: fields[0].to_owned(),
            group: group.to_owned(),
            ids: (mine == 0).then_some(ids),
        })
    }

    fn give(&self, path: &Path) -> Outcome<()> {
        match self.ids {
            Some((uid, gid)) => {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(|e| e.to_string())
            }
            None => Ok(()),
        }
    }
}

/// Lets others at a file or directory.
pub fn allow(path: &Path, mode: u32) -> Outcome<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| e.to_string())
}

/// php-fpm of the same version as `php`.
fn binary(php: &Path) -> Outcome<PathBuf> {
    let output = Command::new(php)
        .args([
            "-n",
            "-r",
            "echo PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION;",
        ])
        .output()
        .map_err(|e| format!("{}: {e}", php.display()))?;
    let name = format!("php-fpm{}", String::from_utf8_lossy(&output.stdout));
    let sbin = Path::new("/usr/sbin").join(&name);
    Ok(if sbin.exists() { sbin } else { name.into() })
}

/// Below the ports that the system gives to clients: one of those could be taken again before the hub has it.
fn free_address() -> Outcome<SocketAddr> {
    let start = std::process::id() as u16 % 5000;
    (0..5000_u16)
        .map(|i| SocketAddr::from(([127, 0, 0, 1], 20_000 + (start + i) % 5000)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| "no free port".to_owned())
}
