//! An account as a store keeps it: plain values, without the indexes that [`Account`](super::Account) builds over them.

use std::fmt;
use std::str::FromStr;

use super::facts::{Assignment, AssignmentKey, BillRun, ChargingType, CustomerFact, Inventory, Level, Position};
use super::quantity::Quantity;
use super::time::Instant;
use super::totals::Totals;

/// All that is known of one customer, its usage left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountImage {
    /// The customer.
    pub customer: i64,
    /// `customer.changed`, with its version.
    pub fact: Option<(i64, CustomerFact)>,
    /// A bound of the number that the next new bucket gets: this one, or a higher one after those of `buckets`.
    pub next_slot: i32,
    /// Every assignment ever heard of, removed ones included.
    pub assignments: Vec<AssignmentRow>,
    /// The lines known by inventory.changed or by usage. (Those known by an assignment only have no row.)
    pub lines: Vec<LineRow>,
    /// The buckets that something drew from, and some that nothing draws from any more.
    pub buckets: Vec<BucketRow>,
    /// Where that is an instant, every bucket that expires after it is in `buckets`, and earlier ones need not be; such an
    /// account's assignments must not change. `None`: all are there.
    pub since: Option<Instant>,
    /// Reversals whose event has not come.
    pub pending_reversals: Vec<Position>,
    /// The latest start time in the customer's ledger, held and reversed usage included.
    pub latest_usage: Option<Instant>,
}

impl AccountImage {
    /// The billing cycle known now; customers without one are in cycle 0 (`domain.md section 3`).
    pub fn billing_cycle(&self) -> i64 {
        self.fact.map_or(0, |(_, fact)| fact.billing_cycle)
    }

    /// Notes the last slot that buckets of it have, those included that are left out.
    pub fn slots_are_given_up_to(&mut self, last: Option<i32>) {
        self.next_slot = self.next_slot.max(last.map_or(0, |last| last.saturating_add(1)));
    }

    /// Who owns the contract, if that is known.
    pub fn contract_owner(&self) -> Option<i64> {
        self.fact.and_then(|(_, fact)| fact.contract_owner)
    }
}

/// A customer's own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomerRow {
    /// The customer.
    pub customer: i64,
    /// `customer.changed`, with its version.
    pub fact: Option<(i64, CustomerFact)>,
    /// A bound of the number that the next new bucket gets. It counts once buckets are gone: those that are there have
    /// their slots, and the next is after them.
    pub next_slot: i32,
}

/// An assignment's latest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentRow {
    /// How it is known.
    pub key: AssignmentKey,
    /// The version that holds.
    pub version: i64,
    /// What that version says; `None`: removed.
    pub assignment: Option<Assignment>,
}

impl AssignmentRow {
    /// What the version says, as JSON for a store; `None`: removed.
    pub fn fact_text(&self) -> Option<String> {
        let text = |assignment| serde_json::to_string(assignment).expect("plain values always have a JSON form");
        self.assignment.as_ref().map(text)
    }
}

/// What is known of a line (UPI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRow {
    /// The line.
    pub upi: i64,
    /// `inventory.changed`, with its version.
    pub fact: Option<(i64, Inventory)>,
    /// The last usage of it that counts, as far as it matters: usage after it has the same site and product.
    pub last_usage: Option<LastUsage>,
}

/// A line's last usage in the order of `domain.md section 5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastUsage {
    /// Where it stands.
    pub position: Position,
    /// Its site.
    pub site: i64,
    /// Its product.
    pub product: i64,
}

/// A bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketRow {
    /// A number that the account gives once and never again: the bucket's name in stores and draws.
    pub slot: i32,
    /// Whose it is.
    pub assignment: AssignmentKey,
    /// Of which component.
    pub component: i64,
    /// The start of its window as cut.
    pub window_start: Instant,
    /// Of what unit.
    pub charging_type: ChargingType,
    /// Whether it is money.
    pub by_value: bool,
    /// What there is in it at first.
    pub allowance: Quantity,
    /// What is left.
    pub remaining: Quantity,
    /// The greatest position among the events that drew more than nothing from it.
    pub mark: Option<Position>,
}

impl BucketRow {
    /// How it is known within its customer.
    pub fn key(&self) -> BucketKey {
        BucketKey { assignment: self.assignment, component: self.component, window_start: self.window_start }
    }
}

/// How a bucket is known within its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketKey {
    /// Whose it is.
    pub assignment: AssignmentKey,
    /// Of which component.
    pub component: i64,
    /// The start of its window as cut.
    pub window_start: Instant,
}

impl fmt::Display for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AssignmentKey { level, id } = self.assignment;
        write!(f, "{}/{id}/{}/{}", level.name(), self.component, self.window_start)
    }
}

/// The text is not that of a bucket.
#[derive(Debug, thiserror::Error)]
#[error("wants LEVEL/assignmentId/componentId/windowStart, such as SITE/5/1/2026-09-01T00:00:00Z")]
pub struct NoBucketKey;

impl FromStr for BucketKey {
    type Err = NoBucketKey;

    fn from_str(text: &str) -> Result<BucketKey, NoBucketKey> {
        let parts: Vec<&str> = text.split('/').collect();
        let read = || {
            let [level, id, component, start] = parts.as_slice() else { return None };
            Some(BucketKey {
                assignment: AssignmentKey { level: Level::from_name(level)?, id: id.parse().ok()? },
                component: component.parse().ok()?,
                window_start: Instant::parse(start)?,
            })
        };
        read().ok_or(NoBucketKey)
    }
}

/// What an event took from a bucket; never nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The bucket.
    pub slot: i32,
    /// How much.
    pub amount: Quantity,
}

/// Whether usage that is known counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageState {
    /// It counts.
    Counted,
    /// It was first applied while a closed bill run covered it.
    Held,
    /// It was reversed.
    Reversed,
    /// It was held, then reversed.
    HeldReversed,
}

impl UsageState {
    /// All of them, in the order of their numbers.
    pub const ALL: [UsageState; 4] =
        [UsageState::Counted, UsageState::Held, UsageState::Reversed, UsageState::HeldReversed];

    /// A small number that stands for it in stores: its place in [`UsageState::ALL`].
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Adds usage events of this state to control totals.
    pub fn add_to(self, totals: &mut Totals, events: i64) {
        match self {
            UsageState::Counted => totals.counted += events,
            UsageState::Held => totals.held += events,
            UsageState::Reversed | UsageState::HeldReversed => totals.reversed += events,
        }
    }
}

/// A bill run's latest version, as a partition has applied it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillRunRow {
    /// The version that holds.
    pub version: i64,
    /// What it says.
    pub run: BillRun,
    /// While its rows are being stored: customers up to this one are done (-1: none yet).
    pub storing: Option<i64>,
    /// While usage that it held is let in: customers up to this one are done (-1: none yet).
    pub letting_in: Option<i64>,
}
