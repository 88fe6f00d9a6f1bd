//! What a request asks for, parsed once: its query, and who is asking.
//!
//! Imports `ids` and `message`.

use std::sync::Arc;

use hyper::header::HeaderMap;
use hyper::http::request::Parts;

use super::forwarded::Peer;
use super::response::Refusal;
use super::{Shared, forwarded};
use crate::auth::Grant;
use crate::ids::{Channel, ConnectionId};
use crate::message::{ConnectionInfo, Transport};

/// Channels in one request.
const CHANNELS_MAX: usize = 1000;

/// The query of `/sse`, `/stream`, `/poll`, `/history` and `/presence`.
#[derive(Debug, Default)]
pub struct Query {
    /// `channel=` and `new=`, once or more; no doubles.
    pub channels: Vec<Channel>,
    /// `new=`: those of them for which `since` does not hold.
    pub new: Vec<Channel>,
    /// `since=`, or the `Last-Event-ID` header.
    pub since: Option<String>,
    /// `meta=1`
    pub meta: bool,
    /// `timeout=`, as it was written.
    pub timeout: Option<String>,
    /// `before=`
    pub before: Option<String>,
    /// `limit=`, as it was written.
    pub limit: Option<String>,
    /// `session=1`
    pub session: bool,
    /// `connection=`
    pub connection: Option<String>,
    /// `key=`
    pub key: Option<String>,
}

impl Query {
    /// Reads it.
    pub fn parse(parts: &Parts) -> Result<Self, Refusal> {
        let mut query = Self::default();
        let text = parts.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "channel" | "channel[]" => query.add_channel(&value)?,
                "new" => {
                    query.add_channel(&value)?;
                    query.new.push(channel(&value)?);
                }
                "since" | "lastEventId" => query.since = Some(value.into_owned()),
                "meta" => query.meta = is_on(&value),
                "before" => query.before = Some(value.into_owned()).filter(|id| !id.is_empty()),
                "limit" => query.limit = Some(value.into_owned()),
                "timeout" => query.timeout = Some(value.into_owned()),
                "session" => query.session = is_on(&value),
                "connection" => query.connection = Some(value.into_owned()),
                "key" => query.key = Some(value.into_owned()),
                // The application's own, which its handlers read.
                _ => {}
            }
        }
        // What the browser says when it reconnects is newer than what the page wrote into the URL.
        if let Some(id) = parts
            .headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok())
        {
            query.since = Some(id.to_owned());
        }
        query.since = query.since.filter(|since| !since.is_empty());
        Ok(query)
    }

    /// Refuses a query that names no channel, unless it is `connected`: then what PHP sends to it alone can arrive.
    pub fn with_channels(self, connected: bool) -> Result<Self, Refusal> {
        if self.channels.is_empty() && !connected {
            return Err(Refusal::bad("bad_channel", "name a channel: ?channel=…"));
        }
        Ok(self)
    }

    fn add_channel(&mut self, name: &str) -> Result<(), Refusal> {
        let channel = channel(name)?;
        if !self.channels.contains(&channel) {
            if self.channels.len() == CHANNELS_MAX {
                return Err(Refusal::bad(
                    "too_many_subscriptions",
                    "at most 1000 channels",
                ));
            }
            self.channels.push(channel);
        }
        Ok(())
    }
}

/// Takes `name` as a channel's.
pub fn channel(name: &str) -> Result<Channel, Refusal> {
    Channel::parse(name).map_err(|error| {
        Refusal::bad("bad_channel", format!("the channel must {error}")).about(name)
    })
}

/// A new connection's identity, with what its token grants.
pub fn identify(
    shared: &Shared,
    transport: Transport,
    peer: Peer<'_>,
    parts: &Parts,
    grant: Option<Grant>,
) -> Result<Arc<ConnectionInfo>, Refusal> {
    let mut random = [0u8; 24];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "the kernel gives no random numbers");
        Refusal::new(
            hyper::StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "no random numbers",
        )
    })?;
    let (id, key) = random.split_at(16);
    let id = u128::from_ne_bytes(id.try_into().expect("16 bytes"));
    let key = u64::from_ne_bytes(key.try_into().expect("8 bytes"));
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let client = forwarded::client(&parts.headers, peer, &shared.node.config().trusted_proxies);
    let mut info = ConnectionInfo::new(
        ConnectionId::new(shared.shard, id),
        key,
        transport,
        &client.ip,
        target,
        headers(&parts.headers),
    );
    info.secure = client.secure;
    Ok(Arc::new(info.with_grant(grant)))
}

fn headers(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
}

fn is_on(value: &str) -> bool {
    matches!(value, "1" | "true" | "yes" | "on")
}
