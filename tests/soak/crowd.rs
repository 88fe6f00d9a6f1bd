//! Clients that come, go, stall and misbehave: one thread, one epoll, always the same number of them. What they say is in
//! `manner`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::Outcome;
use crate::epoll::Epoll;
use crate::manner::{Keys, MANNERS, Manner};
use crate::pest::{Dice, Pest};
use crate::wire::{client_frame, find};

/// From where they come: one address has its limit, and a port stays taken for a while.
const HOSTS: u8 = 20;

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
    /// Brings `count` clients, each of which stays about `stay`; with `trust` they speak TLS.
    pub fn start(
        count: usize,
        address: SocketAddr,
        stay: Duration,
        trust: Option<Arc<ClientConfig>>,
    ) -> Self {
        let heard = Arc::new(AtomicU64::new(0));
        let stay = Arc::new(AtomicU64::new(stay.as_millis() as u64));
        let stop = Arc::new(AtomicBool::new(false));
        let (counter, stays, stopped) = (heard.clone(), stay.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut all = All {
                address,
                trust,
                keys: Keys::new()?,
                stay: stays,
                clients: Vec::new(),
                epoll: Epoll::new()?,
                dice: Dice(0x9e37_79b9_7f4a_7c15),
                came: 0,
                refused: 0,
                unproven: MANNERS
                    .into_iter()
                    .filter(|its| its.proof().is_some())
                    .collect(),
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
    trust: Option<Arc<ClientConfig>>,
    keys: Keys,
    stay: Arc<AtomicU64>,
    clients: Vec<Option<Client>>,
    epoll: Epoll,
    dice: Dice,
    came: u64,
    refused: u64,
    /// Those of whom nobody has heard yet what each of them must hear.
    unproven: BTreeSet<Manner>,
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
        if !self.unproven.is_empty() {
            return Err(format!("nobody was served who is {:?}", self.unproven));
        }
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
        if let Some(proof) = client.manner.proof()
            && self.unproven.contains(&client.manner)
            && find(&bytes, proof).is_some()
        {
            self.unproven.remove(&client.manner);
        }
        if !bytes.is_empty()
            && !client.pest.ended
            && let Some(reply) = client.manner.reply(&bytes, &mut self.dice, &self.keys)
        {
            client.pest.send(&reply);
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
            if let Some(words) = client.manner.chatter(index, &mut self.dice) {
                client.pest.send(&words);
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
        // Some never get as far as that.
        if !matches!(manner, Manner::Silent | Manner::Rude)
            && let Some(trust) = &self.trust
        {
            pest.secure(trust)?;
        }
        pest.send(&manner.opening(&mut self.dice, &self.keys)?);
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
