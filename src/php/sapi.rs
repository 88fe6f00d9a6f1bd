//! How PHP runs here: which SAPI, and what follows from it for the server.
//!
//! Imports `zend`.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use ext_php_rs::ffi::sapi_module;

use super::zend;
use crate::config::ListenAddress;
use crate::procfs;
use crate::server::{PhpLog, is_patient};

/// Where the server lives that this SAPI starts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Home {
    /// It starts none: a script decides.
    Nowhere,
    /// On threads of the first process that needs it.
    Threads,
    /// In a process of its own, because this one is recycled.
    Process,
}

/// What decides about the server's home.
pub fn home() -> Home {
    match (name().to_bytes(), ext_php_rs::PHP_ZTS) {
        (b"cli" | b"phpdbg" | b"embed", _) => Home::Nowhere,
        (b"cli-server" | b"frankenphp", _) => Home::Threads,
        (b"fpm-fcgi" | b"apache2handler" | b"cgi-fcgi" | b"litespeed", false) => Home::Process,
        (b"apache2handler" | b"litespeed", true) => Home::Threads,
        _ => Home::Nowhere,
    }
}

/// The process whose end means that this pool of PHP has ended.
pub fn master() -> u32 {
    let parent = std::os::unix::process::parent_id();
    let itself = std::process::id();
    let is_pool = match name().to_bytes() {
        // Its parent may be any kind of web server or process manager, but not the system's first process.
        b"cgi-fcgi" | b"litespeed" => parent != 1,
        // Parent and child are the same program. If not, the parent died and this worker is left over; in a container the
        // parent may well have the number 1.
        _ => procfs::name(parent) == procfs::name(itself),
    };
    if is_pool { parent } else { itself }
}

/// Where PHP logs its errors.
pub fn log() -> PhpLog {
    match setting(c"error_log").as_str() {
        "" => PhpLog::StandardError,
        "syslog" => PhpLog::Syslog,
        // As PHP would take it; the server's process will have another working directory.
        path => std::env::current_dir().map_or_else(
            |_| PhpLog::StandardError,
            |here| PhpLog::File(here.join(path)),
        ),
    }
}

/// Whether a process that outlives this one may keep its standard error open: for Apache and PHP-FPM it is a log, but a web
/// server that runs PHP as a CGI program may wait for its end.
pub fn may_keep_standard_error() -> bool {
    matches!(name().to_bytes(), b"fpm-fcgi" | b"apache2handler") || is_patient(&std::io::stderr())
}

/// Where this process's pool takes FastCGI requests. The same for as long as the process lives.
pub fn pool() -> Option<ListenAddress> {
    static POOL: OnceLock<Option<ListenAddress>> = OnceLock::new();
    if !matches!(name().to_bytes(), b"fpm-fcgi" | b"cgi-fcgi") {
        return None;
    }
    // Looked for once, in the first request: later a script may have sockets of its own.
    POOL.get_or_init(|| {
        let mut open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        // FastCGI's specification says standard input; PHP-FPM leaves its socket at some number above.
        open.sort_unstable();
        open.into_iter().find_map(listening)
    })
    .clone()
}

/// Where this descriptor listens, if it does.
fn listening(descriptor: RawFd) -> Option<ListenAddress> {
    // SAFETY: of this process's own list of open descriptors, in its only thread: nobody has closed it since. One that had
    // been closed would be an error below, and nothing is closed here.
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = socket2::SockRef::from(&socket);
    if !socket.is_listener().ok()? {
        return None;
    }
    let address = socket.local_addr().ok()?;
    if let Some(mut tcp) = address.as_socket() {
        if tcp.ip().is_unspecified() {
            tcp.set_ip(match tcp.ip() {
                std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        return ListenAddress::parse(&tcp.to_string());
    }
    let path: PathBuf = std::env::current_dir().ok()?.join(address.as_pathname()?);
    Some(ListenAddress::Unix(path))
}

/// A setting of PHP's own; empty when it is not set.
fn setting(name: &CStr) -> String {
    // SAFETY: on a PHP thread; returns null or a string that PHP keeps as long as the setting, copied at once.
    unsafe {
        let text = zend::zend_ini_string(name.as_ptr(), name.count_bytes(), 0);
        match text.is_null() {
            true => String::new(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        }
    }
}

fn name() -> CString {
    // SAFETY: PHP sets its SAPI before it starts modules, and never changes its name.
    unsafe {
        let module = sapi_module;
        CStr::from_ptr(module.name).to_owned()
    }
}
