//! Presence channels: `rt_presence()`, and whom an `rt_on_subscribe()` handler takes a client for.
//!
//! Imports `link`, `args`, `value`, `presence` and `zend`.

use ext_php_rs::types::{ZendHashTable, ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, guard};
use super::value::NotEncodable;
use super::{args, link, value, zend};
use crate::auth;
use crate::message::Payload;
use crate::presence::Attendee;

/// `rt_presence(string $channel): array`
pub extern "C" fn rt_presence(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut channel: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "S" fills a string pointer with an argument, alive until we return.
        let channel = unsafe {
            zend::zend_parse_parameters(count, c"S".as_ptr(), &raw mut channel)
                .eq(&0)
                .then(|| zend::bytes(channel))
                .ok_or(Fault::ARGUMENTS)?
        };
        let channel = args::channel(1, channel.unwrap_or_default())?;
        if !channel.is_presence() {
            return Err(Fault::argument(
                1,
                "be a presence channel, whose name begins with \"presence-\"",
            ));
        }
        let members = link::with(|link| link.members(&channel)).map_err(Fault::realtime)?;
        let mut table = ZendHashTable::with_capacity(members.len() as u32);
        for member in members {
            let info = member.info.and_then(|info| {
                let json = info.get().as_bytes().to_vec();
                value::decode_payload(&Payload::Json(json.into()))
            });
            let mut row = ZendHashTable::with_capacity(2);
            // Neither key has a NUL, which is all that could fail; nor has a user.
            let _ = row.insert("info", info.unwrap_or_else(Zval::null));
            let _ = row.insert("connections", value::int(member.connections));
            let mut entry = Zval::new();
            entry.set_hashtable(row);
            let _ = table.insert(&*member.user, entry);
        }
        ret.set_hashtable(table);
        Ok(())
    });
}

/// Who a client is by what a handler returned: `['user' => …, 'info' => …]`.
pub fn attendee(returned: &Zval) -> Result<Attendee, Fault> {
    const WHENCE: &str = "rt_on_subscribe(): Return value of the handler";
    let nobody = || {
        Fault::Value(format!(
            "{WHENCE} must have a \"user\" of 1 to 200 bytes without control characters"
        ))
    };
    let table = returned.dereference().array().ok_or_else(nobody)?;
    let user = table.get("user").ok_or_else(nobody)?.dereference();
    let user = match user.long() {
        Some(number) => number.to_string(),
        None => user.string().ok_or_else(nobody)?,
    };
    if !auth::is_user(&user) {
        return Err(nobody());
    }
    let mut info = match table.get("info") {
        Some(info) if !info.dereference().is_null() => info.shallow_clone(),
        _ => return Ok(Attendee::new(&user, None)),
    };
    let why = match value::encode(&mut info) {
        Ok(Payload::Json(json)) => {
            let json = String::from_utf8_lossy(&json);
            return Ok(Attendee::new(&user, Some(&json)));
        }
        Ok(Payload::Binary(_)) => "it is binary",
        Err(NotEncodable::Json(why)) => why,
        Err(NotEncodable::Unwinding(unwinding)) => return Err(Fault::Unwinding(unwinding)),
    };
    Err(Fault::Value(format!(
        "{WHENCE} must have an \"info\" that is JSON-encodable: {why}"
    )))
}
