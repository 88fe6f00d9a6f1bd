//! `rt_broadcast()` and what steers one connection: `rt_send()`, `rt_subscribe()`, `rt_unsubscribe()`, `rt_close()`.
//!
//! Each takes its arguments as PHP's own functions do, encodes what may run PHP code, and only then asks the server.
//! Imports `ids`, `message`, `link`, `args`, `value` and `zend`.

use ext_php_rs::types::{ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, guard};
use super::{args, link, value, zend};
use crate::ids::ConnectionId;
use crate::message::Publish;

/// `rt_broadcast(string|array $channel, mixed $data, string $event = 'message', ?string $except = null,
/// ?string $id = null, bool $store = true): string`
pub extern "C" fn rt_broadcast(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut given = std::mem::MaybeUninit::<zend::BroadcastArgs>::uninit();
        // SAFETY: the parser fills all of it; what it points at are arguments, alive until we return.
        let given = unsafe {
            if !zend::rt_parse_broadcast(call, given.as_mut_ptr()) {
                return Err(Fault::ARGUMENTS);
            }
            given.assume_init()
        };
        // SAFETY: as above, for each of these pointers.
        let (list, name, data, event, except, id) = unsafe {
            (
                given.channels.as_ref(),
                zend::bytes(given.channel),
                given.data.as_mut().ok_or(Fault::ARGUMENTS)?,
                zend::bytes(given.event),
                zend::bytes(given.except),
                zend::bytes(given.id),
            )
        };
        let channels = match (list, name) {
            (Some(list), _) => args::channels(1, list)?,
            (None, name) => vec![args::channel(1, name.unwrap_or_default())?],
        };
        let event = args::event(3, event)?;
        let except = except.map(|id| args::connection(4, id)).transpose()?;
        let id = id.map(|id| args::custom_id(5, id)).transpose()?;
        let payload = value::encode(data).map_err(|error| error.argument(2))?;
        let mut publish = Some(Publish {
            channels,
            payload,
            event,
            except,
            id,
            store: given.store,
            terms: None,
        });
        let id = link::with(|link| link.publish(&mut publish)).map_err(Fault::realtime)?;
        *ret = value::string(id);
        Ok(())
    });
}

/// `rt_send(string $connection, mixed $data, string $event = 'message'): bool`
pub extern "C" fn rt_send(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut id: *mut ZendStr = std::ptr::null_mut();
        let mut data: *mut Zval = std::ptr::null_mut();
        let mut event: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "Sz|S" fills string, Zval and string pointers with arguments, alive until we return.
        let (id, data, event) = unsafe {
            zend::zend_parse_parameters(
                count,
                c"Sz|S".as_ptr(),
                &raw mut id,
                &raw mut data,
                &raw mut event,
            )
            .eq(&0)
            .then(|| (zend::bytes(id), data.as_mut(), zend::bytes(event)))
            .ok_or(Fault::ARGUMENTS)?
        };
        let to = args::connection(1, id.unwrap_or_default())?;
        send(ret, to, data, event, 2)
    });
}

/// `Realtime\Connection::send()`, to a connection that is known.
pub fn send_to(call: &mut ExecuteData, ret: &mut Zval, to: ConnectionId) -> Result<(), Fault> {
    let mut data: *mut Zval = std::ptr::null_mut();
    let mut event: *mut ZendStr = std::ptr::null_mut();
    let count = zend::arg_count(call);
    // SAFETY: "z|S" fills Zval and string pointers with arguments, alive until we return.
    let (data, event) = unsafe {
        zend::zend_parse_parameters(count, c"z|S".as_ptr(), &raw mut data, &raw mut event)
            .eq(&0)
            .then(|| (data.as_mut(), zend::bytes(event)))
            .ok_or(Fault::ARGUMENTS)?
    };
    send(ret, to, data, event, 1)
}

/// `rt_subscribe(string $connection, string $channel): bool`
pub extern "C" fn rt_subscribe(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let (who, channel) = connection_and_channel(call)?;
        subscribe(ret, who, channel, 2, true)
    });
}

/// `rt_unsubscribe(string $connection, string $channel): bool`
pub extern "C" fn rt_unsubscribe(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let (who, channel) = connection_and_channel(call)?;
        subscribe(ret, who, channel, 2, false)
    });
}

/// `Realtime\Connection::subscribe()` and `unsubscribe()`.
pub fn subscribe_it(
    call: &mut ExecuteData,
    ret: &mut Zval,
    who: ConnectionId,
    on: bool,
) -> Result<(), Fault> {
    let mut channel: *mut ZendStr = std::ptr::null_mut();
    let count = zend::arg_count(call);
    // SAFETY: "S" fills a string pointer with an argument, alive until we return.
    let channel = unsafe {
        zend::zend_parse_parameters(count, c"S".as_ptr(), &raw mut channel);
        zend::bytes(channel)
    }
    .ok_or(Fault::ARGUMENTS)?;
    subscribe(ret, who, channel, 1, on)
}

/// `rt_close(string $connection, int $code = 1000, string $reason = ''): bool`
pub extern "C" fn rt_close(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut id: *mut ZendStr = std::ptr::null_mut();
        let mut code: i64 = 1000;
        let mut reason: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "S|lS" fills string, long and string pointers with arguments, alive until we return.
        let (id, reason) = unsafe {
            zend::zend_parse_parameters(
                count,
                c"S|lS".as_ptr(),
                &raw mut id,
                &raw mut code,
                &raw mut reason,
            )
            .eq(&0)
            .then(|| (zend::bytes(id), zend::bytes(reason)))
            .ok_or(Fault::ARGUMENTS)?
        };
        let who = args::connection(1, id.unwrap_or_default())?;
        close(ret, who, code, reason, 2)
    });
}

/// `Realtime\Connection::close()`
pub fn close_it(call: &mut ExecuteData, ret: &mut Zval, who: ConnectionId) -> Result<(), Fault> {
    let mut code: i64 = 1000;
    let mut reason: *mut ZendStr = std::ptr::null_mut();
    let count = zend::arg_count(call);
    // SAFETY: "|lS" fills long and string pointers with arguments, alive until we return.
    let reason = unsafe {
        zend::zend_parse_parameters(count, c"|lS".as_ptr(), &raw mut code, &raw mut reason)
            .eq(&0)
            .then(|| zend::bytes(reason))
            .ok_or(Fault::ARGUMENTS)?
    };
    close(ret, who, code, reason, 1)
}

fn send(
    ret: &mut Zval,
    to: ConnectionId,
    data: Option<&mut Zval>,
    event: Option<&[u8]>,
    data_number: u32,
) -> Result<(), Fault> {
    let event = args::event(data_number + 1, event)?;
    let payload = value::encode(data.ok_or(Fault::ARGUMENTS)?)
        .map_err(|error| error.argument(data_number))?;
    let sent = link::with(|link| link.send(to, payload.clone(), event.clone()))
        .map_err(Fault::realtime)?;
    ret.set_bool(sent);
    Ok(())
}

fn subscribe(
    ret: &mut Zval,
    who: ConnectionId,
    channel: &[u8],
    number: u32,
    on: bool,
) -> Result<(), Fault> {
    let channel = args::channel(number, channel)?;
    let done = link::with(|link| match on {
        true => link.subscribe(who, channel.clone()),
        false => link.unsubscribe(who, channel.clone()),
    })
    .map_err(Fault::realtime)?;
    ret.set_bool(done);
    Ok(())
}

fn close(
    ret: &mut Zval,
    who: ConnectionId,
    code: i64,
    reason: Option<&[u8]>,
    code_number: u32,
) -> Result<(), Fault> {
    let (code, reason) = farewell(code, reason, code_number)?;
    let done = link::with(|link| link.close(who, code, reason.clone())).map_err(Fault::realtime)?;
    ret.set_bool(done);
    Ok(())
}

/// A close code and its reason, of which the code is argument `code_number`.
pub fn farewell(
    code: i64,
    reason: Option<&[u8]>,
    code_number: u32,
) -> Result<(u16, String), Fault> {
    // RFC 6455, section 7.4: what an application may send.
    let code = u16::try_from(code)
        .ok()
        .filter(|code| matches!(code, 1000 | 3000..=4999))
        .ok_or_else(|| Fault::argument(code_number, "be 1000 or from 3000 to 4999"))?;
    let reason = std::str::from_utf8(reason.unwrap_or_default())
        .ok()
        .filter(|reason| reason.len() <= 123)
        .ok_or_else(|| Fault::argument(code_number + 1, "be at most 123 bytes of UTF-8"))?;
    Ok((code, reason.to_owned()))
}

fn connection_and_channel(call: &mut ExecuteData) -> Result<(ConnectionId, &[u8]), Fault> {
    let mut id: *mut ZendStr = std::ptr::null_mut();
    let mut channel: *mut ZendStr = std::ptr::null_mut();
    let count = zend::arg_count(call);
    // SAFETY: "SS" fills string pointers with arguments, alive until the function that calls us returns.
    let (id, channel) = unsafe {
        zend::zend_parse_parameters(count, c"SS".as_ptr(), &raw mut id, &raw mut channel)
            .eq(&0)
            .then(|| (zend::bytes(id), zend::bytes(channel)))
            .ok_or(Fault::ARGUMENTS)?
    };
    Ok((
        args::connection(1, id.unwrap_or_default())?,
        channel.unwrap_or_default(),
    ))
}
