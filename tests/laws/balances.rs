//! The laws of balances: after every commit the store holds just what the plain fold makes of the facts so far.

use std::collections::BTreeMap;

use headroom::domain::{Level, Outcome, Totals, UsageState, packed};
use headroom::store::LedgerRow;
use headroom::worker::Input;
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

use crate::model::{BucketKey, EventKey};
use crate::play::{self, Step, quantity};
use crate::store::Rows;

type Result<T> = std::result::Result<T, TestCaseError>;

/// All of them.
pub(crate) fn check(step: &Step<'_>) -> Result<()> {
    buckets(step)?;
    ledger(step)?;
    lines(step)?;
    totals(step)?;
    outcomes(step)
}

/// The bucket that a customer's slot stands for.
pub(crate) fn bucket_of(rows: &Rows, customer: i64, slot: i32) -> Option<BucketKey> {
    let row = rows.buckets.get(&(customer, slot))?;
    let level = Level::ALL.iter().position(|level| *level == row.assignment.level)?;
    Some(((customer, level, row.assignment.id), row.component, row.window_start.micros()))
}

/// Every bucket that was drawn has its row; every row is a bucket's that there is, with what is left in it.
fn buckets(step: &Step<'_>) -> Result<()> {
    let (rows, balances) = (step.rows.1, step.balances.1);
    let mut stored = BTreeMap::new();
    for ((customer, slot), row) in &rows.buckets {
        let key = bucket_of(rows, *customer, *slot).expect("it is there");
        prop_assert!(stored.insert(key, row.remaining).is_none(), "two rows of one bucket: {key:?}");
        let Some(bucket) = balances.buckets.get(&key) else {
            return Err(TestCaseError::fail(format!("a row of no bucket: {row:?}")));
        };
        prop_assert_eq!(row.allowance, quantity(bucket.component.allowance), "the allowance of {:?}", key);
        prop_assert_eq!(row.remaining, quantity(bucket.remaining), "what is left of {:?}", key);
        prop_assert_eq!(row.by_value, bucket.component.by_value);
        prop_assert_eq!(usize::from(row.charging_type.number()), bucket.component.unit);
        let mark = row.mark.map(|mark| (mark.start.micros(), mark.key.0));
        prop_assert!(
            mark >= bucket.last,
            "the mark of {:?} is {:?}, before its last event {:?}",
            key,
            mark,
            bucket.last
        );
    }
    for (key, bucket) in &balances.buckets {
        let drawn = bucket.remaining != bucket.component.allowance;
        prop_assert!(!drawn || stored.contains_key(key), "a bucket that was drawn has no row: {key:?} {bucket:?}");
    }
    Ok(())
}

/// Every usage event that was taken in is in the ledger, with its state and with what it drew.
fn ledger(step: &Step<'_>) -> Result<()> {
    let (rows, known, balances) = (step.rows.1, step.known.1, step.balances.1);
    let stored: BTreeMap<EventKey, &LedgerRow> = rows
        .ledger
        .iter()
        .map(|(key, row)| ((key.customer, (key.position.start.micros(), key.position.key.0)), row))
        .collect();
    prop_assert!(stored.keys().eq(known.usage.keys()), "the ledger has just the usage that was taken in");
    for (key, row) in stored {
        if rows.behind.get(&key.0).is_some_and(|behind| behind.unfinished.is_some()) {
            // Its draws are being folded again; its buckets are as they were.
            continue;
        }
        let drawn = packed::unpack_draws(&row.draws).expect("draws can be read");
        let mut draws = Vec::new();
        for draw in drawn {
            let Some(bucket) = bucket_of(rows, key.0, draw.slot) else {
                return Err(TestCaseError::fail(format!("{key:?} drew from slot {} that is no bucket", draw.slot)));
            };
            draws.push((bucket, draw.amount.millionths()));
        }
        let state = match (known.held.contains(&key), known.reversals.contains_key(&key)) {
            (false, false) => UsageState::Counted,
            (true, false) => UsageState::Held,
            (false, true) => UsageState::Reversed,
            (true, true) => UsageState::HeldReversed,
        };
        prop_assert_eq!(row.state, state);
        let must = balances.draws.get(&key).cloned().unwrap_or_default();
        prop_assert_eq!(&draws, &must, "the draws of {:?}", known.usage[&key]);
    }
    Ok(())
}

/// The lines that are known by usage or inventory have rows, with their site and product.
fn lines(step: &Step<'_>) -> Result<()> {
    let (rows, balances) = (step.rows.1, step.balances.1);
    for (line, row) in &rows.lines {
        let of_fact = row.fact.map(|(_, fact)| (fact.site, fact.product));
        let found = of_fact.or(row.last_usage.map(|usage| (usage.site, usage.product)));
        prop_assert_eq!(balances.lines.get(line), Some(&found), "the site and product of line {:?}", line);
    }
    for (line, must) in &balances.lines {
        prop_assert!(must.is_none() || rows.lines.contains_key(line), "line {line:?} has no row");
    }
    for (customer, row) in &rows.customers {
        let found = row.fact.map(|(version, fact)| (version, (fact.billing_cycle, fact.contract_owner)));
        prop_assert_eq!(found.as_ref(), step.known.1.customers.get(customer));
    }
    Ok(())
}

/// The control totals are the sums over everything.
fn totals(step: &Step<'_>) -> Result<()> {
    let (known, balances) = (step.known.1, step.balances.1);
    let mut totals = Totals::default();
    for (key, usage) in &known.usage {
        if known.reversals.contains_key(key) {
            totals.reversed += 1;
        } else if known.held.contains(key) {
            totals.held += 1;
        } else {
            totals.counted += 1;
            totals.quantity[usage.unit] += i128::from(usage.quantity);
        }
    }
    for bucket in balances.buckets.values() {
        let component = &bucket.component;
        let sums = if component.by_value { &mut totals.drawn_by_value } else { &mut totals.drawn };
        sums[component.unit] += i128::from(component.allowance - bucket.remaining);
    }
    for alert in &step.rows.1.alerts {
        let crossed = alert.body.contains("balance.threshold.crossed");
        *if crossed { &mut totals.crossed } else { &mut totals.recovered } += 1;
    }
    prop_assert_eq!(step.rows.1.totals, totals);
    Ok(())
}

/// Each record ended as just one thing, and as the right one; the refused ones are dead letters.
fn outcomes(step: &Step<'_>) -> Result<()> {
    if let Some(applied) = &step.applied {
        for input in [Input::Usage, Input::Assignments] {
            let of_input = |at: &usize| step.facts[*at].is_usage() == (input == Input::Usage);
            for outcome in Outcome::ALL {
                let must = (0..step.facts.len()).filter(of_input);
                let must = must.filter(|at| play::outcome(step.outcomes[*at]) == outcome).count() as u64;
                let found = applied.outcomes.count(input, outcome);
                prop_assert_eq!(found, must, "{:?} {:?} of {:?}", input, outcome, step.facts);
            }
        }
    }
    let (before, after) = (step.rows.0, step.rows.1);
    let mut found: Vec<_> = after.dead_letters[before.dead_letters.len()..].iter().map(|row| row.reason).collect();
    let mut must: Vec<_> = step.outcomes.iter().filter_map(play::reason).map(|reason| reason.name()).collect();
    found.sort_unstable();
    must.sort_unstable();
    prop_assert_eq!(found, must);
    Ok(())
}
