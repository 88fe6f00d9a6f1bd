//! What proves a token, and what does not.

use std::fs;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use realtime::server::StartError;
use serde_json::json as value;

use super::{all_refuse, hub, native};
use crate::client::{Client, masked};
use crate::harness::{Hub, alone, directory, eventually};
use crate::issuer::{Pair, SETTING, at, signed, token};

#[test]
fn bad_tokens_are_refused_on_every_way_in() {
    let hub = Hub::with(&[SETTING, ("realtime.token_audience", "us")]);
    let bad = |claims| {
        let mut claims: serde_json::Value = claims;
        if claims.get("aud").is_none() {
            claims["aud"] = "us".into();
        }
        token(claims)
    };
    let good = bad(value!({"sub": "ada"}));
    assert!(hub.node().auth().check(&good).is_ok());
    let wrong_key = EncodingKey::from_secret(b"some other secret, as long as ours is");
    let aud = || value!({"aud": "us"});
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    let cases = [
        (String::new(), "bad_token"),
        ("garbage".into(), "bad_token"),
        ("a.b.c".into(), "bad_token"),
        ("%00%ff.%20.%0a".into(), "bad_token"),
        (none, "bad_token"),
        (good[..good.len() - 2].to_owned(), "bad_token"),
        (
            signed(&Header::new(Algorithm::HS256), aud(), &wrong_key),
            "bad_token",
        ),
        (
            signed(&Header::new(Algorithm::HS384), aud(), &wrong_key),
            "bad_token",
        ),
        (Pair::rsa().token(None, aud()), "bad_token"),
        (bad(value!({"exp": at(-1.0)})), "token_expired"),
        (bad(value!({"nbf": at(60.0)})), "bad_token"),
        (bad(value!({"aud": "them"})), "bad_token"),
        (token(value!({})), "bad_token"),
        ("x".repeat(9000), "bad_token"),
    ];
    for (token, code) in cases {
        assert_eq!(all_refuse(&hub, &token), (401, code.to_owned()), "{token}");
    }
    assert_eq!(hub.stats().connections_total, 0);
}

#[test]
fn a_huge_token_costs_its_sender_alone() {
    let hub = hub();
    let huge = "x".repeat(100_000);
    let mut client = Client::connect(hub.address());
    client.send(format!("GET /poll?channel=a&token={huge} HTTP/1.1\r\nHost: a\r\n").as_bytes());
    let refused = String::from_utf8(client.rest()).unwrap();
    assert!(refused.starts_with("HTTP/1.1 4"), "{refused}");
    let mut client = native(&hub, &token(value!({})));
    client.json();
    let frame = value!({"type": "token", "token": "x".repeat(50_000), "ref": 1}).to_string();
    assert_eq!(client.ask(&frame)["code"], "bad_token");
    client.send(&masked(
        0x81,
        value!({"type": "token", "token": huge})
            .to_string()
            .as_bytes(),
    ));
    assert_eq!(client.frame().close().0, 1009);
}

#[test]
fn public_keys_prove_what_others_sign() {
    let directory = directory();
    let file = directory.path().join("keys");
    let name = file.display().to_string();
    let (rsa, ec, stranger) = (Pair::rsa(), Pair::ec(), Pair::ec());
    fs::write(&file, format!("{}\n{}", rsa.public, ec.public)).unwrap();
    let hub = Hub::with(&[SETTING, ("realtime.token_keys", &name)]);
    let check = |token: &str| hub.node().auth().check(token).map_err(|bad| bad.code());
    for pair in [&rsa, &ec] {
        assert!(check(&pair.token(None, value!({}))).is_ok());
        assert!(
            check(&pair.token(Some("any"), value!({}))).is_ok(),
            "PEM names no keys"
        );
    }
    assert!(
        check(&token(value!({}))).is_ok(),
        "the secret holds beside them"
    );
    assert_eq!(check(&stranger.token(None, value!({}))), Err("bad_token"));
    // The public key is known to all: it must not pass for a secret.
    for public in [&rsa.public, &ec.public] {
        for text in [public.as_str(), public.trim_end()] {
            let key = EncodingKey::from_secret(text.as_bytes());
            let forged = signed(
                &Header::new(Algorithm::HS256),
                value!({"sub": "root"}),
                &key,
            );
            assert_eq!(check(&forged), Err("bad_token"));
        }
    }
    // A token may name its key; then that one counts. The file is read again when it changes.
    let set = value!({"keys": [
        rsa.jwk("one"), stranger.jwk("two"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "three"}, {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "four"},
    ]});
    fs::write(&file, set.to_string()).unwrap();
    eventually("the new keys", || {
        check(&stranger.token(Some("two"), value!({}))).is_ok()
    });
    assert!(check(&rsa.token(Some("one"), value!({}))).is_ok());
    assert_eq!(check(&rsa.token(Some("two"), value!({}))), Err("bad_token"));
    assert_eq!(
        check(&ec.token(None, value!({}))),
        Err("bad_token"),
        "it is gone"
    );
    let oct = EncodingKey::from_secret(b"secret");
    assert_eq!(
        check(&signed(&Header::new(Algorithm::HS256), value!({}), &oct)),
        Err("bad_token")
    );
    // What cannot be read changes nothing.
    fs::write(&file, "{broken").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(check(&rsa.token(Some("one"), value!({}))).is_ok());
}

#[test]
fn a_file_without_usable_keys_is_told_at_the_start() {
    let directory = directory();
    let file = directory.path().join("keys");
    let pair = Pair::ec();
    let cut = &pair.public[..pair.public.len() - 10];
    let cases = [
        ("", "neither PEM nor a JWK set"),
        (&*pair.private, "it has a private key"),
        (cut, "without end"),
        (
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
            "it has a CERTIFICATE",
        ),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "neither RSA nor EC",
        ),
        ("{}", "no public key"),
        ("{broken", "it is no JWK set"),
        (r#"{"keys":[]}"#, "no public key"),
        (
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#,
            "no public key",
        ),
    ];
    for (content, expected) in cases {
        fs::write(&file, content).unwrap();
        let config = crate::harness::config(
            &directory,
            &[("realtime.token_keys", &file.display().to_string())],
        );
        let queue = realtime::backend::queue::EventQueue::new(1 << 20).unwrap();
        let error =
            realtime::server::Server::start(config, std::sync::Arc::new(queue)).unwrap_err();
        assert!(matches!(error, StartError::Keys(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.contains("realtime.token_keys"),
            "{text}"
        );
    }
}

#[test]
fn nothing_secret_is_logged() {
    if !alone("tokens::proof::nothing_secret_is_logged") {
        return;
    }
    let logs = directory();
    let file = logs.path().join("log").display().to_string();
    let hub = Hub::with(&[
        SETTING,
        ("realtime.log", &file),
        ("realtime.log_level", "trace"),
    ]);
    let good = token(value!({"sub": "ada", "exp": at(5.0)}));
    let mut client = native(&hub, &good);
    let welcome = client.json();
    let bad = format!("{}x", token(value!({})));
    all_refuse(&hub, &bad);
    client.ask(&value!({"type": "token", "token": bad}).to_string());
    client.say("{broken");
    client.json();
    client.frame();
    drop(client);
    eventually("its end", || hub.node().connection_count() == 0);
    let log = fs::read_to_string(&file).unwrap();
    assert!(log.contains("status=401"), "{log}");
    let key = welcome["key"].as_str().unwrap();
    let signature = good.rsplit('.').next().unwrap();
    for secret in [SETTING.1, &*bad, key, signature, &good] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    let stats = format!(
        "{:?} {:?}",
        hub.stats(),
        hub.node().connections(None).unwrap()
    );
    assert!(!stats.contains(signature));
    assert!(!format!("{:?}", hub.node().config()).contains(SETTING.1));
}
