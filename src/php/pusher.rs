//! `rt_pusher_auth()`: the answer of an auth endpoint for clients of the Pusher protocol.
//!
//! Imports `pusher`, `ini`, `value` and `zend`.

use ext_php_rs::types::{ZendHashTable, ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, guard};
use super::{ini, value, zend};
use crate::message::Payload;
use crate::pusher::grant::{self, NotGranted};

/// `rt_pusher_auth(string $socket_id, string $channel, ?array $user = null): array`
pub extern "C" fn rt_pusher_auth(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut socket_id: *mut ZendStr = std::ptr::null_mut();
        let mut channel: *mut ZendStr = std::ptr::null_mut();
        let mut user: *mut Zval = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "SS|a!" fills string and Zval pointers with arguments, alive until we return.
        let (socket_id, channel, user) = unsafe {
            zend::zend_parse_parameters(
                count,
                c"SS|a!".as_ptr(),
                &raw mut socket_id,
                &raw mut channel,
                &raw mut user,
            )
            .eq(&0)
            .then(|| {
                (
                    zend::bytes(socket_id).unwrap_or_default(),
                    zend::bytes(channel).unwrap_or_default(),
                    user.as_mut(),
                )
            })
            .ok_or(Fault::ARGUMENTS)?
        };
        let user = user
            .map(value::encode)
            .transpose()
            .map_err(|error| error.argument(3))?;
        let user = user
            .as_ref()
            .map(|(Payload::Json(json) | Payload::Binary(json))| String::from_utf8_lossy(json));
        let (socket_id, channel) = (
            String::from_utf8_lossy(socket_id),
            String::from_utf8_lossy(channel),
        );
        let config = ini::config().map_err(Fault::realtime)?;
        let answer = grant::grant(config, &socket_id, &channel, user.as_deref()).map_err(
            |why| match why {
                NotGranted::NoApp | NotGranted::NoMasterKey => Fault::realtime(why),
                NotGranted::SocketId => Fault::argument(1, why),
                NotGranted::Channel(_) => Fault::argument(2, why),
                NotGranted::User(_) => Fault::argument(3, why),
            },
        )?;
        let mut table = ZendHashTable::with_capacity(answer.len() as u32);
        for (name, text) in &answer {
            // Fails only for keys with a NUL, which no name of ours has.
            let _ = table.insert(
                name.as_str(),
                value::string(text.as_str().unwrap_or_default()),
            );
        }
        ret.set_hashtable(table);
        Ok(())
    });
}
