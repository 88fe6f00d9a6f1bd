//! The loop: `rt_listen()`, `rt_run()`, `rt_dispatch()`, `rt_stream()`, `rt_stop()`.
//!
//! Takes events from a `source` and hands them to `dispatch`, runs `timers`, sleeps in `wait`; in a web request `web` does
//! all of it. Imports those and `config`.

use std::cell::Cell;
use std::os::fd::IntoRawFd;
use std::time::Instant;

use ext_php_rs::types::{ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, Unwinding, guard};
use super::source::Source;
use super::wait::{self, Signals};
use super::work::Work;
use super::{dispatch, link, timers, value, web, zend};
use crate::config::ListenAddress;

/// How many events are handled before time, timers and signals are looked at again.
const BATCH: usize = 32;

thread_local! {
    /// Whether rt_run() is running on this thread.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// rt_stop() was called.
    static STOPPED: Cell<bool> = const { Cell::new(false) };
}

/// Whether rt_stop() was called in what runs now.
pub fn stopped() -> bool {
    STOPPED.get()
}

/// The request ends: what still waits for its handlers is answered.
pub fn forget_all() {
    RUNNING.set(false);
    STOPPED.set(false);
    if let Some(here) = link::here() {
        for _ in 0..here.queue.len() {
            let Some(event) = here.queue.pop() else { break };
            dispatch::refuse(Work::here(&here, event));
        }
    }
}

/// `rt_listen(?string $address = null): string`
pub extern "C" fn rt_listen(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        web::forbid(
            "rt_listen() was called in a web request, where the server is a process of its own (see realtime.autostart): \
             call it in `php worker.php`",
        )?;
        let mut address: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "|S!" fills a string pointer with an argument, alive until we return.
        let address = unsafe {
            zend::zend_parse_parameters(count, c"|S!".as_ptr(), &raw mut address)
                .eq(&0)
                .then(|| zend::bytes(address))
                .ok_or(Fault::ARGUMENTS)?
        };
        let address = address
            .map(|text| {
                std::str::from_utf8(text)
                    .ok()
                    .and_then(ListenAddress::parse)
                    .ok_or_else(|| Fault::argument(1, "be host:port, [ipv6]:port or unix:/path"))
            })
            .transpose()?;
        let here = Source::start(address)?;
        *ret = value::string(&here.address);
        Ok(())
    });
}

/// `rt_run(?float $seconds = null): int`
pub extern "C" fn rt_run(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut seconds = 0.0f64;
        let mut unlimited = true;
        let count = zend::arg_count(call);
        // SAFETY: "|d!" fills a double and a bool.
        let parsed = unsafe {
            zend::zend_parse_parameters(
                count,
                c"|d!".as_ptr(),
                &raw mut seconds,
                &raw mut unlimited,
            )
        };
        if parsed != 0 {
            return Err(Fault::ARGUMENTS);
        }
        let end = match count == 0 || unlimited {
            true => None,
            false => Some(Instant::now() + timers::seconds_argument(1, seconds)?),
        };
        if RUNNING.get() {
            return Err(Fault::realtime("rt_run() is running already"));
        }
        let handled = if web::is_worker() {
            let request = web::request()?;
            RUNNING.set(true);
            STOPPED.set(false);
            request.run(usize::MAX)
        } else {
            let source = match Source::find()? {
                Some(source) => source,
                None => Source::Here(Source::start(None)?),
            };
            RUNNING.set(true);
            STOPPED.set(false);
            let signals = Signals::take();
            let handled = run(&source, end);
            drop(signals);
            handled
        };
        RUNNING.set(false);
        STOPPED.set(false);
        *ret = value::int(handled?);
        Ok(())
    });
}

/// `rt_dispatch(int $max = 0): int`
pub extern "C" fn rt_dispatch(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut max: i64 = 0;
        let count = zend::arg_count(call);
        // SAFETY: "|l" fills a long.
        if unsafe { zend::zend_parse_parameters(count, c"|l".as_ptr(), &raw mut max) } != 0 {
            return Err(Fault::ARGUMENTS);
        }
        let max = usize::try_from(max)
            .map_err(|_| Fault::argument(1, "be greater than or equal to 0"))?;
        if !RUNNING.get() {
            STOPPED.set(false);
        }
        if web::is_worker() {
            let limit = if max == 0 { usize::MAX } else { max };
            *ret = value::int(web::request()?.run(limit)?);
            return Ok(());
        }
        let mut handled = Ok(0);
        if let Some(source) = Source::current() {
            source.clear();
            // What comes meanwhile is for the next call: this one must return under any load.
            let waiting = source.len();
            let limit = if max == 0 { waiting } else { max.min(waiting) };
            handled = batch(&source, limit);
            source.handled(true);
            source.signal_rest();
        }
        let handled = handled?;
        if !stopped() {
            timers::run()?;
        }
        wait::rearm();
        *ret = value::int(handled);
        Ok(())
    });
}

/// `rt_stream()`
pub extern "C" fn rt_stream(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        none(call)?;
        web::forbid(
            "rt_stream() was called in a web request, which has no event loop: call rt_run()",
        )?;
        let source = Source::find()?.ok_or_else(|| {
            Fault::realtime("no server runs in this process: call rt_listen() before rt_stream()")
        })?;
        let fd = wait::stream(source.fd()).map_err(Fault::realtime)?;
        // SAFETY: on the PHP thread; the stream takes the descriptor over and closes it.
        unsafe { zend::rt_fd_stream(fd.into_raw_fd(), ret) };
        Ok(())
    });
}

/// `rt_stop(): void`
pub extern "C" fn rt_stop(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| {
        none(call)?;
        STOPPED.set(true);
        Ok(())
    });
}

fn run(source: &Source, end: Option<Instant>) -> Result<usize, Unwinding> {
    let mut handled = 0;
    // A handler that forks comes back here twice; in the child there is nothing to wait for.
    let over = || {
        stopped()
            || Signals::came()
            || source.is_inherited()
            || end.is_some_and(|end| end <= Instant::now())
    };
    loop {
        timers::run()?;
        if over() {
            break;
        }
        let some = batch(source, BATCH);
        source.handled(source.len() == 0 || some.is_err());
        handled += some?;
        if over() {
            break;
        }
        let next = [end, timers::next_due()].into_iter().flatten().min();
        // With more to do it only looks at signals.
        let next = if source.len() == 0 {
            next
        } else {
            Some(Instant::now())
        };
        if wait::until(source.fd(), next)? {
            // Before the next pop(): then no event is left behind unseen.
            source.clear();
        }
    }
    source.handled(true);
    source.signal_rest();
    Ok(handled)
}

/// Handles at most `limit` events that wait.
fn batch(source: &Source, limit: usize) -> Result<usize, Unwinding> {
    let mut handled = 0;
    while handled < limit && !stopped() && !Signals::came() && !source.is_inherited() {
        let Some(work) = source.pop() else { break };
        dispatch::event(work)?;
        source.handled(false);
        handled += 1;
    }
    Ok(handled)
}

fn none(call: &ExecuteData) -> Result<(), Fault> {
    // SAFETY: no parameters, so no pointers; the call's own count.
    match unsafe { zend::zend_parse_parameters(zend::arg_count(call), c"".as_ptr()) } {
        0 => Ok(()),
        _ => Err(Fault::ARGUMENTS),
    }
}
