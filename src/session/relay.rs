//! What a client publishes to other clients without PHP: by its token's `publish`, or as a client event.
//!
//! Imports `node`.

use super::Denied;
use crate::backend::ReplyTo;
use crate::ids::Channel;
use crate::message::{ConnectionInfo, EventName, Incoming, Payload, Publish};
use crate::node::{Failure, Node};
use crate::wire::mercure;

/// How a message goes to the other subscribers without PHP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// The token allows it: as if the application had published it.
    Token,
    /// `realtime.client_events` does: for those who are there now.
    ClientEvent,
}

/// Which way, if any.
pub(super) async fn past_php(
    node: &Node,
    from: &ConnectionInfo,
    channel: &Channel,
    event: &EventName,
) -> Option<Past> {
    if channel.as_str().starts_with(mercure::PATH) {
        // What is told there, the server tells.
        return None;
    }
    let grant = from.grant();
    if grant.is_some_and(|grant| grant.publishes(channel.as_str())) {
        return Some(Past::Token);
    }
    // The name tells those who get it that the application did not say it.
    let possible = node.config().client_events
        && channel.is_guarded()
        && event.as_str().starts_with("client-");
    (possible && node.is_subscribed(from.id, channel.clone()).await).then_some(Past::ClientEvent)
}

/// Sends it.
pub(super) async fn relay(
    node: &Node,
    from: &ConnectionInfo,
    channel: Channel,
    event: EventName,
    data: Incoming,
    way: Past,
    reply_to: ReplyTo,
) -> Result<(), Denied> {
    if node.has_resigned() {
        // Another hub gives the numbers by now; the client will find it in a moment.
        return Err(Denied::Gone);
    }
    let payload = match data {
        Incoming::Json(json) => Payload::Json(json),
        Incoming::Binary(bytes) => Payload::Binary(bytes),
        // A frame of text is a string, as when PHP publishes one.
        Incoming::Text(text) => {
            let text = String::from_utf8_lossy(&text);
            let json = serde_json::to_vec(&text).expect("a string always serializes");
            Payload::Json(json.into())
        }
    };
    let event = match event {
        // Others there know the client by a name.
        EventName::Other(name) if channel.is_presence() && way == Past::ClientEvent => {
            let by = from.user().map(Into::into);
            by.map_or(EventName::Other(name.clone()), |by| EventName::Said {
                name,
                by,
            })
        }
        event => event,
    };
    let publish = Publish {
        channels: vec![channel],
        payload,
        event,
        except: Some(from.id),
        id: None,
        store: way == Past::Token,
        terms: None,
    };
    node.publish_async(publish)
        .await
        .map_err(|failure| match failure {
            Failure::TooLarge { .. } => Denied::TooLarge,
            Failure::Busy => Denied::Busy,
            Failure::Unstored(_) => Denied::NotStored,
            // A client's message has no id of its own.
            Failure::Invalid(_) | Failure::Stopped | Failure::Refused(_) | Failure::Link(_) => {
                Denied::Gone
            }
        })?;
    node.reply(reply_to, Ok(None));
    Ok(())
}
