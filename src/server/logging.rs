//! The log: one line an event, to `realtime.log` or standard error, from `realtime.log_level` on.
//!
//! Everything in this crate logs through `tracing`; this decides where it goes. Imports `config`.

use std::fs::OpenOptions;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::Config;

/// Sends the log where `config` says. The first server of a process decides; later calls change nothing.
pub fn start(config: &Config) {
    let level = match config.log_level.as_str() {
        "off" => return,
        "error" => LevelFilter::ERROR,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::WARN,
    };
    let file = config.log.as_ref().and_then(|path| {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_or_else(
                |error| {
                    eprintln!(
                        "realtime: cannot write to {} (realtime.log): {error}",
                        path.display()
                    );
                    None
                },
                Some,
            )
    });
    // An error means that somebody in this process has set one already: theirs stands.
    let _ = match file {
        Some(file) => install(level, Mutex::new(file)),
        None => install(level, std::io::stderr),
    };
}

fn install(
    level: LevelFilter,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Result<(), SetGlobalDefaultError> {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(writer)
        .finish();
    tracing::subscriber::set_global_default(subscriber)
}
