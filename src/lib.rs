//! `realtime`: a PHP extension that pushes to browsers, with the server embedded.
//!
//! The modules import each other from top to bottom only:
//! `ids`, `selector`, `config`, `auth`, `limits`, `message`, `procfs`, `sync`, `threads`, `tls` -> `socket`, `wire` -> `outbox` ->
//! `hub`, `history`, `cache`, `presence` -> `store` -> `broker` -> `backend`,
//! `predecessor` -> `node` ->
//! `session`, `pusher`, `mercure` -> `transport`, `control` -> `server` -> `php` (the only one that names PHP, behind the feature
//! of that name).

pub mod auth;
pub mod backend;
pub mod broker;
pub mod cache;
pub mod config;
pub mod control;
pub mod history;
pub mod hub;
pub mod ids;
pub mod limits;
pub mod mercure;
pub mod message;
pub mod node;
pub mod outbox;
#[cfg(feature = "php")]
#[cfg_attr(
    debug_assertions,
    expect(
        missing_docs,
        reason = "#[php_module] adds an undocumented function to debug builds"
    )
)]
pub mod php;
pub mod predecessor;
pub mod presence;
pub mod procfs;
pub mod pusher;
pub mod selector;
pub mod server;
pub mod session;
pub mod socket;
pub mod store;
mod sync;
pub mod threads;
pub mod tls;
pub mod transport;
pub mod wire;
