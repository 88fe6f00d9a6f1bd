//! The link of a `php worker.php` to a server in a process of its own, whose events it handles.
//!
//! When another server takes over, the process serves both until the last client of the old one has gone there.
//!
//! Batches come in and outcomes go out on the PHP thread, whenever `event_loop` looks; there is no thread and no runtime.
//! A link that broke is made anew with back-off: its events went to other processes meanwhile, and what was read of
//! them is forgotten. Imports `work`, `control::client`, `wire::events`, `link` and `ini`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::link::LinkError;
use super::wait::{owned, watch};
use super::work::{Outgoing, Waiting, Work};
use super::{ini, server_here, zend};
use crate::control::client::Client;
use crate::wire::control::{self, Purpose};
use crate::wire::events::{Batch, LEAVING, Outcomes};

/// The first wait after a link broke that had not lasted, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A link that lasted so long is made anew at once when it breaks.
const LASTING: Duration = Duration::from_secs(1);
/// How much is read at a time.
const ROOM: usize = 64 << 10;
/// The largest buffer that is kept for the next batch.
const KEPT: usize = 1 << 20;
/// The largest batch: many times what a server puts into one.
const BATCH_MAX: usize = 256 << 20;

/// This process as one that handles a server's events.
pub struct Attached {
    /// Readable while there is something to do: watches the other two and the link.
    epoll: OwnedFd,
    /// Readable while events wait that were read already.
    wake: OwnedFd,
    /// Readable when the link is to be made anew.
    timer: OwnedFd,
    /// The link to the server, and for a while one to the server before it, whose last clients have events still.
    links: RefCell<Vec<Link>>,
    back_off: Cell<Duration>,
    /// [`server_here::forks`] when it was made.
    forks: u32,
}

struct Link {
    stream: UnixStream,
    since: Instant,
    /// Another server has taken over from this one, and will end the link when its last client has gone.
    former: bool,
    /// The beginning of a batch whose rest is to come.
    input: Vec<u8>,
    events: VecDeque<Waiting>,
    outgoing: Rc<Outgoing>,
}

thread_local! {
    static ATTACHED: RefCell<Option<Rc<Attached>>> = const { RefCell::new(None) };
}

/// The link's descriptor and `wake`'s, for a forked child; -1 when there is none.
static DESCRIPTORS: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];

/// This process as an attached one, if it has been one.
pub fn current() -> Option<Rc<Attached>> {
    let attached = ATTACHED.with_borrow(Clone::clone)?;
    if !attached.is_inherited() {
        return Some(attached);
    }
    // A forked child: the link is its parent's.
    drop(ATTACHED.take());
    None
}

/// Tells the server what this process handles, if it is attached.
pub fn announce() {
    if let Some(attached) = current() {
        attached.tell(true);
    }
}

/// Attaches this process, if it is not attached. `None` when no server is there that takes others' help; why not is the
/// business of whoever then starts one.
pub fn attach() -> Result<Option<Rc<Attached>>, LinkError> {
    if let Some(attached) = current() {
        return Ok(Some(attached));
    }
    let client = match connect() {
        Ok(client) => client,
        // None, or one in a PHP process, which handles its events itself.
        Err(LinkError::NoServer(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let attached = Rc::new(Attached::new().map_err(|e| LinkError::NotStarted(e.to_string()))?);
    attached.begin(client);
    ATTACHED.set(Some(Rc::clone(&attached)));
    Ok(Some(attached))
}

/// Lets go of the server: the request ends.
pub fn forget() {
    if let Some(attached) = current() {
        attached.leave();
    }
    drop(ATTACHED.take());
}

/// In a child that was just forked: lets go of the link, or the server would not notice its parent's end.
pub fn let_go_in_child() {
    let [link, wake] = [&DESCRIPTORS[0], &DESCRIPTORS[1]].map(|fd| fd.load(Ordering::Relaxed));
    if link >= 0 && wake >= 0 {
        // Not closed: the object that will do that thinks it has it still.
        // SAFETY: both are descriptors of this process that live as long as the statics name them.
        unsafe { libc::dup3(wake, link, libc::O_CLOEXEC) };
    }
}

impl Attached {
    /// Whether a fork has copied this into a child: its server is the parent's.
    pub fn is_inherited(&self) -> bool {
        self.forks != server_here::forks()
    }

    /// Readable while there is something to do.
    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.links
            .borrow()
            .iter()
            .map(|link| link.events.len())
            .sum()
    }

    /// The next event.
    pub fn pop(&self) -> Option<Work> {
        let mut links = self.links.borrow_mut();
        links.iter_mut().find_map(|link| {
            let event = link.events.pop_front()?;
            Some(link.outgoing.work(event))
        })
    }

    /// Takes up what has come. Makes the link anew when it is time for that.
    pub fn clear(&self) {
        if self.is_inherited() {
            return;
        }
        drain(&self.wake);
        let due = drain(&self.timer);
        let was_linked = self.is_linked();
        self.on_each(Link::receive);
        if !self.is_linked() && (due || was_linked && self.is_moved()) {
            self.try_again();
        }
    }

    /// Makes [`Attached::fd`] readable though nothing has come.
    pub fn signal(&self) {
        let one = 1u64;
        // SAFETY: writes 8 bytes from a local of 8 bytes; the descriptor is ours.
        unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Tells the server what is done, if it is time for that or `now`.
    pub fn tell(&self, now: bool) {
        if self.is_inherited() {
            return;
        }
        self.on_each(|link| match now || link.outgoing.is_due() {
            true => link.tell(),
            false => Ok(()),
        });
    }

    /// Whether there is a link to a server that gets new clients.
    fn is_linked(&self) -> bool {
        self.links.borrow().iter().any(|link| !link.former)
    }

    /// Whether the server has said that another one has taken over.
    fn is_moved(&self) -> bool {
        self.links.borrow().iter().any(|link| link.former)
    }

    /// Does something with each link, and drops those with which it fails.
    fn on_each(&self, mut act: impl FnMut(&mut Link) -> io::Result<()>) {
        let mut broken = Vec::new();
        self.links.borrow_mut().retain_mut(|link| match act(link) {
            Ok(()) => true,
            Err(error) => {
                if !link.former {
                    broken.push((error, link.since));
                }
                false
            }
        });
        for (error, since) in broken {
            self.lost(&error, since);
        }
    }

    fn new() -> io::Result<Self> {
        // SAFETY: none of these calls takes a pointer; the descriptors are nobody else's.
        let (epoll, wake, timer) = unsafe {
            (
                owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                owned(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?,
                owned(libc::timerfd_create(
                    libc::CLOCK_MONOTONIC,
                    libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
                ))?,
            )
        };
        watch(&epoll, wake.as_raw_fd())?;
        watch(&epoll, timer.as_raw_fd())?;
        DESCRIPTORS[1].store(wake.as_raw_fd(), Ordering::Relaxed);
        Ok(Self {
            epoll,
            wake,
            timer,
            links: RefCell::default(),
            back_off: Cell::new(BACK_OFF.0),
            forks: server_here::forks(),
        })
    }

    /// Takes a link that has been greeted, and tells the server what is handled here.
    fn begin(&self, client: Client) {
        let outgoing = Outgoing::new(client.max_message_size());
        let mut link = Link {
            stream: client.into_stream(),
            since: Instant::now(),
            former: false,
            input: Vec::new(),
            events: VecDeque::new(),
            outgoing,
        };
        let begun = watch(&self.epoll, link.stream.as_raw_fd()).and_then(|()| link.tell());
        if let Err(error) = begun {
            return self.lost(&error, link.since);
        }
        DESCRIPTORS[0].store(link.stream.as_raw_fd(), Ordering::Relaxed);
        self.links.borrow_mut().push(link);
    }

    /// The link broke. What it brought is with others now.
    fn lost(&self, error: &io::Error, since: Instant) {
        DESCRIPTORS[0].store(-1, Ordering::Relaxed);
        if since.elapsed() >= LASTING {
            self.back_off.set(BACK_OFF.0);
            log(&format!(
                "realtime: the server has ended the link to this worker ({error}); it looks for the next server"
            ));
            self.retry_in(Duration::ZERO);
        } else {
            self.wait();
        }
    }

    fn try_again(&self) {
        match connect() {
            Ok(client) => self.begin(client),
            // None, or one that takes nobody's help: whoever should be there may come yet.
            Err(_) => self.wait(),
        }
    }

    fn wait(&self) {
        let pause = self.back_off.get();
        self.back_off.set((pause * 2).min(BACK_OFF.1));
        self.retry_in(pause);
    }

    fn retry_in(&self, pause: Duration) {
        // Zero would disarm it.
        let pause = pause.max(Duration::from_nanos(1));
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: pause.as_secs() as libc::time_t,
                tv_nsec: libc::c_long::from(pause.subsec_nanos()),
            },
        };
        // SAFETY: our own descriptor and a local.
        unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                0,
                &raw const spec,
                std::ptr::null_mut(),
            );
        }
    }

    /// Says what is done, and that the rest is for others.
    fn leave(&self) {
        for mut link in self.links.take() {
            let mut last = link.outgoing.take().unwrap_or_default();
            last.interest = LEAVING;
            // The server may have gone first.
            let _ = link.send(&last);
        }
        DESCRIPTORS[0].store(-1, Ordering::Relaxed);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for descriptor in &DESCRIPTORS {
            descriptor.store(-1, Ordering::Relaxed);
        }
    }
}

impl Link {
    /// Reads what is there.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            let before = self.input.len();
            self.input.reserve(ROOM);
            let room = self.input.spare_capacity_mut();
            // SAFETY: the kernel writes at most as many bytes as there is room, and says how many that are.
            let count = unsafe {
                let count = libc::recv(
                    self.stream.as_raw_fd(),
                    room.as_mut_ptr().cast(),
                    room.len(),
                    libc::MSG_DONTWAIT,
                );
                self.input
                    .set_len(before + usize::try_from(count).unwrap_or(0));
                count
            };
            match count {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                1.. => self.take_batches()?,
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }

    fn take_batches(&mut self) -> io::Result<()> {
        let mut used = 0;
        while let Some((content, rest)) = control::split(&self.input[used..]) {
            used = self.input.len() - rest.len();
            let batch = control::read::<Batch>(content).map_err(io::Error::other)?;
            // Without events it says that another server has taken over.
            self.former |= batch.events.is_empty();
            self.events.extend(self.outgoing.events(batch));
        }
        self.input.drain(..used);
        if self.input.is_empty() && self.input.capacity() > KEPT {
            self.input = Vec::new();
        }
        match control::announced(&self.input) {
            Some(length) if length > BATCH_MAX => Err(io::Error::other("a batch over every limit")),
            _ => Ok(()),
        }
    }

    fn tell(&mut self) -> io::Result<()> {
        match self.outgoing.take() {
            Some(outcomes) => self.send(&outcomes),
            None => Ok(()),
        }
    }

    /// Waits at most `realtime.timeout` for the server to take it.
    fn send(&mut self, outcomes: &Outcomes) -> io::Result<()> {
        self.stream.write_all(&control::frame(outcomes))
    }
}

fn connect() -> Result<Client, LinkError> {
    let config = ini::config()?;
    let socket = Path::new(&config.socket);
    Ok(Client::connect_for(
        Purpose::Attach,
        socket,
        config.timeout,
    )?)
}

/// Empties an eventfd or a timerfd. Whether there was anything.
fn drain(fd: &OwnedFd) -> bool {
    let mut count = 0u64;
    // SAFETY: reads 8 bytes into a local of 8 bytes; the descriptor is ours and non-blocking.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) == 8 }
}

fn log(line: &str) {
    let line = zend::c_text(line);
    // SAFETY: on a PHP thread; PHP copies the line.
    unsafe { zend::rt_log(line.as_ptr()) };
}
