//! The FastCGI client: takes batches out of the queue, and runs `realtime.handler` for each in the pool.
//!
//! Lives on the handler's thread, [`Config::handler_concurrency`](crate::config::Config) requests at a time. Imports the
//! queue, the pool and `wire`.

use std::cell::{Cell, RefCell};
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
use super::line::{Line, Pace, Parting};
use super::order::{Marks, Order, Until};
use super::pool::{Came, Connection, Pool};
use super::said::{Said, Throttle};
use super::{BATCH, Next, Side, UNTRIED, Workers, params};
use crate::procfs;
use crate::wire::control;
use crate::wire::events::{LEAVING, OUTCOMES_OVERHEAD, Outcomes, REFUSED};
use crate::wire::fastcgi::{Answer, Garbage, Part, Request};
use crate::wire::output::{Output, Piece, TooLarge};

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) workers: Arc<Workers>,
    pub(super) pool: Pool,
    common: Request,
    places: Semaphore,
    /// Tasks that wait for a batch.
    idle: Cell<usize>,
    /// Tasks that ask the script which handlers it has.
    asking: Cell<usize>,
    pace: Pace,
    marks: RefCell<Marks>,
    /// For what scripts print and PHP reports, and for requests that failed.
    printed: Throttle,
    reported: Throttle,
    failed: Throttle,
}

/// Counts one task, for as long as it lives.
struct Count<'a>(&'a Cell<usize>);

impl<'a> Count<'a> {
    fn one(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// How a request ended that the pool took.
#[derive(Debug, Default)]
struct Progress {
    /// Whether the script has called rt_run().
    ran: bool,
    /// Events that it answered.
    settled: usize,
    /// Whether the script goes on when the request has ended.
    leaves: bool,
    /// Whether it came too late to a request that was sent ahead.
    refused: bool,
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
    #[error("the rest of a request could not be sent")]
    Stuck,
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
            idle: Cell::new(0),
            asking: Cell::new(0),
            pace: Pace::default(),
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
        let mut line = Line::default();
        loop {
            self.pool.rested().await;
            let next = self.next().await;
            let Some(order) = self.order(next, &mut line) else {
                continue;
            };
            // Never closed. Kept for as long as something is under way.
            let _place = self.places.acquire().await;
            self.run(order, None, &mut line).await;
            while let Some((order, sent)) = line.next() {
                self.run(order, sent, &mut line).await;
            }
        }
    }

    /// Waits for a batch.
    async fn next(&self) -> Next {
        let _idle = Count::one(&self.idle);
        self.workers.next(Side::Requests, BATCH).await
    }

    /// Asks the script which handlers it has. Whether it said so.
    pub(super) async fn probe(&self, source: Source) -> bool {
        let hands = Hands::new(self.workers.clone(), source);
        // Nothing is sent behind any request from now on, so that a place comes free.
        let _asking = Count::one(&self.asking);
        let mut line = Line::default();
        let Some(order) = self.make(Next::default(), hands, &mut line) else {
            return false;
        };
        let _place = self.places.acquire().await;
        self.run(order, None, &mut line).await
    }

    /// A batch that is to be sent. `None`: it cannot be, and went back.
    fn order(&self, next: Next, line: &mut Line) -> Option<Order> {
        // There is none without a script that takes it.
        let source = self.workers.interests.script()?;
        let mut hands = Hands::new(self.workers.clone(), source);
        hands.hold(&next);
        self.make(next, hands, line)
    }

    fn make(&self, next: Next, mut hands: Hands, line: &mut Line) -> Option<Order> {
        match self.marks.borrow_mut().next() {
            Ok(mark) => Some(Order {
                next,
                hands,
                mark,
                room: line.room(),
            }),
            Err(error) => {
                tracing::error!(%error, "the kernel gives no random numbers");
                hands.give_back(Blame::All);
                None
            }
        }
    }

    /// Runs the script once, for a request that was sent on a connection or is now. Whether it ended well; what it left
    /// unanswered goes back.
    async fn run(&self, mut order: Order, sent: Option<Connection>, line: &mut Line) -> bool {
        let ran = self.try_run(&mut order, sent, line).await;
        order.hands.give_back(ran.err().unwrap_or(Blame::None));
        line.done_with(order.room);
        ran.is_ok()
    }

    /// As [`Client::run`]. The error tells which of the events that are left were tried.
    async fn try_run(
        &self,
        order: &mut Order,
        mut sent: Option<Connection>,
        line: &mut Line,
    ) -> Result<(), Blame> {
        // What may end processes is to be seen doing it.
        let mut new = order.next.tried;
        loop {
            let mut connection = match sent.take() {
                Some(connection) => connection,
                None => {
                    let Some(mut connection) = self.pool.connection(new).await else {
                        return Err(Blame::None);
                    };
                    order.write(&self.common, self.until());
                    connection.send(order.room.request());
                    connection
                }
            };
            let mut said = Said::default();
            let mut progress = Progress::default();
            // Behind the first on a connection there may be nobody yet.
            if connection.used && !order.next.tried {
                self.send_ahead(&mut connection, line);
            }
            let ended = self
                .exchange(&mut connection, order, &mut said, &mut progress, line)
                .await;
            let used = connection.used;
            let parting = match &ended {
                // To a process that is still busy nothing is sent: another one may be free.
                Ok(_) if progress.leaves => Parting::Gone,
                Ok(_) => Parting::Well,
                Err(Broken::Closed | Broken::Io(_)) => Parting::Gone,
                Err(_) => Parting::Unknown,
            };
            if let Some(connection) = line.part(connection, parting) {
                self.pool.keep(connection);
            }
            if ended.is_err() && parting == Parting::Gone && used && !said.anything() {
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
                Ok(end) => {
                    // What a script printed that never ran is in that error.
                    self.tell(&said, progress.ran);
                    self.ended(end, &said, &progress, &order.hands)
                }
            };
        }
    }

    /// Sends more batches behind the one that the process has, see [`line`](super::line).
    fn send_ahead(&self, connection: &mut Connection, line: &mut Line) {
        while self.pool.is_here()
            && self.idle.get() == 0
            && self.asking.get() == 0
            && connection.unsent() == 0
            && line.has_room(&self.pace)
        {
            let next = self.workers.try_next(Side::Requests, UNTRIED);
            let Some(order) = next.and_then(|next| self.order(next, line)) else {
                return;
            };
            line.send(order, connection, &self.common);
        }
    }

    /// By when a process must have taken up a request that is sent now.
    fn until(&self) -> Until {
        if !self.pool.is_here() {
            return Until::Ever;
        }
        let patience = self.workers.config.handler_timeout.as_nanos() as u64;
        Until::Alone(procfs::uptime_ns().saturating_add(patience))
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
        if progress.refused {
            return Err(Blame::None);
        }
        if progress.settled == 0 && hands.len() > 0 {
            // It had events and has answered none: the first is to blame, if any is.
            return Err(Blame::First);
        }
        Ok(())
    }

    /// Takes the answer.
    async fn exchange(
        &self,
        connection: &mut Connection,
        order: &mut Order,
        said: &mut Said,
        progress: &mut Progress,
        line: &mut Line,
    ) -> Result<End, Broken> {
        let config = &self.workers.config;
        let mut answer = Answer::default();
        let mut output = Output::new(order.mark, config.max_message_size + OUTCOMES_OVERHEAD);
        let started = Instant::now();
        let mut deadline = started + config.handler_timeout;
        loop {
            let look_at = line.look_at().unwrap_or(deadline);
            let came = match connection.wait(deadline.min(look_at)).await? {
                Came::TooLate => {
                    // What comes after this moment was not there at it.
                    let now = procfs::uptime_ns();
                    connection.look()?.unwrap_or_else(|| {
                        line.give_up(now);
                        Came::TooLate
                    })
                }
                came => came,
            };
            match came {
                Came::Bytes => {}
                Came::End => return Err(Broken::Closed),
                Came::Stuck => return Err(Broken::Stuck),
                Came::TooLate if Instant::now() < deadline => continue,
                Came::TooLate => {
                    self.pace.took(started.elapsed());
                    return Err(Broken::TimedOut);
                }
            }
            let mut bytes = connection.unread();
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
                                    match outcomes.interest {
                                        LEAVING => {
                                            progress.leaves = true;
                                            self.pace.left();
                                            continue;
                                        }
                                        REFUSED => {
                                            progress.refused = true;
                                            // It goes out alone.
                                            self.pace.was_too_slow();
                                            order.hands.give_back(Blame::None);
                                            continue;
                                        }
                                        _ => {}
                                    }
                                    progress.settled += outcomes.outcomes.len();
                                    if !outcomes.outcomes.is_empty() {
                                        // The limit is for one event.
                                        deadline = Instant::now() + config.handler_timeout;
                                    }
                                    order.hands.settle(outcomes);
                                }
                            }
                        }
                    }
                    Part::End { status, refused } => {
                        said.printed(output.rest());
                        let left = bytes.len();
                        connection.taken(left);
                        self.pace.took(started.elapsed());
                        return Ok(End { status, refused });
                    }
                }
            }
            connection.taken(0);
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
