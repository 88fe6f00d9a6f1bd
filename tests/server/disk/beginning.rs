//! A server that finds what another has left, and a disk that takes nothing: it serves, keeps what was there, and goes on when it can.

use std::os::unix::fs::FileExt;

use realtime::control::client::Client as Link;
use realtime::message::Publish;
use realtime::node::Failure;
use tempfile::TempDir;

use super::killed::{limit_files, started};
use crate::client::Client;
use crate::detached::{Hub, Worker};
use crate::harness::{channel_named, directory, eventually, message};

/// What a hub's files may have when nothing is to be written: less than a database's first page.
const NOTHING: u64 = 2048;

/// A place of hubs, and what they were told.
struct Story {
    directory: TempDir,
    settings: Vec<(&'static str, String)>,
    acknowledged: Vec<usize>,
    next: usize,
}

impl Story {
    fn new(fsync: &str) -> Self {
        let directory = directory();
        let data = directory.path().join("data").display().to_string();
        let settings = vec![
            ("realtime.history", "disk".to_owned()),
            ("realtime.data_dir", data),
            ("realtime.fsync", fsync.to_owned()),
            ("realtime.timeout", "20".to_owned()),
            ("realtime.linger", "30".to_owned()),
            ("realtime.drain", "0.1".to_owned()),
            ("realtime.history_size", "1000000".to_owned()),
        ];
        Self {
            directory,
            settings,
            acknowledged: Vec::new(),
            next: 0,
        }
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        let settings = self.settings.iter();
        settings.map(|(name, value)| (*name, &**value)).collect()
    }

    /// A hub that can write, or cannot.
    fn start(&self, writes: bool) -> (Worker, Hub) {
        let settings = self.settings();
        if writes {
            return (
                started(&self.directory, &settings),
                Hub::of(&self.directory),
            );
        }
        let worker = self.limited("start", (1, "a"));
        (worker, Hub::of(&self.directory))
    }

    fn limited(&self, order: &str, build: (u64, &str)) -> Worker {
        let settings = self.settings();
        let mut worker = None;
        eventually("its turn", || {
            let next = Worker::send_limited(order, &self.directory, build, &settings, NOTHING);
            let wait = next.answer.starts_with("another process")
                || next.answer.contains("without being asked to");
            if !wait {
                worker = Some(next);
            }
            !wait
        });
        let worker = worker.unwrap();
        assert_eq!(worker.answer, "ok", "never a refusal to serve");
        worker
    }

    fn publish(&mut self, link: &mut Link) -> Result<String, Failure> {
        self.next += 1;
        let id = link.publish(&message("a", &self.next.to_string()))?;
        self.acknowledged.push(self.next);
        Ok(id)
    }

    /// A hub that has some messages in the database, and others in the ring, where they stay. The id of the first one.
    fn fill(&mut self) -> (Worker, Hub, String) {
        let (worker, mut hub) = self.start(true);
        let first = self.publish(&mut hub.link).unwrap();
        for _ in 0..50 {
            self.publish(&mut hub.link).unwrap();
        }
        limit_files(hub.pid, NOTHING);
        eventually("a refusal", || self.publish(&mut hub.link).is_err());
        (worker, hub, first)
    }

    /// Serves, says what hinders it, and gives no number twice. The id of a message that was not to be kept.
    fn check_refusal(&mut self, hub: &mut Hub) -> String {
        // Where the ring can be gone on with, it may take some first.
        let mut refused = None;
        eventually("a refusal", || {
            refused = self.publish(&mut hub.link).err();
            refused.is_some()
        });
        match refused {
            Some(Failure::Refused(text) | Failure::Unstored(text)) => {
                assert!(text.contains("realtime.data_dir"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        let unkept = Publish {
            store: false,
            ..message("a", "0")
        };
        hub.link.publish(&unkept).unwrap()
    }

    #[track_caller]
    fn check(&self, hub: &mut Hub) {
        let page = hub.link.history(&channel_named("a"), 1_000_000, None);
        let kept = super::numbers(&page.unwrap());
        let lost = self.acknowledged.iter().filter(|one| !kept.contains(one));
        assert_eq!(lost.count(), 0, "of {:?}: {kept:?}", self.acknowledged);
        assert!(kept.is_sorted_by(|a, b| a < b), "{kept:?}");
    }
}

fn kill((worker, hub): (Worker, Hub)) {
    hub.signal(libc::SIGKILL);
    hub.await_end();
    drop(worker);
}

fn number(id: &str) -> u64 {
    id.split_once('-').unwrap().1.parse().unwrap()
}

fn is_recovered(hub: &Hub, since: &str) -> bool {
    let (mut client, _) = Client::native(&hub.address);
    client.subscribe("a", Some(since))["recovered"] == true
}

/// What every story ends with: what was refused is taken again, and what was acknowledged is there, also for the next hub.
fn end(mut story: Story, (worker, mut hub): (Worker, Hub), unkept: &str) {
    story.check(&mut hub);
    limit_files(hub.pid, libc::RLIM_INFINITY);
    let mut id = None;
    eventually("room", || {
        id = story.publish(&mut hub.link).ok();
        id.is_some()
    });
    assert!(
        number(&id.unwrap()) > number(unkept),
        "a number was given twice"
    );
    kill((worker, hub));
    let (_worker, mut hub) = story.start(true);
    story.check(&mut hub);
}

#[test]
fn killed_before_it_could_write_anything() {
    for fsync in ["interval", "always", "never"] {
        let mut story = Story::new(fsync);
        let (worker, hub, since) = story.fill();
        kill((worker, hub));
        let mut unkept = String::from("0-0");
        for _ in 0..3 {
            let mut next = story.start(false);
            story.check(&mut next.1);
            assert!(is_recovered(&next.1, &since), "{fsync}");
            let refused = story.check_refusal(&mut next.1);
            assert!(number(&refused) > number(&unkept));
            unkept = refused;
            kill(next);
        }
        let next = story.start(false);
        end(story, next, &unkept);
    }
}

#[test]
fn a_larger_ring_takes_the_place_of_one_whose_messages_are_safe() {
    for fsync in ["interval", "always"] {
        let mut story = Story::new(fsync);
        let (worker, hub, since) = story.fill();
        kill((worker, hub));
        // Twice that is more than the ring has.
        story
            .settings
            .push(("realtime.max_message_size", "8M".into()));
        let mut unkept = String::from("0-0");
        for _ in 0..3 {
            let mut next = story.start(false);
            story.check(&mut next.1);
            assert!(is_recovered(&next.1, &since), "{fsync}");
            let refused = story.check_refusal(&mut next.1);
            assert!(
                number(&refused) > number(&unkept),
                "a number was given twice"
            );
            unkept = refused;
            kill(next);
        }
        let (worker, mut hub) = story.start(false);
        story.check_refusal(&mut hub);
        limit_files(hub.pid, libc::RLIM_INFINITY);
        let large = message("b", &format!("\"{}\"", "x".repeat(6 << 20)));
        let mut id = None;
        eventually("room", || {
            id = hub.link.publish(&large).ok();
            id.is_some()
        });
        assert!(number(&id.unwrap()) > number(&unkept));
        let data = story.directory.path().join("data");
        assert!(std::fs::metadata(data.join("recent")).unwrap().len() > 16 << 20);
        assert!(!data.join("recent.new").exists());
        kill((worker, hub));
        let next = story.start(true);
        end(story, next, &unkept);
    }
}

#[test]
fn a_takeover_on_a_full_disk() {
    for larger in [false, true] {
        let mut story = Story::new("interval");
        let (_first, old, since) = story.fill();
        if larger {
            story
                .settings
                .push(("realtime.max_message_size", "8M".into()));
        }
        let worker = story.limited("take", (2, "b"));
        old.await_end();
        let mut next = (worker, Hub::of(&story.directory));
        story.check(&mut next.1);
        assert!(is_recovered(&next.1, &since));
        let unkept = story.check_refusal(&mut next.1);
        kill(next);
        let mut next = story.start(false);
        story.check(&mut next.1);
        assert!(is_recovered(&next.1, &since), "larger: {larger}");
        end(story, next, &unkept);
    }
}

/// The messages of which a power cut may have taken some are in doubt until the disk knows that they are.
#[test]
fn a_doubt_outlives_a_crash() {
    let mut story = Story::new("interval");
    let (worker, mut hub) = story.start(true);
    let first = story.publish(&mut hub.link).unwrap();
    story.publish(&mut hub.link).unwrap();
    kill((worker, hub));
    let ring = story.directory.path().join("data/recent");
    let ring = std::fs::File::options().write(true).open(ring).unwrap();
    // `Field::Boot` of `store::ring`.
    ring.write_all_at(&7_u64.to_le_bytes(), 3 * 8).unwrap();
    let mut unkept = String::from("0-0");
    for _ in 0..3 {
        let mut next = story.start(false);
        assert!(!is_recovered(&next.1, &first));
        let refused = story.check_refusal(&mut next.1);
        assert!(
            number(&refused) > number(&unkept),
            "a number was given twice"
        );
        unkept = refused;
        kill(next);
    }
    let next = story.start(true);
    assert!(!is_recovered(&next.1, &first));
    kill(next);
    let next = story.start(true);
    assert!(!is_recovered(&next.1, &first));
    end(story, next, &unkept);
}
