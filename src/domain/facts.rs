//! What the two input topics can say, once read (`domain.md section 3`).
//!
//! Facts are plain values. How bytes become facts, and what is wrong with those that do not, is the business of
//! `events`; what a fact does to balances is the business of [`Account`](super::Account) and [`BillRuns`](super::BillRuns).

use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use super::threshold::Threshold;
use super::time::{Date, Instant};

/// xxh3-128 of an event's source, a zero byte and its id: what tells events apart. Ordered as unsigned big-endian bytes.
///
/// Aligned like the numbers beside it in rows, of which millions are in memory: by itself it would cost them a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(8))]
pub struct EventKey(pub u128);

impl EventKey {
    /// The key of the event with this source and id.
    pub fn new(source: &str, id: &str) -> EventKey {
        let (source, id) = (source.as_bytes(), id.as_bytes());
        let length = source.len() + 1 + id.len();
        let mut short = [0u8; 256];
        if length <= short.len() {
            short[..source.len()].copy_from_slice(source);
            short[source.len() + 1..length].copy_from_slice(id);
            return EventKey(xxhash_rust::xxh3::xxh3_128(&short[..length]));
        }
        EventKey(xxhash_rust::xxh3::xxh3_128(&[source, b"\0", id].concat()))
    }
}

/// A place in the order in which usage counts: start time, then event key (`domain.md section 5`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// When the usage began.
    pub start: Instant,
    /// Which event it was.
    pub key: EventKey,
}

impl Position {
    /// The first place of all that begin at an instant.
    pub fn first_at(start: Instant) -> Position {
        Position { start, key: EventKey(0) }
    }

    /// The place just before this one; `None` for the very first.
    pub fn before(self) -> Option<Position> {
        if let Some(key) = self.key.0.checked_sub(1) {
            return Some(Position { start: self.start, key: EventKey(key) });
        }
        let start = Instant::from_micros(self.start.micros().checked_sub(1)?);
        Some(Position { start, key: EventKey(u128::MAX) })
    }
}

/// The unit that usage is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChargingType {
    /// Seconds.
    #[serde(rename = "DURATION")]
    Duration,
    /// Megabytes of 10^6 bytes.
    #[serde(rename = "MB")]
    Megabytes,
    /// A count.
    #[serde(rename = "ONE_OFF")]
    OneOff,
}

impl ChargingType {
    /// All of them, in the order of their numbers.
    pub const ALL: [ChargingType; 3] = [ChargingType::Duration, ChargingType::Megabytes, ChargingType::OneOff];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            ChargingType::Duration => "DURATION",
            ChargingType::Megabytes => "MB",
            ChargingType::OneOff => "ONE_OFF",
        }
    }

    /// A small number that stands for it in stores: its place in [`ChargingType::ALL`].
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// From its name on the wire.
    pub fn from_name(name: &str) -> Option<ChargingType> {
        ChargingType::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Usage of a customer, as recorded. Texts are borrowed from the record or from the ledger row it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage<'a> {
    /// Start time and event key.
    pub position: Position,
    /// The site it was used at.
    pub site: i64,
    /// The line (usage product inventory) it was used on.
    pub upi: i64,
    /// The product used.
    pub product: i64,
    /// The unit of `quantity`.
    pub charging_type: ChargingType,
    /// How much was used.
    pub quantity: Quantity,
    /// The rated price of the whole event, in the minor currency unit.
    pub price: Quantity,
    /// `PEAK`, `OFF_PEAK`, `WEEKEND` or another name.
    pub timeband: Option<&'a str>,
    /// The charge group, if any.
    pub charge_group: Option<i64>,
    /// The charge group category, if any.
    pub charge_group_category: Option<i64>,
    /// The dialled digits, if any.
    pub destination: Option<&'a str>,
    /// The event's id; with its source it makes the event key.
    pub id: &'a str,
}

/// To whom a plan is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// To one line; drawn first.
    Inventory,
    /// To all lines of a site.
    Site,
    /// To all sites of the customer.
    Customer,
}

impl Level {
    /// All of them, in the order in which they are drawn.
    pub const ALL: [Level; 3] = [Level::Inventory, Level::Site, Level::Customer];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Inventory => "INVENTORY",
            Level::Site => "SITE",
            Level::Customer => "CUSTOMER",
        }
    }

    /// A small number that stands for it in stores: its place in [`Level::ALL`].
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// From its name on the wire.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// How an assignment is known within its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentKey {
    /// To whom it is given.
    pub level: Level,
    /// Its number; unique within customer and level only.
    pub id: i64,
}

/// A plan given to a customer, a site or a line for some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its number.
    pub id: i64,
    /// To whom it is given.
    pub level: Level,
    /// The site for [`Level::Site`], the line for [`Level::Inventory`], 0 for [`Level::Customer`].
    pub scope: i64,
    /// Its first day.
    pub start_date: Date,
    /// Its last day; open without one.
    pub end_date: Option<Date>,
    /// What is given.
    pub plan: Plan,
    /// Its own thresholds, in their order; `None` for the configured ones.
    pub thresholds: Option<Vec<Threshold>>,
}

impl Assignment {
    /// How it is known within its customer.
    pub fn key(&self) -> AssignmentKey {
        AssignmentKey { level: self.level, id: self.id }
    }
}

/// A bundle that can be sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its number.
    pub id: i64,
    /// The product whose usage it covers; any without one.
    pub product: Option<i64>,
    /// How long a window is, and where it begins.
    pub frequency: Frequency,
    /// For how many windows after its own a bucket may still be drawn: 0 to 120.
    pub rollover_periods: u16,
    /// Events of less than this draw from no component that is not by value.
    pub min_qualifying_quantity: Option<Quantity>,
    /// The most that one event takes from the components of the assignment that are not by value.
    pub max_per_event_quantity: Option<Quantity>,
    /// Its allowances, in the order of the fact.
    pub components: Vec<Component>,
}

impl Plan {
    /// The ids of its components, as a list.
    pub fn component_ids(&self) -> String {
        let ids: Vec<String> = self.components.iter().map(|component| component.id.to_string()).collect();
        ids.join(",")
    }
}

/// How long a window is, and on which day it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frequency {
    /// A window for each day.
    Daily,
    /// A window for each week, from this day on: 1 (Monday) to 7.
    Weekly(u8),
    /// A window for each month, from this day on: 1 to 28.
    Monthly(u8),
}

/// One allowance of a plan, and the usage that qualifies for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its number; unique within its plan.
    pub id: i64,
    /// Whether the allowance is money that pays for usage, rather than an amount of it.
    pub by_value: bool,
    /// The unit of the usage that qualifies.
    pub charging_type: ChargingType,
    /// What there is in each window: usage in its unit, or money by value.
    pub allowance: Quantity,
    /// The timebands that qualify; any when empty.
    pub timebands: Vec<String>,
    /// Charge groups that qualify: one list of alternatives with the two below; anything when all three are empty.
    pub charge_groups: Vec<i64>,
    /// Charge group categories that qualify.
    pub charge_group_categories: Vec<i64>,
    /// Destinations that qualify.
    pub dial_strings: Vec<DialString>,
}

impl Component {
    /// About how many bytes it takes in memory.
    pub(super) fn size(&self) -> usize {
        size_of::<Component>()
            + self.timebands.capacity() * 2 * size_of::<String>()
            + (self.charge_groups.capacity() + self.charge_group_categories.capacity()) * size_of::<i64>()
            + self.dial_strings.capacity() * 2 * size_of::<DialString>()
    }
}

/// Dialled digits that qualify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialString {
    /// The digits.
    pub digits: String,
    /// Whether they must be the whole destination rather than begin it.
    pub whole: bool,
}

/// A line made known before its first usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inventory {
    /// The line.
    pub upi: i64,
    /// Its site.
    pub site: i64,
    /// Its product.
    pub product: i64,
}

/// What is said of a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomerFact {
    /// When the customer is billed.
    pub billing_cycle: i64,
    /// Who owns the contract, if anyone.
    pub contract_owner: Option<i64>,
}

/// A fact about one customer that has a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `assignment.changed`
    Assignment(Assignment),
    /// `assignment.removed`
    AssignmentRemoved(AssignmentKey),
    /// `inventory.changed`
    Inventory(Inventory),
    /// `customer.changed`
    Customer(CustomerFact),
}

impl Reference {
    /// Whether it may be that all buckets of the account are needed for it: since others may be there then, or since usage of any
    /// time that was held may count, in another billing cycle.
    pub fn may_need_all_buckets(&self) -> bool {
        !matches!(self, Reference::Inventory(_))
    }
}

/// Whether a bill run still follows its facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunStatus {
    /// Its rows follow the facts.
    Open,
    /// Its rows stand as they were stored.
    Closed,
    /// Closed for ever.
    Finalized,
}

impl RunStatus {
    /// All of them, in the order of their numbers.
    pub const ALL: [RunStatus; 3] = [RunStatus::Open, RunStatus::Closed, RunStatus::Finalized];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            RunStatus::Open => "OPEN",
            RunStatus::Closed => "CLOSED",
            RunStatus::Finalized => "FINALIZED",
        }
    }

    /// A small number that stands for it in stores: its place in [`RunStatus::ALL`].
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// From its name on the wire.
    pub fn from_name(name: &str) -> Option<RunStatus> {
        RunStatus::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// One billing of one billing cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillRun {
    /// Its number.
    pub id: i64,
    /// Whose customers it bills.
    pub billing_cycle: i64,
    /// First day of the period shown.
    pub period_start: Date,
    /// Last day of the period shown.
    pub period_end: Date,
    /// First day of the usage it covers.
    pub usage_from: Date,
    /// Last day of the usage it covers.
    pub usage_until: Date,
    /// Whether it still follows its facts.
    pub status: RunStatus,
}

/// An event named by a reversal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reversed<'a> {
    /// The event's source.
    pub source: &'a str,
    /// The event's id.
    pub id: &'a str,
    /// The event's start time.
    pub start: Instant,
}

impl Reversed<'_> {
    /// Where the named event stands in the order.
    pub fn position(&self) -> Position {
        Position { start: self.start, key: EventKey::new(self.source, self.id) }
    }
}
