//! A request in which the server has clients' events handled: `realtime.handler` under PHP-FPM and its like.
//!
//! The server is the FastCGI client. The request's body is a batch of events; their outcomes go straight into the
//! request's output, behind a mark that only the server knows, while what the script prints goes there by PHP's own ways.
//! Called by `event_loop`. Imports `dispatch`, `work`, `link`, `ini`, `wire::events` and `zend`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::rc::Rc;

use ext_php_rs::types::ZendStr;

use super::fault::{self, Fault, Unwinding, contain};
use super::sapi::{self, Home};
use super::work::{Outgoing, Waiting};
use super::{dispatch, event_loop, ini, link, zend};
use crate::procfs;
use crate::wire::control;
use crate::wire::events::{
    self, AHEAD_PARAM, BATCH_PARAM, BATCH_PARAM_MAX, Batch, LEAVING, MARK_PARAM, Mark, Outcomes,
    REFUSED, SECRET_PARAM, UNTIL_PARAM,
};

/// The server's request that this script runs for.
pub struct Request {
    mark: Mark,
    events: RefCell<VecDeque<Waiting>>,
    outgoing: Rc<Outgoing>,
    /// It came too late.
    refused: bool,
    /// Handlers are running.
    busy: Cell<bool>,
    /// Nobody reads the outcomes any more.
    over: Cell<bool>,
}

thread_local! {
    static REQUEST: RefCell<Option<Rc<Request>>> = const { RefCell::new(None) };
    /// A script went on after its request's end. What the server had sent behind that request, it has given to others.
    static LEFT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this PHP runs scripts for a web server, each with one request, in processes that come and go.
pub fn is_worker() -> bool {
    sapi::home() == Home::Process
}

/// Fails in a web request, where `what` makes no sense.
pub fn forbid(what: &str) -> Result<(), Fault> {
    match is_worker() {
        false => Ok(()),
        true => Err(Fault::realtime(what)),
    }
}

/// The server's request; the first call reads it.
pub fn request() -> Result<Rc<Request>, Fault> {
    if let Some(request) = REQUEST.with_borrow(Clone::clone) {
        return Ok(request);
    }
    let request = Rc::new(Request::read()?);
    REQUEST.set(Some(Rc::clone(&request)));
    Ok(request)
}

/// A request begins.
pub fn begin() {
    if is_worker() {
        // SAFETY: on the PHP thread of a worker, which has no other.
        unsafe { zend::rt_request_hold() };
    }
}

/// The request ends.
pub fn forget() {
    // What is done has been told: run() does so however it ends.
    drop(REQUEST.take());
}

impl Request {
    /// Handles at most `limit` of its events.
    pub fn run(&self, limit: usize) -> Result<usize, Unwinding> {
        let mut handled = 0;
        let before = self.busy.replace(true);
        let result = loop {
            if handled == limit || event_loop::stopped() || self.outgoing.is_inherited() {
                break Ok(());
            }
            // No borrow is held while handlers run: one of them may call rt_dispatch().
            let Some(event) = self.events.borrow_mut().pop_front() else {
                break Ok(());
            };
            handled += 1;
            let mut result = dispatch::event(self.outgoing.work(event));
            if result.is_ok() && self.outgoing.is_due() {
                result = self.tell(true);
            }
            if result.is_err() {
                break result;
            }
        };
        self.busy.set(before);
        if result.is_err() {
            // The script is over; the server gives the rest to another one.
            self.events.take();
        }
        // Also without an outcome: the server wants to know what is of interest. Each flush wakes it, so after a short time this
        // one is left to the end of the request, which comes with a flush of its own.
        let late = self.outgoing.is_late();
        result.and(self.tell(late))?;
        Ok(handled)
    }

    fn read() -> Result<Self, Fault> {
        let mut room = [0; PARAM_MAX];
        let Some(secret) = param(SECRET_PARAM, &mut room) else {
            return Err(Fault::realtime(
                "this request is not from the realtime server: it runs realtime.handler by itself when clients do \
                 something, and nobody else can",
            ));
        };
        if !link::is_secret(secret).map_err(Fault::realtime)? {
            return Err(Fault::realtime(
                "this request has a wrong REALTIME_SECRET: it is not from the realtime server of this PHP",
            ));
        }
        // SAFETY: on the PHP thread of a worker, which has no other; reads a flag.
        if unsafe { zend::rt_request_is_finished() } {
            return Err(Fault::realtime(
                "fastcgi_finish_request() was called before rt_run(): the realtime server takes no answers any more",
            ));
        }
        let ahead = is_over(AHEAD_PARAM);
        // What the server sends on its own account, it sends to whom it knows to be free.
        let left = LEFT.replace(LEFT.get() && ahead.is_some());
        let refused = ahead.is_some_and(|over| over || left);
        if is_over(UNTIL_PARAM) == Some(true) {
            return Err(Fault::realtime(
                "the realtime server waits for this request no longer: the pool was busy for realtime.handler_timeout, \
                 and what clients did has gone to another worker or was given up",
            ));
        }
        let mark = param(MARK_PARAM, &mut room).and_then(mark);
        // As if the server had only asked which handlers there are. A body may have been cut off by now.
        let batch = if refused {
            Some(Batch::default())
        } else {
            batch()?
        };
        let (Some(mark), Some(batch)) = (mark, batch) else {
            return Err(Fault::realtime(
                "the realtime server's request cannot be read: it is of another version",
            ));
        };
        let limit = ini::config().map_err(Fault::realtime)?.max_message_size;
        let outgoing = Outgoing::new(limit);
        Ok(Self {
            mark,
            events: RefCell::new(outgoing.events(batch)),
            outgoing,
            refused,
            busy: Cell::new(false),
            over: Cell::new(false),
        })
    }

    /// Tells the server that this process has more to do when the request has ended.
    fn leave(&self) -> Result<(), Unwinding> {
        if self.over.replace(true) || self.outgoing.is_inherited() {
            return Ok(());
        }
        LEFT.set(true);
        let last = Outcomes {
            interest: LEAVING,
            outcomes: Vec::new(),
        };
        self.write(&last, false)
    }

    /// Writes the outcomes that there are, and sends them at once or with the end of the request. `Err`: the server has
    /// gone, and PHP ends the script for it.
    fn tell(&self, now: bool) -> Result<(), Unwinding> {
        if self.over.get() || self.outgoing.is_inherited() {
            return Ok(());
        }
        let Some(mut outcomes) = self.outgoing.take() else {
            return Ok(());
        };
        if self.refused {
            outcomes.interest = REFUSED;
        }
        self.write(&outcomes, now || self.refused)
    }

    fn write(&self, outcomes: &Outcomes, now: bool) -> Result<(), Unwinding> {
        let bytes = events::marked(&self.mark, outcomes);
        // SAFETY: on the PHP thread, in a request; PHP copies the bytes or sends them.
        let written =
            unsafe { zend::rt_request_write(bytes.as_ptr().cast(), bytes.len(), c_int::from(now)) };
        match written {
            zend::OK => Ok(()),
            result => {
                // What is handled from now on would be so twice.
                self.over.set(true);
                self.events.take();
                match result {
                    zend::BAILOUT => Err(Unwinding::Bailout),
                    // The script has asked to live on (ignore_user_abort()).
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Called by shim.c: whether the request's output is still needed for outcomes.
#[unsafe(no_mangle)]
extern "C" fn rt_web_busy() -> c_int {
    contain(0, || {
        let request = REQUEST.with_borrow(Clone::clone);
        c_int::from(request.is_some_and(|request| {
            !request.over.get() && (request.busy.get() || !request.events.borrow().is_empty())
        }))
    })
}

/// Called by shim.c before the request is ended while its script goes on: this process takes no other meanwhile, and the
/// server is not to send it one.
#[unsafe(no_mangle)]
extern "C" fn rt_web_leave() -> c_int {
    contain(zend::OK, || {
        let request = REQUEST.with_borrow(Clone::clone);
        match request.map(|request| request.leave()) {
            Some(Err(_)) => zend::BAILOUT,
            _ => zend::OK,
        }
    })
}

/// What any other parameter of ours may hold, in bytes.
const PARAM_MAX: usize = 256;

fn param<'a>(name: &str, room: &'a mut [u8]) -> Option<&'a str> {
    // SAFETY: on the PHP thread, in a request; reads the name, and writes at most as many bytes as there are.
    let length = unsafe {
        zend::rt_request_param(
            name.as_ptr().cast(),
            name.len(),
            room.as_mut_ptr().cast(),
            room.len(),
        )
    };
    let value = std::str::from_utf8(room.get(..length)?).ok()?;
    (!value.is_empty()).then_some(value)
}

/// Whether the time in a parameter is over, if there is one.
fn is_over(name: &str) -> Option<bool> {
    let until: u64 = param(name, &mut [0; PARAM_MAX])?.parse().ok()?;
    Some(procfs::uptime_ns() > until)
}

fn mark(text: &str) -> Option<Mark> {
    let mut mark = Mark::default();
    if text.len() != 2 * mark.len() {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    for (byte, pair) in mark.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(mark)
}

/// What the request brings; `None` when it cannot be read.
fn batch() -> Result<Option<Batch>, Fault> {
    let mut room = [0; BATCH_PARAM_MAX];
    if let Some(text) = param(BATCH_PARAM, &mut room) {
        return Ok(control::read(&events::of_param(text.as_bytes())).ok());
    }
    let mut text: *mut ZendStr = std::ptr::null_mut();
    // SAFETY: on the PHP thread, in a request; the result is a local.
    fault::check(unsafe { zend::rt_request_body(&raw mut text) })?;
    // SAFETY: null, or a string that is ours to release, once, and is not used after.
    unsafe {
        let batch = control::read::<Batch>(zend::bytes(text).unwrap_or_default()).ok();
        if let Some(text) = text.as_mut() {
            ext_php_rs::ffi::ext_php_rs_zend_string_release(text);
        }
        Ok(batch)
    }
}
