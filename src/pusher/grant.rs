//! `rt_pusher_auth()`: what the application's own auth endpoint answers. Runs in any PHP process; the server is not asked.
//!
//! Imports `pusher`'s signatures and `config`.

use serde_json::{Map, Value};

use super::auth;
use crate::config::Config;
use crate::ids::Channel;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// The operator's to mend.
    #[error(
        "there is no app to sign with: set realtime.pusher_app to id:key:secret, the same for the server and every PHP process"
    )]
    NoApp,
    /// The operator's to mend.
    #[error(
        "there is no key for private-encrypted- channels: set realtime.pusher_master_key to 32 random bytes in base64 \
         (`openssl rand -base64 32` makes one)"
    )]
    NoMasterKey,
    /// The client's, or the PHP programmer's: completes "must ...".
    #[error("be a socket_id, which is two numbers and a dot between them")]
    SocketId,
    /// The PHP programmer's: completes "must ...".
    #[error("{0}")]
    Channel(String),
    /// The PHP programmer's: completes "must ...".
    #[error("{0}")]
    User(&'static str),
}

/// Signs that `socket_id` may subscribe to `channel` or, without one, that it may sign in. `user` is JSON: on presence
/// channels the member, with a `user_id`; for signing in the user, with an `id`.
pub fn grant(
    config: &Config,
    socket_id: &str,
    channel: &str,
    user: Option<&str>,
) -> Result<Map<String, Value>, NotGranted> {
    let app = config.pusher_app.first().ok_or(NotGranted::NoApp)?;
    if !auth::is_socket_id(socket_id) {
        return Err(NotGranted::SocketId);
    }
    let mut answer = Map::new();
    if channel.is_empty() {
        let data = user.filter(|user| has_name(user, "id"));
        let why = "have an \"id\", a string or an integer, when no channel is given";
        let data = data.ok_or(NotGranted::User(why))?;
        answer.insert("auth".into(), auth::sign_user(app, socket_id, data).into());
        answer.insert("user_data".into(), data.into());
        return Ok(answer);
    }
    let checked =
        Channel::parse(channel).map_err(|error| NotGranted::Channel(error.to_string()))?;
    if !checked.is_guarded() {
        let why = "be a private- or presence- channel, or empty: others need no signature";
        return Err(NotGranted::Channel(why.into()));
    }
    let data = user.filter(|_| channel.starts_with("presence-"));
    if channel.starts_with("presence-") && !data.is_some_and(|user| has_name(user, "user_id")) {
        let why = "have a \"user_id\", a string or an integer, for a presence- channel";
        return Err(NotGranted::User(why));
    }
    let signed = auth::sign_channel(app, socket_id, channel, data);
    answer.insert("auth".into(), signed.into());
    if let Some(data) = data {
        answer.insert("channel_data".into(), data.into());
    }
    if channel.starts_with("private-encrypted-") {
        let master = config.pusher_master_key.bytes();
        let master = master.ok_or(NotGranted::NoMasterKey)?;
        let secret = auth::shared_secret(channel, master);
        answer.insert("shared_secret".into(), secret.into());
    }
    Ok(answer)
}

fn has_name(json: &str, field: &str) -> bool {
    let read: Result<Map<String, Value>, _> = serde_json::from_str(json);
    match read.ok().as_ref().and_then(|map| map.get(field)) {
        Some(Value::String(name)) => crate::auth::is_user(name),
        Some(Value::Number(number)) => number.is_i64() || number.is_u64(),
        _ => false,
    }
}
