//! A repair that an operator asked for (`headroom rebuild`): a customer's balances folded anew from the ledger, and the
//! control totals counted anew, in a commit of its own under the fence, so that no cache ever disagrees with the store.
//!
//! Where the customer's lines stand is told anew as well. It raises no alert: thresholds are judged from what remains after it. Rows of closed bill runs stay as they are: where
//! they are still being stored, the customer's are stored first. The partition waits meanwhile.

use super::partition::Partition;
use super::refold::{Differences, refold};
use crate::domain::{Account, AccountImage, BucketRow, Calendar, LineDifference, Totals};
use crate::store::{Commit, CommitError, OfCustomer, RepairRequest, Repaired, StoreError, Wanted};

impl Partition {
    /// Carries a repair out, unless that is done already.
    pub async fn repair(&mut self, request: &RepairRequest) -> Result<(), CommitError> {
        let context = self.context.clone();
        if context.patiently(|| context.store.repaired(request)).await?.is_some() {
            return Ok(());
        }
        let (sums, differences) = context.patiently(|| self.find(request)).await?;
        // Alerts are those of the commits so far.
        let totals = Totals { crossed: self.totals.crossed, recovered: self.totals.recovered, ..sums };
        let mut commit = Commit { totals, ..self.commit_in_place() };
        let buckets = i64::try_from(differences.buckets.len()).unwrap_or(i64::MAX);
        let usage = i64::try_from(differences.usage.len()).unwrap_or(i64::MAX);
        let lines = i64::try_from(differences.lines.len()).unwrap_or(i64::MAX);
        commit.repaired = Some((*request, Repaired { buckets, usage, lines }));
        if let Some(customer) = request.customer {
            self.forget(customer);
            let whole = [Wanted::whole(customer)];
            let images = context.patiently(|| context.store.accounts(self.partition, &whole)).await?;
            self.store_ahead(images.iter().map(|image| image.customer), &mut commit).await?;
            for image in images {
                stand_anew(&mut commit, image, &differences.lines, &context.calendar);
            }
            fill(&mut commit, customer, differences);
        }
        self.write(&commit).await?;
        self.totals = commit.totals;
        self.note_stored(&commit);
        Ok(())
    }

    /// What is at fault. Nobody else writes this partition, so it still is when the commit passes the fence.
    async fn find(&self, request: &RepairRequest) -> Result<(Totals, Differences), StoreError> {
        let mut snapshot = self.context.store.snapshot().await?;
        let mut sums = snapshot.sums(self.partition).await?;
        let differences = match request.customer {
            Some(customer) => {
                sums.quantity = self.totals.quantity;
                refold(snapshot.as_mut(), &self.context.calendar, self.partition, customer).await?
            }
            None => {
                sums.quantity = snapshot.quantities(self.partition).await?;
                Differences::default()
            }
        };
        Ok((sums, differences))
    }
}

/// Tells anew where the lines of a customer stand once these are mended.
fn stand_anew(commit: &mut Commit, mut image: AccountImage, lines: &[LineDifference], calendar: &Calendar) {
    let customer = image.customer;
    image.lines.retain(|row| lines.iter().all(|difference| difference.upi() != row.upi));
    image.lines.extend(lines.iter().filter_map(|difference| difference.folded));
    commit.standing_anew.push(customer);
    let rows = Account::restore(image, calendar).standing(calendar);
    commit.standing.extend(rows.into_iter().map(|row| OfCustomer { customer, row }));
}

/// Puts what the fold has otherwise into the commit.
fn fill(commit: &mut Commit, customer: i64, differences: Differences) {
    commit.customers.extend(differences.customer);
    commit.usage_changes = differences.usage;
    for difference in differences.lines {
        match (difference.stored, difference.folded) {
            (Some(_), Some(row)) => commit.changed_lines.push(OfCustomer { customer, row }),
            (None, Some(row)) => commit.new_lines.push(OfCustomer { customer, row }),
            (_, None) => commit.removed_lines.push((customer, difference.upi())),
        }
    }
    for difference in differences.buckets {
        if let Some(row) = &difference.stored {
            add_drawn(&mut commit.totals, row, -1);
        }
        if let Some(row) = &difference.folded {
            add_drawn(&mut commit.totals, row, 1);
        }
        match (difference.stored, difference.folded) {
            (Some(_), Some(row)) => commit.changed_buckets.push(OfCustomer { customer, row }),
            (None, Some(row)) => commit.new_buckets.push(OfCustomer { customer, row }),
            (Some(row), None) => commit.removed_buckets.push((customer, row.slot)),
            (None, None) => {}
        }
    }
}

/// Adds what is drawn of a bucket to the control totals, or takes it off. A row at fault may have more left than there
/// ever was.
fn add_drawn(totals: &mut Totals, row: &BucketRow, sign: i128) {
    let sums = if row.by_value { &mut totals.drawn_by_value } else { &mut totals.drawn };
    let drawn = i128::from(row.allowance.millionths()) - i128::from(row.remaining.millionths());
    sums[usize::from(row.charging_type.number())] += sign * drawn;
}
