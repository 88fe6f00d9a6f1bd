use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "the secret of these tests; long enough";

fn config(settings: &[(&str, &str)]) -> Config {
    Config::load(|name| {
        let given = settings.iter().find(|(given, _)| *given == name);
        given.map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

fn auth(settings: &[(&str, &str)]) -> Auth {
    let mut all = vec![("realtime.secret", SECRET)];
    all.extend(settings);
    Auth::new(&config(&all)).unwrap()
}

fn now() -> f64 {
    Stamp::now().seconds()
}

/// A token of these claims, beside an `iat` and an `exp` that are right.
fn token(claims: Value) -> String {
    signed(claims, SECRET)
}

fn signed(claims: Value, secret: &str) -> String {
    let mut all = json!({"iat": now() as u64, "exp": now() as u64 + 60});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &all, &key).unwrap()
}

#[test]
fn claims_become_a_grant() {
    let claims = json!({
        "sub": 42, "channels": ["private-user.42", "presence-*"], "publish": "private-room.*",
        "info": {"name": "Ada"}, "iss": "somebody", "role": ["x"],
    });
    let grant = auth(&[]).check(&token(claims)).unwrap();
    assert_eq!(grant.user.as_deref(), Some("42"));
    assert!(grant.opens("private-user.42") && grant.opens("presence-lobby"));
    assert!(!grant.opens("private-user.43"));
    assert!(grant.publishes("private-room.1") && !grant.publishes("private-user.42"));
    assert_eq!(grant.info.as_deref(), Some(r#"{"name":"Ada"}"#));
    let left = grant.expires.left().as_secs();
    assert!((50..=60).contains(&left), "{left}");
}

#[test]
fn without_keys_there_are_no_tokens() {
    let auth = Auth::new(&config(&[])).unwrap();
    assert!(!auth.is_on());
    assert_eq!(auth.check(&token(json!({}))), Err(BadToken::NotUsed));
}

#[test]
fn several_secrets_prove_and_the_first_signs() {
    let other = "another secret that is also long enough";
    let both = config(&[("realtime.secret", &format!("{other}, {SECRET}"))]);
    let auth = Auth::new(&both).unwrap();
    assert!(auth.check(&token(json!({}))).is_ok());
    let signed = sign(&both, br#"{"sub":"a"}"#, 60).unwrap();
    assert!(auth.check(&signed).is_ok());
    let only_old = Auth::new(&config(&[("realtime.secret", SECRET)])).unwrap();
    assert_eq!(only_old.check(&signed), Err(BadToken::Signature));
}

#[test]
fn what_is_not_right_is_refused() {
    let auth = auth(&[]);
    let good = token(json!({"sub": "a"}));
    let parts: Vec<&str> = good.split('.').collect();
    let part = |json: &str| BASE64URL.encode(json);
    let of_header = |header: &str| format!("{}.{}.{}", part(header), parts[1], parts[2]);
    let changed = |claims: &str| format!("{}.{}.{}", parts[0], part(claims), parts[2]);
    let exp = now() as u64 + 60;
    let cases = [
        (String::new(), BadToken::Malformed),
        ("..".into(), BadToken::Malformed),
        ("a.b".into(), BadToken::Malformed),
        (format!("{good}."), BadToken::Malformed),
        ("é.ü.ß".into(), BadToken::Malformed),
        ("\0\0\0".into(), BadToken::Malformed),
        (of_header(r#"{"alg":"none"}"#), BadToken::Algorithm),
        (of_header(r#"{"alg":"None"}"#), BadToken::Algorithm),
        (
            format!("{}.{}.", part(r#"{"alg":"none","typ":"JWT"}"#), parts[1]),
            BadToken::Algorithm,
        ),
        (of_header(r#"{"alg":"HS512"}"#), BadToken::Algorithm),
        (of_header(r#"{"alg":"RS256"}"#), BadToken::Algorithm),
        (of_header(r#"{"alg":7}"#), BadToken::Malformed),
        (
            of_header(r#"{"alg":"HS256","crit":["x"],"x":1}"#),
            BadToken::Algorithm,
        ),
        (of_header(r#"{"alg":"HS256" }"#), BadToken::Signature),
        (
            changed(&format!(r#"{{"sub":"root","iat":1,"exp":{exp}}}"#)),
            BadToken::Signature,
        ),
        (format!("{}.{}.", parts[0], parts[1]), BadToken::Signature),
        (
            format!("{}.{}.{}", parts[0], parts[1], "A".repeat(43)),
            BadToken::Signature,
        ),
        (
            format!("{}.{}.!{}", parts[0], parts[1], parts[2]),
            BadToken::Signature,
        ),
        (
            signed(json!({}), "not the secret, though as long as it is"),
            BadToken::Signature,
        ),
        (
            format!("{good}{}", "A".repeat(100_000)),
            BadToken::TooLong(good.len() + 100_000),
        ),
    ];
    for (token, expected) in cases {
        assert_eq!(auth.check(&token).unwrap_err(), expected, "{token}");
    }
    assert!(auth.check(&good).is_ok());
}

#[test]
fn times_are_enforced() {
    let auth = auth(&[]);
    let at = |seconds: f64| now() + seconds;
    let check = |claims: Value| auth.check(&token(claims));
    assert_eq!(check(json!({"exp": at(-1.0)})), Err(BadToken::Expired));
    assert_eq!(check(json!({"exp": at(-0.01)})), Err(BadToken::Expired));
    assert_eq!(check(json!({"nbf": at(60.0)})), Err(BadToken::NotYet));
    assert_eq!(
        check(json!({"iat": at(60.0), "exp": at(120.0)})),
        Err(BadToken::NotYet)
    );
    assert!(check(json!({"nbf": at(-1.0)})).is_ok());
    assert!(
        check(json!({"nbf": at(2.0)})).is_ok(),
        "clocks differ a little"
    );
    assert_eq!(
        check(json!({"exp": at(90_000.0)})),
        Err(BadToken::TooLongLived)
    );
    assert_eq!(check(json!({"exp": 1e18})), Err(BadToken::TooLongLived));
    for bad in [
        json!({"exp": null}),
        json!({"exp": 1e300}),
        json!({"exp": -5}),
        json!({"exp": "tomorrow"}),
        json!({"exp": [now() as u64 + 60]}),
        json!({"iat": null}),
        json!({"nbf": "now"}),
        json!({"sub": ""}),
        json!({"sub": "a\nb"}),
        json!({"sub": "x".repeat(201)}),
        json!({"sub": {"id": 1}}),
        json!({"sub": true}),
        json!({"channels": ["with space"]}),
        json!({"channels": {"0": "a"}}),
        json!({"publish": [["a"]]}),
        json!({"publish": ""}),
    ] {
        let error = check(bad.clone()).unwrap_err();
        assert!(matches!(error, BadToken::Claims(_)), "{bad}: {error:?}");
    }
}

#[test]
fn the_audience_must_be_ours() {
    let plain = auth(&[]);
    assert_eq!(
        plain.check(&token(json!({"aud": "x"}))),
        Err(BadToken::Audience)
    );
    assert_eq!(
        plain.check(&token(json!({"aud": 5}))),
        Err(BadToken::Audience)
    );
    let ours = auth(&[("realtime.token_audience", "chat")]);
    assert!(ours.check(&token(json!({"aud": "chat"}))).is_ok());
    assert!(ours.check(&token(json!({"aud": ["x", "chat"]}))).is_ok());
    for wrong in [
        json!({}),
        json!({"aud": "x"}),
        json!({"aud": []}),
        json!({"aud": 5}),
    ] {
        assert_eq!(ours.check(&token(wrong)), Err(BadToken::Audience));
    }
}

#[test]
fn claims_that_stand_twice_are_refused() {
    let part = |json: &str| BASE64URL.encode(json);
    let exp = now() as u64 + 60;
    let claims = format!(r#"{{"sub":"a","sub":"b","iat":{},"exp":{exp}}}"#, exp - 60);
    let text = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).unwrap();
    let error = auth(&[]).check(&format!("{text}.{signature}")).unwrap_err();
    assert!(matches!(error, BadToken::Claims(_)), "{error:?}");
}

#[test]
fn a_user_stays_revoked_whose_mercure_token_never_expires() {
    let auth = auth(&[("realtime.mercure_subscriber_key", SECRET)]);
    let claims = json!({"sub": "ada", "iat": now() as u64 - 60, "mercure": {"subscribe": ["*"]}});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    assert!(auth.check_mercure(&token).is_ok());
    auth.revoke_user("ada").unwrap();
    let years = Duration::from_secs(10 * 365 * 86_400);
    auth.revocations().expire(Stamp::now().after(years));
    assert!(matches!(auth.check_mercure(&token), Err(BadToken::Revoked)));
}

#[test]
fn revoked_is_revoked_until_it_has_expired() {
    let auth = auth(&[("realtime.max_revocations", "2")]);
    let sign = |sub: &str| {
        let claims = json!({ "sub": sub }).to_string();
        sign(
            &config(&[("realtime.secret", SECRET)]),
            claims.as_bytes(),
            60,
        )
        .unwrap()
    };
    let (ada, bob) = (sign("ada"), sign("bob"));
    let (grant, revoked) = auth.revoke_token(&ada).unwrap();
    revoked.unwrap();
    assert_eq!(auth.check(&ada), Err(BadToken::Revoked));
    assert!(auth.check(&sign("ada")).is_ok(), "another token of hers");
    auth.revoke_user("bob").unwrap();
    assert_eq!(auth.check(&bob), Err(BadToken::Revoked));
    assert!(auth.check(&sign("bob")).is_ok(), "one from after that");
    assert!(matches!(auth.revoke_user("eve"), Err(Full)));
    assert!(auth.revoke_user("bob").is_ok(), "he has his place");
    let other = super::Revocations::new(2);
    other.adopt(auth.revocations().lists());
    assert!(other.is_revoked(&grant));
    auth.revocations()
        .expire(Stamp::now().after(Duration::from_secs(61)));
    assert!(!auth.revocations().is_revoked(&grant));
    assert!(auth.revoke_user("eve").is_ok());
    assert!(auth.revoke_token("garbage").is_err());
}

#[test]
fn a_clock_that_is_ahead_does_not_outlive_a_revocation() {
    let auth = auth(&[]);
    let at = |seconds: f64| token(json!({"sub": "ada", "iat": now() + seconds}));
    let before: Vec<_> = [-1.0, 0.0, 2.0, 4.0].map(at).into();
    let grants: Vec<_> = before.iter().map(|t| auth.check(t).unwrap()).collect();
    auth.revoke_user("ada").unwrap();
    for (token, grant) in before.iter().zip(&grants) {
        assert_eq!(auth.check(token), Err(BadToken::Revoked));
        assert!(auth.revocations().is_revoked(grant), "a connection's");
    }
    // When its time has come it is no better.
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(auth.check(&before[2]), Err(BadToken::Revoked));
    // Who could have made it before is not known; from what could not be on, it is good.
    assert_eq!(auth.check(&at(0.0)), Err(BadToken::Revoked));
    assert!(auth.check(&at(4.0)).is_ok());
    // The clock of another machine, or none that anybody knows.
    for clock in [json!("x"), json!(7), json!(null)] {
        let token = token(json!({"sub": "ada", "iat": now(), "rt_clock": clock}));
        assert_eq!(auth.check(&token), Err(BadToken::Revoked));
    }
    // Our own, of which there is no doubt; unless it was put back.
    let own = |seconds: f64| {
        let iat = now() + seconds;
        token(json!({"sub": "ada", "iat": iat, "rt_clock": clock::ours()}))
    };
    assert!(auth.check(&own(0.0)).is_ok());
    assert_eq!(auth.check(&own(2.0)), Err(BadToken::Revoked));
    assert_eq!(auth.check(&own(-3.0)), Err(BadToken::Revoked));
}

#[test]
fn what_php_signs_wrongly_is_told_to_php() {
    let config = config(&[
        ("realtime.secret", SECRET),
        ("realtime.token_audience", "us"),
    ]);
    let auth = Auth::new(&config).unwrap();
    assert!(auth.check(&sign(&config, b"[]", 86_400).unwrap()).is_ok());
    let cases: [(&[u8], i64, &str); 8] = [
        (br#"["a"]"#, 60, "be an array of claims by name"),
        (br#"{"exp":1}"#, 60, "not have \"exp\""),
        (br#"{"rt_clock":"x"}"#, 60, "which is realtime's own"),
        (br#"{"channels":["a b"]}"#, 60, "each of \"channels\" must"),
        (
            br#"{"sub":{}}"#,
            60,
            "\"sub\" must be a string or an integer",
        ),
        (b"{}", 0, "be 1 to 86400 (realtime.max_token_ttl), 0 given"),
        (b"{}", 86_401, "be 1 to 86400"),
        (b"{}", i64::MIN, "be 1 to 86400"),
    ];
    for (claims, ttl, expected) in cases {
        let error = sign(&config, claims, ttl).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let long = json!({"info": "x".repeat(TOKEN_MAX)}).to_string();
    let error = sign(&config, long.as_bytes(), 60).unwrap_err().to_string();
    assert!(error.contains("at most 8192 bytes"), "{error}");
    let nothing = super::Config::load(|_| None).unwrap();
    assert_eq!(sign(&nothing, b"{}", 60), Err(NotSigned::NoSecret));
}
