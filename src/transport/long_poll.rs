//! `/poll`: a request that is answered when there is a message.
//!
//! A plain poll is a connection for as long as it waits. With `session=1` the connection lives on between polls: its
//! [`Mailslot`] keeps what comes meanwhile, and any shard may serve the next poll. Imports `session` and `wire`.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Shared;
use super::body::Body;
use super::mailslot::{BETWEEN_POLLS, Mailslot};
use super::request::Query;
use super::response::{self, Refusal};
use super::routes::{self, Requests};
use crate::auth;
use crate::broker::{CatchUp, Since};
use crate::ids::{Channel, ConnectionId, Position};
use crate::message::{ConnectionInfo, Publication, Transport};
use crate::node::Node;
use crate::session::{Entry, Session};
use crate::wire::deflate::Packer;
use crate::wire::{Format, encode_publication};

/// How long a poll waits when it does not say.
const TIMEOUT: Duration = Duration::from_secs(25);
/// The longest that a poll may ask for, in seconds.
const TIMEOUT_MAX: f64 = 60.0;

/// The sessions of all shards.
#[derive(Debug, Default)]
pub struct Polls {
    // Locked to look a session up, and when one begins or ends: never while waiting.
    slots: Mutex<HashMap<ConnectionId, Arc<Mailslot>>>,
}

#[derive(Serialize)]
struct Answer {
    messages: Vec<Box<RawValue>>,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
    /// The cache channels among them whose newest message is the first of theirs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cached: Vec<String>,
    /// Who is on the presence channels among them.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    members: HashMap<String, Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Seconds until the token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

/// Answers a poll.
pub async fn answer(requests: &Requests, parts: &Parts) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(parts)?;
    let timeout = timeout(query.timeout.as_deref())?;
    let answer = match (&query.connection, &query.key) {
        (Some(connection), Some(key)) => {
            next_of_session(&requests.shared.polls, connection, key, &query, timeout).await?
        }
        (None, None) => {
            let connected = query.session;
            let query = query.with_channels(connected)?;
            let admitted = routes::admit(requests, Transport::Poll, parts).await?;
            let entries = routes::authorize_all(requests, admitted.info(), &query).await?;
            let session = Session::new(admitted, &requests.shared.hub, Format::Object, None);
            if query.session {
                first_of_session(&requests.shared, session, &entries, &query, timeout).await?
            } else {
                plain(session, &entries, &query, timeout).await?
            }
        }
        _ => {
            return Err(Refusal::bad(
                "bad_frame",
                "\"connection\" and \"key\" go together",
            ));
        }
    };
    let body = serde_json::to_vec(&answer).expect("strings and ready-made JSON always serialize");
    Ok(response::json(StatusCode::OK, body.into()))
}

async fn plain(
    mut session: Session,
    entries: &[Entry],
    query: &Query,
    timeout: Duration,
) -> Result<Answer, Refusal> {
    let node = session.node().clone();
    let (mut past, answer, _) = attach(&session, entries, query)?;
    session.opened();
    session.ends(1000, "");
    if !past.is_empty() {
        let slot = session.slot();
        past.extend(session.hub().borrow_mut().collected(slot).0);
        return Ok(Answer {
            messages: objects(past),
            ..answer
        });
    }
    let (hub, slot) = (session.hub().clone(), session.slot());
    let collected = std::future::poll_fn(|cx| hub.borrow_mut().poll_collected(slot, cx));
    Ok(match tokio::time::timeout(timeout, collected).await {
        Ok((messages, newest)) if !messages.is_empty() => {
            let cursor = at(&answer.cursor, newest);
            Answer {
                messages: objects(messages),
                cursor,
                ..answer
            }
        }
        _ => {
            // Moves the cursor on over what other channels got, so that a quiet channel's cursor does not grow old.
            let since = Since {
                id: Some(&answer.cursor),
                except: &[],
            };
            let caught = node.catch_up(&query.channels, since);
            let (short, oldest) = shortfall(&caught);
            let (messages, cursor) = merge(session.info(), &node, caught);
            Answer {
                messages: objects(messages),
                cursor: cursor.to_string(),
                recovered: if short { Some(false) } else { answer.recovered },
                oldest: oldest.or(answer.oldest),
                ..answer
            }
        }
    })
}

async fn first_of_session(
    shared: &Rc<Shared>,
    mut session: Session,
    entries: &[Entry],
    query: &Query,
    timeout: Duration,
) -> Result<Answer, Refusal> {
    let (past, answer, complete) = attach(&session, entries, query)?;
    session.opened();
    if !complete {
        session.ends(1000, "");
        // Its past goes on: a session begins with the poll that has reached the present.
        return Ok(Answer {
            messages: objects(past),
            ..answer
        });
    }
    let info = session.info().clone();
    let cursor: Position = answer.cursor.parse().expect("a cursor of our own");
    let since = query.since.as_deref();
    let expires = session.expires();
    let slot = Arc::new(Mailslot::new(info.key, past, since, cursor));
    lock(&shared.polls.slots).insert(info.id, slot.clone());
    tokio::task::spawn_local(keep(shared.clone(), session, slot.clone()));
    let taken = slot.first(timeout).await.ok_or_else(gone)?;
    Ok(Answer {
        connection: Some(info.id.to_string()),
        key: Some(format!("{:016x}", info.key)),
        messages: objects(taken.messages),
        cursor: taken.cursor.to_string(),
        expires,
        ..answer
    })
}

async fn next_of_session(
    polls: &Polls,
    connection: &str,
    key: &str,
    query: &Query,
    timeout: Duration,
) -> Result<Answer, Refusal> {
    let id: ConnectionId = connection.parse().map_err(|_| gone())?;
    let key = u64::from_str_radix(key, 16).map_err(|_| gone())?;
    let slot = lock(&polls.slots).get(&id).cloned();
    let proves = |slot: &Arc<Mailslot>| auth::is_same(&slot.key.to_ne_bytes(), &key.to_ne_bytes());
    let slot = slot.filter(proves).ok_or_else(gone)?;
    let taken = slot.next(query.since.as_deref(), timeout).await;
    let taken = taken.ok_or_else(gone)?;
    Ok(Answer {
        messages: objects(taken.messages),
        cursor: taken.cursor.to_string(),
        recovered: None,
        oldest: None,
        cached: Vec::new(),
        members: HashMap::new(),
        connection: None,
        key: None,
        expires: None,
    })
}

fn gone() -> Refusal {
    let message = "this session has ended, begin anew with since=";
    Refusal::new(StatusCode::NOT_FOUND, "no_session", message)
}

/// Lives as long as the session, on its shard: brings what the hub has for it to the mailslot.
async fn keep(shared: Rc<Shared>, mut session: Session, slot: Arc<Mailslot>) {
    let (hub, place) = (session.hub().clone(), session.slot());
    let limit = shared.node.config().max_backlog;
    loop {
        let deadline = slot.deadline();
        let collected = std::future::poll_fn(|cx| {
            let mut hub = hub.borrow_mut();
            // What waits when it is closed still goes to a poll that waits.
            let collected = hub.poll_collected(place, cx);
            collected.map(|(messages, newest)| (messages, newest, hub.closing(place).is_some()))
        });
        // While a poll waits, somebody else sets the deadline: look again when it could have passed.
        let look_again = deadline.unwrap_or_else(|| Instant::now() + BETWEEN_POLLS);
        match tokio::time::timeout_at(look_again, collected).await {
            Ok((messages, newest, closing)) => {
                let waiting = slot.put(messages, newest);
                if closing {
                    break;
                }
                if waiting > limit {
                    session.ends(crate::hub::CLOSE_SLOW, "too slow");
                    break;
                }
            }
            Err(_) => {
                let deadline = slot.deadline();
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    session.ends(1001, "");
                    break;
                }
            }
        }
    }
    slot.end();
    lock(&shared.polls.slots).remove(&session.info().id);
}

/// Takes what was missed and, when that is all of it, subscribes: then the last of what it returns is true.
fn attach(
    session: &Session,
    entries: &[Entry],
    query: &Query,
) -> Result<(Vec<Bytes>, Answer, bool), Refusal> {
    let node = session.node();
    // While it is held nobody comes or goes.
    let mut attendance = session.present(entries)?;
    let since = Since {
        id: query.since.as_deref(),
        except: &query.new,
    };
    let mut caught = node.catch_up(&query.channels, since);
    let grant = session.info().grant();
    let mine = |it: &Arc<Publication>| it.is_open_to(grant.as_deref());
    caught.cached.retain(mine);
    let cached = caught.cached.iter().map(|it| it.channel.to_string());
    let cached = cached.collect();
    let seq = caught.position.seq;
    let (short, oldest) = shortfall(&caught);
    let recovered = query.since.as_ref().map(|_| !short);
    let (messages, cursor) = merge(session.info(), node, caught);
    // A past that did not fit into one answer is not followed by what comes live: the next poll gets both.
    let complete = cursor.seq >= seq;
    let mut members = HashMap::new();
    if complete {
        subscribe(session, &query.channels, seq);
        for entry in entries.iter().filter(|it| it.channel.is_presence()) {
            let name = entry.channel.as_str();
            let list = attendance.as_ref().map(|attendance| attendance.list(name));
            let list = serde_json::value::to_raw_value(&list.unwrap_or_default());
            members.extend(list.ok().map(|list| (name.to_owned(), list)));
        }
    } else if let Some(attendance) = &mut attendance {
        // It is not subscribed: present until the next poll, which is awaited.
        attendance.end(session.info().id, false);
    }
    drop(attendance);
    let answer = Answer {
        messages: Vec::new(),
        cursor: cursor.to_string(),
        recovered,
        oldest,
        cached,
        members,
        connection: None,
        key: None,
        expires: None,
    };
    Ok((messages, answer, complete))
}

/// Whether the history no longer reaches back far enough in one of the channels, and the oldest that is left there.
fn shortfall(caught: &CatchUp) -> (bool, Option<String>) {
    let short = || caught.missed.iter().filter(|missed| !missed.recovered);
    let oldest = short()
        .filter_map(|missed| missed.oldest.as_ref())
        .min_by_key(|publication| publication.position.seq)
        .map(|publication| publication.public_id());
    (short().next().is_some(), oldest)
}

fn subscribe(session: &Session, channels: &[Channel], after: u64) {
    let mut hub = session.hub().borrow_mut();
    for channel in channels {
        hub.subscribe(session.slot(), channel, after);
    }
}

/// What was missed in all channels, in order, as much as fits into `realtime.max_backlog`; and up to where that is. Before it
/// the newest messages of cache channels, which are few.
fn merge(info: &ConnectionInfo, node: &Node, caught: CatchUp) -> (Vec<Bytes>, Position) {
    let grant = info.grant();
    let mut past: Vec<_> = caught
        .missed
        .into_iter()
        .flat_map(|m| m.publications)
        .filter(|publication| publication.is_open_to(grant.as_deref()))
        .collect();
    past.sort_unstable_by_key(|publication| publication.position.seq);
    let mut bytes = 0;
    let mut messages = Vec::with_capacity(caught.cached.len() + past.len());
    let mut cursor = None;
    // Answers of HTTP are compressed by a proxy, or not at all.
    let mut packer = Packer::default();
    let mut encode =
        |publication: &Publication| encode_publication(publication, Format::Object, &mut packer);
    messages.extend(caught.cached.iter().map(|publication| encode(publication)));
    let first = messages.len();
    for publication in past {
        let object = encode(&publication);
        bytes += object.len();
        if bytes > node.config().max_backlog && messages.len() > first {
            return (messages, cursor.unwrap_or(caught.position));
        }
        cursor = Some(publication.position);
        messages.push(object);
    }
    (messages, caught.position)
}

fn at(cursor: &str, newest: u64) -> String {
    let cursor: Position = cursor.parse().expect("a cursor of our own");
    Position {
        seq: cursor.seq.max(newest),
        ..cursor
    }
    .to_string()
}

fn objects(messages: impl IntoIterator<Item = Bytes>) -> Vec<Box<RawValue>> {
    messages
        .into_iter()
        .filter_map(|object| serde_json::from_slice(&object).ok())
        .collect()
}

/// How long a poll may wait.
pub(super) fn timeout(text: Option<&str>) -> Result<Duration, Refusal> {
    let Some(text) = text else { return Ok(TIMEOUT) };
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=TIMEOUT_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(Refusal::bad(
            "bad_timeout",
            "timeout must be 0 to 60 seconds",
        )),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
