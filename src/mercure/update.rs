//! What a publisher's update becomes: the same for a form and for `rt_update()`.
//!
//! Imports `ids`, `message` and `wire`.

use super::subscriptions::OWN_TYPE;
use crate::ids::{self, Channel, InvalidId, Position};
use crate::message::{EventName, Publish, Terms};
use crate::wire::mercure::{EARLIEST, PATH, Update, payload, urn};

/// Why an update cannot be published. What must be is in the words of [`InvalidId`].
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// This topic is no channel's name.
    Topic(String, InvalidId),
    /// This topic is the hub's own.
    Reserved(String),
    /// Its publisher may not publish to this topic.
    Forbidden(String),
    /// The id is none.
    Id(InvalidId),
    /// The id is of the kind that hubs give, or stands for none.
    IdReserved,
    /// The type is none.
    Type(InvalidId),
    /// The type is that of the hub's own updates.
    TypeReserved,
}

/// Checks `update`, of a publisher who may publish to what `may` says, by version 1.0 or before.
pub fn publish(update: Update, is_one: bool, may: impl Fn(&str) -> bool) -> Result<Publish, Wrong> {
    let mut channels: Vec<Channel> = Vec::with_capacity(update.topics.len());
    for topic in update.topics {
        // As text: `/.well-known/%6Dercure` is another channel, and no pattern takes one for the other.
        if topic.contains(PATH) {
            return Err(Wrong::Reserved(topic));
        }
        if !may(&topic) {
            return Err(Wrong::Forbidden(topic));
        }
        let channel = Channel::parse(&topic).map_err(|error| Wrong::Topic(topic, error))?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    if let Some(id) = &update.id {
        ids::check_custom_id(id).map_err(Wrong::Id)?;
        if id.starts_with('#') || is_one && id == EARLIEST {
            return Err(Wrong::IdReserved);
        }
    }
    if let Some(event) = &update.event {
        ids::check_event(event).map_err(Wrong::Type)?;
        if is_one && event == OWN_TYPE {
            return Err(Wrong::TypeReserved);
        }
    }
    let several = channels.len() > 1;
    let terms = Terms {
        private: update.private,
        retry: update.retry,
        topics: match several {
            true => channels.clone().into(),
            false => Box::default(),
        },
        first: 0,
    };
    let has_terms = several || terms.private || terms.retry.is_some();
    Ok(Publish {
        terms: has_terms.then(|| Box::new(terms)),
        channels,
        payload: payload(update.data),
        event: update
            .event
            .map_or(EventName::Message, |name| EventName::new(&name)),
        except: None,
        id: update.id.map(Into::into),
        store: true,
    })
}

/// The id by which its publisher is told of it, which subscribers see, too. `given` is what the broker answered.
pub fn public_id(given: String, is_named: bool) -> String {
    match given.parse::<Position>() {
        Ok(position) if !is_named => urn(position),
        _ => given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(topics: &[&str]) -> Update {
        Update {
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            data: "x".to_owned(),
            ..Update::default()
        }
    }

    #[test]
    fn the_topics_of_an_update_are_told_once_each() {
        let made = publish(update(&["a", "b", "a"]), false, |_| true).unwrap();
        assert_eq!(made.channels, made.terms.unwrap().topics.into_vec());
        assert_eq!(made.channels.len(), 2);
        // An ordinary message costs what it always did.
        assert_eq!(
            publish(update(&["a", "a"]), false, |_| true).unwrap().terms,
            None
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let may = |topic: &str| topic != "b";
        let own = "https://h/.well-known/mercure/subscriptions/x";
        for (topic, wrong) in [
            ("b", Wrong::Forbidden("b".into())),
            (own, Wrong::Reserved(own.into())),
            (
                "a b",
                Wrong::Topic("a b".into(), InvalidId::ChannelChar(' ')),
            ),
        ] {
            assert_eq!(
                publish(update(&["a", topic]), false, may).unwrap_err(),
                wrong
            );
        }
        let named = |id: &str| Update {
            id: Some(id.to_owned()),
            ..update(&["a"])
        };
        assert_eq!(
            publish(named("#1"), false, may).unwrap_err(),
            Wrong::IdReserved
        );
        assert_eq!(
            publish(named("a b"), false, may).unwrap_err(),
            Wrong::Id(InvalidId::Custom)
        );
        let typed = Update {
            event: Some("realtime.x".to_owned()),
            ..update(&["a"])
        };
        assert_eq!(
            publish(typed, false, may).unwrap_err(),
            Wrong::Type(InvalidId::EventReserved)
        );
    }

    #[test]
    fn version_1_has_names_of_its_own() {
        let update = |id: Option<&str>, event: Option<&str>| Update {
            id: id.map(str::to_owned),
            event: event.map(str::to_owned),
            ..update(&["a"])
        };
        let earliest = || update(Some("earliest"), None);
        let own = || update(None, Some("mercure"));
        for good in [earliest(), own()] {
            assert!(publish(good, false, |_| true).is_ok());
        }
        let wrong = |update| publish(update, true, |_| true).unwrap_err();
        assert_eq!(wrong(earliest()), Wrong::IdReserved);
        assert_eq!(wrong(own()), Wrong::TypeReserved);
    }

    #[test]
    fn an_id_is_told_as_subscribers_see_it() {
        let made = "1f00aa31-42";
        assert_eq!(
            public_id(made.into(), false),
            urn(made.parse::<Position>().unwrap())
        );
        assert_eq!(public_id(made.into(), true), made);
    }
}
