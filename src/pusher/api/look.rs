//! Looking: which channels have subscribers, how many, and who.
//!
//! Imports `node`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Refused, apart};
use crate::broker::Since;
use crate::ids::{Channel, Pattern};
use crate::node::Node;
use crate::wire::pusher;

/// `channels`
pub async fn channels(node: &Arc<Node>, query: &[(String, String)]) -> Result<Value, Refused> {
    let get = |name: &str| {
        let named = query.iter().find(|(its, _)| its == name);
        named.map_or("", |(_, value)| value.as_str()).to_owned()
    };
    let (prefix, info) = (get("filter_by_prefix"), get("info"));
    if has(&info, "user_count") && !prefix.starts_with("presence-") {
        return Err(Refused::bad("only presence channels have a user_count"));
    }
    let all = apart(node, |node| node.channels(&Pattern::any())).await?;
    let mut answers = Map::new();
    for summary in all {
        let name = summary.channel.as_str();
        if !name.starts_with(&prefix) {
            continue;
        }
        let mut attributes = Map::new();
        if has(&info, "subscription_count") {
            attributes.insert("subscription_count".into(), summary.subscribers.into());
        }
        if has(&info, "user_count") {
            let count = users_of(node, &summary.channel)?.len();
            attributes.insert("user_count".into(), count.into());
        }
        answers.insert(name.to_owned(), attributes.into());
    }
    Ok(json!({ "channels": answers }))
}

/// `channels/{name}`
pub async fn channel(
    node: &Arc<Node>,
    channel: &Channel,
    query: &[(String, String)],
) -> Result<Value, Refused> {
    let info = query.iter().find(|(name, _)| name == "info");
    let info = info.map_or("", |(_, value)| value.as_str());
    if has(info, "user_count") && !channel.is_presence() {
        return Err(Refused::bad("only presence channels have a user_count"));
    }
    let mut answer = attributes(node, channel, info).await?;
    let occupied = count(node, channel).await? > 0;
    answer.insert("occupied".into(), occupied.into());
    if has(info, "cache") {
        let channels = std::slice::from_ref(channel);
        let caught = node.catch_up(channels, Since::default());
        // Private updates are for those alone whom their publisher has named.
        let newest = caught.cached.first().filter(|newest| !newest.is_private());
        let cached = newest.map_or(
            Value::Null,
            |newest| json!({ "data": pusher::data(&newest.payload) }),
        );
        answer.insert("cache".into(), cached);
    }
    Ok(answer.into())
}

/// `channels/{name}/users`
pub fn users(node: &Arc<Node>, channel: &Channel) -> Result<Value, Refused> {
    if !channel.is_presence() {
        return Err(Refused::bad("only presence channels have users"));
    }
    let users = users_of(node, channel)?;
    let users: Vec<Value> = users.iter().map(|user| json!({ "id": user })).collect();
    Ok(json!({ "users": users }))
}

/// What `info` asks for of a channel, as far as it has that.
pub async fn attributes(
    node: &Arc<Node>,
    channel: &Channel,
    info: &str,
) -> Result<Map<String, Value>, Refused> {
    let mut attributes = Map::new();
    if has(info, "subscription_count") {
        attributes.insert(
            "subscription_count".into(),
            count(node, channel).await?.into(),
        );
    }
    if has(info, "user_count") && channel.is_presence() {
        let count = users_of(node, channel)?.len();
        attributes.insert("user_count".into(), count.into());
    }
    Ok(attributes)
}

async fn count(node: &Arc<Node>, channel: &Channel) -> Result<usize, Refused> {
    let channel = channel.clone();
    apart(node, move |node| node.subscribers(&channel)).await
}

fn users_of(node: &Node, channel: &Channel) -> Result<Vec<String>, Refused> {
    let members = node.members(channel)?;
    let users = members.iter().map(|member| member.user.to_string());
    Ok(users.collect())
}

fn has(info: &str, attribute: &str) -> bool {
    info.split(',').any(|its| its.trim() == attribute)
}
