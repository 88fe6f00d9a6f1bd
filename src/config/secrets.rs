//! `realtime.secret` and the keys of Mercure: shared secrets, which nothing ever prints.
//!
//! Imports nothing of this crate.

use std::fmt;
use std::path::PathBuf;

/// The shortest secret: RFC 7518, section 3.2, wants a key as long as the hash.
const SHORTEST: usize = 32;

/// Secrets that prove tokens. The first also signs; the others are there while one is being replaced.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<Box<str>>);

impl Secrets {
    /// Takes a comma-separated list.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let secrets: Option<Vec<_>> = text.split(',').map(secret).collect();
        secrets.map(Self)
    }

    /// The one that signs.
    pub fn first(&self) -> Option<&[u8]> {
        self.0.first().map(|secret| secret.as_bytes())
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|secret| secret.as_bytes())
    }
}

/// `realtime.mercure_publisher_key` and `realtime.mercure_subscriber_key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// Not set.
    #[default]
    None,
    /// Shared secrets.
    Secrets(Secrets),
    /// A file with public keys.
    File(PathBuf),
}

impl KeySource {
    /// Takes a path, or secrets: none of those may begin with `/`, or a slip in a path would make a secret of it that
    /// anybody could guess.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::None),
            path if path.starts_with('/') => Some(Self::File(path.into())),
            secrets => Secrets::parse(secrets).map(Self::Secrets),
        }
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        *self != Self::None
    }
}

/// Only what can be typed: bytes that are no text would reach the server as question marks, which anybody could guess.
fn secret(text: &str) -> Option<Box<str>> {
    let text = text.trim();
    let odd = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    (text.len() >= SHORTEST && !text.contains(odd)).then(|| text.into())
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}
