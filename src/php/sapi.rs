//! How PHP runs here: which SAPI, and what follows from it for the server.
//!
//! Imports `zend`.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use ext_php_rs::ffi::sapi_module;
use socket2::SockRef;

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
    // Asked several times a request, and PHP never changes its SAPI.
    static HOME: OnceLock<Home> = OnceLock::new();
    *HOME.get_or_init(look_for_home)
}

fn look_for_home() -> Home {
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

/// Where this process's pool takes FastCGI requests. The first look, before any script could listen somewhere, is the last.
pub fn pool() -> Option<ListenAddress> {
    static POOL: OnceLock<Option<ListenAddress>> = OnceLock::new();
    if !matches!(name().to_bytes(), b"fpm-fcgi" | b"cgi-fcgi") {
        return None;
    }
    POOL.get_or_init(|| listening().find_map(address)).clone()
}

/// The sockets that this process has inherited to listen on: with php-cgi that is standard input, with PHP-FPM any one.
fn listening() -> impl Iterator<Item = OwnedFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let mut descriptors: Vec<RawFd> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    descriptors.sort_unstable();
    descriptors.into_iter().filter_map(|fd| {
        // SAFETY: only copied, which fails harmlessly for the directory's own descriptor, closed by now.
        let copy = unsafe { BorrowedFd::borrow_raw(fd) }
            .try_clone_to_owned()
            .ok()?;
        let listens = SockRef::from(&copy)
            .is_listener()
            .is_ok_and(|listens| listens);
        listens.then_some(copy)
    })
}

fn address(socket: OwnedFd) -> Option<ListenAddress> {
    let address = SockRef::from(&socket).local_addr().ok()?;
    if let Some(mut tcp) = address.as_socket() {
        if tcp.ip().is_unspecified() {
            tcp.set_ip(match tcp.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        return ListenAddress::parse(&tcp.to_string());
    }
    let path = std::env::current_dir().ok()?.join(address.as_pathname()?);
    Some(ListenAddress::Unix(path))
}

/// A setting of PHP's own; empty when it is not set.
fn setting(name: &CStr) -> String {
    // The server's value and not that of a directory or a script: what differs from one request to the next must not
    // look like changed settings.
    // SAFETY: on a PHP thread; returns null or a string that PHP keeps as long as the setting, copied at once.
    unsafe {
        let text = zend::zend_ini_string(name.as_ptr(), name.count_bytes(), 1);
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
