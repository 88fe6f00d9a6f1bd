//! An event's data: JSON in a string, or a string that is none.

use base64::Engine as _;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::message::Payload;
use crate::wire::BASE64;
use crate::wire::native::{has_half_a_pair, too_deep};

/// What an application publishes: the JSON that `data` is, or `data` as a string if it is none.
pub fn payload(data: &str) -> Payload {
    if is_json(data) {
        return Payload::Json(Bytes::copy_from_slice(data.as_bytes()));
    }
    let json = serde_json::to_vec(data).expect("a string always serializes");
    Payload::Json(json.into())
}

fn is_json(text: &str) -> bool {
    !too_deep(text.as_bytes())
        && !has_half_a_pair(text.as_bytes())
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The reverse of [`payload`]: what is in the string of an event's data.
pub fn data(payload: &Payload) -> String {
    match payload {
        Payload::Json(json) => {
            let text = String::from_utf8_lossy(json);
            if json.first() == Some(&b'"')
                && let Ok(string) = serde_json::from_str::<String>(&text)
                && !is_json(&string)
            {
                return string;
            }
            text.into_owned()
        }
        Payload::Binary(bytes) => BASE64.encode(bytes),
    }
}
