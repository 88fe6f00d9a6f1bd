//! Which patterns a channel fits: compared once, and remembered for the channels of late.
//!
//! Patterns have numbers that grow, so that a channel that is remembered is compared with those alone that have come since.
//! Those that have gone are passed over by whoever looks. Bounded by [`WEIGHT`]. Imports `selector` and `ids`.

use std::collections::{BTreeMap, HashMap};

use crate::ids::Channel;
use crate::selector::Selector;

/// How much is remembered, twice over: patterns that channels fit, and [`CHANNEL`] for each channel.
const WEIGHT: usize = 64 << 10;
/// What a channel weighs.
const CHANNEL: usize = 16;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct Fitting {
    /// The channels that were looked up lately.
    young: HashMap<Channel, Fit>,
    /// Those from before these were too many.
    old: HashMap<Channel, Fit>,
    /// Of the young ones.
    weight: usize,
    /// How often a pattern was compared with a channel.
    #[cfg(test)]
    pub(super) compared: usize,
}

#[derive(Debug, Default)]
struct Fit {
    /// The numbers of the patterns, in order.
    numbers: Vec<u64>,
    /// Patterns from this number on were not looked at.
    up_to: u64,
}

impl Fitting {
    /// The numbers of the patterns that `channel` fits, in order, of all `patterns`, whose numbers are below `next`. There may
    /// be some among them that have gone.
    pub(super) fn look_up<'a, P>(
        &mut self,
        channel: &Channel,
        patterns: &'a BTreeMap<u64, P>,
        next: u64,
        selector: impl Fn(&'a P) -> &'a Selector,
    ) -> &[u64] {
        if self.weight > WEIGHT {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        if !self.young.contains_key(channel) {
            let fit = self.old.remove(channel).unwrap_or_default();
            self.weight += CHANNEL + fit.numbers.len();
            self.young.insert(channel.clone(), fit);
        }
        let fit = self.young.get_mut(channel).expect("it was put in");
        if fit.up_to < next {
            let before = fit.numbers.len();
            fit.numbers.retain(|number| patterns.contains_key(number));
            for (&number, pattern) in patterns.range(fit.up_to..) {
                #[cfg(test)]
                {
                    self.compared += 1;
                }
                if selector(pattern).matches(channel.as_str()) {
                    fit.numbers.push(number);
                }
            }
            fit.up_to = next;
            self.weight = (self.weight + fit.numbers.len()).saturating_sub(before);
        }
        &fit.numbers
    }

    /// The same of a channel that was looked up lately, if it was.
    pub(super) fn known(&self, channel: &Channel, next: u64) -> Option<&[u64]> {
        let fit = self.young.get(channel).filter(|fit| fit.up_to == next)?;
        Some(&fit.numbers)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pattern_is_compared_once_with_a_channel() {
        let mut fitting = Fitting::default();
        let mut patterns = BTreeMap::new();
        let parse = |text: &str| Selector::parse(text).unwrap();
        let channel = Channel::parse("a/1").unwrap();
        patterns.insert(0, parse("a/{n}"));
        patterns.insert(1, parse("b/{n}"));
        for _ in 0..3 {
            assert_eq!(fitting.look_up(&channel, &patterns, 2, |it| it), [0]);
        }
        assert_eq!(fitting.compared, 2);
        // One goes, and two come: only these are compared.
        patterns.remove(&0);
        patterns.insert(2, parse("{x}/1"));
        patterns.insert(3, parse("{x}/2"));
        assert_eq!(fitting.known(&channel, 4), None);
        assert_eq!(fitting.look_up(&channel, &patterns, 4, |it| it), [2]);
        assert_eq!(fitting.known(&channel, 4), Some(&[2][..]));
        assert_eq!(fitting.compared, 4);
    }

    #[test]
    fn no_more_is_remembered_than_allowed() {
        let mut fitting = Fitting::default();
        let all = |text: &str| Selector::parse(text).unwrap();
        let patterns = BTreeMap::from([(0, all("*")), (1, all("{x}"))]);
        let busy = Channel::parse("busy").unwrap();
        for n in 0..20_000 {
            let channel = Channel::parse(&format!("c{n}")).unwrap();
            assert_eq!(fitting.look_up(&channel, &patterns, 2, |it| it), [0, 1]);
            fitting.look_up(&busy, &patterns, 2, |it| it);
            let kept = fitting.young.len().max(fitting.old.len());
            assert!(kept <= WEIGHT / (CHANNEL + 2) + 2, "{kept}");
        }
        // What is looked up again and again stays.
        assert_eq!(fitting.compared, 2 * 20_001);
    }
}
