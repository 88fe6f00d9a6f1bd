//! `Realtime\Connection`: made of a [`ConnectionInfo`], cached while its client talks, with its methods.
//!
//! Its properties are built when one is first looked at ([`rt_connection_read`]); `shim.c` calls that. Imports
//! `message`, `publish`, `value`, `class` and `zend`.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;

use ext_php_rs::types::{ZendHashTable, ZendObject, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, contain, guard};
use super::{class, publish, value, zend};
use crate::ids::ConnectionId;
use crate::message::ConnectionInfo;

/// How many connections' objects are kept beyond the call in which they were made. Some hundred bytes each, two
/// thousand when their properties were looked at.
const CACHED: usize = 1024;

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The objects of connections that talked lately, so that a chatty client costs no new object a message.
#[derive(Default)]
struct Cache {
    objects: HashMap<ConnectionId, Zval>,
    /// In the order in which they came; may name some that are gone.
    order: VecDeque<ConnectionId>,
}

/// The object of a connection, kept for its next event.
pub fn cached(info: &Arc<ConnectionInfo>) -> Zval {
    // Nothing in here runs PHP code: neither making nor releasing a Connection does.
    CACHE.with_borrow_mut(|cache| {
        if let Some(object) = cache.objects.get(&info.id) {
            return object.shallow_clone();
        }
        if cache.order.len() >= CACHED
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.objects.remove(&oldest);
        }
        let object = make(info);
        cache.order.push_back(info.id);
        cache.objects.insert(info.id, object.shallow_clone());
        object
    })
}

/// The object of a connection that is only looked at.
pub fn object(info: &Arc<ConnectionInfo>) -> Zval {
    CACHE
        .with_borrow(|cache| cache.objects.get(&info.id).map(Zval::shallow_clone))
        .unwrap_or_else(|| make(info))
}

/// What the kept object of a connection was made of, if there is one.
pub fn known(id: ConnectionId) -> Option<Arc<ConnectionInfo>> {
    CACHE.with_borrow(|cache| {
        let object = cache.objects.get(&id)?.object()?;
        // SAFETY: an object of make(), which the cache holds.
        unsafe { info(std::ptr::from_ref(object).cast_mut()) }
    })
}

/// What the object of a connection was made of.
///
/// # Safety
/// `object` is a live `Realtime\Connection` of this thread.
pub unsafe fn info(object: *mut ZendObject) -> Option<Arc<ConnectionInfo>> {
    // SAFETY: as promised; its pointer is null or that of an Arc that the object owns. This is one more.
    unsafe {
        let native = zend::rt_native(object)
            .cast::<ConnectionInfo>()
            .cast_const();
        (!native.is_null()).then(|| {
            Arc::increment_strong_count(native);
            Arc::from_raw(native)
        })
    }
}

/// Forgets the object of a connection that has ended.
pub fn forget(id: ConnectionId) {
    let gone = CACHE.with_borrow_mut(|cache| cache.objects.remove(&id));
    drop(gone);
}

/// Forgets all of them: the request ends, and PHP's memory with it.
pub fn forget_all() {
    let gone = CACHE.take();
    drop(gone);
}

fn make(info: &Arc<ConnectionInfo>) -> Zval {
    let native = Arc::into_raw(Arc::clone(info));
    // SAFETY: on the PHP thread. The new object owns the pointer's count, given back in rt_connection_drop().
    unsafe {
        value::object(zend::rt_object_make(
            class::CONNECTION.entry(),
            native.cast_mut().cast(),
        ))
    }
}

/// The connection that a method was called on.
fn this(call: &mut ExecuteData) -> Result<ConnectionId, Fault> {
    let info = call
        .This
        .object_mut()
        // SAFETY: methods of this final class are called on its objects only, whose native pointer is null or an
        // Arc's, which the object holds while it is being called.
        .and_then(|object| unsafe { zend::rt_native(object).cast::<ConnectionInfo>().as_ref() });
    info.map(|info| info.id)
        .ok_or_else(|| Fault::realtime("this Realtime\\Connection was not made by the server"))
}

/// `private function __construct()`: nobody but the extension makes a Connection or a Message.
pub extern "C" fn construct(_: &mut ExecuteData, _: &mut Zval) {}

/// `send(mixed $data, string $event = 'message'): bool`
pub extern "C" fn send(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let id = this(call)?;
        publish::send_to(call, ret, id)
    });
}

/// `close(int $code = 1000, string $reason = ''): bool`
pub extern "C" fn close(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let id = this(call)?;
        publish::close_it(call, ret, id)
    });
}

/// `subscribe(string $channel): bool`
pub extern "C" fn subscribe(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let id = this(call)?;
        publish::subscribe_it(call, ret, id, true)
    });
}

/// `unsubscribe(string $channel): bool`
pub extern "C" fn unsubscribe(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let id = this(call)?;
        publish::subscribe_it(call, ret, id, false)
    });
}

/// Called by shim.c: builds the properties into `slots`, in the order in which they are declared.
#[unsafe(no_mangle)]
extern "C" fn rt_connection_read(native: *mut c_void, slots: *mut Zval) {
    contain((), || {
        // SAFETY: shim.c passes the pointer of make(), which the object holds during this call.
        let info = unsafe { &*native.cast::<ConnectionInfo>() };
        let (headers, cookies) = headers(info);
        let values = [
            value::string(info.id.to_string()),
            value::string(info.transport.as_str()),
            value::string(info.ip.as_bytes()),
            value::string(info.path()),
            query(info.query()),
            headers,
            cookies,
            info.user().map_or_else(Zval::null, value::string),
        ];
        for (i, value) in values.into_iter().enumerate() {
            // SAFETY: shim.c passes an array of as many slots, all of them null, which needs no release.
            unsafe { slots.add(i).write(value) };
        }
    });
}

/// Called by shim.c: the object is gone.
#[unsafe(no_mangle)]
extern "C" fn rt_connection_drop(native: *mut c_void) {
    // SAFETY: the pointer of make(), given back once.
    contain((), || unsafe {
        drop(Arc::from_raw(native.cast::<ConnectionInfo>()));
    });
}

/// Called by shim.c: whether two objects stand for one connection.
#[unsafe(no_mangle)]
extern "C" fn rt_connection_same(a: *mut c_void, b: *mut c_void) -> c_int {
    // SAFETY: both are pointers of make() whose objects are being compared, hence alive.
    let (a, b) = unsafe { (&*a.cast::<ConnectionInfo>(), &*b.cast::<ConnectionInfo>()) };
    c_int::from(a.id == b.id)
}

fn query(text: &str) -> Zval {
    let mut array = Zval::null();
    // SAFETY: on the PHP thread; PHP copies the text and makes the array.
    unsafe { zend::rt_parse_query(text.as_ptr().cast(), text.len(), &raw mut array) };
    array
}

/// The headers, a repeated one joined as RFC 9110 allows, and the cookies in them.
fn headers(info: &ConnectionInfo) -> (Zval, Zval) {
    let mut joined: Vec<(&str, String)> = Vec::with_capacity(16);
    for (name, text) in info.headers() {
        match joined.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => {
                all.push_str(if name == "cookie" { "; " } else { ", " });
                all.push_str(text);
            }
            None => joined.push((name, text.to_owned())),
        }
    }
    let mut table = ZendHashTable::with_capacity(joined.len() as u32);
    let mut cookies = Zval::new_array();
    for (name, text) in joined {
        // A table that cannot take one more string is out of memory, which PHP ends itself.
        let _ = table.insert(name, value::string(&text));
        if name == "cookie"
            && let Ok(line) = CString::new(text)
        {
            let mut line = line.into_bytes_with_nul();
            // SAFETY: a NUL-terminated buffer of our own that the parser may write into; the array is ours.
            unsafe { zend::rt_add_cookies(line.as_mut_ptr().cast(), &raw mut cookies) };
        }
    }
    let mut headers = Zval::new();
    headers.set_hashtable(table);
    (headers, cookies)
}
