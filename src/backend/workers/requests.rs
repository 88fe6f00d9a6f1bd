//! The FastCGI client: takes batches out of the queue, and runs `realtime.handler` for each in the pool.
//!
//! Lives on the handler's thread, [`Config::handler_concurrency`](crate::config::Config) requests at a time. Imports the
//! queue, the pool and `wire`.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::hands::Hands;
use super::interest::Source;
use super::lanes::Blame;
use super::order::{Marks, Room};
use super::pool::{Came, Connection, Pool};
use super::said::{Said, Throttle};
use super::{BATCH, Next, Side, Workers, params};
use crate::wire::control;
use crate::wire::events::{Mark, OUTCOMES_OVERHEAD, Outcomes};
use crate::wire::fastcgi::{Answer, Garbage, Part, Request};
use crate::wire::output::{Output, Piece, TooLarge};

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) workers: Arc<Workers>,
    pub(super) pool: Pool,
    common: Request,
    places: Semaphore,
    marks: RefCell<Marks>,
    /// For what scripts print and PHP reports, and for requests that failed.
    printed: Throttle,
    reported: Throttle,
    failed: Throttle,
}

/// How a request ended that the pool took.
#[derive(Debug, Default)]
struct Progress {
    /// Whether the script has called rt_run().
    ran: bool,
    /// Events that it answered.
    settled: usize,
}

/// Why a request has no proper end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("PHP closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within realtime.handler_timeout")]
    TimedOut,
    #[error("{0}")]
    Garbage(#[from] Garbage),
    #[error("{0}")]
    TooLarge(#[from] TooLarge),
    #[error("outcomes that cannot be read: another version of the extension?")]
    Unreadable,
}

/// What the pool said at the end.
#[derive(Clone, Copy, Debug)]
struct End {
    status: u32,
    refused: u8,
}

impl Client {
    pub(super) fn new(workers: Arc<Workers>, pool: Pool) -> Self {
        Self {
            common: params::common(&workers.config, &workers.secret),
            places: Semaphore::new(workers.config.handler_concurrency),
            marks: RefCell::default(),
            workers,
            pool,
            printed: Throttle::default(),
            reported: Throttle::default(),
            failed: Throttle::default(),
        }
    }

    /// Starts what takes batches out.
    pub(super) fn start(self: &Rc<Self>, tasks: &mut JoinSet<()>) {
        for _ in 0..self.workers.config.handler_concurrency {
            let client = self.clone();
            tasks.spawn_local(async move { client.serve().await });
        }
        let client = self.clone();
        tasks.spawn_local(async move { client.pool.tidy().await });
    }

    async fn serve(&self) {
        let mut room = Room::default();
        loop {
            self.pool.rested().await;
            let next = self.workers.next(Side::Requests, BATCH).await;
            let Some(source) = self.workers.interests.script() else {
                return;
            };
            let mut hands = Hands::new(self.workers.clone(), source);
            hands.hold(&next);
            let blame = self.run(&next, &mut hands, &mut room).await.err();
            hands.give_back(blame.unwrap_or(Blame::None));
        }
    }

    /// Asks the script which handlers it has. Whether it said so.
    pub(super) async fn probe(&self, source: Source) -> bool {
        let mut hands = Hands::new(self.workers.clone(), source);
        let mut room = Room::default();
        let asked = self.run(&Next::default(), &mut hands, &mut room).await;
        asked.is_ok()
    }

    /// Runs the script once. The error tells which of the events that are left were tried.
    async fn run(&self, next: &Next, hands: &mut Hands, room: &mut Room) -> Result<(), Blame> {
        // Never closed.
        let _place = self.places.acquire().await;
        let mark = match self.marks.borrow_mut().next() {
            Ok(mark) => mark,
            Err(error) => {
                tracing::error!(%error, "the kernel gives no random numbers");
                return Err(Blame::All);
            }
        };
        let request = room.write(&self.common, next, &mark);
        // What may end processes is to be seen doing it.
        let mut new = next.tried;
        loop {
            let Some(mut connection) = self.pool.connection(new).await else {
                return Err(Blame::None);
            };
            let mut said = Said::default();
            let mut progress = Progress::default();
            let ended = self
                .exchange(
                    &mut connection,
                    request,
                    mark,
                    &mut said,
                    &mut progress,
                    hands,
                )
                .await;
            let cut = matches!(ended, Err(Broken::Closed | Broken::Io(_)));
            if cut && connection.used && !said.anything() {
                // A process may end between two requests of a kept connection: it never saw this one.
                new = true;
                continue;
            }
            let requests = &self.workers.counters.requests;
            requests.fetch_add(1, Ordering::Relaxed);
            return match ended {
                Err(broken) => {
                    self.tell(&said, true);
                    self.failed.pass(|missed| {
                        tracing::error!(missed, "a request of realtime.handler failed: {broken}");
                    });
                    Err(Blame::First)
                }
                Ok((end, clean)) => {
                    if clean {
                        self.pool.keep(connection);
                    }
                    // What a script printed that never ran is in that error.
                    self.tell(&said, progress.ran);
                    self.ended(end, &said, &progress, hands)
                }
            };
        }
    }

    /// What an orderly end means.
    fn ended(
        &self,
        end: End,
        said: &Said,
        progress: &Progress,
        hands: &Hands,
    ) -> Result<(), Blame> {
        if end.refused != 0 {
            self.pool
                .unreachable("it takes no more requests (FastCGI overload)");
            return Err(Blame::None);
        }
        if !progress.ran {
            let script = self.workers.config.handler.as_deref();
            let script = script
                .map(|path| path.display().to_string())
                .unwrap_or_default();
            self.failed.pass(|missed| {
                tracing::error!(missed, "{}", said.why_nothing_ran(&script, end.status));
            });
            return Err(Blame::All);
        }
        if progress.settled == 0 && hands.len() > 0 {
            // It had events and has answered none: the first is to blame, if any is.
            return Err(Blame::First);
        }
        Ok(())
    }

    /// Sends the request and takes the answer. The answer says whether nothing came after it.
    async fn exchange(
        &self,
        connection: &mut Connection,
        request: &[u8],
        mark: Mark,
        said: &mut Said,
        progress: &mut Progress,
        hands: &mut Hands,
    ) -> Result<(End, bool), Broken> {
        let config = &self.workers.config;
        let mut rest = request;
        let mut answer = Answer::default();
        let mut output = Output::new(mark, config.max_message_size + OUTCOMES_OVERHEAD);
        let mut deadline = Instant::now() + config.handler_timeout;
        loop {
            let mut bytes = match connection.exchange(&mut rest, deadline).await? {
                Came::Bytes(0) => return Err(Broken::Closed),
                Came::Bytes(count) => connection.came(count),
                Came::TooLate => return Err(Broken::TimedOut),
            };
            while let Some(part) = answer.next(&mut bytes)? {
                match part {
                    Part::Error(text) => said.reported(text),
                    Part::Output(mut part) => {
                        while let Some(piece) = output.next(&mut part)? {
                            match piece {
                                Piece::Text(text) => said.printed(&text),
                                Piece::Frame(frame) => {
                                    let outcomes: Outcomes =
                                        control::read(&frame).map_err(|_| Broken::Unreadable)?;
                                    said.framed();
                                    progress.ran = true;
                                    progress.settled += outcomes.outcomes.len();
                                    if !outcomes.outcomes.is_empty() {
                                        // The limit is for one event.
                                        deadline = Instant::now() + config.handler_timeout;
                                    }
                                    hands.settle(outcomes);
                                }
                            }
                        }
                    }
                    Part::End { status, refused } => {
                        said.printed(output.rest());
                        let clean = bytes.is_empty() && rest.is_empty();
                        return Ok((End { status, refused }, clean));
                    }
                }
            }
        }
    }

    /// Passes on what PHP reported and what the script printed.
    fn tell(&self, said: &Said, ran: bool) {
        if let Some(text) = said.report() {
            self.reported.pass(|missed| {
                tracing::warn!(missed, "realtime.handler: {text}");
            });
        }
        if ran && let Some((text, length)) = said.text() {
            self.printed.pass(|missed| {
                tracing::warn!(
                    missed,
                    "realtime.handler printed {length} bytes, which nobody gets: {text:?}"
                );
            });
        }
    }
}
