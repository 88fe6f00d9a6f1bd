//! phpinfo() and `php --ri realtime`: version, state, counts and every setting.
//!
//! Imports `link` and `zend`.

use std::ffi::CString;

use ext_php_rs::ffi::{
    php_info_print_table_end, php_info_print_table_row, php_info_print_table_start,
};
use ext_php_rs::zend::ModuleEntry;

use super::fault::contain;
use super::link::{self, State};
use super::{ini, zend};
use crate::node::Stats;

/// Called by PHP.
pub unsafe extern "C" fn print(module: *mut ModuleEntry) {
    contain((), || {
        let (state, address, stats) = match link::state() {
            State::None => ("not running".to_owned(), None, None),
            State::Here(address, stats) => ("listening here".to_owned(), Some(address), stats),
            State::Attached {
                pid,
                address,
                stats,
            } => (format!("attached to pid {pid}"), Some(address), stats),
        };
        // SAFETY: PHP calls this while it prints its information, on a PHP thread.
        unsafe { php_info_print_table_start() };
        row("realtime support", "enabled");
        row("version", env!("CARGO_PKG_VERSION"));
        row("server", &state);
        if let Some(address) = address {
            row("address", &address);
        }
        if let Ok(config) = ini::config() {
            row("control socket", &config.socket.display().to_string());
        }
        if let Some(stats) = stats {
            counts(&stats);
        }
        // SAFETY: as above; the module is the one that PHP passed.
        unsafe {
            php_info_print_table_end();
            zend::display_ini_entries(module);
        }
    });
}

fn counts(stats: &Stats) {
    row("uptime", &format!("{} s", stats.uptime.as_secs()));
    row("connections", &stats.connections.to_string());
    row("channels", &stats.channels.to_string());
    row("subscriptions", &stats.subscriptions.to_string());
    row("messages published", &stats.published.to_string());
    row("messages delivered", &stats.delivered.to_string());
    row("messages received", &stats.received.to_string());
}

fn row(name: &str, value: &str) {
    let (name, value): (CString, CString) = (zend::c_text(name), zend::c_text(value));
    // SAFETY: two columns, two C strings, copied by PHP.
    unsafe { php_info_print_table_row(2, name.as_ptr(), value.as_ptr()) };
}
