//! Looks at the channels once a second, for those who want to know how many are there: webhooks, and clients that are told
//! the subscription count.
//!
//! Looking costs nothing where nobody wants to know, and nothing on the way of a message or a subscription. It sees what
//! native clients do as well. What is over within a second is not seen, and a channel is vacated only when it stays so: the
//! reload of a page is no news. Imports `node` and `hub`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Pusher;
use super::webhooks::Event;
use crate::hub::mailbox::Command;
use crate::ids::{Channel, Pattern};
use crate::node::Node;
use crate::wire::{Format, pusher, websocket};

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a channel has nobody before that is told.
const DELAY: Duration = Duration::from_secs(3);

/// What was seen of a channel.
#[derive(Debug, Default)]
struct Known {
    subscribers: usize,
    members: BTreeSet<String>,
    /// Since when nobody is there.
    empty: Option<Instant>,
}

/// Looks for as long as the server lives, and not while another has taken over: that may fail, and this one serves on.
pub async fn observe(pusher: &Arc<Pusher>, node: &Arc<Node>) {
    if pusher.newcomers.is_none() && pusher.webhooks.is_none() {
        return;
    }
    let mut known: HashMap<Channel, Known> = HashMap::new();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if node.has_resigned() {
            continue;
        }
        // Before looking: whoever comes meanwhile is told the next time.
        let newcomers = pusher.newcomers();
        let looking = node.clone();
        let looked = tokio::task::spawn_blocking(move || look(&looking)).await;
        // The shards are behind: another time.
        let Ok(Some(seen)) = looked else {
            for channel in newcomers.iter().flatten() {
                pusher.notice(channel);
            }
            continue;
        };
        let changed = compare(pusher, &mut known, seen, Instant::now());
        if let Some(mut newcomers) = newcomers {
            for channel in changed.iter().filter(|channel| !channel.is_presence()) {
                newcomers.remove(channel);
                let count = count(&known, channel);
                tell(node, channel, count);
                pusher.report(Event::SubscriptionCount {
                    channel: channel.to_string(),
                    subscription_count: count,
                });
            }
            // Somebody has come and somebody has gone: to the application that is no news.
            for channel in newcomers {
                tell(node, &channel, count(&known, &channel));
            }
        }
    }
}

fn count(known: &HashMap<Channel, Known>, channel: &Channel) -> usize {
    known.get(channel).map_or(0, |its| its.subscribers)
}

/// What a look finds.
type Seen = BTreeMap<Channel, (usize, BTreeSet<String>)>;

fn look(node: &Node) -> Option<Seen> {
    let mut seen = Seen::new();
    for summary in node.channels(&Pattern::any()).ok()? {
        let mut members = BTreeSet::new();
        if summary.channel.is_presence() {
            let found = node.members(&summary.channel).ok()?;
            members.extend(found.into_iter().map(|member| member.user.to_string()));
        }
        seen.insert(summary.channel, (summary.subscribers, members));
    }
    Some(seen)
}

/// Reports what has changed. Returns the channels with another number of subscribers than before.
fn compare(
    pusher: &Pusher,
    known: &mut HashMap<Channel, Known>,
    mut seen: Seen,
    now: Instant,
) -> Vec<Channel> {
    // Who is awaited for a while is a member still, though the channel has no subscriber.
    let mut changed = Vec::new();
    known.retain(|channel, its| {
        if seen.contains_key(channel) {
            its.empty = None;
            return true;
        }
        its.subscribers = 0;
        let since = *its.empty.get_or_insert(now);
        if now.saturating_duration_since(since) < DELAY {
            return true;
        }
        for user_id in &its.members {
            pusher.report(Event::MemberRemoved {
                channel: channel.to_string(),
                user_id: user_id.clone(),
            });
        }
        pusher.report(Event::ChannelVacated {
            channel: channel.to_string(),
        });
        false
    });
    while let Some((channel, (subscribers, members))) = seen.pop_first() {
        let name = || channel.to_string();
        let its = known.entry(channel.clone()).or_insert_with(|| {
            pusher.report(Event::ChannelOccupied { channel: name() });
            Known::default()
        });
        for user in members.difference(&its.members) {
            pusher.report(Event::MemberAdded {
                channel: name(),
                user_id: user.clone(),
            });
        }
        for user in its.members.difference(&members) {
            pusher.report(Event::MemberRemoved {
                channel: name(),
                user_id: user.clone(),
            });
        }
        its.members = members;
        if its.subscribers != subscribers {
            its.subscribers = subscribers;
            changed.push(channel);
        }
    }
    changed
}

/// Tells the Pusher clients of a channel how many subscribe to it.
fn tell(node: &Node, channel: &Channel, count: usize) {
    let data = serde_json::json!({ "subscription_count": count }).to_string();
    let name = "pusher_internal:subscription_count";
    let frame = pusher::event(name, Some(channel.as_str()), &data);
    let frame = websocket::plain_text(&frame);
    for index in 0..node.config().threads {
        let (channel, frame) = (channel.clone(), frame.clone());
        node.shard(index).put(Command::Run(Box::new(move |hub| {
            let is_ours = |format| matches!(format, Format::Pusher(_));
            hub.push_to_each(channel.as_str(), &frame, is_ours);
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_reload_is_no_news() {
        let config = Config::load(|name| match name {
            "realtime.pusher_app" => Some("1:key:0123456789abcdef".into()),
            "realtime.pusher_webhook" => Some("http://localhost/".into()),
            _ => None,
        });
        let (pusher, waiting) = Pusher::new(&config.unwrap());
        let mut waiting = waiting.unwrap();
        let mut known = HashMap::new();
        let begin = Instant::now();
        let seen = |users: &[&str]| -> Seen {
            let users = users.iter().map(|user| (*user).to_owned());
            let channel = Channel::parse("presence-a").unwrap();
            BTreeMap::from([(channel, (1, users.collect()))])
        };
        let mut told = |seconds: u64, seen: Seen| {
            let now = begin + Duration::from_secs(seconds);
            compare(&pusher, &mut known, seen, now);
            let mut told = Vec::new();
            while let Ok(event) = waiting.try_recv() {
                let json = serde_json::to_value(&event).unwrap();
                let user = json["user_id"].as_str().unwrap_or_default();
                told.push(format!("{} {user}", json["name"].as_str().unwrap()));
            }
            told
        };
        assert_eq!(
            told(0, seen(&["ada"])),
            ["channel_occupied ", "member_added ada"]
        );
        assert!(told(1, Seen::new()).is_empty());
        assert!(told(2, seen(&["ada"])).is_empty());
        assert_eq!(
            told(3, seen(&["bob"])),
            ["member_added bob", "member_removed ada"]
        );
        assert!(told(4, Seen::new()).is_empty());
        assert!(told(6, Seen::new()).is_empty());
        assert_eq!(
            told(7, Seen::new()),
            ["member_removed bob", "channel_vacated "]
        );
        assert!(told(8, Seen::new()).is_empty());
    }
}
