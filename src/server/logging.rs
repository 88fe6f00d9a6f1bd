//! The log: one line an event, from `realtime.log_level` on, to `realtime.log`; where that is empty, to standard error or,
//! for a hub in a process of its own, where PHP logs its errors.
//!
//! Everything in this crate logs through `tracing`; this decides where it goes and how it looks. Imports `config` and
//! `logfile`.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::logfile::LogFile;
use crate::config::Config;

/// Where PHP logs its errors (its setting error_log).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhpLog {
    /// It is not set: to the web server, which means standard error here.
    StandardError,
    /// A file, in PHP's own format.
    File(PathBuf),
    /// The system's log.
    Syslog,
}

/// Sends the log where `config` says, else to standard error. The first server of a process decides; later calls change
/// nothing.
pub fn start(config: &Config) {
    start_like(config, &PhpLog::StandardError);
}

/// The same with `php` in place of standard error.
pub fn start_like(config: &Config, php: &PhpLog) {
    let level = match config.log_level.as_str() {
        "off" => return,
        "error" => LevelFilter::ERROR,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::WARN,
    };
    let own = config.log.clone().and_then(|path| {
        LogFile::open(path.clone())
            .inspect_err(|error| {
                let path = path.display();
                // With eprintln!() a closed standard error would be a panic.
                let text = format!("realtime: cannot write to {path} (realtime.log): {error}\n");
                let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
            })
            .ok()
    });
    let plain = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .log_internal_errors(false);
    // Where PHP logs is the second choice.
    let theirs = match php {
        PhpLog::File(path) if own.is_none() => LogFile::open(path.clone()).ok(),
        _ => None,
    };
    // An error means that somebody in this process has set one already: theirs stands.
    let _ = if let Some(file) = own {
        tracing::subscriber::set_global_default(plain.with_writer(file).finish())
    } else if let Some(file) = theirs {
        let plain = plain.event_format(PhpFormat { dated: true });
        tracing::subscriber::set_global_default(plain.with_writer(file).finish())
    } else if *php == PhpLog::Syslog {
        let plain = plain.event_format(PhpFormat { dated: false });
        tracing::subscriber::set_global_default(plain.with_writer(Syslog).finish())
    } else {
        tracing::subscriber::set_global_default(plain.with_writer(io::stderr).finish())
    };
}

/// As the lines in PHP's error_log look.
struct PhpFormat {
    /// Whether a line begins with the time.
    dated: bool,
}

impl<S, N> FormatEvent<S, N> for PhpFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.dated {
            write!(writer, "[{} UTC] ", now())?;
        }
        let word = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            _ => "debug: ",
        };
        write!(writer, "realtime: {word}")?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// `23-Nov-2026 04:57:31`, in UTC.
fn now() -> String {
    let mut text = [0u8; 32];
    // SAFETY: all pointers are to locals, the format ends with a NUL, and the length is the buffer's. In the C locale of
    // the month's name PHP's own log is, too.
    let length = unsafe {
        let time = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&raw const time, &raw mut parts);
        let format = c"%d-%b-%Y %H:%M:%S";
        libc::strftime(
            text.as_mut_ptr().cast(),
            text.len(),
            format.as_ptr(),
            &raw const parts,
        )
    };
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// The system's log.
struct Syslog;

/// One line on its way there.
struct SyslogLine(libc::c_int);

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine;

    fn make_writer(&'a self) -> SyslogLine {
        SyslogLine(libc::LOG_NOTICE)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> SyslogLine {
        SyslogLine(match *metadata.level() {
            Level::ERROR => libc::LOG_ERR,
            Level::WARN => libc::LOG_WARNING,
            Level::INFO => libc::LOG_NOTICE,
            _ => libc::LOG_DEBUG,
        })
    }
}

impl io::Write for SyslogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text: Vec<u8> = line.iter().copied().filter(|&byte| byte != 0).collect();
        if let Ok(text) = CString::new(text) {
            // SAFETY: the format takes one string, which lives during the call.
            unsafe { libc::syslog(self.0, c"%s".as_ptr(), text.as_ptr()) };
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
