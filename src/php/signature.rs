//! The functions as PHP's Reflection sees them: names, parameters, types and defaults.
//!
//! The same as in `php/realtime.stub.php`; a test compares the two. Imports `publish`, `update`, `look`, `handlers`, `timers`,
//! `tokens`, `pusher` and `event_loop`.

use ext_php_rs::args::Arg;
use ext_php_rs::builders::{FunctionBuilder, ModuleBuilder};
use ext_php_rs::flags::DataType::{self, Array, Bool, Callable, Double, Long, Mixed, String, Void};
use ext_php_rs::types::Zval;
use ext_php_rs::zend::ExecuteData;

use super::{event_loop, handlers, look, presence, publish, pusher, timers, tokens, update};

type Handler = extern "C" fn(&mut ExecuteData, &mut Zval);

/// Adds every function to the module.
pub fn functions(module: ModuleBuilder<'_>) -> ModuleBuilder<'_> {
    identity(steering(publishing(module)))
        .function(handler("rt_on_open", handlers::rt_on_open))
        .function(
            handler("rt_on_message", handlers::rt_on_message)
                .not_required()
                .arg(optional("channel", String, "'*'")),
        )
        .function(handler("rt_on_subscribe", handlers::rt_on_subscribe))
        .function(handler("rt_on_close", handlers::rt_on_close))
        .function(handler("rt_on_error", handlers::rt_on_error))
        .function(
            function("rt_listen", event_loop::rt_listen, String)
                .not_required()
                .arg(nullable("address", String)),
        )
        .function(
            function("rt_run", event_loop::rt_run, Long)
                .not_required()
                .arg(nullable("seconds", Double)),
        )
        .function(
            function("rt_dispatch", event_loop::rt_dispatch, Long)
                .not_required()
                .arg(optional("max", Long, "0")),
        )
        // A resource: PHP has no word for that type.
        .function(FunctionBuilder::new("rt_stream", event_loop::rt_stream))
        .function(function("rt_stop", event_loop::rt_stop, Void))
        .function(timer("rt_every", timers::rt_every))
        .function(timer("rt_after", timers::rt_after))
        .function(function("rt_cancel", timers::rt_cancel, Bool).arg(Arg::new("timer", Long)))
}

fn publishing(module: ModuleBuilder<'_>) -> ModuleBuilder<'_> {
    module
        .function(
            function("rt_broadcast", publish::rt_broadcast, String)
                // string|array: widened at startup, as the builder knows no unions.
                .arg(Arg::new("channel", String))
                .arg(Arg::new("data", Mixed))
                .not_required()
                .arg(optional("event", String, "'message'"))
                .arg(nullable("except", String))
                .arg(nullable("id", String))
                .arg(optional("store", Bool, "true")),
        )
        .function(
            function("rt_update", update::rt_update, String)
                // string|array, too.
                .arg(Arg::new("topics", String))
                .not_required()
                .arg(optional("data", String, "''"))
                .arg(optional("private", Bool, "false"))
                .arg(nullable("id", String))
                .arg(nullable("type", String))
                .arg(nullable("retry", Long)),
        )
        .function(
            function("rt_send", publish::rt_send, Bool)
                .arg(Arg::new("connection", String))
                .arg(Arg::new("data", Mixed))
                .not_required()
                .arg(optional("event", String, "'message'")),
        )
}

fn steering(module: ModuleBuilder<'_>) -> ModuleBuilder<'_> {
    module
        .function(
            function("rt_subscribe", publish::rt_subscribe, Bool)
                .arg(Arg::new("connection", String))
                .arg(Arg::new("channel", String)),
        )
        .function(
            function("rt_unsubscribe", publish::rt_unsubscribe, Bool)
                .arg(Arg::new("connection", String))
                .arg(Arg::new("channel", String)),
        )
        .function(
            function("rt_close", publish::rt_close, Bool)
                .arg(Arg::new("connection", String))
                .not_required()
                .arg(optional("code", Long, "1000"))
                .arg(optional("reason", String, "''")),
        )
        .function(
            function("rt_channels", look::rt_channels, Array)
                .not_required()
                .arg(optional("pattern", String, "'*'")),
        )
        .function(
            function("rt_connections", look::rt_connections, Array)
                .not_required()
                .arg(nullable("channel", String)),
        )
        .function(
            function("rt_history", look::rt_history, Array)
                .arg(Arg::new("channel", String))
                .not_required()
                .arg(optional("limit", Long, "100"))
                .arg(nullable("since", String))
                .arg(nullable("before", String)),
        )
        .function(
            function("rt_presence", presence::rt_presence, Array).arg(Arg::new("channel", String)),
        )
        .function(function("rt_stats", look::rt_stats, Array))
}

fn identity(module: ModuleBuilder<'_>) -> ModuleBuilder<'_> {
    module
        .function(
            function("rt_token", tokens::rt_token, String)
                .arg(Arg::new("claims", Array))
                .not_required()
                .arg(optional("ttl", Long, "3600")),
        )
        .function(
            function("rt_disconnect", tokens::rt_disconnect, Long)
                .arg(Arg::new("user", String))
                .not_required()
                .arg(optional("code", Long, "1000"))
                .arg(optional("reason", String, "''")),
        )
        .function(
            function("rt_revoke", tokens::rt_revoke, Long)
                .not_required()
                .arg(nullable("user", String))
                .arg(nullable("token", String)),
        )
        .function(
            function("rt_pusher_auth", pusher::rt_pusher_auth, Array)
                .arg(Arg::new("socket_id", String))
                .arg(Arg::new("channel", String))
                .not_required()
                .arg(nullable("user", Array)),
        )
}

fn function(name: &str, call: Handler, returns: DataType) -> FunctionBuilder<'static> {
    FunctionBuilder::new(name, call).returns(returns, false, false)
}

fn handler(name: &str, call: Handler) -> FunctionBuilder<'static> {
    function(name, call, Void).arg(Arg::new("handler", Callable))
}

fn timer(name: &str, call: Handler) -> FunctionBuilder<'static> {
    function(name, call, Long)
        .arg(Arg::new("seconds", Double))
        .arg(Arg::new("callback", Callable))
}

fn optional(name: &str, of: DataType, default: &str) -> Arg<'static> {
    Arg::new(name, of).default(default)
}

fn nullable(name: &str, of: DataType) -> Arg<'static> {
    Arg::new(name, of).allow_null().default("null")
}
