//! What is done to the server. Each attack goes on until its time is up, and says in words what it did and met.

pub mod floods;
pub mod http;
pub mod slow;
pub mod websocket;

use std::net::SocketAddr;
use std::time::Instant;

use crate::Outcome;
use crate::pest::Dice;

/// What an attack works with.
pub struct Field {
    /// Where the server is.
    pub address: SocketAddr,
    /// When to stop.
    pub end: Instant,
    /// Whether it counts: else it is over when its time is up, whatever it has done by then.
    pub whole: bool,
    /// Chance.
    pub dice: Dice,
}

impl Field {
    /// Whether to go on.
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }
}

/// One attack.
pub struct Attack {
    /// Its name.
    pub name: &'static str,
    /// Whether PHP publishes large messages to the channel `firehose` meanwhile.
    pub with_firehose: bool,
    /// Whether memory must come back right after it.
    pub comes_back: bool,
    /// Does it.
    pub run: fn(&mut Field) -> Outcome<String>,
}

const fn attack(name: &'static str, run: fn(&mut Field) -> Outcome<String>) -> Attack {
    Attack {
        name,
        with_firehose: false,
        comes_back: false,
        run,
    }
}

/// All of them.
pub const ALL: [Attack; 16] = [
    attack("random bytes", http::garbage),
    attack("truncated requests", http::truncated),
    attack("smuggled requests", http::smuggled),
    attack("giant declared lengths", http::giant),
    attack("huge names", http::huge_names),
    attack("half-open flood", floods::half_open),
    attack("connections that come and go", floods::churn),
    attack("handshakes that come and go", floods::handshakes),
    attack("slow heads, bodies and frames", slow::loris),
    Attack {
        comes_back: true,
        ..attack("a million subscriptions", websocket::subscriptions)
    },
    attack("deep JSON", websocket::deep_json),
    attack("wrong frames", websocket::wrong_frames),
    attack("compressed bombs", websocket::bombs),
    attack("a flood of publishes", websocket::publishes),
    Attack {
        name: "clients that never read",
        with_firehose: true,
        comes_back: false,
        run: slow::never_reading,
    },
    attack(
        "requests without reading answers",
        slow::never_reading_answers,
    ),
];
