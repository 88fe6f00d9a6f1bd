//! Batches and outcomes between the hub and the PHP processes that handle its events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use realtime::wire::control;
use realtime::wire::events::{Batch, Outcomes};
use realtime_fuzz::{again, choices, within};

fuzz_target!(|input: &[u8]| {
    let Some(([kind], bytes)) = choices(input) else {
        return;
    };
    let room = 128 * bytes.len() + 16_384;
    if kind % 2 == 0 {
        if let Ok(batch) = within(room, || control::read::<Batch>(bytes)) {
            again!(Batch, &batch);
            for party in batch.parties {
                if let Some(info) = party.connection.into_info() {
                    assert!(info.headers().count() < info.head().len() + 1);
                }
            }
        }
    } else if let Ok(outcomes) = within(room, || control::read::<Outcomes>(bytes)) {
        again!(Outcomes, &outcomes);
    }
});
