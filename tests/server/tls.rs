//! TLS: what is spoken inside it, its handshakes, its certificate, and who does it wrong. What the other tests say is
//! true over TLS, too: they run a second time with REALTIME_TEST_TLS (see `authority`).

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use realtime::server::Server;
use realtime::tls::Tls;
use realtime::wire::events::WireWhat;
use rustls::HandshakeKind::{Full, Resumed};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};

use crate::authority::{Authority, Files, put};
use crate::client::{Client, handshake, masked};
use crate::handler::{OPEN, Site as HandlerSite};
use crate::harness::{Hub, config, directory, eventually, message};
use crate::takeover::Site;

/// A server with a certificate.
struct Secured {
    hub: Hub,
    files: Files,
    authority: Authority,
    clients: Arc<ClientConfig>,
    _directory: tempfile::TempDir,
}

impl Secured {
    fn with(settings: &[(&str, &str)]) -> Self {
        let directory = directory();
        let authority = Authority::new();
        let files = Files::write(directory.path(), &authority);
        let mut all = files.settings().to_vec();
        all.extend(settings);
        Self {
            hub: Hub::with(&all),
            clients: authority.clients(),
            files,
            authority,
            _directory: directory,
        }
    }

    fn start() -> Self {
        Self::with(&[])
    }

    fn address(&self) -> &str {
        self.hub.address()
    }

    fn client(&self) -> Client {
        Client::secure(self.address(), &self.clients)
    }

    fn raw(&self, channel: &str) -> Client {
        let mut client = self.client();
        client.upgrade(&format!("/raw/{channel}"));
        client
    }

    /// The certificate that a new client is shown.
    fn shown(&self) -> CertificateDer<'static> {
        let mut client = self.client();
        client.try_handshake().unwrap();
        client.tls().peer_certificates().unwrap()[0].clone()
    }
}

#[test]
fn everything_is_spoken_inside_both_versions() {
    let site = Secured::start();
    for (offered, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let clients = site.authority.clients_with(&[offered]);
        let connect = || Client::secure(site.address(), &clients);
        let mut http = connect();
        assert_eq!(http.get("/healthz").status, 200);
        assert_eq!(http.get("/realtime.js").status, 200, "the same connection");
        assert_eq!(http.tls().protocol_version(), Some(spoken));
        assert_eq!(http.tls().alpn_protocol(), Some(&b"http/1.1"[..]));

        let mut raw = connect();
        raw.upgrade("/raw/a");
        let mut sse = connect();
        sse.send(b"GET /sse?channel=a HTTP/1.1\r\nHost: test.example\r\n\r\n");
        assert!(sse.head().starts_with("HTTP/1.1 200 "));
        site.hub.await_subscribers("a", 2);
        let large = format!("[\"{}\"]", "x".repeat(50_000));
        for json in ["1", "[2]", &large] {
            site.hub.publish("a", json);
            assert_eq!(raw.frame().text(), json);
            assert!(sse.chunk_with("data:").contains(json));
        }
        assert_eq!(http.get("/poll?channel=a&timeout=0").status, 200);
        drop((raw, sse));
        site.hub.await_subscribers("a", 0);
    }
}

#[test]
fn the_end_is_told() {
    let site = Secured::start();
    let mut client = site.raw("a");
    client.send(&masked(0x88, &1000u16.to_be_bytes()));
    assert_eq!(client.frame().close().0, 1000);
    // Without close_notify this would be an error.
    assert_eq!(client.try_read(&mut [0; 16]).unwrap(), 0);
    let mut http = site.client();
    http.send(b"GET /healthz HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n");
    assert_eq!(http.response(true).status, 200);
    assert_eq!(http.try_read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn keys_may_be_changed_while_messages_come() {
    let site = Secured::start();
    let mut client = site.raw("a");
    site.hub.await_subscribers("a", 1);
    for number in 0..20 {
        client.tls().refresh_traffic_keys().unwrap();
        client.send(&masked(0x89, b"still there?"));
        assert_eq!(client.frame().opcode, 10);
        site.hub.publish("a", &number.to_string());
        assert_eq!(client.frame().text(), number.to_string());
    }
}

/// What does not fit into the kernel's buffer waits in two places, here and in TLS: nothing may be lost between them.
#[test]
fn a_slow_client_gets_all_in_order() {
    let site = Secured::with(&[
        ("realtime.max_backlog", "64M"),
        ("realtime.max_message_size", "1M"),
    ]);
    let mut client = Client::secure_with_receive_buffer(site.address(), 4096, &site.clients);
    client.upgrade("/raw/a");
    site.hub.await_subscribers("a", 1);
    let mut sent = Vec::new();
    for number in 0..300usize {
        // From less than a record to more than what is encrypted at once.
        let size = [1, 100, 5_000, 20_000, 200_000][number % 5];
        sent.push(format!("[{number},\"{}\"]", "y".repeat(size)));
    }
    for json in &sent {
        site.hub.publish("a", json);
    }
    for json in &sent {
        let frame = client.frame();
        assert!(frame.text() == json, "{} bytes", frame.payload.len());
    }
    // And now that it has caught up.
    site.hub.publish("a", "[]");
    assert_eq!(client.frame().text(), "[]");
}

#[test]
fn too_slow_a_client_is_closed_between_two_messages() {
    let site = Secured::with(&[
        ("realtime.max_backlog", "64K"),
        ("realtime.compress_min", "0"),
    ]);
    let mut client = Client::secure_with_receive_buffer(site.address(), 4096, &site.clients);
    client.upgrade("/raw/a");
    site.hub.await_subscribers("a", 1);
    let json = format!("[\"{}\"]", "z".repeat(10_000));
    eventually("a client that is too slow", || {
        site.hub.publish("a", &json);
        site.hub.stats().dropped_slow > 0
    });
    loop {
        let frame = client.frame();
        if frame.opcode == 8 {
            assert_eq!(frame.close().0, 4008);
            break;
        }
        assert!(frame.text() == json);
    }
    assert_eq!(client.try_read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn whoever_speaks_plain_http_is_told() {
    let site = Secured::start();
    let mut client = Client::plain(site.address());
    let refused = client.get("/healthz");
    assert_eq!((refused.status, &*refused.code()), (400, "tls_required"));
    assert!(refused.body.contains("https://"), "{refused:?}");
    assert!(client.is_ended());
    let mut websocket = Client::plain(site.address());
    websocket.send(handshake("/ws", "").as_bytes());
    assert_eq!(websocket.response(true).status, 400);
    // The answer arrives although not all was read that it is the answer to.
    let mut large = Client::plain(site.address());
    large.send(format!("POST /publish HTTP/1.1\r\n\r\n{}", " ".repeat(100_000)).as_bytes());
    assert_eq!(large.response(true).status, 400);
    for garbage in [
        &b"\0\0\0"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x15\x03\x03\0\x02\x02\x50",
        &[0x80; 300],
    ] {
        let mut client = Client::plain(site.address());
        client.send(garbage);
        client.shut_write();
        let answer = client.rest();
        assert!(!answer.starts_with(b"HTTP"), "{garbage:?}");
    }
    assert_eq!(site.client().get("/healthz").status, 200);
}

#[test]
fn a_handshake_has_its_time() {
    let site = Secured::with(&[
        ("realtime.handshake_timeout", "4"),
        ("realtime.threads", "1"),
    ]);
    let before = Instant::now();
    let hello = hello(&site.clients);
    let stalled: Vec<Client> = (0..50)
        .map(|index| {
            let mut client = Client::plain(site.address());
            client.send(&hello[..index * hello.len() / 50]);
            client
        })
        .collect();
    // Nobody waits for them.
    assert_eq!(site.client().get("/healthz").status, 200);
    for mut client in stalled {
        assert!(client.rest().is_empty());
    }
    assert!(before.elapsed() >= Duration::from_secs(4), "not at once");
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    let site = Secured::start();
    let hello = hello(&site.clients);
    let mut client = Client::plain(site.address());
    for byte in hello {
        client.send(&[byte]);
    }
    // The server's hello: a handshake record.
    assert_eq!(client.take(1), [22]);
}

#[test]
fn what_is_too_long_is_refused() {
    let site = Secured::start();
    // A record longer than any may be, and a hello of 16 MB in records of which each is in order.
    let record = [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat();
    let mut endless = Vec::new();
    for number in 0..64 {
        endless.extend_from_slice(&[22, 3, 1, 0x40, 0]);
        endless.extend_from_slice(&[if number == 0 { 1 } else { 0xff }; 0x4000]);
    }
    for bytes in [record, endless] {
        let mut client = Client::plain(site.address());
        // It may have closed before all has come.
        let _ = client.try_send(&bytes);
        let answer = client.rest();
        assert!(
            answer.is_empty() || answer[0] == 21,
            "closed, with an alert if any: {answer:?}"
        );
    }
    // The same behind a handshake.
    let mut client = site.raw("a");
    let bad = [&[23, 3, 3, 0xff, 0xff][..], &[0; 70_000]].concat();
    let _ = client.try_send_bare(&bad);
    eventually("its end", || site.hub.stats().connections == 0);
    assert_eq!(site.client().get("/healthz").status, 200);
}

#[test]
fn a_forged_record_ends_the_connection_and_no_other() {
    let site = Secured::start();
    let mut victim = site.raw("a");
    let mut bystander = site.raw("a");
    site.hub.await_subscribers("a", 2);
    victim
        .try_send_bare(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat())
        .unwrap();
    site.hub.await_subscribers("a", 1);
    let error = victim.try_read(&mut [0; 16]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    site.hub.publish("a", "1");
    assert_eq!(bystander.frame().text(), "1");
}

#[test]
fn a_session_is_resumed() {
    let site = Secured::start();
    for version in [&TLS12, &TLS13] {
        let clients = site.authority.clients_with(&[version]);
        let kind = || {
            let mut client = Client::secure(site.address(), &clients);
            assert_eq!(client.get("/healthz").status, 200);
            client.tls().handshake_kind()
        };
        assert_eq!(kind(), Some(Full));
        for _ in 0..5 {
            assert_eq!(kind(), Some(Resumed));
        }
    }
}

#[test]
fn a_new_certificate_is_taken_and_nobody_is_disconnected() {
    let site = Secured::start();
    let mut client = site.raw("a");
    let mut http = site.client();
    assert_eq!(http.get("/healthz").status, 200);
    site.hub.await_subscribers("a", 1);
    let resumes = |clients: &Arc<ClientConfig>| -> Option<HandshakeKind> {
        let mut client = Client::secure(site.address(), clients);
        assert_eq!(client.get("/healthz").status, 200);
        client.tls().handshake_kind()
    };
    let returning = site.authority.clients();
    resumes(&returning);
    assert_eq!(resumes(&returning), Some(Resumed));
    let first = site.shown();
    let second = site.files.renew(&site.authority);
    assert_ne!(first, second);
    eventually("the new certificate", || site.shown() == second);
    // Who resumed would not have seen it.
    assert_eq!(resumes(&returning), Some(Full));
    site.hub.publish("a", "1");
    assert_eq!(client.frame().text(), "1");
    client.send(&masked(0x89, b"?"));
    assert_eq!(client.frame().opcode, 10);
    assert_eq!(http.get("/healthz").status, 200);
}

#[test]
fn a_bad_certificate_is_not_taken() {
    let place = directory();
    let authority = Authority::new();
    let files = Files::write(place.path(), &authority);
    let tls = Tls::new(&config(&place, &files.settings()))
        .unwrap()
        .unwrap();
    let first = tls.offer();
    // As a server does once a second: a change is read when it has been there for two looks.
    let look = || {
        tls.keep_house();
        tls.keep_house();
        tls.offer()
    };
    let (other, other_key) = authority.issue();
    let good = std::fs::read_to_string(&files.certificate).unwrap();
    let bad = ["", "nonsense", &good[..good.len() / 2], &other_key, &other];
    for content in bad {
        put(&files.certificate, content);
        assert!(Arc::ptr_eq(&look(), &first), "{content}");
    }
    std::fs::remove_file(&files.certificate).unwrap();
    assert!(Arc::ptr_eq(&look(), &first));
    // The other half of it: now they belong together.
    put(&files.certificate, &other);
    assert!(Arc::ptr_eq(&look(), &first));
    put(&files.key, &other_key);
    let second = look();
    assert!(!Arc::ptr_eq(&second, &first));
    assert!(Arc::ptr_eq(&look(), &second), "nothing has changed");
    // While it is being written it is left alone.
    files.renew(&authority);
    tls.keep_house();
    assert!(Arc::ptr_eq(&tls.offer(), &second));
    files.renew(&authority);
    tls.keep_house();
    assert!(Arc::ptr_eq(&tls.offer(), &second));
    tls.keep_house();
    assert!(!Arc::ptr_eq(&tls.offer(), &second));
}

#[test]
fn mistakes_are_told_before_anything_is_bound() {
    let authority = Authority::new();
    let place = directory();
    let files = Files::write(place.path(), &authority);
    let (other, other_key) = authority.issue();
    let write = |name: &str, content: &str| {
        let file = place.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    };
    let (other, other_key) = (write("other", &other), write("other.key", &other_key));
    let nonsense = write("nonsense", "nonsense");
    let encrypted = write(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let broken = write(
        "broken",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    );
    let (cert, key, none) = (&files.certificate, &files.key, Path::new(""));
    let missing = place.path().join("missing");
    let cases: [(&Path, &Path, &[&str]); 9] = [
        (
            none,
            key,
            &["realtime.tls_key is set and realtime.tls_cert is not"],
        ),
        (
            &missing,
            key,
            &[
                "certificate in",
                "missing (realtime.tls_cert): No such file",
            ],
        ),
        (
            cert,
            &missing,
            &["private key in", "missing (realtime.tls_key): No such file"],
        ),
        (
            &nonsense,
            key,
            &["(realtime.tls_cert): it has no certificate in PEM"],
        ),
        (
            cert,
            &nonsense,
            &["(realtime.tls_key): it has no private key in PEM"],
        ),
        (
            cert,
            none,
            &["(realtime.tls_cert, as realtime.tls_key is not set): it has no private key"],
        ),
        (
            cert,
            &encrypted,
            &["(realtime.tls_key): it is encrypted", "openssl pkey"],
        ),
        (
            cert,
            &other_key,
            &[
                "other.key (realtime.tls_key) is not that of",
                "cert.pem (realtime.tls_cert)",
            ],
        ),
        (&broken, key, &["broken (realtime.tls_cert): "]),
    ];
    for (certificate, key, words) in cases {
        let directory = directory();
        let settings = [
            ("realtime.tls_cert", certificate.to_str().unwrap()),
            ("realtime.tls_key", key.to_str().unwrap()),
        ];
        let config = config(&directory, &settings);
        let queue = realtime::backend::queue::EventQueue::new(config.queue_bytes).unwrap();
        let error = Server::start(config, Arc::new(queue))
            .unwrap_err()
            .to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} in {error:?}");
        }
    }
    // One file with both is enough.
    let both = [&other, &other_key].map(|file| std::fs::read_to_string(file).unwrap());
    let both = write("both", &both.concat());
    let hub = Hub::with(&[
        ("realtime.tls_cert", both.to_str().unwrap()),
        ("realtime.tls_key", ""),
    ]);
    let mut client = Client::secure(hub.address(), &authority.clients());
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_full_server_says_so_in_an_alert() {
    let site = Secured::with(&[
        ("realtime.max_connections_per_address", "1"),
        ("realtime.trusted_proxies", ""),
    ]);
    let first = site.raw("a");
    let error = site.client().try_handshake().unwrap_err();
    // The alert may be lost: nobody waits until it has been read.
    let lost = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    let told = error.to_string().contains("InternalError");
    assert!(told || lost.contains(&error.kind()), "{error}");
    drop(first);
    eventually("a free place", || site.client().try_handshake().is_ok());
}

#[test]
fn the_handler_knows() {
    let place = directory();
    let authority = Authority::new();
    let files = Files::write(place.path(), &authority);
    let site = HandlerSite::new(&files.settings());
    let pool = site.pool(OPEN);
    let mut client = Client::secure(site.server.address(), &authority.clients());
    client.send(handshake("/ws", "Origin: https://test.example\r\n").as_bytes());
    let taken = pool.next();
    assert!(matches!(taken.batch.events[0].what, WireWhat::Open));
    for (name, expected) in [
        ("HTTPS", "on"),
        ("REQUEST_SCHEME", "https"),
        ("SERVER_PORT", "443"),
    ] {
        assert_eq!(taken.params.get(name).map(String::as_str), Some(expected));
    }
    drop(taken);
}

#[test]
fn a_page_without_tls_is_kept_out() {
    let site = Secured::start();
    let mut client = site.client();
    for (origin, status) in [("https://test.example", 200), ("http://test.example", 403)] {
        let origin = format!("Origin: {origin}\r\n");
        let answer = client.request("GET", "/poll?channel=a&timeout=0", &origin, "");
        assert_eq!(answer.status, status, "{origin}");
    }
}

#[test]
fn a_new_server_takes_over_and_brings_tls() {
    let place = directory();
    let authority = Authority::new();
    let files = Files::write(place.path(), &authority);
    let clients = authority.clients();
    let mut site = Site::new(&[
        // Its clients are closed when two thirds of it are over.
        ("realtime.drain", "6"),
        ("realtime.tls_cert", ""),
        ("realtime.tls_key", ""),
    ]);
    let plain = site.first();
    let address = plain.address().to_owned();
    let mut before = Client::plain(&address);
    before.upgrade("/raw/a");
    await_subscriber(&plain);
    // Leaked: settings of a test live as long as it does.
    let settings = files
        .settings()
        .map(|(name, value)| (name, &*value.to_owned().leak()));
    site.settings.retain(|(name, _)| !name.contains("tls"));
    site.settings.extend(settings);
    let secured = site.next();
    assert_eq!(secured.address(), address);
    let mut during = Client::secure(&address, &clients);
    during.upgrade("/raw/a");
    await_subscriber(&secured);
    secured.node().publish(message("a", "1")).unwrap();
    assert_eq!(before.frame().text(), "1", "until it is told to reconnect");
    assert_eq!(during.frame().text(), "1");
    assert_eq!(before.frame().close().0, 1012);
    // And from one with TLS to the next: nobody's handshake breaks.
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, knocking, at) = (stop.clone(), clients.clone(), address.clone());
    let knocker = std::thread::spawn(move || {
        let mut served = 0;
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            assert_eq!(Client::secure(&at, &knocking).get("/healthz").status, 200);
            served += 1;
        }
        served
    });
    let last = site.next();
    last.node().publish(message("a", "2")).unwrap();
    assert_eq!(during.frame().text(), "2");
    assert_eq!(during.frame().close().0, 1012);
    eventually("the end of the others", || {
        plain.has_ended() && secured.has_ended()
    });
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(knocker.join().unwrap() > 0);
}

fn await_subscriber(server: &Server) {
    eventually("a subscriber", || {
        server.node().stats().unwrap().subscriptions == 1
    });
}

/// The first bytes that a client sends.
fn hello(clients: &Arc<ClientConfig>) -> Vec<u8> {
    let name = "test.example".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(clients.clone(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
