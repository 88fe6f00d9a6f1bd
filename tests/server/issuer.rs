//! Issuers of tokens: PHP with its secret, and others with key pairs made on the spot.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use realtime::auth::Stamp;
use serde_json::{Value, json};

/// The secret of the tests' servers.
pub const SETTING: (&str, &str) = (
    "realtime.secret",
    "a-secret-of-the-tests-that-is-long-enough",
);

/// Now, and some seconds later, as tokens have it.
pub fn at(seconds: f64) -> f64 {
    Stamp::now().seconds() + seconds
}

/// A token of the tests' secret. `iat` and `exp` are right unless they are given.
pub fn token(claims: Value) -> String {
    let key = EncodingKey::from_secret(SETTING.1.as_bytes());
    signed(&Header::new(Algorithm::HS256), claims, &key)
}

/// A token signed in another way.
pub fn signed(header: &Header, claims: Value, key: &EncodingKey) -> String {
    let mut all = json!({"iat": at(0.0), "exp": at(60.0)});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    encode(header, &all, key).unwrap()
}

/// A key pair: its private half signs, its public half goes into a file.
pub struct Pair {
    pub algorithm: Algorithm,
    pub signer: EncodingKey,
    /// As PEM.
    pub public: String,
    pub private: String,
    jwk: Value,
}

impl Pair {
    pub fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let private = pem("PRIVATE KEY", private.as_ref());
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let part = |bytes: &[u8]| BASE64URL.encode(bytes);
        Self {
            algorithm: Algorithm::RS256,
            signer: EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
            public: pem("PUBLIC KEY", public.as_ref()),
            private,
            jwk: json!({
                "kty": "RSA",
                "n": part(pair.public_key().modulus().big_endian_without_leading_zero()),
                "e": part(pair.public_key().exponent().big_endian_without_leading_zero()),
            }),
        }
    }

    pub fn ec() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref());
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        // A point, uncompressed: 4, x, y.
        let point = pair.public_key().as_ref();
        Self {
            algorithm: Algorithm::ES256,
            signer: EncodingKey::from_ec_pem(private.as_bytes()).unwrap(),
            public: pem("PUBLIC KEY", public.as_ref()),
            private,
            jwk: json!({
                "kty": "EC", "crv": "P-256",
                "x": BASE64URL.encode(&point[1..33]), "y": BASE64URL.encode(&point[33..]),
            }),
        }
    }

    /// The public key as a JWK.
    pub fn jwk(&self, id: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token of it, naming the key when there is a name.
    pub fn token(&self, id: Option<&str>, claims: Value) -> String {
        let header = Header {
            kid: id.map(ToOwned::to_owned),
            ..Header::new(self.algorithm)
        };
        signed(&header, claims, &self.signer)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
