//! The links of attached processes (`php worker.php`): batches go out, outcomes come in.
//!
//! `control::server` greets them and hands them over ([`Workers::adopt`]); each is served by a task on the thread of
//! [`Workers::run`]. A process has one batch at a time, so that the next one goes to whoever is free. Imports `hands` and
//! `wire`.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Attached, Workers};
use crate::backend::Interest;
use crate::wire::control;
use crate::wire::events::{Batch, LEAVING, OUTCOMES_OVERHEAD, Outcomes};

/// How long a new process may take to say what it handles.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// A link that has been greeted, with its place among all links.
type Newcomer = (StdStream, OwnedSemaphorePermit);

/// The way of new links to the thread that serves them.
#[derive(Debug)]
pub(super) struct Desk {
    newcomers: mpsc::UnboundedSender<Newcomer>,
    // Taken once, by the thread.
    waiting: std::sync::Mutex<Option<mpsc::UnboundedReceiver<Newcomer>>>,
    /// Changes when another server has taken over.
    referrals: watch::Sender<u64>,
}

impl Desk {
    pub(super) fn new() -> Self {
        let (newcomers, waiting) = mpsc::unbounded_channel();
        Self {
            newcomers,
            waiting: std::sync::Mutex::new(Some(waiting)),
            referrals: watch::Sender::new(0),
        }
    }
}

impl Workers {
    /// Serves an attached process on a link that has been greeted.
    pub fn adopt(&self, link: StdStream, place: OwnedSemaphorePermit) {
        // Fails when the server has stopped: then the link ends.
        let _ = self.desk.newcomers.send((link, place));
    }

    /// Tells every attached process that another server has taken over, which it finds where it found this one. It goes on
    /// serving both, until this server ends.
    pub fn refer_attached(&self) {
        self.desk.referrals.send_modify(|count| *count += 1);
    }

    /// What attached processes handle, for a server that takes over.
    pub fn attached_interest(&self) -> Interest {
        self.interests.of_attached()
    }

    /// Takes over from a server whose attached processes handle `interest`: they will come here.
    pub fn expect_attached(&self, interest: Interest) {
        self.interests.expect(interest);
    }

    /// Serves attached processes for as long as it is polled, within a `LocalRuntime`.
    pub(super) async fn serve_attached(self: Arc<Self>) {
        let waiting = match self.desk.waiting.lock() {
            Ok(mut waiting) => waiting.take(),
            Err(_) => None,
        };
        let Some(mut waiting) = waiting else { return };
        let mut links = JoinSet::new();
        loop {
            tokio::select! {
                newcomer = waiting.recv() => {
                    let Some((link, place)) = newcomer else { return };
                    let workers = self.clone();
                    links.spawn_local(async move {
                        if let Err(error) = serve(link, workers).await {
                            tracing::warn!("an attached PHP process has ended: {error}");
                        }
                        drop(place);
                    });
                }
                Some(_) = links.join_next() => {}
            }
        }
    }
}

/// Serves one process until it leaves. `Err`: it broke off.
async fn serve(link: StdStream, workers: Arc<Workers>) -> io::Result<()> {
    link.set_nonblocking(true)?;
    let config = &workers.config;
    let limit = config.max_message_size + config.state_size + OUTCOMES_OVERHEAD;
    let mut referrals = workers.desk.referrals.subscribe();
    let (mut reader, mut writer) = UnixStream::from_std(link)?.into_split();
    let mut input = Input::new(limit);
    let first = tokio::time::timeout(FIRST_WAIT, input.next(&mut reader)).await;
    let Some(first) = first.map_err(io::Error::other)?? else {
        return Ok(());
    };
    let mut interest = first.interest;
    let attached = Attached::new(&workers, Interest::from_bits(interest));
    let mut referred = false;
    let mut output = Vec::new();
    let mut sent = 0;
    let mut deadline = Instant::now();
    loop {
        let held = attached.held();
        tokio::select! {
            // What the process has said comes first, also of what is ready at the same time: it is done.
            biased;
            read = input.next(&mut reader) => {
                let Some(mut outcomes) = read? else {
                    let left = match held {
                        0 => return Ok(()),
                        left => left,
                    };
                    return Err(io::Error::other(format!(
                        "it left {left} events unanswered, which go to another one"
                    )));
                };
                deadline = Instant::now() + config.handler_timeout;
                let leaving = outcomes.interest == LEAVING;
                if leaving {
                    outcomes.interest = interest;
                } else {
                    interest = outcomes.interest;
                }
                attached.settle(outcomes);
                if leaving {
                    attached.leave();
                    return Ok(());
                }
            }
            batch = attached.next(), if held == 0 && output.is_empty() => {
                control::frame_into(&mut output, &batch);
                deadline = Instant::now() + config.handler_timeout;
            }
            written = writer.write(&output[sent..]), if !output.is_empty() => {
                // Where it takes no more it has gone: its end comes behind the last that it has said.
                sent += written.unwrap_or(output.len() - sent);
                if sent == output.len() {
                    output = Vec::new();
                    sent = 0;
                }
            }
            () = late(deadline), if held > 0 => {
                return Err(io::Error::other(format!(
                    "it has not answered for realtime.handler_timeout ({:?}); its {held} events go to another one",
                    config.handler_timeout
                )));
            }
            // An error means that the server has gone, and this task with it.
            _ = referrals.changed(), if !referred => {
                referred = true;
                // A batch without events says so.
                output.extend_from_slice(&control::frame(&Batch::default()));
            }
        }
    }
}

/// Waits until then, and until it was seen what has come by then: where this thread stood still, it is woken for the time alone.
async fn late(deadline: Instant) {
    tokio::time::sleep_until(deadline).await;
    tokio::task::yield_now().await;
}

/// What a process says, gathered from what arrives. Giving up a wait loses nothing.
struct Input {
    bytes: Vec<u8>,
    limit: usize,
}

impl Input {
    fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    /// The next frame; `None` at the end.
    async fn next(
        &mut self,
        reader: &mut (impl AsyncReadExt + Unpin),
    ) -> io::Result<Option<Outcomes>> {
        loop {
            if let Some((content, rest)) = control::split(&self.bytes) {
                let outcomes = control::read::<Outcomes>(content).map_err(io::Error::other)?;
                let used = self.bytes.len() - rest.len();
                self.bytes.drain(..used);
                return Ok(Some(outcomes));
            }
            if let Some(length) = control::announced(&self.bytes).filter(|&l| l > self.limit) {
                return Err(io::Error::other(format!(
                    "a frame of {length} bytes, {} are allowed",
                    self.limit
                )));
            }
            if reader.read_buf(&mut self.bytes).await? == 0 {
                return match self.bytes.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}
