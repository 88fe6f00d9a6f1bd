//! One hub takes over from another while clients listen and others publish: nothing lost, nothing doubled, nobody refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use realtime::backend::Event;
use realtime::backend::queue::EventQueue;
use realtime::broker::Walk;
use realtime::config::Config;
use realtime::control::client::Client as Link;
use realtime::ids::Pattern;
use realtime::message::EventName;
use realtime::server::takeover::{TakeoverError, take};
use realtime::server::{Listeners, Server};
use realtime::wire::control::Identity;
use serde_json::{Value, json as value};
use tempfile::TempDir;

use crate::client::Client;
use crate::harness::{
    PATIENCE, channel_named, config, directory, eventually, json, message, stall, start_after,
};
use crate::issuer::{SETTING, token};

/// A place where hubs follow one another.
pub struct Site {
    directory: TempDir,
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Site {
    pub fn new(settings: &[(&'static str, &'static str)]) -> Self {
        let mut settings = settings.to_vec();
        settings.push(("realtime.history_size", "100000"));
        Self {
            directory: directory(),
            settings,
        }
    }

    pub fn config(&self) -> Config {
        config(&self.directory, &self.settings)
    }

    pub fn first(&self) -> Server {
        let config = self.config();
        start(start_after(|| Listeners::bind(&config)).unwrap(), config)
    }

    /// The next hub, which serves when this returns.
    pub fn next(&self) -> Server {
        let config = self.config();
        let before = Instant::now();
        let taken = loop {
            match take(&config) {
                // The one before lets go of its claim a little after it serves; and a process that another test is just starting has
                // it as well, up to its exec.
                Err(TakeoverError::Underway(_)) if before.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                taken => break taken.unwrap(),
            }
        };
        let hub = start(taken, config);
        // The old one answers until it lets go, and then the new one.
        while self.link().identity().generation != hub.node().identity().generation {
            assert!(before.elapsed() < PATIENCE, "the new hub does not serve");
            assert!(!hub.has_ended(), "the new hub gave up");
            std::thread::sleep(Duration::from_millis(1));
        }
        hub
    }

    pub fn link(&self) -> Link {
        Link::connect(&self.config().socket, PATIENCE).unwrap()
    }
}

pub fn start(listeners: Listeners, config: Config) -> Server {
    static GENERATION: AtomicUsize = AtomicUsize::new(1);
    let generation = GENERATION.fetch_add(1, Ordering::SeqCst) as u64;
    let secret = match &listeners.legacy {
        Some(legacy) => legacy.secret.clone(),
        None => format!("secret of {generation}"),
    };
    let identity = Identity {
        generation,
        fingerprint: generation.to_string(),
        detached: true,
        secret,
    };
    let queue = Arc::new(EventQueue::new(config.queue_bytes).unwrap());
    Server::with(listeners, config, queue, identity).unwrap()
}

fn await_end(hub: Server) {
    eventually("the end of the old hub", || hub.has_ended());
}

#[test]
fn clients_history_and_publishers_move() {
    // The client is closed when two thirds of it are over.
    let site = Site::new(&[("realtime.drain", "8")]);
    let old = site.first();
    let address = old.address().to_owned();
    let (mut client, welcome) = Client::native(&address);
    client.subscribe("a", None);
    let mut link = site.link();
    let before = link.publish(&message("a", "1")).unwrap();
    let own = realtime::message::Publish {
        id: Some("own".into()),
        ..message("a", "2")
    };
    assert_eq!(link.publish(&own).unwrap(), "own");
    let secret = link.identity().secret.clone();

    let new = site.next();
    assert_eq!(new.address(), address);
    // The same link: it finds the new hub by itself.
    let after = link.publish(&message("a", "3")).unwrap();
    assert_eq!(link.identity().generation, new.node().identity().generation);
    assert_eq!(link.identity().secret, secret, "requests under way know it");
    assert_eq!(
        before.split_once('-').unwrap().0,
        after.split_once('-').unwrap().0
    );
    // A publisher's id is still known.
    assert_eq!(link.publish(&own).unwrap(), "own");
    // The client is where it was, and gets everything.
    for expected in ["1", "2", "3"] {
        assert_eq!(client.json()["data"].to_string(), expected);
    }
    // Also what is for it alone, and it is counted.
    let id = welcome.id();
    assert!(link.send(id, json("4"), EventName::Message).unwrap());
    assert_eq!(client.json()["data"], 4);
    assert!(link.subscribe(id, channel_named("b")).unwrap());
    assert_eq!(client.json()["channel"], "b");
    let (mut second, _) = Client::native(&address);
    let caught = second.subscribe("a", Some(&before));
    assert_eq!(caught["recovered"], true);
    assert_eq!(
        [second.json(), second.json()].map(|m| m["data"].clone()),
        [2, 3]
    );
    let channels = link.channels(&Pattern::any()).unwrap();
    let named: Vec<_> = channels
        .iter()
        .map(|c| (c.channel.as_str(), c.subscribers))
        .collect();
    assert_eq!(named, [("a", 2), ("b", 1)]);
    assert_eq!(link.connections(None).unwrap().len(), 2);
    assert_eq!(link.stats().unwrap().connections, 2);
    let page = link.history(&channel_named("a"), 10, None).unwrap();
    assert_eq!(page.entries.len(), 3);

    assert_eq!(client.frame().close(), (1012, "reconnect"));
    drop(client);
    await_end(old);
    // The old one has taken nothing away with it.
    assert!(site.config().socket.exists());
    assert!(!link.send(id, json("5"), EventName::Message).unwrap());
    link.publish(&message("a", "6")).unwrap();
    assert_eq!(second.json()["data"], 6);
}

#[test]
fn streams_and_polls_end_cleanly_and_resume() {
    let site = Site::new(&[("realtime.drain", "0.2")]);
    let old = site.first();
    let address = old.address().to_owned();
    let mut sse = Client::stream(&address, "/sse?channel=a", "");
    let mut stream = Client::stream(&address, "/stream?channel=a", "");
    let first = Client::connect(&address)
        .get("/poll?channel=a&timeout=0")
        .json();
    let since = first["cursor"].as_str().unwrap().to_owned();
    let mut poll = Client::connect(&address);
    poll.send(
        format!("GET /poll?channel=a&timeout=60&since={since} HTTP/1.1\r\nHost: x\r\n\r\n")
            .as_bytes(),
    );
    let mut kept = Client::connect(&address);
    assert_eq!(kept.get("/healthz").status, 200);
    eventually("three", || old.node().connection_count() == 3);
    let new = site.next();
    // A kept connection without a request goes at once.
    assert!(kept.is_ended());
    let answer = poll.response(true).json();
    let cursor = answer["cursor"].as_str().unwrap().to_owned();
    assert_eq!(answer["messages"].as_array().unwrap().len(), 0);
    while sse.chunk().is_some() {}
    stream.chunk_with("subscribed");
    while stream.chunk().is_some() {}
    await_end(old);
    site.link().publish(&message("a", "1")).unwrap();
    let next =
        Client::connect(new.address()).get(&format!("/poll?channel=a&timeout=5&since={cursor}"));
    let next = next.json();
    assert_eq!(next["recovered"], true);
    assert_eq!(next["messages"][0]["data"], 1);
}

#[test]
fn an_in_process_server_is_not_taken_over() {
    let hub = crate::harness::Hub::start();
    let directory = hub.socket();
    let config = Config {
        socket: directory,
        ..config(&crate::harness::directory(), &[])
    };
    let refused = take(&config).unwrap_err();
    assert!(
        matches!(refused, TakeoverError::Refused { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("ends with it"), "{refused}");
    hub.publish("a", "1");
}

/// Reads one channel for as long as `done` is not true, reconnecting whenever it is told to, and counts.
struct Listener {
    address: String,
    cursor: Option<String>,
    seen: Vec<i64>,
    closed: usize,
    gaps: usize,
}

impl Listener {
    fn run(&mut self, client: &mut Client, last: i64) {
        while self.seen.last() != Some(&last) {
            let frame = client.frame();
            if frame.opcode == 8 {
                assert_eq!(frame.close().0, 1012);
                self.closed += 1;
                let (fresh, _) = Client::native(&self.address);
                *client = fresh;
                let since = self.cursor.clone();
                let answer = client.subscribe("load", since.as_deref());
                if since.is_some() && answer["recovered"] == false {
                    self.gaps += 1;
                }
                self.cursor
                    .get_or_insert(answer["id"].as_str().unwrap().to_owned());
                continue;
            }
            if frame.opcode == 9 {
                continue;
            }
            let frame: Value = serde_json::from_str(frame.text()).unwrap();
            assert_eq!(frame["type"], "message", "{frame}");
            self.cursor = Some(frame["id"].as_str().unwrap().to_owned());
            self.seen.push(frame["data"].as_i64().unwrap());
        }
    }
}

/// Hubs follow one another under load. Prints what became of the messages.
#[test]
fn nothing_is_lost_under_load() {
    const CLIENTS: usize = 40;
    const PUBLISHERS: i64 = 4;
    const TAKEOVERS: usize = 3;
    const END: i64 = -1;
    let site = Site::new(&[("realtime.drain", "0.3")]);
    let mut hub = site.first();
    let address = hub.address().to_owned();
    let stop = AtomicBool::new(false);
    let published = AtomicUsize::new(0);
    let slowest = std::sync::Mutex::new(Duration::ZERO);
    let outcomes = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (mut client, _) = Client::native(&address);
                let answer = client.subscribe("load", None);
                let mut listener = Listener {
                    address: address.clone(),
                    cursor: Some(answer["id"].as_str().unwrap().to_owned()),
                    seen: Vec::new(),
                    closed: 0,
                    gaps: 0,
                };
                scope.spawn(move || {
                    listener.run(&mut client, END);
                    listener
                })
            })
            .collect();
        let writers: Vec<_> = (0..PUBLISHERS)
            .map(|writer| {
                let (site, stop, published, slowest) = (&site, &stop, &published, &slowest);
                scope.spawn(move || {
                    let mut link = site.link();
                    let mut next = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let text = (writer * 1_000_000 + next).to_string();
                        let begun = Instant::now();
                        link.publish(&message("load", &text)).unwrap();
                        let took = begun.elapsed();
                        let mut slowest = slowest.lock().unwrap();
                        *slowest = took.max(*slowest);
                        drop(slowest);
                        published.fetch_add(1, Ordering::SeqCst);
                        next += 1;
                        std::thread::sleep(Duration::from_micros(300));
                    }
                })
            })
            .collect();
        // Newcomers are never refused.
        let newcomers = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(Client::connect(&address).get("/healthz").status, 200);
                count += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            count
        });
        for _ in 0..TAKEOVERS {
            std::thread::sleep(Duration::from_millis(300));
            let next = site.next();
            let old = std::mem::replace(&mut hub, next);
            await_end(old);
        }
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().unwrap();
        }
        let newcomers: usize = newcomers.join().unwrap();
        site.link()
            .publish(&message("load", &END.to_string()))
            .unwrap();
        let readers: Vec<Listener> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        (readers, newcomers)
    });
    let (readers, newcomers) = outcomes;
    let published = published.into_inner();
    let (mut lost, mut doubled, mut disordered) = (0, 0, 0);
    for reader in &readers {
        let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
        let mut next = [0; PUBLISHERS as usize];
        for &n in &reader.seen[..reader.seen.len() - 1] {
            *counts.entry(n).or_default() += 1;
            let writer = (n / 1_000_000) as usize;
            disordered += usize::from(n % 1_000_000 != next[writer]);
            next[writer] = n % 1_000_000 + 1;
        }
        lost += published - counts.len();
        doubled += counts.values().filter(|&&count| count > 1).count();
    }
    let closed: usize = readers.iter().map(|r| r.closed).sum();
    let gaps: usize = readers.iter().map(|r| r.gaps).sum();
    println!(
        "{published} published, slowest {:?}; {CLIENTS} clients: {lost} lost, {doubled} doubled, {disordered} out of order, \
         {gaps} gaps, {closed} told to reconnect; {newcomers} newcomers",
        slowest.into_inner().unwrap()
    );
    assert!(published > 100, "{published}");
    assert_eq!((lost, doubled, disordered, gaps), (0, 0, 0, 0));
    assert_eq!(closed, CLIENTS * TAKEOVERS);
}

#[test]
fn a_client_on_a_stream_at_the_old_hub_publishes_at_the_new_one() {
    let site = Site::new(&[("realtime.drain", "60")]);
    let old = site.first();
    let mut sse = Client::stream(old.address(), "/sse?channel=a&meta=1", "");
    let welcome = sse.chunk_with("realtime.welcome");
    let welcome: Value = welcome
        .lines()
        .find_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .unwrap();
    let (id, key) = (
        welcome["connection"].as_str().unwrap(),
        welcome["key"].as_str().unwrap(),
    );
    let config = site.config();
    let queue = Arc::new(EventQueue::new(config.queue_bytes).unwrap());
    queue.set_interest(crate::harness::MESSAGES);
    let identity = Identity {
        detached: true,
        generation: u64::MAX,
        ..Identity::default()
    };
    let new = Server::with(take(&config).unwrap(), config, queue.clone(), identity).unwrap();
    eventually("the new hub", || {
        site.link().identity().generation == u64::MAX
    });
    let publish = |key: &str| {
        let body = format!(r#"{{"channel":"a","data":1,"connection":"{id}","key":"{key}"}}"#);
        Client::connect(new.address()).post(&body)
    };
    assert_eq!(publish("0000000000000000").code(), "forbidden");
    std::thread::scope(|scope| {
        let published = scope.spawn(|| publish(key));
        let mut event = None;
        eventually("the event", || {
            event = queue.pop();
            event.is_some()
        });
        let Some(Event::Message { message, reply_to }) = event else {
            panic!("a message");
        };
        assert_eq!(
            (message.from.id.to_string().as_str(), message.from.path()),
            (id, "/sse")
        );
        // And the handler can answer there.
        let sent = site
            .link()
            .send(message.from.id, json("[7]"), EventName::Message);
        assert!(sent.unwrap());
        new.node().reply(reply_to, Ok(Some(json("2"))));
        assert_eq!(published.join().unwrap().json()["data"], 2);
    });
    sse.chunk_with("[7]");
}

#[test]
fn what_a_token_lets_a_client_at_the_old_hub_publish_it_publishes_at_the_new_one() {
    let site = Site::new(&[
        SETTING,
        ("realtime.drain", "60"),
        ("realtime.rate_messages", "2"),
    ]);
    let old = site.first();
    let claims = value!({"sub": "ada", "channels": "private-*", "publish": "private-chat"});
    let path = format!(
        "/sse?channel=private-chat&meta=1&token={}",
        token(claims.clone())
    );
    // Some are closed already when they are looked for.
    let mut streams: Vec<Client> = (0..10)
        .map(|_| Client::stream(old.address(), &path, ""))
        .collect();
    let mut welcomes = Vec::new();
    for stream in &mut streams {
        let welcome = stream.chunk_with("realtime.welcome");
        let mut lines = welcome.lines();
        let welcome: Value = lines
            .find_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .unwrap();
        welcomes.push(welcome);
    }
    let new = site.next();
    let post = |welcome: &Value, channel: &str| {
        let (id, key) = (&welcome["connection"], &welcome["key"]);
        let body = value!({"channel": channel, "data": 7, "connection": id, "key": key});
        Client::connect(new.address()).post(&body.to_string())
    };
    let mut found = welcomes.iter().rev();
    let publisher = found.find(|it| post(it, "private-chat").status == 200);
    let publisher = publisher.expect("one that the old hub still has");
    let other = post(publisher, "private-other");
    assert_eq!((other.status, &*other.code()), (503, "no_handler"));
    let history = |channel| {
        let mut link = site.link();
        let page = link.history(&channel_named(channel), 10, Walk::Newest);
        page.unwrap().entries.len()
    };
    assert_eq!((history("private-chat"), history("private-other")), (1, 0));
    // Its pace is kept there.
    let refused =
        (0..60).find_map(|_| Some(post(publisher, "private-chat")).filter(|it| it.status != 200));
    let refused = refused.expect("too many");
    assert_eq!((refused.status, &*refused.code()), (429, "busy"));
    assert!(history("private-chat") >= 5);
    site.link().disconnect("ada", 4000, "").unwrap();
    await_end(old);
}

/// What waits for a shard that is behind when another hub takes over is done there or not at all: the old one gives no number any
/// more, and whoever is told "done" finds it in the new one's history.
#[test]
fn what_waits_for_room_is_not_published_at_the_old_hub() {
    let site = Site::new(&[
        SETTING,
        ("realtime.queue_bytes", "64K"),
        ("realtime.drain", "60"),
    ]);
    let old = site.first();
    // One for each shard: none is behind for nobody.
    let _clients = [0; 2].map(|_| Client::native(old.address()));
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let wait = move |_: &mut realtime::hub::Hub| {
        let _ = ended.recv();
    };
    let stalled = realtime::hub::mailbox::Command::Run(Box::new(wait));
    old.node().shard(0).put(stalled);
    let filler = format!("\"{}\"", "x".repeat(1000));
    let before = 200;
    for _ in 0..before {
        old.node().publish_now(message("a", &filler)).unwrap();
    }
    old.node().rouse();
    assert!(!old.node().has_room());
    let token = token(value!({"publish": "private-chat"}));
    let head = format!("Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
    let publish = &|number: usize| {
        let body = format!(r#"{{"channel":"private-chat","data":{number}}}"#);
        let mut client = Client::connect(old.address());
        client.request("POST", "/publish", &head, &body).status
    };
    std::thread::scope(|scope| {
        // Of each two, one comes to a shard that works.
        let publishing: Vec<_> = (0..4)
            .map(|number| scope.spawn(move || publish(number)))
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let new = site.next();
        drop(end);
        let told: Vec<u16> = publishing
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect();
        let page = site
            .link()
            .history(&channel_named("private-chat"), 10, Walk::Newest);
        let done = told.iter().filter(|status| **status == 200).count();
        assert_eq!(page.unwrap().entries.len(), done, "{told:?}");
        assert_eq!(old.node().stats().unwrap().published, before);
        drop(new);
    });
}

/// Who waits for the answer to a message is closed last: without it, the client would send that once more elsewhere.
#[test]
fn an_answer_that_comes_while_clients_are_closed_is_still_got() {
    let site = Site::new(&[("realtime.threads", "1"), ("realtime.drain", "3")]);
    let config = site.config();
    let queue = Arc::new(EventQueue::new(config.queue_bytes).unwrap());
    queue.set_interest(crate::harness::MESSAGES);
    let identity = Identity {
        detached: true,
        secret: "secret".into(),
        ..Identity::default()
    };
    let listeners = start_after(|| Listeners::bind(&config)).unwrap();
    let old = Server::with(listeners, config, queue.clone(), identity).unwrap();
    let mut clients = [0; 4].map(|_| Client::native(old.address()).0);
    for client in &mut clients[..2] {
        client.say(r#"{"type":"publish","channel":"a","data":1,"ref":1}"#);
    }
    eventually("both messages", || queue.len() == 2);
    let _new = site.next();
    // The other two are closed by then.
    std::thread::sleep(Duration::from_millis(2000));
    while let Some(event) = queue.pop() {
        let Event::Message { reply_to, .. } = event else {
            panic!("a message");
        };
        old.node().reply(reply_to, Ok(Some(json("2"))));
    }
    for client in &mut clients[..2] {
        assert_eq!(client.json()["type"], "reply");
    }
    for client in &mut clients {
        assert_eq!(client.frame().close(), (1012, "reconnect"));
    }
    drop(clients);
    await_end(old);
}

#[test]
fn a_new_address_is_bound_and_the_old_one_served_for_a_while() {
    let mut site = Site::new(&[("realtime.drain", "6")]);
    let old = site.first();
    let former = old.address().to_owned();
    let (mut client, _) = Client::native(&former);
    client.subscribe("a", None);
    site.settings.push(("realtime.listen", "localhost:0"));
    site.settings.rotate_right(1);
    let new = site.next();
    assert_ne!(new.address(), former);
    site.link().publish(&message("a", "1")).unwrap();
    for address in [&former, new.address()] {
        let (mut client, _) = Client::native(address);
        let answer = client.subscribe("a", None);
        assert!(answer["id"].as_str().unwrap().ends_with("-1"), "{answer}");
    }
    assert_eq!(client.json()["data"], 1);
    assert_eq!(client.frame().close(), (1012, "reconnect"));
    drop(client);
    await_end(old);
    eventually("that nobody listens there", || {
        std::net::TcpStream::connect(&former).is_err()
    });
    assert_eq!(Client::connect(new.address()).get("/healthz").status, 200);
}

#[test]
fn the_same_port_at_all_addresses_can_follow_one_address() {
    let mut site = Site::new(&[("realtime.drain", "0.2")]);
    let old = site.first();
    let former = old.address().to_owned();
    let port = former.rsplit(':').next().unwrap();
    let all: &'static str = format!("0.0.0.0:{port}").leak();
    site.settings.insert(0, ("realtime.listen", all));
    let new = site.next();
    assert_eq!(new.address(), all);
    await_end(old);
    for _ in 0..50 {
        assert_eq!(Client::connect(&former).get("/healthz").status, 200);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_unix_socket_stays_where_it_is() {
    let place = directory();
    let address: &'static str = format!("unix:{}/clients.sock", place.path().display()).leak();
    let site = Site::new(&[("realtime.drain", "0"), ("realtime.listen", address)]);
    let old = site.first();
    let new = site.next();
    await_end(old);
    assert_eq!(Client::connect(address).get("/healthz").status, 200);
    drop(new);
    assert!(!place.path().join("clients.sock").exists());
    assert!(!site.config().socket.exists());
}

#[test]
fn what_was_revoked_stays_so_and_users_are_found_at_the_old_hub() {
    let site = Site::new(&[SETTING, ("realtime.drain", "60")]);
    let old = site.first();
    let address = old.address().to_owned();
    let open = |token: &str| Client::websocket(&address, &format!("/ws?token={token}"));
    let (gone, bob) = (
        token(value!({"sub": "ada"})),
        token(value!({"sub": "bob", "publish": "*"})),
    );
    let eve = token(value!({"sub": "eve"}));
    let mut clients: Vec<Client> = (0..20).map(|_| open(&bob)).collect();
    clients.iter_mut().for_each(|client| drop(client.json()));
    let mut link = site.link();
    link.revoke_token(&gone).unwrap();
    link.revoke_user("eve").unwrap();
    let new = site.next();
    assert_eq!(new.address(), address);
    for token in [&gone, &eve] {
        let mut client = Client::connect(&address);
        let refused = client.get(&format!("/poll?channel=a&token={token}"));
        assert_eq!((refused.status, &*refused.code()), (401, "bad_token"));
    }
    let old_ones = old.node().connection_count();
    assert!(old_ones > 0, "drained already");
    let listed = link.connections(None).unwrap();
    assert!(listed.iter().all(|info| info.user() == Some("bob")));
    let closed = link.disconnect("bob", 4321, "off you go").unwrap();
    assert!(closed > 0);
    eventually("their end", || old.node().connection_count() == 0);
    drop(new);
    await_end(old);
}

#[test]
fn who_sends_users_away_hears_that_the_old_hub_has_not_done_it() {
    let site = Site::new(&[SETTING, ("realtime.drain", "60"), ("realtime.timeout", "3")]);
    let old = site.first();
    let address = old.address().to_owned();
    let bob = token(value!({"sub": "bob"}));
    let open = || Client::websocket(&address, &format!("/ws?token={bob}"));
    let mut clients: Vec<Client> = (0..20).map(|_| open()).collect();
    clients.iter_mut().for_each(|client| drop(client.json()));
    let new = site.next();
    let mut link = site.link();
    stall(old.node(), || {
        let failure = link.revoke_user("bob").unwrap_err();
        assert!(
            failure.to_string().contains("may not have done it"),
            "{failure}"
        );
    });
    // Here it is done: nobody comes back with it.
    let refused = Client::connect(&address).get(&format!("/poll?channel=a&token={bob}"));
    assert_eq!((refused.status, &*refused.code()), (401, "bad_token"));
    eventually("their end", || old.node().connection_count() == 0);
    assert_eq!(site.link().disconnect("bob", 4000, "").unwrap(), 0);
    drop(new);
    await_end(old);
}
