//! `Realtime\Message` with its right to reply, and `Realtime\Binary`.
//!
//! Made by `dispatch` of a [`ClientMessage`]. Imports `message`, `work`, `value`, `fault` and `zend`.

use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::Rc;

use ext_php_rs::types::{ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, contain, guard};
use super::work::Way;
use super::{class, value, zend};
use crate::backend::{HandlerFailed, Outcome};
use crate::message::ClientMessage;
use crate::node::Failure;

/// The right to answer one client message, once. Unused, it says that the handler failed.
pub struct Right(RefCell<Option<Way>>);

impl Right {
    /// The right to answer by this way.
    pub fn new(way: Way) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Some(way))))
    }

    /// Whether a reply of `size` bytes is allowed. One that nobody waits for any more is.
    pub fn check_size(&self, size: usize) -> Result<(), Failure> {
        match &*self.0.borrow() {
            Some(way) if !way.is_inherited() => way.check_size(size),
            _ => Ok(()),
        }
    }

    /// Answers, unless that has been done.
    pub fn use_up(&self, outcome: Outcome) -> bool {
        let way = self.0.take();
        let unused = way.is_some();
        if let Some(way) = way {
            way.reply(outcome);
        }
        unused
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        self.use_up(Err(HandlerFailed));
    }
}

/// The object of a client's message; `None` when PHP cannot decode its data.
pub fn object(message: &ClientMessage, from: Zval, right: &Rc<Right>) -> Option<Zval> {
    let mut values = [
        value::string(message.channel.as_str()),
        value::string(message.event.as_str()),
        value::decode(&message.data)?,
        value::string(message.number.to_string()),
        from,
    ];
    let native = Rc::into_raw(Rc::clone(right));
    // SAFETY: on the PHP thread. The class has five properties, whose empty slots take the values over, so the
    // locals must not release them; the object owns the pointer's count, given back in rt_message_drop().
    unsafe {
        let made = zend::rt_object_make(class::MESSAGE.entry(), native.cast_mut().cast());
        zend::rt_object_fill(made, values.len() as u32, values.as_mut_ptr());
        std::mem::forget(values);
        Some(value::object(made))
    }
}

/// `reply(mixed $data): void`
pub extern "C" fn reply(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| {
        let mut data: *mut Zval = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: one "z" is one Zval pointer; the argument lives until we return.
        let data = unsafe {
            zend::zend_parse_parameters(count, c"z".as_ptr(), &raw mut data);
            data.as_mut()
        }
        .ok_or(Fault::ARGUMENTS)?;
        // Encoding may run PHP code, so the right is looked up after it.
        let payload = value::encode(data).map_err(|error| error.argument(1))?;
        let right = call
            .This
            .object_mut()
            // SAFETY: methods of this final class are called on its objects only, whose native pointer is null or
            // an Rc's, which the object holds while it is being called.
            .and_then(|object| unsafe { zend::rt_native(object).cast::<Right>().as_ref() });
        if let Some(right) = right {
            right.check_size(payload.len()).map_err(Fault::realtime)?;
        }
        if right.is_some_and(|right| right.use_up(Ok(Some(payload)))) {
            Ok(())
        } else {
            Err(Fault::realtime(
                "this message has been answered: reply() may be called once, before its handlers have returned",
            ))
        }
    });
}

/// Called by shim.c: the object is gone.
#[unsafe(no_mangle)]
extern "C" fn rt_message_drop(native: *mut c_void) {
    // SAFETY: the pointer of object(), given back once, on the PHP thread that made it.
    contain((), || unsafe {
        drop(Rc::from_raw(native.cast::<Right>()));
    });
}

/// `Realtime\Binary::__construct(string $bytes)`
pub extern "C" fn binary_construct(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| {
        let mut bytes: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: one "S" is one string pointer; the argument lives until we return.
        let bytes = unsafe {
            zend::zend_parse_parameters(count, c"S".as_ptr(), &raw mut bytes);
            zend::bytes(bytes)
        }
        .ok_or(Fault::ARGUMENTS)?;
        let object = call.This.object_mut().ok_or(Fault::ARGUMENTS)?;
        let mut value = value::string(bytes);
        // Throws by itself when the constructor is called a second time: the property is readonly.
        // SAFETY: on the PHP thread; class, object and value live during the call, and PHP takes its own reference.
        unsafe {
            zend::zend_update_property(
                class::BINARY.entry(),
                object,
                c"bytes".as_ptr(),
                5,
                &raw mut value,
            );
        }
        Ok(())
    });
}

/// `Realtime\Binary::__toString(): string`
pub extern "C" fn binary_to_string(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        // SAFETY: no parameters, so no pointers; the call's own count.
        if unsafe { zend::zend_parse_parameters(zend::arg_count(call), c"".as_ptr()) } != 0 {
            return Err(Fault::ARGUMENTS);
        }
        let object = call.This.object_mut().ok_or(Fault::ARGUMENTS)?;
        // SAFETY: a Realtime\Binary has one property slot.
        let slot = unsafe { &*zend::rt_object_slot(object, 0) };
        *ret = if slot.is_string() {
            slot.shallow_clone()
        } else {
            value::string("")
        };
        Ok(())
    });
}
