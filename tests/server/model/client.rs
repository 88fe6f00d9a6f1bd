//! What a run does with a client, whatever it speaks, and what became of it.

use std::collections::HashMap;

use super::ledger::{Book, Dice, Ledger};

/// A client as it should be written, that checks each thing it is told against the ledger.
pub trait Client {
    fn notes(&self) -> &Notes;

    fn subscribed(&self) -> &[&'static str];

    fn subscribe(&mut self, channel: &'static str, ledger: &Ledger);

    fn unsubscribe(&mut self, channel: &'static str, ledger: &Ledger);

    /// Subscribes to all that it has left, where it still knows how far it has come there.
    fn return_to_all(&mut self, ledger: &Ledger);

    /// From now on the server is there. The one before has ended.
    fn follow(&mut self, address: &str);

    /// Drops the connection with all that is on its way, and opens another.
    fn reconnect(&mut self, ledger: &Ledger);

    /// Reads at most so many of the messages that must come.
    fn read(&mut self, most: usize, dice: &mut Dice, ledger: &Ledger);

    /// Asks for something that is read later, where one asks.
    fn leave_waiting(&mut self, ledger: &Ledger);

    /// Whether something up to this number must still come.
    fn lacks(&self, newest: u64, book: &Book) -> bool;
}

/// What became of a client.
#[derive(Default)]
pub struct Notes {
    /// How its connections ended, by close code; 0 is without one.
    pub ends: HashMap<u16, usize>,
    pub read: usize,
    /// Resumes that were told of a gap.
    pub gaps: usize,
    /// Messages that were lost in those.
    pub lost: usize,
    /// Resumes during which something was published.
    pub overlaps: usize,
}
