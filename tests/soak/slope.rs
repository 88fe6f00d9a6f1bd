//! The straight line through what was measured (least squares).

use std::fmt;
use std::time::Duration;

/// The points so far: seconds and bytes.
#[derive(Default)]
pub struct Slope(Vec<(f64, f64)>);

impl Slope {
    /// Adds one.
    pub fn add(&mut self, at: Duration, bytes: u64) {
        self.0.push((at.as_secs_f64(), bytes as f64));
    }

    /// Bytes at the middle.
    pub fn mean(&self) -> f64 {
        self.0.iter().map(|(_, bytes)| bytes).sum::<f64>() / self.0.len().max(1) as f64
    }

    /// By how many bytes the line rises from the first point to the last.
    pub fn growth(&self) -> f64 {
        self.per_second() * self.span()
    }

    fn span(&self) -> f64 {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => last.0 - first.0,
            _ => 0.0,
        }
    }

    fn per_second(&self) -> f64 {
        let middle = self.0.iter().map(|(at, _)| at).sum::<f64>() / self.0.len().max(1) as f64;
        let mean = self.mean();
        let (mut both, mut square) = (0.0, 0.0);
        for (at, bytes) in &self.0 {
            both += (at - middle) * (bytes - mean);
            square += (at - middle) * (at - middle);
        }
        if square > 0.0 { both / square } else { 0.0 }
    }
}

impl fmt::Display for Slope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MiB, slope {:+.1} KiB a minute over {:.0} s ({} points)",
            self.mean() / f64::from(1 << 20),
            self.per_second() * 60.0 / 1024.0,
            self.span(),
            self.0.len()
        )
    }
}
