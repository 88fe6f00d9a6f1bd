//! Publishing: one event to some channels, or some events to a channel each.
//!
//! Imports `node` and `wire`.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Refused, look};
use crate::ids::{self, Channel};
use crate::message::{EventName, Publish};
use crate::node::Node;
use crate::wire::pusher;

/// The largest data of an event, in bytes.
const DATA_MAX: usize = 10 << 10;
/// Channels of one event.
const CHANNELS_MAX: usize = 100;
/// Events of one batch.
const BATCH_MAX: usize = 10;

/// An event as it is asked for.
#[derive(Debug, Deserialize)]
pub struct Event {
    name: String,
    data: String,
    channel: Option<String>,
    channels: Option<Vec<String>>,
    socket_id: Option<String>,
    info: Option<String>,
}

/// A batch of them.
#[derive(Debug, Deserialize)]
pub struct Batch {
    batch: Vec<Event>,
}

/// An event that has been checked.
struct Ready {
    publish: Publish,
    info: Option<String>,
}

/// `events`
pub async fn one(node: &Arc<Node>, event: Event) -> Result<Value, Refused> {
    let ready = check(node, event)?;
    let channels = ready.publish.channels.clone();
    node.publish_async(ready.publish).await?;
    let Some(info) = ready.info else {
        return Ok(json!({}));
    };
    let mut answers = Map::new();
    for channel in channels {
        let answer = told(node, &channel, &info).await;
        answers.insert(channel.as_str().to_owned(), answer.into());
    }
    Ok(json!({ "channels": answers }))
}

/// `batch_events`: all of them or, when one does not fit, none.
pub async fn batch(node: &Arc<Node>, batch: Batch) -> Result<Value, Refused> {
    if batch.batch.len() > BATCH_MAX {
        let message = format!("a batch has at most {BATCH_MAX} events");
        return Err(Refused::bad(message));
    }
    let checked = batch.batch.into_iter().map(|event| check(node, event));
    let ready: Vec<Ready> = checked.collect::<Result<_, _>>()?;
    let wants = ready.iter().any(|event| event.info.is_some());
    let mut answers = Vec::new();
    for Ready { publish, info } in ready {
        let channel = publish.channels[0].clone();
        node.publish_async(publish).await?;
        if wants {
            let info = info.unwrap_or_default();
            answers.push(told(node, &channel, &info).await);
        }
    }
    if wants {
        Ok(json!({ "batch": answers }))
    } else {
        Ok(json!({}))
    }
}

/// What `info` asks for of a channel to which an event was published. Without it when the shards are too late to tell: whoever
/// hears of an error publishes once more.
async fn told(node: &Arc<Node>, channel: &Channel, info: &str) -> Map<String, Value> {
    let attributes = look::attributes(node, channel, info).await;
    attributes.unwrap_or_default()
}

fn check(node: &Node, event: Event) -> Result<Ready, Refused> {
    if event.data.len() > DATA_MAX {
        let message = format!(
            "the data has {} bytes, {DATA_MAX} are allowed",
            event.data.len()
        );
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(Refused::new(status, "too_large", message));
    }
    ids::check_event(&event.name)
        .map_err(|error| Refused::bad(format!("the name must {error}")))?;
    if event.name.starts_with("pusher:") || event.name.starts_with("pusher_internal:") {
        return Err(Refused::bad(
            "names that begin with pusher: are the protocol's own",
        ));
    }
    let names = match (event.channel, event.channels.unwrap_or_default()) {
        (Some(channel), channels) if channels.is_empty() => vec![channel],
        (None, channels) if (1..=CHANNELS_MAX).contains(&channels.len()) => channels,
        _ => {
            let message = format!("name a channel, or 1 to {CHANNELS_MAX} channels");
            return Err(Refused::bad(message));
        }
    };
    let mut channels: Vec<Channel> = Vec::with_capacity(names.len());
    for name in &names {
        let channel = channel(name)?;
        // Named twice, it gets the event once.
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    let except = event
        .socket_id
        .filter(|id| !id.is_empty())
        .map(|id| id.parse())
        .transpose()
        .map_err(|_| Refused::bad("socket_id is no connection's id"))?;
    let payload = pusher::payload(&event.data);
    node.check_size(payload.len())?;
    let publish = Publish {
        channels,
        payload,
        event: EventName::new(&event.name),
        except,
        id: None,
        store: true,
        terms: None,
    };
    Ok(Ready {
        publish,
        info: event.info.filter(|info| !info.is_empty()),
    })
}

fn channel(name: &str) -> Result<Channel, Refused> {
    match Channel::user_of(name) {
        Some(user) if crate::auth::is_user(user) => Ok(Channel::of_user(user)),
        _ => super::channel(name),
    }
}
