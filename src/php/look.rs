//! What looks at the server: `rt_channels()`, `rt_connections()`, `rt_history()`, `rt_stats()`.
//!
//! Imports `link`, `args`, `connection`, `value` and `zend`.

use ext_php_rs::types::{ZendHashTable, ZendStr, Zval};
use ext_php_rs::zend::ExecuteData;

use super::fault::{Fault, guard};
use super::{args, connection, link, value, zend};
use crate::broker::Walk;
use crate::ids::{self, InvalidId};
use crate::message::Transport;
use crate::node::Stats;

/// The most messages that one rt_history() returns.
const MAX_HISTORY: i64 = 1_000_000;

/// `rt_channels(string $pattern = '*'): array`
pub extern "C" fn rt_channels(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut pattern: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "|S" fills a string pointer with an argument, alive until we return.
        let pattern = unsafe {
            zend::zend_parse_parameters(count, c"|S".as_ptr(), &raw mut pattern)
                .eq(&0)
                .then(|| zend::bytes(pattern))
                .ok_or(Fault::ARGUMENTS)?
        };
        let pattern = args::pattern(1, pattern.unwrap_or(b"*"))?;
        let channels = link::with(|link| link.channels(&pattern)).map_err(Fault::realtime)?;
        let mut table = ZendHashTable::with_capacity(channels.len() as u32);
        for summary in channels {
            put(
                &mut table,
                summary.channel.as_str(),
                value::int(summary.subscribers),
            );
        }
        ret.set_hashtable(table);
        Ok(())
    });
}

/// `rt_connections(?string $channel = null): array`
pub extern "C" fn rt_connections(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut channel: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "|S!" fills a string pointer with an argument, alive until we return.
        let channel = unsafe {
            zend::zend_parse_parameters(count, c"|S!".as_ptr(), &raw mut channel)
                .eq(&0)
                .then(|| zend::bytes(channel))
                .ok_or(Fault::ARGUMENTS)?
        };
        let channel = channel.map(|name| args::channel(1, name)).transpose()?;
        let found =
            link::with(|link| link.connections(channel.as_ref())).map_err(Fault::realtime)?;
        let mut table = ZendHashTable::with_capacity(found.len() as u32);
        for info in &found {
            push(&mut table, connection::object(info));
        }
        ret.set_hashtable(table);
        Ok(())
    });
}

/// `rt_history(string $channel, int $limit = 100, ?string $since = null, ?string $before = null): array`
pub extern "C" fn rt_history(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut channel: *mut ZendStr = std::ptr::null_mut();
        let mut limit: i64 = 100;
        let mut since: *mut ZendStr = std::ptr::null_mut();
        let mut before: *mut ZendStr = std::ptr::null_mut();
        let count = zend::arg_count(call);
        // SAFETY: "S|lS!S!" fills string, long and two string pointers with arguments, alive until we return.
        let (channel, since, before) = unsafe {
            zend::zend_parse_parameters(
                count,
                c"S|lS!S!".as_ptr(),
                &raw mut channel,
                &raw mut limit,
                &raw mut since,
                &raw mut before,
            )
            .eq(&0)
            .then(|| {
                (
                    zend::bytes(channel),
                    zend::bytes(since),
                    zend::bytes(before),
                )
            })
            .ok_or(Fault::ARGUMENTS)?
        };
        let channel = args::channel(1, channel.unwrap_or_default())?;
        if !(1..=MAX_HISTORY).contains(&limit) {
            return Err(Fault::argument(2, format_args!("be 1 to {MAX_HISTORY}")));
        }
        let walk = match (id(3, since)?, id(4, before)?) {
            (Some(_), Some(_)) => {
                return Err(Fault::argument(4, "be null when $since is given"));
            }
            (None, Some(before)) => Walk::Before(before),
            (since, None) => since.into(),
        };
        let page = link::with(|link| link.history(&channel, limit as usize, walk))
            .map_err(Fault::realtime)?;
        if let (Walk::After(id) | Walk::Before(id), false) = (walk, page.recovered) {
            return Err(Fault::realtime(format_args!(
                "the history of {channel} does not reach back to {id} any more{}",
                page.oldest
                    .map_or_else(String::new, |id| format!(", the oldest id kept is {id}"))
            )));
        }
        let mut table = ZendHashTable::with_capacity(page.entries.len() as u32);
        for entry in page.entries {
            let mut row = ZendHashTable::with_capacity(4);
            put(&mut row, "id", value::string(&entry.id));
            put(&mut row, "event", value::string(entry.event.as_str()));
            let data = value::decode_payload(&entry.payload);
            put(&mut row, "data", data.unwrap_or_else(Zval::null));
            put(&mut row, "age", value::float(entry.age.as_secs_f64()));
            push(&mut table, array(row));
        }
        ret.set_hashtable(table);
        Ok(())
    });
}

/// A message's id, as argument `number`.
fn id(number: u32, id: Option<&[u8]>) -> Result<Option<&str>, Fault> {
    id.map(|id| {
        std::str::from_utf8(id)
            .ok()
            .filter(|id| ids::check_custom_id(id).is_ok())
            .ok_or_else(|| Fault::argument(number, InvalidId::Position))
    })
    .transpose()
}

/// `rt_stats(): array`
pub extern "C" fn rt_stats(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        // SAFETY: no parameters, so no pointers; the call's own count.
        if unsafe { zend::zend_parse_parameters(zend::arg_count(call), c"".as_ptr()) } != 0 {
            return Err(Fault::ARGUMENTS);
        }
        let stats = link::with(|link| link.stats()).map_err(Fault::realtime)?;
        ret.set_hashtable(stats_table(&stats));
        Ok(())
    });
}

fn stats_table(stats: &Stats) -> ext_php_rs::boxed::ZBox<ZendHashTable> {
    let mut transports = ZendHashTable::with_capacity(Transport::ALL.len() as u32);
    for (transport, number) in Transport::ALL.iter().zip(stats.by_transport) {
        put(&mut transports, transport.as_str(), value::int(number));
    }
    let mut table = ZendHashTable::with_capacity(16);
    put(
        &mut table,
        "uptime",
        value::float(stats.uptime.as_secs_f64()),
    );
    put(&mut table, "pid", value::int(stats.pid));
    put(&mut table, "address", value::string(&stats.address));
    put(&mut table, "connections", value::int(stats.connections));
    put(
        &mut table,
        "connections_total",
        value::int(stats.connections_total),
    );
    put(&mut table, "by_transport", array(transports));
    put(&mut table, "channels", value::int(stats.channels));
    put(&mut table, "subscriptions", value::int(stats.subscriptions));
    put(&mut table, "published", value::int(stats.published));
    put(&mut table, "delivered", value::int(stats.delivered));
    put(&mut table, "received", value::int(stats.received));
    put(&mut table, "dropped_slow", value::int(stats.dropped_slow));
    put(
        &mut table,
        "history_messages",
        value::int(stats.history_messages),
    );
    put(&mut table, "history_bytes", value::int(stats.history_bytes));
    put(&mut table, "shards", value::int(stats.shards));
    put(
        &mut table,
        "handler_queued",
        value::int(stats.handler_queued),
    );
    put(
        &mut table,
        "handler_requests",
        value::int(stats.handler_requests),
    );
    put(
        &mut table,
        "handler_retried",
        value::int(stats.handler_retried),
    );
    put(
        &mut table,
        "handler_failed",
        value::int(stats.handler_failed),
    );
    let mut tasks = ZendHashTable::with_capacity(stats.tasks.len() as u32);
    for (thread, number) in &stats.tasks {
        put(&mut tasks, thread, value::int(*number));
    }
    put(&mut table, "tasks", array(tasks));
    table
}

fn array(table: ext_php_rs::boxed::ZBox<ZendHashTable>) -> Zval {
    let mut value = Zval::new();
    value.set_hashtable(table);
    value
}

fn put(table: &mut ZendHashTable, key: &str, value: Zval) {
    // Fails only for keys with a NUL, which no name of ours has.
    let _ = table.insert(key, value);
}

fn push(table: &mut ZendHashTable, value: Zval) {
    // Fails only for a table with more elements than memory could hold.
    let _ = table.push(value);
}
