//! From accounts to rows: which (bill run, customer, UPI) there are, and what is left in their bundles
//! (`domain.md section 8`).

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::auth::Grant;
use super::grammar::{Filters, Query, SortKey};
use crate::domain::{
    AccountImage, Assignment, BillRun, BucketRow, Calendar, Date, Instant, Level, Quantity, RunStatus, Window,
};
use crate::store::ReadView;

/// A row that stands, without what is nested in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    run: &'a BillRun,
    account: &'a AccountImage,
    line: Line,
}

/// A line as the query sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    upi: i64,
    site: Option<i64>,
    product: Option<i64>,
}

/// What is nested in a row: an assignment that covers its UPI.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AssignmentEntry {
    assignment_id: i64,
    assignment_level: Level,
    assignment_start_date: Date,
    assignment_end_date: Option<Date>,
    inclusive_usage_plan_id: i64,
    components: Vec<ComponentEntry>,
}

/// A bucket.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ComponentEntry {
    component_id: i64,
    by_value: bool,
    charging_type: &'static str,
    allowance: Quantity,
    remaining: Quantity,
    start_date: String,
    end_date: String,
}

/// All rows that a query asks for and its token opens, in their order; nothing nested is made yet.
pub(super) fn standing<'a>(view: &'a ReadView, calendar: &Calendar, query: &Query, grant: &Grant) -> Vec<Row<'a>> {
    let filters = &query.filters;
    let mut runs: BTreeMap<i32, Vec<&BillRun>> = BTreeMap::new();
    for of in &view.bill_runs {
        let wanted = match &filters.bill_runs {
            None => of.row.run.status == RunStatus::Open,
            Some(ids) => ids.contains(&of.row.run.id),
        };
        if wanted {
            runs.entry(of.partition).or_default().push(&of.row.run);
        }
    }
    let mut rows = Vec::new();
    for of in &view.accounts {
        let account = &of.value;
        let fact = account.fact.map(|(_, fact)| fact);
        let opened =
            grant.allows_customer(account.customer) && grant.allows_owner(fact.and_then(|fact| fact.contract_owner));
        if !opened || !fits(filters.customers.as_deref(), account.customer) {
            continue;
        }
        let cycle = fact.map_or(0, |fact| fact.billing_cycle);
        let of_cycle = runs.get(&of.partition).into_iter().flatten().filter(|run| run.billing_cycle == cycle);
        for run in of_cycle {
            let dates = (calendar.start_of(run.usage_from), calendar.start_of(run.usage_until.plus(1)));
            for line in lines(account) {
                let wanted = fits(filters.lines.as_deref(), line.upi)
                    && filters.sites.as_ref().is_none_or(|ids| line.site.is_some_and(|site| ids.contains(&site)));
                if wanted && covering(account, line, filters).any(|a| has_bucket(a, calendar, dates, filters)) {
                    rows.push(Row { run, account, line });
                }
            }
        }
    }
    rows.sort_by(|one, other| compare(one, other, &query.sort));
    rows
}

fn fits(ids: Option<&[i64]>, id: i64) -> bool {
    ids.is_none_or(|ids| ids.binary_search(&id).is_ok())
}

fn compare(one: &Row<'_>, other: &Row<'_>, sort: &[(SortKey, bool)]) -> std::cmp::Ordering {
    let asked = sort.iter().map(|(key, turned)| {
        let order = match key {
            SortKey::BillRunId => one.run.id.cmp(&other.run.id),
            SortKey::PeriodStartDate => one.run.period_start.cmp(&other.run.period_start),
            SortKey::PeriodEndDate => one.run.period_end.cmp(&other.run.period_end),
            SortKey::UsageProductInventoryId => one.line.upi.cmp(&other.line.upi),
        };
        if *turned { order.reverse() } else { order }
    });
    let ties =
        (one.run.id, one.line.upi, one.account.customer).cmp(&(other.run.id, other.line.upi, other.account.customer));
    asked.chain([ties]).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

/// The lines that are known of a customer, in order: by inventory.changed, by usage, or by an assignment to them.
fn lines(account: &AccountImage) -> impl Iterator<Item = Line> {
    let mut lines: BTreeMap<i64, Line> = BTreeMap::new();
    for assignment in account.assignments.iter().filter_map(|row| row.assignment.as_ref()) {
        if assignment.level == Level::Inventory {
            lines.insert(assignment.scope, Line { upi: assignment.scope, site: None, product: None });
        }
    }
    for row in &account.lines {
        let of_fact = row.fact.map(|(_, fact)| (fact.site, fact.product));
        let place = of_fact.or_else(|| row.last_usage.map(|usage| (usage.site, usage.product)));
        let (site, product) = place.unzip();
        lines.insert(row.upi, Line { upi: row.upi, site, product });
    }
    lines.into_values()
}

/// The assignments that cover a line and are not pruned.
fn covering<'a>(account: &'a AccountImage, line: Line, filters: &'a Filters) -> impl Iterator<Item = &'a Assignment> {
    account.assignments.iter().filter_map(|row| row.assignment.as_ref()).filter(move |assignment| {
        let covers = match assignment.level {
            Level::Inventory => assignment.scope == line.upi,
            Level::Site => line.site == Some(assignment.scope),
            Level::Customer => true,
        };
        let product = assignment.plan.product.is_none_or(|own| line.product.is_none_or(|product| product == own));
        covers
            && product
            && fits(filters.assignments.as_deref(), assignment.id)
            && fits(filters.plans.as_deref(), assignment.plan.id)
    })
}

/// Whether an assignment has a bucket that is not pruned and may be drawn in a run's usage dates.
fn has_bucket(assignment: &Assignment, calendar: &Calendar, dates: (Instant, Instant), filters: &Filters) -> bool {
    let mut components = assignment.plan.components.iter();
    components.any(|component| fits(filters.components.as_deref(), component.id))
        && assignment.windows_between(calendar, dates.0, dates.1).next().is_some()
}

impl Row<'_> {
    pub(super) fn run(&self) -> &BillRun {
        self.run
    }

    pub(super) fn upi(&self) -> i64 {
        self.line.upi
    }

    /// What is nested in the row.
    pub(super) fn assignments(&self, calendar: &Calendar, filters: &Filters) -> Vec<AssignmentEntry> {
        let dates = (calendar.start_of(self.run.usage_from), calendar.start_of(self.run.usage_until.plus(1)));
        let buckets: FxHashMap<_, &BucketRow> = self
            .account
            .buckets
            .iter()
            .map(|bucket| ((bucket.assignment, bucket.component, bucket.window_start), bucket))
            .collect();
        let mut entries = Vec::new();
        for assignment in covering(self.account, self.line, filters) {
            let windows: Vec<Window> = assignment.windows_between(calendar, dates.0, dates.1).collect();
            let mut components = Vec::new();
            let wanted = assignment.plan.components.iter().filter(|c| fits(filters.components.as_deref(), c.id));
            for component in wanted {
                components.extend(windows.iter().map(|window| {
                    let drawn = buckets.get(&(assignment.key(), component.id, window.start));
                    let last = Instant::from_micros(window.expiry.micros() - 1);
                    ComponentEntry {
                        component_id: component.id,
                        by_value: component.by_value,
                        charging_type: component.charging_type.name(),
                        allowance: component.allowance,
                        remaining: drawn.map_or(component.allowance, |bucket| bucket.remaining),
                        start_date: calendar.local_second(window.start),
                        end_date: calendar.local_second(last),
                    }
                }));
            }
            // Windows come earliest first already.
            components.sort_by_key(|entry| entry.component_id);
            if !components.is_empty() {
                entries.push(AssignmentEntry {
                    assignment_id: assignment.id,
                    assignment_level: assignment.level,
                    assignment_start_date: assignment.start_date,
                    assignment_end_date: assignment.end_date,
                    inclusive_usage_plan_id: assignment.plan.id,
                    components,
                });
            }
        }
        entries.sort_by_key(|entry| (entry.assignment_level, entry.assignment_id));
        entries
    }
}
