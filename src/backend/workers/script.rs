//! The handler's file: looked at once a second, and asked which handlers it has before anybody needs to know.
//!
//! Lives on the handler's thread. Imports the FastCGI client.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::HOUSEKEEPING;
use super::requests::Client;

/// When a file that has changed is asked again: PHP may go on with the version that it has compiled
/// (opcache.revalidate_freq, 2 seconds by default).
const AGAIN: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(65)];
/// The longest pause between two questions that were not answered.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A version of a file.
type Stamp = (u64, u64, i64, i64);

/// Watches the handler's file, for as long as it is polled.
pub(super) async fn watch(client: Rc<Client>) {
    let Some(path) = client.workers.config.handler.clone() else {
        return;
    };
    let workers = client.workers.clone();
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stamp = stamp(&path);
    warn_if_missing(&path, &stamp);
    let mut due = questions();
    let mut pause = HOUSEKEEPING;
    let mut asking: Option<Pin<Box<dyn Future<Output = bool>>>> = None;
    loop {
        let told = async {
            match &mut asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        let mut changed = false;
        tokio::select! {
            _ = tick.tick() => {}
            () = workers.handler_changed.notified() => changed = true,
            told = told => {
                asking = None;
                match (told, due.last_mut()) {
                    (true, _) => {
                        due.pop();
                        pause = HOUSEKEEPING;
                    }
                    (false, Some(next)) => {
                        // Until it is known, each request of a client asks as well.
                        *next = Instant::now() + pause;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                    (false, None) => {}
                }
            }
        }
        let now = self::stamp(&path);
        if now != stamp {
            warn_if_missing(&path, &now);
            stamp = now;
            changed = true;
        }
        if changed {
            workers.interests.script_changed();
            // An answer of the other version says nothing.
            asking = None;
            due = questions();
            pause = HOUSEKEEPING;
        }
        let Some(source) = workers.interests.script() else {
            return;
        };
        // While processes are attached, nobody asks the script anything.
        let is_due = due.last().is_some_and(|at| *at <= Instant::now());
        if is_due && asking.is_none() && workers.interests.attached() == 0 {
            let client = client.clone();
            asking = Some(Box::pin(async move { client.probe(source).await }));
        }
    }
}

/// When to ask, the next one last.
fn questions() -> Vec<Instant> {
    let now = Instant::now();
    let mut due: Vec<_> = AGAIN.iter().rev().map(|after| now + *after).collect();
    due.push(now);
    due
}

fn stamp(path: &Path) -> Result<Stamp, io::ErrorKind> {
    // Follows links: a deploy may change only the link.
    let file = std::fs::metadata(path).map_err(|error| error.kind())?;
    Ok((file.dev(), file.ino(), file.mtime(), file.mtime_nsec()))
}

fn warn_if_missing(path: &Path, stamp: &Result<Stamp, io::ErrorKind>) {
    if let Err(error) = stamp {
        tracing::error!("realtime.handler: {}: {error}", path.display());
    }
}
