//! The Mercure protocol above `node`: what a client subscribes to, what it has missed, and who is told of it.
//!
//! A topic is a channel. Topics with a name are asked about like any channel (`session::authorize`); patterns give what is
//! open to all and what the token's `mercure.subscribe` covers. Called by the transport. Imports `session` and `wire`.

mod subscriptions;
mod update;

use std::sync::Arc;

pub use self::subscriptions::{Found, Told, list};
pub use self::update::{Wrong, public_id, publish};
use crate::broker::recall::Recall;
use crate::history::Wanted;
use crate::ids::{CHANNEL_MAX, Channel, InvalidId, Position};
use crate::message::ConnectionInfo;
use crate::node::Node;
use crate::selector::{Base, Selector};
use crate::session::{self, Denied, Session};
use crate::wire::{Body, Format, mercure, sse};

/// What a client wants: the selectors as it sent them, and what they are.
#[derive(Debug, Default)]
pub struct Topics {
    selectors: Vec<Selector>,
    channels: Vec<Channel>,
    patterns: Vec<Selector>,
}

impl Topics {
    /// Adds one, unless it is there. A name must be one that a channel can have. The error completes "the topic must".
    pub fn add(&mut self, text: &str, kind: MatchType, base: Option<&Base>) -> Result<(), String> {
        if text.len() > CHANNEL_MAX {
            return Err(InvalidId::ChannelLength(text.len()).to_string());
        }
        let selector = match (kind, base) {
            (MatchType::Topic, _) => Selector::parse(text),
            (MatchType::UrlPattern, Some(base)) => Selector::url(text, base),
            (MatchType::Exact | MatchType::UrlPattern, _) => Selector::exact(text),
        };
        let selector = selector.map_err(|error| error.to_string())?;
        if self.selectors.contains(&selector) {
            return Ok(());
        }
        if selector.is_exact() {
            let channel = Channel::parse(text).map_err(|error| error.to_string())?;
            self.channels.push(channel);
        } else {
            self.patterns.push(selector.clone());
        }
        self.selectors.push(selector);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.selectors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.selectors.is_empty()
    }

    /// Those that stand for more than one topic.
    pub fn patterns(&self) -> &[Selector] {
        &self.patterns
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            channels: &self.channels,
            patterns: &self.patterns,
        }
    }
}

/// How a parameter of the query says what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchType {
    /// `topic`, in versions 0.x: a name, a URI template or `*`.
    Topic,
    /// `match` and `match_exact`, since version 1.0.
    Exact,
    /// `match_urlpattern`, since version 1.0.
    UrlPattern,
}

/// A parameter that should be a topic matcher: the client's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kind of topic matcher that is known")]
pub struct UnknownMatcher;

impl MatchType {
    /// Of a parameter's name in the version that `is_one` or not; `None` for one that is about something else, `Err` for one
    /// that nobody knows and that must not be passed over.
    pub fn of(name: &str, is_one: bool) -> Result<Option<Self>, UnknownMatcher> {
        Ok(match name {
            "topic" | "topic[]" if !is_one => Some(Self::Topic),
            "match" | "match_exact" if is_one => Some(Self::Exact),
            "match_urlpattern" if is_one => Some(Self::UrlPattern),
            _ => {
                let begins = name.get(..5);
                if is_one && begins.is_some_and(|begins| begins.eq_ignore_ascii_case("match")) {
                    return Err(UnknownMatcher);
                }
                None
            }
        })
    }
}

/// A subscription that is allowed, before its stream has begun.
#[derive(Debug)]
pub struct Subscription {
    node: Arc<Node>,
    topics: Topics,
    strict: bool,
    /// What the client has missed up to now, when it says where it stands.
    missed: Option<Box<Recall>>,
}

impl Subscription {
    /// Asks for each topic, and looks up what came after `since`, the id of an update or `earliest`. Returns with it the
    /// id after which the client gets everything.
    pub async fn ask(
        node: &Arc<Node>,
        info: &Arc<ConnectionInfo>,
        topics: Topics,
        since: Option<&str>,
    ) -> Result<(Self, Option<String>), (Denied, Channel)> {
        for channel in &topics.channels {
            let asked = session::authorize(node, info, channel).await;
            asked.map_err(|denied| (denied, channel.clone()))?;
        }
        let missed = match since {
            Some(since) => {
                let missed = node.recall(&mercure::since(since), topics.wanted()).await;
                Some(Box::new(missed))
            }
            None => None,
        };
        let preceding = missed.as_deref().map(|missed| preceding(missed, since));
        let subscription = Self {
            node: node.clone(),
            strict: node.interest().subscribe,
            topics,
            missed,
        };
        Ok((subscription, preceding))
    }

    /// Subscribes. First comes what was missed, also since that was looked up.
    pub fn begin(self, session: &Session, format: Format) -> Told {
        let Self {
            node,
            topics,
            strict,
            missed,
        } = self;
        // Before the subscription: nobody is told of his own.
        let told = Told::tell(&node, session.info(), &topics.selectors);
        let mut is_whole = true;
        let (position, past) = match missed {
            None => (node.position(), Vec::new()),
            Some(mut missed) => {
                node.recall_rest(topics.wanted(), &mut missed);
                is_whole = missed.forgotten() == 0 || node.config().history_size == 0;
                (missed.position(), missed.into_publications())
            }
        };
        let mut hub = session.hub().borrow_mut();
        let slot = session.slot();
        let Format::Sse { body, .. } = format else {
            return told;
        };
        if !is_whole {
            // It was told already after which update it gets everything. It resumes after the one that it has.
            hub.close(slot, 1013, "more came at once than history keeps");
            return told;
        }
        hub.push(
            slot,
            body.frame(beginning(&node, position, past.is_empty())),
        );
        for channel in &topics.channels {
            hub.subscribe(slot, channel, position.seq);
        }
        hub.follow(slot, &topics.patterns, position.seq, strict);
        hub.replay(slot, past);
        told
    }
}

/// The first bytes: how long to wait before reconnecting and, for a client that is given nothing yet, where it stands.
fn beginning(node: &Node, position: Position, is_new: bool) -> Vec<u8> {
    let mut first = sse::retry(node.config().retry);
    if is_new {
        first.extend(mercure::cursor(position));
    }
    first
}

fn preceding(missed: &Recall, asked: Option<&str>) -> String {
    let epoch = missed.position().epoch;
    match (missed.since(), missed.forgotten()) {
        (None, _) => mercure::EARLIEST.to_owned(),
        (Some(_), 0) => asked.unwrap_or(mercure::EARLIEST).to_owned(),
        (Some(_), seq) => mercure::urn(Position { epoch, seq }),
    }
}

impl Format {
    /// Updates of the Mercure protocol.
    pub fn mercure(body: Body) -> Self {
        Self::Sse {
            flavour: crate::wire::Flavour::Mercure,
            body,
        }
    }
}
