//! Who is subscribed to what: as updates when that changes, and as lists (the Mercure specification, "Active
//! Subscriptions").
//!
//! A list is made of what the connections asked for; nothing is kept for it. Imports `node` and `wire`.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::{Channel, ConnectionId, SUBSCRIPTIONS};
use crate::message::{ConnectionInfo, EventName, Payload, Publish, Terms};
use crate::node::Node;
use crate::selector::Selector;
use crate::wire::mercure;

/// What RFC 6570 encodes in a simple expansion.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

const CONTEXT: &str = "https://mercure.rocks/";

/// A subscription as JSON-LD.
#[derive(Debug, Serialize)]
struct Document {
    #[serde(rename = "@context", skip_serializing_if = "Option::is_none")]
    context: Option<&'static str>,
    id: String,
    r#type: &'static str,
    topic: String,
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
    #[serde(rename = "@context")]
    context: &'static str,
    id: &'a str,
    r#type: &'static str,
    #[serde(rename = "lastEventID")]
    last: String,
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
        for topic in &self.topics {
            let document = Document {
                context: Some(CONTEXT),
                active,
                ..document(&self.info, topic.as_str())
            };
            // Not longer than a channel's name may be: the topic is not.
            let Ok(channel) = Channel::parse(&document.id) else {
                continue;
            };
            let publish = Publish {
                channels: vec![channel],
                payload: Payload::Json(json(&document).into()),
                event: EventName::Message,
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
    let mut subscriptions = Vec::new();
    for info in node.all_connections() {
        for topic in topics_of(&info) {
            if found.topic.as_ref().is_none_or(|its| *its == topic) {
                let document = document(&info, &topic);
                if found
                    .subscriber
                    .as_ref()
                    .is_none_or(|its| *its == document.subscriber)
                {
                    subscriptions.push(document);
                }
            }
        }
    }
    if found.subscriber.is_some() {
        let mut one = subscriptions.pop()?;
        one.context = Some(CONTEXT);
        one.last = Some(last.clone());
        return Some((json(&one), last));
    }
    let collection = Collection {
        context: CONTEXT,
        id: &found.path,
        r#type: "Subscriptions",
        last: last.clone(),
        subscriptions,
    };
    Some((json(&collection), last))
}

/// The topic selectors of a connection, if it is one of this protocol.
fn topics_of(info: &ConnectionInfo) -> Vec<String> {
    let mut topics: Vec<String> = Vec::new();
    if info.path() == mercure::PATH {
        for (name, value) in form_urlencoded::parse(info.query().as_bytes()) {
            if matches!(&*name, "topic" | "topic[]") && !topics.iter().any(|its| *its == value) {
                topics.push(value.into_owned());
            }
        }
    }
    topics
}

fn document(info: &ConnectionInfo, topic: &str) -> Document {
    let subscriber = subscriber(info.id);
    let payload = info.grant().and_then(|grant| {
        let json = grant.info.as_deref()?;
        RawValue::from_string(json.to_owned()).ok()
    });
    let [of_topic, of_subscriber] =
        [topic, &subscriber].map(|text| utf8_percent_encode(text, ENCODED).to_string());
    Document {
        context: None,
        id: format!("{SUBSCRIPTIONS}{of_topic}/{of_subscriber}"),
        r#type: "Subscription",
        topic: topic.to_owned(),
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
