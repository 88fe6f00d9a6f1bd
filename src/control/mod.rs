//! The control socket: how other PHP processes of this machine reach the hub, and how one of them becomes it.
//!
//! [`election`] decides whose hub it is, [`restarts`] how soon the next one may try, [`server`] answers in the hub, [`client`] asks from any other process (blocking
//! std code: a PHP worker has no runtime). Imports `node` and `wire`.

pub mod client;
pub mod election;
pub mod restarts;
pub mod server;
