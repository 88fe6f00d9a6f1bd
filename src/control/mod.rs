//! The control socket: how other PHP processes of this machine reach the hub, and how one of them becomes it.
//!
//! [`election`] decides whose hub it is, [`server`] greets in the hub, [`links`] answers there, [`client`] asks from any
//! other process (blocking std code: a PHP worker has no runtime). Imports `node` and `wire`.

pub mod client;
pub mod election;
pub mod links;
mod requests;
pub mod server;
