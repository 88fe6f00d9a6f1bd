//! Whose clock the times in a token are from: a token that this machine has signed says so.
//!
//! Clocks differ, and one that is ahead gives a token an `iat` that may be later than an `rt_revoke()` after it. Between two
//! times of one clock there is no such doubt. Imports nothing of this crate.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

/// The claim that names the clock. Signed with the rest, so that nobody else can say it.
pub const CLAIM: &str = "rt_clock";

/// This machine's, since it was started: the same in each of its processes and containers. `None` where the system does not
/// tell.
pub fn ours() -> Option<&'static str> {
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    NAME.get_or_init(|| {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        (!boot.is_empty()).then(|| name(&boot))
    })
    .as_deref()
}

/// What is shown of it: others than its own machine can do nothing with it.
fn name(boot: &[u8]) -> String {
    let hash = digest(&SHA256, &[b"realtime clock ", boot].concat());
    BASE64URL.encode(&hash.as_ref()[..9])
}
