//! The control socket: what other processes may ask, who becomes the hub, and garbage.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use realtime::backend::queue::EventQueue;
use realtime::config::Config;
use realtime::control::client::{Client as Link, ConnectError};
use realtime::ids::Pattern;
use realtime::message::EventName;
use realtime::node::Failure;
use realtime::server::{Server, StartError};
use realtime::wire::control::{
    self as wire, Hello, PayloadRef, Request, Response, WireFailure, WirePayload, WirePublish,
};

use crate::client::Client;
use crate::harness::{
    Hub, PATIENCE, channel_named, config, directory, eventually, json, message, start_after,
};

fn link(hub: &Hub) -> Link {
    Link::connect(&hub.socket(), PATIENCE).unwrap()
}

fn start(config: Config) -> Result<Server, StartError> {
    Server::start(config, Arc::new(EventQueue::new(1 << 20).unwrap()))
}

#[test]
fn another_process_can_do_what_php_can() {
    let hub = Hub::start();
    let mut link = link(&hub);
    assert_eq!(link.pid(), std::process::id());
    assert_eq!(link.address(), hub.address());
    let (mut client, welcome) = Client::native(hub.address());
    let id = welcome.id();
    client.subscribe("a", None);
    let published = link.publish(&message("a", "[1]")).unwrap();
    let seen = client.json();
    assert_eq!(
        (&seen["id"], &seen["data"][0]),
        (&published.into(), &1.into())
    );
    assert!(link.send(id, json("2"), EventName::new("hint")).unwrap());
    assert_eq!(client.json()["event"], "hint");
    assert!(link.subscribe(id, channel_named("b")).unwrap());
    assert_eq!(client.json()["channel"], "b");
    let channels = link.channels(&Pattern::any()).unwrap();
    let named: Vec<_> = channels
        .iter()
        .map(|c| (c.channel.as_str(), c.subscribers))
        .collect();
    assert_eq!(named, [("a", 1), ("b", 1)]);
    assert_eq!(
        link.channels(&Pattern::parse("b*").unwrap()).unwrap().len(),
        1
    );
    let connections = link.connections(Some(&channel_named("b"))).unwrap();
    assert_eq!((connections[0].id, connections[0].path()), (id, "/ws"));
    assert_eq!(link.connections(None).unwrap().len(), 1);
    assert!(link.unsubscribe(id, channel_named("b")).unwrap());
    assert!(!link.unsubscribe(id, channel_named("b")).unwrap());
    assert_eq!(client.json()["type"], "unsubscribed");
    let page = link.history(&channel_named("a"), 10, None).unwrap();
    assert_eq!(page.entries[0].payload, json("[1]"));
    let stats = link.stats().unwrap();
    assert_eq!((stats.connections, stats.published), (1, 1));
    assert_eq!(stats.by_transport[0], 1);
    assert!(link.close(id, 4000, "bye".into()).unwrap());
    assert_eq!(client.frame().close(), (4000, "bye"));
    drop(client);
    eventually("the end", || link.connections(None).unwrap().is_empty());
    assert!(!link.send(id, json("3"), EventName::Message).unwrap());
}

#[test]
fn a_too_large_message_breaks_nothing() {
    let hub = Hub::with(&[("realtime.max_message_size", "1K")]);
    let mut link = link(&hub);
    let large = format!("\"{}\"", "x".repeat(2000));
    let refused = link.publish(&message("a", &large)).unwrap_err();
    assert_eq!(
        refused,
        Failure::TooLarge {
            size: 2002,
            limit: 1024
        }
    );
    link.publish(&message("a", "1")).unwrap();
}

#[test]
fn many_links_publish_at_once_and_each_in_its_order() {
    const LINKS: usize = 8;
    const EACH: usize = 200;
    let hub = Hub::start();
    let (mut client, _) = Client::native(hub.address());
    client.subscribe("a", None);
    std::thread::scope(|scope| {
        for number in 0..LINKS {
            let hub = &hub;
            scope.spawn(move || {
                let mut link = link(hub);
                for n in 0..EACH {
                    link.publish(&message("a", &format!("[{number},{n}]")))
                        .unwrap();
                }
            });
        }
        let mut next = [0; LINKS];
        for _ in 0..LINKS * EACH {
            let message = client.json();
            let number = message["data"][0].as_u64().unwrap() as usize;
            assert_eq!(message["data"][1], next[number]);
            next[number] += 1;
        }
    });
}

#[test]
fn a_link_outlives_its_server_with_an_error() {
    let hub = Hub::start();
    let socket = hub.socket();
    let mut link = link(&hub);
    drop(hub);
    let Failure::Link(text) = link.publish(&message("a", "1")).unwrap_err() else {
        panic!("a broken link")
    };
    assert!(text.contains(&*socket.to_string_lossy()), "{text}");
}

#[test]
fn nobody_there_is_told_with_the_cure() {
    let directory = directory();
    let socket = directory.path().join("hub.sock");
    let error = Link::connect(&socket, PATIENCE).unwrap_err();
    assert!(error.is_absent());
    let text = error.to_string();
    assert!(
        text.contains(&*socket.to_string_lossy()) && text.contains("rt_listen()"),
        "{text}"
    );
    // A socket that nobody listens on is the same.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(Link::connect(&socket, PATIENCE).unwrap_err().is_absent());
    // One that accepts and says nothing is not waited for.
    let _mute = UnixListener::bind(directory.path().join("mute.sock")).unwrap();
    let mute = directory.path().join("mute.sock");
    let error = Link::connect(&mute, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ConnectError::Silent(_)), "{error}");
}

#[test]
fn a_second_server_says_who_has_the_socket() {
    let directory = directory();
    let first = start(config(&directory, &[])).unwrap();
    let error = start(config(&directory, &[])).unwrap_err().to_string();
    let socket = directory.path().join("hub.sock").display().to_string();
    for part in [
        &*std::process::id().to_string(),
        first.address(),
        &socket,
        "realtime.socket",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(Client::connect(first.address()).get("/healthz").status, 200);
    drop(first);
    assert!(!fs::exists(&socket).unwrap(), "removed with its server");
    start_after(|| start(config(&directory, &[]))).expect("the socket is free");
}

#[test]
fn what_a_dead_server_left_is_no_obstacle() {
    let directory = directory();
    let socket = directory.path().join("hub.sock");
    drop(UnixListener::bind(&socket).unwrap());
    fs::write(directory.path().join("hub.sock.lock"), "").unwrap();
    let server = start(config(&directory, &[])).unwrap();
    let link = Link::connect(&socket, PATIENCE).unwrap();
    assert_eq!(link.address(), server.address());
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_a_cleaner_of_temporary_files_took_away_is_put_back() {
    let outer = directory();
    let place = outer.path().join("realtime");
    let socket = place.join("hub.sock");
    let config = || {
        Config::load(|name| match name {
            "realtime.socket" => Some(socket.to_str().unwrap().to_owned()),
            "realtime.listen" => Some("127.0.0.1:0".to_owned()),
            _ => None,
        })
        .unwrap()
    };
    let server = start(config()).unwrap();
    let mut before = Link::connect(&socket, PATIENCE).unwrap();
    let removals: [&dyn Fn(); 3] = [
        &|| fs::remove_file(&socket).unwrap(),
        &|| fs::remove_file(place.join("hub.sock.lock")).unwrap(),
        &|| fs::remove_dir_all(&place).unwrap(),
    ];
    for remove in removals {
        remove();
        // The socket's file is there a little before somebody listens.
        eventually("both files", || {
            fs::exists(place.join("hub.sock.lock")).unwrap()
                && Link::connect(&socket, PATIENCE).is_ok()
        });
        let mut link = Link::connect(&socket, PATIENCE).unwrap();
        assert_eq!(link.address(), server.address());
        link.publish(&message("a", "1")).unwrap();
        before.publish(&message("a", "2")).unwrap();
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = start(config()).unwrap_err().to_string();
        assert!(second.contains("already runs"), "{second}");
    }
    drop(server);
    assert!(!fs::exists(&socket).unwrap(), "removed with its server");
    start_after(|| start(config())).expect("the lock is free");
}

#[test]
fn a_file_that_is_no_socket_is_not_removed() {
    let directory = directory();
    let socket = directory.path().join("hub.sock");
    fs::write(&socket, "precious").unwrap();
    let error = start(config(&directory, &[])).unwrap_err().to_string();
    assert!(error.contains("realtime.socket"), "{error}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn directories_that_cannot_be_trusted_are_refused() {
    let directory = directory();
    let open = directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = |socket: std::path::PathBuf| {
        let socket = socket.display().to_string();
        let settings = [("realtime.socket", &*socket)];
        let error = start(config(&directory, &settings))
            .unwrap_err()
            .to_string();
        assert!(error.contains("realtime.socket"), "{error}");
        error
    };
    let error = refused(open.join("hub.sock"));
    assert!(
        error.contains("other users can write") && error.contains("chmod"),
        "{error}"
    );
    let error = refused(directory.path().join("no/such/hub.sock"));
    assert!(error.contains("cannot create the directory"), "{error}");
    refused(file.join("hub.sock"));
    // A directory that the system lets nobody write to, not even root.
    refused("/proc/hub.sock".into());
    // SAFETY: geteuid() reads a number of this process and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        let foreign = directory.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        std::os::unix::fs::chown(&foreign, Some(12345), None).unwrap();
        let error = refused(foreign.join("hub.sock"));
        assert!(error.contains("belongs to user 12345"), "{error}");
    }
}

#[test]
fn a_missing_directory_is_made_for_its_owner_alone() {
    let directory = directory();
    let inner = directory.path().join("inner");
    let socket = inner.join("hub.sock").display().to_string();
    let _server = start(config(&directory, &[("realtime.socket", &socket)])).unwrap();
    let mode = fs::metadata(&inner).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
}

#[test]
fn a_taken_port_is_told_with_its_holder_and_nothing_is_kept() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let directory = directory();
    let taken = [("realtime.listen", &*address)];
    let error = start(config(&directory, &taken)).unwrap_err();
    assert!(matches!(error, StartError::Taken { .. }), "{error}");
    let text = error.to_string();
    let process = format!("process {}", std::process::id());
    assert!(text.contains(&address) && text.contains(&process), "{text}");
    drop(holder);
    start_after(|| start(config(&directory, &taken)))
        .expect("neither the lock nor the port is held");
}

#[test]
fn an_address_that_is_not_of_this_machine_is_an_error() {
    let directory = directory();
    let error = start(config(&directory, &[("realtime.listen", "192.0.2.1:1")])).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    assert!(error.to_string().contains("192.0.2.1:1"), "{error}");
}

fn framed(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_le_bytes()[..], content].concat()
}

fn raw_link(hub: &Hub, hello: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(hub.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(hello).unwrap();
    stream
}

fn read_frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut content = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut content).unwrap();
    content
}

fn greeted(hub: &Hub) -> UnixStream {
    let hello = Hello {
        protocol: "realtime".into(),
        version: wire::VERSION,
        worker: None,
        purpose: wire::Purpose::Requests,
    };
    let mut stream = raw_link(hub, &wire::json_frame(&hello));
    read_frame(&mut stream);
    stream
}

/// Whether the server ends the link without another word.
fn ends(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn garbage_ends_its_own_link_alone() {
    let hub = Hub::start();
    let mut other = link(&hub);
    let version = Hello {
        protocol: "realtime".into(),
        version: 999,
        worker: None,
        purpose: wire::Purpose::Requests,
    };
    let refusals = [
        (framed(b"GET / HTTP/1.1"), "this is the control socket"),
        (framed(b""), "this is the control socket"),
        (wire::json_frame(&version), "version 999"),
    ];
    for (hello, expected) in refusals {
        let mut stream = raw_link(&hub, &hello);
        let greeting: wire::Greeting = serde_json::from_slice(&read_frame(&mut stream)).unwrap();
        let reason = greeting.refused.unwrap();
        assert!(reason.contains(expected), "{reason}");
        assert!(ends(&mut stream));
        other.publish(&message("a", "1")).unwrap();
    }
    for hello in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64]] {
        assert!(ends(&mut raw_link(&hub, hello)), "too large to be a hello");
    }
    let trailing = {
        let mut bytes = wire::frame(&Request::Stats)[4..].to_vec();
        bytes.push(7);
        framed(&bytes)
    };
    let huge = (u32::MAX).to_le_bytes().to_vec();
    for garbage in [framed(&[0xff; 40]), framed(b""), trailing, huge] {
        let mut stream = greeted(&hub);
        stream.write_all(&garbage).unwrap();
        assert!(ends(&mut stream), "{garbage:?}");
        other.publish(&message("a", "1")).unwrap();
    }
    // Half a frame, then nothing more.
    let mut half = greeted(&hub);
    half.write_all(&wire::frame(&Request::Stats)[..4]).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(ends(&mut half));
    other.stats().unwrap();
}

#[test]
fn bad_names_on_the_link_are_answered_and_the_link_stays() {
    let hub = Hub::start();
    let mut stream = greeted(&hub);
    fn publish<'a>(channels: &[&'a str], event: &'a str, id: Option<&'a str>) -> Request<'a> {
        Request::Publish(WirePublish {
            channels: channels.to_vec(),
            payload: PayloadRef::Json(b"1"),
            event,
            except: None,
            id,
            store: true,
            terms: None,
        })
    }
    let requests = [
        publish(&[], "message", None),
        publish(&["a", "b c"], "message", None),
        publish(&["a"], "a\nb", None),
        publish(&["a"], "message", Some("")),
        publish(&["a"], "message", Some("a b")),
        Request::Subscribe {
            who: 1,
            channel: "a b".into(),
        },
        Request::Unsubscribe {
            who: 1,
            channel: String::new(),
        },
        Request::Channels {
            pattern: String::new(),
        },
        Request::Connections {
            channel: Some("*".into()),
        },
        Request::History {
            channel: "a b".into(),
            limit: 1,
            since: None,
            before: None,
        },
        Request::Send {
            to: 1,
            payload: WirePayload::Json("1".into()),
            event: "a\rb".into(),
        },
    ];
    for request in requests {
        stream.write_all(&wire::frame(&request)).unwrap();
        let content = read_frame(&mut stream);
        let answer: Response = wire::read(&content).unwrap();
        assert!(
            matches!(answer, Response::Failed(WireFailure::Bad(_))),
            "{request:?}: {answer:?}"
        );
    }
    assert_eq!(hub.stats().published, 0);
}

#[test]
fn what_the_operator_has_misplaced_is_named() {
    let home = directory();
    let file = home.path().join("a file");
    std::fs::write(&file, "mine").unwrap();
    let listen = format!("unix:{}", file.display());
    let error = start(config(&home, &[("realtime.listen", &listen)])).unwrap_err();
    assert!(error.to_string().ends_with("is no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    for place in [file.display().to_string(), "/nonexistent".to_owned()] {
        let error = start(config(&home, &[("realtime.docroot", &place)])).unwrap_err();
        let expected =
            format!("realtime.docroot must be a directory that can be read, {place} is not");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
