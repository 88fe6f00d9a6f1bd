//! Webhooks: what happens on the channels, told to the application by signed requests.
//!
//! Clients and the observer put events in; one task takes them out, in order, some at a time, and tries for five minutes.
//! Bounded: what does not fit is counted in the log. Imports `pusher`'s signatures and its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use super::auth;
use super::call::{Call, Target};
use crate::config::App;

/// Events that may wait.
const WAITING_MAX: usize = 10_000;
/// Events in one request.
const BATCH_MAX: usize = 100;
/// How long others may join an event on its way.
const GATHER: Duration = Duration::from_millis(20);
/// How long is tried to get a request through.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first pause between two tries; each is twice the one before.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Something that has happened.
#[derive(Debug, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the events of Pusher's webhooks, by name")]
pub enum Event {
    ChannelOccupied {
        channel: String,
    },
    ChannelVacated {
        channel: String,
    },
    MemberAdded {
        channel: String,
        user_id: String,
    },
    MemberRemoved {
        channel: String,
        user_id: String,
    },
    CacheMiss {
        channel: String,
    },
    SubscriptionCount {
        channel: String,
        subscription_count: usize,
    },
    ClientEvent {
        channel: String,
        event: String,
        data: String,
        socket_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
    },
}

/// Where events are put in.
#[derive(Debug)]
pub struct Queue {
    sender: Sender<Event>,
    /// Whether the log knows already that it is full.
    full: AtomicBool,
}

/// Where they come out.
pub type Waiting = Receiver<Event>;

/// Both ends.
pub fn queue() -> (Queue, Waiting) {
    let (sender, waiting) = channel(WAITING_MAX);
    let full = AtomicBool::new(false);
    (Queue { sender, full }, waiting)
}

impl Queue {
    /// Puts an event in, if there is room.
    pub fn put(&self, event: Event) {
        let fits = self.sender.try_send(event).is_ok();
        if fits {
            self.full.store(false, Ordering::Relaxed);
        } else if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{WAITING_MAX} events wait for realtime.pusher_webhook, which does not take them: more are lost until it does"
            );
        }
    }
}

/// Sends what comes, for as long as the server lives.
pub async fn send_all(mut waiting: Waiting, app: &Arc<App>, url: &str) {
    let target = match Target::parse(url) {
        Ok(target) => target,
        Err(error) => {
            tracing::error!(%error, "realtime.pusher_webhook cannot be called");
            return;
        }
    };
    let mut events = Vec::new();
    // Whether the log knows already that they do not get through.
    let mut failing = false;
    while waiting.recv_many(&mut events, BATCH_MAX).await > 0 {
        tokio::time::sleep(GATHER).await;
        while events.len() < BATCH_MAX
            && let Ok(event) = waiting.try_recv()
        {
            events.push(event);
        }
        send(&target, app, &events, &mut failing).await;
        events.clear();
    }
}

async fn send(target: &Target, app: &App, events: &[Event], failing: &mut bool) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let body = json!({
        "time_ms": now.map_or(0, |now| now.as_millis() as u64),
        "events": events,
    });
    let body = body.to_string();
    let call = Call {
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("x-pusher-key", app.key.to_string()),
            ("x-pusher-signature", auth::sign_body(app, body.as_bytes())),
        ],
        body: body.into(),
    };
    let post = async || match target.post(&call).await {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) => Err(format!("it answered {status}")),
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = insist(post, failing).await {
        let count = events.len();
        tracing::warn!("{count} events for realtime.pusher_webhook are given up: {why}");
    }
}

/// Tries until it succeeds or [`PATIENCE`] is over, with longer and longer pauses. `failing` is whether it went wrong the last
/// time.
async fn insist(
    post: impl AsyncFn() -> Result<(), String>,
    failing: &mut bool,
) -> Result<(), String> {
    let late = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    loop {
        let Err(why) = post().await else {
            *failing = false;
            return Ok(());
        };
        if Instant::now() + pause > late {
            return Err(why);
        }
        // Once, and at once: what an operator has mistyped should not take five minutes to be heard of.
        match std::mem::replace(failing, true) {
            true => tracing::debug!("realtime.pusher_webhook is tried again in {pause:?}: {why}"),
            false => {
                tracing::warn!(
                    "realtime.pusher_webhook does not take events, and is tried again for {PATIENCE:?}: {why}"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn events_are_written_as_documented() {
        let text = |event: &Event| serde_json::to_string(event).unwrap();
        let occupied = Event::ChannelOccupied {
            channel: "a".into(),
        };
        assert_eq!(
            text(&occupied),
            r#"{"name":"channel_occupied","channel":"a"}"#
        );
        let said = Event::ClientEvent {
            channel: "private-a".into(),
            event: "client-x".into(),
            data: "{}".into(),
            socket_id: "1.2".into(),
            user_id: None,
        };
        let expected = r#"{"name":"client_event","channel":"private-a","event":"client-x","data":"{}","socket_id":"1.2"}"#;
        assert_eq!(text(&said), expected);
    }

    /// After how many seconds it is tried when the first `failures` tries go wrong, and whether it gets through.
    async fn tries(failures: usize) -> (Vec<u64>, Result<(), String>) {
        let (begin, tries) = (Instant::now(), RefCell::new(Vec::new()));
        let post = async || {
            tries.borrow_mut().push(begin.elapsed().as_secs());
            // As a receiver does that needs its time.
            tokio::time::sleep(Duration::from_millis(10)).await;
            match tries.borrow().len() {
                count if count <= failures => Err(format!("no {count}")),
                _ => Ok(()),
            }
        };
        let mut failing = false;
        let done = insist(post, &mut failing).await;
        assert_eq!(failing, done.is_err());
        (tries.into_inner(), done)
    }

    #[test]
    fn pauses_grow_and_end_after_five_minutes() {
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (at, done) = clock.block_on(tries(0));
        assert_eq!((at, done), (vec![0], Ok(())));
        let (at, done) = clock.block_on(tries(4));
        assert_eq!((at, done), (vec![0, 1, 3, 7, 15], Ok(())));
        let (at, done) = clock.block_on(tries(usize::MAX));
        assert_eq!(at, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert_eq!(done, Err("no 10".to_owned()));
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let (queue, waiting) = queue();
        for _ in 0..WAITING_MAX + 5 {
            let channel = "a".to_owned();
            queue.put(Event::CacheMiss { channel });
        }
        assert_eq!(waiting.len(), WAITING_MAX);
    }
}
