//! A WebSocket connection after its handshake: its frames are read, commands go to `session`, until it closes.
//!
//! What is to be written (pongs, the close frame) goes into the connection's outbox, between the shared frames that
//! `hub` puts there, and the hub alone writes to the socket: the shard has to write without waking this task.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;

use super::http::linger;
use super::{Shared, alongside};
use crate::backend::ReplyTo;
use crate::config::Rate;
use crate::ids::Channel;
use crate::limits::Pace;
use crate::message::{EventName, Incoming};
use crate::pusher::client::Client;
use crate::session::{self, Admitted, Denied, Entry, Session};
use crate::socket::Socket;
use crate::wire::deflate::Packing;
use crate::wire::envelope::ServerFrame;
use crate::wire::frames::{Broken, Event, Reader};
use crate::wire::native::{self, Command, Mistake, Reference};
use crate::wire::{Format, websocket};

/// How much is read at once, in bytes. The memory is the shard's and only lent while there is something in it.
const INPUT: usize = 16 << 10;
/// After how many messages the shard's other connections have their turn, and how many bytes count as one more. With a
/// thousand clients that send as fast as they can, nobody waits longer than for a few messages of each.
const TURN: usize = 32;
const TURN_BYTES: usize = 512;
/// How long a client has to answer a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How long PHP has to answer what a client sent before it broke the protocol, and how often that is looked at.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
const ANSWER_LOOK: Duration = Duration::from_millis(2);

/// What a handshake has agreed on.
#[derive(Debug)]
pub struct WebSocket {
    /// Who.
    pub admitted: Admitted,
    /// Which protocol is spoken in the frames.
    pub kind: Kind,
    /// How messages are compressed, both ways.
    pub packing: Packing,
}

/// What is in the frames.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The native protocol.
    Native,
    /// Payloads of this channel.
    Raw(Entry),
    /// The Pusher protocol.
    Pusher(Rc<Client>),
}

/// Serves the connection to its end.
pub async fn run(shared: Rc<Shared>, websocket: WebSocket, socket: Rc<Socket>, rest: Bytes) {
    let WebSocket {
        admitted,
        kind,
        packing,
    } = websocket;
    let format = match &kind {
        Kind::Native => Format::Native(packing),
        Kind::Raw(_) => Format::Raw(packing),
        Kind::Pusher(_) => Format::Pusher(packing),
    };
    let session = Session::new(admitted, &shared.hub, format, Some(socket.clone()));
    let limit = shared.node.config().max_message_size;
    let mut connection = Connection {
        session,
        socket,
        reader: Reader::new(limit, packing != Packing::Plain),
        input: rest.into(),
        read: 0,
        ended: false,
        pace: Pace::default(),
        rate: shared.node.config().rate(),
        paused: None,
        turn: 0,
    };
    connection.greet(&kind);
    connection.serve(&kind).await;
    let (socket, ended) = (connection.socket.clone(), connection.ended);
    // The client is gone for everybody else; only its socket is seen off.
    drop(connection);
    drop(kind);
    if ended {
        socket.abort();
    } else {
        linger(&socket).await;
    }
}

struct Connection {
    session: Session,
    socket: Rc<Socket>,
    reader: Reader,
    /// Bytes from the socket that `reader` has not taken yet, from `read` on.
    input: Vec<u8>,
    read: usize,
    /// The client sends no more.
    ended: bool,
    pace: Pace,
    rate: Rate,
    /// Until when nothing more is read: it has outrun its pace.
    paused: Option<Pin<Box<Sleep>>>,
    /// What it has had of its turn.
    turn: usize,
}

enum Next {
    Event(Event),
    Broken(Broken),
    /// The hub wants it closed: its close frame is in the outbox.
    Closing,
    /// The client has gone.
    Ended,
}

impl Connection {
    fn greet(&mut self, kind: &Kind) {
        match kind {
            Kind::Native => {
                let config = self.session.node().config();
                let info = self.session.info();
                self.session.tell(&ServerFrame::Welcome {
                    connection: &info.id.to_string(),
                    key: &format!("{:016x}", info.key),
                    version: 1,
                    ping: config.ping_interval.as_secs().max(1),
                    max_message_size: config.max_message_size,
                    expires: self.session.expires(),
                });
            }
            Kind::Raw(entry) => {
                // Allowed before the handshake was answered, and the first subscription. But others may have come meanwhile.
                let entries = std::slice::from_ref(entry);
                if let Err(denied) = self.session.attach(entries, None, None) {
                    self.end_raw(denied);
                }
            }
            Kind::Pusher(client) => client.greet(&self.session),
        }
        self.session.opened();
        self.session.hub().borrow_mut().flush_dirty();
    }

    async fn serve(&mut self, kind: &Kind) {
        loop {
            if self.turn >= TURN {
                self.turn = 0;
                self.session.hub().borrow_mut().flush_dirty();
                tokio::task::yield_now().await;
            }
            let next = std::future::poll_fn(|cx| self.poll_next(cx)).await;
            if let Next::Event(event) = &next {
                let unpacked = self.reader.take_unpacked();
                self.turn += 1 + (event.length() + unpacked) / TURN_BYTES;
                self.spend(1, unpacked);
            }
            match next {
                Next::Event(Event::Text(text)) => {
                    self.session.heard();
                    match kind {
                        Kind::Native => self.command(text.as_str()).await,
                        Kind::Raw(entry) => {
                            self.raw(&entry.channel, Incoming::Text(text.into())).await;
                        }
                        Kind::Pusher(client) => {
                            // Boxed, so that the task of an idle connection need not have room for it.
                            let done = Box::pin(client.text(&self.session, text.as_str()));
                            alongside(&self.session, done).await;
                        }
                    }
                }
                Next::Event(Event::Binary(bytes)) => {
                    self.session.heard();
                    match kind {
                        Kind::Native | Kind::Pusher(_) => {
                            let message = "frames of this protocol are text";
                            self.error("bad_frame", message, None, None);
                        }
                        Kind::Raw(entry) => {
                            self.raw(&entry.channel, Incoming::Binary(bytes)).await;
                        }
                    }
                }
                Next::Event(Event::Ping(payload)) => {
                    let slot = self.session.slot();
                    let mut hub = self.session.hub().borrow_mut();
                    hub.heard(slot);
                    hub.push(slot, websocket::pong(&payload));
                }
                Next::Event(Event::Pong) => {
                    let slot = self.session.slot();
                    self.session.hub().borrow_mut().heard(slot);
                }
                Next::Event(Event::Close(frame)) => {
                    let answer = match &frame {
                        Some((code, reason)) => websocket::close(*code, reason),
                        None => websocket::close_without_code(),
                    };
                    let (code, reason) = frame.unwrap_or((1005, String::new()));
                    self.session.ends(code, &reason);
                    let slot = self.session.slot();
                    self.session.hub().borrow_mut().push(slot, answer);
                    return self.finish().await;
                }
                Next::Closing => return self.close().await,
                Next::Ended => return self.finish().await,
                Next::Broken(broken) => {
                    tracing::debug!(%broken, "a client broke the WebSocket protocol");
                    self.answers().await;
                    let slot = self.session.slot();
                    let (code, reason) = (broken.code(), broken.to_string());
                    self.session.hub().borrow_mut().close(slot, code, &reason);
                    return self.finish().await;
                }
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let (hub, slot) = (self.session.hub().clone(), self.session.slot());
        loop {
            if hub.borrow_mut().poll_task(slot, cx).is_ready() {
                return Poll::Ready(Next::Ended);
            }
            if hub.borrow().closing(slot).is_some() {
                return Poll::Ready(Next::Closing);
            }
            if let Some(pause) = &mut self.paused {
                ready!(pause.as_mut().poll(cx));
                self.paused = None;
                // What it has said meanwhile was not read, a pong among it.
                hub.borrow_mut().heard(slot);
            }
            match self.next_event() {
                Ok(Some(event)) => return Poll::Ready(Next::Event(event)),
                Ok(None) => {}
                Err(broken) => {
                    hub.borrow_mut().flush_dirty();
                    return Poll::Ready(Next::Broken(broken));
                }
            }
            if self.ended {
                hub.borrow_mut().flush_dirty();
                return Poll::Ready(Next::Ended);
            }
            match self.poll_input(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Ended),
                Poll::Pending => {
                    self.turn = 0;
                    hub.borrow_mut().flush_dirty();
                    return Poll::Pending;
                }
            }
        }
    }

    /// The next of what has been read from the socket.
    fn next_event(&mut self) -> Result<Option<Event>, Broken> {
        let mut rest = &self.input[self.read..];
        let mut hub = self.session.hub().borrow_mut();
        let event = self.reader.read(&mut rest, hub.inflater());
        self.read = self.input.len() - rest.len();
        event
    }

    /// Reads from the socket, once all that was read before has been taken.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.return_input();
        let mut lent = self.session.hub().borrow_mut().lend_input();
        lent.clear();
        lent.reserve(INPUT);
        let result = self
            .socket
            .poll_read(cx, &mut lent.spare_capacity_mut()[..INPUT]);
        match result {
            Poll::Ready(Ok(count)) if count > 0 => {
                // SAFETY: recv() has just initialized the first `count` bytes of the spare capacity.
                unsafe { lent.set_len(count) };
                self.input = lent;
                self.read = 0;
                self.spend(0, count);
                Poll::Ready(Ok(()))
            }
            other => {
                self.session.hub().borrow_mut().return_input(lent);
                match other {
                    Poll::Ready(Ok(_)) => {
                        self.ended = true;
                        Poll::Ready(Ok(()))
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    /// Counts what came from the client, and stops reading for a while if that was too much.
    fn spend(&mut self, messages: usize, bytes: usize) {
        if let Some(wait) = self.pace.spend(self.rate, messages, bytes) {
            self.paused = Some(Box::pin(tokio::time::sleep(wait)));
        }
    }

    fn return_input(&mut self) {
        let input = std::mem::take(&mut self.input);
        self.read = 0;
        if input.capacity() >= INPUT {
            self.session.hub().borrow_mut().return_input(input);
        }
    }

    async fn command(&self, text: &str) {
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
            Command::Ping => self.session.tell(&ServerFrame::Pong {
                reference: reference.as_deref(),
            }),
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

    async fn raw(&self, channel: &Channel, data: Incoming) {
        let sent = Box::pin(self.publish(channel.clone(), EventName::Message, data, None));
        if let Err(denied) = sent.await {
            self.end_raw(denied);
        }
    }

    /// `/raw` has no other way to say it.
    fn end_raw(&self, denied: Denied) {
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

    fn error(&self, code: &str, message: &str, reference: Reference, channel: Option<&str>) {
        let reference = reference.as_deref();
        self.session.tell(&ServerFrame::Error {
            code,
            message,
            reference,
            channel,
        });
    }

    /// The hub's close frame is in the outbox: waits until it has left and the client has answered it.
    async fn close(&mut self) {
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
    async fn answers(&self) {
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
    async fn finish(&mut self) {
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
