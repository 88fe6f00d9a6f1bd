//! The control socket: how other PHP processes of this machine reach the hub, and how one of them becomes it.
//!
//! [`election`] decides whose hub it is, [`restarts`] how soon the next one may try. [`server`] greets in the hub, [`links`]
//! answers there, [`client`] asks from any other process (blocking std code: a PHP worker has no runtime). [`handover`] gives everything to a new hub, [`relay`]
//! links the two while the old one closes its clients. Imports `node` and `wire`.

pub mod client;
pub mod election;
pub mod handover;
pub mod links;
pub mod relay;
mod requests;
pub mod restarts;
pub mod server;
