//! The PHP binding: the only code that names PHP.
//!
//! PHP loads the module through `get_module()`, made here; calls come in through the functions of `publish`, `look`,
//! `handlers`, `timers` and `event_loop`, and leave through `link` to the server in this process or another one.
//! Imports everything; nothing imports it.

// The handlers of PHP functions are named and documented by what they are in PHP.
mod args;
mod attached;
mod callable;
mod class;
mod connection;
mod dispatch;
mod event_loop;
mod fault;
mod handlers;
mod hub_process;
mod info;
mod ini;
mod link;
mod look;
mod message;
mod presence;
mod publish;
mod pusher;
mod sapi;
mod server_here;
mod server_link;
mod signature;
mod source;
mod state;
mod timers;
mod tokens;
mod update;
mod value;
mod wait;
mod web;
mod work;
mod zend;

use ext_php_rs::prelude::*;

use fault::contain;
use sapi::Home;

const SUCCESS: i32 = 0;
const FAILURE: i32 = -1;

/// Describes the module to PHP.
#[php_module]
#[php(startup = startup)]
pub fn module(module: ModuleBuilder) -> ModuleBuilder {
    signature::functions(module)
        .shutdown_function(shutdown)
        .request_startup_function(request_startup)
        .request_shutdown_function(request_shutdown)
        .info_function(info::print)
}

/// MINIT: once a process, before any fork of a SAPI's. No thread starts here.
fn startup(_type: i32, module: i32) -> i32 {
    contain(FAILURE, || {
        quiet_panics();
        ini::register(module);
        server_here::watch_forks();
        hub_process::prepare();
        for function in [c"rt_broadcast", c"rt_update"] {
            // SAFETY: in MINIT, when PHP has registered our functions; each has a first argument, and it alone is touched.
            unsafe { zend::rt_arg_takes_array(function.as_ptr(), 0) };
        }
        match class::register() {
            Ok(()) => SUCCESS,
            Err(error) => {
                let _ = fault::warning(&format!("realtime: {error}"));
                FAILURE
            }
        }
    })
}

/// MSHUTDOWN: the process ends. Clients are told, threads joined.
unsafe extern "C" fn shutdown(kind: i32, module: i32) -> i32 {
    contain(FAILURE, || {
        link::stop();
        ini::unregister(kind, module);
        SUCCESS
    })
}

/// RINIT: under a web server the first request starts the hub.
unsafe extern "C" fn request_startup(_type: i32, _module: i32) -> i32 {
    contain(FAILURE, || {
        ini::hide();
        web::begin();
        let home = sapi::home();
        if home != Home::Nowhere
            && !is_preload(home)
            && ini::config().is_ok_and(|config| config.autostart)
            && let Some(why) = link::autostart(home)
        {
            hub_process::tell(&why);
        }
        SUCCESS
    })
}

/// Whether this is the request of opcache.preload. It comes before there are workers, their settings and the pool's
/// socket: a server that it started would know none of them.
fn is_preload(home: Home) -> bool {
    // SAFETY: on a PHP thread, in RINIT; looks at a pointer of that thread's.
    home == Home::Process && !unsafe { zend::rt_request_is_sent() }
}

/// RSHUTDOWN: the script is over, and with it everything that it has registered. The server goes on.
unsafe extern "C" fn request_shutdown(_type: i32, _module: i32) -> i32 {
    contain(FAILURE, || {
        // Before its handlers are gone, or the server would hear that it handles nothing any more.
        attached::forget();
        handlers::forget_all();
        timers::forget_all();
        event_loop::forget_all();
        connection::forget_all();
        wait::forget();
        web::forget();
        SUCCESS
    })
}

/// Panics become PHP errors or log lines; the default hook would print among a page's output or a terminal's.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        tracing::error!("internal error, please report it: {info}");
    }));
}
