//! `$connection->state`: what a script keeps with a connection between two of its events.
//!
//! The truth is the JSON in [`ConnectionInfo`]; PHP's side of it is decoded when it is looked at and, when a handler
//! has changed it, encoded again right after that handler ([`keep`]). `objects.c` sees to who may write it when.
//! Imports `message`, `connection`, `callable`, `value`, `ini`, `fault` and `zend`.

use std::ffi::c_void;

use ext_php_rs::types::{ZendObject, Zval};

use super::callable::{Ended, pending};
use super::fault::{self, Fault, Unwinding, contain};
use super::value::NotEncodable;
use super::{connection, ini, value, zend};
use crate::message::{ConnectionInfo, Incoming, Payload};

/// While it lives, the handlers of one connection run, and may write its state.
#[derive(Debug)]
pub struct Entered {
    /// Whose handlers ran before: one of them has called rt_dispatch().
    before: *mut ZendObject,
}

impl Entered {
    /// Begins with the state that the server has.
    pub fn new(who: &Zval) -> Result<Self, Unwinding> {
        let object = pointer(who);
        // SAFETY: on the PHP thread; the caller holds the object, which is a Connection, longer than the guard.
        let before = unsafe { zend::rt_connection_enter(object) };
        let entered = Self { before };
        if before != object {
            // SAFETY: as above.
            fault::check(unsafe { zend::rt_connection_reload(object) })?;
        }
        Ok(entered)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // SAFETY: on the PHP thread; null, or the object that the frame below holds.
        unsafe { zend::rt_connection_enter(self.before) };
    }
}

/// Keeps what a handler has made of the state. An exception: it cannot be kept, and what was before stays.
pub fn keep(who: &Zval) -> Result<(), Ended> {
    let object = pointer(who);
    // SAFETY: on the PHP thread; null or a value in the object, which the caller holds. Copied before PHP code runs.
    let changed = unsafe { zend::rt_connection_changed(object).as_ref() };
    let Some(mut changed) = changed.map(Zval::shallow_clone) else {
        return Ok(());
    };
    let encoded = encode(&mut changed);
    drop(changed);
    // SAFETY: as above.
    fault::check(unsafe { zend::rt_connection_reload(object) }).map_err(
        |unwinding| match unwinding {
            Unwinding::Pending => pending(),
            Unwinding::Bailout => Ended::Unwinding(unwinding),
        },
    )?;
    match encoded {
        Ok(state) => {
            // SAFETY: a Connection that the caller holds.
            if let Some(info) = unsafe { connection::info(object) } {
                info.set_state(state);
            }
            Ok(())
        }
        Err(Fault::Unwinding(Unwinding::Bailout)) => Err(Ended::Unwinding(Unwinding::Bailout)),
        Err(fault) => {
            fault.raise();
            Err(pending())
        }
    }
}

fn encode(state: &mut Zval) -> Result<Option<Box<str>>, Fault> {
    if state.is_null() {
        return Ok(None);
    }
    let payload = value::encode(state).map_err(|error| match error {
        NotEncodable::Json(why) => Fault::Value(format!(
            "Realtime\\Connection::$state must be JSON-encodable: {why}"
        )),
        NotEncodable::Unwinding(unwinding) => Fault::Unwinding(unwinding),
    })?;
    let limit = ini::config().map_err(Fault::realtime)?.state_size;
    if payload.len() > limit {
        return Err(Fault::realtime(format_args!(
            "Realtime\\Connection::$state has {} bytes as JSON, realtime.state_size allows {limit}",
            payload.len()
        )));
    }
    match payload {
        Payload::Json(bytes) => Ok(std::str::from_utf8(&bytes).ok().map(Into::into)),
        // The property takes arrays only.
        Payload::Binary(_) => Ok(None),
    }
}

/// Called by objects.c: puts the state into a null.
#[unsafe(no_mangle)]
extern "C" fn rt_connection_state(native: *mut c_void, state: *mut Zval) {
    contain((), || {
        // SAFETY: objects.c passes the pointer of an object that is alive, and a null, which needs no release.
        let (info, state) = unsafe { (&*native.cast::<ConnectionInfo>(), &mut *state) };
        if let Some(json) = info.state()
            && let Some(decoded) = value::decode(&Incoming::Json(json.into_string().into()))
            && decoded.is_array()
        {
            *state = decoded;
        }
    });
}

fn pointer(who: &Zval) -> *mut ZendObject {
    who.object().map_or(std::ptr::null_mut(), |object| {
        std::ptr::from_ref(object).cast_mut()
    })
}
