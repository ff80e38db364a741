//! The facts of `domain.md section 3` in the plainest form: what a history is made of, what the fold reads and what is
//! written as records. Quantities are millionths, instants microseconds since 1970 in UTC, days civil dates.

use jiff::civil::Date;

/// The unit of usage, by its place in `DURATION`, `MB`, `ONE_OFF`.
pub(crate) type Unit = usize;

/// The units' names on the wire.
pub(crate) const UNITS: [&str; 3] = ["DURATION", "MB", "ONE_OFF"];

/// The levels' names on the wire, in the order in which they are drawn.
pub(crate) const LEVELS: [&str; 3] = ["INVENTORY", "SITE", "CUSTOMER"];

/// What an event is called: source, id and start time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) source: String,
    pub(crate) id: String,
    pub(crate) start: i64,
}

impl Name {
    /// Its place in the order of section 5: start time, then the event key.
    pub(crate) fn position(&self) -> (i64, u128) {
        let text = [self.source.as_bytes(), b"\0", self.id.as_bytes()].concat();
        (self.start, xxhash_rust::xxh3::xxh3_128(&text))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) name: Name,
    pub(crate) customer: i64,
    pub(crate) site: i64,
    pub(crate) upi: i64,
    pub(crate) product: i64,
    pub(crate) unit: Unit,
    pub(crate) quantity: i64,
    pub(crate) price: i64,
    pub(crate) timeband: Option<String>,
    pub(crate) group: Option<i64>,
    pub(crate) category: Option<i64>,
    pub(crate) destination: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Frequency {
    Daily,
    Weekly(i8),
    Monthly(i8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Threshold {
    Percent(i64),
    Remaining(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) id: i64,
    pub(crate) by_value: bool,
    pub(crate) unit: Unit,
    pub(crate) allowance: i64,
    pub(crate) timebands: Vec<String>,
    pub(crate) groups: Vec<i64>,
    pub(crate) categories: Vec<i64>,
    /// Digits, and whether they must be the whole number.
    pub(crate) dial_strings: Vec<(String, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) id: i64,
    pub(crate) product: Option<i64>,
    pub(crate) frequency: Frequency,
    pub(crate) rollover: i64,
    pub(crate) least: Option<i64>,
    pub(crate) most: Option<i64>,
    pub(crate) components: Vec<Component>,
}

/// How an assignment is known: customer, level (its place in [`LEVELS`]), assignmentId.
pub(crate) type AssignmentKey = (i64, usize, i64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The site or the line; 0 for a customer's.
    pub(crate) scope: i64,
    pub(crate) start: Date,
    pub(crate) end: Option<Date>,
    pub(crate) plan: Plan,
    pub(crate) thresholds: Option<Vec<Threshold>>,
}

/// A bill run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) cycle: i64,
    /// First and last day of the period.
    pub(crate) period: (Date, Date),
    /// First and last day of the usage that it covers.
    pub(crate) usage: (Date, Date),
    /// Its place in [`STATUSES`].
    pub(crate) status: u8,
}

/// The statuses' names on the wire.
pub(crate) const STATUSES: [&str; 3] = ["OPEN", "CLOSED", "FINALIZED"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    Usage(Usage),
    /// Customer, and the event that counts no more.
    Reversed(i64, Name),
    /// `None`: removed.
    Assignment {
        key: AssignmentKey,
        version: i64,
        assignment: Option<Assignment>,
    },
    Inventory {
        customer: i64,
        version: i64,
        upi: i64,
        site: i64,
        product: i64,
    },
    Customer {
        customer: i64,
        version: i64,
        cycle: i64,
        owner: Option<i64>,
    },
    BillRun {
        id: i64,
        version: i64,
        run: Run,
    },
    /// A record that is at fault by itself.
    Faulty(Fault),
}

/// What is wrong with a faulty record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NoJson,
    NoValue,
    WrongTopic,
    NoQuantity,
    NegativeQuantity,
    EndBeforeStart,
    AnotherKey,
    InTheFuture,
    LongAgo,
}

impl Fault {
    pub(crate) const ALL: [Fault; 9] = [
        Fault::NoJson,
        Fault::NoValue,
        Fault::WrongTopic,
        Fault::NoQuantity,
        Fault::NegativeQuantity,
        Fault::EndBeforeStart,
        Fault::AnotherKey,
        Fault::InTheFuture,
        Fault::LongAgo,
    ];

    /// The reason of its dead letter.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Fault::NoJson | Fault::NoValue => "unreadable",
            Fault::WrongTopic => "unknown_type",
            Fault::NoQuantity => "missing_field",
            Fault::NegativeQuantity => "bad_value",
            Fault::EndBeforeStart => "end_before_start",
            Fault::AnotherKey => "wrong_key",
            Fault::InTheFuture => "too_far_ahead",
            Fault::LongAgo => "too_old",
        }
    }
}

impl Fact {
    /// Whom it is about, unless that is a bill run or nobody knows.
    pub(crate) fn customer(&self) -> Option<i64> {
        match self {
            Fact::Usage(usage) => Some(usage.customer),
            Fact::Assignment { key, .. } => Some(key.0),
            Fact::Reversed(customer, _) | Fact::Inventory { customer, .. } | Fact::Customer { customer, .. } => {
                Some(*customer)
            }
            Fact::BillRun { .. } | Fact::Faulty(_) => None,
        }
    }

    /// Whether it goes to usage-events rather than to assignment-events.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Fact::Usage(_) | Fact::Reversed(..) => true,
            Fact::Faulty(fault) => *fault != Fault::EndBeforeStart,
            _ => false,
        }
    }
}
