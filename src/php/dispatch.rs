//! One event of the server, handed to the script's handlers, and their verdict or reply handed back.
//!
//! Events come from `event_loop` and `web`, answers go to the event's own way back. What a handler throws goes to the
//! `rt_on_error()` handlers or becomes a warning; only `exit()`, a fatal error or a time-out ends the caller. Imports
//! `work`, `message`, `handlers`, `connection`, `state` and `value`.

use std::ffi::CStr;
use std::rc::Rc;
use std::sync::Arc;

use ext_php_rs::types::Zval;

use super::callable::{Callable, Ended, Exception, pending};
use super::fault::{Fault, Unwinding};
use super::handlers::{self, Kind};
use super::message::Right;
use super::state::{self, Entered};
use super::value::NotEncodable;
use super::work::{Way, What, Work};
use super::{connection, message, presence, value};
use crate::backend::{HandlerFailed, Ruling};
use crate::ids::Channel;
use crate::message::{ClientMessage, ConnectionInfo, Payload};

/// Handles one event. `Err`: the script is over.
pub fn event(work: Work) -> Result<(), Unwinding> {
    let pending = work.way.pending();
    let Work { who, what, way } = work;
    let result = match what {
        What::Open => open(&who, way),
        What::Subscribe(channel) => subscribe(&who, &channel, way),
        What::Message(message) => client_message(&message, way),
        What::Close { code, reason } => close(&who, code, &reason, way),
    };
    if let Some(pending) = pending {
        pending.finish();
    }
    result
}

/// Answers an event that no handler will see: the script has ended.
pub fn refuse(work: Work) {
    if let What::Message(_) = work.what {
        work.way.reply(Err(HandlerFailed));
    }
}

fn open(info: &Arc<ConnectionInfo>, way: Way) -> Result<(), Unwinding> {
    let who = connection::cached(info);
    let _entered = Entered::new(&who)?;
    let mut admit = true;
    for_each(Kind::Open, |handler| {
        let mut arguments = [who.shallow_clone()];
        // Who cannot be checked is not let in.
        admit = match called(handler, &mut arguments, &who, c"an rt_on_open() handler")? {
            Some(verdict) => !verdict.is_false(),
            None => false,
        };
        Ok(admit)
    })?;
    way.decide(ruling(admit));
    if !admit {
        connection::forget(info.id);
    }
    Ok(())
}

fn subscribe(info: &Arc<ConnectionInfo>, channel: &Channel, way: Way) -> Result<(), Unwinding> {
    let who = connection::cached(info);
    let _entered = Entered::new(&who)?;
    let mut opened = false;
    let mut refused = false;
    let mut attendee = None;
    let whence = c"an rt_on_subscribe() handler";
    for_each(Kind::Subscribe, |handler| {
        let mut arguments = [who.shallow_clone(), value::string(channel.as_str())];
        match called(handler, &mut arguments, &who, whence)? {
            Some(verdict) if verdict.is_array() => match presence::attendee(&verdict) {
                Ok(its) => {
                    opened = true;
                    attendee.get_or_insert(its);
                }
                Err(fault) => {
                    refused = true;
                    raised(fault, &who, whence)?;
                }
            },
            Some(verdict) => {
                opened |= verdict.is_true();
                refused |= verdict.is_false();
            }
            None => refused = true,
        }
        Ok(!refused)
    })?;
    let admit = !refused && (opened || !channel.is_guarded());
    way.decide(match attendee {
        Some(attendee) if admit => Ruling::AdmittedAs(attendee),
        _ => ruling(admit),
    });
    Ok(())
}

fn ruling(admit: bool) -> Ruling {
    match admit {
        true => Ruling::Admitted,
        false => Ruling::Refused,
    }
}

/// Reports what is wrong with a handler's verdict, as if the handler had thrown it.
fn raised(fault: Fault, who: &Zval, whence: &CStr) -> Result<(), Unwinding> {
    if let Fault::Unwinding(Unwinding::Bailout) = fault {
        return Err(Unwinding::Bailout);
    }
    fault.raise();
    match pending() {
        Ended::Exception(exception) => report(&exception, Some(who), whence),
        Ended::Unwinding(unwinding) => Err(unwinding),
    }
}

fn client_message(sent: &ClientMessage, way: Way) -> Result<(), Unwinding> {
    // Dropped unused (exit(), a fatal error), it answers that the handler failed.
    let right = Right::new(way);
    let who = connection::cached(&sent.from);
    let _entered = Entered::new(&who)?;
    let Some(object) = message::object(sent, who.shallow_clone(), &right) else {
        // JSON that PHP cannot decode. The server has refused what is too deep or has half a surrogate pair, so nobody
        // gets here.
        right.use_up(Err(HandlerFailed));
        return Ok(());
    };
    let mut reply = None;
    let mut failed = false;
    let mut next = 0;
    while let Some((handler, after)) = handlers::for_channel(sent.channel.as_str(), next) {
        next = after;
        let mut arguments = [object.shallow_clone()];
        let whence = c"an rt_on_message() handler";
        match called(&handler, &mut arguments, &who, whence)? {
            Some(mut returned) if reply.is_none() && !returned.is_null() => {
                match encoded(&right, &mut returned, &who, whence)? {
                    Some(payload) => reply = Some(payload),
                    None => failed = true,
                }
            }
            Some(_) => {}
            None => failed = true,
        }
    }
    right.use_up(match (failed, reply) {
        (_, Some(payload)) => Ok(Some(payload)),
        (false, None) => Ok(None),
        (true, None) => Err(HandlerFailed),
    });
    Ok(())
}

fn close(info: &Arc<ConnectionInfo>, code: u16, reason: &str, way: Way) -> Result<(), Unwinding> {
    let who = connection::object(info);
    let _entered = Entered::new(&who)?;
    connection::forget(info.id);
    for_each(Kind::Close, |handler| {
        let mut arguments = [who.shallow_clone(), value::int(code), value::string(reason)];
        called(handler, &mut arguments, &who, c"an rt_on_close() handler")?;
        Ok(true)
    })?;
    way.done();
    Ok(())
}

/// Calls `body` with each handler of a kind, also those that are added meanwhile, until it says `false`.
fn for_each(
    kind: Kind,
    mut body: impl FnMut(&Rc<Callable>) -> Result<bool, Unwinding>,
) -> Result<(), Unwinding> {
    let mut index = 0;
    while let Some(handler) = handlers::get(kind, index) {
        index += 1;
        if !body(&handler)? {
            break;
        }
    }
    Ok(())
}

/// Calls a handler. `None`: it threw, or left a state that cannot be kept, and that has been reported.
fn called(
    handler: &Callable,
    arguments: &mut [Zval],
    who: &Zval,
    whence: &CStr,
) -> Result<Option<Zval>, Unwinding> {
    let mut returned = match handler.call(arguments) {
        Ok(returned) => Some(returned),
        Err(Ended::Exception(exception)) => {
            report(&exception, Some(who), whence)?;
            None
        }
        Err(Ended::Unwinding(unwinding)) => return Err(unwinding),
    };
    match state::keep(who) {
        Ok(()) => {}
        Err(Ended::Exception(exception)) => {
            report(&exception, Some(who), whence)?;
            returned = None;
        }
        Err(Ended::Unwinding(unwinding)) => return Err(unwinding),
    }
    Ok(returned)
}

/// What a handler returned, as a reply. `None`: it is no possible reply, and that has been reported.
fn encoded(
    right: &Right,
    returned: &mut Zval,
    who: &Zval,
    whence: &CStr,
) -> Result<Option<Payload>, Unwinding> {
    match value::encode(returned) {
        Ok(payload) => match right.check_size(payload.len()) {
            Ok(()) => return Ok(Some(payload)),
            Err(failure) => Fault::realtime(failure).raise(),
        },
        Err(NotEncodable::Unwinding(Unwinding::Bailout)) => return Err(Unwinding::Bailout),
        Err(NotEncodable::Unwinding(Unwinding::Pending)) => {}
        Err(NotEncodable::Json(why)) => {
            Fault::Value(format!(
                "rt_on_message(): Return value of the handler must be JSON-encodable: {why}"
            ))
            .raise();
        }
    }
    match pending() {
        Ended::Exception(exception) => {
            report(&exception, Some(who), whence)?;
            Ok(None)
        }
        Ended::Unwinding(unwinding) => Err(unwinding),
    }
}

/// Tells of an exception: to the `rt_on_error()` handlers when it concerns a connection and there are any, else in a
/// warning.
pub fn report(exception: &Exception, who: Option<&Zval>, whence: &CStr) -> Result<(), Unwinding> {
    let mut told = false;
    if let Some(who) = who {
        for_each(Kind::Error, |handler| {
            told = true;
            match handler.call(&mut [who.shallow_clone(), exception.value()]) {
                Ok(_) => {}
                Err(Ended::Exception(another)) => another.warn(c"an rt_on_error() handler")?,
                Err(Ended::Unwinding(unwinding)) => return Err(unwinding),
            }
            Ok(true)
        })?;
    }
    if told { Ok(()) } else { exception.warn(whence) }
}
