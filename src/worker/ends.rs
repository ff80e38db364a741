//! Up to what time a partition has applied all that its topics held.
//!
//! Who watches the topics asks where they end, and notes the time before asking. A commit that comes to those ends makes
//! durable, with what it applies, that all up to that time is applied. While there is nothing to apply the watch itself
//! writes it, once a second.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::intake::lock;
use crate::domain::Instant;
use crate::store::Offsets;

/// The most ends that are waited for. With more to come those in between are left out: time goes on in larger steps.
const MOST: usize = 64;

/// Ends of a partition pair's topics that its commits have yet to come to, each with a time from before it was asked for.
#[derive(Debug, Default)]
pub(super) struct Ends {
    waiting: Mutex<VecDeque<(Instant, Offsets)>>,
    /// Up to what times assignment-events and bill runs were seen to be applied.
    seen: Mutex<(Option<Instant>, Option<Instant>)>,
}

impl Ends {
    /// Notes where the topics end; they did so at this time or later.
    pub(super) fn push(&self, at: Instant, ends: Offsets) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < MOST {
            waiting.push_back((at, ends));
        }
    }

    /// The latest time whose ends these offsets have come to, if there is one that was not told before.
    pub(super) fn reached(&self, next: Offsets) -> Option<Instant> {
        let mut waiting = lock(&self.waiting);
        let is_reached =
            |(_, ends): &&(Instant, Offsets)| ends.usage <= next.usage && ends.assignments <= next.assignments;
        let reached = waiting.iter().take_while(is_reached).count();
        waiting.drain(..reached).next_back().map(|(at, _)| at)
    }

    /// Notes up to what times all assignment-events and all bill runs are applied, for whoever commits next: the watch's own
    /// writing gives way to commits.
    pub(super) fn note_seen(&self, facts: Option<Instant>, runs: Option<Instant>) {
        let mut seen = lock(&self.seen);
        *seen = (seen.0.max(facts), seen.1.max(runs));
    }

    /// Those times.
    pub(super) fn seen(&self) -> (Option<Instant>, Option<Instant>) {
        *lock(&self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_when_both_topics_are_applied_to_its_ends() {
        let ends = Ends::default();
        let at = Instant::from_micros;
        let offsets = |usage, assignments| Offsets { usage, assignments };
        assert_eq!(ends.reached(offsets(9, 9)), None);
        for (time, usage, assignments) in [(1, 5, 5), (2, 5, 6), (3, 8, 6)] {
            ends.push(at(time), offsets(usage, assignments));
        }
        assert_eq!(ends.reached(offsets(5, 4)), None);
        assert_eq!(ends.reached(offsets(4, 9)), None);
        assert_eq!(ends.reached(offsets(7, 6)), Some(at(2)));
        assert_eq!(ends.reached(offsets(7, 9)), None);
        assert_eq!(ends.reached(offsets(9, 9)), Some(at(3)));
        for time in 0..1_000 {
            ends.push(at(time), offsets(time, 0));
        }
        assert_eq!(ends.reached(offsets(1_000, 0)), Some(at(63)));
    }
}
