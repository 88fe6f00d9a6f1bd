//! Values from and to PHP: what is published ([`encode`]), what clients sent ([`decode`]), and small helpers.
//!
//! JSON is PHP's own (`json_encode()`), so JsonSerializable, enums and float precision are too. Imports `message`,
//! `class`, `fault` and `zend`.

use std::ffi::c_int;

use bytes::Bytes;
use ext_php_rs::types::{ZendObject, ZendStr, Zval};

use super::fault::{self, Fault};
use super::{class, zend};
use crate::message::{Incoming, Payload};

/// `PHP_JSON_ERROR_UTF8`
const JSON_ERROR_UTF8: c_int = 5;

/// Why a value cannot be published.
#[derive(Debug)]
pub enum NotEncodable {
    /// json_encode() refuses it; in its own words.
    Json(&'static str),
    /// PHP code that it ran (jsonSerialize()) threw or ended.
    Unwinding(fault::Unwinding),
}

impl NotEncodable {
    /// As the fault of argument `number`.
    pub fn argument(self, number: u32) -> Fault {
        match self {
            Self::Json(why) => Fault::argument(number, format!("be JSON-encodable: {why}")),
            Self::Unwinding(unwinding) => Fault::Unwinding(unwinding),
        }
    }
}

/// A PHP value as a payload. A string that is not UTF-8 and a `Realtime\Binary` are binary, all else is JSON.
pub fn encode(value: &mut Zval) -> Result<Payload, NotEncodable> {
    let value = value.dereference_mut();
    if let Some(object) = value.object()
        && let Some(bytes) = binary_bytes(object)
    {
        return Ok(Payload::Binary(Bytes::copy_from_slice(bytes)));
    }
    let mut text: *mut ZendStr = std::ptr::null_mut();
    let mut error: c_int = 0;
    // SAFETY: on the PHP thread; the value is kept alive by our caller, and both results are locals.
    let result = unsafe { zend::rt_json_encode(value, &raw mut text, &raw mut error) };
    fault::check(result).map_err(NotEncodable::Unwinding)?;
    // SAFETY: on success, `text` is a string that is ours to release.
    if let Some(text) = unsafe { text.as_mut() } {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        // SAFETY: as above; released once, and not used after.
        unsafe { ext_php_rs::ffi::ext_php_rs_zend_string_release(text) };
        return Ok(Payload::Json(bytes));
    }
    match value.zend_str() {
        Some(string) if error == JSON_ERROR_UTF8 => {
            Ok(Payload::Binary(Bytes::copy_from_slice(string.as_bytes())))
        }
        _ => Err(NotEncodable::Json(json_error(error))),
    }
}

/// What a client sent, as PHP sees it. `None` for JSON that PHP refuses (deeper than its limit).
pub fn decode(data: &Incoming) -> Option<Zval> {
    match data {
        Incoming::Json(bytes) => json(bytes),
        Incoming::Text(bytes) => Some(string(bytes)),
        Incoming::Binary(bytes) => Some(binary(bytes)),
    }
}

/// A published payload, as PHP gave it.
pub fn decode_payload(payload: &Payload) -> Option<Zval> {
    match payload {
        Payload::Json(bytes) => json(bytes),
        Payload::Binary(bytes) => Some(binary(bytes)),
    }
}

/// A PHP string.
pub fn string(bytes: impl AsRef<[u8]>) -> Zval {
    let mut value = Zval::new();
    value.set_zend_string(ZendStr::new(bytes, false));
    value
}

/// A PHP int. What does not fit, which no counter of ours reaches, is the largest int.
pub fn int(number: impl TryInto<i64>) -> Zval {
    let mut value = Zval::new();
    value.set_long(number.try_into().unwrap_or(i64::MAX));
    value
}

/// A PHP float.
pub fn float(number: f64) -> Zval {
    let mut value = Zval::new();
    value.set_double(number);
    value
}

/// A PHP object, whose only reference the value takes over.
///
/// # Safety
/// `object` is a live object of this thread, with a reference that nobody else gives back.
pub unsafe fn object(object: *mut ZendObject) -> Zval {
    let mut value = Zval::new();
    // SAFETY: as promised; set_object() takes a reference of its own, so that ours is given back.
    unsafe {
        value.set_object(&mut *object);
        zend::rt_release_object(object);
    }
    value
}

/// A `Realtime\Binary`.
fn binary(bytes: &[u8]) -> Zval {
    let mut values = [string(bytes)];
    // SAFETY: on the PHP thread. The class has one property, whose empty slot takes the string over; so the
    // local must not release it.
    unsafe {
        let made = zend::rt_plain_object(class::BINARY.entry());
        zend::rt_object_fill(made, 1, values.as_mut_ptr());
        std::mem::forget(values);
        object(made)
    }
}

/// The bytes of a `Realtime\Binary`; `None` for any other object.
fn binary_bytes(object: &ZendObject) -> Option<&[u8]> {
    if !class::BINARY.is_class_of(object) {
        return None;
    }
    // SAFETY: a Realtime\Binary has one property slot, and lives as long as the borrow of it.
    let slot = unsafe { &*zend::rt_object_slot(std::ptr::from_ref(object).cast_mut(), 0) };
    // Not set when its constructor was never called; then there are no bytes.
    Some(slot.zend_str().map_or(&[], ZendStr::as_bytes))
}

fn json(text: &[u8]) -> Option<Zval> {
    let mut value = Zval::new();
    // SAFETY: on the PHP thread; PHP copies what it needs of the text.
    let ok = unsafe { zend::rt_json_decode(&raw mut value, text.as_ptr().cast(), text.len()) };
    ok.then_some(value)
}

/// json_last_error_msg() for a code: PHP does not export it.
fn json_error(code: c_int) -> &'static str {
    match code {
        1 => "Maximum stack depth exceeded",
        5 => "Malformed UTF-8 characters, possibly incorrectly encoded",
        6 => "Recursion detected",
        7 => "Inf and NaN cannot be JSON encoded",
        8 => "Type is not supported",
        9 => "The decoded property name is invalid",
        11 => "Non-backed enums have no default serialization",
        _ => "Unknown error",
    }
}
