//! Bill runs in a partition: taking their facts, letting held usage in, and storing the rows of a run that closes
//! (`domain.md section 6`).
//!
//! A fact about a run has a commit of its own. Closing only marks the run; its rows are stored in steps, customer by
//! customer, each step a commit between batches. A batch stores the customers that it is about to change first, so that
//! all rows are as they were when the run closed.

use super::batch::Batch;
use super::partition::{Draft, Partition, account_of};
use super::usage::{Judged, read};
use crate::domain::{
    Account, AccountImage, BillRun, BillRunRow, Instant, Reason, Refusal, RunChange, RunTaken, Taken, packed, standing,
};
use crate::store::{Commit, CommitError, HeldSelection, LedgerKey, LedgerRow, StoreError, StoredAhead};

/// Held usage that may count now.
#[derive(Debug)]
pub(super) struct HeldUsage {
    pub(super) key: LedgerKey,
    pub(super) row: LedgerRow,
}

/// Held usage that counts from this commit on.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) key: LedgerKey,
    /// Its line.
    pub(super) upi: i64,
    /// Its number as a cause.
    pub(super) cause: u32,
}

/// An event that is in the ledger only, as the cause of an alert.
#[derive(Debug)]
pub(super) struct LedgerCause {
    pub(super) source: String,
    pub(super) id: String,
    pub(super) start: Instant,
}

impl Partition {
    /// Whether rows of a closing run are yet to be stored: [`Partition::store_rows`] stores some of them.
    pub fn is_storing(&self) -> bool {
        self.bill_runs.storing().next().is_some()
    }

    /// Stores the rows of some customers of a closing run, in a commit of its own.
    pub async fn store_rows(&mut self) -> Result<(), CommitError> {
        let Some(row) = self.bill_runs.storing().next().copied() else { return Ok(()) };
        self.store_rows_of(row).await
    }

    async fn store_rows_of(&mut self, row: BillRunRow) -> Result<(), CommitError> {
        let BillRunRow { run, storing, .. } = row;
        let (after, limit) = (storing.unwrap_or(-1), self.context.storing_customers.max(1));
        let store = &self.context.store;
        let customers =
            self.context.patiently(|| store.customers_after(self.partition, run.billing_cycle, after, limit)).await?;
        let done = (customers.len() == limit).then(|| customers.last().copied()).flatten();
        let mut wanted = customers;
        wanted.retain(|customer| !self.ahead.contains(&StoredAhead { bill_run: run.id, customer: *customer }));
        let mut commit = self.commit_in_place();
        if !wanted.is_empty() {
            let mut images = self.context.patiently(|| store.accounts(self.partition, &wanted)).await?;
            images.sort_unstable_by_key(|image| image.customer);
            let rows = images.iter().flat_map(|image| standing::rows_to_store(image, &run, &self.context.calendar));
            commit.stored_rows = rows.collect();
        }
        commit.bill_runs.extend(self.bill_runs.note_storing(run.id, done).map(|row| (row, false)));
        if done.is_none() {
            commit.stored_runs.push(run.id);
        }
        self.context.patiently(|| store.commit(&commit)).await?;
        self.note_stored(&commit);
        Ok(())
    }

    /// A commit that moves nothing on.
    pub(super) fn commit_in_place(&self) -> Commit {
        Commit {
            partition: self.partition,
            epoch: self.epoch,
            from: self.offsets,
            next: self.offsets,
            outbox_number: self.outbox_number,
            totals: self.totals,
            ..Commit::default()
        }
    }

    /// Notes which customers are stored ahead after a commit.
    pub(super) fn note_stored(&mut self, commit: &Commit) {
        if !commit.reopened_runs.is_empty() || !commit.stored_runs.is_empty() {
            let gone = |run: &i64| commit.reopened_runs.contains(run) || commit.stored_runs.contains(run);
            self.ahead.retain(|ahead| !gone(&ahead.bill_run));
        }
        self.ahead.extend(commit.stored_ahead.iter().copied());
    }

    /// Stores the customers of a batch in every run that is being stored and has not come to them.
    pub(super) fn store_ahead(&self, images: &[AccountImage], commit: &mut Commit) {
        for row in self.bill_runs.storing() {
            for image in images {
                let ahead = StoredAhead { bill_run: row.run.id, customer: image.customer };
                if row.storing.is_some_and(|done| ahead.customer <= done) || self.ahead.contains(&ahead) {
                    continue;
                }
                commit.stored_rows.extend(standing::rows_to_store(image, &row.run, &self.context.calendar));
                commit.stored_ahead.push(ahead);
            }
        }
    }

    /// What a fact about a closed run may let in, before it is taken. Rows of the run that are still being stored are
    /// stored to the end first, since the fact may change what they are.
    pub(super) async fn before_bill_run(&mut self, batch: &Batch) -> Result<Vec<HeldUsage>, CommitError> {
        let Some(fact) = batch.bill_runs.first().map(|of| of.fact) else { return Ok(Vec::new()) };
        let newer = |row: &&BillRunRow| row.version < fact.version && row.run.status.is_closed();
        while let Some(row) = self.bill_runs.get(fact.run.id).filter(newer).filter(|row| row.storing.is_some()) {
            self.store_rows_of(*row).await?;
        }
        let Some(row) = self.bill_runs.get(fact.run.id).filter(newer) else { return Ok(Vec::new()) };
        let span = Some(standing::usage_span(&row.run, &self.context.calendar));
        Ok(self.held_usage(&HeldSelection { customers: None, span }).await?)
    }

    /// Held usage of customers, whenever it began.
    pub(super) async fn held_of(&self, customers: Vec<i64>) -> Result<Vec<HeldUsage>, StoreError> {
        if customers.is_empty() {
            return Ok(Vec::new());
        }
        self.held_usage(&HeldSelection { customers: Some(customers), span: None }).await
    }

    async fn held_usage(&self, selection: &HeldSelection) -> Result<Vec<HeldUsage>, StoreError> {
        if self.totals.held == 0 {
            return Ok(Vec::new());
        }
        let store = &self.context.store;
        let rows = self.context.patiently(|| store.held_usage(self.partition, selection)).await?;
        let held = rows
            .into_iter()
            .map(|of| HeldUsage { key: LedgerKey { customer: of.customer, position: of.row.position }, row: of.row });
        Ok(held.collect())
    }

    /// Takes the batch's fact about a bill run, if it has one.
    pub(super) fn take_bill_run(&mut self, batch: &Batch, draft: &mut Draft) -> Option<(BillRun, RunChange)> {
        let of = batch.bill_runs.first()?;
        assert!(
            batch.bill_runs.len() == 1 && batch.len() <= 1,
            "a fact about a bill run is alone in its batch (Batch::apart)"
        );
        let fact = &of.fact;
        let taken = self.bill_runs.take(fact);
        let mut changed = None;
        let fact_taken = match taken {
            RunTaken::Applied(change) => {
                let row = *self.bill_runs.get(fact.run.id).expect("it was just applied");
                draft.commit.bill_runs.push((row, of.origin.is_some()));
                if change.reopened {
                    draft.commit.reopened_runs.push(fact.run.id);
                }
                changed = Some((fact.run, change));
                Taken::Applied
            }
            RunTaken::Duplicate => Taken::Duplicate,
            RunTaken::PassedOver => Taken::PassedOver,
            RunTaken::Conflict => Taken::Conflict,
            RunTaken::Finalized => {
                let (id, version) = (fact.run.id, fact.version);
                let detail = format!("billRunId: {id} is FINALIZED; version {version} of it comes too late");
                if let Some(origin) = of.origin {
                    self.refuse(batch, origin, Refusal::new(Reason::Finalized, detail), draft);
                }
                return None;
            }
        };
        if let Some(origin) = of.origin {
            let name = format!("billRunId: {} version {}", fact.run.id, fact.version);
            self.note_fact(batch, origin, fact_taken, &name, draft);
        }
        changed
    }

    /// Lets in the usage of `held` that no closed run covers any more and no reversal took back. `run` is the fact about
    /// a run that the batch brought: one that was open for a while and closed again lets in what only it held.
    pub(super) fn release(
        &self,
        batch: &Batch,
        held: Vec<HeldUsage>,
        run: Option<(BillRun, RunChange)>,
        accounts: &mut [Account],
        judged: &mut Judged,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let open_for_a_while = run.filter(|(_, change)| change.reopened && change.closed).map(|(run, _)| run.id);
        let mut released = held;
        released.retain(|held| {
            let cycle = account_of(accounts, held.key.customer).billing_cycle();
            let date = self.context.calendar.date_of(held.key.position.start);
            let covered = match open_for_a_while {
                Some(id) => self.bill_runs.hold_without(id, cycle, date),
                None => self.bill_runs.hold(cycle, date),
            };
            let taken_back = judged.taken_back.binary_search_by_key(&held.key, |back| back.key).is_ok();
            !covered && !taken_back
        });
        released.sort_unstable_by_key(|held| held.key);
        for HeldUsage { key, row } in released {
            let usage = read(key, &row)?;
            draft.totals.held -= 1;
            draft.totals.counted += 1;
            draft.totals.quantity[usize::from(usage.charging_type.number())] += i128::from(usage.quantity.millionths());
            let cause = batch.causes() + u32::try_from(draft.causes.len()).expect("a batch is bounded");
            let source = self.source_of(&row).unwrap_or_default();
            draft.causes.push(LedgerCause { source, id: usage.id.to_owned(), start: key.position.start });
            judged.released.push(Released { key, upi: usage.upi, cause });
        }
        Ok(())
    }

    /// The source of usage in the ledger.
    fn source_of(&self, row: &LedgerRow) -> Option<String> {
        if row.source == 0 {
            return packed::source_behind(&row.body).map(str::to_owned);
        }
        self.sources.iter().find(|(_, number)| **number == row.source).map(|(source, _)| source.clone())
    }
}
