//! What has not begun when a hub hands over, or has begun and is not over: it is done once, by one of the two.

use std::os::fd::AsRawFd;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use realtime::hub::mailbox::Command;
use realtime::ids::{ConnectionId, Pattern};
use realtime::message::EventName;
use realtime::server::Server;
use realtime::wire::control::VERSION;
use realtime::wire::handover::{HANDOVER, Step};
use serde_json::json as value;

use crate::client::Client;
use crate::disk::syncs::{Trace, place};
use crate::harness::{channel_named, directory, eventually, json, message, stall};
use crate::issuer::{SETTING, token};
use crate::takeover::Site;
use crate::takeover_bad::Raw;

/// Has a shard take nothing up for as long as what is returned lives, and as much wait for it as may.
fn hold(hub: &Server, shard: usize) -> Sender<()> {
    let (end, ended) = bounded::<()>(0);
    let (begun, begin) = bounded::<()>(1);
    let wait = move |_: &mut realtime::hub::Hub| {
        begun.send(()).unwrap();
        let _ = ended.recv();
    };
    let shard = hub.node().shard(shard);
    shard.put(Command::Run(Box::new(wait)));
    begin.recv().unwrap();
    let payload = json(&"1".repeat(hub.node().config().queue_bytes));
    shard.put(Command::Send {
        to: ConnectionId::from_bits(0),
        payload,
        event: EventName::Message,
    });
    end
}

#[test]
fn who_waits_for_room_while_a_hub_hands_over_publishes_nothing_there() {
    let site = Site::new(&[
        SETTING,
        ("realtime.drain", "60"),
        ("realtime.queue_bytes", "64K"),
    ]);
    let old = site.first();
    let bob = token(value!({"sub": "bob", "publish": "*"}));
    let mut clients: Vec<Client> = Vec::new();
    // One of the shard that goes on.
    let mut client = loop {
        let mut client = Client::websocket(old.address(), &format!("/ws?token={bob}"));
        let welcome = client.json();
        let id: ConnectionId = welcome["connection"].as_str().unwrap().parse().unwrap();
        if id.shard() == 0 {
            break client;
        }
        clients.push(client);
    };
    let before = site.link().publish(&message("a", "0")).unwrap();
    let held = hold(&old, 1);
    assert!(!old.node().has_room());
    client.say(r#"{"type":"publish","channel":"a","data":1,"ref":1}"#);
    let received = &old.node().shard(0).stats.received;
    eventually("the message", || {
        received.load(std::sync::atomic::Ordering::Relaxed) == 1
    });
    let new = site.next();
    drop(held);
    let answer = client.json();
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&value!("error"), &value!("gone")),
        "{answer}"
    );
    // The new one gives the number that comes next.
    let mut link = site.link();
    let after = link.publish(&message("a", "2")).unwrap();
    let number = |id: &str| id.split_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(number(&after), number(&before) + 1);
    let page = link.history(&channel_named("a"), 10, None).unwrap();
    assert_eq!(page.entries.len(), 2);
    drop((old, new));
}

#[test]
fn what_concerns_users_while_a_hub_hands_over_is_done_at_the_new_one() {
    let site = Site::new(&[SETTING, ("realtime.drain", "60")]);
    let old = site.first();
    // Without a client it would end at once.
    let client = Client::native(old.address());
    let (gone, bob) = (token(value!({"sub": "ada"})), token(value!({"sub": "bob"})));
    let new = std::thread::scope(|scope| {
        let (mut new, mut others, mut late, mut bobs) = (None, Vec::new(), Vec::new(), None);
        stall(old.node(), || {
            // As many as may wait for the shards, and who comes behind them.
            for _ in 0..4 {
                let mut link = site.link();
                others.push(scope.spawn(move || link.channels(&Pattern::any())));
            }
            std::thread::sleep(Duration::from_millis(200));
            let (mut link, gone) = (site.link(), &gone);
            late.push(scope.spawn(move || link.revoke_token(gone)));
            let mut link = site.link();
            late.push(scope.spawn(move || link.disconnect("bob", 4321, "off you go")));
            std::thread::sleep(Duration::from_millis(200));
            let next = site.next();
            let mut client = Client::websocket(next.address(), &format!("/ws?token={bob}"));
            assert_eq!(client.json()["type"], "welcome");
            (new, bobs) = (Some(next), Some(client));
        });
        for other in others {
            other.join().unwrap().unwrap();
        }
        let done: Vec<usize> = late
            .into_iter()
            .map(|it| it.join().unwrap().unwrap())
            .collect();
        assert_eq!(done, [0, 1]);
        assert_eq!(bobs.unwrap().frame().close(), (4321, "off you go"));
        new.unwrap()
    });
    let refused = Client::connect(new.address()).get(&format!("/poll?channel=a&token={gone}"));
    assert_eq!((refused.status, &*refused.code()), (401, "bad_token"));
    drop(client);
}

/// A new hub whose disk stands still may have the directory for longer than the old one waits for its word, and for the directory.
#[test]
fn a_hub_that_serves_on_keeps_messages_as_soon_as_it_can() {
    let directory = directory();
    let data: &'static str = directory.path().join("data").display().to_string().leak();
    let site = Site::new(&[("realtime.history", "disk"), ("realtime.data_dir", data)]);
    let old = site.first();
    let mut link = site.link();
    link.publish(&message("a", "1")).unwrap();
    let mut new = Raw::taker(&site, VERSION, HANDOVER);
    new.estate();
    new.past();
    new.step(Step::Ready);
    new.await_step(Step::Yours);
    let lock = std::fs::File::open(format!("{data}/lock")).unwrap();
    // SAFETY: takes no pointer; the descriptor is open for as long as `lock` lives.
    let locked = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    assert_eq!(locked, 0, "the old one has let go of it");
    // It gives up waiting for the word.
    while new.frame().is_some() {}
    // And then for the directory.
    eventually("the old hub", || {
        site.link().stats().is_ok() && !old.has_ended()
    });
    assert!(old.node().publish(message("a", "2")).is_err());
    drop((lock, new));
    eventually("a hub that publishes", || {
        site.link().publish(&message("a", "3")).is_ok()
    });
    let page = site.link().history(&channel_named("a"), 10, None).unwrap();
    assert_eq!(page.entries.len(), 2);
    drop(old);
    // All of it was kept.
    let again = site.first();
    let page = again.node().history(&channel_named("a"), 10, None).unwrap();
    assert_eq!(page.entries.len(), 2);
}

/// The word that counts comes at the last moment, and the old hub's process stands still before it reads it: for longer than it
/// would wait if it had not come.
#[test]
fn a_hub_that_gets_late_to_the_last_word_does_not_serve_beside_the_new_one() {
    let place = place("never");
    let pid = place.hub.pid;
    let mut new = Raw::taker_of(&place.directory.path().join("hub.sock"));
    new.estate();
    new.past();
    new.step(Step::Ready);
    new.await_step(Step::Yours);
    let stands_still =
        "-e inject=shutdown:delay_enter=1500000 -e inject=epoll_wait:delay_enter=6000000";
    let calls = "-e trace=shutdown,epoll_wait";
    let trace = Trace::at(&place, "late", &format!("{calls} {stands_still} -p {pid}"));
    // It is about to say that it hears nothing more.
    let shutdown = format!("{} ", libc::SYS_shutdown);
    eventually("the end of its patience", || {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
        call.is_ok_and(|call| call.starts_with(&shutdown))
    });
    new.step(Step::Serving);
    std::thread::sleep(Duration::from_secs(9));
    drop(trace);
    place.hub.await_end();
}
