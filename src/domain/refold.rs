//! A customer's buckets folded anew from the ledger, by the code that draws in the worker: for rebuilds and explanations.
//!
//! Nothing of the buckets as they are stored is trusted but their slots. The caller hands over all usage that counts, in
//! its order, page by page; what differs from the store is then known bucket by bucket. Left out: lines, which do not
//! change what is drawn.

use super::account::Account;
use super::calendar::Calendar;
use super::facts::{AssignmentKey, Usage};
use super::image::{AccountImage, BucketRow, CustomerRow, Draw};
use super::quantity::Quantity;
use super::time::Instant;
use super::waterfall::Waterfall;

/// A fold of all usage of a customer.
pub struct Refold {
    account: Account,
    stored: Vec<BucketRow>,
    waterfall: Waterfall,
    draws: Vec<Draw>,
}

/// What a store has of a bucket, and what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketDifference {
    /// As stored; `None` where there is no row.
    pub stored: Option<BucketRow>,
    /// As folded; `None` where the facts give no such bucket.
    pub folded: Option<BucketRow>,
}

impl Refold {
    /// Begins with full buckets.
    pub fn new(mut image: AccountImage, calendar: &Calendar) -> Refold {
        let stored = image.buckets.clone();
        for row in &mut image.buckets {
            let assignment = image.assignments.iter().find(|known| known.key == row.assignment);
            let plan = assignment.and_then(|known| known.assignment.as_ref()).map(|assignment| &assignment.plan);
            let component = plan.and_then(|plan| plan.components.iter().find(|one| one.id == row.component));
            let Some(component) = component else { continue };
            row.charging_type = component.charging_type;
            row.by_value = component.by_value;
            row.allowance = component.allowance;
            row.remaining = component.allowance;
            row.mark = None;
        }
        let account = Account::restore(image, calendar);
        Refold { account, stored, waterfall: Waterfall::default(), draws: Vec::new() }
    }

    /// Folds the next usage that counts; gives what it draws.
    pub fn fold(&mut self, calendar: &Calendar, usage: &Usage<'_>) -> &[Draw] {
        self.account.fold(calendar, usage, None, &mut self.waterfall, &mut self.draws);
        &self.draws
    }

    /// What is not included of the event folded last.
    pub fn left(&self) -> Quantity {
        self.waterfall.left
    }

    /// The buckets that the event folded last qualified for, in the order of drawing: assignment, component, window.
    pub fn qualified(&self) -> impl Iterator<Item = (AssignmentKey, i64, Instant)> {
        let candidates = self.waterfall.candidates.iter();
        candidates.map(|candidate| (candidate.assignment, candidate.component_id, candidate.window.start))
    }

    /// The bucket that a slot stands for, as folded so far.
    pub fn bucket(&self, slot: i32) -> Option<&BucketRow> {
        self.account.buckets().find(|row| row.slot == slot)
    }

    /// The buckets as folded.
    pub fn buckets(&self) -> impl Iterator<Item = &BucketRow> {
        self.account.buckets()
    }

    /// The customer's own row, if the fold gave slots.
    pub fn customer(&self, stored: &AccountImage) -> Option<CustomerRow> {
        let next_slot = self.account.image().next_slot;
        let row = CustomerRow { customer: stored.customer, fact: stored.fact, next_slot };
        (next_slot != stored.next_slot).then_some(row)
    }

    /// The buckets whose rows are others than the fold gives, by slot.
    pub fn differences(&self) -> Vec<BucketDifference> {
        let mut differences = Vec::new();
        for stored in &self.stored {
            let folded = self.bucket(stored.slot).copied();
            if folded != Some(*stored) {
                differences.push(BucketDifference { stored: Some(*stored), folded });
            }
        }
        let new = self.account.buckets().filter(|row| self.stored.iter().all(|stored| stored.slot != row.slot));
        differences.extend(new.map(|row| BucketDifference { stored: None, folded: Some(*row) }));
        differences.sort_by_key(|difference| difference.slot());
        differences
    }
}

impl BucketDifference {
    /// The slot of the two.
    pub fn slot(&self) -> i32 {
        self.stored.or(self.folded).map_or(0, |row| row.slot)
    }
}
