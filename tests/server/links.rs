//! The links of the control socket, frame by frame: requests in pieces and in a row, answers that nobody reads, and a
//! hub that is behind or wants all links to end.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use realtime::control::client::Client as Link;
use realtime::control::links::Links;
use realtime::wire::control::{
    self as wire, Greeting, Hello, Identity, PayloadRef, Purpose, Request, Response, WireFailure,
    WirePublish, Worker,
};
use tokio::sync::Semaphore;

use crate::client::Client;
use crate::harness::{Hub, PATIENCE, eventually, message};

fn publish<'a>(channel: &'a str, json: &'a [u8]) -> Request<'a> {
    Request::Publish(WirePublish {
        channels: vec![channel],
        payload: PayloadRef::Json(json),
        event: "message",
        except: None,
        id: None,
        store: true,
        terms: None,
    })
}

fn read_answer(stream: &mut UnixStream) -> io::Result<Response> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut content = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut content)?;
    Ok(wire::read(&content).unwrap())
}

fn greeted(hub: &Hub) -> UnixStream {
    let hello = Hello {
        protocol: "realtime".into(),
        version: wire::VERSION,
        worker: None,
        purpose: Purpose::Requests,
    };
    let mut stream = UnixStream::connect(hub.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&wire::json_frame(&hello)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut greeting = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut greeting).unwrap();
    stream
}

fn published(stream: &mut UnixStream) -> String {
    match read_answer(stream).unwrap() {
        Response::Published(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let hub = Hub::start();
    let mut stream = greeted(&hub);
    let frame = wire::frame(&publish("a", b"[1]"));
    for at in 1..frame.len() {
        stream.write_all(&frame[..at]).unwrap();
        // Long enough, mostly, for the hub to read it alone.
        std::thread::sleep(Duration::from_micros(300));
        stream.write_all(&frame[at..]).unwrap();
        published(&mut stream);
    }
    assert_eq!(hub.stats().published, frame.len() as u64 - 1);
}

#[test]
fn requests_in_a_row_are_done_in_their_order() {
    let hub = Hub::start();
    let mut stream = greeted(&hub);
    // Those that another thread answers among those that this one does.
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(wire::frame(&publish("a", b"1")));
        bytes.extend(wire::frame(&Request::Stats));
    }
    // The last of them in two parts.
    let half = bytes.len() - 1;
    stream.write_all(&bytes[..half]).unwrap();
    let mut count = 0;
    for number in 1..=100 {
        assert!(published(&mut stream).ends_with(&format!("-{number}")));
        if number == 100 {
            stream.write_all(&bytes[half..]).unwrap();
        }
        match read_answer(&mut stream).unwrap() {
            Response::Stats(stats) => assert_eq!(stats.published, number),
            other => panic!("{other:?}"),
        }
        count += 1;
    }
    assert_eq!(count, 100);
}

#[test]
fn a_message_larger_than_the_room_is_taken_whole() {
    let hub = Hub::with(&[("realtime.max_message_size", "4M")]);
    let mut stream = greeted(&hub);
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    for _ in 0..3 {
        let frame = wire::frame(&publish("a", large.as_bytes()));
        stream.write_all(&frame).unwrap();
        published(&mut stream);
    }
    assert_eq!(hub.stats().published, 3);
}

#[test]
fn who_does_not_read_its_answers_holds_up_nobody_else() {
    let hub = Hub::with(&[("realtime.max_message_size", "1M")]);
    let large = format!("\"{}\"", "x".repeat(900_000));
    hub.publish("a", &large);
    let mut lazy = greeted(&hub);
    let history = wire::frame(&Request::History {
        channel: "a".into(),
        limit: 10,
        since: None,
        before: None,
    });
    let mut asked = history.clone();
    asked.extend(wire::frame(&publish("b", b"1")));
    lazy.write_all(&asked).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let mut other = greeted(&hub);
    for _ in 0..10 {
        other.write_all(&wire::frame(&publish("c", b"1"))).unwrap();
        published(&mut other);
    }
    // What it asked for next waits until it has read.
    assert_eq!(hub.stats().published, 11);
    match read_answer(&mut lazy).unwrap() {
        Response::History { entries, .. } => assert_eq!(entries.len(), 1),
        other => panic!("{other:?}"),
    }
    published(&mut lazy);
    assert_eq!(hub.stats().published, 12);
    // And one that goes away in the middle of it.
    let mut rude = greeted(&hub);
    rude.write_all(&history).unwrap();
    let mut some = [0; 1000];
    rude.read_exact(&mut some).unwrap();
    drop(rude);
    other.write_all(&wire::frame(&publish("c", b"1"))).unwrap();
    published(&mut other);
}

#[test]
fn a_hub_that_is_behind_lets_publishers_wait_and_then_says_busy() {
    let hub = Hub::with(&[("realtime.queue_bytes", "64K"), ("realtime.timeout", "3")]);
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("a", None);
    let fill = |stream: &mut UnixStream| {
        for _ in 0..1000 {
            stream
                .write_all(&wire::frame(&publish("a", b"\"0123456789\"")))
                .unwrap();
            match read_answer(stream).unwrap() {
                Response::Published(_) => {}
                Response::Failed(WireFailure::Busy) => return,
                other => panic!("{other:?}"),
            }
        }
        panic!("never busy");
    };
    let mut stream = greeted(&hub);
    let mut patient = greeted(&hub);
    hub.stall(|| {
        let begun = Instant::now();
        fill(&mut stream);
        assert!(begun.elapsed() >= Duration::from_secs(3));
        // What takes no room goes on meanwhile.
        patient
            .write_all(&wire::frame(&Request::History {
                channel: "a".into(),
                limit: 1,
                since: None,
                before: None,
            }))
            .unwrap();
        read_answer(&mut patient).unwrap();
        patient
            .write_all(&wire::frame(&publish("a", b"\"late\"")))
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
    });
    // The shards go on within its time.
    published(&mut patient);
    eventually("the last message", || client.json()["data"] == "late");
}

#[test]
fn finishing_ends_links_between_frames_and_answers_what_has_begun() {
    let hub = Hub::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let links = Links::start(hub.node().clone(), runtime.handle().clone(), |work| {
        std::thread::Builder::new().spawn(work)
    })
    .unwrap();
    let places = Arc::new(Semaphore::new(10));
    let adopt = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        theirs.set_nonblocking(true).unwrap();
        links.adopt(theirs, places.clone().try_acquire_owned().unwrap());
        ours
    };
    let frame = wire::frame(&publish("a", b"1"));
    let mut idle = adopt();
    idle.write_all(&frame).unwrap();
    published(&mut idle);
    let mut begun = adopt();
    begun.write_all(&frame[..10]).unwrap();
    let mut stuck = adopt();
    stuck.write_all(&frame[..10]).unwrap();
    // Until it has read what they have begun.
    eventually("the beginnings to be read", || {
        unread(&begun) == 0 && unread(&stuck) == 0
    });
    // And has noted it, which it tells nobody: it reads this after that.
    idle.write_all(&frame).unwrap();
    published(&mut idle);
    let asked = Instant::now();
    let finished = links.finish(Duration::from_secs(6));
    assert!(ended(&mut idle));
    begun.write_all(&frame[10..]).unwrap();
    published(&mut begun);
    assert!(ended(&mut begun));
    runtime.block_on(finished).unwrap();
    let took = asked.elapsed();
    assert!(
        took >= Duration::from_secs(6) && took < PATIENCE,
        "{took:?}"
    );
    assert!(ended(&mut stuck), "its rest never came");
    assert_eq!(places.available_permits(), 10);
    // Life goes on, as after a takeover that failed.
    let mut fresh = adopt();
    fresh.write_all(&frame).unwrap();
    published(&mut fresh);
    let finished = links.finish(PATIENCE);
    runtime.block_on(finished).unwrap();
    assert!(ended(&mut fresh));
    assert_eq!(hub.stats().published, 4);
    let mut last = adopt();
    drop(links);
    assert!(ended(&mut last));
}

/// How much of what was sent the other side has not read.
fn unread(stream: &UnixStream) -> i32 {
    let mut count = 0;
    // SAFETY: the kernel writes one number to this stack; the descriptor is open.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    assert_eq!(done, 0);
    count
}

#[test]
fn a_call_that_is_sent_to_another_hub_says_whose_it_is_and_takes_no_longer_than_any() {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hub.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let greeting = wire::json_frame(&Greeting {
        version: wire::VERSION,
        pid: std::process::id(),
        address: String::new(),
        max_message_size: 1000,
        identity: Identity::default(),
        refused: None,
    });
    // One that hands over late, and one that never answers.
    let hubs = std::thread::spawn(move || {
        let mut frame = [0; 4096];
        let (mut old, _) = listener.accept().unwrap();
        assert_ne!(old.read(&mut frame).unwrap(), 0);
        old.write_all(&greeting).unwrap();
        assert_ne!(old.read(&mut frame).unwrap(), 0);
        // Not so late that a pause of the machine could take all that is left.
        std::thread::sleep(TIMEOUT * 6 / 10);
        let moved = wire::frame(&Response::Failed(WireFailure::Moved));
        old.write_all(&moved).unwrap();
        let (mut new, _) = listener.accept().unwrap();
        let count = new.read(&mut frame).unwrap();
        let hello: Hello = serde_json::from_slice(&frame[4..count]).unwrap();
        assert_eq!(hello.worker.unwrap().generation, 7);
        std::thread::sleep(TIMEOUT / 10);
        new.write_all(&greeting).unwrap();
        // Until the caller gives up.
        while new.read(&mut frame).is_ok_and(|count| count > 0) {}
    });
    let worker = Worker {
        master: std::process::id(),
        generation: 7,
        fingerprint: String::new(),
    };
    let mut link = Link::connect_as(&socket, TIMEOUT, Some(worker)).unwrap();
    let before = Instant::now();
    let error = link.publish(&message("a", "1")).unwrap_err();
    assert!(error.to_string().contains("realtime.timeout"), "{error}");
    let took = before.elapsed();
    // With the whole time for each of the two it would be 16 tenths.
    assert!(took < TIMEOUT * 15 / 10, "{took:?}");
    drop(link);
    hubs.join().unwrap();
}

/// Whether the link ends, after whatever word.
fn ended(stream: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}
