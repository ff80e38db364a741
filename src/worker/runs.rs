//! Bill runs in a partition: taking their facts, letting held usage in, and storing the rows of a run that closes
//! (`domain.md section 6`).
//!
//! A fact about a run has a commit of its own. Closing only marks the run; its rows are stored in steps, customer by
//! customer, each step a commit between batches. A batch stores the customers that it is about to change first, so that
//! all rows are as they were when the run closed. Usage that the run held is let in the same way once it is open: in
//! steps, and that of a batch's customers with the batch.

use std::time::Instant as Clock;

use super::batch::Batch;
use super::partition::{Applied, Draft, Partition, account_of};
use super::usage::{Judged, read};
use crate::domain::{
    Account, BillRun, BillRunRow, Instant, Reason, Refusal, RunFact, RunTaken, Taken, packed, standing,
};
use crate::store::{Commit, CommitError, LedgerKey, LedgerRow, StoreError, StoredAhead, Wanted};

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
            let wanted: Vec<Wanted> = wanted.into_iter().map(Wanted::whole).collect();
            let mut images = self.context.patiently(|| store.accounts(self.partition, &wanted)).await?;
            images.sort_unstable_by_key(|image| image.customer);
            let rows = images.iter().flat_map(|image| standing::rows_to_store(image, &run, &self.context.calendar));
            commit.stored_rows = rows.collect();
        }
        commit.bill_runs.extend(self.bill_runs.note_storing(run.id, done));
        if done.is_none() {
            commit.stored_runs.push(run.id);
        }
        self.write(&commit).await?;
        self.note_stored(&commit);
        Ok(())
    }

    /// A commit that moves nothing on.
    pub(super) fn commit_in_place(&self) -> Commit {
        Commit {
            partition: self.partition,
            epoch: self.epoch,
            commits: self.commits,
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

    /// Stores these customers, who are about to change, in every run that is being stored and has not come to them.
    pub(super) async fn store_ahead(
        &self,
        customers: impl Iterator<Item = i64> + Clone,
        commit: &mut Commit,
    ) -> Result<(), StoreError> {
        let mut wanted = Vec::new();
        for row in self.bill_runs.storing() {
            let ahead = customers.clone().map(|customer| StoredAhead { bill_run: row.run.id, customer });
            let is_to_come = |ahead: &StoredAhead| row.storing.is_none_or(|done| ahead.customer > done);
            wanted.extend(ahead.filter(|ahead| is_to_come(ahead) && !self.ahead.contains(ahead)));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        let mut whole: Vec<Wanted> = wanted.iter().map(|ahead| Wanted::whole(ahead.customer)).collect();
        whole.sort_unstable();
        whole.dedup();
        for whole in whole.chunks(self.context.storing_customers.max(1)) {
            let images = self.context.patiently(|| self.context.store.accounts(self.partition, whole)).await?;
            for (image, row) in images.iter().flat_map(|image| self.bill_runs.storing().map(move |row| (image, row))) {
                let ahead = StoredAhead { bill_run: row.run.id, customer: image.customer };
                if wanted.binary_search(&ahead).is_ok() {
                    commit.stored_rows.extend(standing::rows_to_store(image, &row.run, &self.context.calendar));
                }
            }
        }
        commit.stored_ahead.extend(wanted);
        Ok(())
    }

    /// Those of these facts about bill runs that are news, each in a batch of its own: every version, so that what a run
    /// held and stored in between is as it is where the fact came in.
    pub fn news(&self, facts: &[RunFact]) -> Vec<Batch> {
        let is_news =
            |fact: &&RunFact| self.bill_runs.get(fact.run.id).is_none_or(|known| known.version < fact.version);
        let batch = |fact: &RunFact| {
            let mut batch = Batch::new(self.partition);
            batch.push_bill_run(*fact);
            batch
        };
        facts.iter().filter(is_news).map(batch).collect()
    }

    /// Stores the rows of a run to the end when a fact about it would change what they are.
    pub(super) async fn before_bill_run(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let Some(fact) = batch.bill_runs.first().map(|of| of.fact) else { return Ok(()) };
        let changes = |row: &&BillRunRow| {
            let same = BillRun { status: row.run.status, ..fact.run } == row.run;
            row.version < fact.version && fact.run.status.is_closed() && !same
        };
        while let Some(row) = self.bill_runs.get(fact.run.id).filter(changes).filter(|row| row.storing.is_some()) {
            self.store_rows_of(*row).await?;
        }
        Ok(())
    }

    /// Whether usage that a run held is being let in: [`Partition::catch_up`] goes on with it.
    pub fn is_letting_in(&self) -> bool {
        self.bill_runs.letting_in().is_some()
    }

    /// Lets in the held usage of the next customers, in order and in a commit of its own; `None` when all that was done is a
    /// part of one customer's replay. A customer for whom that takes too long is left behind, and goes on here with what it
    /// has to catch up before anyone after it is let in: until then the run is not done with.
    pub(super) async fn let_in(&mut self, until: Clock) -> Result<Option<(Batch, Applied)>, CommitError> {
        let (run, after) = self.bill_runs.letting_in().expect("the caller asked");
        let (store, limit) = (&self.context.store, self.let_in.clamp(1, self.context.let_in.max(1)));
        let mut customers = self.context.patiently(|| store.holders_after(self.partition, after, limit)).await?;
        let mut is_all = customers.len() < limit;
        customers.dedup();
        if !is_all && customers.len() > 1 {
            // Not all that it has may be among them.
            customers.pop();
        }
        if let Some(behind) = customers.first().filter(|first| self.trailing.contains_key(first)) {
            return self.catch_up_with(*behind, until, Some(run)).await;
        }
        let before = customers.len();
        customers.truncate(customers.iter().take_while(|customer| !self.trailing.contains_key(customer)).count());
        is_all &= customers.len() == before;
        let mut batch = Batch::new(self.partition);
        let mut prepared = loop {
            let mut prepared = self.prepare(&mut batch, &customers).await?;
            // Loading took a part of the pause; the next try has less to load.
            let left = until.saturating_duration_since(Clock::now()).max(self.context.replay_pause / 2);
            let long = self.draw(&batch, &mut prepared, left).await?;
            let Some(first) = long.first() else { break prepared };
            let done = customers.partition_point(|customer| customer < first);
            if done == 0 {
                self.leave_behind(&long[..1]);
                let mut commit = self.commit_in_place();
                commit.behind.extend(self.newly_behind());
                self.write(&commit).await?;
                self.note_behind(&commit);
                return Ok(None);
            }
            customers.truncate(done);
            is_all = false;
            self.let_in = done;
        };
        self.let_in = self.let_in.saturating_mul(2).min(self.context.let_in);
        let row = self.bill_runs.note_letting_in(run, customers.last().copied().filter(|_| !is_all));
        prepared.draft.commit.bill_runs.extend(row);
        let applied = self.conclude(&mut batch, prepared, self.offsets).await?;
        Ok(Some((batch, applied)))
    }

    /// While usage that a run held is let in: the customers of a batch that the steps have not come to, by id, each with its
    /// billing cycle before the batch. What no closed run covers by that counts, whatever cycle the batch brings.
    pub(super) fn due(&self, accounts: &[Account]) -> Vec<(i64, i64)> {
        let Some((_, after)) = self.bill_runs.letting_in() else { return Vec::new() };
        let first = accounts.partition_point(|account| account.customer() <= after);
        accounts[first..].iter().map(|account| (account.customer(), account.billing_cycle())).collect()
    }

    /// The held usage of those customers of a batch that are due; their accounts must reach back to it.
    pub(super) async fn held_of_due(&self, wanted: &mut [Wanted]) -> Result<Vec<HeldUsage>, StoreError> {
        let Some((_, after)) = self.bill_runs.letting_in() else { return Ok(Vec::new()) };
        let due = wanted.partition_point(|wanted| wanted.customer <= after);
        let due = &mut wanted[due..];
        let held = self.held_of(due.iter().map(|wanted| wanted.customer).collect()).await?;
        for held in &held {
            let at = due.binary_search_by_key(&held.key.customer, |wanted| wanted.customer);
            let wanted = &mut due[at.expect("each of these customers is wanted")];
            wanted.since = wanted.since.min(Some(held.key.position.start));
        }
        Ok(held)
    }

    /// The held usage of customers whose billing cycle is another now, but for those that are due.
    pub(super) async fn held_of_moved(
        &self,
        mut moved: Vec<i64>,
        due: &[(i64, i64)],
    ) -> Result<Vec<HeldUsage>, StoreError> {
        moved.retain(|customer| due.binary_search_by_key(customer, |due| due.0).is_err());
        self.held_of(moved).await
    }

    async fn held_of(&self, customers: Vec<i64>) -> Result<Vec<HeldUsage>, StoreError> {
        if self.totals.held == 0 || customers.is_empty() {
            return Ok(Vec::new());
        }
        let store = &self.context.store;
        let rows = self.context.patiently(|| store.held_usage(self.partition, &customers)).await?;
        let held = rows
            .into_iter()
            .map(|of| HeldUsage { key: LedgerKey { customer: of.customer, position: of.row.position }, row: of.row });
        Ok(held.collect())
    }

    /// Takes the batch's fact about a bill run, if it has one.
    pub(super) fn take_bill_run(&mut self, batch: &Batch, draft: &mut Draft) {
        let Some(of) = batch.bill_runs.first() else { return };
        assert!(
            batch.bill_runs.len() == 1 && batch.len() <= 1,
            "a fact about a bill run is alone in its batch (Batch::apart)"
        );
        let fact = &of.fact;
        let taken = self.bill_runs.take(fact);
        let fact_taken = match taken {
            RunTaken::Applied(change) => {
                if self.totals.held == 0 {
                    self.bill_runs.note_letting_in(fact.run.id, None);
                }
                let row = *self.bill_runs.get(fact.run.id).expect("it was just applied");
                draft.commit.bill_runs.push(row);
                if of.origin.is_some() {
                    draft.commit.run_fact = Some(*fact);
                }
                if change.reopened {
                    draft.commit.reopened_runs.push(fact.run.id);
                }
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
                return;
            }
        };
        if let Some(origin) = of.origin {
            let name = format!("billRunId: {} version {}", fact.run.id, fact.version);
            self.note_fact(batch, origin, fact_taken, &name, draft);
        }
    }

    /// Lets in the usage of `held` that no closed run covers any more and no reversal took back.
    pub(super) fn release(
        &self,
        batch: &Batch,
        held: Vec<HeldUsage>,
        due: &[(i64, i64)],
        accounts: &mut [Account],
        judged: &mut Judged,
        draft: &mut Draft,
    ) -> Result<(), StoreError> {
        let mut released = held;
        released.retain(|held| {
            let cycle = account_of(accounts, held.key.customer).billing_cycle();
            let date = self.context.calendar.date_of(held.key.position.start);
            let due = due.binary_search_by_key(&held.key.customer, |due| due.0).ok().map(|at| due[at].1);
            let covered =
                self.bill_runs.hold(cycle, date) && due.is_none_or(|before| self.bill_runs.hold(before, date));
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
