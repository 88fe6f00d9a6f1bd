//! How a WebSocket connection ends: in order, with all that is owed to the client.

use std::task::Poll;
use std::time::Duration;

use super::super::alongside;
use super::Connection;
use crate::wire::frames::Event;

/// How long a client has to answer a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long PHP has to answer what a client sent before it broke the protocol, and how often that is looked at.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
const ANSWER_LOOK: Duration = Duration::from_millis(2);

impl Connection {
    /// The hub's close frame is in the outbox: waits until it has left and the client has answered it.
    pub(super) async fn close(&mut self) {
        let slot = self.session.slot();
        let answered = std::future::poll_fn(|cx| {
            if self
                .session
                .hub()
                .borrow_mut()
                .poll_task(slot, cx)
                .is_ready()
            {
                return Poll::Ready(());
            }
            loop {
                match self.next_event() {
                    Ok(Some(Event::Close(_))) => return Poll::Ready(()),
                    Ok(Some(_)) => continue,
                    Ok(None) if !self.ended => {}
                    Ok(None) | Err(_) => return Poll::Ready(()),
                }
                match self.poll_input(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        // A client that does not answer is closed all the same.
        let _ = tokio::time::timeout(CLOSE_WAIT, answered).await;
        self.finish().await;
    }

    /// Waits a moment until PHP has answered what the client sent before: its own later mistake loses none of it.
    pub(super) async fn answers(&self) {
        let (hub, slot) = (self.session.hub(), self.session.slot());
        let answered = async {
            while hub.borrow().is_unanswered(slot) && hub.borrow().closing(slot).is_none() {
                tokio::time::sleep(ANSWER_LOOK).await;
            }
        };
        let answered = tokio::time::timeout(ANSWER_WAIT, answered);
        // Late or not, it is closed now.
        let _ = alongside(&self.session, Box::pin(answered)).await;
    }

    /// Waits until the outbox has left. Nothing more comes into it: no data follows a close frame.
    pub(super) async fn finish(&mut self) {
        self.return_input();
        let (hub, slot) = (self.session.hub().clone(), self.session.slot());
        {
            let mut hub = hub.borrow_mut();
            hub.seal(slot);
            hub.flush_dirty();
        }
        let flushed = std::future::poll_fn(|cx| {
            let mut hub = hub.borrow_mut();
            if hub.poll_task(slot, cx).is_ready() || hub.is_flushed(slot) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        // A client that reads nothing does not get its last frame.
        let _ = tokio::time::timeout(CLOSE_WAIT, flushed).await;
    }
}
