//! How a call from PHP fails, and how that becomes an exception: [`Fault`], [`guard`].
//!
//! Faults travel as Rust errors up to the outermost function, where nothing is left to drop, and only there
//! become PHP's. Imports `zend` and `class`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ext_php_rs::ffi::zend_throw_exception;
use ext_php_rs::zend::ce;

use super::{class, zend};

/// PHP code ended in a way that ends the function that ran it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwinding {
    /// An exception, or `exit()`, that PHP already carries.
    Pending,
    /// A fatal error or a time-out: PHP is to jump out of everything.
    Bailout,
}

/// Why a function of ours fails, by whose fault it is.
#[derive(Debug)]
pub enum Fault {
    /// The PHP programmer's: argument number and "must ...", as a ValueError.
    Argument(u32, String),
    /// The PHP programmer's: argument number and "must be of type ...", as a TypeError.
    ArgumentType(u32, String),
    /// The PHP programmer's, elsewhere: a ValueError.
    Value(String),
    /// The circumstances': a `Realtime\Exception`.
    Realtime(String),
    /// PHP's own business, passed on.
    Unwinding(Unwinding),
}

impl Fault {
    /// A parameter was of the wrong type; PHP has thrown already.
    pub const ARGUMENTS: Self = Self::Unwinding(Unwinding::Pending);

    /// Argument `number` must be what `error` says.
    pub fn argument(number: u32, error: impl std::fmt::Display) -> Self {
        Self::Argument(number, format!("must {error}"))
    }

    /// Something that only a `Realtime\Exception` can tell.
    pub fn realtime(error: impl std::fmt::Display) -> Self {
        Self::Realtime(error.to_string())
    }

    /// Throws it, or takes up the jump: then it does not return, and what its caller owns is lost.
    pub fn raise(self) {
        let throw = |message: String, ce: *mut ext_php_rs::zend::ClassEntry| {
            let message = zend::c_text(&message);
            // SAFETY: called on the PHP thread, in a call from PHP; PHP copies the message.
            unsafe { zend_throw_exception(ce, message.as_ptr(), 0) };
        };
        match self {
            Self::Argument(number, text) => {
                let text = zend::c_text(&text);
                // SAFETY: as above; the format takes one C string.
                unsafe {
                    zend::zend_argument_value_error(number, zend::AS_IT_IS.as_ptr(), text.as_ptr());
                }
            }
            Self::ArgumentType(number, text) => {
                let text = zend::c_text(&text);
                // SAFETY: as above.
                unsafe {
                    zend::zend_argument_type_error(number, zend::AS_IT_IS.as_ptr(), text.as_ptr());
                }
            }
            Self::Value(text) => {
                let text = zend::c_text(&text);
                // SAFETY: as above.
                unsafe { zend::zend_value_error(zend::AS_IT_IS.as_ptr(), text.as_ptr()) };
            }
            Self::Realtime(text) => throw(text, class::EXCEPTION.entry()),
            Self::Unwinding(Unwinding::Pending) => {}
            // SAFETY: the last act of the outermost Rust frame, which owns nothing any more.
            Self::Unwinding(Unwinding::Bailout) => unsafe { zend::rt_bailout() },
        }
    }
}

impl From<Unwinding> for Fault {
    fn from(unwinding: Unwinding) -> Self {
        Self::Unwinding(unwinding)
    }
}

/// Runs the body of a function that PHP calls. Nothing of Rust's, and no panic, leaves it.
pub fn guard(body: impl FnOnce() -> Result<(), Fault>) {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => fault.raise(),
        Err(payload) => {
            let message = zend::c_text(&format!(
                "realtime: internal error, please report it: {}",
                panic_text(&*payload)
            ));
            drop(payload);
            // SAFETY: on the PHP thread, in a call from PHP; PHP copies the message.
            unsafe {
                zend_throw_exception(
                    std::ptr::from_ref(ce::error()).cast_mut(),
                    message.as_ptr(),
                    0,
                );
            }
        }
    }
}

/// Runs what PHP calls outside of any function (start, end, phpinfo), where nothing can be thrown.
pub fn contain<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// The words of a panic.
fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// What PHP code that was run in passing has left behind: `Err` when the caller must end.
pub fn check(result: std::ffi::c_int) -> Result<(), Unwinding> {
    match result {
        zend::OK => Ok(()),
        zend::BAILOUT => Err(Unwinding::Bailout),
        _ => Err(Unwinding::Pending),
    }
}

/// Issues an E_WARNING. A user's error handler may throw.
pub fn warning(message: &str) -> Result<(), Unwinding> {
    let message = zend::c_text(message);
    // SAFETY: on the PHP thread; PHP copies the message.
    check(unsafe { zend::rt_warning(message.as_ptr()) })
}
