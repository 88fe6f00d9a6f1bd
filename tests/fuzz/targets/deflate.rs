//! Compressed messages: whatever a client sends, judged by another decompressor; and what we send, unpacked again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use realtime::wire::deflate::{Inflater, Packer, Packing, Unpackable};
use realtime_fuzz::{choices, within};

fuzz_target!(|input: &[u8]| {
    let Some(([kind, limit], bytes)) = choices(input) else {
        return;
    };
    let limit = usize::from(limit) * 64;
    match kind % 2 {
        0 => unpack(bytes, limit),
        _ => pack(bytes),
    }
});

fn unpack(bytes: &[u8], limit: usize) {
    let mut inflater = Inflater::default();
    // The decompressor itself, the input once more, and the message, whose room grows in steps.
    let room = (64 << 10) + 2 * bytes.len() + 4 * limit;
    let unpacked = within(room, || inflater.unpack(bytes.to_vec(), limit));
    let whole = [bytes, &[0, 0, 0xff, 0xff, 3, 0]].concat();
    match &unpacked {
        Ok(message) => {
            assert!(message.len() <= limit);
            // A client may send several streams in a message; the other one reads the first.
            let first = decompress_to_vec_with_limit(&whole, limit).expect("deflate after all");
            assert!(message.starts_with(&first));
        }
        Err(Unpackable::TooLong) => {}
        Err(Unpackable::Broken) => match decompress_to_vec_with_limit(&whole, limit) {
            // The first of several streams, or a stream that ended before the end.
            Ok(first) => assert!(first.len() <= limit),
            Err(error) => assert_ne!(error.status, TINFLStatus::Done),
        },
    }
    // The same one goes on as if nothing had happened, whatever that was.
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(
        inflater.unpack(hello.to_vec(), 5).as_deref(),
        Ok(&b"Hello"[..])
    );
    assert_eq!(inflater.unpack(bytes.to_vec(), limit), unpacked);
}

/// Two messages, one after the other, for both kinds of windows.
fn pack(bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let mut packer = Packer::new(1);
    let mut inflater = Inflater::default();
    for message in [first, second, bytes] {
        for packing in [Packing::Wide, Packing::Narrow] {
            if let Some(packed) = packer.pack(message, packing).map(<[u8]>::to_vec) {
                assert!(packed.len() < message.len());
                let whole = [&packed[..], &[0, 0, 0xff, 0xff, 3, 0]].concat();
                let other = decompress_to_vec_with_limit(&whole, message.len());
                assert_eq!(other.expect("deflate"), message);
                let unpacked = inflater.unpack(packed, message.len());
                assert_eq!(unpacked.as_deref(), Ok(message));
            }
        }
    }
}
