//! What a broker does with what is published and asked for.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::message::{EventName, Payload};

#[derive(Default)]
struct Seen(Mutex<Vec<u64>>);

impl BrokerEvents for Seen {
    fn publication(&self, publication: Arc<Publication>) {
        self.0.lock().unwrap().push(publication.position.seq);
    }
}

fn broker() -> Memory<Seen> {
    let limits = Limits {
        count: 3,
        age: Duration::from_secs(60),
        bytes: 1 << 20,
    };
    let cache = Cache::new(Vec::new(), 1 << 20);
    Memory::new(limits, cache, 7, Seen::default())
}

fn from(id: Option<&str>) -> Since<'_> {
    Since { id, except: &[] }
}

fn publish(channels: &[&str], id: Option<&str>) -> Publish {
    Publish {
        channels: channels
            .iter()
            .map(|c| Channel::parse(c).unwrap())
            .collect(),
        payload: Payload::Json(Bytes::from_static(b"1")),
        event: EventName::Message,
        except: None,
        id: id.map(Into::into),
        store: true,
        terms: None,
    }
}

impl Memory<Seen> {
    fn id_of(&self, publish: Publish) -> String {
        match self.publish(publish) {
            Published::Done { id, receipt: None } => id,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_id_is_accepted_once_a_channel() {
    let broker = broker();
    assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
    assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
    assert_eq!(broker.id_of(publish(&["a", "b"], Some("x"))), "x");
    assert_eq!(*broker.events.0.lock().unwrap(), [1, 2]);
}

#[test]
fn an_own_id_of_several_channels_skips_none() {
    let broker = broker();
    broker.id_of(publish(&["a", "b"], Some("x")));
    let channels = ["b", "a"].map(|name| Channel::parse(name).unwrap());
    let caught = broker.catch_up(&channels, from(Some("x")));
    let missed = caught.missed.iter().map(|m| m.publications.len());
    assert_eq!(missed.collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn since_takes_positions_and_own_ids() {
    let broker = broker();
    let a = [Channel::parse("a").unwrap()];
    assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
    assert_eq!(broker.id_of(publish(&["a"], None)), "00000007-2");
    for since in ["x", "00000007-1"] {
        let caught = broker.catch_up(&a, from(Some(since)));
        assert_eq!(caught.missed[0].publications.len(), 1, "{since}");
        assert!(caught.missed[0].recovered, "{since}");
    }
    for unknown in ["y", "00000008-1", "00000007-9", ""] {
        let caught = broker.catch_up(&a, from(Some(unknown)));
        assert!(!caught.missed[0].recovered, "{unknown}");
        assert_eq!(caught.missed[0].publications.len(), 2, "{unknown}");
    }
}
