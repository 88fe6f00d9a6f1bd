//! The doors to PHP that ext-php-rs has no binding for: `shim.c`, and functions of PHP itself.
//!
//! Declarations only, and the few wrappers that make them safe to use. Imports nothing of this crate.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use ext_php_rs::ffi::{HashTable, zend_module_entry, zend_string};
use ext_php_rs::types::{ZendObject, ZendStr, Zval};
use ext_php_rs::zend::{ClassEntry, ExecuteData};

/// What a shim function that may have run PHP code returns.
pub const OK: c_int = 0;
/// A bailout (a fatal error or a time-out) was caught and is to be raised again.
pub const BAILOUT: c_int = 2;

/// The arguments of `rt_broadcast()`. Null pointers stand for arguments not given.
#[repr(C)]
pub struct BroadcastArgs {
    pub channels: *mut HashTable,
    pub channel: *mut zend_string,
    pub data: *mut Zval,
    pub event: *mut zend_string,
    pub except: *mut zend_string,
    pub id: *mut zend_string,
    pub store: bool,
}

/// The arguments of `rt_update()`. Null pointers stand for arguments not given.
#[repr(C)]
pub struct UpdateArgs {
    pub topics: *mut HashTable,
    pub topic: *mut zend_string,
    pub data: *mut zend_string,
    pub id: *mut zend_string,
    pub event: *mut zend_string,
    pub retry: ext_php_rs::ffi::zend_long,
    pub no_retry: bool,
    pub private: bool,
}

/// A callable as `shim.c` keeps it.
#[repr(C)]
pub struct RawCallable {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    pub fn rt_parse_broadcast(call: *mut ExecuteData, args: *mut BroadcastArgs) -> bool;
    pub fn rt_parse_update(call: *mut ExecuteData, args: *mut UpdateArgs) -> bool;
    pub fn rt_parse_handler(
        call: *mut ExecuteData,
        channel: *mut *mut zend_string,
    ) -> *mut RawCallable;
    pub fn rt_parse_timer(call: *mut ExecuteData, seconds: *mut f64) -> *mut RawCallable;
    pub fn rt_callable_call(
        callable: *const RawCallable,
        argc: u32,
        argv: *mut Zval,
        ret: *mut Zval,
    ) -> c_int;
    pub fn rt_callable_free(callable: *mut RawCallable);

    pub fn rt_unregister_ini(kind: c_int, module: c_int);
    pub fn rt_show_ini(name: *const c_char, name_length: usize, text: *const c_char, length: usize);
    pub fn rt_pending() -> c_int;
    pub fn rt_take_exception() -> *mut ZendObject;
    pub fn rt_release_object(object: *mut ZendObject);
    pub fn rt_log(message: *const c_char);
    pub fn rt_warning(message: *const c_char) -> c_int;
    pub fn rt_warn_uncaught(exception: *mut ZendObject, whence: *const c_char) -> c_int;
    pub fn rt_bailout() -> !;
    pub fn rt_interrupted() -> bool;
    pub fn rt_interrupt() -> c_int;
    pub fn rt_pcntl_dispatch() -> c_int;
    pub fn rt_signal_take(
        signo: c_int,
        handler: extern "C" fn(c_int),
        before: *mut libc::sigaction,
    ) -> bool;
    pub fn rt_signal_give_back(
        signo: c_int,
        handler: extern "C" fn(c_int),
        before: *const libc::sigaction,
    );

    pub fn rt_json_encode(value: *mut Zval, out: *mut *mut zend_string, error: *mut c_int)
    -> c_int;
    pub fn rt_json_decode(out: *mut Zval, text: *const c_char, length: usize) -> bool;
    pub fn rt_parse_query(text: *const c_char, length: usize, out: *mut Zval);
    pub fn rt_add_cookies(line: *mut c_char, out: *mut Zval);
    pub fn rt_fd_stream(fd: c_int, out: *mut Zval);

    pub fn rt_request_param(
        name: *const c_char,
        name_length: usize,
        out: *mut c_char,
        size: usize,
    ) -> usize;
    pub fn rt_request_is_sent() -> bool;
    pub fn rt_request_body(out: *mut *mut zend_string) -> c_int;
    pub fn rt_request_write(bytes: *const c_char, length: usize, flush: c_int) -> c_int;
    pub fn rt_request_hold();
    pub fn rt_request_is_finished() -> bool;

    pub fn rt_native(object: *mut ZendObject) -> *mut c_void;
    pub fn rt_object_make(ce: *mut ClassEntry, native: *mut c_void) -> *mut ZendObject;
    pub fn rt_object_fill(object: *mut ZendObject, count: u32, values: *mut Zval);
    pub fn rt_plain_object(ce: *mut ClassEntry) -> *mut ZendObject;
    pub fn rt_object_slot(object: *mut ZendObject, slot: u32) -> *mut Zval;
    pub fn rt_connection_enter(object: *mut ZendObject) -> *mut ZendObject;
    pub fn rt_connection_changed(object: *mut ZendObject) -> *mut Zval;
    pub fn rt_connection_reload(object: *mut ZendObject) -> c_int;
    pub fn rt_connection_setup(ce: *mut ClassEntry);
    pub fn rt_message_setup(ce: *mut ClassEntry);
    pub fn rt_binary_setup(ce: *mut ClassEntry);
    pub fn rt_arg_takes_array(function: *const c_char, arg: u32);

    // Of PHP itself.
    pub fn zend_parse_parameters(num_args: u32, spec: *const c_char, ...) -> c_int;
    pub fn zend_argument_value_error(arg: u32, format: *const c_char, ...);
    pub fn zend_argument_type_error(arg: u32, format: *const c_char, ...);
    pub fn zend_update_property(
        scope: *mut ClassEntry,
        object: *mut ZendObject,
        name: *const c_char,
        length: usize,
        value: *mut Zval,
    );
    pub fn zend_value_error(format: *const c_char, ...);
    pub fn zend_ini_string(name: *const c_char, length: usize, original: c_int) -> *const c_char;
    pub fn display_ini_entries(module: *mut zend_module_entry);
}

/// How many arguments the call has.
pub fn arg_count(call: &ExecuteData) -> u32 {
    // SAFETY: for a call frame, this member of the union is the one in use; the frame is this thread's.
    unsafe { call.This.u2.num_args }
}

/// The bytes of a string argument, `None` for one that was not given.
///
/// # Safety
/// `string` is null or a string that its caller keeps alive and unchanged for `'a`: that of an argument, until
/// the function returns.
pub unsafe fn bytes<'a>(string: *const ZendStr) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    unsafe { string.as_ref() }.map(ZendStr::as_bytes)
}

/// `text` for a C function. A NUL, which C cannot carry, becomes a question mark.
pub fn c_text(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| {
        CString::new(text.replace('\0', "?")).expect("every NUL has been replaced")
    })
}

/// The format that prints one string as it is.
pub const AS_IT_IS: &CStr = c"%s";
