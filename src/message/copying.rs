//! Copies of messages that share no memory with what they are copies of.

use std::sync::Arc;

use bytes::Bytes;

use super::{EventName, Payload, Publication, Terms};
use crate::ids::Channel;

/// A larger payload fills pages of its own, nearly: a copy would gain nothing.
const LARGE: usize = 16 << 10;

/// Copies one message after the other. What several in a row share, as the copies of one message for several channels do, their
/// copies share as well.
#[derive(Debug, Default)]
pub struct Copier {
    payload: Option<(Bytes, Bytes)>,
    event: Option<(Arc<str>, Arc<str>)>,
    by: Option<(Arc<str>, Arc<str>)>,
    terms: Option<(Arc<Terms>, Arc<Terms>)>,
}

impl Copier {
    /// A copy with this name of its channel.
    pub fn copy(&mut self, publication: &Publication, channel: Channel) -> Publication {
        Publication {
            channel,
            position: publication.position,
            id: publication.id.clone(),
            event: self.event(&publication.event),
            payload: match &publication.payload {
                Payload::Json(bytes) => Payload::Json(self.bytes(bytes)),
                Payload::Binary(bytes) => Payload::Binary(self.bytes(bytes)),
            },
            except: publication.except,
            at: publication.at,
            terms: publication.terms.as_ref().map(|it| self.terms(it)),
        }
    }

    /// How many bytes copying this payload takes.
    pub fn length(payload: &Payload) -> usize {
        let length = payload.len();
        if length > LARGE { 0 } else { length }
    }

    fn bytes(&mut self, bytes: &Bytes) -> Bytes {
        if bytes.len() > LARGE {
            return bytes.clone();
        }
        match &self.payload {
            // While it is held here, nothing else is in its place.
            Some((old, new)) if old.as_ptr() == bytes.as_ptr() && old.len() == bytes.len() => {
                new.clone()
            }
            _ => {
                let new = Bytes::copy_from_slice(bytes);
                self.payload = Some((bytes.clone(), new.clone()));
                new
            }
        }
    }

    fn event(&mut self, event: &EventName) -> EventName {
        match event {
            EventName::Message => EventName::Message,
            EventName::Join => EventName::Join,
            EventName::Leave => EventName::Leave,
            EventName::Other(name) => EventName::Other(text(&mut self.event, name)),
            EventName::Said { name, by } => EventName::Said {
                name: text(&mut self.event, name),
                by: text(&mut self.by, by),
            },
        }
    }

    fn terms(&mut self, terms: &Arc<Terms>) -> Arc<Terms> {
        match &self.terms {
            Some((old, new)) if Arc::ptr_eq(old, terms) => new.clone(),
            _ => {
                let new = Arc::new(Terms {
                    topics: terms.topics.iter().map(Channel::copied).collect(),
                    ..(**terms).clone()
                });
                self.terms = Some((terms.clone(), new.clone()));
                new
            }
        }
    }
}

fn text(latest: &mut Option<(Arc<str>, Arc<str>)>, text: &Arc<str>) -> Arc<str> {
    match latest {
        Some((old, new)) if Arc::ptr_eq(old, text) => new.clone(),
        _ => {
            let new: Arc<str> = (&**text).into();
            *latest = Some((text.clone(), new.clone()));
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::ids::Position;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).unwrap()
    }

    #[test]
    fn a_copy_says_the_same_and_shares_nothing_but_with_its_row() {
        let (payload, name) = (Bytes::from(vec![b'1'; 100]), Arc::<str>::from("client-x"));
        let terms = Arc::new(Terms {
            private: true,
            retry: Some(7),
            topics: Box::new([channel("a"), channel("b")]),
            first: 4,
        });
        let row = ["a", "b"].map(|of| Publication {
            channel: channel(of),
            position: Position { epoch: 1, seq: 4 },
            id: Some("own".into()),
            event: EventName::Said {
                name: name.clone(),
                by: "ada".into(),
            },
            payload: Payload::Json(payload.clone()),
            except: None,
            at: Instant::now(),
            terms: Some(terms.clone()),
        });
        let mut copier = Copier::default();
        let copies = [0, 1].map(|n| copier.copy(&row[n], row[n].channel.copied()));
        for (old, new) in row.iter().zip(&copies) {
            assert_eq!(format!("{old:?}"), format!("{new:?}"));
            assert_ne!(old.channel.as_str().as_ptr(), new.channel.as_str().as_ptr());
            let (Payload::Json(of), Payload::Json(is)) = (&old.payload, &new.payload) else {
                panic!("{new:?}");
            };
            assert_ne!(of.as_ptr(), is.as_ptr());
            assert_ne!(old.event.as_str().as_ptr(), new.event.as_str().as_ptr());
            let topic = |it: &Publication| it.topics()[1].as_str().as_ptr();
            assert_ne!(topic(old), topic(new));
            let by = |it: &Publication| it.event.by().unwrap().as_ptr();
            assert_ne!(by(old), by(new));
        }
        let [one, other] = &copies;
        let shared = |it: &Publication| match &it.payload {
            Payload::Json(bytes) | Payload::Binary(bytes) => bytes.as_ptr(),
        };
        assert_eq!(shared(one), shared(other));
        assert!(Arc::ptr_eq(
            one.terms.as_ref().unwrap(),
            other.terms.as_ref().unwrap()
        ));
    }

    #[test]
    fn what_is_large_is_not_copied() {
        let large = Payload::Binary(Bytes::from(vec![0; LARGE + 1]));
        assert_eq!(Copier::length(&large), 0);
        let Payload::Binary(bytes) = &large else {
            panic!("{large:?}");
        };
        assert_eq!(Copier::default().bytes(bytes).as_ptr(), bytes.as_ptr());
    }
}
