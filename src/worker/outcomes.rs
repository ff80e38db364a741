//! What became of records, counted for metrics.

use super::batch::Input;
use crate::domain::{Outcome, Reason};

/// What became of the records of a batch, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    counts: [[u64; Outcome::ALL.len()]; 2],
    reasons: Vec<(Input, Reason)>,
}

impl Outcomes {
    pub(super) fn add(&mut self, input: Input, outcome: Outcome) {
        self.counts[input as usize][outcome as usize] += 1;
    }

    pub(super) fn add_dead_letter(&mut self, input: Input, reason: Reason) {
        self.add(input, Outcome::DeadLetter);
        self.reasons.push((input, reason));
    }

    /// How many records of an input ended so.
    pub fn count(&self, input: Input, outcome: Outcome) -> u64 {
        self.counts[input as usize][outcome as usize]
    }

    /// Why records were refused, one entry a record.
    pub fn reasons(&self) -> &[(Input, Reason)] {
        &self.reasons
    }
}
