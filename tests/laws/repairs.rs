//! The laws of rebuild and audit: neither finds anything in a store that only the worker wrote; both find what somebody
//! spoiled; and a repair makes all of it as it was, raising no alert and leaving the rows of closed bill runs alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use headroom::audit;
use headroom::domain::{
    BillRun, Calendar, ChargingType, Date, LastUsage, LineRow, Position, Quantity, RunFact, RunStatus, packed, standing,
};
use headroom::store::{LedgerKey, RepairRequest, Snapshot, Store as _};
use headroom::worker::{Batch, Input, Partition, refold};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use uuid::Uuid;

use crate::balances::bucket_of;
use crate::facts::Fact;
use crate::history::History;
use crate::json;
use crate::model::BucketKey;
use crate::play::{self, Step};
use crate::store::{Memory, Rows};

type Result<T> = std::result::Result<T, TestCaseError>;

/// In the end nothing differs.
pub(crate) fn check(step: &Step<'_>) -> Result<()> {
    if !step.is_last {
        return Ok(());
    }
    let calendar = Calendar::new(step.history.zone).expect("a known zone");
    nothing_differs(step.rows.1, &calendar)
}

/// Neither the audit nor the rebuild finds anything, and the totals are the sums.
pub(crate) fn nothing_differs(rows: &Rows, calendar: &Calendar) -> Result<()> {
    for customer in rows.customers.keys() {
        let (drifts, differences) = look(rows, calendar, *customer);
        prop_assert!(drifts.is_empty(), "the audit found in customer {customer}: {drifts:?}");
        prop_assert!(differences.is_none(), "the rebuild found in customer {customer}: {differences:?}");
    }
    prop_assert_eq!(sums(rows), rows.totals);
    Ok(())
}

/// What the audit and the rebuild say of a customer.
fn look(rows: &Rows, calendar: &Calendar, customer: i64) -> (Vec<String>, Option<String>) {
    let mut moment = rows.clone();
    let found = now(audit::customer(&mut moment, calendar, 0, customer));
    let differences = now(refold(&mut moment, calendar, 0, customer));
    let told = (!differences.is_empty()).then(|| format!("{differences:?}"));
    (found.drifts.iter().map(ToString::to_string).collect(), told)
}

/// The control totals counted anew.
fn sums(rows: &Rows) -> headroom::domain::Totals {
    let mut moment = rows.clone();
    let quantity = now(moment.quantities(0));
    let (crossed, recovered) = (rows.totals.crossed, rows.totals.recovered);
    headroom::domain::Totals { quantity, crossed, recovered, ..now(moment.sums(0)) }
}

/// A store in memory never waits.
pub(crate) fn now<T, E: std::fmt::Debug>(future: impl Future<Output = std::result::Result<T, E>>) -> T {
    future.now_or_never().expect("it does not wait").expect("it does not fail")
}

/// Something that somebody does to the rows of a customer.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    /// Another remaining, so many hundredths of the allowance.
    Remaining(Index, i64),
    /// Another allowance, with the same remaining.
    Allowance(Index),
    /// By value what is not, or the other way.
    ByValue(Index),
    /// Another unit.
    Unit(Index),
    /// The last event that drew is not known any more.
    Mark(Index),
    /// A bucket's row is gone.
    NoBucket(Index),
    /// A row of a bucket that there is not.
    NewBucket(Index),
    /// An event's draws are gone.
    NoDraws(Index),
    /// An event has another's draws.
    OtherDraws(Index, Index),
    /// A line's row is gone.
    NoLine(Index),
    /// A line was last used at another site.
    Site(Index),
    /// A row of a line that there is not.
    NewLine,
    /// Other control totals: of what counts, quantity, drawn.
    Totals(i64, usize),
}

pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<Index>;
    let damage = prop_oneof![
        (at(), 0..=200i64).prop_map(|(at, hundredths)| Damage::Remaining(at, hundredths)),
        at().prop_map(Damage::Allowance),
        at().prop_map(Damage::ByValue),
        at().prop_map(Damage::Unit),
        at().prop_map(Damage::Mark),
        at().prop_map(Damage::NoBucket),
        at().prop_map(Damage::NewBucket),
        at().prop_map(Damage::NoDraws),
        (at(), at()).prop_map(|(at, other)| Damage::OtherDraws(at, other)),
        at().prop_map(Damage::NoLine),
        at().prop_map(Damage::Site),
        Just(Damage::NewLine),
        (1..9i64, 0..3usize).prop_map(|(by, kind)| Damage::Totals(by, kind)),
    ];
    vec(damage, 1..4)
}

/// The customer who is spoiled: the others must not be touched.
const SPOILED: i64 = 1;

/// Does it, where there is something to do it to.
fn spoil(rows: &mut Rows, damage: &Damage) {
    let slots: Vec<(i64, i32)> = rows.buckets.keys().filter(|key| key.0 == SPOILED).copied().collect();
    let events: Vec<LedgerKey> = rows.ledger.keys().filter(|key| key.customer == SPOILED).copied().collect();
    let by_usage = |(key, row): &(&(i64, i64), &LineRow)| key.0 == SPOILED && row.fact.is_none();
    let lines: Vec<(i64, i64)> = rows.lines.iter().filter(by_usage).map(|(key, _)| *key).collect();
    let pick = |at: &Index| (!slots.is_empty()).then(|| *at.get(&slots));
    let event = |at: &Index| (!events.is_empty()).then(|| *at.get(&events));
    let line = |at: &Index| (!lines.is_empty()).then(|| *at.get(&lines));
    match damage {
        Damage::Remaining(at, hundredths) => {
            let Some(row) = pick(at).and_then(|key| rows.buckets.get_mut(&key)) else { return };
            let remaining = (row.allowance.millionths() / 100).saturating_mul(*hundredths);
            row.remaining = Quantity::from_millionths(remaining);
        }
        Damage::Allowance(at) => {
            let Some(row) = pick(at).and_then(|key| rows.buckets.get_mut(&key)) else { return };
            row.allowance = Quantity::from_millionths(row.allowance.millionths().saturating_add(7));
        }
        Damage::ByValue(at) => {
            let Some(row) = pick(at).and_then(|key| rows.buckets.get_mut(&key)) else { return };
            row.by_value = !row.by_value;
        }
        Damage::Unit(at) => {
            let Some(row) = pick(at).and_then(|key| rows.buckets.get_mut(&key)) else { return };
            row.charging_type = ChargingType::ALL[(usize::from(row.charging_type.number()) + 1) % 3];
        }
        Damage::Mark(at) => {
            let Some(row) = pick(at).and_then(|key| rows.buckets.get_mut(&key)) else { return };
            row.mark = None;
        }
        Damage::NoBucket(at) => {
            pick(at).map(|key| rows.buckets.remove(&key));
        }
        Damage::NewBucket(at) => {
            let Some(mut row) = pick(at).map(|key| rows.buckets[&key]) else { return };
            row.window_start = headroom::domain::Instant::from_micros(row.window_start.micros() + 1);
            row.slot = slots.iter().map(|key| key.1 + 1).max().unwrap_or(0);
            rows.buckets.insert((SPOILED, row.slot), row);
        }
        Damage::NoDraws(at) => {
            let Some(row) = event(at).and_then(|key| rows.ledger.get_mut(&key)) else { return };
            row.draws.clear();
        }
        Damage::OtherDraws(at, other) => {
            let Some(draws) = event(other).map(|key| rows.ledger[&key].draws.clone()) else { return };
            let Some(row) = event(at).and_then(|key| rows.ledger.get_mut(&key)) else { return };
            row.draws = draws;
        }
        Damage::NoLine(at) => {
            line(at).map(|key| rows.lines.remove(&key));
        }
        Damage::Site(at) => {
            let Some(row) = line(at).and_then(|key| rows.lines.get_mut(&key)) else { return };
            row.last_usage = row.last_usage.map(|last| LastUsage { site: last.site + 1, ..last });
        }
        Damage::NewLine if rows.customers.contains_key(&SPOILED) => {
            let position = Position::first_at(headroom::domain::Instant::from_micros(0));
            let last_usage = Some(LastUsage { position, site: 1, product: 1 });
            rows.lines.insert((SPOILED, 99), LineRow { upi: 99, fact: None, last_usage });
        }
        Damage::NewLine => {}
        Damage::Totals(by, kind) => {
            rows.totals.counted += by;
            rows.totals.quantity[*kind] += i128::from(*by);
            rows.totals.drawn[*kind] -= i128::from(*by);
        }
    }
}

/// What of a bucket must be as it was: allowance, remaining, kind.
type Worth = (Quantity, Quantity, ChargingType, bool);

/// What of a line must be as it was: whether inventory.changed tells of it, and else its last site and product.
type Known = (bool, Option<(i64, i64)>);

/// What must be as it was: slots may be others, marks later and last usages earlier.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    buckets: BTreeMap<BucketKey, Worth>,
    draws: BTreeMap<LedgerKey, Vec<(Option<BucketKey>, Quantity)>>,
    lines: BTreeMap<(i64, i64), Known>,
}

impl View {
    pub(crate) fn of(rows: &Rows) -> View {
        let bucket = |(customer, slot): (i64, i32)| bucket_of(rows, customer, slot);
        let worth = |row: &headroom::domain::BucketRow| (row.allowance, row.remaining, row.charging_type, row.by_value);
        let draws = |key: &LedgerKey, draws: &[u8]| {
            let draws = packed::unpack_draws(draws).expect("draws can be read");
            draws.iter().map(|draw| (bucket((key.customer, draw.slot)), draw.amount)).collect()
        };
        View {
            // One that nothing drew from is worth its allowance, with or without a row.
            buckets: rows
                .buckets
                .iter()
                .filter(|(_, row)| row.remaining != row.allowance)
                .filter_map(|(key, row)| Some((bucket(*key)?, worth(row))))
                .collect(),
            draws: rows.ledger.iter().map(|(key, row)| (*key, draws(key, &row.draws))).collect(),
            lines: rows
                .lines
                .iter()
                .map(|(key, row)| {
                    let used = row.last_usage.filter(|_| row.fact.is_none()).map(|last| (last.site, last.product));
                    (*key, (row.fact.is_some(), used))
                })
                .collect(),
        }
    }
}

/// Plays a history, spoils what is stored, and has it repaired, while the rows of a run are being stored.
pub(crate) fn repair(history: &History, damages: &[Damage]) -> Result<()> {
    let right = play::play(history, None, |_| Ok(()))?;
    let mut spoiled = Rows { is_spoiled: true, ..right.clone() };
    damages.iter().for_each(|damage| spoil(&mut spoiled, damage));
    spoiled.standing.retain(|place, _| place.0 != SPOILED);
    let calendar = Calendar::new(history.zone).expect("a known zone");

    // Both find it, or nothing was done to the customer.
    for customer in spoiled.customers.keys() {
        let (drifts, differences) = look(&spoiled, &calendar, *customer);
        prop_assert_eq!(drifts.is_empty(), differences.is_none(), "{:?} or {:?}", drifts, differences);
        prop_assert!(*customer == SPOILED || drifts.is_empty());
        let same = View::of(&spoiled) == View::of(&right);
        prop_assert!(same || *customer != SPOILED || !drifts.is_empty(), "it was not found");
    }

    let mut worth = Rows { is_spoiled: true, ..right.clone() };
    let of_worth = |damage: &&Damage| matches!(damage, Damage::Remaining(..) | Damage::Allowance(_));
    damages.iter().filter(of_worth).for_each(|damage| spoil(&mut worth, damage));
    goes_on(history, worth);

    let memory = Arc::new(Memory::with(spoiled.clone()));
    let context = Arc::new(play::context(history, memory.clone()));
    let mut partition = Partition::new(context, 0, now(memory.take(0)));
    let closing = closing_run();
    let mut batch = Batch::new(0);
    batch.push_bill_run(closing);
    now(partition.apply(&mut batch));
    for (number, customer) in spoiled.customers.keys().copied().map(Some).chain([None]).enumerate() {
        let id = Uuid::from_u128(number as u128);
        now(partition.repair(&RepairRequest { id, partition: 0, customer }));
    }
    while partition.is_storing() {
        now(partition.store_rows());
    }
    let repaired = memory.rows().clone();
    nothing_differs(&repaired, &calendar)?;
    prop_assert_eq!(View::of(&repaired), View::of(&right));
    prop_assert_eq!(&repaired.standing, &right.standing);
    prop_assert_eq!(repaired.totals, right.totals);
    prop_assert_eq!(&repaired.alerts, &right.alerts);

    // The run closed before the repair.
    let mut rows = right.stored_rows.clone();
    for customer in spoiled.customers.keys() {
        let image = now(spoiled.clone().account(0, *customer)).expect("it is known");
        let stored = standing::rows_to_store(&image, &closing.run, &calendar);
        rows.extend(stored.into_iter().map(|row| ((row.bill_run, row.customer, row.upi), row)));
    }
    prop_assert_eq!(repaired.stored_rows, rows);
    Ok(())
}

/// Buckets that are spoiled are found and told, and stop no record: neither a reversal of what drew from them nor usage
/// that comes late to them panics anywhere.
fn goes_on(history: &History, spoiled: Rows) {
    let usage = |fact: &Fact| matches!(fact, Fact::Usage(usage) if usage.customer == SPOILED);
    let Some((Fact::Usage(first), style)) = history.records.iter().find(|(fact, _)| usage(fact)) else { return };
    let offset = spoiled.offsets.usage;
    let memory = Arc::new(Memory::with(spoiled));
    let context = Arc::new(play::context(history, memory.clone()));
    let mut partition = Partition::new(context.clone(), 0, now(memory.take(0)));
    let mut late = first.clone();
    late.name.id.push_str("-late");
    let reversal = Fact::Reversed(first.customer, first.name.clone());
    for (at, (fact, id)) in [(reversal, "reversal"), (Fact::Usage(late), "late")].into_iter().enumerate() {
        let record = json::record(&fact, id, *style);
        let mut batch = Batch::new(0);
        play::push(&mut batch, &record, (Input::Usage, offset + at as i64), &context.rules);
        now(partition.apply(&mut batch));
        while partition.can_catch_up() {
            now(partition.catch_up());
        }
    }
}

/// A run that closes, over all of the year in which histories take place.
fn closing_run() -> RunFact {
    let day = |text: &str| Date::parse(text).expect("a date");
    let (first, last) = (day("2025-01-01"), day("2025-12-31"));
    let run = BillRun {
        id: 77,
        billing_cycle: 0,
        period_start: first,
        period_end: last,
        usage_from: first,
        usage_until: last,
        status: RunStatus::Closed,
    };
    RunFact { version: 1, run }
}
