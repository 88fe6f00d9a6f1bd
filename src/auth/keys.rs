//! Who may sign tokens: the secrets of `realtime.secret`, and the public keys in the file of `realtime.token_keys`; the
//! same for Mercure, with settings of its own.
//!
//! Each key is for one algorithm, and a token is tried only with the keys of the algorithm that it names: so the text of
//! a public key is never a secret, whatever a token says. Imports `config`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::{KeySource, Secrets};

/// Keys in one file: a token without `kid` may be tried with each.
const KEYS_MAX: usize = 50;
/// The largest file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The keys that prove tokens.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

struct Key {
    algorithm: Algorithm,
    id: Option<String>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} key", self.algorithm)
    }
}

/// Why the keys cannot be read. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("cannot take the keys in {file} ({setting}): {why}")]
pub struct KeysError {
    file: String,
    setting: &'static str,
    why: String,
}

impl Keys {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys with which a token of this algorithm and `kid` may be signed.
    pub fn candidates(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> impl Iterator<Item = &DecodingKey> {
        self.0
            .iter()
            .filter(move |key| {
                let named = key.id.as_deref().zip(id).is_none_or(|(own, id)| own == id);
                key.algorithm == algorithm && named
            })
            .map(|key| &key.key)
    }
}

/// Keys with the file that they come from, which is read again when it has changed.
#[derive(Debug)]
pub struct Ring {
    // Read at each handshake with a token, written when the file with the keys has changed.
    keys: RwLock<Arc<Keys>>,
    setting: &'static str,
    secret: Secrets,
    file: Option<PathBuf>,
    // Taken by the one thread that keeps house.
    seen: Mutex<Option<Version>>,
}

/// What tells one content of a file from the next without reading it.
type Version = (SystemTime, u64, u64);

impl Ring {
    /// Reads the keys for the first time. `setting` is what names the file.
    pub fn begin(
        setting: &'static str,
        secret: Secrets,
        file: Option<PathBuf>,
    ) -> Result<Self, KeysError> {
        let ring = Self {
            keys: RwLock::default(),
            setting,
            secret,
            file,
            seen: Mutex::default(),
        };
        if let Some(file) = &ring.file {
            *ring.seen() = version(file);
        }
        ring.keep(ring.read()?);
        Ok(ring)
    }

    /// Those that one of Mercure's settings means.
    pub fn of(setting: &'static str, source: &KeySource) -> Result<Self, KeysError> {
        match source {
            KeySource::None => Self::begin(setting, Secrets::default(), None),
            KeySource::Secrets(secrets) => Self::begin(setting, secrets.clone(), None),
            KeySource::File(file) => Self::begin(setting, Secrets::default(), Some(file.clone()))
                .map_err(|error| KeysError {
                    // It may be a secret all the same, and this ends in logs.
                    file: "a file that is not shown".to_owned(),
                    ..error
                }),
        }
    }

    /// The keys of this moment.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the keys again if the file has changed since the last look and what is in it now can be used.
    pub fn look_again(&self) {
        let Some(file) = self.file.as_deref() else {
            return;
        };
        let now = version(file);
        if std::mem::replace(&mut *self.seen(), now) == now {
            return;
        }
        match self.read() {
            Ok(keys) => {
                let setting = self.setting;
                tracing::info!("the keys in {} ({setting}) were read again", file.display());
                self.keep(keys);
            }
            Err(error) => tracing::error!("{error}; the keys that were read before stay"),
        }
    }

    fn keep(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    fn read(&self) -> Result<Keys, KeysError> {
        let mut keys: Vec<Key> = self
            .secret
            .all()
            .map(|secret| Key {
                algorithm: Algorithm::HS256,
                id: None,
                key: DecodingKey::from_secret(secret),
            })
            .collect();
        if let Some(file) = &self.file {
            let of_file = read_file(file).map_err(|why| KeysError {
                file: file.display().to_string(),
                setting: self.setting,
                why,
            })?;
            keys.extend(of_file);
        }
        Ok(Keys(keys))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Version>> {
        // One value, whole at any time.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(file: &Path) -> Option<Version> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

fn read_file(file: &Path) -> Result<Vec<Key>, String> {
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    if size > FILE_MAX {
        return Err(format!("it has {size} bytes, {FILE_MAX} are allowed"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let keys = if text.trim_start().starts_with('{') {
        of_jwks(&text)?
    } else {
        of_pem(&text)?
    };
    match keys.len() {
        0 => Err("it has no public key for RS256 or ES256".to_owned()),
        1..=KEYS_MAX => Ok(keys),
        count => Err(format!("it has {count} keys, {KEYS_MAX} are allowed")),
    }
}

/// A JWK set (RFC 7517), or one JWK. Keys for something else are passed over.
fn of_jwks(text: &str) -> Result<Vec<Key>, String> {
    let set = match serde_json::from_str::<JwkSet>(text) {
        Ok(set) => set.keys,
        Err(error) => match serde_json::from_str::<Jwk>(text) {
            Ok(key) => vec![key],
            Err(_) => return Err(format!("it is no JWK set: {error}")),
        },
    };
    let mut keys = Vec::new();
    for jwk in &set {
        if let Some(key) = of_jwk(jwk)? {
            keys.push(key);
        }
    }
    Ok(keys)
}

fn of_jwk(jwk: &Jwk) -> Result<Option<Key>, String> {
    let common = &jwk.common;
    let signs = common
        .public_key_use
        .as_ref()
        .is_none_or(|its| *its == PublicKeyUse::Signature);
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        // A secret in a file of public keys is a mistake that must not become a key.
        _ => return Ok(None),
    };
    if !signs || common.key_algorithm.is_some_and(|its| its != name) {
        return Ok(None);
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|error| {
        let id = common.key_id.as_deref().unwrap_or("without kid");
        format!("the key {id}: {error}")
    })?;
    Ok(Some(Key {
        algorithm,
        id: common.key_id.clone(),
        key,
    }))
}

/// PEM blocks (RFC 7468), one after the other.
fn of_pem(text: &str) -> Result<Vec<Key>, String> {
    const BEGIN: &str = "-----BEGIN ";
    let mut keys = Vec::new();
    for (at, _) in text.match_indices(BEGIN) {
        let block = &text[at..];
        let label = block[BEGIN.len()..]
            .split("-----")
            .next()
            .unwrap_or_default();
        if label.contains("PRIVATE") {
            return Err("it has a private key: give the server public ones alone".to_owned());
        }
        if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
            return Err(format!("it has a {label}, where a PUBLIC KEY is wanted"));
        }
        let end = format!("-----END {label}-----");
        let length = block
            .find(&end)
            .ok_or_else(|| format!("it has a {label} without end"))?;
        let block = &block.as_bytes()[..length + end.len()];
        let (algorithm, key) = match DecodingKey::from_rsa_pem(block) {
            Ok(key) => (Algorithm::RS256, key),
            Err(_) => match DecodingKey::from_ec_pem(block) {
                Ok(key) => (Algorithm::ES256, key),
                Err(_) => return Err(format!("it has a {label} that is neither RSA nor EC")),
            },
        };
        keys.push(Key {
            algorithm,
            id: None,
            key,
        });
    }
    if keys.is_empty() {
        return Err("it is neither PEM nor a JWK set".to_owned());
    }
    Ok(keys)
}
