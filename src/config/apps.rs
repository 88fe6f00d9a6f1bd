//! `realtime.pusher_app`: the applications that speak the Pusher protocol, whose secrets nothing ever prints.
//!
//! Imports nothing of this crate.

use std::fmt;
use std::sync::Arc;

/// The shortest secret, in bytes. Pusher's and Reverb's own have 20.
const SHORTEST: usize = 16;
/// The longest id or key, in bytes.
const NAME_MAX: usize = 100;

/// One application: what its clients and its servers call it, and what its servers sign with.
#[derive(Clone, PartialEq, Eq)]
pub struct App {
    /// In the paths of the HTTP API.
    pub id: Box<str>,
    /// In the URL that clients connect to; public.
    pub key: Box<str>,
    /// What signs.
    pub secret: Box<str>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apps(Vec<Arc<App>>);

impl Apps {
    /// Takes a comma-separated list of `id:key:secret`, in which no id and no key comes twice.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut apps = Self::default();
        for part in text.split(',') {
            let app = App::parse(part.trim())?;
            if apps.by_id(&app.id).is_some() || apps.by_key(&app.key).is_some() {
                return None;
            }
            apps.0.push(Arc::new(app));
        }
        Some(apps)
    }

    /// Whether there is none: then the protocol is not spoken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first, which signs what PHP asks for.
    pub fn first(&self) -> Option<&Arc<App>> {
        self.0.first()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<App>> {
        self.0.iter()
    }

    /// The one with this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.0.iter().find(|app| &*app.id == id)
    }

    /// The one with this key.
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.0.iter().find(|app| &*app.key == key)
    }
}

impl App {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (id, key, secret) = (parts.next()?, parts.next()?, parts.next()?);
        // As in `realtime.secret`: only what can be typed.
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == char::REPLACEMENT_CHARACTER;
        let fits = is_name(id) && is_name(key) && secret.len() >= SHORTEST && !secret.contains(odd);
        fits.then(|| Self {
            id: id.into(),
            key: key.into(),
            secret: secret.into(),
        })
    }
}

/// `realtime.pusher_master_key`: from it come the keys of the `private-encrypted-` channels.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MasterKey(Option<[u8; 32]>);

impl MasterKey {
    /// Takes 32 bytes in base64, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        use base64::Engine as _;
        if text.is_empty() {
            return Some(Self::default());
        }
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()?;
        bytes.try_into().ok().map(|bytes| Self(Some(bytes)))
    }

    /// The key, if there is one.
    pub fn bytes(&self) -> Option<&[u8; 32]> {
        self.0.as_ref()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a key" } else { "none" })
    }
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(plain)
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {} with key {}", self.id, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_checked_and_never_printed() {
        let apps = Apps::parse("1:key:0123456789abcdef, shop:k2:0123456789abc:ef").unwrap();
        assert_eq!(&*apps.first().unwrap().key, "key");
        assert_eq!(&*apps.by_id("shop").unwrap().secret, "0123456789abc:ef");
        assert!(apps.by_key("k3").is_none());
        assert!(!format!("{apps:?}").contains("01234567"));
        for bad in [
            "1",
            "1:key",
            "1:key:short",
            "1:a b:0123456789abcdef",
            ":key:0123456789abcdef",
            "1:key:0123456789 abcdef",
            "1:a:0123456789abcdef,1:b:0123456789abcdef",
            "1:a:0123456789abcdef,2:a:0123456789abcdef",
            "1:a:0123456789abcdef,",
        ] {
            assert_eq!(Apps::parse(bad), None, "{bad}");
        }
    }
}
