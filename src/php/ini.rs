//! The settings in php.ini: registered at startup, checked as they come, read once into a [`Config`].
//!
//! Imports `config`, `fault` and `zend`.

use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use ext_php_rs::ffi::zend_string;
use ext_php_rs::flags::IniEntryPermission;
use ext_php_rs::zend::IniEntryDef;

use super::fault::{self, contain};
use super::zend;
use crate::config::{self, Config, InvalidSetting, SETTINGS};

const SUCCESS: c_int = 0;
const FAILURE: c_int = -1;

/// Registers every setting. For MINIT.
pub fn register(module: c_int) {
    let mut entries: Vec<IniEntryDef> = SETTINGS
        .iter()
        .map(|setting| {
            // All of them belong to the server, which outlives requests: none may differ between two of them.
            let mut entry = IniEntryDef::new(
                leaked(setting.name),
                leaked(setting.default),
                IniEntryPermission::System,
            );
            entry.on_modify = Some(on_modify);
            if setting.is_secret() {
                entry.displayer = Some(display_secret);
            }
            entry
        })
        .collect();
    entries.push(IniEntryDef::end());
    // PHP 8.5 keeps the table itself; the static is for leak checkers. Nothing reads it, so without `used` there is none.
    #[used]
    static TABLE: AtomicPtr<IniEntryDef> = AtomicPtr::new(std::ptr::null_mut());
    let table = Box::leak(entries.into_boxed_slice());
    TABLE.store(table.as_mut_ptr(), Ordering::Relaxed);
    IniEntryDef::register(table, module);
    // Apache starts modules anew in the same process when it is reloaded. What was known before may be in use, and stays.
    CONFIG.store(std::ptr::null_mut(), Ordering::Release);
}

/// Takes them back. For MSHUTDOWN.
pub fn unregister(kind: c_int, module: c_int) {
    // SAFETY: in MSHUTDOWN, with the type and number that PHP gave this module.
    unsafe { zend::rt_unregister_ini(kind, module) };
}

/// The settings as they were when they were first looked at. Nothing may change them after the start.
static CONFIG: AtomicPtr<Result<Config, InvalidSetting>> = AtomicPtr::new(std::ptr::null_mut());

/// The settings. They cannot change after the start, so the first look is the last.
pub fn config() -> Result<&'static Config, InvalidSetting> {
    let mut known = CONFIG.load(Ordering::Acquire);
    if known.is_null() {
        let loaded = Box::into_raw(Box::new(Config::load(value)));
        let null = std::ptr::null_mut();
        known = match CONFIG.compare_exchange(null, loaded, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => loaded,
            Err(others) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(loaded) });
                others
            }
        };
    }
    // SAFETY: what was put there is never freed and never changed.
    unsafe { &*known }.as_ref().map_err(Clone::clone)
}

/// One setting's value as PHP has it.
pub fn value(name: &str) -> Option<String> {
    let length = name.len();
    let name = zend::c_text(name);
    // SAFETY: on a PHP thread; returns null or a string that PHP keeps as long as the setting, copied at once.
    let text = unsafe {
        let text = zend::zend_ini_string(name.as_ptr(), length, 0);
        (!text.is_null()).then(|| CStr::from_ptr(text))?
    };
    Some(text.to_string_lossy().into_owned())
}

/// Called by PHP with each new value. On FAILURE the default stays.
extern "C" fn on_modify(
    entry: *mut ext_php_rs::ffi::_zend_ini_entry,
    new_value: *mut zend_string,
    _: *mut c_void,
    _: *mut c_void,
    _: *mut c_void,
    _stage: c_int,
) -> c_int {
    contain(FAILURE, || {
        // SAFETY: PHP passes an entry and a value (or null) that live during this call.
        let (name, text) = unsafe { (zend::bytes((*entry).name), zend::bytes(new_value)) };
        let name = String::from_utf8_lossy(name.unwrap_or_default());
        let text = String::from_utf8_lossy(text.unwrap_or_default());
        let Some(setting) = config::find(&name) else {
            return FAILURE;
        };
        match config::check_value(setting, &text) {
            Ok(()) => SUCCESS,
            Err(error) => {
                // Whatever a user's error handler throws is the caller's to find.
                let _ = fault::warning(&format!("{error}; {:?} stays", setting.default));
                FAILURE
            }
        }
    })
}

/// Called by PHP in place of showing a value: phpinfo(), `php -i`.
extern "C" fn display_secret(entry: *mut ext_php_rs::ffi::_zend_ini_entry, _type: c_int) {
    contain((), || {
        // SAFETY: PHP passes an entry that lives during this call.
        let is_set = unsafe { zend::bytes((*entry).value) }.is_some_and(|value| !value.is_empty());
        let text: &[u8] = if is_set {
            b"set, and not shown"
        } else {
            b"no value"
        };
        // SAFETY: on a PHP thread; PHP copies the text.
        unsafe { ext_php_rs::ffi::php_output_write(text.as_ptr().cast(), text.len()) };
    });
}

/// Text for a table that PHP keeps for good.
fn leaked(text: &str) -> &'static CStr {
    Box::leak(
        CString::new(text)
            .expect("names and defaults have no NUL")
            .into_boxed_c_str(),
    )
}
