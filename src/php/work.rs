//! One event on its way to the script's handlers ([`Work`]), and the way of their answer back ([`Way`]): to the server
//! in this process, or among the outcomes that go to another one's ([`Outgoing`]).
//!
//! Made by `event_loop`'s sources, handled by `dispatch`. Imports `backend`, `message`, `wire::events`, `link` and
//! `connection`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::server_here::{self, Here};
use super::{connection, handlers};
use crate::backend::{Answer, Event, HandlerFailed, Outcome, ReplyTo, Ruling};
use crate::ids::{Channel, ConnectionId};
use crate::message::{ClientMessage, ConnectionInfo, EventName, Incoming, Transport};
use crate::node::Failure;
use crate::wire::control::WirePayload;
use crate::wire::events::{
    Batch, Outcomes, WireIncoming, WireOutcome, WireParty, WireResult, WireWhat,
};

/// After so long the server is told what is done, though more is to come.
const PATIENCE: Duration = Duration::from_millis(1);
/// After so many bytes, too.
const FULL: usize = 64 << 10;

/// One event.
pub struct Work {
    /// Whose.
    pub who: Arc<ConnectionInfo>,
    /// What happened.
    pub what: What,
    /// Where the answer goes.
    pub way: Way,
}

/// What happened. See [`Event`].
pub enum What {
    Open,
    Subscribe(Channel),
    Message(ClientMessage),
    Close { code: u16, reason: String },
}

/// Where the answer to one event goes, once. Dropped unused, it says that nobody answered.
pub enum Way {
    /// A verdict for the server in this process.
    Verdict(Here, Answer),
    /// A reply through it.
    Reply(Here, ReplyTo),
    /// Nobody waits for one.
    Nowhere,
    /// To a server in another process.
    Away(Rc<Pending>),
}

impl Way {
    /// Whether a handler has forked, and this is the child: the answer is the parent's to give.
    pub fn is_inherited(&self) -> bool {
        match self {
            Self::Verdict(here, _) | Self::Reply(here, _) => here.is_inherited(),
            Self::Nowhere => false,
            Self::Away(pending) => pending.to.is_inherited(),
        }
    }

    /// Whether a reply of `size` bytes is allowed.
    pub fn check_size(&self, size: usize) -> Result<(), Failure> {
        match self {
            Self::Verdict(here, _) | Self::Reply(here, _) => here.node.check_size(size),
            Self::Nowhere => Ok(()),
            Self::Away(pending) => match pending.to.max_message_size {
                limit if size > limit => Err(Failure::TooLarge { size, limit }),
                _ => Ok(()),
            },
        }
    }

    /// Admits or refuses.
    pub fn decide(self, ruling: Ruling) {
        match self {
            inherited if inherited.is_inherited() => std::mem::forget(inherited),
            Self::Verdict(_, answer) => answer.rule(ruling),
            Self::Reply(..) | Self::Nowhere => {}
            Self::Away(pending) => pending.set(match ruling {
                Ruling::Refused => WireResult::Verdict(false),
                Ruling::Admitted => WireResult::Verdict(true),
                Ruling::AdmittedAs(attendee) => WireResult::AdmittedAs {
                    user: attendee.user.to_string(),
                    info: attendee.info.map(|info| info.get().to_owned()),
                },
            }),
        }
    }

    /// Answers a message.
    pub fn reply(self, outcome: Outcome) {
        match self {
            inherited if inherited.is_inherited() => std::mem::forget(inherited),
            Self::Reply(here, to) => here.node.reply(to, outcome),
            Self::Verdict(..) | Self::Nowhere => {}
            Self::Away(pending) => pending.set(match outcome {
                Ok(payload) => WireResult::Reply(payload.map(Into::into)),
                Err(HandlerFailed) => WireResult::Failed,
            }),
        }
    }

    /// Says that it is handled, where no answer is wanted.
    pub fn done(self) {
        if let Self::Away(pending) = self {
            pending.set(WireResult::Done);
        }
    }

    /// What becomes of the event in another process, to be finished when its handlers have run.
    pub fn pending(&self) -> Option<Rc<Pending>> {
        match self {
            Self::Away(pending) => Some(Rc::clone(pending)),
            _ => None,
        }
    }
}

impl Work {
    /// Of an event of the server in this process.
    pub fn here(here: &Here, event: Event) -> Self {
        let here = here.clone();
        match event {
            Event::Open { connection, answer } => Self {
                who: connection,
                what: What::Open,
                way: Way::Verdict(here, answer),
            },
            Event::Subscribe {
                connection,
                channel,
                answer,
            } => Self {
                who: connection,
                what: What::Subscribe(channel),
                way: Way::Verdict(here, answer),
            },
            Event::Message { message, reply_to } => Self {
                who: Arc::clone(&message.from),
                what: What::Message(message),
                way: Way::Reply(here, reply_to),
            },
            Event::Close {
                connection,
                code,
                reason,
            } => Self {
                who: connection,
                what: What::Close { code, reason },
                way: Way::Nowhere,
            },
        }
    }
}

/// An event of another process's server that has not been handled yet.
pub struct Waiting {
    number: u64,
    who: Arc<ConnectionInfo>,
    what: What,
}

/// What has become of one event of another process's server: put among the [`Outgoing`] once it is finished, or dropped.
pub struct Pending {
    to: Rc<Outgoing>,
    number: u64,
    who: Arc<ConnectionInfo>,
    /// The connection's state before its handlers.
    before: Option<Box<str>>,
    result: Cell<Option<WireResult>>,
    finished: Cell<bool>,
}

impl Pending {
    fn set(&self, result: WireResult) {
        self.result.set(Some(result));
    }

    /// Its handlers have run, or ended the script: then it has failed unless they had answered.
    pub fn finish(&self) {
        if self.finished.replace(true) || self.to.is_inherited() {
            return;
        }
        let now = self.who.state();
        let changed = now != self.before;
        self.to.put(WireOutcome {
            number: self.number,
            result: self.result.take().unwrap_or(WireResult::Failed),
            state: changed.then(|| now.unwrap_or_default().into_string().into()),
        });
    }
}

/// The outcomes of events on their way to the server's process, which holds the events until then.
pub struct Outgoing {
    done: RefCell<Vec<WireOutcome>>,
    bytes: Cell<usize>,
    /// When it was last told.
    told: Cell<Instant>,
    /// The interest that it was told.
    announced: Cell<Option<u8>>,
    max_message_size: usize,
    /// [`server_here::forks`] when it was made.
    forks: u32,
}

impl Outgoing {
    /// For a server that takes messages of at most `max_message_size`.
    pub fn new(max_message_size: usize) -> Rc<Self> {
        Rc::new(Self {
            done: RefCell::default(),
            bytes: Cell::new(0),
            told: Cell::new(Instant::now()),
            announced: Cell::new(None),
            max_message_size,
            forks: server_here::forks(),
        })
    }

    /// Whether a fork has copied this into a child, whose events they are not.
    pub fn is_inherited(&self) -> bool {
        self.forks != server_here::forks()
    }

    /// Whether the server should be told now.
    pub fn is_due(&self) -> bool {
        !self.done.borrow().is_empty() && (self.bytes.get() >= FULL || self.is_late())
    }

    /// Whether it was told long ago.
    pub fn is_late(&self) -> bool {
        self.told.get().elapsed() >= PATIENCE
    }

    /// What the server is to be told now; `None` when it knows everything.
    pub fn take(&self) -> Option<Outcomes> {
        let interest = handlers::interest().to_bits();
        let known = self.announced.replace(Some(interest)) == Some(interest);
        let outcomes = self.done.take();
        self.told.set(Instant::now());
        self.bytes.set(0);
        (!known || !outcomes.is_empty()).then_some(Outcomes { interest, outcomes })
    }

    /// The events of a batch. What makes no sense has failed.
    pub fn events(&self, batch: Batch) -> VecDeque<Waiting> {
        let parties: Vec<_> = batch.parties.into_iter().map(connection_of).collect();
        let mut events = VecDeque::with_capacity(batch.events.len());
        for event in batch.events {
            let number = event.number;
            let who = parties.get(event.party as usize).cloned().flatten();
            let waiting = who.and_then(|who| {
                let what = happened(&who, event.what)?;
                Some(Waiting { number, who, what })
            });
            match waiting {
                Some(waiting) => events.push_back(waiting),
                None => self.put(WireOutcome {
                    number,
                    result: WireResult::Failed,
                    state: None,
                }),
            }
        }
        events
    }

    /// An event whose handlers are to run now.
    pub fn work(self: &Rc<Self>, event: Waiting) -> Work {
        let pending = Pending {
            to: Rc::clone(self),
            number: event.number,
            before: event.who.state(),
            who: Arc::clone(&event.who),
            result: Cell::new(None),
            finished: Cell::new(false),
        };
        Work {
            who: event.who,
            what: event.what,
            way: Way::Away(Rc::new(pending)),
        }
    }

    fn put(&self, outcome: WireOutcome) {
        let reply = match &outcome.result {
            WireResult::Reply(Some(WirePayload::Json(bytes) | WirePayload::Binary(bytes))) => {
                bytes.len()
            }
            _ => 0,
        };
        let state = outcome.state.as_ref().map_or(0, bytes::Bytes::len);
        self.bytes.set(self.bytes.get() + reply + state);
        self.done.borrow_mut().push(outcome);
    }
}

fn connection_of(party: WireParty) -> Option<Arc<ConnectionInfo>> {
    let wire = party.connection;
    let id = ConnectionId::from_bits(wire.id);
    let transport = *Transport::ALL.get(usize::from(wire.transport))?;
    // The one that PHP's object has, if it has one: then they share the state.
    let who = connection::known(id).unwrap_or_else(|| {
        let info = ConnectionInfo::from_head(id, transport, &wire.ip, &wire.head);
        Arc::new(info.with_user(wire.user.map(Into::into)))
    });
    let state = std::str::from_utf8(&party.state).ok()?;
    who.set_state((!state.is_empty()).then(|| state.into()));
    Some(who)
}

fn happened(who: &Arc<ConnectionInfo>, what: WireWhat) -> Option<What> {
    Some(match what {
        WireWhat::Open => What::Open,
        WireWhat::Subscribe { channel } => What::Subscribe(Channel::parse(&channel).ok()?),
        WireWhat::Message {
            channel,
            event,
            id,
            data,
        } => What::Message(ClientMessage {
            from: Arc::clone(who),
            channel: Channel::parse(&channel).ok()?,
            event: EventName::new(&event),
            number: id,
            data: match data {
                WireIncoming::Json(bytes) => Incoming::Json(bytes),
                WireIncoming::Text(bytes) => Incoming::Text(bytes),
                WireIncoming::Binary(bytes) => Incoming::Binary(bytes),
            },
        }),
        WireWhat::Close { code, reason } => What::Close { code, reason },
    })
}
