//! A WebSocket connection after its handshake: frames by tungstenite, commands to `session`, until it closes.
//!
//! tungstenite reads; what it wants to write (pongs, the close frame) goes into the connection's outbox, between the
//! shared frames that `hub` puts there, and the hub alone writes to the socket. Its sans-I/O context is used rather
//! than a stream that owns the socket, because the shard has to write without waking this task.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;
use tungstenite::Message;
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use super::http::linger;
use super::{Shared, alongside};
use crate::backend::ReplyTo;
use crate::config::Rate;
use crate::ids::Channel;
use crate::limits::Pace;
use crate::message::{EventName, Incoming};
use crate::session::{self, Admitted, Denied, Session};
use crate::socket::Socket;
use crate::wire::Format;
use crate::wire::envelope::ServerFrame;
use crate::wire::native::{self, Command, Mistake, Reference};

/// tungstenite's buffer, in bytes. Small: what is read at once waits in [`Connection::input`], whose memory is the
/// shard's and only lent while there is something in it.
const READ_BUFFER: usize = 256;
/// How much is read at once, in bytes.
const INPUT: usize = 16 << 10;
/// How long a client has to answer a close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What a handshake has agreed on.
#[derive(Debug)]
pub struct WebSocket {
    /// Who.
    pub admitted: Admitted,
    /// Which protocol is spoken in the frames.
    pub kind: Kind,
}

/// What is in the frames.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The native protocol.
    Native,
    /// Payloads of this channel.
    Raw(Channel),
}

/// Serves the connection to its end.
pub async fn run(shared: Rc<Shared>, websocket: WebSocket, socket: Rc<Socket>, rest: Bytes) {
    let WebSocket { admitted, kind } = websocket;
    let format = match &kind {
        Kind::Native => Format::Native,
        Kind::Raw(_) => Format::Raw,
    };
    let session = Session::new(admitted, &shared.hub, format, Some(socket.clone()));
    let limit = shared.node.config().max_message_size;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    let mut connection = Connection {
        session,
        socket,
        context: WebSocketContext::new(Role::Server, Some(config)),
        input: rest.into(),
        read: 0,
        ended: false,
        pace: Pace::default(),
        rate: shared.node.config().rate(),
        paused: None,
    };
    connection.greet(&kind);
    connection.serve(&kind).await;
    let (socket, ended) = (connection.socket.clone(), connection.ended);
    // The client is gone for everybody else; only its socket is seen off.
    drop(connection);
    if ended {
        socket.abort();
    } else {
        linger(&socket).await;
    }
}

struct Connection {
    session: Session,
    socket: Rc<Socket>,
    context: WebSocketContext,
    /// Bytes from the socket that tungstenite has not taken yet, from `read` on.
    input: Vec<u8>,
    read: usize,
    /// The client sends no more.
    ended: bool,
    pace: Pace,
    rate: Rate,
    /// Until when nothing more is read: it has outrun its pace.
    paused: Option<Pin<Box<Sleep>>>,
}

enum Next {
    Message(Message),
    /// The hub wants it closed: its close frame is in the outbox.
    Closing,
    Ended(Error),
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
            Kind::Raw(channel) => {
                // Allowed before the handshake was answered, and within every limit: the first subscription.
                let attached = self
                    .session
                    .attach(std::slice::from_ref(channel), None, None);
                debug_assert!(attached.is_ok());
            }
        }
        self.session.opened();
        self.session.hub().borrow_mut().flush_dirty();
    }

    async fn serve(&mut self, kind: &Kind) {
        loop {
            let next = std::future::poll_fn(|cx| self.poll_next(cx)).await;
            if matches!(next, Next::Message(_)) {
                self.spend(1, 0);
            }
            match next {
                Next::Message(Message::Text(text)) => {
                    self.session.heard();
                    match kind {
                        Kind::Native => self.command(text.as_str()).await,
                        Kind::Raw(channel) => {
                            self.raw(channel, Incoming::Text(text.into())).await;
                        }
                    }
                }
                Next::Message(Message::Binary(bytes)) => {
                    self.session.heard();
                    match kind {
                        Kind::Native => {
                            let message = "frames of this protocol are text";
                            self.error("bad_frame", message, None, None);
                        }
                        Kind::Raw(channel) => self.raw(channel, Incoming::Binary(bytes)).await,
                    }
                }
                Next::Message(Message::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |f| {
                        (f.code.into(), f.reason.to_string())
                    });
                    self.session.ends(code, &reason);
                }
                Next::Message(_) => {
                    let slot = self.session.slot();
                    self.session.hub().borrow_mut().heard(slot);
                }
                Next::Closing => return self.close().await,
                Next::Ended(error) => {
                    let (code, reason) = match blame(&error) {
                        Some(blame) => blame,
                        None => return self.finish().await,
                    };
                    tracing::debug!(%error, "a client broke the WebSocket protocol");
                    let slot = self.session.slot();
                    self.session.hub().borrow_mut().close(slot, code, &reason);
                    return self.finish().await;
                }
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let (hub, slot) = (self.session.hub().clone(), self.session.slot());
        loop {
            if let Poll::Ready(error) = hub.borrow_mut().poll_task(slot, cx) {
                return Poll::Ready(Next::Ended(Error::Io(error)));
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
            match self.context.read(&mut Stream {
                input: &self.input,
                read: &mut self.read,
                ended: self.ended,
                session: &self.session,
            }) {
                Ok(message) => return Poll::Ready(Next::Message(message)),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    hub.borrow_mut().flush_dirty();
                    return Poll::Ready(Next::Ended(error));
                }
            }
            match self.poll_input(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Next::Ended(Error::Io(error))),
                Poll::Pending => {
                    hub.borrow_mut().flush_dirty();
                    return Poll::Pending;
                }
            }
        }
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
                let slot = self.session.slot();
                let was = self
                    .session
                    .hub()
                    .borrow_mut()
                    .unsubscribe(slot, channel.as_str());
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
        let done = verdict.and_then(|()| {
            session.attach(
                std::slice::from_ref(&channel),
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
        alongside(session, Box::pin(sent)).await
    }

    async fn raw(&self, channel: &Channel, data: Incoming) {
        let sent = Box::pin(self.publish(channel.clone(), EventName::Message, data, None));
        let Err(denied) = sent.await else { return };
        let code = match denied {
            Denied::Busy | Denied::TimedOut | Denied::HandlerFailed => 1013,
            Denied::Gone => 1001,
            Denied::NoHandler | Denied::Forbidden | Denied::TooManySubscriptions => 1008,
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
                match self.context.read(&mut Stream {
                    input: &self.input,
                    read: &mut self.read,
                    ended: self.ended,
                    session: &self.session,
                }) {
                    Ok(Message::Close(_)) => return Poll::Ready(()),
                    Ok(_) => continue,
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return Poll::Ready(()),
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

/// The close code for a client's mistake; `None` when the connection has just ended.
fn blame(error: &Error) -> Option<(u16, String)> {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(error) => Some((1002, error.to_string())),
        Error::Utf8(_) => Some((1007, "text that is not UTF-8".into())),
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            Some((1009, format!("messages may have at most {max_size} bytes")))
        }
        Error::Capacity(_) => Some((1009, "too large".into())),
        _ => None,
    }
}

/// What tungstenite reads from and writes to: memory both ways.
struct Stream<'a> {
    input: &'a [u8],
    read: &'a mut usize,
    ended: bool,
    session: &'a Session,
}

impl io::Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[*self.read..];
        if rest.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        *self.read += count;
        Ok(count)
    }
}

impl io::Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whole frames: tungstenite's own buffer is flushed with each. The hub drops them once it is closing.
        let mut hub = self.session.hub().borrow_mut();
        hub.push(self.session.slot(), Bytes::copy_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
