//! The figures and their table, each beside its target.

use std::fmt::Write;

use crate::Outcome;

/// One measured figure.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    ratio: Option<f64>,
    limit: Option<Limit>,
    /// Whether it is the same on every machine, however much that has to do: then over its target is a failure.
    counted: bool,
    note: String,
}

/// What a figure must not exceed.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Its value, this.
    Value(f64),
    /// Its ratio to the floor, this.
    Floor(f64),
    /// A ratio of its own (first), this (second).
    Ratio(f64, f64),
}

impl Figure {
    /// A figure without a target.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            ratio: None,
            limit: None,
            counted: false,
            note: String::new(),
        }
    }

    /// Adds its ratio to the floor of the same run.
    pub fn over_floor(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    /// The value itself may be at most `limit`.
    pub fn at_most(mut self, limit: f64) -> Self {
        self.limit = Some(Limit::Value(limit));
        self
    }

    /// The ratio to the floor may be at most `limit`.
    pub fn at_most_floors(mut self, limit: f64) -> Self {
        self.limit = Some(Limit::Floor(limit));
        self
    }

    /// `ratio`, to something that is named `base`, may be at most `limit`.
    pub fn at_most_times(mut self, ratio: f64, limit: f64, base: &str) -> Self {
        self.limit = Some(Limit::Ratio(ratio, limit));
        self.note(format!("{ratio:.2} x {base}"))
    }

    /// It is a number of things that were counted, not a time: the run fails when it is over its target.
    pub fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    /// Adds a remark.
    pub fn note(mut self, note: impl AsRef<str>) -> Self {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note.as_ref());
        self
    }

    fn missed(&self) -> bool {
        match self.limit {
            None => false,
            Some(Limit::Value(limit)) => self.value > limit,
            Some(Limit::Floor(limit)) => self.ratio.is_none_or(|ratio| ratio > limit),
            Some(Limit::Ratio(ratio, limit)) => ratio > limit,
        }
    }
}

/// The figures of a run, printed section by section.
#[derive(Debug, Default)]
pub struct Report {
    with_target: usize,
    missed: Vec<String>,
    /// Of what was counted.
    failed: Vec<String>,
}

impl Report {
    /// Prints one section's table.
    pub fn section(&mut self, title: &str, figures: &[Figure]) {
        let mut text = format!(
            "\n{title}\n{:<48} {:>12} {:<6} {:>8} {:>12} {:<7} {}\n",
            "", "value", "unit", "x floor", "at most", "", "remark"
        );
        for figure in figures {
            let ratio = figure.ratio.map_or(String::new(), |r| format!("{r:.2}"));
            let limit = match figure.limit {
                None => String::new(),
                Some(Limit::Value(limit)) => number(limit),
                Some(Limit::Floor(limit) | Limit::Ratio(_, limit)) => format!("{limit:.2} x"),
            };
            let verdict = match figure.limit {
                None => "",
                Some(_) if figure.missed() && figure.counted => "FAILED",
                Some(_) if figure.missed() => "MISSED",
                Some(_) => "ok",
            };
            let line = format!(
                "  {:<46} {:>12} {:<6} {ratio:>8} {limit:>12} {verdict:<7} {}",
                figure.name,
                number(figure.value),
                figure.unit,
                figure.note
            );
            let _ = writeln!(text, "{}", line.trim_end());
            if figure.limit.is_some() {
                self.with_target += 1;
            }
            if figure.missed() && figure.counted {
                self.failed.push(format!("{title}: {}", figure.name));
            }
            if figure.missed() {
                self.missed.push(format!("{title}: {}", figure.name));
            }
        }
        crate::say(text.trim_end());
    }

    /// Prints what was reached and what not. An error when something that was counted is over its target: that no machine's
    /// haste or sloth can be the reason for.
    pub fn end(&self) -> Outcome<()> {
        crate::say(&format!(
            "\n{} of {} targets reached{}",
            self.with_target - self.missed.len(),
            self.with_target,
            if self.missed.is_empty() {
                ""
            } else {
                "; missed:"
            }
        ));
        for name in &self.missed {
            crate::say(&format!("  {name}"));
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(format!(
            "counted, and over the target: {}",
            self.failed.join("; ")
        ))
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
