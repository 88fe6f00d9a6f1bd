//! The end of a hub that another has taken over from: it closes its clients one after the other, so that they do not
//! reconnect all at once, and delivers to them until then.
//!
//! [`shed`] runs on every shard, [`until_empty`] on the control thread. Imports `hub` and `node`.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::doors::Doors;
use crate::hub::{CLOSE_MOVED, SharedHub};

/// When the last client must be closed; none while the hub serves.
pub type Leaving = watch::Receiver<Option<Instant>>;

/// How often some are closed.
const TICK: Duration = Duration::from_millis(25);
/// How long the last may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(3);

/// Closes the shard's clients when it is time, evenly spread.
pub async fn shed(hub: SharedHub, mut leaving: Leaving) {
    // An error means that the server has ended.
    if leaving.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut due = 0.0;
    loop {
        // It may be moved forward.
        let Some(until) = *leaving.borrow_and_update() else {
            return;
        };
        let left = until.saturating_duration_since(Instant::now());
        {
            let mut hub = hub.borrow_mut();
            let open = hub.open().count();
            due += open as f64 * TICK.as_secs_f64() / left.max(TICK).as_secs_f64();
            let now = (due as usize).min(open);
            due -= now as f64;
            hub.close_some(now, CLOSE_MOVED, "reconnect");
        }
        sleep(TICK).await;
    }
}

/// Waits until every client has gone, or is late, and PHP has done what they asked for.
pub async fn until_empty(doors: &Doors, mut leaving: Leaving) {
    while !doors.is_empty() {
        let Some(until) = *leaving.borrow_and_update() else {
            return;
        };
        let late = until + FAREWELL;
        if Instant::now() >= late {
            break;
        }
        sleep(TICK).await;
    }
    let late = Instant::now() + doors.node.config().handler_timeout;
    while !doors.node.backend_is_idle() && Instant::now() < late {
        sleep(TICK).await;
    }
    // An older hub still gets from this one what is published.
    while let Some(until) = *leaving.borrow()
        && doors.node.predecessor().is_some()
        && Instant::now() < until
    {
        sleep_until(until.min(Instant::now() + TICK)).await;
    }
}
