//! From PHP's arguments to this program's types, each checked where it comes in.
//!
//! Imports `ids`, `message` and `fault`.

use ext_php_rs::types::ZendHashTable;

use super::fault::Fault;
use crate::ids::{self, Channel, ConnectionId, InvalidId, Pattern};
use crate::message::EventName;

/// The most channels that one call publishes to.
pub const MAX_CHANNELS: usize = 1000;

/// A channel's name, as argument `number`.
pub fn channel(number: u32, name: &[u8]) -> Result<Channel, Fault> {
    text(name)
        .and_then(Channel::parse)
        .map_err(|error| Fault::argument(number, error))
}

/// A pattern over channel names, as argument `number`.
pub fn pattern(number: u32, text_of_it: &[u8]) -> Result<Pattern, Fault> {
    text(text_of_it)
        .and_then(Pattern::parse)
        .map_err(|error| Fault::argument(number, error))
}

/// A list of channels, as argument `number`.
pub fn channels(number: u32, list: &ZendHashTable) -> Result<Vec<Channel>, Fault> {
    if list.is_empty() || list.len() > MAX_CHANNELS {
        return Err(Fault::argument(
            number,
            format_args!("have 1 to {MAX_CHANNELS} channels, {} given", list.len()),
        ));
    }
    list.values()
        .map(|value| match value.dereference().zend_str() {
            Some(name) => channel(number, name.as_bytes()),
            None => Err(Fault::ArgumentType(
                number,
                "must be of type array|string with strings only in the array".to_owned(),
            )),
        })
        .collect()
}

/// A connection's id, as argument `number`.
pub fn connection(number: u32, id: &[u8]) -> Result<ConnectionId, Fault> {
    std::str::from_utf8(id)
        .map_err(|_| InvalidId::Connection)
        .and_then(str::parse)
        .map_err(|error| Fault::argument(number, error))
}

/// An event's name, as argument `number`; `None` when it was not given.
pub fn event(number: u32, name: Option<&[u8]>) -> Result<EventName, Fault> {
    let Some(name) = name else {
        return Ok(EventName::Message);
    };
    if name == b"message" {
        return Ok(EventName::Message);
    }
    let name = std::str::from_utf8(name).map_err(|_| Fault::argument(number, InvalidId::Event))?;
    ids::check_event(name).map_err(|error| Fault::argument(number, error))?;
    Ok(EventName::new(name))
}

/// A publisher's own message id, as argument `number`.
pub fn custom_id(number: u32, id: &[u8]) -> Result<Box<str>, Fault> {
    std::str::from_utf8(id)
        .map_err(|_| InvalidId::Custom)
        .and_then(|id| ids::check_custom_id(id).map(|()| id.into()))
        .map_err(|error| Fault::argument(number, error))
}

/// A name as text; what is not UTF-8 is no character that a channel may have.
fn text(bytes: &[u8]) -> Result<&str, InvalidId> {
    std::str::from_utf8(bytes).map_err(|_| InvalidId::ChannelChar(char::REPLACEMENT_CHARACTER))
}
