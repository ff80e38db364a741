//! A store in memory, for speed: as much of [`Store`] as a worker uses, with its fence. It asserts what a commit promises
//! (`store::Commit`), so that a worker which breaks a promise is caught before a database would notice or not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use headroom::domain::{
    AccountImage, AssignmentKey, AssignmentRow, BillRunRow, BucketRow, CustomerRow, Instant, LineRow, Position,
    StandingRow, StoredRow, Totals, UsageState, packed,
};
use headroom::store::{
    AcceptedGap, AlertRow, Answer, AppliedUpTo, Behind, Commit, CommitError, DeadLetterRow, Deployment, Gaps,
    LedgerKey, LedgerRow, LetterPage, LetterSelection, ListedLetter, OfCustomer, Offsets, OutboxPart, Partitioned,
    Place, Progress, Published, Question, RelayState, RepairRequest, Repaired, RunFactRow, Settled, Side, Snapshot,
    Store, StoreError, StoredAhead, Taken, Wanted, WholeLetter,
};
use uuid::Uuid;

/// All that one partition pair has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rows {
    /// Whether somebody damaged them: then more may be left of a bucket than there was.
    pub(crate) is_spoiled: bool,
    pub(crate) epoch: i64,
    pub(crate) offsets: Offsets,
    pub(crate) outbox_number: i64,
    pub(crate) commits: i64,
    pub(crate) totals: Totals,
    pub(crate) sources: Vec<String>,
    pub(crate) ledger: BTreeMap<LedgerKey, LedgerRow>,
    /// Whether the event has yet to come.
    pub(crate) reversals: BTreeMap<LedgerKey, bool>,
    pub(crate) customers: BTreeMap<i64, CustomerRow>,
    pub(crate) assignments: BTreeMap<(i64, AssignmentKey), AssignmentRow>,
    pub(crate) lines: BTreeMap<(i64, i64), LineRow>,
    /// By customer, line and first instant.
    pub(crate) standing: BTreeMap<(i64, i64, Instant), StandingRow>,
    pub(crate) buckets: BTreeMap<(i64, i32), BucketRow>,
    /// Every slot that a row ever had, by customer, with its bucket: assignment, component, start.
    pub(crate) slots: BTreeMap<(i64, i32), (AssignmentKey, i64, Instant)>,
    pub(crate) bill_runs: BTreeMap<i64, BillRunRow>,
    pub(crate) run_facts: Vec<RunFactRow>,
    /// By run, customer and line.
    pub(crate) stored_rows: BTreeMap<(i64, i64, i64), StoredRow>,
    pub(crate) stored_ahead: BTreeSet<StoredAhead>,
    pub(crate) behind: BTreeMap<i64, Behind>,
    pub(crate) alerts: Vec<AlertRow>,
    pub(crate) dead_letters: Vec<DeadLetterRow>,
    pub(crate) repaired: BTreeMap<Uuid, Repaired>,
}

/// What goes wrong with the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Nothing is written.
    Refused,
    /// It is written, and the answer is lost.
    AnswerLost,
}

/// A store with one partition pair, number 0.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    rows: Mutex<Rows>,
    mishap: Mutex<Option<Mishap>>,
}

impl Memory {
    /// One that has this in it.
    pub(crate) fn with(rows: Rows) -> Memory {
        Memory { rows: Mutex::new(rows), mishap: Mutex::default() }
    }

    /// What is in it.
    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    /// Lets the next commit that passes the fence fail.
    pub(crate) fn fail_next(&self, mishap: Mishap) {
        *self.mishap.lock().unwrap() = Some(mishap);
    }
}

impl Rows {
    fn write(&mut self, commit: &Commit) {
        let Offsets { usage, assignments } = commit.next;
        assert!(usage >= self.offsets.usage && assignments >= self.offsets.assignments, "offsets go back");
        self.commits += 1;
        self.offsets = commit.next;
        self.totals = commit.totals;
        for (number, source) in &commit.sources {
            assert_eq!(usize::try_from(*number), Ok(self.sources.len() + 1), "source numbers have no gaps");
            assert!(!self.sources.contains(source), "a source has one number");
            self.sources.push(source.clone());
        }
        self.write_usage(commit);
        for row in &commit.customers {
            self.customers.insert(row.customer, *row);
        }
        for OfCustomer { customer, row } in &commit.assignments {
            let known = self.assignments.insert((*customer, row.key), row.clone());
            assert!(known.is_none_or(|known| known.version < row.version), "a version holds until a higher one");
        }
        for OfCustomer { customer, row } in &commit.changed_lines {
            assert!(self.lines.insert((*customer, row.upi), *row).is_some(), "a changed line has a row");
        }
        for OfCustomer { customer, row } in &commit.new_lines {
            assert!(self.lines.insert((*customer, row.upi), *row).is_none(), "a new line has no row");
        }
        let known = |row: &LineRow| row.fact.is_some() || row.last_usage.is_some();
        assert!(self.lines.values().all(known), "a line is known by something");
        for line in &commit.removed_lines {
            assert!(self.lines.remove(line).is_some(), "only a line with a row is removed: {line:?}");
        }
        assert_eq!(commit.assignment_spans.len(), commit.assignments.len(), "each assignment has its span");
        self.standing.retain(|place, _| !commit.standing_anew.contains(&place.0));
        for place in &commit.removed_standing {
            assert!(self.standing.remove(place).is_some(), "only what stands ceases to: {place:?}");
        }
        for OfCustomer { customer, row } in &commit.standing {
            let known = self.standing.insert((*customer, row.upi, row.from), *row);
            assert_ne!(known, Some(*row), "nothing is written twice");
        }
        self.bill_runs.extend(commit.bill_runs.iter().map(|row| (row.run.id, *row)));
        let numbered = |fact| RunFactRow { partition: commit.partition, number: commit.commits + 1, fact };
        self.run_facts.extend(commit.run_fact.map(numbered));
        self.write_stored(commit);
        self.behind.extend(commit.behind.iter().map(|behind| (behind.customer, behind.clone())));
        for customer in &commit.caught_up {
            assert!(self.behind.remove(customer).is_some(), "only a customer behind catches up");
        }
        self.write_buckets(commit);
        for alert in &commit.alerts {
            self.outbox_number += 1;
            assert_eq!(alert.number, self.outbox_number, "outbox numbers have no gaps");
            self.alerts.push(alert.clone());
        }
        assert_eq!(commit.outbox_number, self.outbox_number, "the progress row has the last alert's number");
        self.dead_letters.extend(commit.dead_letters.iter().cloned());
        self.repaired.extend(commit.repaired.map(|(request, repaired)| (request.id, repaired)));
        self.check_customers();
    }

    fn write_usage(&mut self, commit: &Commit) {
        assert!(commit.usage.is_sorted_by(|a, b| a.key < b.key), "new usage is sorted by key, each key once");
        let bytes = |range: &std::ops::Range<u32>| commit.bytes[range.start as usize..range.end as usize].to_vec();
        for new in &commit.usage {
            assert!(usize::try_from(new.source).is_ok_and(|source| source <= self.sources.len()), "a source is known");
            let (position, state, source) = (new.key.position, new.state, new.source);
            let row = LedgerRow { position, state, source, body: bytes(&new.body), draws: bytes(&new.draws) };
            assert!(self.ledger.insert(new.key, row).is_none(), "new usage is not in the ledger");
        }
        for OfCustomer { customer, row } in &commit.usage_changes {
            let key = LedgerKey { customer: *customer, position: row.position };
            let known = self.ledger.insert(key, row.clone()).expect("changed usage is in the ledger");
            assert_eq!((known.source, known.body), (row.source, row.body.clone()), "the event stays as it is");
        }
        for reversal in &commit.reversals {
            self.reversals.insert(reversal.key, reversal.pending);
        }
    }

    fn write_stored(&mut self, commit: &Commit) {
        self.stored_rows.retain(|key, _| !commit.reopened_runs.contains(&key.0));
        let gone = |run: &i64| commit.reopened_runs.contains(run) || commit.stored_runs.contains(run);
        self.stored_ahead.retain(|ahead| !gone(&ahead.bill_run));
        for row in &commit.stored_rows {
            let key = (row.bill_run, row.customer, row.upi);
            assert!(self.stored_rows.insert(key, row.clone()).is_none(), "a row is stored once: {key:?}");
        }
        for ahead in &commit.stored_ahead {
            assert!(self.stored_ahead.insert(*ahead), "a customer is stored ahead once: {ahead:?}");
        }
    }

    fn write_buckets(&mut self, commit: &Commit) {
        for bucket in &commit.removed_buckets {
            assert!(self.buckets.remove(bucket).is_some(), "only a bucket with a row is removed: {bucket:?}");
        }
        for OfCustomer { customer, row } in &commit.changed_buckets {
            let known = self.buckets.insert((*customer, row.slot), *row).expect("a changed bucket has a row");
            assert_eq!((known.assignment, known.component), (row.assignment, row.component), "a slot stays a bucket's");
            assert_eq!(known.window_start, row.window_start, "a slot stays a bucket's");
        }
        for OfCustomer { customer, row } in &commit.new_buckets {
            assert!(self.buckets.insert((*customer, row.slot), *row).is_none(), "a new bucket has no row");
            let bucket = (row.assignment, row.component, row.window_start);
            let given = self.slots.insert((*customer, row.slot), bucket);
            // Where somebody took the rows of buckets away, nothing tells a repair of the slots that they had.
            let again = commit.repaired.is_some();
            assert!(again || given.is_none_or(|given| given == bucket), "a slot is given once: {row:?}");
        }
        for row in self.buckets.values().filter(|_| !self.is_spoiled) {
            assert!(row.remaining <= row.allowance, "no more is left than there was: {row:?}");
        }
    }

    /// Whatever belongs to a customer, its customer has a row.
    fn check_customers(&self) {
        let known = |customer: &i64| self.customers.contains_key(customer);
        assert!(
            self.ledger.keys().chain(self.reversals.keys()).all(|key| known(&key.customer)),
            "a customer has a row"
        );
        assert!(self.assignments.keys().all(|(customer, _)| known(customer)), "a customer has a row");
        assert!(self.lines.keys().all(|(customer, _)| known(customer)), "a customer has a row");
        assert!(self.buckets.keys().all(|(customer, _)| known(customer)), "a customer has a row");
    }

    /// Up to `limit` ledger rows of a customer after a position, in order.
    fn usage_after(&self, customer: i64, after: Option<Position>, limit: usize) -> Vec<LedgerRow> {
        let later = self.ledger.iter().filter(|(key, _)| key.customer == customer && Some(key.position) > after);
        later.take(limit).map(|(_, row)| row.clone()).collect()
    }

    /// What is left of an account without the buckets that may not be drawn from any more at `since`, as far as a store
    /// need know.
    fn image_since(&self, row: CustomerRow, since: Option<Instant>) -> AccountImage {
        let mut image = self.image(row);
        let Some(since) = since else { return image };
        image.since = Some(since);
        image.slots_are_given_up_to(image.buckets.iter().map(|bucket| bucket.slot).max());
        let starts = |row: &AssignmentRow| Some((row.key, row.assignment.as_ref()?.starts_from(since)?));
        let starts: BTreeMap<AssignmentKey, Instant> = image.assignments.iter().filter_map(starts).collect();
        image.buckets.retain(|row| starts.get(&row.assignment).is_some_and(|start| row.window_start >= *start));
        image
    }

    fn image(&self, row: CustomerRow) -> AccountImage {
        let customer = row.customer;
        let of = |key: &&LedgerKey| key.customer == customer;
        AccountImage {
            customer,
            fact: row.fact,
            next_slot: row.next_slot,
            assignments: self.assignments.iter().filter(|(key, _)| key.0 == customer).map(|(_, a)| a.clone()).collect(),
            lines: self.lines.iter().filter(|(key, _)| key.0 == customer).map(|(_, line)| *line).collect(),
            since: None,
            buckets: self.buckets.iter().filter(|(key, _)| key.0 == customer).map(|(_, bucket)| *bucket).collect(),
            pending_reversals: self
                .reversals
                .iter()
                .filter(|(key, pending)| of(key) && **pending)
                .map(|(key, _)| key.position)
                .collect(),
            latest_usage: self.ledger.keys().filter(of).map(|key| key.position.start).max(),
        }
    }
}

#[async_trait]
impl Store for Memory {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ping(&self, _side: Side) -> Result<(), StoreError> {
        Ok(())
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        Ok(Deployment { store_id: Uuid::nil(), settled: None })
    }

    async fn settle(&self, settled: &Settled) -> Result<Settled, StoreError> {
        Ok(settled.clone())
    }

    async fn take(&self, _partition: i32) -> Result<Taken, StoreError> {
        let mut rows = self.rows();
        rows.epoch += 1;
        Ok(Taken {
            epoch: rows.epoch,
            offsets: rows.offsets,
            gaps: Gaps::default(),
            outbox_number: rows.outbox_number,
            commits: rows.commits,
            totals: rows.totals,
            bill_runs: rows.bill_runs.values().copied().collect(),
            stored_ahead: rows.stored_ahead.iter().copied().collect(),
            behind: rows.behind.values().cloned().collect(),
            sources: rows.sources.clone(),
        })
    }

    async fn accounts(&self, _partition: i32, wanted: &[Wanted]) -> Result<Vec<AccountImage>, StoreError> {
        let rows = self.rows();
        let known = wanted.iter().filter_map(|wanted| Some((rows.customers.get(&wanted.customer)?, wanted.since)));
        Ok(known.map(|(row, since)| rows.image_since(*row, since)).collect())
    }

    async fn known_usage(&self, _partition: i32, keys: &[LedgerKey]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        let rows = self.rows();
        let found = keys.iter().filter_map(|key| Some((key.customer, rows.ledger.get(key)?.clone())));
        Ok(found.map(|(customer, row)| OfCustomer { customer, row }).collect())
    }

    async fn usage_after(
        &self,
        _partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        Ok(self.rows().usage_after(customer, after, limit))
    }

    async fn usage_before(
        &self,
        _partition: i32,
        customer: i64,
        before: Position,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let rows = self.rows();
        let earlier = rows.ledger.iter().filter(|(key, _)| key.customer == customer && key.position < before);
        Ok(earlier.rev().take(limit).map(|(_, row)| row.clone()).collect())
    }

    async fn holders_after(&self, _partition: i32, after: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        let rows = self.rows();
        let held = rows.ledger.iter().filter(|(key, row)| key.customer > after && row.state == UsageState::Held);
        Ok(held.map(|(key, _)| key.customer).take(limit).collect())
    }

    async fn held_usage(&self, _partition: i32, customers: &[i64]) -> Result<Vec<OfCustomer<LedgerRow>>, StoreError> {
        let rows = self.rows();
        let is_asked = |key: &LedgerKey| customers.contains(&key.customer);
        let found = rows.ledger.iter().filter(|(key, row)| row.state == UsageState::Held && is_asked(key));
        Ok(found.map(|(key, row)| OfCustomer { customer: key.customer, row: row.clone() }).collect())
    }

    async fn customers_after(
        &self,
        _partition: i32,
        cycle: i64,
        after: i64,
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let rows = self.rows();
        let later = rows.customers.range((Bound::Excluded(after), Bound::Unbounded));
        let of_cycle = later.filter(|(_, row)| row.fact.map_or(0, |(_, fact)| fact.billing_cycle) == cycle);
        Ok(of_cycle.map(|(customer, _)| *customer).take(limit).collect())
    }

    async fn commit(&self, commit: &Commit) -> Result<(), CommitError> {
        let mut rows = self.rows();
        if commit.epoch != rows.epoch || commit.commits != rows.commits {
            return Err(CommitError::Fenced(commit.partition));
        }
        let mishap = self.mishap.lock().unwrap().take();
        if mishap == Some(Mishap::Refused) {
            return Err(CommitError::Store(StoreError::Unavailable("refused by the test".to_owned())));
        }
        rows.write(commit);
        match mishap {
            None => Ok(()),
            Some(_) => Err(CommitError::Unknown("lost by the test".to_owned())),
        }
    }

    async fn note_applied(&self, _applied: &[AppliedUpTo]) -> Result<(), StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn facts_at(&self) -> Result<Option<Instant>, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn run_facts(&self, seen: &[Partitioned<i64>]) -> Result<Vec<RunFactRow>, StoreError> {
        let after = seen.first().map_or(0, |seen| seen.value);
        Ok(self.rows().run_facts.iter().filter(|row| row.number > after).copied().collect())
    }

    async fn lease(&self, _holder: Uuid, _seconds: u32) -> Result<bool, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn relay_state(&self) -> Result<RelayState, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn outbox_numbers(&self) -> Result<Vec<Partitioned<i64>>, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn outbox(&self, _parts: &[OutboxPart], _bytes: usize) -> Result<Vec<Partitioned<AlertRow>>, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn published(&self, _published: &Published) -> Result<bool, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn read(&self, _question: &Question<'_>) -> Result<Answer, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.rows().totals)
    }

    async fn count_dead_letters(&self, _selection: &LetterSelection) -> Result<i64, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn list_dead_letters(
        &self,
        _selection: &LetterSelection,
        _page: &LetterPage,
    ) -> Result<Vec<ListedLetter>, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn dead_letter(&self, _place: &Place) -> Result<Option<WholeLetter>, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn dead_letters_put_back(&self, _places: &[Place]) -> Result<(), StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(self.rows().clone()))
    }

    async fn request_repair(&self, _request: &RepairRequest) -> Result<(), StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn repair_requests(&self) -> Result<Vec<RepairRequest>, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn repaired(&self, request: &RepairRequest) -> Result<Option<Repaired>, StoreError> {
        Ok(self.rows().repaired.get(&request.id).copied())
    }

    async fn progress(&self) -> Result<Vec<Progress>, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn note_gaps(&self, _partition: i32, _epoch: i64, _gaps: Gaps) -> Result<bool, StoreError> {
        unreachable!("no part of a partition's work")
    }

    async fn accept_gap(&self, _accepted: &AcceptedGap) -> Result<bool, StoreError> {
        unreachable!("no part of a partition's work")
    }
}

/// Rows that nobody writes are a moment.
#[async_trait]
impl Snapshot for Rows {
    async fn customers(&mut self, _partition: i32, after: Option<i64>, limit: usize) -> Result<Vec<i64>, StoreError> {
        let later = self.customers.keys().copied().filter(|customer| Some(*customer) > after);
        Ok(later.take(limit).collect())
    }

    async fn account(&mut self, _partition: i32, customer: i64) -> Result<Option<AccountImage>, StoreError> {
        Ok(self.customers.get(&customer).map(|row| self.image(*row)))
    }

    async fn is_unfinished(&mut self, _partition: i32, customer: i64) -> Result<bool, StoreError> {
        Ok(self.behind.get(&customer).is_some_and(|behind| behind.unfinished.is_some()))
    }

    async fn usage_after(
        &mut self,
        _partition: i32,
        customer: i64,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        Ok(Rows::usage_after(self, customer, after, limit))
    }

    async fn sources(&mut self, _partition: i32) -> Result<Vec<String>, StoreError> {
        Ok(self.sources.clone())
    }

    async fn totals(&mut self, _partition: i32) -> Result<Totals, StoreError> {
        Ok(self.totals)
    }

    async fn sums(&mut self, _partition: i32) -> Result<Totals, StoreError> {
        let mut sums = Totals::default();
        for row in self.ledger.values() {
            row.state.add_to(&mut sums, 1);
        }
        for row in self.buckets.values() {
            let of = if row.by_value { &mut sums.drawn_by_value } else { &mut sums.drawn };
            of[usize::from(row.charging_type.number())] +=
                i128::from(row.allowance.millionths()) - i128::from(row.remaining.millionths());
        }
        Ok(sums)
    }

    async fn quantities(&mut self, _partition: i32) -> Result<[i128; 3], StoreError> {
        let mut sums = [0; 3];
        for row in self.ledger.values().filter(|row| row.state == UsageState::Counted) {
            let (kind, quantity) = packed::quantity(&row.body).expect("a ledger row can be read");
            sums[usize::from(kind.number())] += i128::from(quantity.millionths());
        }
        Ok(sums)
    }
}
