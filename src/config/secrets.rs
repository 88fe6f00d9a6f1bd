//! `realtime.secret`, the keys of Mercure, a webhook's password: secrets, which nothing ever prints.
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

/// The address of an application's own server, which may have a user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateUrl(pub Box<str>);

impl fmt::Debug for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

/// A URL as it may be shown: without the user and the password in it. Of what is none, also nothing that may be meant so.
pub fn without_password(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    // A password with a slash looks like a port and a path.
    let is_whole = |uri: hyper::Uri| uri.port().is_some() || !ends_oddly(uri.authority());
    let is_url = url.parse::<hyper::Uri>().is_ok_and(is_whole);
    let end = url[start..].find(['/', '?', '#']).filter(|_| is_url);
    let end = end.map_or(url.len(), |end| start + end);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}***{}", &url[..start], &url[start + at..]),
        None => url.to_owned(),
    }
}

/// Whether there is something else than a port behind the host.
fn ends_oddly(authority: Option<&hyper::http::uri::Authority>) -> bool {
    let host = authority.map_or("", |authority| authority.as_str());
    let host = host.rsplit('@').next().unwrap_or_default();
    host.contains(':') && !host.ends_with(']')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("https://host:81/a@b?c@d#e@f", "https://host:81/a@b?c@d#e@f"),
            ("https://ada:p@ss@host/x@y", "https://***@host/x@y"),
            ("https://ada@host", "https://***@host"),
            // None of these is a URL.
            ("https://ada:p/ss@host/", "https://***@host/"),
            ("ada:pass word@host", "***@host"),
            ("", ""),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let url = PrivateUrl("https://ada:pass@host".into());
        assert_eq!(format!("{url:?}"), "https://***@host");
    }
}
