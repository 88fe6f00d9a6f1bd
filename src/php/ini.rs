//! The settings in php.ini: registered at startup, checked as they come, read once into a [`Config`].
//!
//! Secrets are taken out of PHP's table, which phpinfo(), ini_get_all() and many an error page show, and kept here.
//!
//! Imports `config`, `fault` and `zend`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ext_php_rs::ffi::zend_string;
use ext_php_rs::flags::IniEntryPermission;
use ext_php_rs::zend::IniEntryDef;

use super::fault::{self, contain};
use super::zend;
use crate::config::{self, Config, InvalidSetting, SETTINGS, Setting};

const SUCCESS: c_int = 0;
const FAILURE: c_int = -1;
/// PHP's stage in which it reads php.ini.
const AT_START: c_int = 1;

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
    hide();
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

/// Takes secrets that have come out of PHP's table. A pool's own settings come after MINIT: for RINIT as well.
pub fn hide() {
    if !HAS_SEEN_SECRETS.replace(false) {
        return;
    }
    for (setting, values) in hidden().values() {
        if let Some(shown) = setting.shown(&values.now) {
            // SAFETY: on a PHP thread, which alone uses its table now; PHP copies both texts.
            unsafe {
                zend::rt_show_ini(
                    setting.name.as_ptr().cast(),
                    setting.name.len(),
                    shown.as_ptr().cast(),
                    shown.len(),
                );
            }
        }
    }
}

/// What settings that may be secret are set to.
#[derive(Default)]
struct Values {
    /// At the start.
    first: String,
    /// Where Apache has other values for a while.
    now: String,
}

// Held for one look or one change; nothing but PHP's table is touched under it.
static HIDDEN: Mutex<BTreeMap<&'static str, (&'static Setting, Values)>> =
    Mutex::new(BTreeMap::new());

thread_local! {
    /// Whether PHP's table, which each thread has for itself, has a secret in it.
    static HAS_SEEN_SECRETS: Cell<bool> = const { Cell::new(false) };
}

fn hidden() -> MutexGuard<'static, BTreeMap<&'static str, (&'static Setting, Values)>> {
    // It is whole between any two statements.
    HIDDEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a value that has come for a setting that may be secret.
fn keep(setting: &'static Setting, text: &str, stage: c_int) {
    let mut hidden = hidden();
    let (_, values) = hidden
        .entry(setting.name)
        .or_insert_with(|| (setting, Values::default()));
    text.clone_into(&mut values.now);
    if stage == AT_START {
        text.clone_into(&mut values.first);
    }
    HAS_SEEN_SECRETS.set(true);
}

/// Whether `text` is what PHP was given in place of the first value, and puts back now.
fn is_put_back(setting: &Setting, text: &str, stage: c_int) -> bool {
    let mut hidden = hidden();
    let values = hidden.get_mut(setting.name).map(|(_, values)| values);
    let Some(values) = values.filter(|_| stage != AT_START) else {
        return false;
    };
    let is = setting.shown(&values.first).as_deref() == Some(text);
    if is {
        values.now = values.first.clone();
    }
    is
}

/// One setting's value as PHP had it.
pub fn value(name: &str) -> Option<String> {
    if let Some((_, values)) = hidden().get(name) {
        return Some(values.now.clone());
    }
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
    stage: c_int,
) -> c_int {
    contain(FAILURE, || {
        // SAFETY: PHP passes an entry and a value (or null) that live during this call.
        let (name, text) = unsafe { (zend::bytes((*entry).name), zend::bytes(new_value)) };
        let name = String::from_utf8_lossy(name.unwrap_or_default());
        let text = String::from_utf8_lossy(text.unwrap_or_default());
        let Some(setting) = config::find(&name) else {
            return FAILURE;
        };
        if is_put_back(setting, &text, stage) {
            return SUCCESS;
        }
        match config::check_value(setting, &text) {
            Ok(()) => {
                if setting.has_secrets() {
                    keep(setting, &text, stage);
                }
                SUCCESS
            }
            Err(error) => {
                // Whatever a user's error handler throws is the caller's to find.
                let _ = fault::warning(&format!("{error}; {:?} stays", setting.default));
                FAILURE
            }
        }
    })
}

/// Text for a table that PHP keeps for good.
fn leaked(text: &str) -> &'static CStr {
    Box::leak(
        CString::new(text)
            .expect("names and defaults have no NUL")
            .into_boxed_c_str(),
    )
}
