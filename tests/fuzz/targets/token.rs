//! Tokens: as anybody may send them, and with claims of every kind behind a signature that is right.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use libfuzzer_sys::fuzz_target;
use realtime::auth::{Auth, BadToken, Grant, Stamp, is_user, sign};
use realtime::config::Config;
use realtime_fuzz::{choices, within};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/keys.json");
    let settings = [
        (
            "realtime.secret",
            "a secret of 32 bytes and more for fuzzing",
        ),
        ("realtime.token_keys", keys),
    ];
    let find = |name: &str| settings.iter().find(|(known, _)| *known == name);
    Config::load(|name| find(name).map(|(_, value)| (*value).to_owned())).expect("settings")
});
static AUTH: LazyLock<Auth> = LazyLock::new(|| Auth::new(&CONFIG).expect("keys"));

fuzz_target!(|input: &[u8]| {
    let auth = &*AUTH;
    let Some(([kind], bytes)) = choices(input) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let room = 64 * text.len() + (32 << 10);
    match kind % 4 {
        // Nobody can guess a signature.
        0 => refused(within(room, || auth.check(text))),
        1 => {
            let (header, claims) = text.split_once('\n').unwrap_or(("", text));
            let token = format!(
                "{}.{}.c2lnbmVk",
                BASE64.encode(header),
                BASE64.encode(claims)
            );
            let checked = within(room, || auth.check(&token));
            refused(checked);
            assert!(auth.revoke_token(&token).is_err());
        }
        2 => {
            if let Ok(token) = within(room, || sign(&CONFIG, bytes, 60)) {
                // Also what `nbf` puts off, or was revoked; nothing else that was signed here is refused here.
                match within(room, || auth.check(&token)) {
                    Ok(grant) => granted(&grant),
                    Err(bad) => assert!(matches!(bad, BadToken::NotYet), "{bad:?} of {text:?}"),
                }
                changed(auth, &token);
            }
        }
        _ => {
            // Claims that sign() would not have: times above all.
            let token = by_hand(text);
            if let Ok(grant) = within(room, || auth.check(&token)) {
                granted(&grant);
            }
        }
    }
});

fn refused(checked: Result<Grant, BadToken>) {
    let bad = checked.expect_err("a token that nobody signed");
    assert!(matches!(bad.code(), "bad_token" | "token_expired"));
}

fn granted(grant: &Grant) {
    assert!(grant.user.as_deref().is_none_or(is_user));
    assert!(grant.expires > grant.issued);
    let longest = CONFIG.max_token_ttl + std::time::Duration::from_secs(10);
    assert!(grant.expires <= Stamp::now().after(longest));
    if let Some(info) = &grant.info {
        serde_json::from_str::<serde::de::IgnoredAny>(info).expect("info is JSON");
    }
}

/// One letter of the claims or of the signature: never of the last, whose lowest bits may mean nothing.
fn changed(auth: &Auth, token: &str) {
    let at = token.len() / 2;
    let other = if token.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    if token.as_bytes()[at] != b'.' {
        let forged = [&token[..at], other, &token[at + 1..]].concat();
        refused(auth.check(&forged));
    }
}

fn by_hand(claims: &str) -> String {
    use aws_lc_rs::hmac;
    let header = BASE64.encode(r#"{"alg":"HS256"}"#);
    let signed = format!("{header}.{}", BASE64.encode(claims));
    let secret = CONFIG.secret.first().expect("a secret");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}
