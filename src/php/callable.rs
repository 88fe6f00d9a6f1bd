//! PHP callables that outlive the call in which they were given: [`Callable`], and how a call of one ends.
//!
//! Made by `rt_on_*()`, `rt_every()` and `rt_after()`, kept in `handlers` and `timers`. Imports `zend`, `fault`.

use std::ffi::CStr;
use std::ptr::NonNull;

use ext_php_rs::types::{ZendObject, Zval};

use super::fault::{self, Unwinding};
use super::zend;

/// A callable, kept alive with the scope in which it was checked.
#[derive(Debug)]
pub struct Callable(NonNull<zend::RawCallable>);

impl Callable {
    /// Takes what a parser of `shim.c` returned; `None` when that has thrown.
    ///
    /// # Safety
    /// `raw` is null or comes from such a parser, and nobody else frees it.
    pub unsafe fn take(raw: *mut zend::RawCallable) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    /// Calls it. Hold no lock and no borrow: what is called may come back here.
    pub fn call(&self, arguments: &mut [Zval]) -> Result<Zval, Ended> {
        let mut ret = Zval::new();
        // SAFETY: on the PHP thread; the arguments outlive the call, PHP only reads them. The raw callable lives as
        // long as self, which the caller holds.
        let result = unsafe {
            zend::rt_callable_call(
                self.0.as_ptr(),
                arguments.len() as u32,
                arguments.as_mut_ptr(),
                &raw mut ret,
            )
        };
        match fault::check(result) {
            Ok(()) => Ok(ret),
            Err(Unwinding::Pending) => Err(pending()),
            Err(Unwinding::Bailout) => Err(Ended::Unwinding(Unwinding::Bailout)),
        }
    }
}

impl Drop for Callable {
    fn drop(&mut self) {
        // SAFETY: made by shim.c on this thread (it is not Send) and freed once, here.
        unsafe { zend::rt_callable_free(self.0.as_ptr()) };
    }
}

/// How a call ended when it did not return.
#[derive(Debug)]
pub enum Ended {
    /// It threw. PHP carries the exception no more.
    Exception(Exception),
    /// `exit()`, a fatal error or a time-out: the script is over.
    Unwinding(Unwinding),
}

/// What PHP carries at the moment, taken from it unless it is `exit()`.
pub fn pending() -> Ended {
    // SAFETY: on the PHP thread; reads and clears PHP's current exception, which is there when rt_pending() says 1.
    unsafe {
        match zend::rt_pending() {
            1 => match NonNull::new(zend::rt_take_exception()) {
                Some(object) => Ended::Exception(Exception(object)),
                None => Ended::Unwinding(Unwinding::Pending),
            },
            _ => Ended::Unwinding(Unwinding::Pending),
        }
    }
}

/// An exception that was taken from PHP.
#[derive(Debug)]
pub struct Exception(NonNull<ZendObject>);

impl Exception {
    /// It as a value, for a handler.
    pub fn value(&self) -> Zval {
        let mut value = Zval::new();
        // SAFETY: we own a reference, so the object lives; the value takes another one.
        value.set_object(unsafe { &mut *self.0.as_ptr() });
        value
    }

    /// Tells of it in a warning with its trace. `whence` completes "thrown in".
    pub fn warn(&self, whence: &CStr) -> Result<(), Unwinding> {
        // SAFETY: on the PHP thread; we own a reference, so the object lives.
        fault::check(unsafe { zend::rt_warn_uncaught(self.0.as_ptr(), whence.as_ptr()) })
    }
}

impl Drop for Exception {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that rt_take_exception() took for us.
        unsafe { zend::rt_release_object(self.0.as_ptr()) };
    }
}
