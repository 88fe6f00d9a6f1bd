//! `rt_update()`: an update of the Mercure protocol without HTTP.
//!
//! Imports `mercure`, `link`, `args`, `value` and `zend`.

use ext_php_rs::types::{ZendHashTable, Zval};
use ext_php_rs::zend::ExecuteData;

use super::args::MAX_CHANNELS;
use super::fault::{Fault, guard};
use super::{ini, link, value, zend};
use crate::ids::InvalidId;
use crate::mercure::{Wrong, public_id, publish};
use crate::wire::mercure::Update;

/// `rt_update(string|array $topics, string $data = '', bool $private = false, ?string $id = null, ?string $type = null,
/// ?int $retry = null): string`
pub extern "C" fn rt_update(call: &mut ExecuteData, ret: &mut Zval) {
    guard(|| {
        let mut given = std::mem::MaybeUninit::<zend::UpdateArgs>::uninit();
        // SAFETY: the parser fills all of it; what it points at are arguments, alive until we return.
        let given = unsafe {
            if !zend::rt_parse_update(call, given.as_mut_ptr()) {
                return Err(Fault::ARGUMENTS);
            }
            given.assume_init()
        };
        // SAFETY: as above, for each of these pointers.
        let (list, topic, data, id, event) = unsafe {
            (
                given.topics.as_ref(),
                zend::bytes(given.topic),
                zend::bytes(given.data),
                zend::bytes(given.id),
                zend::bytes(given.event),
            )
        };
        let retry = (!given.no_retry).then(|| u64::try_from(given.retry));
        let update = Update {
            topics: match (list, topic) {
                (Some(list), _) => topics(list)?,
                (None, topic) => vec![text(1, topic)?.unwrap_or_default()],
            },
            data: text(2, data)?.unwrap_or_default(),
            private: given.private,
            // As in a form, an empty one is none.
            id: text(4, id)?.filter(|id| !id.is_empty()),
            event: text(5, event)?.filter(|event| !event.is_empty()),
            retry: retry
                .transpose()
                .map_err(|_| Fault::argument(6, "be 0 or more milliseconds"))?,
        };
        let base = ini::config().ok().and_then(|config| config.mercure_base());
        let publish = publish(update, base.as_ref(), |_| true).map_err(Fault::from)?;
        let is_named = publish.id.is_some();
        let mut publish = Some(publish);
        let id = link::with(|link| link.publish(&mut publish)).map_err(Fault::realtime)?;
        *ret = value::string(public_id(id, is_named));
        Ok(())
    });
}

fn topics(list: &ZendHashTable) -> Result<Vec<String>, Fault> {
    if list.is_empty() || list.len() > MAX_CHANNELS {
        return Err(Fault::argument(
            1,
            format_args!("have 1 to {MAX_CHANNELS} topics, {} given", list.len()),
        ));
    }
    list.values()
        .map(|value| match value.dereference().zend_str() {
            Some(topic) => text(1, Some(topic.as_bytes())).map(Option::unwrap_or_default),
            None => Err(Fault::ArgumentType(
                1,
                "must be of type array|string with strings only in the array".to_owned(),
            )),
        })
        .collect()
}

fn text(number: u32, bytes: Option<&[u8]>) -> Result<Option<String>, Fault> {
    let text = bytes.map(std::str::from_utf8).transpose();
    let text = text.map_err(|_| Fault::argument(number, "be valid UTF-8"))?;
    Ok(text.map(str::to_owned))
}

impl From<Wrong> for Fault {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Topic(_, error @ InvalidId::ChannelLength(_)) => Self::argument(1, error),
            Wrong::Topic(topic, error) => Self::argument(1, format_args!("{error} in {topic:?}")),
            Wrong::Reserved(topic) | Wrong::Forbidden(topic) => Self::argument(
                1,
                format_args!("not name the hub's own topics, {topic:?} given"),
            ),
            Wrong::Id(error) => Self::argument(4, error),
            Wrong::IdReserved => Self::argument(4, "not begin with # or be \"earliest\""),
            Wrong::Type(error) => Self::argument(5, error),
            Wrong::TypeReserved => Self::argument(5, "not be the hub's own \"mercure\""),
        }
    }
}
