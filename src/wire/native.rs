//! What a client of `/ws` sends, and the body of `POST /publish`: bytes to [`Command`], parsed once.
//!
//! Imports `ids` and `message`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::{self, Channel};
use crate::message::EventName;

/// The longest `ref`, in bytes of JSON.
pub const REF_MAX: usize = 64;

/// A client's `ref`: a JSON string or number, kept as it was written.
pub type Reference = Option<Box<RawValue>>;

/// What a client asks for.
pub enum Command {
    /// To get a channel's messages, from `since` on.
    Subscribe {
        /// Which channel.
        channel: Channel,
        /// The newest id that the client has.
        since: Option<String>,
    },
    /// No longer to get them.
    Unsubscribe {
        /// Which channel.
        channel: Channel,
    },
    /// To know who is on a channel.
    Presence {
        /// Which channel.
        channel: Channel,
    },
    /// To hand a message to PHP.
    Publish(ClientPublish),
    /// To go on with a fresh token.
    Token(String),
    /// A sign of life.
    Ping,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without tokens and data.
        match self {
            Self::Subscribe { channel, since } => write!(f, "Subscribe {channel} {since:?}"),
            Self::Unsubscribe { channel } => write!(f, "Unsubscribe {channel}"),
            Self::Presence { channel } => write!(f, "Presence {channel}"),
            Self::Publish(publish) => write!(f, "Publish {}", publish.channel),
            Self::Token(_) => f.write_str("Token"),
            Self::Ping => f.write_str("Ping"),
        }
    }
}

/// A message for PHP.
#[derive(Debug)]
pub struct ClientPublish {
    /// For which channel.
    pub channel: Channel,
    /// Under which name.
    pub event: EventName,
    /// Its data: well-formed JSON.
    pub data: Bytes,
}

/// The client's mistake: an error frame's code and words, with the `ref` when it could be read.
#[derive(Debug)]
pub struct Mistake {
    /// The code of php/docs/protocol.md.
    pub code: &'static str,
    /// In words.
    pub message: String,
    /// The frame's `ref`.
    pub reference: Reference,
    /// The frame's `channel`, as it was sent: by it a client without a `ref` knows what was refused.
    pub channel: Option<String>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    channel: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    event: Option<std::borrow::Cow<'a, str>>,
    since: Option<String>,
    #[serde(rename = "ref")]
    reference: Reference,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    connection: Option<String>,
    key: Option<String>,
    token: Option<String>,
}

/// Reads one frame of `/ws`.
pub fn parse(text: &str) -> Result<(Command, Reference), Mistake> {
    let frame = frame(text)?;
    let reference = check_reference(&frame)?;
    let command = (|| match frame.kind.as_deref() {
        Some("subscribe") => Ok(Command::Subscribe {
            channel: channel(&frame)?,
            // Empty is what a client sends that has nothing yet, as in a query.
            since: frame.since.clone().filter(|since| !since.is_empty()),
        }),
        Some("unsubscribe") => Ok(Command::Unsubscribe {
            channel: channel(&frame)?,
        }),
        Some("presence") => Ok(Command::Presence {
            channel: channel(&frame)?,
        }),
        Some("publish") => Ok(Command::Publish(publish(&frame)?)),
        Some("token") => match frame.token.clone() {
            Some(token) => Ok(Command::Token(token)),
            None => Err(mistake("bad_frame", "\"token\" is missing".into())),
        },
        Some("ping") => Ok(Command::Ping),
        Some(other) => Err(mistake("unknown_type", format!("unknown type {other:?}"))),
        None => Err(mistake("bad_frame", "\"type\" is missing".into())),
    })();
    match command {
        Ok(command) => Ok((command, reference)),
        Err(mistake) => Err(Mistake {
            reference,
            channel: frame.channel.map(std::borrow::Cow::into_owned),
            ..mistake
        }),
    }
}

/// Who a `POST /publish` says it comes from.
#[derive(Debug)]
pub struct Claim {
    /// The connection's id, unchecked.
    pub connection: String,
    /// Its secret, unchecked.
    pub key: String,
}

/// Reads the body of a `POST /publish`.
pub fn parse_publish(text: &str) -> Result<(ClientPublish, Option<Claim>), Mistake> {
    let frame = frame(text)?;
    let publish = publish(&frame).map_err(|mistake| Mistake {
        channel: frame.channel.as_deref().map(str::to_owned),
        ..mistake
    })?;
    let claim = match (frame.connection, frame.key) {
        (Some(connection), Some(key)) => Some(Claim { connection, key }),
        (None, None) => None,
        _ => {
            return Err(mistake(
                "bad_frame",
                "\"connection\" and \"key\" go together".into(),
            ));
        }
    };
    Ok((publish, claim))
}

fn frame(text: &str) -> Result<Frame<'_>, Mistake> {
    if too_deep(text.as_bytes()) {
        return Err(mistake("bad_json", "nested deeper than 128".into()));
    }
    if !text.trim_start().starts_with('{') {
        return Err(mistake("bad_json", "a frame is a JSON object".into()));
    }
    serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() {
            "bad_frame"
        } else {
            "bad_json"
        };
        mistake(code, error.to_string())
    })
}

fn channel(frame: &Frame<'_>) -> Result<Channel, Mistake> {
    let name = frame
        .channel
        .as_deref()
        .ok_or_else(|| mistake("bad_frame", "\"channel\" is missing".into()))?;
    Channel::parse(name).map_err(|e| mistake("bad_channel", format!("\"channel\" must {e}")))
}

fn publish(frame: &Frame<'_>) -> Result<ClientPublish, Mistake> {
    let channel = channel(frame)?;
    let event = frame.event.as_deref().unwrap_or("message");
    ids::check_event(event).map_err(|e| mistake("bad_event", format!("\"event\" must {e}")))?;
    let data = frame.data.map_or("null", RawValue::get);
    if has_half_a_pair(data.as_bytes()) {
        let text = "a \\u escape is half of a surrogate pair, which is no character";
        return Err(mistake("bad_json", text.into()));
    }
    Ok(ClientPublish {
        channel,
        event: EventName::new(event),
        data: Bytes::copy_from_slice(data.as_bytes()),
    })
}

fn check_reference(frame: &Frame<'_>) -> Result<Reference, Mistake> {
    let Some(reference) = &frame.reference else {
        return Ok(None);
    };
    let text = reference.get();
    let fits = text.len() <= REF_MAX
        && text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
    if fits {
        Ok(Some(reference.clone()))
    } else {
        Err(mistake(
            "bad_frame",
            "\"ref\" must be a string or a number of at most 64 bytes".into(),
        ))
    }
}

fn mistake(code: &'static str, message: String) -> Mistake {
    Mistake {
        code,
        message,
        reference: None,
        channel: None,
    }
}

/// Whether arrays and objects nest deeper than 128. A [`RawValue`] is skipped without building it, yet PHP's
/// decoder has to build it, and serde_json's own limit does not hold for what is skipped.
pub(super) fn too_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > 128 {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Whether well-formed JSON has a `\ud83d` without its other half. PHP's decoder refuses that, and serde_json does not
/// look into what it skips.
pub(super) fn has_half_a_pair(mut json: &[u8]) -> bool {
    while let Some(at) = json.iter().position(|&byte| byte == b'\\') {
        let escape = &json[at..];
        let length = match escaped_unit(escape) {
            None => 2,
            Some(0xD800..=0xDBFF) => match escaped_unit(&escape[6..]) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => return true,
            },
            Some(0xDC00..=0xDFFF) => return true,
            Some(_) => 6,
        };
        json = escape.get(length..).unwrap_or_default();
    }
    false
}

/// The UTF-16 unit of a `\uXXXX` at the start of `json`.
fn escaped_unit(json: &[u8]) -> Option<u16> {
    let digits = json.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        parse(text).unwrap_err().code
    }

    #[test]
    fn mistakes_have_their_codes() {
        assert_eq!(code("nonsense"), "bad_json");
        assert_eq!(code("[]"), "bad_json");
        assert_eq!(code("{\"type\":"), "bad_json");
        assert_eq!(code("{}"), "bad_frame");
        assert_eq!(code(r#"{"type":7}"#), "bad_frame");
        assert_eq!(code(r#"{"type":"dance"}"#), "unknown_type");
        assert_eq!(code(r#"{"type":"subscribe"}"#), "bad_frame");
        assert_eq!(
            code(r#"{"type":"subscribe","channel":"a b"}"#),
            "bad_channel"
        );
        assert_eq!(
            code(r#"{"type":"publish","channel":"a","event":""}"#),
            "bad_event"
        );
        assert_eq!(code(r#"{"type":"ping","ref":[1]}"#), "bad_frame");
        let deep = format!(r#"{{"type":"ping","data":{}}}"#, "[".repeat(100_000));
        assert_eq!(code(&deep), "bad_json");
    }

    #[test]
    fn text_that_php_cannot_decode_is_refused() {
        let publish = |data: &str| {
            let text = format!(r#"{{"type":"publish","channel":"a","data":{data},"ref":1}}"#);
            parse(&text).map_err(|mistake| {
                assert_eq!(mistake.reference.unwrap().get(), "1");
                mistake.code
            })
        };
        for bad in [
            r#""\ud83d""#,
            r#""\ud83d and more""#,
            r#""\ud83d\n\ude00""#,
            r#""\ud83d\ud83d""#,
            r#""\uDE00""#,
            r#"{"\\\ude00":1}"#,
        ] {
            assert_eq!(publish(bad).unwrap_err(), "bad_json", "{bad}");
        }
        for good in [
            r#""\ud83d\ude00 \u00e9\u0000""#,
            r#""\\ud83d""#,
            r#"["\\", "\"", "\uFFFF", "x\\"]"#,
        ] {
            assert!(publish(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn an_error_names_the_ref_of_its_frame() {
        let mistake = parse(r#"{"type":"dance","ref":"x"}"#).unwrap_err();
        assert_eq!(mistake.reference.unwrap().get(), "\"x\"");
    }

    #[test]
    fn an_empty_since_is_none() {
        let (command, _) = parse(r#"{"type":"subscribe","channel":"a","since":""}"#).unwrap();
        assert!(
            matches!(command, Command::Subscribe { since: None, .. }),
            "{command:?}"
        );
    }

    #[test]
    fn data_is_kept_as_written() {
        let (command, reference) =
            parse(r#"{"type":"publish","channel":"a","data":{"x": [1.0]},"ref":7}"#).unwrap();
        let Command::Publish(publish) = command else {
            panic!("{command:?}")
        };
        assert_eq!(&publish.data[..], br#"{"x": [1.0]}"#);
        assert_eq!(reference.unwrap().get(), "7");
    }
}
