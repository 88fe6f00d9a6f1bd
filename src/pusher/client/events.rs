//! What clients say to each other.

use std::time::{Duration, Instant};

use super::Client;
use crate::backend::ReplyTo;
use crate::ids::{self, Channel};
use crate::message::{EventName, Incoming, Payload};
use crate::pusher::webhooks::Event;
use crate::session::{self, Denied, Session, Taken};
use crate::wire::pusher;

impl Client {
    /// A client event, for the others on its channel.
    pub(super) async fn event(
        &self,
        session: &Session,
        channel: &str,
        event: &str,
        data: Payload,
    ) -> Result<(), (Option<u16>, String)> {
        let refuse = |why: String| Err((None, why));
        if !event.starts_with("client-") {
            return refuse(format!(
                "{event:?} is no event of this protocol, and a client's own begin with \"client-\""
            ));
        }
        if let Err(error) = ids::check_event(event) {
            return refuse(format!("the event's name must {error}"));
        }
        let Ok(channel) = Channel::parse(channel) else {
            return refuse("client events go to a channel".to_owned());
        };
        if !channel.is_guarded() || channel.as_str().starts_with("private-encrypted-") {
            return refuse("client events go to private and presence channels only".to_owned());
        }
        if !session
            .hub()
            .borrow()
            .is_subscribed(session.slot(), &channel)
        {
            return refuse(format!(
                "client events need a subscription, and there is none to {channel}"
            ));
        }
        if !self.is_in_time() {
            let why = "client events come too fast: realtime.pusher_client_rate";
            return Err((Some(4301), why.to_owned()));
        }
        let user = self.asked_for.borrow().get(&channel).cloned().flatten();
        let told = Event::ClientEvent {
            channel: channel.to_string(),
            event: event.to_owned(),
            data: pusher::data(&data),
            socket_id: self.socket_id.clone(),
            user_id: user.as_ref().map(ToString::to_string),
        };
        let (Payload::Json(data) | Payload::Binary(data)) = data;
        let event = match user {
            Some(by) => EventName::Said {
                name: event.into(),
                by,
            },
            None => EventName::new(event),
        };
        let reply_to = ReplyTo::Connection {
            connection: self.id,
            reference: None,
        };
        session.hub().borrow_mut().asks(session.slot());
        let data = Incoming::Json(data);
        let sent = session::publish(
            session.node(),
            session.info(),
            channel,
            event,
            data,
            reply_to,
        );
        match sent.await {
            Ok(Taken::BySubscribers) => self.pusher.report(told),
            // What PHP makes of it is PHP's to tell.
            Ok(Taken::ByPhp) => {}
            Err(denied) => {
                session.hub().borrow_mut().answered(session.slot());
                let why = match denied {
                    Denied::NoHandler => "client events are off: realtime.client_events".into(),
                    denied => denied.to_string(),
                };
                return Err((None, why));
            }
        }
        Ok(())
    }

    /// Counts a client event.
    fn is_in_time(&self) -> bool {
        let limit = self.node.config().pusher_client_rate;
        let (since, count) = self.events.get();
        let (since, count) = if since.elapsed() >= Duration::from_secs(1) {
            (Instant::now(), 0)
        } else {
            (since, count)
        };
        self.events.set((since, count + 1));
        limit == 0 || count < limit
    }
}
