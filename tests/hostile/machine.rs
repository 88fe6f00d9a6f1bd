//! How much of the machine others took meanwhile: what they took, the server did not have.

use std::fs;

use crate::Outcome;

/// CPU time so far, in the kernel's ticks.
pub struct Clock {
    ours: Vec<(u32, u64)>,
    busy: u64,
    all: u64,
}

impl Clock {
    /// Reads the clocks; `ours` are the processes of this run.
    pub fn now(ours: &[u32]) -> Outcome<Self> {
        let stat = fs::read_to_string("/proc/stat").map_err(|e| format!("/proc/stat: {e}"))?;
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .flat_map(str::parse)
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
        let [user, nice, system, idle, wait, hard, soft, steal, ..] = ticks[..] else {
            return Err(format!("/proc/stat: {line}"));
        };
        let busy = user + nice + system + hard + soft + steal;
        Ok(Self {
            ours: ours
                .iter()
                .filter_map(|&pid| Some((pid, of(pid)?)))
                .collect(),
            busy,
            all: busy + idle + wait,
        })
    }

    /// The share of the machine, 0 to 1, that others have taken since.
    pub fn taken_by_others(&self) -> Outcome<f64> {
        let pids: Vec<u32> = self.ours.iter().map(|(pid, _)| *pid).collect();
        let now = Self::now(&pids)?;
        let sum = |clock: &Self| clock.ours.iter().map(|(_, ticks)| ticks).sum::<u64>();
        let ours = sum(&now).saturating_sub(sum(self));
        let others = (now.busy - self.busy).saturating_sub(ours);
        Ok(others as f64 / (now.all - self.all).max(1) as f64)
    }
}

fn of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
