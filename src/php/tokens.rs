//! `rt_token()`, `rt_disconnect()`, `rt_revoke()`: who a client is, and the end of that.
//!
//! Imports `auth`, `ini`, `link`, `value` and `zend`.

use ext_php_rs::types::{ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, guard};
use super::{ini, link, publish, value, zend};
use crate::auth::{self, NotSigned};
use crate::message::Payload;

/// `rt_token(array $claims, int $ttl = 3600): string`
pub extern "C" fn rt_token(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut claims: *mut Zval = std::ptr::null_mut();
        let mut ttl: i64 = 3600;
        let count = zend::arg_count(call);
        // SAFETY: "a|l" fills a Zval pointer with an argument, alive until we return, and a long.
        let claims = unsafe {
            let wrong =
                zend::zend_parse_parameters(count, c"a|l".as_ptr(), &raw mut claims, &raw mut ttl);
            claims
                .as_mut()
                .filter(|_| wrong == 0)
                .ok_or(Fault::ARGUMENTS)?
        };
        let (Payload::Json(json) | Payload::Binary(json)) =
            value::encode(claims).map_err(|error| error.argument(1))?;
        let config = ini::config().map_err(Fault::realtime)?;
        let token = auth::sign(config, &json, ttl).map_err(|error| match error {
            NotSigned::NoSecret => Fault::realtime(error),
            NotSigned::Claims(_) => Fault::argument(1, error),
            NotSigned::Ttl(..) => Fault::argument(2, error),
        })?;
        *ret = value::string(token);
        Ok(())
    });
}

/// `rt_disconnect(string $user, int $code = 1000, string $reason = ''): int`
pub extern "C" fn rt_disconnect(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut name: *mut ZendStr = std::ptr::null_mut();
        let mut code: i64 = 1000;
        let mut reason: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "S|lS" fills string, long and string pointers with arguments, alive until we return.
        let (name, reason) = unsafe {
            zend::zend_parse_parameters(
                count,
                c"S|lS".as_ptr(),
                &raw mut name,
                &raw mut code,
                &raw mut reason,
            )
            .eq(&0)
            .then(|| (zend::bytes(name), zend::bytes(reason)))
            .ok_or(Fault::ARGUMENTS)?
        };
        let user = user(1, name.unwrap_or_default())?;
        let (code, reason) = publish::farewell(code, reason, 2)?;
        let closed =
            link::with(|link| link.disconnect(user, code, &reason)).map_err(Fault::realtime)?;
        *ret = value::int(closed);
        Ok(())
    });
}

/// `rt_revoke(?string $user = null, ?string $token = null): int`
pub extern "C" fn rt_revoke(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut name: *mut ZendStr = std::ptr::null_mut();
        let mut token: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "|S!S!" fills string pointers with arguments, alive until we return.
        let (name, token) = unsafe {
            zend::zend_parse_parameters(count, c"|S!S!".as_ptr(), &raw mut name, &raw mut token)
                .eq(&0)
                .then(|| (zend::bytes(name), zend::bytes(token)))
                .ok_or(Fault::ARGUMENTS)?
        };
        let closed = match (name, token) {
            (Some(name), None) => {
                let user = user(1, name)?;
                link::with(|link| link.revoke_user(user))
            }
            (None, Some(token)) => {
                let token = std::str::from_utf8(token)
                    .map_err(|_| Fault::argument(2, "be a token that rt_token() has returned"))?;
                link::with(|link| link.revoke_token(token))
            }
            _ => {
                let text = "rt_revoke() takes either a user or a token";
                return Err(Fault::Value(text.to_owned()));
            }
        };
        *ret = value::int(closed.map_err(Fault::realtime)?);
        Ok(())
    });
}

/// A user, as argument `number`.
fn user(number: u32, name: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(name)
        .ok()
        .filter(|name| auth::is_user(name))
        .ok_or_else(|| {
            let text = "be a user: 1 to 200 bytes of UTF-8 without control characters";
            Fault::argument(number, text)
        })
}
