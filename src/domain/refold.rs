//! A customer's buckets and lines folded anew from the ledger, by the code that draws in the worker: for rebuilds and
//! explanations.
//!
//! Nothing of the buckets as they are stored is trusted but their slots, and of the lines only what inventory.changed said
//! of them. The caller hands over all usage that counts, in its order, page by page; what differs from the store is then
//! known bucket by bucket and line by line.

use std::collections::BTreeMap;

use super::account::Account;
use super::calendar::Calendar;
use super::facts::Usage;
use super::image::{AccountImage, BucketKey, BucketRow, CustomerRow, Draw, LineRow};
use super::quantity::Quantity;
use super::waterfall::{Candidate, Left, Waterfall};

/// A fold of all usage of a customer.
pub struct Refold {
    account: Account,
    stored: Vec<BucketRow>,
    stored_lines: Vec<LineRow>,
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

/// A bucket that nothing drew from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untouched {
    /// Whether it is money.
    pub by_value: bool,
    /// What there is in it.
    pub allowance: Quantity,
}

impl Refold {
    /// Begins with full buckets, and lines that nothing was used on.
    pub fn new(mut image: AccountImage, calendar: &Calendar) -> Refold {
        let stored = image.buckets.clone();
        let stored_lines = image.lines.clone();
        image.lines.iter_mut().for_each(|line| line.last_usage = None);
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
        Refold { account, stored, stored_lines, waterfall: Waterfall::default(), draws: Vec::new() }
    }

    /// Folds the next usage that counts; gives what it draws.
    pub fn fold(&mut self, calendar: &Calendar, usage: &Usage<'_>) -> &[Draw] {
        self.account.fold(calendar, usage, None, &mut self.waterfall, &mut self.draws);
        &self.draws
    }

    /// Finds the buckets that usage which does not count would qualify for.
    pub fn qualify(&mut self, calendar: &Calendar, usage: &Usage<'_>) {
        self.account.qualify(calendar, usage, &mut self.waterfall);
    }

    /// The buckets that the event folded or looked at last qualified for.
    pub fn qualified(&self) -> impl Iterator<Item = BucketKey> {
        self.waterfall.candidates.iter().map(Candidate::key)
    }

    /// What the event folded last wanted of buckets beyond what they had, in the order of drawing.
    pub fn turned_away(&self) -> impl Iterator<Item = (BucketKey, Quantity)> {
        self.waterfall.turned_away.iter().map(|more| (self.waterfall.candidates[more.candidate].key(), more.amount))
    }

    /// What is not included of the event folded last.
    pub fn left(&self) -> Left {
        self.waterfall.left
    }

    /// What a bucket is worth that nothing drew from; `None` when the facts give no such bucket.
    pub fn untouched(&self, calendar: &Calendar, key: BucketKey) -> Option<Untouched> {
        let (component, _) = self.account.bucket_of(calendar, key)?;
        Some(Untouched { by_value: component.by_value, allowance: component.allowance })
    }

    /// The bucket that a slot stands for, as folded so far.
    pub fn bucket(&self, slot: i32) -> Option<&BucketRow> {
        self.account.buckets().find(|row| row.slot == slot)
    }

    /// The buckets as stored.
    pub fn stored(&self) -> impl Iterator<Item = &BucketRow> {
        self.stored.iter()
    }

    /// The buckets as folded.
    pub fn buckets(&self) -> impl Iterator<Item = &BucketRow> {
        self.account.buckets()
    }

    /// The lines whose rows are others than the fold gives, by their ids.
    pub fn line_differences(&self) -> Vec<LineDifference> {
        let known: BTreeMap<i64, &LineRow> = self.stored_lines.iter().map(|row| (row.upi, row)).collect();
        let mut folded: BTreeMap<i64, &LineRow> = self.account.lines().map(|row| (row.upi, row)).collect();
        folded.retain(|_, row| row.fact.is_some() || row.last_usage.is_some());
        let mut upis: Vec<i64> = known.keys().chain(folded.keys()).copied().collect();
        upis.sort_unstable();
        upis.dedup();
        let both = upis.into_iter().map(|upi| (known.get(&upi).copied(), folded.get(&upi).copied()));
        let differ = both.filter(|(stored, folded)| !same_line(*stored, *folded));
        differ.map(|(stored, folded)| LineDifference { stored: stored.copied(), folded: folded.copied() }).collect()
    }

    /// The customer's own row, if slots would be given again once the buckets are as the fold has them.
    pub fn customer(&self, stored: &AccountImage) -> Option<CustomerRow> {
        let next_slot = self.account.next_slot();
        let row = CustomerRow { customer: stored.customer, fact: stored.fact, next_slot };
        let given = self.account.buckets().map(|row| row.slot.saturating_add(1)).max().unwrap_or(0);
        (next_slot > given.max(stored.next_slot)).then_some(row)
    }

    /// The buckets whose rows are others than the fold gives, by slot.
    pub fn differences(&self) -> Vec<BucketDifference> {
        let mut differences = Vec::new();
        for stored in &self.stored {
            let folded = self.bucket(stored.slot).copied();
            if !folded.is_some_and(|folded| same(stored, &folded)) {
                differences.push(BucketDifference { stored: Some(*stored), folded });
            }
        }
        let new = self.account.buckets().filter(|row| self.stored.iter().all(|stored| stored.slot != row.slot));
        differences.extend(new.map(|row| BucketDifference { stored: None, folded: Some(*row) }));
        differences.sort_by_key(|difference| difference.slot());
        differences
    }
}

/// Whether a stored row is as good as the folded one. A mark may be later than the last event that drew, since it
/// stays when that is reversed by the fast path.
fn same(stored: &BucketRow, folded: &BucketRow) -> bool {
    BucketRow { mark: folded.mark, ..*stored } == *folded && stored.mark >= folded.mark
}

/// Whether a stored row of a line is as good as the folded one: its last usage may be an earlier one with the same site
/// and product as the last, and does not matter where inventory.changed tells.
fn same_line(stored: Option<&LineRow>, folded: Option<&LineRow>) -> bool {
    let (Some(stored), Some(folded)) = (stored, folded) else { return stored.is_none() && folded.is_none() };
    let usage_fits = match (&stored.last_usage, &folded.last_usage) {
        (Some(stored), Some(folded)) => {
            (stored.site, stored.product) == (folded.site, folded.product) && stored.position <= folded.position
        }
        (stored, folded) => stored.is_none() && folded.is_none(),
    };
    stored.fact == folded.fact && (stored.fact.is_some() || usage_fits)
}

/// What a store has of a line, and what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineDifference {
    /// As stored; `None` where there is no row.
    pub stored: Option<LineRow>,
    /// As folded; `None` where nothing makes the line known.
    pub folded: Option<LineRow>,
}

impl LineDifference {
    /// The line.
    pub fn upi(&self) -> i64 {
        self.stored.or(self.folded).map_or(0, |row| row.upi)
    }
}

impl BucketDifference {
    /// The slot of the two.
    pub fn slot(&self) -> i32 {
        self.stored.or(self.folded).map_or(0, |row| row.slot)
    }
}
