//! Names and numbers that identify things: connections, channels, patterns and positions.
//!
//! Every id is parsed once, where it enters the program (a URL, a frame, a PHP argument), and is a
//! valid value of its own type from there on. Imports nothing of this crate.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest channel name, in bytes.
pub const CHANNEL_MAX: usize = 200;
/// How the server's own channels begin, on which it tells of Mercure subscriptions. Their names have other names in them,
/// percent-encoded, so they may be longer.
pub const SUBSCRIPTIONS: &str = "/.well-known/mercure/subscriptions/";
/// The longest of those, in bytes.
const SUBSCRIPTIONS_MAX: usize = 3 * CHANNEL_MAX + 100;
/// The longest id that a publisher may give a message, in bytes.
pub const CUSTOM_ID_MAX: usize = 128;
/// The longest event name, in bytes.
pub const EVENT_MAX: usize = 200;
/// How a user's own channel begins, see [`Channel::of_user`].
const USER_PREFIX: &str = "#server-to-user-";

/// One client's connection: the owning shard, and 112 random bits so that it cannot be guessed.
///
/// Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u128);

impl ConnectionId {
    /// An id for a connection that `shard` owns.
    pub fn new(shard: u8, random: u128) -> Self {
        Self((u128::from(shard) << 120) | (random & (u128::MAX >> 8)))
    }

    /// The id as a number, for the control socket.
    pub fn to_bits(self) -> u128 {
        self.0
    }

    /// The id again, from [`ConnectionId::to_bits`].
    pub fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The index of the shard that owns this connection.
    pub fn shard(self) -> usize {
        (self.0 >> 120) as usize
    }

    /// The same id as the Pusher protocol writes it: two numbers and a dot between them.
    pub fn socket_id(self) -> String {
        format!("{}.{}", self.0 >> 64, self.0 as u64)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConnectionId {
    type Err = InvalidId;

    /// Takes both forms: 32 hexadecimal digits, and [`ConnectionId::socket_id`].
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if let Some((high, low)) = text.split_once('.') {
            let number = |digits: &str| {
                let plain = digits.bytes().all(|b| b.is_ascii_digit());
                digits.parse::<u64>().ok().filter(|_| plain)
            };
            let (high, low) = number(high).zip(number(low)).ok_or(InvalidId::Connection)?;
            return Ok(Self(u128::from(high) << 64 | u128::from(low)));
        }
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(lower) {
            return Err(InvalidId::Connection);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| InvalidId::Connection)
    }
}

/// A channel's name: 1 to 200 bytes of letters, digits and `_ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ]`, so that most URLs
/// are one; the first is no `#`.
///
/// Shared, so that a clone costs a counter and no allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Checks `name` and takes it as a channel's name.
    pub fn parse(name: &str) -> Result<Self, InvalidId> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }

    /// The channel of all connections of one user. No client can name it: no channel's name begins with `#`.
    pub fn of_user(user: &str) -> Self {
        Self(format!("{USER_PREFIX}{user}").into())
    }

    /// Takes a name that another hub gives: also of a channel that no client can name.
    pub fn from_hub(name: &str) -> Result<Self, InvalidId> {
        match Self::user_of(name) {
            Some(user) => Ok(Self::of_user(user)),
            None => Self::parse(name),
        }
    }

    /// The user whose own channel this is, see [`Channel::of_user`].
    pub fn user_of(name: &str) -> Option<&str> {
        name.strip_prefix(USER_PREFIX)
    }

    /// The check of [`Channel::parse`] alone, for a caller that already has the channel.
    pub fn check(name: &str) -> Result<(), InvalidId> {
        let longest = match name.starts_with(SUBSCRIPTIONS) {
            true => SUBSCRIPTIONS_MAX,
            false => CHANNEL_MAX,
        };
        if name.is_empty() || name.len() > longest {
            return Err(InvalidId::ChannelLength(name.len()));
        }
        if name.starts_with('#') {
            return Err(InvalidId::ChannelChar('#'));
        }
        match name.chars().find(|&c| !is_channel_char(c)) {
            Some(bad) => Err(InvalidId::ChannelChar(bad)),
            None => Ok(()),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name in other memory.
    pub fn copied(&self) -> Self {
        Self((&*self.0).into())
    }

    /// Whether nobody may subscribe unless a handler opens it (`private-`, `presence-`).
    pub fn is_guarded(&self) -> bool {
        self.0.starts_with("private-") || self.is_presence()
    }

    /// Whether a new subscriber gets its newest message at once, by its name (`cache-`, `private-cache-`,
    /// `private-encrypted-cache-`, `presence-cache-`).
    pub fn is_cache(&self) -> bool {
        let guard = ["private-encrypted-", "private-", "presence-"];
        let name = guard.iter().find_map(|guard| self.0.strip_prefix(guard));
        name.unwrap_or(&self.0).starts_with("cache-")
    }

    /// Whether those on it know of each other (`presence-`).
    pub fn is_presence(&self) -> bool {
        self.0.starts_with("presence-")
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn is_channel_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-=@,.;:/?&#%+~!$()[]".contains(c)
}

/// A pattern over channel names, in which `*` stands for any run of characters, also an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Checks `text`: a channel's characters and `*`, 1 to 200 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() || text.len() > CHANNEL_MAX {
            return Err(InvalidId::ChannelLength(text.len()));
        }
        match text.chars().find(|&c| c != '*' && !is_channel_char(c)) {
            Some(bad) => Err(InvalidId::ChannelChar(bad)),
            None => Ok(Self(text.into())),
        }
    }

    /// A list of patterns, separated by blanks.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidId> {
        text.split_whitespace().map(Self::parse).collect()
    }

    /// The pattern that every name fits.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` fits. Linear in the name for each `*`, never exponential.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where the last `*` was, and how much of the name it has swallowed so far.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            if p < pattern.len() && pattern[p] == b'*' {
                star = Some((p, n));
                p += 1;
            } else if p < pattern.len() && pattern[p] == name[n] {
                p += 1;
                n += 1;
            } else if let Some((at, swallowed)) = star {
                star = Some((at, swallowed + 1));
                p = at + 1;
                n = swallowed + 1;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&b| b == b'*')
    }
}

impl TryFrom<Box<str>> for Pattern {
    type Error = InvalidId;

    fn try_from(text: Box<str>) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<Pattern> for Box<str> {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

/// Where a message stands: the history it belongs to (`epoch`), and its number in it (`seq`).
///
/// `seq` grows over all channels of a hub, so that one position is a cursor for several channels. A new
/// hub has a new epoch unless it took the history over. Written as `1f00aa31-42`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which history.
    pub epoch: u32,
    /// The number of the message in it, from 1; 0 is "before the first".
    pub seq: u64,
}

impl Position {
    /// A new epoch of random bits. Its first digit is a letter, so that no date with a number is one of the server's ids.
    pub fn epoch_of(random: u32) -> u32 {
        random | Self::EPOCHS
    }

    /// Whether a server has given it, this one or another: there may be somebody who stands there.
    pub fn may_be_given(self) -> bool {
        self.epoch & Self::EPOCHS == Self::EPOCHS
    }

    /// The bits that all epochs have.
    const EPOCHS: u32 = 0xa000_0000;

    /// The text, made with one allocation: `to_string()` would grow it in three steps, for every message.
    pub fn text(self) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(29);
        write!(text, "{self}").expect("a String takes what is written to it");
        text
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (epoch, seq) = text.split_once('-').ok_or(InvalidId::Position)?;
        if epoch.len() != 8 || seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidId::Position);
        }
        Ok(Self {
            epoch: u32::from_str_radix(epoch, 16).map_err(|_| InvalidId::Position)?,
            seq: seq.parse().map_err(|_| InvalidId::Position)?,
        })
    }
}

/// What is wrong with a name or an id. The text completes "must ...", as PHP's own errors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// A channel name that is empty or too long.
    #[error("be a channel name of 1 to 200 bytes, {0} given")]
    ChannelLength(usize),
    /// More topics than an update may have.
    #[error("have at most 1000 topics, {0} given")]
    Topics(usize),
    /// A character that no channel name has.
    #[error(
        "be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found {0:?}"
    )]
    ChannelChar(char),
    /// Not 32 hexadecimal digits.
    #[error("be a connection id, which is 32 hexadecimal digits")]
    Connection,
    /// Not the id of a message.
    #[error("be the id of a message")]
    Position,
    /// A publisher's own id with characters that no transport could carry.
    #[error("be 1 to 128 bytes of printable ASCII without spaces")]
    Custom,
    /// An event name that no transport could carry.
    #[error("be 1 to 200 bytes without control characters")]
    Event,
    /// An event name that is the server's own.
    #[error(
        "not begin with \"realtime.\", \"pusher:\" or \"pusher_internal:\", as the server's own events do"
    )]
    EventReserved,
}

/// Checks a publisher's own message id: it travels in an SSE `id:` line and in URLs.
pub fn check_custom_id(id: &str) -> Result<(), InvalidId> {
    let fits = (1..=CUSTOM_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(()) } else { Err(InvalidId::Custom) }
}

/// Checks a publisher's event name: it travels in an SSE `event:` line, beside the server's own.
pub fn check_event(event: &str) -> Result<(), InvalidId> {
    check_any_event(event)?;
    // The last two are the Pusher protocol's own, which its clients would believe.
    let reserved = ["realtime.", "pusher:", "pusher_internal:"];
    if reserved.iter().any(|prefix| event.starts_with(prefix)) {
        return Err(InvalidId::EventReserved);
    }
    Ok(())
}

/// Checks the name of an event that may be the server's own.
pub fn check_any_event(event: &str) -> Result<(), InvalidId> {
    let fits = (1..=EVENT_MAX).contains(&event.len()) && !event.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(InvalidId::Event) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_protocols_own_are_nobodys() {
        for own in [
            "realtime.join",
            "pusher:error",
            "pusher_internal:member_removed",
        ] {
            assert_eq!(check_event(own), Err(InvalidId::EventReserved), "{own}");
        }
        for other in ["message", "client-x", "pusher", "pushers:x"] {
            assert_eq!(check_event(other), Ok(()), "{other}");
        }
    }

    #[test]
    fn a_star_matches_any_run() {
        let fits = |p: &str, n: &str| Pattern::parse(p).unwrap().matches(n);
        assert!(fits("*", "anything"));
        assert!(fits("chat.*", "chat.1"));
        assert!(fits("chat.*", "chat."));
        assert!(!fits("chat.*", "chat"));
        assert!(fits("a*b*c", "a-b-b-c"));
        assert!(!fits("a*b*c", "a-b-b-d"));
        assert!(fits("**", "x"));
        assert!(!fits("a", "ab"));
        // Would take years if the match were exponential.
        assert!(!fits(&format!("{}c", "a*".repeat(90)), &"a".repeat(199)));
    }

    #[test]
    fn channel_names_are_checked() {
        assert!(Channel::parse("orders.eu-1/a:b;c,d@e=f_g").is_ok());
        assert_eq!(Channel::parse(""), Err(InvalidId::ChannelLength(0)));
        assert_eq!(
            Channel::parse(&"x".repeat(201)),
            Err(InvalidId::ChannelLength(201))
        );
        assert_eq!(Channel::parse("a b"), Err(InvalidId::ChannelChar(' ')));
        assert_eq!(Channel::parse("ä"), Err(InvalidId::ChannelChar('ä')));
    }

    #[test]
    fn positions_and_connections_survive_their_text() {
        let position = Position {
            epoch: 0xab,
            seq: 42,
        };
        assert_eq!(position.text(), "000000ab-42");
        assert_eq!("000000ab-42".parse(), Ok(position));
        for bad in [
            "",
            "ab-1",
            "000000ab-",
            "000000ab-+1",
            "000000ab-99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(InvalidId::Position), "{bad}");
        }
        let id = ConnectionId::new(3, u128::MAX);
        assert_eq!(id.shard(), 3);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("g".repeat(32).parse::<ConnectionId>().is_err());
        let socket = id.socket_id();
        assert_eq!(socket, "288230376151711743.18446744073709551615");
        assert_eq!(socket.parse(), Ok(id));
        for bad in [
            "1",
            "1.",
            ".1",
            "+1.1",
            "1.-1",
            "1.2.3",
            "18446744073709551616.1",
        ] {
            assert!(bad.parse::<ConnectionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_client_can_name_a_users_own_channel() {
        let own = Channel::of_user("ada");
        assert_eq!(Channel::user_of(own.as_str()), Some("ada"));
        assert!(Channel::parse(own.as_str()).is_err());
        assert_eq!(Channel::from_hub(own.as_str()), Ok(own));
        assert!(Channel::from_hub("#else").is_err());
    }
}
