//! The newest compressed messages, of all shards: each is compressed once, however many threads deliver it and however
//! many clients that resume are given it again.
//!
//! Bounded by [`KEPT`] bytes and [`AGE`]; what is no longer there is compressed anew. Imports `wire` and `message`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::message::Publication;
use crate::wire::deflate::{Packer, Packing};
use crate::wire::{self, Format};

/// How much is kept, in bytes.
const KEPT: usize = 4 << 20;
/// What is larger is compressed by each shard that needs it.
const LARGEST: usize = KEPT / 16;
/// How long: most who resume have been away for less. Frames that stay for ever lie between what clients leave behind, which can
/// then not be given back to the system.
const AGE: Duration = Duration::from_secs(30);
/// What a message's envelope adds, at the least; one that stays below `realtime.compress_min` is not compressed, and not kept.
const ENVELOPE: usize = 64;
/// What a message weighs beside its content: its envelope, and the entry.
const COST: usize = 256;

/// The epoch and the number of a publication, and the index of a format.
type Key = (u32, u64, u8);

/// The shared messages.
#[derive(Debug, Default)]
pub struct Packed(
    // Held for a look-up. Encoding happens outside it: only those who want the same message wait for each other.
    Mutex<Kept>,
);

#[derive(Debug, Default)]
struct Kept {
    frames: HashMap<Key, Arc<OnceLock<Bytes>>>,
    /// Oldest first.
    order: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    /// What it may weigh.
    weight: usize,
    at: Instant,
}

impl Packed {
    /// Encodes a publication for `format`, unless that has been done already.
    pub fn encode(&self, publication: &Publication, format: Format, packer: &mut Packer) -> Bytes {
        let length = publication.payload.len();
        let is_packed = format.packing() != Packing::Plain && packer.packs(length + ENVELOPE);
        if !is_packed || length > LARGEST {
            return wire::encode_publication(publication, format, packer);
        }
        let position = publication.position;
        let key = (position.epoch, position.seq, format.index() as u8);
        let frame = self.lock().frame(key, length);
        frame
            .get_or_init(|| wire::encode_publication(publication, format, packer))
            .clone()
    }

    /// Forgets what is old.
    pub fn expire(&self, now: Instant) {
        self.lock()
            .drop_while(|_, oldest| now.saturating_duration_since(oldest.at) > AGE);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing under this lock can leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn frame(&mut self, key: Key, length: usize) -> Arc<OnceLock<Bytes>> {
        if let Some(frame) = self.frames.get(&key) {
            return frame.clone();
        }
        let frame = Arc::<OnceLock<Bytes>>::default();
        self.frames.insert(key, frame.clone());
        // Not more than this: base64 adds a third, compression never adds.
        let weight = length + length / 3 + COST;
        self.order.push_back(Entry {
            key,
            weight,
            at: Instant::now(),
        });
        self.bytes += weight;
        self.drop_while(|bytes, _| bytes > KEPT);
        frame
    }

    fn drop_while(&mut self, condition: impl Fn(usize, &Entry) -> bool) {
        while let Some(oldest) = self.order.front()
            && condition(self.bytes, oldest)
        {
            self.frames.remove(&oldest.key);
            self.bytes -= oldest.weight;
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Channel, Position};
    use crate::message::{EventName, Payload};

    fn publication(seq: u64, length: usize) -> Publication {
        let json = format!("\"{}\"", "x".repeat(length));
        Publication {
            channel: Channel::parse("a").unwrap(),
            position: Position { epoch: 1, seq },
            id: None,
            event: EventName::Message,
            payload: Payload::Json(json.into()),
            except: None,
            at: std::time::Instant::now(),
            terms: None,
        }
    }

    #[test]
    fn a_message_is_compressed_once_for_each_format() {
        let packed = Packed::default();
        let (mut one, mut other) = (Packer::new(1), Packer::new(1));
        let publication = publication(1, 1000);
        let raw = Format::Raw(Packing::Wide);
        let first = packed.encode(&publication, raw, &mut one);
        let again = packed.encode(&publication, raw, &mut other);
        assert_eq!(first.as_ptr(), again.as_ptr());
        assert!(first.len() < 50);
        let narrow = packed.encode(&publication, Format::Raw(Packing::Narrow), &mut one);
        assert_ne!(first.as_ptr(), narrow.as_ptr());
        let plain = packed.encode(&publication, Format::Raw(Packing::Plain), &mut one);
        assert_eq!(plain.len(), 4 + 1000);
    }

    #[test]
    fn what_is_small_or_old_is_not_kept() {
        let packed = Packed::default();
        let mut packer = Packer::new(256);
        let raw = Format::Raw(Packing::Wide);
        packed.encode(&publication(1, 100), raw, &mut packer);
        assert_eq!(packed.lock().frames.len(), 0);
        packed.encode(&publication(2, 1000), raw, &mut packer);
        packed.expire(Instant::now());
        assert_eq!(packed.lock().frames.len(), 1);
        packed.expire(Instant::now() + AGE + Duration::from_secs(1));
        let kept = packed.lock();
        assert_eq!((kept.frames.len(), kept.order.len(), kept.bytes), (0, 0, 0));
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let packed = Packed::default();
        let mut packer = Packer::new(1);
        for seq in 0..3000 {
            packed.encode(
                &publication(seq, 10_000),
                Format::Raw(Packing::Wide),
                &mut packer,
            );
        }
        let kept = packed.0.lock().unwrap();
        assert!(kept.bytes <= KEPT && kept.bytes > KEPT / 2);
        assert_eq!(kept.frames.len(), kept.order.len());
        drop(kept);
        let large = publication(3000, LARGEST);
        packed.encode(&large, Format::Raw(Packing::Wide), &mut packer);
        let kept = packed.0.lock().unwrap();
        assert!(
            !kept
                .frames
                .contains_key(&(1, 3000, Format::Raw(Packing::Wide).index() as u8))
        );
    }
}
