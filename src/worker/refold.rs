//! A customer's balances folded anew from one moment of a store, beside what the store has: what `headroom rebuild`
//! reports, and what a repair writes.

use super::usage::{read, unreadable};
use crate::domain::{BucketDifference, Calendar, CustomerRow, LineDifference, Refold, UsageState, packed};
use crate::store::{LedgerKey, LedgerRow, OfCustomer, Snapshot, StoreError};

/// Ledger rows that are read at once.
const PAGE: usize = 5_000;

/// Where a store differs from the fold of its ledger.
#[derive(Debug, Default)]
pub struct Differences {
    /// The buckets whose rows are others.
    pub buckets: Vec<BucketDifference>,
    /// The lines whose rows are others.
    pub lines: Vec<LineDifference>,
    /// Ledger rows whose draws are others, as they should be.
    pub usage: Vec<OfCustomer<LedgerRow>>,
    /// Whether nothing can be said now: the customer's usage is being folded again.
    pub is_unfinished: bool,
    /// The customer's own row, if the fold gave slots, or if it would give one again.
    pub(super) customer: Option<CustomerRow>,
}

impl Differences {
    /// Whether the store is as it should be.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty() && self.lines.is_empty() && self.usage.is_empty() && self.customer.is_none()
    }
}

/// Folds a customer's ledger. Reads only. A customer behind whose usage is being folded again has no differences: the
/// ledger is on its way to what the buckets will be.
pub async fn refold(
    snapshot: &mut dyn Snapshot,
    calendar: &Calendar,
    partition: i32,
    customer: i64,
) -> Result<Differences, StoreError> {
    let mut differences = Differences::default();
    let Some(image) = snapshot.account(partition, customer).await? else { return Ok(differences) };
    if snapshot.is_unfinished(partition, customer).await? {
        differences.is_unfinished = true;
        return Ok(differences);
    }
    let mut fold = Refold::new(image.clone(), calendar);
    let (mut after, mut packed) = (None, Vec::new());
    loop {
        let rows = snapshot.usage_after(partition, customer, after, PAGE).await?;
        for row in &rows {
            let key = LedgerKey { customer, position: row.position };
            packed.clear();
            if row.state == UsageState::Counted {
                packed::pack_draws(fold.fold(calendar, &read(key, row)?), &mut packed);
            }
            if packed != row.draws {
                // What cannot be read at all was written by another version, or is damaged: neither is ours to mend.
                packed::unpack_draws(&row.draws).ok_or_else(|| unreadable(key))?;
                differences.usage.push(OfCustomer { customer, row: row.changed(row.state, packed.clone()) });
            }
        }
        after = rows.last().map(|row| row.position);
        if rows.len() < PAGE {
            break;
        }
    }
    differences.buckets = fold.differences();
    differences.lines = fold.line_differences();
    differences.customer = fold.customer(&image);
    Ok(differences)
}
