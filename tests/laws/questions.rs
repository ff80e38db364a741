//! The law of the query (`domain.md section 8`): a store answers a question with just the rows that the plain fold has for
//! it, in their order, page by page, whatever is being stored meanwhile.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use headroom::domain;
use headroom::domain::AccountImage;
use headroom::domain::standing::{Pruning, Shelf, StandingLine};
use headroom::store::{Answer, Filters, Found, Nested, Question, SortKey, Store};
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::calendar::Calendar;
use crate::model::{Balances, Known};
use crate::runs::{StoredRows, rows_of};

/// The columns of the keys of [`StoredRows`].
type Key = (i64, i64, i64);

/// Every row that there is: of open runs as they are now, of closed ones as they were.
fn all_rows(known: &Known, balances: &Balances, calendar: &Calendar) -> StoredRows {
    let mut rows = known.stored.clone();
    for (id, (_, run)) in known.runs.iter().filter(|(_, (_, run))| run.status == 0) {
        rows.extend(rows_of(*id, run, known, balances, calendar));
    }
    rows
}

/// Whether a filter lets an id pass.
fn passes(ids: Option<&Vec<i64>>, id: &Value) -> bool {
    ids.is_none_or(|ids| id.as_i64().is_some_and(|id| ids.contains(&id)))
}

/// What a row says once it is pruned, if it stays.
fn pruned(row: &Value, filters: &Filters) -> Option<Value> {
    let mut row = row.clone();
    let entries = row["entries"].as_array_mut().expect("a list");
    entries.retain_mut(|entry| {
        let components = entry["components"].as_array_mut().expect("a list");
        components.retain(|component| passes(filters.components.as_ref(), &component["componentId"]));
        !components.is_empty()
            && passes(filters.assignments.as_ref(), &entry["assignmentId"])
            && passes(filters.plans.as_ref(), &entry["inclusiveUsagePlanId"])
    });
    (!entries.is_empty()).then_some(row)
}

/// All rows that a question asks for, in their order.
fn asked_for(question: &Question<'_>, rows: &StoredRows, known: &Known) -> Vec<(Key, Value)> {
    let filters = &question.filters;
    let is_open = |run: i64| known.runs[&run].1.status == 0;
    let wanted = |(key, row): &(&Key, &Value)| {
        filters.bill_runs.as_ref().map_or_else(|| is_open(key.0), |ids| ids.contains(&key.0))
            && passes(filters.customers.as_ref(), &json!(key.1))
            && passes(filters.lines.as_ref(), &json!(key.2))
            && passes(filters.sites.as_ref(), &row["site"])
            && passes(question.owners.as_ref(), &row["owner"])
    };
    let mut found: Vec<(Key, Value)> =
        rows.iter().filter(wanted).filter_map(|(key, row)| Some((*key, pruned(row, filters)?))).collect();
    let text = |row: &Value, at: usize| row["period"][at].as_str().map(str::to_owned);
    found.sort_by(|(one, one_row), (other, other_row)| {
        let orders = question.sort.iter().map(|(key, turned)| {
            let order = match key {
                SortKey::BillRunId => one.0.cmp(&other.0),
                SortKey::PeriodStartDate => text(one_row, 0).cmp(&text(other_row, 0)),
                SortKey::PeriodEndDate => text(one_row, 1).cmp(&text(other_row, 1)),
                SortKey::UsageProductInventoryId => one.2.cmp(&other.2),
            };
            if *turned { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then).then((one.0, one.2, one.1).cmp(&(other.0, other.2, other.1)))
    });
    found
}

/// The rows of an answer, said as the plain fold says them.
fn said(answer: &Answer, question: &Question<'_>) -> Vec<(Key, Value)> {
    let filters = &question.filters;
    let pruning = Pruning {
        assignments: filters.assignments.as_deref(),
        plans: filters.plans.as_deref(),
        components: filters.components.as_deref(),
    };
    let shelves: BTreeMap<i64, Shelf<&AccountImage>> =
        answer.accounts.iter().map(|of| (of.value.customer, Shelf::new(&of.value))).collect();
    let say = |row: &Found| {
        let entries = match &row.nested {
            Nested::Live { span, site, product } => {
                let line = StandingLine { upi: row.upi, site: *site, product: *product };
                json!(shelves[&row.customer].entries(line, question.calendar, *span, &pruning))
            }
            Nested::Stored(entries) => {
                let mut entries = serde_json::from_str(entries).expect("entries are JSON");
                pruning.prune(&mut entries);
                json!(entries)
            }
        };
        let period = [row.period.0.to_string(), row.period.1.to_string()];
        ((row.bill_run, row.customer, row.upi), json!({"period": period, "entries": entries}))
    };
    answer.rows.iter().map(say).collect()
}

/// What is asked: each filter and each order by itself, and some of them together.
fn questions<'a>(calendar: &'a domain::Calendar, rows: &StoredRows, known: &Known) -> Vec<Question<'a>> {
    let some = |ids: Vec<i64>| -> Vec<i64> {
        let mut ids = ids;
        ids.sort_unstable();
        ids.dedup();
        // About half of them, and one that there is not.
        ids.into_iter().step_by(2).chain([i64::MAX]).collect()
    };
    let entries = |name: &str| -> Vec<i64> {
        let of = rows.values().flat_map(|row| row["entries"].as_array().expect("a list"));
        of.filter_map(|entry| entry[name].as_i64()).collect()
    };
    let runs: Vec<i64> = known.runs.keys().copied().collect();
    let customers = some(rows.keys().map(|key| key.1).collect());
    let sites = some(rows.values().filter_map(|row| row["site"].as_i64()).collect());
    let lines = some(rows.keys().map(|key| key.2).collect());
    let owners = some(rows.values().filter_map(|row| row["owner"].as_i64()).collect());
    let (assignments, plans) = (some(entries("assignmentId")), some(entries("inclusiveUsagePlanId")));
    let filters = |change: &dyn Fn(&mut Filters)| {
        let mut filters = Filters { bill_runs: Some(runs.clone()), ..Filters::default() };
        change(&mut filters);
        filters
    };
    let plain = Question {
        calendar,
        filters: filters(&|_| {}),
        owners: None,
        sort: Vec::new(),
        skip: 0,
        limit: 1_000,
        counted: true,
        nested: true,
    };
    let with = |change: &dyn Fn(&mut Filters)| Question { filters: filters(change), ..plain.clone() };
    let mut questions = vec![
        Question { filters: Filters::default(), ..plain.clone() },
        with(&|of| of.customers = Some(customers.clone())),
        with(&|of| of.sites = Some(sites.clone())),
        with(&|of| of.lines = Some(lines.clone())),
        with(&|of| of.assignments = Some(assignments.clone())),
        with(&|of| of.plans = Some(plans.clone())),
        with(&|of| of.components = Some(vec![1])),
        with(&|of| (of.plans, of.components, of.sites) = (Some(plans.clone()), Some(vec![1, 2]), Some(sites.clone()))),
        with(&|of| (of.assignments, of.lines) = (Some(assignments.clone()), Some(lines.clone()))),
        with(&|of| of.bill_runs = Some(some(runs.clone()))),
        Question { owners: Some(owners.clone()), ..plain.clone() },
        Question { owners: Some(owners), ..with(&|of| of.customers = Some(customers.clone())) },
    ];
    let (run, start, end, line) =
        (SortKey::BillRunId, SortKey::PeriodStartDate, SortKey::PeriodEndDate, SortKey::UsageProductInventoryId);
    for sort in [
        vec![(line, false)],
        vec![(line, true), (run, true)],
        vec![(run, true)],
        vec![(start, true), (line, false)],
        vec![(line, false), (end, true), (run, false)],
        vec![(end, false), (run, true), (line, true), (start, false)],
    ] {
        for (skip, limit) in [(0, 1_000), (0, 2), (3, 2), (1, 3)] {
            questions.push(Question { sort: sort.clone(), skip, limit, counted: skip == 1, ..plain.clone() });
        }
    }
    questions
}

/// Asks a store all that may be asked.
pub(crate) async fn check(
    store: &dyn Store,
    zone: &str,
    known: &Known,
    balances: &Balances,
    calendar: &Calendar,
) -> Result<(), TestCaseError> {
    let rows = all_rows(known, balances, calendar);
    let days = domain::Calendar::new(zone).expect("a known zone");
    for question in questions(&days, &rows, known) {
        let answer = store.read(&question).await;
        let answer = answer.map_err(|error| TestCaseError::fail(format!("{error} on {:?}", question.filters)))?;
        let all = asked_for(&question, &rows, known);
        let (skip, limit) = (usize::try_from(question.skip).unwrap(), usize::try_from(question.limit).unwrap());
        let page = all.iter().skip(skip).take(limit);
        let must: Vec<(Key, Value)> =
            page.map(|(key, row)| (*key, json!({"period": row["period"], "entries": row["entries"]}))).collect();
        let of = || format!("{:?} of {:?} by {:?}", question.filters, question.owners, question.sort);
        prop_assert_eq!(said(&answer, &question), must, "{}", of());
        prop_assert_eq!(answer.further, all.len() > skip + limit, "{}", of());
        prop_assert_eq!(answer.total, question.counted.then_some(i64::try_from(all.len()).unwrap()), "{}", of());
    }
    Ok(())
}
