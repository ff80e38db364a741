//! Balances held against their usage, the plain way: every row that the store has of a customer, beside a fold that keeps
//! nothing from before and shares neither account nor waterfall with the worker.
//!
//! [`customer`] looks at a customer in one moment of a store and says where rows differ. It repairs nothing and knows no
//! way to.

mod fold;

use std::collections::BTreeMap;
use std::fmt;

use fold::{Name, PlainFold};

use crate::domain::{AccountImage, BucketRow, Calendar, ChargingType, LineRow, Position, UsageState, packed};
use crate::store::{LedgerRow, Snapshot, StoreError};

/// The most differences of one customer that are kept; the rest are counted.
const KEPT: usize = 100;
/// Ledger rows that are read at once.
const PAGE: usize = 5_000;

/// Folds a customer's usage the plain way and holds it against the rows. Reads only. Of a customer behind whose usage is
/// being folded again nothing can be said now: the rows of the ledger are on their way to what the buckets will be.
pub async fn customer(
    snapshot: &mut dyn Snapshot,
    calendar: &Calendar,
    partition: i32,
    customer: i64,
) -> Result<Found, StoreError> {
    let mut audit = Audit::new(calendar);
    let Some(image) = snapshot.account(partition, customer).await? else { return Ok(audit.finish()) };
    audit.account(image);
    if snapshot.is_unfinished(partition, customer).await? {
        return Ok(Found { known: true, is_unfinished: true, ..Found::default() });
    }
    let mut after = None;
    loop {
        let rows = snapshot.usage_after(partition, customer, after, PAGE).await?;
        rows.iter().for_each(|row| audit.usage(row));
        after = rows.last().map(|row| row.position);
        if rows.len() < PAGE {
            return Ok(audit.finish());
        }
    }
}

/// Something that the store has otherwise than its usage gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The bucket, or the event.
    pub what: String,
    /// What the store has.
    pub stored: String,
    /// What the fold gives.
    pub folded: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: stored {}, folded {}", self.what, self.stored, self.folded)
    }
}

/// What was found of a customer.
#[derive(Debug, Default)]
pub struct Found {
    /// Whether the customer is known.
    pub known: bool,
    /// Whether nothing can be said of it now: its usage is being folded again.
    pub is_unfinished: bool,
    /// How many events were folded.
    pub events: u64,
    /// The first differences.
    pub drifts: Vec<Drift>,
    /// How many there are in all.
    pub drift_count: u64,
}

/// One customer under audit.
struct Audit<'a> {
    calendar: &'a Calendar,
    fold: Option<PlainFold<'a>>,
    rows: Vec<BucketRow>,
    names: BTreeMap<i32, Name>,
    lines: Vec<LineRow>,
    /// The last usage of each line, with its site and product.
    used: BTreeMap<i64, (Position, i64, i64)>,
    last: Option<Position>,
    found: Found,
}

impl<'a> Audit<'a> {
    /// An audit that has seen nothing yet.
    fn new(calendar: &'a Calendar) -> Audit<'a> {
        Audit {
            calendar,
            fold: None,
            rows: Vec::new(),
            names: BTreeMap::new(),
            lines: Vec::new(),
            used: BTreeMap::new(),
            last: None,
            found: Found::default(),
        }
    }

    /// Compares the lines and the buckets, once all was shown.
    fn finish(mut self) -> Found {
        self.compare_lines();
        let Some(fold) = self.fold.take() else { return self.found };
        let mut drawn = fold.into_drawn();
        for row in std::mem::take(&mut self.rows) {
            let name = Name::of(&row);
            match drawn.remove(&name) {
                Some(bucket) => {
                    let stored = (row.allowance.millionths(), row.remaining.millionths());
                    let folded = (bucket.allowance, bucket.allowance - bucket.drawn);
                    let kinds = [(row.charging_type, row.by_value), (bucket.charging_type, bucket.by_value)];
                    if kinds[0] != kinds[1] {
                        self.note(format!("{name}, kind"), kind(kinds[0]), kind(kinds[1]));
                    }
                    if stored != folded {
                        self.note(name.to_string(), worth(stored), worth(folded));
                    } else if row.mark < bucket.last {
                        self.note(format!("{name}, last draw"), place(row.mark), place(bucket.last));
                    }
                }
                None => self.note(name.to_string(), worth_of(&row), "no such bucket".to_owned()),
            }
        }
        for (name, bucket) in drawn.into_iter().filter(|(_, bucket)| bucket.drawn > 0) {
            let folded = worth((bucket.allowance, bucket.allowance - bucket.drawn));
            self.note(name.to_string(), "no such bucket".to_owned(), folded);
        }
        self.found
    }

    /// Compares the lines: of those without inventory.changed site and product are the last usage's. The store may know an
    /// earlier usage with the same two.
    fn compare_lines(&mut self) {
        let mut used = std::mem::take(&mut self.used);
        for row in std::mem::take(&mut self.lines) {
            let folded = used.remove(&row.upi);
            let stored = row.last_usage.map(|last| (last.position, last.site, last.product));
            let fits = match (stored, folded) {
                (Some(stored), Some(folded)) => (stored.1, stored.2) == (folded.1, folded.2) && stored.0 <= folded.0,
                (stored, folded) => stored.is_none() && folded.is_none() && row.fact.is_some(),
            };
            if row.fact.is_none() && !fits {
                self.note(format!("line {}", row.upi), used_last(stored), used_last(folded));
            }
        }
        for (upi, folded) in used {
            self.note(format!("line {upi}"), "no such line".to_owned(), used_last(Some(folded)));
        }
    }

    fn note(&mut self, what: String, stored: String, folded: String) {
        self.found.drift_count += 1;
        if self.found.drifts.len() < KEPT {
            self.found.drifts.push(Drift { what, stored, folded });
        }
    }

    fn account(&mut self, image: AccountImage) {
        self.found.known = true;
        self.names = image.buckets.iter().map(|row| (row.slot, Name::of(row))).collect();
        let assignments = image.assignments.into_iter().filter_map(|row| row.assignment).collect();
        let mut fold = PlainFold::new(self.calendar, assignments);
        image.buckets.iter().for_each(|row| fold.know(Name::of(row)));
        self.fold = Some(fold);
        self.rows = image.buckets;
        self.lines = image.lines;
    }

    fn usage(&mut self, row: &LedgerRow) {
        let Some(fold) = &mut self.fold else { return };
        let at = row.position;
        let event = |at: Position| format!("usage at {} with key {:032x}", at.start, { at.key.0 });
        let out_of_order = self.last.is_some_and(|last| last >= at);
        self.last = Some(at);
        let mut folded = Vec::new();
        if row.state == UsageState::Counted {
            let Some(usage) = packed::unpack(at, &row.body) else {
                self.note(event(at), "a form that cannot be read".to_owned(), "usage".to_owned());
                return;
            };
            self.found.events += 1;
            self.used.insert(usage.upi, (at, usage.site, usage.product));
            folded = fold.draw(&usage);
        }
        let stored: Option<Vec<(Option<Name>, i64)>> = packed::unpack_draws(&row.draws).map(|draws| {
            draws.iter().map(|draw| (self.names.get(&draw.slot).copied(), draw.amount.millionths())).collect()
        });
        let wanted: Vec<(Option<Name>, i64)> = folded.into_iter().map(|(name, amount)| (Some(name), amount)).collect();
        if out_of_order {
            self.note(event(at), "out of order".to_owned(), "in order".to_owned());
        }
        if stored.as_ref() != Some(&wanted) {
            let stored = stored.map_or_else(|| "draws that cannot be read".to_owned(), |stored| draws(&stored));
            self.note(event(at), stored, draws(&wanted));
        }
    }
}

/// Millionths as a decimal.
fn decimal(millionths: i64) -> String {
    crate::domain::Quantity::from_millionths(millionths).to_string()
}

fn kind((charging_type, by_value): (ChargingType, bool)) -> String {
    format!("{}{}", charging_type.name(), if by_value { " by value" } else { "" })
}

fn worth((allowance, remaining): (i64, i64)) -> String {
    format!("remaining {} of {}", decimal(remaining), decimal(allowance))
}

fn worth_of(row: &BucketRow) -> String {
    worth((row.allowance.millionths(), row.remaining.millionths()))
}

fn used_last(usage: Option<(Position, i64, i64)>) -> String {
    let told = |(at, site, product): (Position, i64, i64)| {
        format!("site {site} and product {product} by usage at {}", at.start)
    };
    usage.map_or_else(|| "no usage".to_owned(), told)
}

fn place(position: Option<Position>) -> String {
    position.map_or_else(|| "none".to_owned(), |at| format!("at {} with key {:032x}", at.start, { at.key.0 }))
}

fn draws(draws: &[(Option<Name>, i64)]) -> String {
    if draws.is_empty() {
        return "draws nothing".to_owned();
    }
    let one = |(name, amount): &(Option<Name>, i64)| match name {
        Some(name) => format!("{} of {name}", decimal(*amount)),
        None => format!("{} of no bucket", decimal(*amount)),
    };
    format!("draws {}", draws.iter().map(one).collect::<Vec<_>>().join(" and "))
}
