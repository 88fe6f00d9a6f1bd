//! The links of other processes to this hub, all on one thread with a loop of its own: read a request, do it, write the
//! answer, and only then wake the shards.
//!
//! `control::server` greets and hands the links over ([`Links::adopt`]). A publisher waits for every microsecond that is
//! spent here, which is why this is no part of a runtime and shares its thread with nothing: a call costs one
//! epoll_wait, one read and one write. Imports `control::requests`, `node` and `wire::control`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::requests::{self, Now};
use crate::message::Publish;
use crate::node::{Failure, Node};
use crate::wire::control::{self, FRAME_OVERHEAD, Request, Response, WireFailure};

/// Room for what is read at a time, shared by all links. Larger requests are gathered in a buffer of their link.
const ROOM: usize = 64 << 10;
/// Links served before the shards are woken for what they published, so that no message waits for many answers.
const BATCH: usize = 16;
/// How often a publisher that waits for room in the shards is looked at.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
/// The token of the inbox; links have theirs from the slab, which never gets there.
const INBOX: Token = Token(usize::MAX);

/// The thread and the way to it. Dropping it ends the thread and all links.
#[derive(Debug)]
pub struct Links {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

/// What other threads tell the links' thread.
#[derive(Debug)]
struct Inbox {
    // Taken for one push or one swap.
    notes: Mutex<Vec<Note>>,
    waker: Waker,
}

#[derive(Debug)]
enum Note {
    /// A greeted link.
    Adopt(StdStream, OwnedSemaphorePermit),
    /// The answer to what a link asked on another thread.
    Answer(usize, Vec<u8>),
    /// See [`Links::finish`].
    Finish(Instant, oneshot::Sender<()>),
    /// The end of the thread.
    Stop,
}

impl Links {
    /// Starts the thread with `spawn`. What may block is done on the blocking threads of `runtime`.
    pub fn start(
        node: Arc<Node>,
        runtime: Handle,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), INBOX)?;
        let inbox = Arc::new(Inbox {
            notes: Mutex::default(),
            waker,
        });
        let mut serving = Serving {
            limit: node.config().max_message_size + FRAME_OVERHEAD,
            node,
            runtime,
            poll,
            inbox: inbox.clone(),
            links: Slab::new(),
            waiting: Vec::new(),
            finishing: None,
            room: vec![0; ROOM],
            answer: Vec::new(),
        };
        let thread = spawn(Box::new(move || {
            if let Err(error) = serving.run() {
                tracing::error!(%error, "cannot wait for the links on realtime.socket");
            }
        }))?;
        Ok(Self {
            inbox,
            thread: Some(thread),
        })
    }

    /// Serves a link that has been greeted, until it ends.
    pub fn adopt(&self, stream: StdStream, place: OwnedSemaphorePermit) {
        self.inbox.put(Note::Adopt(stream, place));
    }

    /// Ends every link between two frames: those that wait for an answer get it first, and a request that has begun to
    /// arrive is taken, but no later than after `patience`. What was not read is as if never sent: the other process
    /// is told so ([`WireFailure::Moved`]). Links that are adopted later are served as ever.
    pub fn finish(&self, patience: Duration) -> oneshot::Receiver<()> {
        let (sender, finished) = oneshot::channel();
        let deadline = Instant::now() + patience;
        self.inbox.put(Note::Finish(deadline, sender));
        finished
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.inbox.put(Note::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the links' thread has panicked: a bug in realtime");
        }
    }
}

impl Inbox {
    fn put(&self, note: Note) {
        self.lock().push(note);
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the links' thread");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Note>> {
        // One push or swap cannot leave it half done.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One link.
struct Link {
    stream: UnixStream,
    /// The beginning of a request whose rest is to come.
    input: Vec<u8>,
    /// The rest of an answer that the other process has not taken yet.
    output: Vec<u8>,
    /// Whether the loop is told when the other process takes more.
    watched_for_writing: bool,
    doing: Doing,
    /// Whether it ends as soon as nobody needs its slot.
    ending: bool,
    /// Its place among all links, free again when this one ends.
    _place: OwnedSemaphorePermit,
}

/// What a link waits for before its next request is looked at.
enum Doing {
    /// Nothing.
    Nothing,
    /// An answer from another thread.
    Asked,
    /// Room in the shards, until then.
    Room(Publish, Instant),
}

impl Link {
    fn is_free(&self) -> bool {
        matches!(self.doing, Doing::Nothing) && self.output.is_empty()
    }

    /// Whether nothing has begun that would have to be ended.
    fn is_between_frames(&self) -> bool {
        self.is_free() && self.input.is_empty()
    }
}

/// Whether a link goes on.
type Served = io::Result<()>;

fn gone() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// The thread's own.
struct Serving {
    node: Arc<Node>,
    runtime: Handle,
    poll: Poll,
    inbox: Arc<Inbox>,
    links: Slab<Link>,
    /// Those that wait for room in the shards.
    waiting: Vec<usize>,
    /// By when all links are to end, and who waits for that.
    finishing: Option<(Instant, oneshot::Sender<()>)>,
    /// The largest frame.
    limit: usize,
    room: Vec<u8>,
    answer: Vec<u8>,
}

impl Serving {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(BATCH);
        loop {
            match self.poll.poll(&mut events, self.pause()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    INBOX => {
                        if !self.take_notes() {
                            return Ok(());
                        }
                    }
                    Token(slot) => self.attend(slot),
                }
            }
            for slot in std::mem::take(&mut self.waiting) {
                self.try_again(slot);
            }
            // Their publishers have their answers.
            self.node.rouse();
            if self.finishing.is_some() {
                self.end_those_between_frames();
            }
        }
    }

    fn pause(&self) -> Option<Duration> {
        if !self.waiting.is_empty() {
            return Some(ROOM_PAUSE);
        }
        let (deadline, _) = self.finishing.as_ref()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// `false` when the thread is to end.
    fn take_notes(&mut self) -> bool {
        let notes = std::mem::take(&mut *self.inbox.lock());
        for note in notes {
            match note {
                Note::Adopt(stream, place) => self.adopt(stream, place),
                Note::Answer(slot, answer) => {
                    let link = &mut self.links[slot];
                    link.doing = Doing::Nothing;
                    if link.ending {
                        self.remove(slot);
                    } else {
                        link.output = answer;
                        self.attend(slot);
                    }
                }
                Note::Finish(deadline, sender) => self.finishing = Some((deadline, sender)),
                Note::Stop => return false,
            }
        }
        true
    }

    fn adopt(&mut self, stream: StdStream, place: OwnedSemaphorePermit) {
        let slot = self.links.insert(Link {
            stream: UnixStream::from_std(stream),
            input: Vec::new(),
            output: Vec::new(),
            watched_for_writing: false,
            doing: Doing::Nothing,
            ending: false,
            _place: place,
        });
        // Not for writing: then each answer that is read would wake this thread.
        let link = &mut self.links[slot];
        let watched =
            self.poll
                .registry()
                .register(&mut link.stream, Token(slot), Interest::READABLE);
        match watched {
            Ok(()) => self.attend(slot),
            Err(error) => {
                tracing::warn!(%error, "cannot watch a link on realtime.socket");
                self.links.remove(slot);
            }
        }
    }

    /// Sends what waits and reads what is there. The end of a link shows here.
    fn attend(&mut self, slot: usize) {
        // An event may come for a link that another of the same batch has ended.
        if !self.links.contains(slot) {
            return;
        }
        if let Err(error) = self.flush(slot).and_then(|()| self.serve(slot)) {
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
        let mut link = self.links.remove(slot);
        // Closing would do as well; this only keeps the registry's own books.
        let _ = self.poll.registry().deregister(&mut link.stream);
    }

    /// Reads until the kernel has no more, for as long as the link waits for nothing.
    fn serve(&mut self, slot: usize) -> Served {
        loop {
            self.take_gathered(slot)?;
            let link = &mut self.links[slot];
            if !link.is_free() {
                // Read on when that is over.
                return Ok(());
            }
            let count = match link.stream.read(&mut self.room) {
                Ok(0) => return Err(gone()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let room = std::mem::take(&mut self.room);
            let taken = self.take(slot, &room[..count]);
            self.room = room;
            taken?;
            if count < ROOM {
                // The kernel's buffer is empty: the next byte is an event. Saves the read that would only say so.
                return Ok(());
            }
        }
    }

    /// Takes up bytes that have just been read.
    fn take(&mut self, slot: usize, bytes: &[u8]) -> Served {
        if self.links[slot].input.is_empty() {
            let used = self.requests(slot, bytes)?;
            self.links[slot].input.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.links[slot].input.extend_from_slice(bytes);
        self.take_gathered(slot)
    }

    /// Does the requests that are whole in what the link has gathered.
    fn take_gathered(&mut self, slot: usize) -> Served {
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

    fn request(&mut self, slot: usize, content: &[u8]) -> Served {
        // What is not one of ours, or of another build: nothing after it can be trusted either.
        let request = control::read::<Request<'_>>(content).map_err(io::Error::other)?;
        match requests::now(&self.node, request) {
            Now::Done(response) => self.answer(slot, &response)?,
            Now::NoRoom(publish) => {
                let deadline = Instant::now() + self.node.config().timeout;
                self.links[slot].doing = Doing::Room(publish, deadline);
                self.waiting.push(slot);
            }
            Now::Elsewhere => {
                self.links[slot].doing = Doing::Asked;
                let (node, inbox, content) =
                    (self.node.clone(), self.inbox.clone(), content.to_vec());
                self.runtime.spawn_blocking(move || {
                    inbox.put(Note::Answer(slot, ask(&node, &content)));
                });
            }
        }
        Ok(())
    }

    fn try_again(&mut self, slot: usize) {
        let doing = std::mem::replace(&mut self.links[slot].doing, Doing::Nothing);
        let Doing::Room(publish, deadline) = doing else {
            self.links[slot].doing = doing;
            return;
        };
        let response = match requests::published(&self.node, publish) {
            Now::Done(response) => response,
            Now::NoRoom(publish) if Instant::now() < deadline => {
                self.links[slot].doing = Doing::Room(publish, deadline);
                return self.waiting.push(slot);
            }
            _ => requests::finish(Err(Failure::Busy)),
        };
        match self.answer(slot, &response) {
            Ok(()) => self.attend(slot),
            Err(_) => self.remove(slot),
        }
    }

    fn answer(&mut self, slot: usize, response: &Response) -> Served {
        control::frame_into(&mut self.answer, response);
        let sent = send(&mut self.links[slot].stream, &self.answer)?;
        if sent < self.answer.len() {
            self.links[slot].output = self.answer.split_off(sent);
            self.watch_for_writing(slot, true)?;
        }
        Ok(())
    }

    /// Sends the rest of an answer.
    fn flush(&mut self, slot: usize) -> Served {
        let link = &mut self.links[slot];
        if link.output.is_empty() {
            return Ok(());
        }
        let sent = send(&mut link.stream, &link.output)?;
        link.output.drain(..sent);
        if !link.output.is_empty() {
            return self.watch_for_writing(slot, true);
        }
        link.output = Vec::new();
        self.watch_for_writing(slot, false)
    }

    fn watch_for_writing(&mut self, slot: usize, writing: bool) -> Served {
        let link = &mut self.links[slot];
        if std::mem::replace(&mut link.watched_for_writing, writing) == writing {
            return Ok(());
        }
        let interest = match writing {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let registry = self.poll.registry();
        registry.reregister(&mut link.stream, Token(slot), interest)
    }

    /// Says to the other process that what it may be sending is not read any more.
    fn send_away(&mut self, slot: usize) {
        let link = &mut self.links[slot];
        if link.output.is_empty() && !matches!(link.doing, Doing::Asked) {
            let moved = control::frame(&Response::Failed(WireFailure::Moved));
            // It sees the end of the link all the same.
            let _ = send(&mut link.stream, &moved);
        }
    }

    fn end_those_between_frames(&mut self) {
        let late = self
            .finishing
            .as_ref()
            .is_some_and(|(deadline, _)| Instant::now() >= *deadline);
        let slots: Vec<usize> = self
            .links
            .iter()
            .filter(|(_, link)| late || link.is_between_frames())
            .map(|(slot, _)| slot)
            .collect();
        for slot in slots {
            self.send_away(slot);
            self.remove(slot);
        }
        if (late || self.links.is_empty())
            && let Some((_, sender)) = self.finishing.take()
        {
            // Whoever asked may have given up.
            let _ = sender.send(());
        }
    }
}

/// Sends what fits.
fn send(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Does what may block. A panic is a bug of ours that the other process gets as an answer.
pub fn ask(node: &Arc<Node>, content: &[u8]) -> Vec<u8> {
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        match control::read::<Request<'_>>(content) {
            Ok(request) => {
                let here = requests::ask(node, request);
                match node.predecessor() {
                    Some(it) => it.ask(content, here, node.config().timeout),
                    None => here,
                }
            }
            Err(error) => Response::Failed(WireFailure::Bad(error.to_string())),
        }
    }));
    control::frame(&asked.unwrap_or_else(|_| {
        tracing::error!("a request on the control socket has panicked: a bug in realtime");
        Response::Failed(WireFailure::Stopped)
    }))
}
