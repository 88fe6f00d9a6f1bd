//! A connection as PHP sees it.
//!
//! Made by the transports at the handshake, or of what the control socket carries. Imports `ids`, `auth`, and the pace of
//! `limits`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::auth::{self, Grant};
use crate::config::Rate;
use crate::ids::ConnectionId;
use crate::limits::Pace;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `/ws`: the native protocol over WebSocket.
    WebSocket,
    /// `/raw/{channel}`: bare WebSocket.
    Raw,
    /// `/sse`: Server-Sent Events.
    Sse,
    /// `/stream`: one JSON object a line over HTTP.
    Stream,
    /// `/poll`: long polling.
    Poll,
    /// `POST /publish` of a client that has no other connection.
    Http,
    /// `/app/{key}`: the Pusher protocol over WebSocket.
    Pusher,
}

impl Transport {
    /// All of them, in the order of [`Transport::index`].
    pub const ALL: [Self; 7] = [
        Self::WebSocket,
        Self::Raw,
        Self::Sse,
        Self::Stream,
        Self::Poll,
        Self::Http,
        Self::Pusher,
    ];

    /// Its place in [`Transport::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name that PHP sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Raw => "raw",
            Self::Sse => "sse",
            Self::Stream => "stream",
            Self::Poll => "poll",
            Self::Http => "http",
            Self::Pusher => "pusher",
        }
    }
}

/// A connection as PHP sees it: fixed at the handshake.
///
/// The request is kept as one block of text, because most connections are never looked at and there may be
/// a hundred thousand of them.
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// How it is connected.
    pub transport: Transport,
    /// The client's address without the port; empty for a Unix socket. What a proxy said, when it is trusted.
    pub ip: Box<str>,
    /// Whether a trusted proxy said that the client speaks TLS. Known to the server alone.
    pub(crate) secure: bool,
    /// The secret with which a `POST /publish` proves to come from this connection; 0 where it is not known.
    pub(crate) key: u64,
    /// `path?query` on the first line, then `name: value` lines, names in lower case.
    head: Box<str>,
    /// What PHP keeps with the connection between two events, as JSON; none for null. Bounded by
    /// `realtime.state_size`.
    // A lock because shards, the control thread and PHP's own thread hold the same connection; taken only when an
    // event is handed out or its outcome comes back.
    state: Mutex<Option<Box<str>>>,
    /// Who it is: the `sub` of its token, or as whom it has signed in since.
    user: OnceLock<Box<str>>,
    /// What its token allows; none without a token. Another when the client has refreshed it, of the same user.
    // A lock because `rt_revoke()` looks from other threads; taken for a clone of the pointer.
    grant: Mutex<Option<Arc<Grant>>>,
    /// What has come from it, over its own socket or in its name.
    // A lock because any shard may serve a `POST /publish`; taken for an addition.
    pace: Mutex<Pace>,
}

impl std::fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the head, which has cookies and tokens, and without the key.
        f.debug_struct("ConnectionInfo")
            .field("id", &self.id)
            .field("transport", &self.transport)
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}

impl ConnectionInfo {
    /// Makes one of a request's target and headers. Values lose what is not UTF-8.
    pub fn new<'a>(
        id: ConnectionId,
        key: u64,
        transport: Transport,
        ip: &str,
        target: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut head = String::with_capacity(256);
        head.push_str(target);
        for (name, value) in headers {
            head.push('\n');
            head.push_str(name);
            head.push_str(": ");
            head.push_str(&String::from_utf8_lossy(value));
        }
        Self {
            id,
            transport,
            ip: ip.into(),
            secure: false,
            key,
            head: head.into_boxed_str(),
            state: Mutex::default(),
            user: OnceLock::new(),
            grant: Mutex::default(),
            pace: Mutex::default(),
        }
    }

    /// With what its token says.
    pub fn with_grant(self, grant: Option<Grant>) -> Self {
        Self {
            user: known(grant.as_ref().and_then(|grant| grant.user.clone())),
            grant: Mutex::new(grant.map(Arc::new)),
            ..self
        }
    }

    /// As [`ConnectionInfo::user`] of the same connection elsewhere.
    pub fn with_user(self, user: Option<Box<str>>) -> Self {
        Self {
            user: known(user),
            ..self
        }
    }

    /// The same connection rebuilt from [`ConnectionInfo::head`], as the control socket carries it.
    pub fn from_head(id: ConnectionId, transport: Transport, ip: &str, head: &str) -> Self {
        Self {
            id,
            transport,
            ip: ip.into(),
            secure: false,
            key: 0,
            head: head.into(),
            state: Mutex::default(),
            user: OnceLock::new(),
            grant: Mutex::default(),
            pace: Mutex::default(),
        }
    }

    /// Whether `key` is its own.
    pub(crate) fn has_key(&self, key: u64) -> bool {
        auth::is_same(&self.key.to_ne_bytes(), &key.to_ne_bytes())
    }

    /// Counts what came from it. Returns how long to wait before anything more is read from it.
    pub(crate) fn spend(&self, rate: Rate, messages: usize, bytes: usize) -> Option<Duration> {
        if rate.is_none() {
            return None;
        }
        self.pace().spend(rate, messages, bytes)
    }

    /// Counts what came in its name over another socket, where nobody can be made to wait; unless it has outrun its pace.
    pub(crate) fn may_spend(&self, rate: Rate, messages: usize, bytes: usize) -> bool {
        if rate.is_none() {
            return true;
        }
        let mut pace = self.pace();
        // A debt is no more than what was let in last: a message may be larger than all that is free.
        let may = pace.spend(rate, 0, 0).is_none();
        if may {
            pace.spend(rate, messages, bytes);
        }
        may
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Numbers, each right by itself.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who it is, if its token said so or it has signed in.
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(|user| &**user)
    }

    /// Notes as whom it has signed in. `false` when it is somebody else already.
    pub fn sign_in(&self, user: &str) -> bool {
        &**self.user.get_or_init(|| user.into()) == user
    }

    /// What its token allows, if it has one.
    pub fn grant(&self) -> Option<Arc<Grant>> {
        self.grant
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a fresh token of the same user. Returns the grant before.
    pub fn refresh(&self, grant: Arc<Grant>) -> Option<Arc<Grant>> {
        self.grant
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(grant)
    }

    /// The request as one block of text: the target, then a line for each header.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// What PHP keeps with the connection, as JSON.
    pub fn state(&self) -> Option<Box<str>> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps another state; `None` for null.
    pub fn set_state(&self, state: Option<Box<str>>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The path of the request, without the query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The query of the request as it was sent, without the `?`; empty when there is none.
    pub fn query(&self) -> &str {
        self.target().split_once('?').map_or("", |(_, query)| query)
    }

    /// The headers in the order sent, names in lower case. A name may come more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head
            .split('\n')
            .skip(1)
            // A name has no colon; to look for one byte costs a third of looking for two.
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name, value.strip_prefix(' ')?))
            })
    }

    /// The path and query of the request, as they were sent.
    pub fn target(&self) -> &str {
        self.head.split('\n').next().unwrap_or_default()
    }
}

fn known(user: Option<Box<str>>) -> OnceLock<Box<str>> {
    user.map_or_else(OnceLock::new, OnceLock::from)
}
