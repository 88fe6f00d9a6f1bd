//! The hand-over between two hubs on a link of the control socket: [`Link`], which both use, and [`give`], the old
//! hub's side. The new hub's is `server::takeover`.
//!
//! Runs on the control thread. Whatever goes wrong before the new hub has said that it serves, the old one serves on as
//! before. Imports `node` and `wire`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::broker::memory::Snapshot;
use crate::history::{self, Note};
use crate::node::Node;
use crate::wire::control;
use crate::wire::handover::{
    self, DESCRIPTORS, Estate, PARTS_MAX, Part, Said, Step, WireAttendee, WireNote,
};

/// How long the other hub may say nothing when it is its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take for its last word, while nobody is served at all.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// About how much goes into one frame, in bytes.
pub const BATCH: usize = PARTS_MAX / 4;

/// A new hub that wants to take over, as its greeting has left it.
#[derive(Debug)]
pub struct Taker {
    /// Its link.
    pub stream: UnixStream,
    /// Whether it speaks this version's [`Part`]s.
    pub same_version: bool,
}

/// A link between two hubs.
#[derive(Debug)]
pub struct Link {
    said: mpsc::Receiver<Said>,
    writer: OwnedWriteHalf,
    reading: JoinHandle<()>,
}

impl Link {
    /// Reads from `stream` frames of at most `frame_max` bytes.
    pub fn new(stream: UnixStream, frame_max: usize) -> Self {
        let (reader, writer) = stream.into_split();
        // A task of its own, because whoever waits for a word also waits for other things.
        let (sender, said) = mpsc::channel(4);
        let reading = tokio::task::spawn_local(async move {
            if let Err(error) = read(reader, frame_max, sender).await {
                tracing::debug!(%error, "the link to the other hub ended");
            }
        });
        Self {
            said,
            writer,
            reading,
        }
    }

    /// What the other hub says next; `None` at the end of the link. May be cancelled without losing any.
    pub async fn next(&mut self) -> Option<Said> {
        self.said.recv().await
    }

    /// The same when it is its turn.
    pub async fn reply(&mut self) -> io::Result<Said> {
        self.within(PATIENCE).await
    }

    async fn within(&mut self, patience: Duration) -> io::Result<Said> {
        let next = timeout(patience, self.next()).await;
        next.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Says a word.
    pub async fn step(&mut self, step: Step) -> io::Result<()> {
        self.write(&control::json_frame(&step)).await
    }

    /// Tells something.
    pub async fn tell(&mut self, part: &Part) -> io::Result<()> {
        self.write(&control::frame(part)).await
    }

    /// Tells of messages, in as many frames as it takes.
    pub async fn notes(&mut self, notes: &[Note]) -> io::Result<()> {
        self.batches(notes, Part::Notes).await
    }

    async fn batches(
        &mut self,
        notes: &[Note],
        part: impl Fn(Vec<WireNote>) -> Part,
    ) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut size = 0;
        for note in notes {
            let note = history::wire_note(note, Instant::now());
            size += note.size();
            batch.push(note);
            if size >= BATCH {
                self.tell(&part(std::mem::take(&mut batch))).await?;
                size = 0;
            }
        }
        if !batch.is_empty() {
            self.tell(&part(batch)).await?;
        }
        Ok(())
    }

    /// Tells who is present, in as many frames as it takes.
    async fn present(&mut self, (patience, all): (Duration, Vec<WireAttendee>)) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut size = 0;
        for attendee in all {
            size += attendee.size();
            batch.push(attendee);
            if size >= BATCH {
                let part = Part::Present(patience, std::mem::take(&mut batch));
                self.tell(&part).await?;
                size = 0;
            }
        }
        self.tell(&Part::Present(patience, batch)).await
    }

    async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let written = timeout(PATIENCE, self.writer.write_all(frame)).await;
        written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Waits for `wanted`, at most [`LAST_PATIENCE`]. When it has not come then, it never will: whoever says it later finds that
    /// nobody listens.
    async fn last_word(&mut self, wanted: Step) -> io::Result<()> {
        let said = match self.within(LAST_PATIENCE).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                // What the kernel took before this line is still read, and nothing that comes after it: it or the end is there, and
                // must be seen however late this process gets to it, or two would serve.
                rustix::net::shutdown(self.writer.as_ref().as_fd(), rustix::net::Shutdown::Read)?;
                self.next()
                    .await
                    .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?
            }
            said => said?,
        };
        match said {
            Said::Step(step) if step == wanted => Ok(()),
            other => Err(io::Error::other(format!(
                "{other:?} in place of {wanted:?}"
            ))),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    frame_max: usize,
    sender: mpsc::Sender<Said>,
) -> io::Result<()> {
    let mut content = Vec::new();
    loop {
        let length = reader.read_u32_le().await? as usize;
        if length > frame_max {
            return Err(io::Error::other(format!("a frame of {length} bytes")));
        }
        content.clear();
        // Grows with what really arrives, not with what is announced.
        (&mut reader)
            .take(length as u64)
            .read_to_end(&mut content)
            .await?;
        if content.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let said = handover::read(&content).map_err(io::Error::other)?;
        if sender.send(said).await.is_err() {
            return Ok(());
        }
    }
}

/// Hands everything over to `taker`. `let_go` must end the accepting and the work for other processes, and say when
/// nothing is under way any more; it is called at most once, and late, so that they miss the hub for milliseconds.
pub async fn give(
    taker: Taker,
    node: &Node,
    estate: &Estate,
    descriptors: [BorrowedFd<'_>; DESCRIPTORS],
    let_go: impl AsyncFnOnce() -> io::Result<()>,
) -> io::Result<Link> {
    let Taker {
        stream,
        same_version,
    } = taker;
    let frame = control::json_frame(estate);
    let sent = timeout(PATIENCE, send_with(&stream, &frame, descriptors)).await;
    sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut link = Link::new(stream, estate.max_message_size + PARTS_MAX);
    let mut feed = None;
    if same_version {
        let Snapshot {
            epoch,
            seq,
            forgotten,
            marks,
            notes,
            cached,
            feed: after,
        } = node.follow();
        link.tell(&Part::Begin {
            epoch,
            seq,
            forgotten,
        })
        .await?;
        for marks in marks.chunks(1024) {
            let marks = marks.iter();
            let marks = marks.map(|(channel, seq)| (channel.to_string(), *seq));
            link.tell(&Part::Marks(marks.collect())).await?;
        }
        link.notes(&notes).await?;
        link.batches(&cached, Part::Cached).await?;
        link.tell(&Part::End).await?;
        feed = Some(after);
    }
    // What is published until the new hub is ready goes after the rest. When more comes than leaves, now is the time to
    // make the publishers wait.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut ready = false;
    while !ready && !feed.as_ref().is_some_and(|feed| feed.is_behind()) {
        let more = async {
            match &mut feed {
                Some(feed) => feed.next(BATCH).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = link.next() => match said {
                Some(Said::Step(Step::Ready)) => ready = true,
                Some(other) => return Err(io::Error::other(format!("{other:?} in place of Ready"))),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            },
            notes = more => {
                let notes = notes.ok_or_else(|| io::Error::other("it takes too slowly"))?;
                link.notes(&notes).await?;
            }
            () = tokio::time::sleep_until(deadline) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    let_go().await?;
    if let Some(feed) = &mut feed {
        while let Some(notes) = feed.now(BATCH) {
            link.notes(&notes).await?;
        }
        if feed.is_broken() {
            return Err(io::Error::other("it takes too slowly"));
        }
        for revoked in node.auth().revocations().lists().parts(1024) {
            link.tell(&Part::Revoked(revoked)).await?;
        }
        link.present(node.everybody()).await?;
    }
    if !ready {
        link.last_word(Step::Ready).await?;
    }
    link.step(Step::Yours).await?;
    link.last_word(Step::Serving).await?;
    Ok(link)
}

/// Sends `bytes`, with copies of the descriptors beside the first of them.
async fn send_with(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: [BorrowedFd<'_>; DESCRIPTORS],
) -> io::Result<()> {
    let mut sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            debug_assert!(fits);
            let flags = SendFlags::NOSIGNAL;
            let slices = [io::IoSlice::new(bytes)];
            Ok(rustix::net::sendmsg(
                stream,
                &slices,
                &mut ancillary,
                flags,
            )?)
        })
        .await?;
    while sent < bytes.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || stream.try_write(&bytes[sent..]))
            .await?;
    }
    Ok(())
}
