//! What an old hub and the new one that takes over from it say to each other, on a link of the control socket.
//!
//! After hello and greeting the old one sends its [`Estate`], with its descriptors beside the bytes, then what it
//! knows in [`Part`]s while it serves on. The rest is three words ([`Step`]): the new one is `Ready`; the old one lets go
//! and says `Yours`; the new one is `Serving`. From then on the new one relays what is published in parts of the
//! same kind. Estate and steps are JSON and never change, so that any two versions can hand over their sockets; parts are
//! postcard, and only spoken when both sides have the same version. Imports `wire::control`.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::control::{self, WirePayload};
use crate::auth::Lists;
use crate::message::Terms;

/// The version of [`Part`].
pub const HANDOVER: u32 = 2;

/// How many descriptors come with an [`Estate`]: the control socket, its lock, and the clients' socket, in this order.
pub const DESCRIPTORS: usize = 3;

/// The largest frame of parts, in bytes, over the size of one message: what comes in one is gathered up to half of it.
pub const PARTS_MAX: usize = 1 << 20;

/// What an old hub leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estate {
    /// Its `realtime.listen`.
    pub listen: String,
    /// Its [`control::Identity::secret`], which requests that are under way know.
    pub secret: String,
    /// Its largest message, in bytes: no part is larger by more than [`PARTS_MAX`].
    pub max_message_size: usize,
    /// Whether it sends parts. If not, the new hub begins a history of its own.
    pub parts: bool,
    /// Which events its attached PHP processes handle, as in [`super::events::Outcomes::interest`].
    #[serde(default)]
    pub attached: u8,
    /// The PHP masters that it lives for.
    #[serde(default)]
    pub masters: Vec<Master>,
}

/// A PHP master: number and start name one process for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Master {
    /// Its process number.
    pub pid: u32,
    /// When it was started, in the kernel's clock ticks.
    pub started: u64,
}

/// How far the hand-over is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The new hub has everything but what happens meanwhile.
    Ready,
    /// The old hub accepts nobody and does nothing for other processes any more.
    Yours,
    /// The new hub does.
    Serving,
}

/// What the hubs tell each other while both speak the same version.
#[derive(Debug, Serialize, Deserialize)]
pub enum Part {
    /// Where the history stands: comes first.
    Begin {
        /// See [`crate::ids::Position`].
        epoch: u32,
        /// The newest number.
        seq: u64,
        /// The newest number that was pushed out of a channel that is not among the marks.
        forgotten: u64,
    },
    /// For each channel the newest number that was pushed out of it.
    Marks(Vec<(String, u64)>),
    /// What is in the history, or was published just now, in the order of numbers.
    Notes(Vec<WireNote>),
    /// The past is complete: what comes from here on is the present.
    End,
    /// A request about connections that may still be at the old hub.
    Ask {
        /// By which the answer is known.
        number: u64,
        /// The [`control::Request`], encoded.
        request: Bytes,
    },
    /// Its answer.
    Answer {
        /// Of which request.
        number: u64,
        /// The [`control::Response`], encoded.
        response: Bytes,
    },
    /// Tokens and users that were taken back.
    Revoked(Lists),
    /// What is only kept as the newest of a cache channel: of the past, too.
    Cached(Vec<WireNote>),
    /// Who is present at the old hub, and is to be awaited for so long.
    Present(Duration, Vec<WireAttendee>),
    /// Who came or went at the old hub since then.
    Changes(Vec<WireChange>),
}

/// Somebody on a presence channel.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of presence::Attendee")]
pub struct WireAttendee {
    pub channel: String,
    pub user: String,
    /// As JSON.
    pub info: Option<String>,
}

impl WireAttendee {
    /// About how many bytes it takes in a frame.
    pub fn size(&self) -> usize {
        let info = self.info.as_ref().map_or(0, String::len);
        16 + self.channel.len() + self.user.len() + info
    }
}

/// See [`crate::presence::Change`].
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants of presence::Change")]
pub enum WireChange {
    /// With the connection by which.
    Joined(WireAttendee, u128),
    Left {
        channel: String,
        user: String,
    },
}

/// A message of the history.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Publication")]
pub struct WireNote {
    pub channel: String,
    pub seq: u64,
    pub id: Option<String>,
    pub event: String,
    pub payload: WirePayload,
    pub except: Option<u128>,
    /// How long ago it was published.
    pub age: Duration,
    /// Whether it is kept. If not, it is only passed on, or only its publisher's id is remembered.
    pub store: bool,
    pub terms: Option<WireTerms>,
}

/// What a publisher said beside a message's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Terms")]
pub struct WireTerms {
    pub private: bool,
    pub retry: Option<u64>,
    pub topics: Vec<String>,
    pub first: u64,
}

impl WireTerms {
    /// How many bytes it takes, roughly, but not less.
    pub fn size(&self) -> usize {
        let topics = self.topics.iter();
        32 + topics.map(|topic| 4 + topic.len()).sum::<usize>()
    }
}

impl From<&Terms> for WireTerms {
    fn from(terms: &Terms) -> Self {
        let topics = terms.topics.iter();
        Self {
            private: terms.private,
            retry: terms.retry,
            topics: topics.map(|topic| topic.as_str().to_owned()).collect(),
            first: terms.first,
        }
    }
}

impl WireNote {
    /// About how many bytes it takes in a frame.
    pub fn size(&self) -> usize {
        let (WirePayload::Json(content) | WirePayload::Binary(content)) = &self.payload;
        let id = self.id.as_ref().map_or(0, String::len);
        let terms = self.terms.as_ref().map_or(0, WireTerms::size);
        64 + terms + self.channel.len() + self.event.len() + id + content.len()
    }
}

/// A frame's content after the estate.
#[derive(Debug)]
pub enum Said {
    /// A word.
    Step(Step),
    /// Something that the other side knows.
    Part(Part),
}

/// Neither a word nor a part.
#[derive(Debug, thiserror::Error)]
#[error("a frame that is no part of a hand-over")]
pub struct Unintelligible;

/// Reads a frame's content. A step is a JSON string, and begins with a quotation mark; a part with its small number.
pub fn read(content: &[u8]) -> Result<Said, Unintelligible> {
    if content.first() == Some(&b'"') {
        serde_json::from_slice(content)
            .map(Said::Step)
            .map_err(|_| Unintelligible)
    } else {
        control::read(content)
            .map(Said::Part)
            .map_err(|_| Unintelligible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_parts_are_told_apart() {
        let step = control::json_frame(&Step::Yours);
        assert!(matches!(read(&step[4..]), Ok(Said::Step(Step::Yours))));
        let begin = Part::Begin {
            epoch: 1,
            seq: 2,
            forgotten: 3,
        };
        let parts = [
            begin,
            Part::Marks(vec![]),
            Part::Notes(vec![]),
            Part::End,
            Part::Ask {
                number: 1,
                request: Bytes::from_static(b"x"),
            },
        ];
        for part in parts {
            let frame = control::frame(&part);
            assert!(matches!(read(&frame[4..]), Ok(Said::Part(_))), "{part:?}");
        }
        for garbage in [&b""[..], b"\"sorry\"", b"\xff\xff", b"{}"] {
            assert!(read(garbage).is_err(), "{garbage:?}");
        }
    }
}
