//! Clients that come, go, stall and misbehave: one thread, one epoll, always the same number of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::epoll::Epoll;
use crate::pest::{Dice, Pest};
use crate::wire::{Kind, client_frame};

/// How many rooms there are to subscribe to.
pub const ROOMS: usize = 50;
/// From where they come: one address has its limit, and a port stays taken for a while.
const HOSTS: u8 = 20;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Manner {
    Native,
    Raw,
    Deflate,
    Sse,
    Stream,
    Poll,
    /// Sends to PHP now and then.
    Speaks,
    /// Reads nothing.
    Stalls,
    /// Never says what it wants.
    Silent,
    /// Says what nobody understands.
    Rude,
}

const MANNERS: [Manner; 14] = [
    Manner::Native,
    Manner::Native,
    Manner::Native,
    Manner::Raw,
    Manner::Raw,
    Manner::Deflate,
    Manner::Sse,
    Manner::Sse,
    Manner::Stream,
    Manner::Poll,
    Manner::Speaks,
    Manner::Stalls,
    Manner::Silent,
    Manner::Rude,
];

struct Client {
    pest: Pest,
    manner: Manner,
    until: Instant,
}

/// The running thread.
pub struct Crowd {
    /// Bytes that came.
    pub heard: Arc<AtomicU64>,
    /// Milliseconds that clients stay who come.
    stay: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome<String>>,
}

impl Crowd {
    /// Brings `count` clients, each of which stays about `stay`.
    pub fn start(count: usize, address: SocketAddr, stay: Duration) -> Self {
        let heard = Arc::new(AtomicU64::new(0));
        let stay = Arc::new(AtomicU64::new(stay.as_millis() as u64));
        let stop = Arc::new(AtomicBool::new(false));
        let (counter, stays, stopped) = (heard.clone(), stay.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut all = All {
                address,
                stay: stays,
                clients: Vec::new(),
                epoll: Epoll::new()?,
                dice: Dice(0x9e37_79b9_7f4a_7c15),
                came: 0,
                refused: 0,
                ended: BTreeMap::new(),
            };
            all.run(count, &counter, &stopped)
        });
        Self {
            heard,
            stay,
            stop,
            thread,
        }
    }

    /// From now on those who come stay about this long.
    pub fn stay(&self, stay: Duration) {
        self.stay.store(stay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Lets all of them go; says what became of them.
    pub fn stop(self) -> Outcome<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the crowd panicked")?
    }

    /// Whether it has met something that it cannot go on with.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

struct All {
    address: SocketAddr,
    stay: Arc<AtomicU64>,
    clients: Vec<Option<Client>>,
    epoll: Epoll,
    dice: Dice,
    came: u64,
    refused: u64,
    /// How many were ended by the server, by manner.
    ended: BTreeMap<Manner, u64>,
}

impl All {
    fn run(&mut self, count: usize, heard: &AtomicU64, stop: &AtomicBool) -> Outcome<String> {
        self.clients.resize_with(count, || None);
        let mut next = 0;
        while !stop.load(Ordering::Relaxed) {
            let ready: Vec<u64> = self.epoll.wait(Duration::from_millis(5))?.collect();
            for token in ready {
                heard.fetch_add(self.hear(token as usize), Ordering::Relaxed);
            }
            // A part of them each time: those whose time is over go, others come.
            for _ in 0..count.div_ceil(20) {
                next = (next + 1) % count;
                self.visit(next)?;
            }
        }
        self.clients.clear();
        Ok(format!(
            "{} clients came, {} found no place; ended by the server: {:?}",
            self.came, self.refused, self.ended
        ))
    }

    fn hear(&mut self, index: usize) -> u64 {
        let Some(client) = &mut self.clients[index] else {
            return 0;
        };
        if client.manner == Manner::Stalls {
            return 0;
        }
        let bytes = client.pest.read();
        if client.manner == Manner::Poll && !bytes.is_empty() && !client.pest.ended {
            // The answer to a poll: ask again.
            let request = poll(&mut self.dice);
            client.pest.send(&request);
        }
        bytes.len() as u64
    }

    fn visit(&mut self, index: usize) -> Outcome<()> {
        let Some(client) = &mut self.clients[index] else {
            return self.bring(index);
        };
        if client.pest.ended {
            *self.ended.entry(client.manner).or_default() += 1;
            self.clients[index] = None;
        } else if Instant::now() > client.until {
            if self.dice.below(3) == 0 {
                client.pest.send(&client_frame(8, &[3, 232]));
            }
            self.clients[index] = None;
        } else {
            match client.manner {
                Manner::Speaks if self.dice.below(10) == 0 => {
                    let frame = format!(
                        r#"{{"type":"publish","channel":"room-1","ref":1,"data":{index}}}"#
                    );
                    client.pest.send(&client_frame(1, frame.as_bytes()));
                }
                Manner::Native if self.dice.below(50) == 0 => {
                    let room = self.dice.below(ROOMS);
                    let frame = format!(r#"{{"type":"unsubscribe","channel":"room-{room}"}}"#);
                    client.pest.send(&client_frame(1, frame.as_bytes()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn bring(&mut self, index: usize) -> Outcome<()> {
        let manner = MANNERS[self.dice.below(MANNERS.len())];
        let host = 1 + (index % usize::from(HOSTS)) as u8;
        let pest = match manner {
            Manner::Stalls => Pest::narrow(host, self.address)?,
            _ => Pest::open(host, self.address)?,
        };
        let Some(mut pest) = pest else {
            self.refused += 1;
            return Ok(());
        };
        self.came += 1;
        let rooms = [0; 3].map(|_| format!("room-{}", self.dice.below(ROOMS)));
        let path = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        pest.send(&match manner {
            Manner::Native | Manner::Speaks | Manner::Stalls => Kind::Native.request(""),
            Manner::Raw => Kind::Raw.request(&rooms[0]),
            Manner::Deflate => Kind::Deflate.request(&rooms[0]),
            Manner::Sse => path(&format!("/sse?channel={}", rooms.join("&channel="))),
            Manner::Stream => path(&format!("/stream?channel={}", rooms.join("&channel="))),
            Manner::Poll => poll(&mut self.dice),
            Manner::Silent => b"GET /ws HT".to_vec(),
            Manner::Rude => self.dice.bytes(100),
        });
        if matches!(manner, Manner::Native | Manner::Speaks | Manner::Stalls) {
            for room in &rooms {
                // Some want all there is, which is not all they ask for.
                let since = match self.dice.below(4) {
                    0 => r#","since":"00000000-1""#,
                    _ => "",
                };
                let frame = format!(r#"{{"type":"subscribe","channel":"{room}"{since}}}"#);
                pest.send(&client_frame(1, frame.as_bytes()));
            }
        }
        let stay = Duration::from_millis(self.stay.load(Ordering::Relaxed))
            .mul_f64(0.2 + self.dice.below(1600) as f64 / 1000.0);
        if manner != Manner::Stalls {
            // There always is something to read for them.
            self.epoll.add(pest.descriptor(), index as u64)?;
        }
        self.clients[index] = Some(Client {
            pest,
            manner,
            until: Instant::now() + stay,
        });
        Ok(())
    }
}

fn poll(dice: &mut Dice) -> Vec<u8> {
    let room = dice.below(ROOMS);
    // One that is not polled again goes on for ten seconds.
    let session = if dice.below(50) == 0 {
        "&session=1"
    } else {
        ""
    };
    format!("GET /poll?channel=room-{room}{session} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}
