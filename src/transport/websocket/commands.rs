//! What a client of the native protocol asks for, and what one of `/raw` sends.
//!
//! Imports `session` and `wire::native`.

use super::super::alongside;
use super::Connection;
use crate::backend::ReplyTo;
use crate::ids::Channel;
use crate::message::{EventName, Incoming};
use crate::session::{self, Denied};
use crate::wire::envelope::ServerFrame;
use crate::wire::native::{self, Command, Mistake, Reference};

impl Connection {
    pub(super) async fn command(&self, text: &str) {
        let (command, reference) = match native::parse(text) {
            Ok(parsed) => parsed,
            Err(Mistake {
                code,
                message,
                reference,
                channel,
            }) => {
                return self.error(code, &message, reference, channel.as_deref());
            }
        };
        match command {
            Command::Ping => {
                let slot = self.session.slot();
                let behind = self.session.hub().borrow().is_replaying(slot);
                self.session.tell(&ServerFrame::Pong {
                    reference: reference.as_deref(),
                    behind,
                });
            }
            Command::Token(token) => match self.session.refresh(&token) {
                Ok(expires) => self.session.tell(&ServerFrame::Token {
                    reference: reference.as_deref(),
                    expires,
                }),
                Err(bad) => self.error(bad.code(), &bad.to_string(), reference, None),
            },
            Command::Subscribe { channel, since } => {
                self.subscribe(channel, since, reference).await;
            }
            Command::Unsubscribe { channel } => {
                let was = {
                    let mut hub = self.session.hub().borrow_mut();
                    let (node, slot) = (self.session.node(), self.session.slot());
                    session::unsubscribe(node, &mut hub, slot, &channel)
                };
                let name = channel.as_str();
                if was {
                    let reference = reference.as_deref();
                    self.session.tell(&ServerFrame::Unsubscribed {
                        channel: name,
                        reference,
                    });
                } else {
                    self.error("not_subscribed", "not subscribed", reference, Some(name));
                }
            }
            Command::Presence { channel } => {
                let told = self.session.tell_members(&channel, reference.as_deref());
                if !told {
                    let name = channel.as_str();
                    self.error("not_subscribed", "not subscribed", reference, Some(name));
                }
            }
            Command::Publish(publish) => {
                let name = publish.channel.clone();
                let data = Incoming::Json(publish.data);
                let sent = self.publish(publish.channel, publish.event, data, reference.as_deref());
                if let Err(denied) = sent.await {
                    let message = denied.to_string();
                    self.error(denied.code(), &message, reference, Some(name.as_str()));
                }
            }
        }
    }

    async fn subscribe(&self, channel: Channel, since: Option<String>, reference: Reference) {
        let session = &self.session;
        let asked = session::authorize(session.node(), session.info(), &channel);
        // Boxed, so that the task of an idle connection need not have room for it.
        let verdict = alongside(session, Box::pin(asked)).await;
        let done = verdict.and_then(|entry| {
            session.attach(
                std::slice::from_ref(&entry),
                since.as_deref(),
                reference.as_deref(),
            )
        });
        if let Err(denied) = done {
            let message = denied.to_string();
            self.error(denied.code(), &message, reference, Some(channel.as_str()));
        }
    }

    async fn publish(
        &self,
        channel: Channel,
        event: EventName,
        data: Incoming,
        reference: Option<&serde_json::value::RawValue>,
    ) -> Result<(), Denied> {
        let session = &self.session;
        let reply_to = ReplyTo::Connection {
            connection: session.info().id,
            reference: reference.map(|reference| reference.get().into()),
        };
        let sent = session::publish(
            session.node(),
            session.info(),
            channel,
            event,
            data,
            reply_to,
        );
        let slot = session.slot();
        session.hub().borrow_mut().asks(slot);
        let sent = alongside(session, Box::pin(sent)).await;
        if sent.is_err() {
            session.hub().borrow_mut().answered(slot);
        }
        sent.map(|_| ())
    }

    pub(super) async fn raw(&self, channel: &Channel, data: Incoming) {
        let sent = Box::pin(self.publish(channel.clone(), EventName::Message, data, None));
        if let Err(denied) = sent.await {
            self.end_raw(denied);
        }
    }

    /// `/raw` has no other way to say it.
    pub(super) fn end_raw(&self, denied: Denied) {
        let code = match denied {
            Denied::Busy
            | Denied::TimedOut
            | Denied::HandlerFailed
            | Denied::TooManyMembers
            | Denied::NotStored => 1013,
            Denied::Gone => 1001,
            Denied::NoHandler
            | Denied::Forbidden
            | Denied::TooManySubscriptions
            | Denied::InfoTooLarge => 1008,
            Denied::TooLarge => 1009,
        };
        let slot = self.session.slot();
        self.session
            .hub()
            .borrow_mut()
            .close(slot, code, &denied.to_string());
    }

    pub(super) fn error(
        &self,
        code: &str,
        message: &str,
        reference: Reference,
        channel: Option<&str>,
    ) {
        let reference = reference.as_deref();
        self.session.tell(&ServerFrame::Error {
            code,
            message,
            reference,
            channel,
        });
    }
}
