//! Hand-overs that go wrong: new hubs that die, fall silent or make no sense at any stage, old ones that do, and other
//! versions. Whoever served before serves on.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use realtime::server::TakeoverError;
use realtime::server::takeover::take;
use realtime::wire::control::{self, Greeting, Hello, Identity, Purpose, VERSION};
use realtime::wire::handover::{self, Estate, HANDOVER, Part, Said, Step};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::client::Client;
use crate::harness::{PATIENCE, eventually, message};
use crate::takeover::{Site, start};

/// A link that says what it likes.
pub struct Raw(UnixStream);

impl Raw {
    fn connect(site: &Site) -> Self {
        Self::connect_to(&site.config().socket)
    }

    fn connect_to(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// A new hub of these versions, which has got its greeting.
    pub fn taker(site: &Site, version: u32, handover: u32) -> Self {
        Self::connect(site).greeted(version, handover)
    }

    /// The same for the hub on this control socket, and of its own versions.
    pub fn taker_of(socket: &Path) -> Self {
        Self::connect_to(socket).greeted(VERSION, HANDOVER)
    }

    fn greeted(self, version: u32, handover: u32) -> Self {
        let mut raw = self;
        raw.say(&control::json_frame(&hello(version, handover)));
        let greeting: Greeting = serde_json::from_slice(&raw.frame().unwrap()).unwrap();
        assert_eq!(greeting.refused, None);
        raw
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// `None` at the end.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut content).ok()?;
        Some(content)
    }

    fn said(&mut self) -> Option<Said> {
        self.frame()
            .map(|content| handover::read(&content).unwrap())
    }

    pub fn estate(&mut self) -> (Estate, Vec<OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut length = [0; 4];
        let slices = &mut [IoSliceMut::new(&mut length)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.0, slices, &mut ancillary, flags).unwrap();
        assert_eq!(received.bytes, 4);
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut content).unwrap();
        (serde_json::from_slice(&content).unwrap(), descriptors)
    }

    pub fn past(&mut self) {
        while !matches!(self.said(), Some(Said::Part(Part::End))) {}
    }

    pub fn await_step(&mut self, wanted: Step) {
        loop {
            match self.said().expect("the old hub goes on") {
                Said::Step(step) => return assert_eq!(step, wanted),
                Said::Part(_) => {}
            }
        }
    }

    pub fn step(&mut self, step: Step) {
        self.say(&control::json_frame(&step));
    }
}

fn hello(version: u32, handover: u32) -> Hello {
    Hello {
        protocol: "realtime".into(),
        version,
        worker: None,
        purpose: Purpose::Takeover(handover),
    }
}

/// What a new hub may do wrong, stage by stage; the old one must get over it.
fn misbehave(site: &Site, stage: usize) {
    let up_to_ready = || {
        let mut raw = Raw::taker(site, VERSION, HANDOVER);
        raw.estate();
        raw.past();
        raw.step(Step::Ready);
        raw
    };
    match stage {
        // Half a hello, and none.
        0 => Raw::connect(site).say(&control::json_frame(&hello(VERSION, HANDOVER))[..9]),
        1 => drop(Raw::connect(site)),
        // Gone before the estate, before the past, before it is ready.
        2 => drop(Raw::taker(site, VERSION, HANDOVER)),
        3 => drop(Raw::taker(site, VERSION, HANDOVER).estate()),
        4 => {
            let mut raw = Raw::taker(site, VERSION, HANDOVER);
            raw.estate();
            raw.past();
        }
        // Gone when the old one is letting go, and when it has.
        5 => drop(up_to_ready()),
        6 => up_to_ready().await_step(Step::Yours),
        // What makes no sense.
        7 => {
            let mut raw = Raw::taker(site, VERSION, HANDOVER);
            raw.say(b"\x04\0\0\0\xff\xff\xff\xff");
            while raw.frame().is_some() {}
        }
        8 => {
            let mut raw = Raw::taker(site, VERSION, HANDOVER);
            raw.say(&u32::MAX.to_le_bytes());
            while raw.frame().is_some() {}
        }
        9 => {
            let mut raw = up_to_ready();
            raw.await_step(Step::Yours);
            raw.step(Step::Ready);
            assert!(raw.frame().is_none());
        }
        10 => {
            let mut raw = Raw::taker(site, VERSION, HANDOVER);
            raw.step(Step::Serving);
            while raw.frame().is_some() {}
        }
        // Half a frame, then gone.
        11 => {
            let mut raw = up_to_ready();
            raw.await_step(Step::Yours);
            raw.say(&control::json_frame(&Step::Serving)[..7]);
        }
        // Silent for ever when it is its turn, and then too late.
        12 => {
            let mut raw = up_to_ready();
            raw.await_step(Step::Yours);
            assert!(raw.frame().is_none());
            let late = raw.0.write_all(&control::json_frame(&Step::Serving));
            assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        }
        13 => {
            let mut raw = Raw::taker(site, VERSION, HANDOVER);
            let begun = Instant::now();
            while raw.frame().is_some() {}
            assert!(begun.elapsed() > Duration::from_secs(2));
        }
        _ => unreachable!(),
    }
}

#[test]
fn an_old_hub_gets_over_whatever_a_new_one_does() {
    let site = Site::new(&[("realtime.drain", "0.2")]);
    let old = site.first();
    let (mut client, _) = Client::native(old.address());
    client.subscribe("a", None);
    let mut link = site.link();
    for stage in 0..14 {
        misbehave(&site, stage);
        link.publish(&message("a", &stage.to_string())).unwrap();
        assert_eq!(client.json()["data"], stage, "stage {stage}");
        assert_eq!(
            Client::connect(old.address()).get("/healthz").status,
            200,
            "stage {stage}"
        );
        assert!(site.config().socket.exists());
    }
    // And one that does it right still can.
    let new = site.next();
    link.publish(&message("a", "99")).unwrap();
    assert_eq!(client.json()["data"], 99);
    assert_eq!(client.frame().close(), (1012, "reconnect"));
    drop(client);
    eventually("the end of the old hub", || old.has_ended());
    assert_eq!(new.node().stats().unwrap().published, 15);
}

/// A look at the channels comes once a second: here at least one while the old hub has let go.
#[test]
fn an_old_hub_that_serves_on_counts_subscribers_as_before() {
    let site = Site::new(&[
        ("realtime.pusher_app", "4711:a-key:a-secret-of-the-tests"),
        ("realtime.pusher_subscription_count", "1"),
    ]);
    let old = site.first();
    misbehave(&site, 12);
    let mut client = Client::websocket(old.address(), "/app/a-key?protocol=7&client=test");
    client.say(r#"{"event":"pusher:subscribe","data":{"channel":"a"}}"#);
    let events = [
        "connection_established",
        "subscription_succeeded",
        "subscription_count",
    ];
    for event in events {
        let frame = client.frame();
        assert!(frame.text().contains(event), "{event}: {}", frame.text());
    }
}

#[test]
fn an_old_hub_that_is_stopped_late_leaves_the_new_one_its_socket() {
    let site = Site::new(&[]);
    let old = site.first();
    let mut taker = Raw::taker(&site, VERSION, HANDOVER);
    let (_, descriptors) = taker.estate();
    taker.past();
    taker.step(Step::Ready);
    taker.await_step(Step::Yours);
    // The new hub may be serving from here on, and the old one be stopped before it hears of that.
    drop(old);
    let control = UnixListener::from(descriptors.into_iter().next().unwrap());
    let _link = UnixStream::connect(&site.config().socket).unwrap();
    // The old hub has set it for all who have it.
    control.set_nonblocking(false).unwrap();
    control.accept().unwrap();
}

#[test]
fn only_one_takes_over_at_a_time() {
    let site = Site::new(&[]);
    let old = site.first();
    let listeners = take(&site.config()).unwrap();
    let second = take(&site.config()).unwrap_err();
    assert!(matches!(second, TakeoverError::Underway(_)), "{second}");
    // The first gives up: the claim is free, and the old hub as it was.
    drop(listeners);
    assert!(site.config().socket.exists());
    site.link().publish(&message("a", "1")).unwrap();
    let new = site.next();
    eventually("the end of the old hub", || old.has_ended());
    // Many at once, and in the end there is one.
    drop(new);
    let mut hub = site.first();
    for _ in 0..3 {
        let taken: Vec<_> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        take(&site.config())
                            .ok()
                            .map(|taken| start(taken, site.config()))
                    })
                })
                .collect();
            takers
                .into_iter()
                .filter_map(|taker| taker.join().unwrap())
                .collect()
        });
        eventually("one hub", || {
            taken.iter().filter(|hub| !hub.has_ended()).count() == 1
        });
        assert!(!taken.is_empty());
        eventually("the end of the old hub", || hub.has_ended());
        hub = taken.into_iter().find(|hub| !hub.has_ended()).unwrap();
        site.link().publish(&message("a", "1")).unwrap();
        assert_eq!(Client::connect(hub.address()).get("/healthz").status, 200);
    }
}

#[test]
fn nobody_to_take_over_from() {
    let site = Site::new(&[]);
    let absent = take(&site.config()).unwrap_err();
    assert!(matches!(absent, TakeoverError::Absent(_)), "{absent}");
    let old = site.first();
    drop(old);
    let absent = take(&site.config()).unwrap_err();
    assert!(matches!(absent, TakeoverError::Absent(_)), "{absent}");
}

#[test]
fn a_new_hub_of_another_version_gets_the_sockets_alone() {
    let site = Site::new(&[("realtime.drain", "30")]);
    let old = site.first();
    let (mut client, _) = Client::native(old.address());
    client.subscribe("a", None);
    site.link().publish(&message("a", "1")).unwrap();
    let taker = |version, handover| {
        let mut raw = Raw::taker(&site, version, handover);
        let (estate, descriptors) = raw.estate();
        assert!(!estate.parts);
        assert_eq!(descriptors.len(), 3);
        (raw, descriptors)
    };
    drop(taker(VERSION + 1, HANDOVER));
    let (mut raw, descriptors) = taker(VERSION, HANDOVER + 1);
    raw.step(Step::Ready);
    assert!(matches!(raw.said(), Some(Said::Step(Step::Yours))));
    raw.step(Step::Serving);
    assert_eq!(client.json()["data"], 1);
    // Nothing can be delivered any more: not in half a minute, but now.
    assert_eq!(client.frame().close(), (1012, "reconnect"));
    drop(client);
    eventually("the end of the old hub", || old.has_ended());
    // Whoever comes now waits for the new one, and is not refused.
    drop(Client::connect(old.address()));
    drop(descriptors);
}

/// An estate as it is sent, the descriptors beside it, and the frames after it.
type Wrong<'a> = (&'a [u8], &'a [BorrowedFd<'a>], Vec<Vec<u8>>);

/// Plays an old hub that leaves `estate`, with these descriptors, and says what comes after it.
fn old_hub(
    listener: &UnixListener,
    estate: &[u8],
    descriptors: &[BorrowedFd<'_>],
    rest: &[Vec<u8>],
) -> Raw {
    // A new hub that came before has set it for all who have the socket.
    listener.set_nonblocking(false).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut raw = Raw(stream);
    raw.frame().unwrap();
    let greeting = Greeting {
        version: VERSION + 1,
        pid: 1,
        address: String::new(),
        max_message_size: 1,
        identity: Identity::default(),
        refused: None,
    };
    raw.say(&control::json_frame(&greeting));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    let slices = [IoSlice::new(estate)];
    let flags = SendFlags::NOSIGNAL;
    // The other side may have had enough.
    let _ = rustix::net::sendmsg(&raw.0, &slices, &mut ancillary, flags);
    for frame in rest {
        let _ = raw.0.write_all(frame);
    }
    raw
}

fn estate(clients: &TcpListener, parts: bool) -> Estate {
    Estate {
        listen: clients.local_addr().unwrap().to_string(),
        secret: "handed down".into(),
        max_message_size: 1024,
        parts,
        attached: 0,
        masters: Vec::new(),
    }
}

#[test]
fn the_sockets_of_an_old_hub_of_another_version_are_taken() {
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: &'static str = clients.local_addr().unwrap().to_string().leak();
    let site = Site::new(&[("realtime.listen", address)]);
    let control = UnixListener::bind(&site.config().socket).unwrap();
    let lock = tempfile::tempfile().unwrap();
    std::thread::scope(|scope| {
        let (control, clients, lock) = (&control, &clients, &lock);
        scope.spawn(move || {
            let estate = control::json_frame(&estate(clients, false));
            let descriptors = [control.as_fd(), lock.as_fd(), clients.as_fd()];
            let mut raw = old_hub(control, &estate, &descriptors, &[]);
            assert!(matches!(raw.said(), Some(Said::Step(Step::Ready))));
            raw.step(Step::Yours);
            assert!(matches!(raw.said(), Some(Said::Step(Step::Serving))));
        });
        let listeners = take(&site.config()).unwrap();
        assert_eq!(listeners.legacy.as_ref().unwrap().secret, "handed down");
        let hub = start(listeners, site.config());
        assert_eq!(hub.address(), address);
        let (mut client, _) = Client::native(address);
        // What the old one had is gone, and that is said.
        let answer = client.subscribe("a", Some("00000001-7"));
        assert_eq!(answer["recovered"], false);
        site.link().publish(&message("a", "1")).unwrap();
        assert_eq!(client.json()["data"], 1);
    });
}

#[test]
fn a_new_hub_gets_over_whatever_an_old_one_does() {
    let site = Site::new(&[]);
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    let control = UnixListener::bind(&site.config().socket).unwrap();
    let lock = tempfile::tempfile().unwrap();
    let all = [control.as_fd(), lock.as_fd(), clients.as_fd()];
    let good = control::json_frame(&estate(&clients, true));
    let notes = |channel: &str| {
        let note = handover::WireNote {
            terms: None,
            channel: channel.into(),
            seq: 1,
            id: None,
            event: "message".into(),
            payload: control::WirePayload::Json(bytes::Bytes::from_static(b"1")),
            except: None,
            age: Duration::ZERO,
            store: true,
        };
        control::frame(&Part::Notes(vec![note]))
    };
    let end = control::frame(&Part::End);
    let refused: [Wrong<'_>; 6] = [
        (b"\x02\0\0\0{]", &all, vec![]),
        (&good, &[], vec![end.clone()]),
        (&good, &all[..2], vec![end.clone()]),
        (&good, &all, vec![b"\x03\0\0\0\xff\xff\xff".to_vec()]),
        (&good, &all, vec![vec![0xff; 4]]),
        (&good, &all, vec![control::json_frame(&Step::Yours)]),
    ];
    for (number, (estate, descriptors, rest)) in refused.iter().enumerate() {
        std::thread::scope(|scope| {
            let old = scope.spawn(|| old_hub(&control, estate, descriptors, rest));
            let broken = take(&site.config()).unwrap_err();
            assert!(
                matches!(broken, TakeoverError::Broken { .. }),
                "{number}: {broken}"
            );
            old.join().unwrap();
        });
        assert!(site.config().socket.exists(), "{number}");
    }
    // Only when it runs does it see what is wrong in these.
    let late: [Vec<Vec<u8>>; 3] = [
        vec![notes("no channel"), end.clone()],
        vec![end.clone(), notes("no channel")],
        vec![end.clone(), control::json_frame(&Step::Ready)],
    ];
    for rest in &late {
        std::thread::scope(|scope| {
            let old = scope.spawn(|| old_hub(&control, &good, &all, rest));
            let hub = start(take(&site.config()).unwrap(), site.config());
            eventually("that it gives up", || hub.has_ended());
            drop(old.join().unwrap());
        });
        assert!(site.config().socket.exists());
    }
}
