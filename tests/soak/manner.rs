//! What a client of each kind says, in the bytes of its protocol: at once, to what it hears, and now and then.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use realtime::auth::{Stamp, sign};
use realtime::config::{App, Apps, Config};
use realtime::pusher::auth::sign_channel;
use serde_json::json;

use crate::Outcome;
use crate::pest::Dice;
use crate::wire::{Kind, client_frame, find};

/// How many rooms there are to subscribe to.
pub const ROOMS: usize = 50;
/// How many of them are private or know who is there, each.
pub const GUARDED: usize = 10;
/// Who the clients with tokens are.
const USERS: usize = 200;
/// What stands in php.ini, without `realtime.`.
pub const SECRETS: [(&str, &str); 4] = [
    ("secret", "the secret of the soak which is long enough"),
    ("pusher_app", "1:soak:the-secret-of-the-soak"),
    (
        "mercure_subscriber_key",
        "the secret of Mercure in the soak that is long",
    ),
    ("mercure_subscriptions", "1"),
];

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    Native,
    Raw,
    Deflate,
    Sse,
    Stream,
    Poll,
    /// Sends to PHP now and then.
    Speaks,
    /// Has a token, which opens private rooms to it, and may be over before it goes.
    Token,
    /// Has a token, and is there where others see it.
    Member,
    /// pusher-js, on a public channel and a presence channel.
    Pusher,
    /// Mercure's EventSource, with a token; its subscriptions are told to others.
    Mercure,
    /// Reads nothing.
    Stalls,
    /// Never says what it wants.
    Silent,
    /// Says what nobody understands.
    Rude,
}

/// How often each of them comes.
pub const MANNERS: [Manner; 20] = [
    Manner::Native,
    Manner::Native,
    Manner::Native,
    Manner::Raw,
    Manner::Raw,
    Manner::Deflate,
    Manner::Sse,
    Manner::Sse,
    Manner::Stream,
    Manner::Poll,
    Manner::Speaks,
    Manner::Token,
    Manner::Token,
    Manner::Member,
    Manner::Member,
    Manner::Pusher,
    Manner::Mercure,
    Manner::Stalls,
    Manner::Silent,
    Manner::Rude,
];

/// What proves who somebody is.
pub struct Keys {
    config: Config,
    app: Arc<App>,
    mercure: EncodingKey,
}

impl Keys {
    /// Those of [`SECRETS`].
    pub fn new() -> Outcome<Self> {
        let config = Config::load(|name| {
            let own = name.strip_prefix("realtime.")?;
            let found = SECRETS.iter().find(|(its, _)| *its == own);
            found.map(|(_, value)| (*value).to_owned())
        });
        let config = config.map_err(|e| e.to_string())?;
        let apps: &Apps = &config.pusher_app;
        Ok(Self {
            app: apps.first().ok_or("no app")?.clone(),
            mercure: EncodingKey::from_secret(SECRETS[2].1.as_bytes()),
            config,
        })
    }

    fn token(&self, dice: &mut Dice) -> Outcome<String> {
        let user = dice.below(USERS);
        let claims = json!({
            "sub": format!("user-{user}"), "channels": ["private-*", "presence-*"], "info": {"number": user},
        });
        let seconds = [2, 600, 600][dice.below(3)];
        let token = sign(&self.config, claims.to_string().as_bytes(), seconds);
        token.map_err(|e| e.to_string())
    }

    fn of_mercure(&self) -> Outcome<String> {
        let until = Stamp::now().seconds() as u64 + 600;
        let claims =
            json!({"mercure": {"subscribe": ["*"], "payload": {"of": "soak"}}, "exp": until});
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.mercure);
        token.map_err(|e| e.to_string())
    }
}

impl Manner {
    /// What it says at once.
    pub fn opening(self, dice: &mut Dice, keys: &Keys) -> Outcome<Vec<u8>> {
        let rooms = [0; 3].map(|_| format!("room-{}", dice.below(ROOMS)));
        let guarded = dice.below(GUARDED);
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let websocket = |path: &str| {
            let request = String::from_utf8_lossy(&Kind::Native.request("")).into_owned();
            request
                .replacen("/ws ", &format!("{path} "), 1)
                .into_bytes()
        };
        Ok(match self {
            Self::Native | Self::Speaks | Self::Stalls => {
                let mut bytes = Kind::Native.request("");
                for room in &rooms {
                    // Some want all there is, which is not all they ask for.
                    let since = match dice.below(4) {
                        0 => r#","since":"00000000-1""#,
                        _ => "",
                    };
                    bytes.extend(frame(&format!(
                        r#"{{"type":"subscribe","channel":"{room}"{since}}}"#
                    )));
                }
                bytes
            }
            Self::Token | Self::Member => {
                let family = if self == Self::Token {
                    "private"
                } else {
                    "presence"
                };
                let mut bytes = websocket(&format!("/ws?token={}", keys.token(dice)?));
                for room in [format!("{family}-{guarded}"), rooms[0].clone()] {
                    bytes.extend(frame(&format!(
                        r#"{{"type":"subscribe","channel":"{room}"}}"#
                    )));
                }
                bytes
            }
            Self::Pusher => websocket("/app/soak?protocol=7&client=js&version=8.4.0"),
            Self::Mercure => format!(
                "GET /.well-known/mercure?topic={}&topic=private-{guarded} HTTP/1.1\r\nHost: a\r\n\
                 Accept: text/event-stream\r\nAuthorization: Bearer {}\r\n\r\n",
                rooms[0],
                keys.of_mercure()?
            )
            .into_bytes(),
            Self::Raw => Kind::Raw.request(&rooms[0]),
            Self::Deflate => Kind::Deflate.request(&rooms[0]),
            Self::Sse => get(&format!("/sse?channel={}", rooms.join("&channel="))),
            Self::Stream => get(&format!("/stream?channel={}", rooms.join("&channel="))),
            Self::Poll => poll(dice),
            Self::Silent => b"GET /ws HT".to_vec(),
            Self::Rude => dice.bytes(100),
        })
    }

    /// What it says to what it has heard.
    pub fn reply(self, heard: &[u8], dice: &mut Dice, keys: &Keys) -> Option<Vec<u8>> {
        match self {
            // The answer to a poll: it asks again.
            Self::Poll => Some(poll(dice)),
            Self::Pusher => {
                // JSON within JSON.
                let start = find(heard, br#"socket_id\":\""#)? + 14;
                let end = start + find(&heard[start..], b"\\")?;
                let socket_id = std::str::from_utf8(&heard[start..end]).ok()?;
                let room = format!("room-{}", dice.below(ROOMS));
                let presence = format!("presence-{}", dice.below(GUARDED));
                let data = json!({"user_id": format!("pusher-{}", dice.below(USERS))}).to_string();
                let auth = sign_channel(&keys.app, socket_id, &presence, Some(&data));
                let mut bytes = frame(&subscribe(&json!({ "channel": room })));
                bytes.extend(frame(&subscribe(
                    &json!({"channel": presence, "auth": auth, "channel_data": data}),
                )));
                Some(bytes)
            }
            _ => None,
        }
    }

    /// What it hears once when all is as it should be; nothing for those who need not hear anything.
    pub fn proof(self) -> Option<&'static [u8]> {
        match self {
            Self::Native | Self::Speaks | Self::Stream => Some(br#""type":"message""#),
            Self::Token => Some(br#""channel":"private-"#),
            Self::Member => Some(br#""type":"join""#),
            // Of its presence channel: who else is there.
            Self::Pusher => Some(br#"{\"presence\":"#),
            Self::Mercure | Self::Sse => Some(b"data: "),
            Self::Poll => Some(br#""messages":["#),
            Self::Raw | Self::Deflate => Some(b"101 Switching"),
            Self::Rude => Some(b"400 Bad"),
            Self::Stalls | Self::Silent => None,
        }
    }

    /// What it says now and then.
    pub fn chatter(self, index: usize, dice: &mut Dice) -> Option<Vec<u8>> {
        match self {
            Self::Speaks if dice.below(10) == 0 => Some(frame(&format!(
                r#"{{"type":"publish","channel":"room-1","ref":1,"data":{index}}}"#
            ))),
            Self::Native if dice.below(50) == 0 => {
                let room = dice.below(ROOMS);
                Some(frame(&format!(
                    r#"{{"type":"unsubscribe","channel":"room-{room}"}}"#
                )))
            }
            Self::Pusher if dice.below(20) == 0 => {
                Some(frame(r#"{"event":"pusher:ping","data":{}}"#))
            }
            _ => None,
        }
    }
}

fn frame(text: &str) -> Vec<u8> {
    client_frame(1, text.as_bytes())
}

fn subscribe(data: &serde_json::Value) -> String {
    json!({"event": "pusher:subscribe", "data": data}).to_string()
}

fn poll(dice: &mut Dice) -> Vec<u8> {
    let room = dice.below(ROOMS);
    // One that is not polled again goes on for ten seconds.
    let session = if dice.below(50) == 0 {
        "&session=1"
    } else {
        ""
    };
    format!("GET /poll?channel=room-{room}{session} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}
