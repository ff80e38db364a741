//! From accounts and stored rows to the rows of a query: filtered, opened by the token, in order (`domain.md section 8`).
//!
//! Rows of an open bill run are made of accounts, rows of a closed one were stored when it closed. While they are being
//! stored, those of the customers to come are made of accounts still: nothing of them has changed since.

use std::collections::{BTreeMap, HashSet};

use super::auth::Grant;
use super::grammar::{Filters, Query, SortKey};
use crate::domain::standing::{self, AssignmentEntry, Pruning, StandingLine, fits};
use crate::domain::{AccountImage, BillRunRow, Calendar, Date, StoredRow};
use crate::store::{ReadView, StoredAhead};

/// A row that stands; what is nested in a live one is not made yet.
#[derive(Debug)]
pub(super) enum Row<'a> {
    /// Of an account, as it is now.
    Live { run: &'a BillRunRow, account: &'a AccountImage, line: StandingLine },
    /// As it was when its run closed.
    Stored { row: &'a StoredRow, entries: Option<Vec<AssignmentEntry>> },
}

/// All rows that a query asks for and its token opens, in their order.
pub(super) fn standing<'a>(view: &'a ReadView, calendar: &Calendar, query: &'a Query, grant: &Grant) -> Vec<Row<'a>> {
    let mut rows = live(view, calendar, query, grant);
    rows.extend(stored(view, query, grant));
    rows.sort_by(|one, other| compare(one, other, &query.sort));
    rows
}

/// The filters on what is nested.
fn pruning(filters: &Filters) -> Pruning<'_> {
    Pruning {
        assignments: filters.assignments.as_deref(),
        plans: filters.plans.as_deref(),
        components: filters.components.as_deref(),
    }
}

/// Whether customer, line and site are asked for and opened.
fn opens(query: &Query, grant: &Grant, customer: i64, owner: Option<i64>) -> bool {
    grant.allows_customer(customer) && grant.allows_owner(owner) && fits(query.filters.customers.as_deref(), customer)
}

fn asks_for(filters: &Filters, upi: i64, site: Option<i64>) -> bool {
    fits(filters.lines.as_deref(), upi)
        && filters.sites.as_ref().is_none_or(|ids| site.is_some_and(|site| ids.contains(&site)))
}

fn live<'a>(view: &'a ReadView, calendar: &Calendar, query: &'a Query, grant: &Grant) -> Vec<Row<'a>> {
    let mut runs: BTreeMap<i32, Vec<&BillRunRow>> = BTreeMap::new();
    for of in &view.bill_runs {
        let row = &of.row;
        let wanted = match &query.filters.bill_runs {
            None => !row.run.status.is_closed(),
            Some(ids) => ids.contains(&row.run.id),
        };
        if wanted && (!row.run.status.is_closed() || row.storing.is_some()) {
            runs.entry(of.partition).or_default().push(row);
        }
    }
    let ahead: HashSet<StoredAhead> = view.stored_ahead.iter().map(|of| of.value).collect();
    let pruning = pruning(&query.filters);
    let mut rows = Vec::new();
    for of in &view.accounts {
        let account = &of.value;
        if !opens(query, grant, account.customer, account.contract_owner()) {
            continue;
        }
        let cycle = account.billing_cycle();
        let of_cycle = runs.get(&of.partition).into_iter().flatten().filter(|row| row.run.billing_cycle == cycle);
        for run in of_cycle {
            let is_stored = run.storing.is_some_and(|done| {
                account.customer <= done
                    || ahead.contains(&StoredAhead { bill_run: run.run.id, customer: account.customer })
            });
            if is_stored {
                continue;
            }
            let span = standing::usage_span(&run.run, calendar);
            for line in standing::lines(account) {
                if asks_for(&query.filters, line.upi, line.site)
                    && standing::stands(account, line, calendar, span, &pruning)
                {
                    rows.push(Row::Live { run, account, line });
                }
            }
        }
    }
    rows
}

fn stored<'a>(view: &'a ReadView, query: &'a Query, grant: &Grant) -> impl Iterator<Item = Row<'a>> {
    let pruning = pruning(&query.filters);
    view.stored_rows.iter().map(|of| &of.value).filter_map(move |row| {
        let wanted = fits(query.filters.bill_runs.as_deref(), row.bill_run)
            && opens(query, grant, row.customer, row.contract_owner)
            && asks_for(&query.filters, row.upi, row.site);
        if !wanted {
            return None;
        }
        if !pruning.is_any() {
            return Some(Row::Stored { row, entries: None });
        }
        let mut entries = stored_entries(row);
        pruning.prune(&mut entries);
        (!entries.is_empty()).then_some(Row::Stored { row, entries: Some(entries) })
    })
}

/// What was nested in a stored row.
fn stored_entries(row: &StoredRow) -> Vec<AssignmentEntry> {
    serde_json::from_str(&row.entries).expect("stored rows are written by this program only")
}

fn compare(one: &Row<'_>, other: &Row<'_>, sort: &[(SortKey, bool)]) -> std::cmp::Ordering {
    let asked = sort.iter().map(|(key, turned)| {
        let order = match key {
            SortKey::BillRunId => one.bill_run().cmp(&other.bill_run()),
            SortKey::PeriodStartDate => one.period().0.cmp(&other.period().0),
            SortKey::PeriodEndDate => one.period().1.cmp(&other.period().1),
            SortKey::UsageProductInventoryId => one.upi().cmp(&other.upi()),
        };
        if *turned { order.reverse() } else { order }
    });
    let ties = one.place().cmp(&other.place());
    asked.chain([ties]).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

impl Row<'_> {
    pub(super) fn bill_run(&self) -> i64 {
        match self {
            Row::Live { run, .. } => run.run.id,
            Row::Stored { row, .. } => row.bill_run,
        }
    }

    /// First and last day.
    pub(super) fn period(&self) -> (Date, Date) {
        match self {
            Row::Live { run, .. } => (run.run.period_start, run.run.period_end),
            Row::Stored { row, .. } => (row.period_start, row.period_end),
        }
    }

    pub(super) fn upi(&self) -> i64 {
        match self {
            Row::Live { line, .. } => line.upi,
            Row::Stored { row, .. } => row.upi,
        }
    }

    /// What tells rows apart, in the order that breaks ties.
    fn place(&self) -> (i64, i64, i64) {
        let customer = match self {
            Row::Live { account, .. } => account.customer,
            Row::Stored { row, .. } => row.customer,
        };
        (self.bill_run(), self.upi(), customer)
    }

    /// What is nested in the row.
    pub(super) fn assignments(&self, calendar: &Calendar, filters: &Filters) -> Vec<AssignmentEntry> {
        match self {
            Row::Live { run, account, line } => {
                let span = standing::usage_span(&run.run, calendar);
                standing::entries(account, *line, calendar, span, &pruning(filters))
            }
            Row::Stored { entries: Some(entries), .. } => entries.clone(),
            Row::Stored { row, entries: None } => stored_entries(row),
        }
    }
}
