//! What came of one fault: the figures that are printed and judged.

/// What stands above the rows.
pub const HEAD: &str = "fault                        acknowledged    delivered   lost  doubled  dropped  resumed  gaps   what happened";

/// What the columns mean.
pub const LEGEND: &str = "acknowledged: messages for which rt_broadcast() returned an id; delivered: of all messages to all clients;\n\
    lost: acknowledged and not delivered to a client; doubled: delivered twice to one; dropped: connections that ended;\n\
    resumed: reconnects whose `since` gave everything; gaps: those that were told recovered:false";

/// The figures of one fault.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages for which `rt_broadcast()` returned an id.
    pub acknowledged: u64,
    /// Calls that threw.
    pub refused: u64,
    /// Deliveries to all clients.
    pub delivered: u64,
    /// Acknowledged messages that a client did not get, over all clients.
    pub lost: u64,
    /// Of those, what was acknowledged after the last client had come back.
    pub lost_after: u64,
    /// Deliveries of a message that the client had already.
    pub doubled: u64,
    /// Deliveries that came before an earlier message of the same publisher.
    pub disordered: u64,
    /// Connections that ended.
    pub dropped: u64,
    /// Of those, the ones that were not closed with "reconnect".
    pub torn: u64,
    /// Connection attempts that were refused.
    pub attempts_refused: u64,
    /// Reconnects whose cursor gave everything.
    pub resumed: u64,
    /// Reconnects that were told of a gap.
    pub gaps: u64,
    /// Clients that miss something and were never told.
    pub deceived: u64,
    /// Clients that are connected at the end, and how many there should be.
    pub connected: (u64, u64),
    /// How often the fault happened, in words.
    pub what: String,
}

impl Tally {
    /// Its row under [`HEAD`].
    pub fn row(&self, name: &str) -> String {
        format!(
            "{name:<28} {:>12} {:>12} {:>6} {:>8} {:>8} {:>8} {:>5}   {}",
            self.acknowledged,
            self.delivered,
            self.lost,
            self.doubled,
            self.dropped,
            self.resumed,
            self.gaps,
            self.what
        )
    }

    /// What must be true after every fault.
    pub fn sane(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut zero = |what: &str, number: u64| {
            if number != 0 {
                wrong.push(format!("{number} {what}, must be 0"));
            }
        };
        zero("doubled", self.doubled);
        zero("out of order", self.disordered);
        zero(
            "lost of what was acknowledged after all were back",
            self.lost_after,
        );
        zero("clients miss something and were not told", self.deceived);
        if self.connected.0 != self.connected.1 {
            wrong.push(format!(
                "{} of {} clients are connected at the end",
                self.connected.0, self.connected.1
            ));
        }
        if self.acknowledged < 100 {
            wrong.push(format!(
                "only {} messages were acknowledged",
                self.acknowledged
            ));
        }
        wrong
    }

    /// Nothing lost, doubled or dropped.
    pub fn unharmed(&self) -> Vec<String> {
        let mut wrong = self.sane();
        for (what, number) in [
            ("lost", self.lost),
            ("connections dropped", self.dropped),
            ("rt_broadcast() calls threw", self.refused),
        ] {
            if number != 0 {
                wrong.push(format!("{number} {what}, must be 0"));
            }
        }
        wrong
    }

    /// Nothing lost, everybody asked to reconnect and resumed, no attempt refused.
    pub fn taken_over(&self) -> Vec<String> {
        let mut wrong = self.sane();
        let zeros = [
            ("lost", self.lost),
            ("gaps", self.gaps),
            ("connections ended without the code 1012", self.torn),
            ("connection attempts refused", self.attempts_refused),
            ("rt_broadcast() calls threw", self.refused),
        ];
        for (what, number) in zeros {
            if number != 0 {
                wrong.push(format!("{number} {what}, must be 0"));
            }
        }
        if self.resumed < self.connected.1 {
            wrong.push(format!(
                "only {} of {} clients resumed",
                self.resumed, self.connected.1
            ));
        }
        wrong
    }

    /// Everybody lost the connection, came back and was told of the gap.
    pub fn told(&self) -> Vec<String> {
        let mut wrong = self.sane();
        if self.gaps < self.connected.1 {
            wrong.push(format!(
                "only {} of {} clients were told recovered:false",
                self.gaps, self.connected.1
            ));
        }
        wrong
    }
}
