//! The handlers that a script has registered: `rt_on_open()`, `rt_on_message()` and their like.
//!
//! They belong to one request and one thread. `dispatch` calls them. Imports `ids`, `backend`, `link`, `args`,
//! `callable` and `zend`.

use std::cell::RefCell;
use std::rc::Rc;

use ext_php_rs::types::{ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::callable::Callable;
use super::fault::{Fault, guard};
use super::{args, attached, link, zend};
use crate::backend::Interest;
use crate::ids::Pattern;

/// What a handler is for; those for messages are apart, as they have a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Open,
    Subscribe,
    Close,
    Error,
}

#[derive(Default)]
struct Registry {
    open: Vec<Rc<Callable>>,
    subscribe: Vec<Rc<Callable>>,
    /// With the channels that each is for; `None` is all of them.
    message: Vec<(Option<Pattern>, Rc<Callable>)>,
    close: Vec<Rc<Callable>>,
    error: Vec<Rc<Callable>>,
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

/// The `index`-th handler of a kind. A copy, so that no borrow is held while it is called.
pub fn get(kind: Kind, index: usize) -> Option<Rc<Callable>> {
    REGISTRY.with_borrow(|registry| {
        match kind {
            Kind::Open => &registry.open,
            Kind::Subscribe => &registry.subscribe,
            Kind::Close => &registry.close,
            Kind::Error => &registry.error,
        }
        .get(index)
        .cloned()
    })
}

/// The first message handler for `channel` from `index` on, and the index after it.
pub fn for_channel(channel: &str, index: usize) -> Option<(Rc<Callable>, usize)> {
    REGISTRY.with_borrow(|registry| {
        let rest = registry.message.get(index..)?;
        let fits = |pattern: &Option<Pattern>| pattern.as_ref().is_none_or(|p| p.matches(channel));
        let found = rest.iter().position(|(pattern, _)| fits(pattern))?;
        Some((Rc::clone(&rest[found].1), index + found + 1))
    })
}

/// What is handled.
pub fn interest() -> Interest {
    REGISTRY.with_borrow(|registry| Interest {
        open: !registry.open.is_empty(),
        subscribe: !registry.subscribe.is_empty(),
        message: !registry.message.is_empty(),
        close: !registry.close.is_empty(),
    })
}

/// Tells the server what is handled: the one in this process, or the one that it is attached to.
pub fn announce() {
    if let Some(here) = link::here() {
        here.queue.set_interest(interest());
    }
    attached::announce();
}

/// Releases all of them: the request ends.
pub fn forget_all() {
    // Taken out first: what a destructor runs may come back here.
    let gone = REGISTRY.take();
    if gone.open.len() + gone.subscribe.len() + gone.message.len() + gone.close.len() > 0 {
        announce();
    }
    drop(gone);
}

/// `rt_on_open(callable $handler): void`
pub extern "C" fn rt_on_open(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| plain(call, Kind::Open));
}

/// `rt_on_subscribe(callable $handler): void`
pub extern "C" fn rt_on_subscribe(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| plain(call, Kind::Subscribe));
}

/// `rt_on_close(callable $handler): void`
pub extern "C" fn rt_on_close(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| plain(call, Kind::Close));
}

/// `rt_on_error(callable $handler): void`
pub extern "C" fn rt_on_error(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| plain(call, Kind::Error));
}

/// `rt_on_message(callable $handler, string $channel = '*'): void`
pub extern "C" fn rt_on_message(call: &mut ExecuteData, _: &mut Zval) {
    guard(|| {
        let mut channel: *mut ZendStr = std::ptr::null_mut();
        // SAFETY: the frame of the current call; what comes back is a callable of ours or null.
        let handler = unsafe { Callable::take(zend::rt_parse_handler(call, &raw mut channel)) }
            .ok_or(Fault::ARGUMENTS)?;
        // SAFETY: an argument, alive until we return.
        let pattern = match unsafe { zend::bytes(channel) } {
            None | Some(b"*") => None,
            Some(text) => Some(args::pattern(2, text)?),
        };
        REGISTRY.with_borrow_mut(|registry| registry.message.push((pattern, Rc::new(handler))));
        announce();
        Ok(())
    });
}

fn plain(call: &mut ExecuteData, kind: Kind) -> Result<(), Fault> {
    // SAFETY: the frame of the current call; what comes back is a callable of ours or null.
    let handler = unsafe { Callable::take(zend::rt_parse_handler(call, std::ptr::null_mut())) }
        .ok_or(Fault::ARGUMENTS)?;
    let handler = Rc::new(handler);
    REGISTRY.with_borrow_mut(|registry| match kind {
        Kind::Open => registry.open.push(handler),
        Kind::Subscribe => registry.subscribe.push(handler),
        Kind::Close => registry.close.push(handler),
        Kind::Error => registry.error.push(handler),
    });
    announce();
    Ok(())
}
