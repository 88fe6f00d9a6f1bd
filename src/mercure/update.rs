//! What a publisher's update becomes: the same for a form and for `rt_update()`.
//!
//! Imports `ids`, `message`, `selector` and `wire`.

use percent_encoding::percent_decode_str;

use super::subscriptions::OWN_TYPE;
use crate::ids::{self, Channel, InvalidId, Position};
use crate::message::{EventName, Publish, Terms};
use crate::selector::Base;
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

/// Checks `update`, of a publisher who may publish to what `may` says: by version 1.0 where there is a `base`, else by 0.x.
pub fn publish(
    update: Update,
    base: Option<&Base>,
    may: impl Fn(&str) -> bool,
) -> Result<Publish, Wrong> {
    let mut channels: Vec<Channel> = Vec::with_capacity(update.topics.len());
    for topic in update.topics {
        if is_reserved(&topic, base) {
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
        if id.starts_with('#') || base.is_some() && id == EARLIEST {
            return Err(Wrong::IdReserved);
        }
    }
    if let Some(event) = &update.event {
        ids::check_event(event).map_err(Wrong::Type)?;
        if base.is_some() && event == OWN_TYPE {
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

/// Whether a topic is the hub's own. Since version 1.0 however it is written.
fn is_reserved(topic: &str, base: Option<&Base>) -> bool {
    let Some(base) = base else {
        return topic.contains(PATH);
    };
    let whole = base.resolve(topic);
    let plain = percent_decode_str(&whole).decode_utf8_lossy();
    let mut path = Vec::new();
    for segment in plain.split('/') {
        match segment {
            "." => {}
            ".." => drop(path.pop()),
            other => path.push(other),
        }
    }
    path.join("/").contains(PATH)
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
        let made = publish(update(&["a", "b", "a"]), None, |_| true).unwrap();
        assert_eq!(made.channels, made.terms.unwrap().topics.into_vec());
        assert_eq!(made.channels.len(), 2);
        // An ordinary message costs what it always did.
        assert_eq!(
            publish(update(&["a", "a"]), None, |_| true).unwrap().terms,
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
                publish(update(&["a", topic]), None, may).unwrap_err(),
                wrong
            );
        }
        let named = |id: &str| Update {
            id: Some(id.to_owned()),
            ..update(&["a"])
        };
        assert_eq!(
            publish(named("#1"), None, may).unwrap_err(),
            Wrong::IdReserved
        );
        assert_eq!(
            publish(named("a b"), None, may).unwrap_err(),
            Wrong::Id(InvalidId::Custom)
        );
        let typed = Update {
            event: Some("realtime.x".to_owned()),
            ..update(&["a"])
        };
        assert_eq!(
            publish(typed, None, may).unwrap_err(),
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
            assert!(publish(good, None, |_| true).is_ok());
        }
        let base = Base::of("https://hub.example/.well-known/mercure").unwrap();
        let wrong = |update| publish(update, Some(&base), |_| true).unwrap_err();
        assert_eq!(wrong(earliest()), Wrong::IdReserved);
        assert_eq!(wrong(own()), Wrong::TypeReserved);
        for topic in [
            "/.well-known/%6Dercure/x",
            "/.well-known/a/../mercure",
            "https://any.example/./.well-known/mercure",
            "mercure/subscriptions/exact/a/b",
        ] {
            let update = self::update(&[topic]);
            assert_eq!(wrong(update), Wrong::Reserved(topic.to_owned()));
        }
        assert!(publish(self::update(&["https://mercure/"]), Some(&base), |_| true).is_ok());
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
