//! What goes into a store and comes out of it, in the words of the domain.

use std::ops::Range;

use uuid::Uuid;

use crate::domain::{
    AssignmentRow, BillRunRow, BucketRow, CustomerRow, Draw, Instant, LineRow, Partitioner, Position, RunFact,
    StandingRow, StoredRow, Totals, UsageState,
};

/// The identity of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Made by the first `migrate`; part of every alert's id.
    pub store_id: Uuid,
    /// `None` until a worker has settled it.
    pub settled: Option<Settled>,
}

/// What a store's rows depend on, so that it can never change later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Partitions of each input topic.
    pub partitions: i32,
    /// How keys give partitions.
    pub partitioner: Partitioner,
    /// The IANA time zone that windows follow.
    pub time_zone: String,
}

/// The next offset to consume of each input topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// Of usage-events.
    pub usage: i64,
    /// Of assignment-events.
    pub assignments: i64,
}

impl Offsets {
    /// The earlier of both, topic by topic.
    #[must_use]
    pub fn earlier(self, other: Offsets) -> Offsets {
        Offsets { usage: self.usage.min(other.usage), assignments: self.assignments.min(other.assignments) }
    }

    /// The later of both, topic by topic.
    #[must_use]
    pub fn later(self, other: Offsets) -> Offsets {
        Offsets { usage: self.usage.max(other.usage), assignments: self.assignments.max(other.assignments) }
    }

    /// Where these stand once a gap is accepted, behind which the first of all that was not there, `first`, becomes `next`:
    /// what lies in the gap moves over it, and where the topic was made again all begin there.
    #[must_use]
    pub(super) fn over_gap(self, first: Offsets, next: Offsets) -> Offsets {
        let over = |own: i64, first: i64, next: i64| match next.cmp(&first) {
            std::cmp::Ordering::Equal => own,
            std::cmp::Ordering::Greater => own.max(next),
            std::cmp::Ordering::Less => next,
        };
        Offsets {
            usage: over(self.usage, first.usage, next.usage),
            assignments: over(self.assignments, first.assignments, next.assignments),
        }
    }
}

/// Which of a partition pair's topics did not have the offset to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gaps {
    /// usage-events.
    pub usage: bool,
    /// assignment-events.
    pub assignments: bool,
}

impl Gaps {
    /// Whether there is one.
    pub fn any(self) -> bool {
        self.usage || self.assignments
    }
}

/// Where a partition pair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which one.
    pub partition: i32,
    /// Its owner's.
    pub epoch: i64,
    /// Where to go on: the earliest offsets of which a record may not be applied.
    pub offsets: Offsets,
    /// The number of the last alert raised.
    pub outbox_number: i64,
    /// How many commits were made.
    pub commits: i64,
    /// Why it does not go on.
    pub gaps: Gaps,
}

/// A gap of a topic behind which its partition pair may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedGap {
    /// Which one.
    pub partition: i32,
    /// The epoch at which it was looked at.
    pub epoch: i64,
    /// Where the partition pair stood then.
    pub seen: Offsets,
    /// Where to go on.
    pub offsets: Offsets,
    /// The gaps that stay.
    pub gaps: Gaps,
    /// The topic whose gap is accepted, by name.
    pub topic: String,
    /// Where to go on there.
    pub next: i64,
}

/// A partition pair as its new owner takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The new owner's; one more than the last owner's.
    pub epoch: i64,
    /// Where to go on.
    pub offsets: Offsets,
    /// Gaps that nobody has accepted.
    pub gaps: Gaps,
    /// The number of the last alert raised.
    pub outbox_number: i64,
    /// How many commits were made.
    pub commits: i64,
    /// Control totals so far.
    pub totals: Totals,
    /// The bill runs applied so far.
    pub bill_runs: Vec<BillRunRow>,
    /// Customers, each with a bill run that is being stored, whose rows of it are stored ahead of their turn.
    pub stored_ahead: Vec<StoredAhead>,
    /// Customers whose records are applied later than the others'.
    pub behind: Vec<Behind>,
    /// Sources that have a number: `sources[n]` has number n + 1.
    pub sources: Vec<String>,
}

impl Taken {
    /// Where to read on: the earliest offsets of which a record may not be applied.
    pub fn read_from(&self) -> Offsets {
        self.behind.iter().fold(self.offsets, |first, behind| first.earlier(behind.offsets))
    }
}

/// A customer whose records are applied later than the others' of the partition, since known usage is folded again
/// meanwhile, in steps. Until then everything known of it is as it was before those records, but for the draws of its
/// ledger rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Which customer.
    pub customer: i64,
    /// From where on the customer's records are not applied.
    pub offsets: Offsets,
    /// What is said of the fold, once it has written.
    pub unfinished: Option<Unfinished>,
}

/// A fold of a customer's usage that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// From this place on the ledger's rows may have draws that the buckets do not know of.
    pub from: Position,
    /// What usage from there on drew, as the buckets know it, in order of slots.
    pub drawn: Vec<Draw>,
}

/// A customer whose rows of a bill run are stored ahead of its turn, since it changed while the run was being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredAhead {
    /// The run.
    pub bill_run: i64,
    /// The customer.
    pub customer: i64,
}

/// Something of one customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfCustomer<T> {
    /// Whose.
    pub customer: i64,
    /// What.
    pub row: T,
}

/// Something of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitioned<T> {
    /// Of which.
    pub partition: i32,
    /// What.
    pub value: T,
}

/// An account that a worker asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Whose.
    pub customer: i64,
    /// Buckets that may not be drawn from at this instant or later may be left out, and rows of buckets that no fact gives;
    /// `None`: none may be.
    pub since: Option<Instant>,
}

impl Wanted {
    /// All of an account.
    pub fn whole(customer: i64) -> Wanted {
        Wanted { customer, since: None }
    }
}

/// How usage is known within its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerKey {
    /// Whose usage.
    pub customer: i64,
    /// Which event.
    pub position: Position,
}

/// Usage as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// Start time and event key.
    pub position: Position,
    /// Whether it counts.
    pub state: UsageState,
    /// The number of its source within the partition.
    pub source: i32,
    /// `domain::packed::pack`.
    pub body: Vec<u8>,
    /// `domain::packed::pack_draws`; empty when it drew nothing or does not count.
    pub draws: Vec<u8>,
}

impl LedgerRow {
    /// The same usage in another state, or with other draws.
    pub(crate) fn changed(&self, state: UsageState, draws: Vec<u8>) -> LedgerRow {
        LedgerRow { position: self.position, state, source: self.source, body: self.body.clone(), draws }
    }
}

/// A new ledger row; its bytes lie in [`Commit::bytes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUsage {
    /// Whose usage, and which event.
    pub key: LedgerKey,
    /// Whether it counts.
    pub state: UsageState,
    /// The number of its source within the partition.
    pub source: i32,
    /// Where its packed form lies.
    pub body: Range<u32>,
    /// Where its packed draws lie.
    pub draws: Range<u32>,
}

/// A reversal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReversalRow {
    /// Whose usage, and which event it takes back.
    pub key: LedgerKey,
    /// Whether that event has yet to come.
    pub pending: bool,
}

/// An alert on its way to Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRow {
    /// Its number within the partition, counted from 1 without gaps.
    pub number: i64,
    /// Whose balance.
    pub customer: i64,
    /// The CloudEvent, in JSON.
    pub body: String,
}

/// A refused record, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRow {
    /// The topic it came from, by name.
    pub topic: String,
    /// Its offset there; the partition is the commit's.
    pub offset: i64,
    /// Its Kafka timestamp, in milliseconds since the Unix epoch; `None` where it had none.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// `domain::Reason::name`.
    pub reason: &'static str,
    /// What is wrong, for a person.
    pub detail: String,
    /// Whom it is about, as far as can be told.
    pub customer: Option<i64>,
}

/// Up to what times a partition has applied things; what is `None` is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedUpTo {
    /// The partition pair.
    pub partition: i32,
    /// The epoch that it was taken with.
    pub epoch: i64,
    /// All that its topics held.
    pub all: Option<Instant>,
    /// All that assignment-events held on this partition.
    pub facts: Option<Instant>,
    /// All bill runs, whichever partition they came in on.
    pub runs: Option<Instant>,
}

/// All that one batch of one partition pair changes.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The partition pair.
    pub partition: i32,
    /// The epoch that it was taken with.
    pub epoch: i64,
    /// How many commits the progress row must have counted. This one is one more.
    pub commits: i64,
    /// The offsets that it holds afterwards.
    pub next: Offsets,
    /// The number of the last alert raised, this batch's included.
    pub outbox_number: i64,
    /// A time whose records the partition has then all applied; `None` when that is not known to be later than before.
    pub applied_at: Option<Instant>,
    /// The same for assignment-events on this partition.
    pub facts_at: Option<Instant>,
    /// The same for bill runs, whichever partition they came in on.
    pub runs_at: Option<Instant>,
    /// Control totals, this batch's included.
    pub totals: Totals,
    /// Sources that got a number in this batch.
    pub sources: Vec<(i32, String)>,
    /// New ledger rows, sorted by key; none is there already.
    pub usage: Vec<NewUsage>,
    /// The bytes that [`Commit::usage`] points into.
    pub bytes: Vec<u8>,
    /// Ledger rows that are there, each once at most, as they are now: with another state or other draws, the event itself
    /// unchanged.
    pub usage_changes: Vec<OfCustomer<LedgerRow>>,
    /// Reversals, new ones and those whose event came.
    pub reversals: Vec<ReversalRow>,
    /// Customers, new or changed.
    pub customers: Vec<CustomerRow>,
    /// Assignments, new or changed.
    pub assignments: Vec<OfCustomer<AssignmentRow>>,
    /// Lines that have no row yet.
    pub new_lines: Vec<OfCustomer<LineRow>>,
    /// Lines whose rows change.
    pub changed_lines: Vec<OfCustomer<LineRow>>,
    /// Lines that are not known any more, by customer and line.
    pub removed_lines: Vec<(i64, i64)>,
    /// For each of [`Commit::assignments`] the dates in which it may be drawn, half-open, if there is the assignment.
    pub assignment_spans: Vec<Option<(Instant, Instant)>>,
    /// Customers of whom it is told anew where all their lines stand: what was told before goes.
    pub standing_anew: Vec<i64>,
    /// Where lines stand, new or changed.
    pub standing: Vec<OfCustomer<StandingRow>>,
    /// Where they stand no more, by customer, line and first instant.
    pub removed_standing: Vec<(i64, i64, Instant)>,
    /// Bill runs, new or changed.
    pub bill_runs: Vec<BillRunRow>,
    /// A fact about a bill run that came in here and holds: every other partition applies it too. Its number is that of
    /// the commit, the first being 1.
    pub run_fact: Option<RunFact>,
    /// Bill runs that are not closed as they were any more: their stored rows and [`StoredAhead`] go, before any come.
    pub reopened_runs: Vec<i64>,
    /// Bill runs that are stored to the end: their [`StoredAhead`] go.
    pub stored_runs: Vec<i64>,
    /// Rows of closing bill runs.
    pub stored_rows: Vec<StoredRow>,
    /// Customers stored ahead of their turn.
    pub stored_ahead: Vec<StoredAhead>,
    /// Customers that are left behind, or stand elsewhere behind than before.
    pub behind: Vec<Behind>,
    /// Customers that are not behind any more.
    pub caught_up: Vec<i64>,
    /// Buckets that have no row yet.
    pub new_buckets: Vec<OfCustomer<BucketRow>>,
    /// Buckets whose allowance, remaining or mark changed.
    pub changed_buckets: Vec<OfCustomer<BucketRow>>,
    /// Buckets that are gone, by customer and slot.
    pub removed_buckets: Vec<(i64, i32)>,
    /// Alerts raised, in order of their numbers.
    pub alerts: Vec<AlertRow>,
    /// Records refused.
    pub dead_letters: Vec<DeadLetterRow>,
    /// A request for a repair that this is the answer to.
    pub repaired: Option<(RepairRequest, Repaired)>,
}

/// A repair that the owner of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairRequest {
    /// Which one.
    pub id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The customer whose balances are folded again; without one only the control totals are.
    pub customer: Option<i64>,
}

/// What a repair changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Rows of buckets.
    pub buckets: i64,
    /// Rows of the ledger.
    pub usage: i64,
    /// Rows of lines.
    pub lines: i64,
}

/// A fact about a bill run, and where it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFactRow {
    /// The partition.
    pub partition: i32,
    /// Its number there: higher than those of facts that came in before it.
    pub number: i64,
    /// What it says.
    pub fact: RunFact,
}

/// Some of the alerts that a partition has in its outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxPart {
    /// The partition.
    pub partition: i32,
    /// Those after this number.
    pub after: i64,
    /// At most so many.
    pub rows: usize,
}

/// The next offset after what is known of a partition of the alerts topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertsOffset {
    /// Of the alerts topic.
    pub partition: i32,
    /// The offset.
    pub next: i64,
}

/// A lower bound of what is on the alerts topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayState {
    /// For each input partition the number of the last alert published.
    pub numbers: Vec<Partitioned<i64>>,
    /// Up to where the alerts topic holds nothing but those.
    pub offsets: Vec<AlertsOffset>,
}

/// What was found or put on the alerts topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// For each input partition that moved the number of the last alert published.
    pub numbers: Vec<Partitioned<i64>>,
    /// For each alerts partition that moved the next offset.
    pub offsets: Vec<AlertsOffset>,
    /// What the store knows of those partitions before this, where it knows anything.
    pub before: Vec<AlertsOffset>,
}

impl Published {
    /// The offsets, each with what the store knows of its partition before this.
    pub(super) fn moves(&self) -> impl Iterator<Item = (AlertsOffset, Option<i64>)> {
        self.offsets.iter().map(|offset| {
            let before = self.before.iter().find(|before| before.partition == offset.partition);
            (*offset, before.map(|before| before.next))
        })
    }
}
