//! The FastCGI client: takes batches out of the queue, and runs `realtime.handler` for each in the pool.
//!
//! Lives on the handler's thread, [`Config::handler_concurrency`](crate::config::Config) requests at a time. Imports the
//! queue, the pool and `wire`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::hands::Hands;
use super::interest::Source;
use super::lanes::Blame;
use super::order::{Marks, Order, Room};
use super::pool::{Came, Connection, Pool};
use super::said::{Said, Throttle};
use super::{BATCH, Next, Side, Workers, params};
use crate::wire::control;
use crate::wire::events::{OUTCOMES_OVERHEAD, Outcomes};
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
    /// When a request took longer than [`BRISK`], the last one that did.
    slow: Cell<Option<Instant>>,
    marks: RefCell<Marks>,
    /// For what scripts print and PHP reports, and for requests that failed.
    printed: Throttle,
    reported: Throttle,
    failed: Throttle,
}

/// Requests that are sent behind the one that a process has.
const AHEAD: usize = 2;
/// How soon a request ends behind which others are sent: so much later than by another process each of them may come.
const BRISK: Duration = Duration::from_millis(20);
/// For how long none is sent ahead after a request that took longer.
const WARY: Duration = Duration::from_secs(1);

/// What one task has beside the batch that a process handles: one process's line of requests.
#[derive(Debug, Default)]
struct Line {
    /// The next batches, whose requests were sent behind the one that the process has.
    ahead: VecDeque<Order>,
    /// Where they were sent, while no request is under way.
    sent: Option<Connection>,
    /// A batch behind them that goes on a connection of its own.
    own: Option<Order>,
    /// Nothing may be sent behind its requests.
    alone: bool,
    rooms: Vec<Room>,
}

impl Line {
    fn alone() -> Self {
        Self {
            alone: true,
            ..Self::default()
        }
    }

    fn next(&mut self) -> Option<Order> {
        self.ahead.pop_front().or_else(|| self.own.take())
    }

    fn may_send(&self) -> bool {
        !self.alone && self.own.is_none() && self.ahead.len() < AHEAD
    }
}

/// Counts a task that waits, for as long as it lives.
struct Idle<'a>(&'a Cell<usize>);

impl<'a> Idle<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Idle<'_> {
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
            idle: Cell::new(0),
            slow: Cell::new(None),
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
            let order = match line.next() {
                Some(order) => order,
                None => {
                    self.pool.rested().await;
                    let next = self.next().await;
                    let Some(order) = self.order(next, &mut line) else {
                        continue;
                    };
                    order
                }
            };
            self.run(order, &mut line).await;
        }
    }

    /// Waits for a batch.
    async fn next(&self) -> Next {
        let _idle = Idle::new(&self.idle);
        self.workers.next(Side::Requests, BATCH).await
    }

    /// Asks the script which handlers it has. Whether it said so.
    pub(super) async fn probe(&self, source: Source) -> bool {
        let hands = Hands::new(self.workers.clone(), source);
        let mut line = Line::alone();
        match self.write(Next::default(), hands, &mut line) {
            Some(order) => self.run(order, &mut line).await,
            None => false,
        }
    }

    /// The request for a batch. `None`: it cannot be made, and the batch went back.
    fn order(&self, next: Next, line: &mut Line) -> Option<Order> {
        // There is none without a script that takes it.
        let source = self.workers.interests.script()?;
        let mut hands = Hands::new(self.workers.clone(), source);
        hands.hold(&next);
        self.write(next, hands, line)
    }

    fn write(&self, next: Next, mut hands: Hands, line: &mut Line) -> Option<Order> {
        let mark = match self.marks.borrow_mut().next() {
            Ok(mark) => mark,
            Err(error) => {
                tracing::error!(%error, "the kernel gives no random numbers");
                hands.give_back(Blame::All);
                return None;
            }
        };
        let mut room = line.rooms.pop().unwrap_or_default();
        room.write(&self.common, &next, &mark);
        Some(Order {
            next,
            hands,
            mark,
            room,
        })
    }

    /// Runs the script once. Whether it ended well; what it left unanswered goes back.
    async fn run(&self, mut order: Order, line: &mut Line) -> bool {
        let ran = self.try_run(&mut order, line).await;
        order.hands.give_back(ran.err().unwrap_or(Blame::None));
        line.rooms.push(order.room);
        ran.is_ok()
    }

    /// As [`Client::run`]. The error tells which of the events that are left were tried.
    async fn try_run(&self, order: &mut Order, line: &mut Line) -> Result<(), Blame> {
        // Never closed.
        let _place = self.places.acquire().await;
        // What may end processes is to be seen doing it.
        let mut new = order.next.tried;
        loop {
            let mut connection = match line.sent.take() {
                Some(connection) => connection,
                None => {
                    let Some(mut connection) = self.pool.connection(new).await else {
                        return Err(Blame::None);
                    };
                    connection.send(order.room.request());
                    connection
                }
            };
            let mut said = Said::default();
            let mut progress = Progress::default();
            if !order.next.tried {
                self.send_ahead(&mut connection, line);
            }
            let ended = self
                .exchange(&mut connection, order, &mut said, &mut progress)
                .await;
            let used = connection.used;
            self.part(connection, ended.is_ok(), line);
            let cut = matches!(ended, Err(Broken::Closed | Broken::Io(_)));
            if cut && used && !said.anything() {
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

    /// Sends more batches behind the one that the process has, so that it finds one when it has finished and goes on without
    /// having slept, which is a fifth of what a request costs. Only when nobody else could take them, and when handlers have
    /// been [`BRISK`]: behind a slow one they might come later than by another process.
    fn send_ahead(&self, connection: &mut Connection, line: &mut Line) {
        while line.may_send() && self.idle.get() == 0 && self.is_brisk() {
            let next = self.workers.try_next(Side::Requests, BATCH);
            let Some(order) = next.and_then(|next| self.order(next, line)) else {
                return;
            };
            if order.next.tried {
                line.own = Some(order);
            } else {
                connection.send(order.room.request());
                line.ahead.push_back(order);
            }
        }
    }

    /// Whether requests have ended soon, of late.
    fn is_brisk(&self) -> bool {
        self.slow.get().is_none_or(|at| at.elapsed() > WARY)
    }

    /// What becomes of a connection when a request has ended on it, well or not.
    fn part(&self, mut connection: Connection, well: bool, line: &mut Line) {
        let sent = !line.ahead.is_empty();
        let owed: usize = line.ahead.iter().map(|a| a.room.request().len()).sum();
        let clean = sent || connection.unread().is_empty();
        // A process that has answered before it took the whole request takes no other.
        let reusable = well && clean && connection.unsent() <= owed;
        match (reusable, sent) {
            (true, true) => {
                connection.used = true;
                line.sent = Some(connection);
            }
            (true, false) => self.pool.keep(connection),
            (false, false) => {}
            (false, true) => {
                connection.cut();
                // Nobody has begun them.
                while let Some(mut ahead) = line.ahead.pop_back() {
                    ahead.hands.give_back(Blame::None);
                    line.rooms.push(ahead.room);
                }
            }
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

    /// Takes the answer.
    async fn exchange(
        &self,
        connection: &mut Connection,
        order: &mut Order,
        said: &mut Said,
        progress: &mut Progress,
    ) -> Result<End, Broken> {
        let config = &self.workers.config;
        let mut answer = Answer::default();
        let mut output = Output::new(order.mark, config.max_message_size + OUTCOMES_OVERHEAD);
        let started = Instant::now();
        let mut deadline = started + config.handler_timeout;
        loop {
            match connection.wait(deadline).await? {
                Came::Bytes => {}
                Came::End => return Err(Broken::Closed),
                Came::TooLate => {
                    self.slow.set(Some(Instant::now()));
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
                        let now = Instant::now();
                        if now - started > BRISK {
                            self.slow.set(Some(now));
                        }
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
