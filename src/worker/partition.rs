//! A partition pair in the hands of its one owner: batches in, commits out.
//!
//! [`Partition::apply`] makes a batch's commit out of what it holds in memory and what it must read, writes it, and only
//! then says what became of the records. After any error nothing in memory is to be trusted: the owner drops the
//! `Partition` and takes the pair anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use uuid::Uuid;

use super::alerts::Envelope;
use super::batch::{Batch, Cause, Parts};
use super::behind::Trailing;
use super::cache::Cache;
use super::draw::Tail;
use super::ends::Ends;
use super::outcomes::Outcomes;
use super::portion::Portion;
use super::runs::LedgerCause;
use super::usage::Judged;
use crate::domain::{
    Account, AssignmentRow, BillRuns, Calendar, Changes, Draw, Instant, Outcome, Reason, Reference, Refusal, Taken,
    Threshold, Totals, Turn, Waterfall,
};
use crate::events::Rules;
use crate::store::{self, AlertRow, Commit, CommitError, OfCustomer, Offsets, Store, StoredAhead};
use crate::telemetry::Health;

/// The longest source that gets a number, in bytes.
const SOURCE_LENGTH: usize = 1_000;
/// About how many bytes the sources of a partition with a number take in memory, each with so many beside its own.
const SOURCES_BYTES: usize = 1 << 20;
const SOURCE_BYTES: usize = 64;

/// What all partitions of a worker share.
pub struct Context {
    /// Where it all is kept.
    pub store: Arc<dyn Store>,
    /// The identity of that store.
    pub store_id: Uuid,
    /// Where local days begin.
    pub calendar: Calendar,
    /// How many partitions each input has.
    pub partitions: i32,
    /// The thresholds of assignments without their own.
    pub thresholds: Vec<Threshold>,
    /// The `source` of alerts.
    pub alert_source: String,
    /// The names of the input topics, for dead letters: usage, assignments.
    pub topics: [String; 2],
    /// The wall clock.
    pub now: fn() -> Instant,
    /// About how many bytes of accounts one commit works on.
    pub accounts_bytes: usize,
    /// Bytes of accounts that one partition keeps in memory.
    pub cache_bytes: usize,
    /// How long before their latest usage accounts in memory reach back, so that usage which comes so late need not load
    /// them again.
    pub look_back: Duration,
    /// Ledger rows that a replay reads at once.
    pub replay_page: usize,
    /// How long a partition folds known usage again at a time, while the records of its other customers wait.
    pub replay_pause: Duration,
    /// Bytes of records of customers behind that one partition keeps in memory.
    pub behind_bytes: usize,
    /// Customers whose rows of a closing bill run are stored at once.
    pub storing_customers: usize,
    /// Held usage that is let in at once, more only where one customer has more.
    pub let_in: usize,
    /// What a record must keep.
    pub rules: Rules,
    /// Where it says how the store is.
    pub health: Health,
}

/// A partition pair and what its owner knows of it.
pub struct Partition {
    pub(super) context: Arc<Context>,
    pub(super) partition: i32,
    pub(super) epoch: i64,
    /// The next offsets to apply, but for customers behind.
    pub(super) offsets: Offsets,
    /// The next offsets to read: those to apply, once all of customers behind is read again.
    pub(super) read: Offsets,
    /// Customers behind, by their ids.
    pub(super) trailing: BTreeMap<i64, Trailing>,
    pub(super) outbox_number: i64,
    /// How many commits the store has of it.
    pub(super) commits: i64,
    pub(super) totals: Totals,
    pub(super) bill_runs: BillRuns,
    /// Customers stored ahead of their turn in a run that is being stored.
    pub(super) ahead: FxHashSet<StoredAhead>,
    pub(super) sources: FxHashMap<String, i32>,
    /// About how many bytes they take.
    sources_bytes: usize,
    /// How many customers' held usage is let in at once: fewer while that takes too long.
    pub(super) let_in: usize,
    /// How much of a batch is applied at once.
    portion: Portion,
    /// Ends of its topics that it has yet to come to.
    pub(super) ends: Arc<Ends>,
    pub(super) cache: Cache,
    /// The latest start time of the usage of all accounts that were in memory; the least there is where there was none.
    latest_usage: Instant,
    pub(super) waterfall: Waterfall,
    /// Scratch space: what the event at hand draws, and the same packed.
    pub(super) draws: Vec<Draw>,
    pub(super) packed: Vec<u8>,
}

/// What a batch's commit made durable.
#[derive(Debug, Default)]
pub struct Applied {
    /// What became of its records.
    pub outcomes: Outcomes,
    /// Alerts raised.
    pub alerts: usize,
    /// Customers whose usage was replayed.
    pub replays: u64,
    /// Usage events that those replays folded.
    pub replayed_events: u64,
}

/// A batch as far as it is judged: what is left is to draw.
pub(super) struct Prepared {
    pub(super) accounts: Vec<Account>,
    /// Customers whose known usage may draw otherwise, with from when on.
    pub(super) unsettled: FxHashMap<i64, Instant>,
    pub(super) judged: Judged,
    pub(super) draft: Draft,
    pub(super) tail: Tail,
}

/// What a batch is made into, before it is written.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) commit: Commit,
    pub(super) changes: Changes,
    pub(super) applied: Applied,
    pub(super) totals: Totals,
    /// Events of the ledger that alerts may name as their cause.
    pub(super) causes: Vec<LedgerCause>,
}

impl Partition {
    /// A partition pair as the store gave it.
    pub fn new(context: Arc<Context>, partition: i32, taken: store::Taken) -> Partition {
        let read = taken.read_from();
        let trailing = taken.behind.into_iter().map(|row| (row.customer, Trailing::stored(row, partition))).collect();
        let sources_bytes = taken.sources.iter().map(|source| SOURCE_BYTES + source.len()).sum();
        let sources = taken.sources.into_iter().zip(1..).collect();
        let (let_in, accounts_bytes) = (context.let_in, context.accounts_bytes);
        Partition {
            context,
            partition,
            epoch: taken.epoch,
            offsets: taken.offsets,
            read,
            trailing,
            outbox_number: taken.outbox_number,
            commits: taken.commits,
            totals: taken.totals,
            bill_runs: BillRuns::restore(taken.bill_runs),
            ahead: taken.stored_ahead.into_iter().collect(),
            sources,
            sources_bytes,
            let_in,
            portion: Portion::new(accounts_bytes),
            ends: Arc::default(),
            cache: Cache::default(),
            latest_usage: Instant::MIN,
            waterfall: Waterfall::default(),
            draws: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Whether `taken` follows one's own last commit, so that what is in memory is still true. Then goes on with its
    /// epoch. With customers behind it is not, since their records are read again.
    pub fn resume(&mut self, taken: &store::Taken) -> bool {
        let follows = taken.epoch == self.epoch + 1 && taken.commits == self.commits;
        // A store that lost commits may have come to as many again, by others.
        let alike =
            taken.offsets == self.offsets && taken.outbox_number == self.outbox_number && taken.totals == self.totals;
        let own = follows && alike && !self.is_behind();
        if own {
            self.epoch = taken.epoch;
        }
        own
    }

    /// The epoch at which it was taken.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Its number.
    pub fn number(&self) -> i32 {
        self.partition
    }

    /// The earliest offsets of which a record may not be applied.
    pub fn offsets(&self) -> Offsets {
        self.trailing.values().fold(self.offsets, |first, trailing| first.earlier(trailing.row.offsets))
    }

    /// The next offsets of what is applied or kept aside for customers behind.
    pub(super) fn passed(&self) -> Offsets {
        self.offsets
    }

    /// The next offsets to read.
    pub(super) fn read(&self) -> Offsets {
        self.read
    }

    /// The number of the last alert raised.
    pub fn outbox_number(&self) -> i64 {
        self.outbox_number
    }

    /// Control totals of what is committed.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The bill runs applied.
    pub fn bill_runs(&self) -> &BillRuns {
        &self.bill_runs
    }

    /// Forgets one account.
    pub(super) fn forget(&mut self, customer: i64) {
        self.cache.take(customer);
    }

    /// Forgets the accounts in memory; they are loaded again when needed.
    pub fn forget_accounts(&mut self) {
        self.cache.clear();
    }

    /// The next part of a batch, to be applied in one commit.
    pub fn next_part(&self, parts: &mut Parts) -> Option<Batch> {
        let by_runs = self.is_storing() || self.is_letting_in() || parts.brings_bill_run();
        let recent_from = if by_runs { Instant::MAX } else { self.context.keep_from()(self.latest_usage) };
        parts.next(&self.context.rules, self.portion, recent_from)
    }

    /// Applies a batch in one commit. Records of customers behind, and of customers whose usage would have to be folded
    /// again for too long, are taken out of it and applied by [`Partition::catch_up`].
    ///
    /// # Panics
    ///
    /// When the batch must wait ([`Partition::must_catch_up`]).
    pub async fn apply(&mut self, batch: &mut Batch) -> Result<Applied, CommitError> {
        assert!(!self.must_catch_up(batch), "customers behind catch up before a bill run comes in");
        if self.is_behind() {
            self.set_aside(batch);
        }
        loop {
            let next = batch.next(self.offsets).later(self.offsets);
            if batch.is_empty() && next == self.offsets {
                return Ok(Applied::default());
            }
            let mut prepared = self.prepare(batch, &[]).await?;
            let long = self.draw(batch, &mut prepared, self.context.replay_pause).await?;
            if long.is_empty() {
                let applied = self.conclude(batch, prepared, next).await?;
                // Of a topic that it has nothing of, records of customers behind may be yet to be read again.
                self.read = self.read.later(batch.next(self.read));
                return Ok(applied);
            }
            self.leave_behind(&long);
            self.set_aside(batch);
        }
    }

    /// Judges a batch. `behind` are customers who catch up with it, whether or not it has records of theirs.
    pub(super) async fn prepare(&mut self, batch: &mut Batch, behind: &[i64]) -> Result<Prepared, CommitError> {
        batch.begin();
        let mut draft = Draft::default();
        for (origin, refusal) in std::mem::take(&mut batch.refused) {
            self.refuse(batch, origin, refusal, &mut draft);
        }
        batch.usage.sort_unstable_by_key(|usage| (usage.key, usage.origin));
        self.before_bill_run(batch).await?;
        let mut wanted = self.wanted(batch, behind);
        let mut held = self.held_of_due(&mut wanted).await?;
        let mut accounts = self.accounts_of(wanted).await?;
        self.store_ahead(accounts.iter().map(Account::customer), &mut draft.commit).await?;
        self.take_bill_run(batch, &mut draft);
        let due = self.due(&accounts);
        let (unsettled, moved) = self.take_references(batch, &mut accounts, &mut draft);
        let mut judged = self.judge(batch, &mut accounts, &mut draft).await?;
        held.extend(self.held_of_moved(moved, &due).await?);
        self.release(batch, held, &due, &mut accounts, &mut judged, &mut draft)?;
        let tail = Tail::after(batch, judged.new.len());
        Ok(Prepared { accounts, unsettled, judged, draft, tail })
    }

    /// Writes what a batch has become.
    pub(super) async fn conclude(
        &mut self,
        batch: &mut Batch,
        prepared: Prepared,
        next: Offsets,
    ) -> Result<Applied, CommitError> {
        let Prepared { mut accounts, mut draft, tail, .. } = prepared;
        draft.commit.bytes = tail.into_bytes();
        for account in &mut accounts {
            account.finish(&self.context.calendar, &self.context.thresholds, &mut draft.changes);
        }
        let Draft { mut commit, changes, mut applied, totals, causes } = draft;
        applied.alerts = changes.alerts.len();
        commit.next = next;
        self.fill(batch, changes, totals, &causes, &mut commit);
        self.write(&commit).await?;
        batch.bytes = std::mem::take(&mut commit.bytes);
        self.offsets = commit.next;
        self.outbox_number = commit.outbox_number;
        self.totals = commit.totals;
        self.note_stored(&commit);
        self.note_behind(&commit);
        self.sources_bytes += size_of_sources(&commit);
        self.sources.extend(commit.sources.into_iter().map(|(number, source)| (source, number)));
        self.latest_usage = accounts.iter().filter_map(Account::latest_usage).fold(self.latest_usage, Instant::max);
        let whole: usize = accounts.iter().map(|account| account.size() + account.size_left_out()).sum();
        let (count, keep_from) = (accounts.len(), self.context.keep_from());
        let recent = self.cache.put(accounts.into_iter(), self.context.cache_bytes, keep_from);
        self.portion.note(count, recent, whole.max(recent));
        Ok(applied)
    }

    /// Writes a commit, waiting for a store that is away.
    pub(super) async fn write(&mut self, commit: &Commit) -> Result<(), CommitError> {
        self.context.patiently(|| self.context.store.commit(commit)).await?;
        self.commits += 1;
        Ok(())
    }

    /// Makes a dead letter of a record.
    pub(super) fn refuse(&self, batch: &Batch, origin: u32, refusal: Refusal, draft: &mut Draft) {
        let input = batch.origin(origin).input;
        draft.applied.outcomes.add_dead_letter(input, refusal.reason);
        let topic = &self.context.topics[input as usize];
        draft.commit.dead_letters.push(batch.dead_letter(origin, topic, refusal));
    }

    /// Takes the reference facts in their order of arrival. Returns the customers whose known usage may draw otherwise
    /// now, with from when on, and those whose billing cycle is another now.
    fn take_references(
        &self,
        batch: &mut Batch,
        accounts: &mut [Account],
        draft: &mut Draft,
    ) -> (FxHashMap<i64, Instant>, Vec<i64>) {
        let references = std::mem::take(&mut batch.references);
        let mut named = Vec::with_capacity(references.len());
        let mut moved = Vec::new();
        for reference in references {
            let account = account_of(accounts, reference.customer);
            let cycle = account.billing_cycle();
            let (version, origin) = (reference.version, reference.origin);
            let name = describe(reference.customer, version, &reference.fact);
            let taken = account.take(version, reference.fact);
            if account.billing_cycle() != cycle {
                moved.push(reference.customer);
            }
            self.note_fact(batch, origin, taken, &name, draft);
            named.push(reference.customer);
        }
        named.sort_unstable();
        named.dedup();
        let mut settle = |customer: i64| account_of(accounts, customer).settle(&self.context.calendar);
        let unsettled =
            named.into_iter().filter_map(|customer| settle(customer).map(|from| (customer, from))).collect();
        moved.sort_unstable();
        moved.dedup();
        (unsettled, moved)
    }

    pub(super) fn note_fact(&self, batch: &Batch, origin: u32, taken: Taken, name: &str, draft: &mut Draft) {
        let input = batch.origin(origin).input;
        let outcome = match taken {
            Taken::Applied => Outcome::Applied,
            Taken::Duplicate => Outcome::Duplicate,
            Taken::PassedOver => Outcome::PassedOver,
            Taken::Conflict => {
                let refusal = Refusal::new(Reason::Conflict, format!("{name} is known with other data"));
                return self.refuse(batch, origin, refusal, draft);
            }
        };
        draft.applied.outcomes.add(input, outcome);
    }

    /// Gives the sources of new usage their numbers, and turns what changed into rows.
    fn fill(&self, batch: &mut Batch, changes: Changes, totals: Totals, causes: &[LedgerCause], commit: &mut Commit) {
        commit.partition = self.partition;
        commit.epoch = self.epoch;
        commit.commits = self.commits;
        commit.behind.extend(self.newly_behind());
        if self.trailing.is_empty() && !self.is_letting_in() {
            commit.applied_at = self.ends.reached(commit.next);
        }
        (commit.facts_at, commit.runs_at) = self.ends.seen();
        commit.totals = self.totals;
        commit.totals += totals;
        for kind in 0..3 {
            commit.totals.drawn[kind] += changes.drawn[kind];
            commit.totals.drawn_by_value[kind] += changes.drawn_by_value[kind];
        }
        let envelope = Envelope {
            store_id: self.context.store_id,
            source: &self.context.alert_source,
            calendar: &self.context.calendar,
            partition: self.partition,
            committed_at: (self.context.now)(),
        };
        commit.outbox_number = self.outbox_number;
        for alert in &changes.alerts {
            commit.outbox_number += 1;
            match alert.turn {
                Turn::Crossed => commit.totals.crossed += 1,
                Turn::Recovered => commit.totals.recovered += 1,
            }
            let cause = alert.cause.and_then(|number| match number.checked_sub(batch.causes()) {
                None => batch.cause(number),
                Some(at) => causes.get(at as usize).map(|cause| Cause {
                    source: &cause.source,
                    id: &cause.id,
                    start: cause.start,
                }),
            });
            let body = envelope.encode(commit.outbox_number, alert, cause);
            commit.alerts.push(AlertRow { number: commit.outbox_number, customer: alert.customer, body });
        }
        let tail = std::mem::replace(&mut commit.bytes, std::mem::take(&mut batch.bytes));
        commit.bytes.extend_from_slice(&tail);
        commit.customers = changes.customers;
        commit.assignments = of_customers(changes.assignments);
        commit.new_lines = of_customers(changes.new_lines);
        commit.changed_lines = of_customers(changes.changed_lines);
        commit.removed_lines = changes.removed_lines;
        let span = |of: &OfCustomer<AssignmentRow>| of.row.assignment.as_ref()?.drawable(&self.context.calendar);
        commit.assignment_spans = commit.assignments.iter().map(span).collect();
        commit.standing = of_customers(changes.standing);
        commit.removed_standing = changes.removed_standing;
        commit.new_buckets = of_customers(changes.new_buckets);
        commit.changed_buckets = of_customers(changes.changed_buckets);
        commit.removed_buckets = changes.removed_buckets;
    }

    /// The number of a source within this partition, given in this batch if it has none; 0 for one that gets none.
    pub(super) fn source_number(&self, source: &str, commit: &mut Commit) -> i32 {
        let new = || commit.sources.iter().find(|(_, known)| known == source).map(|(number, _)| *number);
        if let Some(number) = self.sources.get(source).copied().or_else(new) {
            return number;
        }
        let known = self.sources.len() + commit.sources.len();
        let bytes = self.sources_bytes + size_of_sources(commit);
        if source.len() > SOURCE_LENGTH || bytes > SOURCES_BYTES {
            return 0;
        }
        let number = i32::try_from(known + 1).expect("few sources");
        commit.sources.push((number, source.to_owned()));
        number
    }
}

/// About how many bytes the sources of a commit will take.
fn size_of_sources(commit: &Commit) -> usize {
    commit.sources.iter().map(|(_, source)| SOURCE_BYTES + source.len()).sum()
}

/// The account of a customer of the batch.
pub(super) fn account_of(accounts: &mut [Account], customer: i64) -> &mut Account {
    let at = accounts.binary_search_by_key(&customer, Account::customer);
    &mut accounts[at.expect("every customer of the batch has an account")]
}

fn of_customers<T>(rows: Vec<(i64, T)>) -> Vec<OfCustomer<T>> {
    rows.into_iter().map(|(customer, row)| OfCustomer { customer, row }).collect()
}

/// Names a reference fact for a person.
fn describe(customer: i64, version: i64, fact: &crate::domain::Reference) -> String {
    let what = match fact {
        Reference::Assignment(assignment) => format!("{} assignmentId: {}", assignment.level.name(), assignment.id),
        Reference::AssignmentRemoved(key) => format!("{} assignmentId: {}", key.level.name(), key.id),
        Reference::Inventory(inventory) => format!("usageProductInventoryId: {}", inventory.upi),
        Reference::Customer(_) => "customer.changed".to_owned(),
    };
    format!("customerId: {customer}, {what} version {version}")
}
