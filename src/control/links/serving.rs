//! The links' thread: waits for all of them at once and serves whichever has something to say.
//!
//! Imports `control::requests`, `node` and `wire::control`.

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::link::{Doing, Link};
use super::{INBOX, Inbox, Note};
use crate::control::requests::{self, Now};
use crate::node::{self, Failure, Node};
use crate::wire::control::{self, FRAME_OVERHEAD, Request, Response, WireFailure};

/// Room for what is read at a time, in bytes, shared by all links. Larger requests are gathered by their link.
const ROOM: usize = 64 << 10;
/// Links served before the shards are woken for what they published, so that no message waits for many answers.
const BATCH: usize = 16;
/// How often a publisher that waits for room in the shards is looked at.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
/// How often a publisher that waits for the disk is looked at if nothing comes from there.
const STORE_PAUSE: Duration = Duration::from_millis(50);

/// The thread's own.
pub struct Serving {
    node: Arc<Node>,
    runtime: Handle,
    poll: Poll,
    inbox: Arc<Inbox>,
    links: Slab<Link>,
    /// Those that wait for room in the shards.
    waiting: Vec<usize>,
    /// Those that wait for the disk.
    storing: Vec<usize>,
    /// By when all links are to end, and who waits for that.
    finishing: Option<(Instant, oneshot::Sender<()>)>,
    /// The largest frame, in bytes.
    limit: usize,
    room: Vec<u8>,
    answer: Vec<u8>,
}

impl Serving {
    pub fn new(node: Arc<Node>, runtime: Handle, poll: Poll, inbox: Arc<Inbox>) -> Self {
        Self {
            limit: node.config().max_message_size + FRAME_OVERHEAD,
            node,
            runtime,
            poll,
            inbox,
            links: Slab::new(),
            waiting: Vec::new(),
            storing: Vec::new(),
            finishing: None,
            room: vec![0; ROOM],
            answer: Vec::new(),
        }
    }

    /// Serves until the inbox says stop.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(BATCH);
        let mut stop = false;
        while !stop {
            match self.poll.poll(&mut events, self.pause()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    INBOX => stop |= !self.take_notes(),
                    Token(slot) => {
                        if event.is_read_closed()
                            && let Some(link) = self.links.get_mut(slot)
                        {
                            link.sends_no_more = true;
                        }
                        self.attend(slot);
                    }
                }
            }
            // Also at the end: what the disk has by now its publisher is told, or it would be published once more at the next hub.
            for slot in std::mem::take(&mut self.waiting) {
                self.try_again(slot);
            }
            for slot in std::mem::take(&mut self.storing) {
                self.look_again(slot);
            }
            // Their publishers have their answers, or wait for more than the shards.
            self.node.rouse();
            if self.finishing.is_some() {
                self.end_those_between_frames();
            }
        }
        Ok(())
    }

    fn pause(&self) -> Option<Duration> {
        if !self.waiting.is_empty() {
            return Some(ROOM_PAUSE);
        }
        if !self.storing.is_empty() {
            return Some(STORE_PAUSE);
        }
        let (deadline, _) = self.finishing.as_ref()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// `false` when the thread is to end.
    fn take_notes(&mut self) -> bool {
        for note in self.inbox.take() {
            match note {
                Note::Adopt(stream, place) => self.adopt(stream, place),
                Note::Answer(slot, frame) => {
                    self.links[slot].doing = Doing::Nothing;
                    self.attend_with(slot, |serving| serving.write(slot, &frame));
                    self.end_if_ending(slot);
                }
                // They are all looked at when this batch of events is done.
                Note::Stored => {}
                Note::Finish(deadline, sender) => self.finishing = Some((deadline, sender)),
                Note::Stop => return false,
            }
        }
        true
    }

    fn adopt(&mut self, stream: UnixStream, place: OwnedSemaphorePermit) {
        let entry = self.links.vacant_entry();
        let slot = entry.key();
        match Link::new(stream, place, Token(slot), self.poll.registry()) {
            Ok(link) => {
                entry.insert(link);
                self.attend(slot);
            }
            Err(error) => tracing::warn!(%error, "cannot watch a link on realtime.socket"),
        }
    }

    /// Writes what is left to write and reads what is there. The end of a link shows here.
    fn attend(&mut self, slot: usize) {
        // An event may come for a link that another one of its batch has ended.
        if self.links.contains(slot) {
            self.attend_with(slot, |serving| {
                serving.links[slot].flush(serving.poll.registry())
            });
        }
    }

    /// Does something first, and ends the link if that or the rest fails.
    fn attend_with(&mut self, slot: usize, first: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = first(self).and_then(|()| self.serve(slot)) {
            if error.kind() != io::ErrorKind::UnexpectedEof {
                tracing::debug!(%error, "a link on the control socket ended");
            }
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: usize) {
        // Its answer is on its way and names the slot.
        if matches!(self.links[slot].doing, Doing::Asked) {
            self.links[slot].ending = true;
            return;
        }
        self.waiting.retain(|&waiting| waiting != slot);
        self.storing.retain(|&storing| storing != slot);
        self.links.remove(slot).leave(self.poll.registry());
    }

    /// Reads until the kernel has no more, for as long as the link waits for nothing.
    fn serve(&mut self, slot: usize) -> io::Result<()> {
        loop {
            self.take_gathered(slot)?;
            let link = &mut self.links[slot];
            if !link.is_free() {
                // Read on when that is over.
                return Ok(());
            }
            let Some(count) = link.read(&mut self.room)? else {
                return Ok(());
            };
            let room = std::mem::take(&mut self.room);
            let taken = self.take(slot, &room[..count]);
            self.room = room;
            taken?;
            if count < ROOM && !self.links[slot].sends_no_more {
                // The kernel's buffer is empty: the next byte is an event. Saves the read that would only say so.
                return Ok(());
            }
        }
    }

    /// Takes up bytes that have just been read.
    fn take(&mut self, slot: usize, bytes: &[u8]) -> io::Result<()> {
        if self.links[slot].input.is_empty() {
            let used = self.requests(slot, bytes)?;
            self.links[slot].input.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.links[slot].input.extend_from_slice(bytes);
        self.take_gathered(slot)
    }

    /// Does the requests that are whole in what the link has gathered.
    fn take_gathered(&mut self, slot: usize) -> io::Result<()> {
        if self.links[slot].input.is_empty() {
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.links[slot].input);
        let used = self.requests(slot, &input)?;
        input.drain(..used);
        if input.is_empty() && input.capacity() > ROOM {
            input = Vec::new();
        }
        self.links[slot].input = input;
        Ok(())
    }

    /// Does the requests at the beginning of `bytes`, and returns how many bytes they had.
    fn requests(&mut self, slot: usize, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while self.links[slot].is_free() {
            if let Some(length) = control::announced(rest).filter(|&length| length > self.limit) {
                let text = format!("a frame of {length} bytes, {} are allowed", self.limit);
                return Err(io::Error::other(text));
            }
            let Some((content, after)) = control::split(rest) else {
                break;
            };
            self.request(slot, content)?;
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }

    fn request(&mut self, slot: usize, content: &[u8]) -> io::Result<()> {
        // What is not one of ours, or of another build: nothing after it can be trusted either.
        let request = control::read::<Request<'_>>(content).map_err(io::Error::other)?;
        let of_users = requests::is_of_users(&request);
        let deadline = || Instant::now() + self.node.config().timeout;
        match requests::now(&self.node, request) {
            Now::Done(response) => return self.answer(slot, &response),
            Now::Kept(response, receipt) => {
                self.links[slot].doing = Doing::Stored(response, receipt, deadline());
                self.storing.push(slot);
            }
            Now::NoRoom { rest, begun } => {
                let deadline = deadline();
                self.links[slot].doing = Doing::Room {
                    rest,
                    begun,
                    deadline,
                };
                self.waiting.push(slot);
            }
            Now::Elsewhere => {
                self.links[slot].doing = Doing::Asked;
                let (node, inbox) = (self.node.clone(), self.inbox.clone());
                let content = content.to_vec();
                self.runtime.spawn_blocking(move || {
                    // Another hub has taken over, and may have been told before this was done: it is to be done there as well, which
                    // harms nobody.
                    let late = || of_users && node.has_resigned();
                    let answer = (!late()).then(|| ask(&node, &content));
                    let answer = answer.filter(|_| !late()).unwrap_or_else(moved);
                    inbox.put(Note::Answer(slot, answer));
                });
            }
        }
        Ok(())
    }

    /// Publishes what waits for room, or goes on waiting.
    fn try_again(&mut self, slot: usize) {
        let doing = std::mem::replace(&mut self.links[slot].doing, Doing::Nothing);
        let Doing::Room {
            rest,
            begun,
            deadline,
        } = doing
        else {
            self.links[slot].doing = doing;
            return;
        };
        let response = match requests::published(&self.node, rest) {
            Now::Done(Response::Failed(WireFailure::Stopped)) => {
                requests::finish(Err(Failure::Stopped.of(begun)))
            }
            Now::Done(response) => response,
            Now::NoRoom { rest, begun: more } if Instant::now() < deadline => {
                self.links[slot].doing = Doing::Room {
                    rest,
                    begun: begun || more,
                    deadline,
                };
                return self.waiting.push(slot);
            }
            Now::Kept(response, receipt) => {
                self.links[slot].doing = Doing::Stored(response, receipt, deadline);
                return self.storing.push(slot);
            }
            _ => requests::finish(Err(Failure::Busy)),
        };
        self.attend_with(slot, |serving| serving.answer(slot, &response));
    }

    /// Answers a publisher whose message is on the disk, or goes on waiting.
    fn look_again(&mut self, slot: usize) {
        let doing = std::mem::replace(&mut self.links[slot].doing, Doing::Nothing);
        let Doing::Stored(response, receipt, deadline) = doing else {
            self.links[slot].doing = doing;
            return;
        };
        let stored = receipt.look();
        if stored.is_none() && Instant::now() < deadline {
            self.links[slot].doing = Doing::Stored(response, receipt, deadline);
            return self.storing.push(slot);
        }
        let response = match node::stored_in_time(stored) {
            Ok(()) => response,
            Err(failure) => requests::finish(Err(failure)),
        };
        self.attend_with(slot, |serving| serving.answer(slot, &response));
        self.end_if_ending(slot);
    }

    fn answer(&mut self, slot: usize, response: &Response) -> io::Result<()> {
        control::frame_into(&mut self.answer, response);
        self.links[slot].answer(&self.answer, self.poll.registry())
    }

    fn write(&mut self, slot: usize, frame: &[u8]) -> io::Result<()> {
        self.links[slot].answer(frame, self.poll.registry())
    }

    /// Ends a link of which no further request is read, and says so to the other process. What it waits for that is done or
    /// being done comes first: told to go elsewhere, it would have that done once more.
    fn end(&mut self, slot: usize) {
        let link = &mut self.links[slot];
        let response = match &link.doing {
            Doing::Asked | Doing::Stored(..) => {
                link.ending = true;
                return;
            }
            Doing::Room { begun: true, .. } => requests::finish(Err(Failure::Busy)),
            Doing::Room { begun: false, .. } | Doing::Nothing => {
                Response::Failed(WireFailure::Moved)
            }
        };
        // If that fails, it sees the end of the link all the same.
        let _ = self.answer(slot, &response);
        self.remove(slot);
    }

    /// Ends a link that was to end, now that it has its answer.
    fn end_if_ending(&mut self, slot: usize) {
        if self.links.get(slot).is_some_and(|link| link.ending) {
            self.end(slot);
        }
    }

    fn end_those_between_frames(&mut self) {
        let late = self
            .finishing
            .as_ref()
            .is_some_and(|(deadline, _)| Instant::now() >= *deadline);
        let ended: Vec<usize> = self
            .links
            .iter()
            .filter(|(_, link)| late || link.is_between_frames())
            .map(|(slot, _)| slot)
            .collect();
        for slot in ended {
            self.end(slot);
        }
        if (late || self.links.is_empty())
            && let Some((_, sender)) = self.finishing.take()
        {
            // Whoever asked may have given up.
            let _ = sender.send(());
        }
    }
}

/// Sends the other process to the hub that has taken over.
fn moved() -> Vec<u8> {
    control::frame(&Response::Failed(WireFailure::Moved))
}

/// Does what may block. A panic is a bug of ours, which the other process is told of.
pub fn ask(node: &Arc<Node>, content: &[u8]) -> Vec<u8> {
    let asked = catch_unwind(AssertUnwindSafe(|| match control::read(content) {
        Ok(request) => {
            let begun = Instant::now();
            let here = requests::ask(node, request);
            match node.predecessor() {
                // The other process waits as long for all of it, and is to hear what became of it.
                Some(it) => {
                    let patience = node.config().timeout.saturating_sub(begun.elapsed()) * 4 / 5;
                    it.ask(content, here, patience)
                }
                None => here,
            }
        }
        Err(error) => Response::Failed(WireFailure::Bad(error.to_string())),
    }));
    control::frame(&asked.unwrap_or_else(|_| {
        tracing::error!("a request on the control socket has panicked: a bug in realtime");
        Response::Failed(WireFailure::Stopped)
    }))
}
