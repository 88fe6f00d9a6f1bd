//! The timers of the loop: `rt_every()`, `rt_after()`, `rt_cancel()`.
//!
//! Run by `event_loop`, in `rt_run()` and in `rt_dispatch()`. Imports `callable`, `dispatch`, `args`, `web` and `zend`.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ext_php_rs::types::Zval;
use ext_php_rs::zend::ExecuteData;

use super::callable::{Callable, Ended};
use super::fault::{Fault, Unwinding, guard};
use super::{dispatch, value, wait, web, zend};

/// The longest time that can be asked for: a hundred years.
const MAX_SECONDS: f64 = 3_155_760_000.0;

struct Timer {
    due: Instant,
    /// How often; `None` is once.
    every: Option<Duration>,
    callback: Rc<Callable>,
}

#[derive(Default)]
struct Timers {
    last_id: i64,
    by_id: HashMap<i64, Timer>,
    /// Ids by when they are due; of two at the same time, the older first.
    order: BTreeSet<(Instant, i64)>,
}

thread_local! {
    static TIMERS: RefCell<Timers> = RefCell::default();
}

/// When the next one is due.
pub fn next_due() -> Option<Instant> {
    TIMERS.with_borrow(|timers| timers.order.first().map(|&(due, _)| due))
}

/// Calls what is due now, each at most once.
pub fn run() -> Result<(), Unwinding> {
    if next_due().is_none() {
        return Ok(());
    }
    let now = Instant::now();
    // What a callback adds, or repeats faster than it runs, waits for the next turn.
    while let Some(callback) = TIMERS.with_borrow_mut(|timers| timers.take_due(now)) {
        match callback.call(&mut []) {
            Ok(_) => {}
            Err(Ended::Exception(exception)) => {
                dispatch::report(&exception, None, c"a timer's callback")?;
            }
            Err(Ended::Unwinding(unwinding)) => return Err(unwinding),
        }
        if super::event_loop::stopped() {
            break;
        }
    }
    Ok(())
}

/// Releases all of them: the request ends.
pub fn forget_all() {
    // Taken out first: what a destructor runs may come back here.
    let gone = TIMERS.take();
    drop(gone);
}

/// `rt_every(float $seconds, callable $callback): int`
pub extern "C" fn rt_every(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| add(call, ret, true));
}

/// `rt_after(float $seconds, callable $callback): int`
pub extern "C" fn rt_after(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| add(call, ret, false));
}

/// `rt_cancel(int $timer): bool`
pub extern "C" fn rt_cancel(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut id: i64 = 0;
        let count = zend::arg_count(call);
        // SAFETY: "l" fills a long.
        if unsafe { zend::zend_parse_parameters(count, c"l".as_ptr(), &raw mut id) } != 0 {
            return Err(Fault::ARGUMENTS);
        }
        let gone = TIMERS.with_borrow_mut(|timers| {
            let timer = timers.by_id.remove(&id)?;
            timers.order.remove(&(timer.due, id));
            Some(timer)
        });
        ret.set_bool(gone.is_some());
        // Released with no borrow held: a destructor may come back here.
        drop(gone);
        wait::rearm();
        Ok(())
    });
}

fn add(call: &mut ExecuteData, ret: &mut Zval, repeat: bool) -> Result<(), Fault> {
    let mut seconds = 0.0;
    // SAFETY: the frame of the current call; what comes back is a callable of ours or null.
    let callback = unsafe { Callable::take(zend::rt_parse_timer(call, &raw mut seconds)) }
        .ok_or(Fault::ARGUMENTS)?;
    web::forbid(
        "a timer was set in a web request, which ends before it would run: set it in `php worker.php`, which rt_run() \
         keeps running",
    )?;
    let wait = seconds_argument(1, seconds)?;
    if repeat && wait.is_zero() {
        return Err(Fault::argument(1, "be greater than 0"));
    }
    let id = TIMERS.with_borrow_mut(|timers| {
        timers.last_id += 1;
        let id = timers.last_id;
        timers.insert(
            id,
            Timer {
                due: Instant::now() + wait,
                every: repeat.then_some(wait),
                callback: Rc::new(callback),
            },
        );
        id
    });
    wait::rearm();
    *ret = value::int(id);
    Ok(())
}

/// A time in seconds, as argument `number`.
pub fn seconds_argument(number: u32, seconds: f64) -> Result<Duration, Fault> {
    if (0.0..=MAX_SECONDS).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(Fault::argument(
            number,
            format_args!("be a number of seconds from 0 to {MAX_SECONDS}"),
        ))
    }
}

impl Timers {
    fn insert(&mut self, id: i64, timer: Timer) {
        self.order.insert((timer.due, id));
        self.by_id.insert(id, timer);
    }

    /// The callback of one timer that is due, which is put back if it repeats.
    fn take_due(&mut self, now: Instant) -> Option<Rc<Callable>> {
        let &(due, id) = self.order.first().filter(|&&(due, _)| due <= now)?;
        self.order.remove(&(due, id));
        let mut timer = self.by_id.remove(&id)?;
        let callback = Rc::clone(&timer.callback);
        if let Some(every) = timer.every {
            timer.due = next_turn(due, every, now);
            self.insert(id, timer);
        }
        Some(callback)
    }
}

/// The first turn after `now` of what was due at `due`: without drift, and skipping what was missed.
fn next_turn(due: Instant, every: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due).as_nanos();
    let missed = late / every.as_nanos().max(1);
    let ahead = every.as_nanos().max(1).saturating_mul(missed + 1);
    due + Duration::from_nanos(u64::try_from(ahead).unwrap_or(u64::MAX / 2))
}
