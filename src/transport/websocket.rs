//! A WebSocket connection after its handshake: its frames are read, commands go to `session`, until it closes.
//!
//! What is to be written (pongs, the close frame) goes into the connection's outbox, between the shared frames that
//! `hub` puts there, and the hub alone writes to the socket: the shard has to write without waking this task. What comes is read
//! here; `commands` has what it asks for, `closing` how it ends.

mod closing;
mod commands;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::Sleep;

use super::http::linger;
use super::{Shared, alongside};
use crate::config::Rate;
use crate::message::Incoming;
use crate::pusher::client::Client;
use crate::session::{Admitted, Entry, Session};
use crate::socket::Socket;
use crate::wire::deflate::Packing;
use crate::wire::envelope::ServerFrame;
use crate::wire::frames::{Broken, Event, Reader};
use crate::wire::{Format, websocket};

/// How much is read at once, in bytes. The memory is the shard's and only lent while there is something in it.
const INPUT: usize = 16 << 10;
/// After how many messages the shard's other connections have their turn, and how many bytes count as one more. With a
/// thousand clients that send as fast as they can, nobody waits longer than for a few messages of each.
const TURN: usize = 32;
const TURN_BYTES: usize = 512;

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
        if let Some(wait) = self.session.info().spend(self.rate, messages, bytes) {
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
}
