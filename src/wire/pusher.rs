//! The Pusher protocol, version 7: what its clients send, parsed once, and the events that they get.
//!
//! An event is a JSON object with a name, mostly a channel, and data that is JSON once more inside a string. What an
//! application publishes as such a string ([`payload`]) is the JSON in it to everybody else. Imports `message`.

mod commands;
mod data;
mod events;
#[cfg(test)]
mod tests;

pub use self::commands::{Command, Mistake, Subscribe, parse};
pub use self::data::{data, payload};
pub use self::events::{
    dismissal, error, established, event, farewell, message, ping, pong, send_away, server_frame,
    subscription_error,
};
