//! permessage-deflate (RFC 7692) without context takeover: each message is compressed by itself, so that one
//! compression serves everybody, and a connection keeps nothing between two messages.
//!
//! A shard has one [`Packer`] and one [`Inflater`], made when first needed; both work on whole messages. Imports nothing
//! of this crate.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

/// What RFC 7692 has the sender cut off the end of a message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// An empty last block. Behind the tail it ends the stream if, and only if, the message was whole.
const LAST: [u8; 2] = [3, 0];
/// Of 1 (fast) to 9 (small). Measured on JSON of 1 KiB and 64 KiB: level 1 takes a third of the time of 3 and leaves a
/// quarter to a half more, level 6 takes the same to 2.6 times as long and leaves 3 to 10% less.
const LEVEL: i32 = 3;
/// Of 1 to 9: how many symbols share a code table. 5 costs less memory and time than zlib's 8, and no size.
const MEMORY: i32 = 5;

/// How a connection wants its messages compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// With a window of 15 bits, as every browser has it.
    Wide,
    /// With a window of 9 bits, for whoever asked for less than 15: two windows are enough to share.
    Narrow,
}

impl Packing {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// A number below [`Packing::COUNT`] of its own.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The size of the window.
    pub fn window_bits(self) -> u8 {
        match self {
            Self::Plain | Self::Wide => 15,
            Self::Narrow => 9,
        }
    }
}

/// Compresses messages.
#[derive(Default)]
pub struct Packer {
    /// The smallest message worth it; 0 is none.
    min: usize,
    wide: Option<Box<Deflate>>,
    narrow: Option<Box<Deflate>>,
    output: Vec<u8>,
}

impl Packer {
    /// One that compresses messages of `min` bytes and more; none with 0.
    pub fn new(min: usize) -> Self {
        Self {
            min,
            ..Self::default()
        }
    }

    /// Whether a message of that length is large enough.
    pub fn packs(&self, length: usize) -> bool {
        self.min > 0 && length >= self.min
    }

    /// Compresses a message. `None` when it is too small, or compression would not make it smaller.
    pub fn pack(&mut self, message: &[u8], packing: Packing) -> Option<&[u8]> {
        if !self.packs(message.len()) {
            return None;
        }
        if self.output.capacity() > KEPT && message.len() <= KEPT {
            // Not kept for ever after one huge message.
            self.output = Vec::new();
        }
        let place = match packing {
            Packing::Plain => return None,
            Packing::Wide => &mut self.wide,
            Packing::Narrow => &mut self.narrow,
        };
        // Put back when all went well alone: one that was stopped halfway does not start anew properly.
        let mut engine = place.take().unwrap_or_else(|| engine(packing));
        engine.reset();
        let room = most(message.len());
        self.output.clear();
        self.output.reserve_exact(room);
        let spare = &mut self.output.spare_capacity_mut()[..room];
        let done = engine.compress_uninit(message, spare, DeflateFlush::SyncFlush);
        let written = engine.total_out() as usize;
        if done.is_err() || engine.total_in() as usize != message.len() || written == room {
            return None;
        }
        *place = Some(engine);
        // SAFETY: the compressor has just initialized the first `written` bytes of the spare capacity.
        unsafe { self.output.set_len(written) };
        let packed = self.output.strip_suffix(&TAIL)?;
        (packed.len() < message.len()).then_some(packed)
    }
}

fn engine(packing: Packing) -> Box<Deflate> {
    let mut config = DeflateConfig::new(LEVEL);
    // Negative is zlib's way to say: without a header.
    config.window_bits = -i32::from(packing.window_bits());
    config.mem_level = MEMORY;
    Box::new(Deflate::new_with_config(config))
}

/// What a message of `length` bytes can have at most when it is compressed: zlib's own bound for any settings, and the tail.
/// The compressor is never to run out of room, see [`Packer::pack`].
fn most(length: usize) -> usize {
    length + length.div_ceil(8) + length.div_ceil(64) + 64
}

/// What a [`Packer`] keeps between two messages, in bytes.
const KEPT: usize = 256 << 10;

/// Why a message cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpackable {
    /// It would have more than so many bytes.
    TooLong,
    /// It is not a deflate stream, or only a part of one.
    Broken,
}

/// Decompresses messages.
#[derive(Default)]
pub struct Inflater(Option<Box<Inflate>>);

impl Inflater {
    /// Decompresses a message of at most `limit` bytes, and never makes more of it than one byte over.
    pub fn unpack(&mut self, mut packed: Vec<u8>, limit: usize) -> Result<Vec<u8>, Unpackable> {
        let engine = self.0.take();
        // Put back when all went well alone, as in [`Packer::pack`].
        let mut engine = engine.unwrap_or_else(|| Box::new(Inflate::new(false, 15)));
        engine.reset(false);
        packed.extend_from_slice(&TAIL);
        packed.extend_from_slice(&LAST);
        let mut input = packed.as_slice();
        let mut output = Vec::new();
        loop {
            if output.len() == output.capacity() {
                let more = output.capacity().max(packed.len() * 3).max(256);
                // One byte over the limit shows that it is exceeded.
                output.reserve_exact(more.min(limit + 1 - output.len()));
            }
            let (read, made) = (engine.total_in(), engine.total_out());
            let status = engine
                .decompress_uninit(input, output.spare_capacity_mut(), InflateFlush::NoFlush)
                .map_err(|_| Unpackable::Broken)?;
            let read = (engine.total_in() - read) as usize;
            let made = (engine.total_out() - made) as usize;
            input = &input[read..];
            // SAFETY: the decompressor has just initialized the next `made` bytes of the spare capacity.
            unsafe { output.set_len(output.len() + made) };
            if output.len() > limit {
                return Err(Unpackable::TooLong);
            }
            match status {
                Status::StreamEnd if input.is_empty() => {
                    self.0 = Some(engine);
                    return Ok(output);
                }
                // A sender may mark a block as the last (RFC 7692, section 7.2.3.4): what follows begins anew.
                Status::StreamEnd => engine.reset(false),
                // There was room: it wants input that is not there.
                Status::Ok | Status::BufError if read == 0 && made == 0 => {
                    return Err(Unpackable::Broken);
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer")
            .field("min", &self.min)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflater")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(message: &[u8], packing: Packing) -> Vec<u8> {
        Packer::new(1).pack(message, packing).unwrap().to_vec()
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let message = br#"{"id":1,"status":"paid"}"#.repeat(1000);
        let mut packer = Packer::new(1);
        let mut inflater = Inflater::default();
        for packing in [Packing::Wide, Packing::Narrow, Packing::Wide] {
            let packed = packer.pack(&message, packing).unwrap().to_vec();
            assert!(packed.len() < message.len() / 20, "{}", packed.len());
            assert_eq!(inflater.unpack(packed, message.len()).unwrap(), message);
        }
    }

    #[test]
    fn a_message_that_would_grow_is_left_as_it_is() {
        let mut noise = vec![0; 1000];
        getrandom::fill(&mut noise).unwrap();
        let mut packer = Packer::new(1);
        for length in [0, 1, 2, 1000] {
            assert_eq!(packer.pack(&noise[..length], Packing::Wide), None);
        }
    }

    #[test]
    fn messages_of_any_kind_follow_each_other() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random >> 16
        };
        let mut packer = Packer::new(1);
        let mut inflater = Inflater::default();
        let mut packed = 0;
        for _ in 0..300 {
            let most = [300, 3000, 20_000, 140_000][next() as usize % 4];
            let length = next() as usize % most;
            // From all the same to pure noise.
            let mask = (1_u32 << (next() % 9)) - 1;
            let message: Vec<u8> = (0..length).map(|_| (next() as u32 & mask) as u8).collect();
            for packing in [Packing::Wide, Packing::Narrow] {
                if let Some(bytes) = packer.pack(&message, packing) {
                    let bytes = bytes.to_vec();
                    assert!(bytes.len() < length);
                    assert_eq!(inflater.unpack(bytes, length).unwrap(), message);
                    packed += 1;
                }
                let other = match packing {
                    Packing::Wide => &packer.wide,
                    _ => &packer.narrow,
                };
                assert!(other.is_some(), "the compressor was stopped");
            }
        }
        assert!(packed > 300, "{packed}");
    }

    #[test]
    fn small_messages_are_left_as_they_are() {
        let message = [b'x'; 300];
        let mut packer = Packer::new(300);
        assert!(packer.pack(&message, Packing::Wide).is_some());
        assert_eq!(packer.pack(&message[1..], Packing::Wide), None);
        assert_eq!(packer.pack(&message, Packing::Plain), None);
        assert_eq!(Packer::new(0).pack(&message, Packing::Wide), None);
    }

    #[test]
    fn a_narrow_window_is_kept_to() {
        let mut inflater = Inflate::new(false, 9);
        let mut noise = vec![0; 600];
        getrandom::fill(&mut noise).unwrap();
        let hex: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
        let message = [hex.as_bytes(), hex.as_bytes(), &[b'x'; 5000]].concat();
        let mut packed = packed(&message, Packing::Narrow);
        packed.extend(TAIL);
        let mut output = vec![0; message.len()];
        // In small pieces, so that references go to the window and not to the output.
        let (mut read, mut made) = (0, 0);
        while made < output.len() {
            let end = output.len().min(made + 64);
            inflater
                .decompress(
                    &packed[read..],
                    &mut output[made..end],
                    InflateFlush::NoFlush,
                )
                .unwrap();
            read = inflater.total_in() as usize;
            made = inflater.total_out() as usize;
        }
        assert_eq!(output, message);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = packed(&vec![0; 10 << 20], Packing::Wide);
        assert!(bomb.len() < 20_000);
        let mut inflater = Inflater::default();
        let unpacked = inflater.unpack(bomb.clone(), 64 << 10);
        assert_eq!(unpacked, Err(Unpackable::TooLong));
        assert_eq!(inflater.unpack(bomb, 10 << 20).unwrap().len(), 10 << 20);
    }

    #[test]
    fn what_is_cut_off_or_not_deflate_is_refused() {
        let whole = packed(&b"hello, hello, hello, hello".repeat(20), Packing::Wide);
        let mut inflater = Inflater::default();
        assert!(inflater.unpack(whole.clone(), 1000).is_ok());
        for length in 0..whole.len() {
            let cut = inflater.unpack(whole[..length].to_vec(), 1000);
            assert_eq!(cut, Err(Unpackable::Broken), "{length}");
        }
        for bad in [&b"\xff\xff\xff"[..], b"\x07", b"plain text"] {
            let refused = inflater.unpack(bad.to_vec(), 1000);
            assert_eq!(refused, Err(Unpackable::Broken), "{bad:?}");
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let mut inflater = Inflater::default();
        let mut unpack = |bytes: &[u8]| inflater.unpack(bytes.to_vec(), 100).unwrap();
        // Section 7.2.3: a compressed block, a stored block, a last block, and two blocks.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(unpack(&hello), b"Hello");
        let stored = [0, 5, 0, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0];
        assert_eq!(unpack(&stored), b"Hello");
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(unpack(&last), b"Hello");
        let two = [
            0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ];
        assert_eq!(unpack(&two), b"Hello");
        assert_eq!(unpack(&[0]), b"");
    }
}
