//! Who is subscribed to what: as updates when that changes, and as lists (the Mercure specification, "Active
//! Subscriptions").
//!
//! A list is made of what the connections asked for; nothing is kept for it. Imports `node` and `wire`.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{MatchType, Topics};
use crate::ids::{Channel, ConnectionId, SUBSCRIPTIONS};
use crate::message::{ConnectionInfo, EventName, Payload, Publish, Terms};
use crate::node::Node;
use crate::selector::{Base, Selector};
use crate::wire::mercure;

/// What RFC 6570 encodes in a simple expansion.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The type of the hub's own updates, which nobody else may give, since version 1.0.
pub(super) const OWN_TYPE: &str = "mercure";
const CONTEXT: &str = "https://mercure.rocks/";

/// A subscription as JSON-LD.
#[derive(Debug, Serialize)]
struct Document {
    #[serde(rename = "@context", skip_serializing_if = "Option::is_none")]
    context: Option<&'static str>,
    id: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    // Version 1.0's names for the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    match_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#match: Option<String>,
    subscriber: String,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(rename = "lastEventID", skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Collection<'a> {
    #[serde(rename = "@context", skip_serializing_if = "Option::is_none")]
    context: Option<&'static str>,
    id: &'a str,
    r#type: &'static str,
    #[serde(rename = "lastEventID", skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    subscriptions: Vec<Document>,
}

/// Tells that a client has subscribed and, when it is dropped, that it has gone.
#[derive(Debug)]
pub struct Told {
    node: Arc<Node>,
    info: Arc<ConnectionInfo>,
    topics: Vec<Selector>,
}

impl Told {
    /// Tells it, if `realtime.mercure_subscriptions` says so.
    pub(super) fn tell(
        node: &Arc<Node>,
        info: &Arc<ConnectionInfo>,
        selectors: &[Selector],
    ) -> Self {
        let topics = match node.config().mercure_subscriptions {
            true => selectors.to_vec(),
            false => Vec::new(),
        };
        let told = Self {
            node: node.clone(),
            info: info.clone(),
            topics,
        };
        told.publish(true);
        told
    }

    fn publish(&self, active: bool) {
        let is_one = self.node.config().mercure_version == 1;
        let event = match is_one {
            true => EventName::new(OWN_TYPE),
            false => EventName::Message,
        };
        for topic in &self.topics {
            let document = Document {
                context: Some(CONTEXT).filter(|_| !is_one),
                active,
                ..document(&self.info, topic, is_one)
            };
            // Not longer than a channel's name may be: the topic is not.
            let Ok(channel) = Channel::parse(&document.id) else {
                continue;
            };
            let publish = Publish {
                channels: vec![channel],
                payload: Payload::Json(json(&document).into()),
                event: event.clone(),
                except: None,
                id: None,
                store: true,
                terms: Some(Box::new(Terms {
                    private: true,
                    ..Terms::default()
                })),
            };
            if let Err(error) = self.node.publish_now(publish) {
                tracing::debug!(%error, "a subscription was not told");
            }
        }
        if !self.topics.is_empty() {
            self.node.rouse();
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.publish(false);
    }
}

/// What a list is of.
#[derive(Debug, Default)]
pub struct Found {
    /// Its path.
    pub path: String,
    /// One topic selector alone.
    pub topic: Option<String>,
    /// Those of this type alone.
    pub match_type: Option<String>,
    /// One subscriber alone; then it is no list.
    pub subscriber: Option<String>,
}

/// The JSON of what there is, and the id of the newest message; `None` when it is about one subscription that is not there.
pub fn list(node: &Node, found: &Found) -> Option<(Vec<u8>, String)> {
    let position = node.position();
    let last = match position.seq {
        0 => mercure::EARLIEST.to_owned(),
        _ => mercure::urn(position),
    };
    let base = node.config().mercure_base();
    let is_one = base.is_some();
    let mut subscriptions = Vec::new();
    let is_asked = |asked: &Option<String>, its: &str| asked.as_ref().is_none_or(|it| it == its);
    for info in node.all_connections() {
        for topic in topics_of(&info, base.as_ref()) {
            if is_asked(&found.topic, topic.as_str())
                && is_asked(&found.match_type, topic.match_type())
            {
                let document = document(&info, &topic, is_one);
                if is_asked(&found.subscriber, &document.subscriber) {
                    subscriptions.push(document);
                }
            }
        }
    }
    // Since version 1.0 it is in a header alone.
    let in_it = Some(last.clone()).filter(|_| !is_one);
    let context = Some(CONTEXT).filter(|_| !is_one);
    if found.subscriber.is_some() {
        let mut one = subscriptions.pop()?;
        one.context = context;
        one.last = in_it;
        return Some((json(&one), last));
    }
    let collection = Collection {
        context,
        id: &found.path,
        r#type: if is_one {
            "subscriptions"
        } else {
            "Subscriptions"
        },
        last: in_it,
        subscriptions,
    };
    Some((json(&collection), last))
}

/// The topic selectors of a connection, if it is one of this protocol.
fn topics_of(info: &ConnectionInfo, base: Option<&Base>) -> Vec<Selector> {
    let mut topics = Topics::default();
    if info.path() == mercure::PATH {
        for (name, value) in form_urlencoded::parse(info.query().as_bytes()) {
            if let Ok(Some(kind)) = MatchType::of(&name, base.is_some()) {
                // It was good when the connection began; one of before a change of settings may not be.
                let _ = topics.add(&value, kind, base);
            }
        }
    }
    topics.selectors
}

fn document(info: &ConnectionInfo, topic: &Selector, is_one: bool) -> Document {
    let subscriber = subscriber(info.id);
    let payload = info.grant().and_then(|grant| {
        let json = grant.payload(topic.as_str())?;
        RawValue::from_string(json.to_owned()).ok()
    });
    let [of_topic, of_subscriber] =
        [topic.as_str(), &subscriber].map(|text| utf8_percent_encode(text, ENCODED).to_string());
    let text = Some(topic.as_str().to_owned());
    let (of_type, topic_only, match_type, matcher) = match is_one {
        true => {
            let kind = topic.match_type();
            (format!("{kind}/"), None, Some(kind), text)
        }
        false => (String::new(), text, None, None),
    };
    Document {
        context: None,
        id: format!("{SUBSCRIPTIONS}{of_type}{of_topic}/{of_subscriber}"),
        r#type: if is_one {
            "subscription"
        } else {
            "Subscription"
        },
        topic: topic_only,
        match_type,
        r#match: matcher,
        subscriber,
        active: true,
        payload,
        last: None,
    }
}

/// A connection's id as an IRI.
fn subscriber(id: ConnectionId) -> String {
    let hex = id.to_string();
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("urn:uuid:{a}-{b}-{c}-{d}-{e}")
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("strings and ready-made JSON always serialize")
}
