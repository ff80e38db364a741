//! The laws of bill runs (`domain.md section 6`): what is held, what is let in, and that the rows of a closed run stay as
//! they were when it closed. Rows are made here anew, from the plain fold alone.

use std::collections::BTreeMap;

use jiff::civil::Date;
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};
use serde_json::{Value, json};

use crate::calendar::{Calendar, next};
use crate::facts::{LEVELS, Run, UNITS};
use crate::model::{Balances, Known};
use crate::play::{Step, quantity};
use crate::store::Rows;

/// By run, customer and line: what a row says.
pub(crate) type StoredRows = BTreeMap<(i64, i64, i64), Value>;

/// The rows that a run has now.
pub(crate) fn rows_of(id: i64, run: &Run, known: &Known, balances: &Balances, calendar: &Calendar) -> StoredRows {
    let span = (calendar.start_of(run.usage.0), calendar.start_of(next(run.usage.1)));
    let mut rows = StoredRows::new();
    for ((customer, upi), place) in &balances.lines {
        let fact = known.customers.get(customer).map_or((0, None), |(_, fact)| *fact);
        if fact.0 != run.cycle {
            continue;
        }
        let entries = entries((*customer, *upi, *place), span, balances, calendar);
        if !entries.is_empty() {
            let row = json!({
                "period": [run.period.0.to_string(), run.period.1.to_string()],
                "site": place.map(|(site, _)| site),
                "owner": fact.1,
                "entries": entries,
            });
            rows.insert((id, *customer, *upi), row);
        }
    }
    rows
}

fn entries(
    (customer, upi, place): (i64, i64, Option<(i64, i64)>),
    span: (i64, i64),
    balances: &Balances,
    calendar: &Calendar,
) -> Vec<Value> {
    let date = |day: Date| day.to_string();
    let mut entries = Vec::new();
    for (key, assignment) in &balances.assignments {
        let covers = key.0 == customer
            && match key.1 {
                0 => assignment.scope == upi,
                1 => place.is_some_and(|(site, _)| site == assignment.scope),
                _ => true,
            }
            && assignment.plan.product.is_none_or(|own| place.is_none_or(|(_, product)| product == own));
        if !covers {
            continue;
        }
        let mut components: Vec<_> = assignment.plan.components.iter().collect();
        components.sort_by_key(|component| component.id);
        let mut nested = Vec::new();
        for component in components {
            let windows = calendar.windows(assignment, span.1);
            for window in windows.iter().filter(|window| window.start < span.1 && span.0 < window.expiry) {
                let bucket = balances.buckets.get(&(*key, component.id, window.start));
                nested.push(json!({
                    "componentId": component.id,
                    "byValue": component.by_value,
                    "chargingType": UNITS[component.unit],
                    "allowance": quantity(component.allowance),
                    "remaining": quantity(bucket.map_or(component.allowance, |bucket| bucket.remaining)),
                    "startDate": calendar.wall_clock(window.start),
                    "endDate": calendar.wall_clock(window.expiry - 1),
                }));
            }
        }
        if !nested.is_empty() {
            entries.push(json!({
                "assignmentId": key.2,
                "assignmentLevel": LEVELS[key.1],
                "assignmentStartDate": date(assignment.start),
                "assignmentEndDate": assignment.end.map(date),
                "inclusiveUsagePlanId": assignment.plan.id,
                "components": nested,
            }));
        }
    }
    entries
}

/// By the table of standing rows each run has just the rows that the plain fold gives it, with their sites and owners.
fn check_standing(step: &Step<'_>) -> Result<(), TestCaseError> {
    let (known, calendar) = (step.known.1, step.calendar);
    for (id, (_, run)) in &known.runs {
        let instant = headroom::domain::Instant::from_micros;
        let span = (instant(calendar.start_of(run.usage.0)), instant(calendar.start_of(next(run.usage.1))));
        let mut found = BTreeMap::new();
        for ((customer, upi, _), row) in &step.rows.1.standing {
            if row.cycle == run.cycle && row.stands_in(span) {
                let twice = found.insert((*id, *customer, *upi), json!([row.site, row.contract_owner]));
                prop_assert_eq!(twice, None, "line {} stands twice in run {} after {:?}", upi, id, step.facts);
            }
        }
        let rows = rows_of(*id, run, known, step.balances.1, calendar);
        let must: BTreeMap<_, _> = rows.iter().map(|(key, row)| (*key, json!([row["site"], row["owner"]]))).collect();
        prop_assert_eq!(found, must, "rows of run {} after {:?}", id, step.facts);
    }
    Ok(())
}

/// What the store holds of closed runs, row by row.
fn stored(rows: &Rows) -> StoredRows {
    let of_row = |row: &headroom::domain::StoredRow| {
        json!({
            "period": [row.period_start.to_string(), row.period_end.to_string()],
            "site": row.site,
            "owner": row.contract_owner,
            "entries": serde_json::from_str::<Value>(&row.entries).expect("entries are JSON"),
        })
    };
    rows.stored_rows.iter().map(|(key, row)| (*key, of_row(row))).collect()
}

/// The rows stored so far are those of when each run closed, and all of them once a run is stored to the end.
pub(crate) fn check(step: &Step<'_>) -> Result<(), TestCaseError> {
    let (rows, known) = (step.rows.1, step.known.1);
    let found = stored(rows);
    let done = |run: i64, customer: i64| {
        rows.bill_runs[&run].storing.is_none_or(|done| customer <= done)
            || rows.stored_ahead.iter().any(|ahead| (ahead.bill_run, ahead.customer) == (run, customer))
    };
    for (key, row) in &found {
        prop_assert_eq!(known.stored.get(key), Some(row), "the stored row {:?} after {:?}", key, step.facts);
    }
    for key in known.stored.keys().filter(|key| done(key.0, key.1)) {
        prop_assert!(found.contains_key(key), "row {key:?} is not stored after {:?}", step.facts);
    }
    for (run, row) in &rows.bill_runs {
        let (version, must) = &known.runs[run];
        prop_assert_eq!((row.version, row.run.status.number()), (*version, must.status));
    }
    check_standing(step)
}
