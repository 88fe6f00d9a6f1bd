//! `/sse` and `/stream`: an HTTP answer that never ends, after hyper has written its head.
//!
//! Imports `session` and `wire`.

use std::mem::MaybeUninit;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::Shared;
use super::http::linger;
use crate::mercure::Subscription;
use crate::session::{Admitted, Entry, Session};
use crate::socket::Socket;
use crate::wire::envelope::ServerFrame;
use crate::wire::{Format, sse};

/// How long the rest of the outbox may take to leave when the stream is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What the request has asked for.
#[derive(Debug)]
pub struct Stream {
    /// Who.
    pub admitted: Admitted,
    /// How messages are written.
    pub format: Format,
    /// What it begins with.
    pub begin: Begin,
}

/// How a stream begins.
#[derive(Debug)]
pub enum Begin {
    /// `/sse` and `/stream`
    Query {
        /// Which channels.
        entries: Vec<Entry>,
        /// From where on.
        since: Option<String>,
        /// What comes before everything else.
        first: Vec<u8>,
    },
    /// `/.well-known/mercure`
    Mercure(Subscription),
}

/// Serves the stream to its end.
pub async fn run(shared: Rc<Shared>, stream: Stream, socket: Rc<Socket>) {
    let Stream {
        admitted,
        format,
        begin,
    } = stream;
    // Nothing comes back on a stream by which a client could be known to be there, but what its kernel acknowledges.
    socket.give_up_after(3 * shared.node.config().ping_interval);
    let mut session = Session::new(admitted, &shared.hub, format, Some(socket.clone()));
    // Tells others of the subscription until it is dropped.
    let _told = match begin {
        Begin::Query {
            entries,
            since,
            first,
        } => {
            subscribe(&session, &shared, format, &entries, since.as_deref(), first);
            None
        }
        Begin::Mercure(subscription) => Some(subscription.begin(&session, format)),
    };
    session.opened();
    shared.hub.borrow_mut().flush_dirty();
    let (hub, slot) = (shared.hub.clone(), session.slot());
    let closing = std::future::poll_fn(|cx| {
        if hub.borrow_mut().poll_task(slot, cx).is_ready() {
            return Poll::Ready(false);
        }
        if hub.borrow().closing(slot).is_some() {
            return Poll::Ready(true);
        }
        // A client has nothing to say on a stream; what it says all the same is passed over.
        let mut buffer = [MaybeUninit::uninit(); 1024];
        loop {
            match socket.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(false),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    if closing {
        let flushed = std::future::poll_fn(|cx| {
            let mut hub = hub.borrow_mut();
            hub.flush_dirty();
            if hub.poll_task(slot, cx).is_ready() || hub.is_flushed(slot) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        // Late or not, the stream ends now.
        let _ = tokio::time::timeout(CLOSE_WAIT, flushed).await;
        drop(session);
        linger(&socket).await;
    } else {
        session.ends(1001, "");
    }
}

fn subscribe(
    session: &Session,
    shared: &Shared,
    format: Format,
    entries: &[Entry],
    since: Option<&str>,
    first: Vec<u8>,
) {
    if let Format::Sse { body, .. } = format {
        let slot = session.slot();
        session.hub().borrow_mut().push(slot, body.frame(first));
    }
    if matches!(format, Format::Sse { .. }) {
        let config = shared.node.config();
        session.tell(&ServerFrame::Welcome {
            connection: &session.info().id.to_string(),
            key: &format!("{:016x}", session.info().key),
            version: 1,
            ping: config.ping_interval.as_secs().max(1),
            max_message_size: config.max_message_size,
            expires: session.expires(),
        });
    }
    // Allowed before the head was written, and within realtime.max_subscriptions. But a channel's last place may be taken
    // meanwhile.
    match session.attach(entries, since, None) {
        Ok(position) => {
            if let (None, Format::Sse { body, .. }) = (since, format) {
                // What cache channels have goes first: it is older.
                session.hub().borrow_mut().flush_dirty();
                // An EventSource resumes after the newest id it has seen: it needs one before the first message, too.
                let cursor = body.frame(sse::cursor(position));
                session.hub().borrow_mut().push(session.slot(), cursor);
            }
        }
        Err(denied) => {
            let (slot, reason) = (session.slot(), denied.to_string());
            session.hub().borrow_mut().close(slot, 1013, &reason);
        }
    }
}
