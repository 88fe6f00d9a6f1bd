//! Signatures: what an application's servers and the server here prove to each other with the app's secret.
//!
//! HMAC-SHA256 as hexadecimal digits, over texts whose parts are joined by colons or line ends. Runs in any PHP process
//! (`rt_pusher_auth()`) and in the server. Imports `config` and `ids`.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};

use crate::config::App;

/// How far the clocks of the application's servers may differ from this one's, in seconds.
const CLOCK: u64 = 600;

/// Why a signature is not right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAuth {
    /// Not `key:signature`, or another app's key.
    #[error("the auth is not this app's key, a colon and a signature")]
    Key,
    /// Not the signature of what was sent.
    #[error(
        "the signature is not right: it is not made with this app's secret, or not for this {0}"
    )]
    Signature(&'static str),
    /// A request of the HTTP API without one of its parameters.
    #[error("{0} is missing, or not right")]
    Parameter(&'static str),
    /// A request that is too old, or of the future.
    #[error("auth_timestamp differs from the server's clock by more than 600 seconds")]
    Timestamp,
}

/// Signs a client's subscription; `data` is the `channel_data` of a presence channel.
pub fn sign_channel(app: &App, socket_id: &str, channel: &str, data: Option<&str>) -> String {
    join(app, &channel_text(socket_id, channel, data))
}

/// Checks [`sign_channel`].
pub fn check_channel(
    app: &App,
    socket_id: &str,
    channel: &str,
    data: Option<&str>,
    auth: &str,
) -> Result<(), BadAuth> {
    let what = "connection, channel and channel_data";
    // The signed text has them side by side. Channels may have colons, which Pusher's have not, but no braces: with an object
    // behind it the text has one meaning, else a signature for `private-a:b` would open `private-a`.
    if data.is_some_and(|data| !data.starts_with('{')) {
        return Err(BadAuth::Signature(what));
    }
    let text = channel_text(socket_id, channel, data);
    check(app, &text, auth, what)
}

/// Signs as whom a client signs in.
pub fn sign_user(app: &App, socket_id: &str, user_data: &str) -> String {
    join(app, &format!("{socket_id}::user::{user_data}"))
}

/// Checks [`sign_user`].
pub fn check_user(app: &App, socket_id: &str, user_data: &str, auth: &str) -> Result<(), BadAuth> {
    let text = format!("{socket_id}::user::{user_data}");
    check(app, &text, auth, "connection and user_data")
}

/// The signature of a webhook's body.
pub fn sign_body(app: &App, body: &[u8]) -> String {
    hex(hmac::sign(&key(app), body).as_ref())
}

/// A request of the HTTP API.
#[derive(Debug)]
pub struct Signed<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, in the forms in which the application may have signed it.
    pub paths: &'a [&'a str],
    /// The parameters of its query, decoded.
    pub query: &'a [(String, String)],
    /// Its body.
    pub body: &'a [u8],
}

impl Signed<'_> {
    /// Checks that the app's servers have signed it, a moment ago.
    pub fn check(&self, app: &App) -> Result<(), BadAuth> {
        let get = |name: &'static str| {
            let named = self.query.iter().find(|(its, _)| its == name);
            named
                .map(|(_, value)| value.as_str())
                .ok_or(BadAuth::Parameter(name))
        };
        if get("auth_key")? != &*app.key {
            return Err(BadAuth::Parameter("auth_key"));
        }
        if get("auth_version")? != "1.0" {
            return Err(BadAuth::Parameter("auth_version"));
        }
        let at: u64 = get("auth_timestamp")?
            .parse()
            .map_err(|_| BadAuth::Parameter("auth_timestamp"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        if now.is_ok_and(|now| now.as_secs().abs_diff(at) > CLOCK) {
            return Err(BadAuth::Timestamp);
        }
        // First that it is the app's at all: what is said about a body is for the app alone.
        let signature = get("auth_signature")?;
        let text = self.parameters();
        let signed = |path: &&str| {
            let text = format!("{}\n{path}\n{text}", self.method);
            is_signature(app, &text, signature)
        };
        if !self.paths.iter().any(signed) {
            return Err(BadAuth::Signature("request"));
        }
        if self.body.is_empty() {
            return Ok(());
        }
        let md5 = md5::compute(self.body);
        let same = get("body_md5")?.eq_ignore_ascii_case(&hex(&md5.0));
        if same {
            Ok(())
        } else {
            Err(BadAuth::Parameter("body_md5"))
        }
    }

    /// The parameters in the order of their names, which are in lower case in what is signed.
    fn parameters(&self) -> String {
        let mut pairs: Vec<(String, &str)> = self
            .query
            .iter()
            .filter(|(name, _)| name != "auth_signature")
            .map(|(name, value)| (name.to_lowercase(), value.as_str()))
            .collect();
        pairs.sort();
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("&")
    }
}

/// Whether an application may name a connection so: two numbers and a dot.
pub fn is_socket_id(text: &str) -> bool {
    let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 64
        && text
            .split_once('.')
            .is_some_and(|(high, low)| number(high) && number(low))
}

/// The key of a `private-encrypted-` channel, which clients and the application's servers share.
pub fn shared_secret(channel: &str, master: &[u8; 32]) -> String {
    use base64::Engine as _;
    let text = [channel.as_bytes(), master].concat();
    let secret = digest::digest(&digest::SHA256, &text);
    base64::engine::general_purpose::STANDARD.encode(secret)
}

fn channel_text(socket_id: &str, channel: &str, data: Option<&str>) -> String {
    match data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

fn join(app: &App, text: &str) -> String {
    format!("{}:{}", app.key, sign_body(app, text.as_bytes()))
}

fn check(app: &App, text: &str, auth: &str, what: &'static str) -> Result<(), BadAuth> {
    let (key, signature) = auth.split_once(':').ok_or(BadAuth::Key)?;
    if key != &*app.key {
        return Err(BadAuth::Key);
    }
    if is_signature(app, text, signature) {
        Ok(())
    } else {
        Err(BadAuth::Signature(what))
    }
}

/// Compares in constant time.
fn is_signature(app: &App, text: &str, signature: &str) -> bool {
    let signature = unhex(signature);
    signature.is_some_and(|it| hmac::verify(&key(app), text.as_bytes(), &it).is_ok())
}

fn key(app: &App) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, app.secret.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The app and the results of the examples in Pusher's documentation of its signatures.
    fn app() -> App {
        App {
            id: "3".into(),
            key: "278d425bdf160c739803".into(),
            secret: "7ad3773142a6692b25b8".into(),
        }
    }

    #[test]
    fn the_documented_examples() {
        let auth = sign_channel(&app(), "1234.1234", "private-foobar", None);
        let expected =
            "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        assert_eq!(auth, expected);
        assert_eq!(
            check_channel(&app(), "1234.1234", "private-foobar", None, &auth),
            Ok(())
        );
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
        let auth = sign_channel(&app(), "1234.1234", "presence-foobar", Some(data));
        assert!(
            auth.ends_with(":31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80")
        );
        let data = r#"{"id":"12345"}"#;
        let auth = sign_user(&app(), "1234.1234", data);
        assert!(
            auth.ends_with(":4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba")
        );
        assert_eq!(check_user(&app(), "1234.1234", data, &auth), Ok(()));
    }

    #[test]
    fn other_signatures_are_refused() {
        let check = |auth: &str| check_channel(&app(), "1.2", "private-a", None, auth);
        let auth = sign_channel(&app(), "1.2", "private-a", None);
        assert_eq!(check(&auth), Ok(()));
        let other = sign_channel(&app(), "1.3", "private-a", None);
        assert!(matches!(check(&other), Err(BadAuth::Signature(_))));
        assert_eq!(check(""), Err(BadAuth::Key));
        assert_eq!(check(&format!("x{auth}")), Err(BadAuth::Key));
        for bad in ["", "zz", "é"] {
            let bad = format!("{}:{bad}", app().key);
            assert!(matches!(check(&bad), Err(BadAuth::Signature(_))), "{bad}");
        }
    }

    #[test]
    fn requests() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let request = |at: u64, body: &'static [u8], path: &str, signed: &str| {
            let mut query = vec![
                ("auth_key".to_owned(), app().key.into()),
                ("auth_timestamp".to_owned(), at.to_string()),
                ("auth_version".to_owned(), "1.0".to_owned()),
                ("body_md5".to_owned(), hex(&md5::compute(b"{}").0)),
                ("Info".to_owned(), "a,b".to_owned()),
            ];
            let unsigned = Signed {
                method: "POST",
                paths: &[],
                query: &query,
                body,
            };
            let text = format!("POST\n{signed}\n{}", unsigned.parameters());
            query.push(("auth_signature".into(), sign_body(&app(), text.as_bytes())));
            let request = Signed {
                method: "POST",
                paths: &[path, "/other"],
                query: &query,
                body,
            };
            request.check(&app())
        };
        assert_eq!(request(now, b"{}", "/a", "/a"), Ok(()));
        assert_eq!(request(now - 590, b"{}", "/a", "/other"), Ok(()));
        assert_eq!(
            request(now - 610, b"{}", "/a", "/a"),
            Err(BadAuth::Timestamp)
        );
        assert_eq!(
            request(now + 610, b"{}", "/a", "/a"),
            Err(BadAuth::Timestamp)
        );
        let signature = Err(BadAuth::Signature("request"));
        assert_eq!(request(now, b"{}", "/a", "/b"), signature);
        let md5 = Err(BadAuth::Parameter("body_md5"));
        assert_eq!(request(now, b"{1}", "/a", "/a"), md5);
    }

    #[test]
    fn socket_ids() {
        assert!(is_socket_id("123.456"));
        for bad in ["", "1", "1.", ".1", "1.a", "1.2.3", "1.2:private-x"] {
            assert!(!is_socket_id(bad), "{bad}");
        }
    }
}
