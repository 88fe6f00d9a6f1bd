//! The server in a process of its own: who this worker is, and what only PHP knows about how to start it.
//!
//! Used by `link`, in SAPIs whose [`sapi::home`] is a process. Imports `server::detached`, `sapi` and `ini`.

use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::sapi::{self, Home};
use super::{ini, zend};
use crate::config::{Config, SETTINGS};
use crate::control::client::Client;
use crate::procfs;
use crate::server::detached::{self, Birth, NotStarted};
use crate::wire::control::Worker;

/// When the module was started: by the master, before it had any worker.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// Which file the extension was loaded from, as it was then.
static LIBRARY: Mutex<String> = Mutex::new(String::new());
/// A page that all workers of a master share.
static TOLD: AtomicPtr<Told> = AtomicPtr::new(std::ptr::null_mut());

/// The hashes of what has been logged: each trouble is told once, and not by every worker.
struct Told([AtomicU64; 16]);

/// Notes what the workers will inherit. For MINIT, which a reload of the master runs again.
pub fn prepare() {
    GENERATION.store(procfs::uptime_ns(), Ordering::Relaxed);
    *LIBRARY.lock().unwrap_or_else(PoisonError::into_inner) = library();
    if sapi::home() == Home::Process && TOLD.load(Ordering::Relaxed).is_null() {
        // SAFETY: asks for new memory at no particular place; zeroes are valid counters, and it is never unmapped.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Told>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page != libc::MAP_FAILED {
            TOLD.store(page.cast(), Ordering::Relaxed);
        }
    }
    forget_told();
}

/// Who this worker is; nobody where no web server's master has started it.
pub fn worker() -> Option<Worker> {
    (sapi::home() == Home::Process).then(|| Worker {
        master: sapi::master(),
        generation: GENERATION.load(Ordering::Relaxed),
        fingerprint: fingerprint(),
    })
}

/// Starts the hub.
pub fn start(config: &Config) -> Result<(), NotStarted> {
    detached::start(&birth(config)).inspect(|()| forget_told())
}

/// Has a new hub take over if the one that `client` is linked to belongs to an older start of PHP, and this start brought
/// another version or other settings.
pub fn take_over(config: &Config, client: &Client) -> Result<(), NotStarted> {
    let Some(me) = worker() else {
        return Ok(());
    };
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    let is_ours = client
        .owner()
        .is_ok_and(|uid| uid == unsafe { libc::geteuid() });
    if !(detached::is_outdated(client.identity(), &me) && is_ours && config.autostart) {
        return Ok(());
    }
    detached::take_over(&birth(config))
}

/// Logs a line, unless a worker of this master has done so since the last success.
pub fn tell(line: &str) {
    if is_news(line) {
        // Not a warning, which would stand in the page.
        let line = zend::c_text(line);
        // SAFETY: on a PHP thread; PHP copies the line.
        unsafe { zend::rt_log(line.as_ptr()) };
    }
}

fn birth(config: &Config) -> Birth {
    Birth {
        config: config.clone(),
        worker: worker().unwrap_or(Worker {
            master: std::process::id(),
            generation: 0,
            fingerprint: String::new(),
        }),
        log: sapi::log(),
        standard_error: sapi::may_keep_standard_error(),
        pool: sapi::pool(),
    }
}

/// What must be equal for one hub to be as good as another: the extension, and all that it is told.
fn fingerprint() -> String {
    let mut hash = DefaultHasher::new();
    for setting in SETTINGS {
        (setting.name, ini::value(setting.name)).hash(&mut hash);
    }
    format!("{:?}", sapi::log()).hash(&mut hash);
    if let Ok(config) = ini::config()
        && config.handler.is_some()
        && config.fastcgi.is_none()
    {
        sapi::pool().map(|pool| pool.to_string()).hash(&mut hash);
    }
    let library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    format!(
        "{} {} {:016x}",
        env!("CARGO_PKG_VERSION"),
        *library,
        hash.finish()
    )
}

/// The extension's file: device, inode, size and time.
fn library() -> String {
    // SAFETY: all zeroes is a valid `Dl_info`, a local; the name that it is filled with lives as long as the library.
    let path = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let here = library as *const libc::c_void;
        if libc::dladdr(here, &raw mut info) == 0 || info.dli_fname.is_null() {
            return String::new();
        }
        CStr::from_ptr(info.dli_fname)
            .to_string_lossy()
            .into_owned()
    };
    Path::new(&path).metadata().map_or_else(
        |_| path.clone(),
        |file| {
            format!(
                "{}.{}.{}.{}.{}",
                file.dev(),
                file.ino(),
                file.size(),
                file.mtime(),
                file.mtime_nsec()
            )
        },
    )
}

fn told() -> Option<&'static Told> {
    // SAFETY: null, or the page that `prepare` has mapped for good. It is shared with other processes, and only ever
    // looked at as atomic numbers.
    unsafe { TOLD.load(Ordering::Relaxed).as_ref() }
}

fn is_news(why: &str) -> bool {
    let mut hash = DefaultHasher::new();
    why.hash(&mut hash);
    // 0 is a free place.
    let hash = hash.finish() | 1;
    let Some(Told(places)) = told() else {
        return true;
    };
    for place in places {
        match place.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(other) if other == hash => return false,
            Err(_) => {}
        }
    }
    places[hash as usize / 2 % places.len()].store(hash, Ordering::Relaxed);
    true
}

fn forget_told() {
    if let Some(Told(places)) = told() {
        for place in places {
            place.store(0, Ordering::Relaxed);
        }
    }
}
