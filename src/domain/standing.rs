//! Which rows a bill run has of a customer, and what is nested in them (`domain.md section 8`).
//!
//! One piece of code for rows that are answered live and for rows that are stored when a run closes. Filters, order and
//! pages are the business of `http`.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::calendar::Calendar;
use super::facts::{Assignment, AssignmentKey, BillRun, ChargingType, Level};
use super::image::{AccountImage, BucketRow, LineRow};
use super::quantity::Quantity;
use super::time::{Date, Instant};
use super::window::Window;

/// A line as a row shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingLine {
    /// The line.
    pub upi: i64,
    /// Its site, if that is known.
    pub site: Option<i64>,
    /// Its product, if that is known.
    pub product: Option<i64>,
}

/// What is nested in a row: an assignment that covers its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentEntry {
    /// The assignment.
    pub assignment_id: i64,
    /// To whom it is given.
    pub assignment_level: Level,
    /// Its first day.
    pub assignment_start_date: Date,
    /// Its last day; open without one.
    pub assignment_end_date: Option<Date>,
    /// What is given.
    pub inclusive_usage_plan_id: i64,
    /// Its buckets, by component and start.
    pub components: Vec<ComponentEntry>,
}

/// A bucket as a row shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentEntry {
    /// The component.
    pub component_id: i64,
    /// Whether it is money.
    pub by_value: bool,
    /// Of what unit.
    pub charging_type: ChargingType,
    /// What there is in it at first.
    pub allowance: Quantity,
    /// What is left.
    pub remaining: Quantity,
    /// The window's first second, `yyyy-MM-dd HH:mm:ss` in local time.
    pub start_date: String,
    /// The last second in which it may be drawn, likewise.
    pub end_date: String,
}

/// Which assignments and components are asked for; all where a list, which is sorted, is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pruning<'a> {
    /// Ids of assignments.
    pub assignments: Option<&'a [i64]>,
    /// Ids of plans.
    pub plans: Option<&'a [i64]>,
    /// Ids of components.
    pub components: Option<&'a [i64]>,
}

impl Pruning<'_> {
    fn keeps(&self, assignment: i64, plan: i64) -> bool {
        fits(self.assignments, assignment) && fits(self.plans, plan)
    }

    fn keeps_component(&self, component: i64) -> bool {
        fits(self.components, component)
    }

    /// Whether it prunes anything.
    pub fn is_any(&self) -> bool {
        self.assignments.is_some() || self.plans.is_some() || self.components.is_some()
    }

    /// Leaves what is asked for of a stored row's entries.
    pub fn prune(&self, entries: &mut Vec<AssignmentEntry>) {
        entries.retain_mut(|entry| {
            entry.components.retain(|component| self.keeps_component(component.component_id));
            self.keeps(entry.assignment_id, entry.inclusive_usage_plan_id) && !entry.components.is_empty()
        });
    }
}

/// Whether a sorted list has an id; every id is in no list.
pub fn fits(ids: Option<&[i64]>, id: i64) -> bool {
    ids.is_none_or(|ids| ids.binary_search(&id).is_ok())
}

/// The instants that a run's usage dates cover, half-open.
pub fn usage_span(run: &BillRun, calendar: &Calendar) -> (Instant, Instant) {
    (calendar.start_of(run.usage_from), calendar.start_of(run.usage_until.plus(1)))
}

/// The lines that are known of a customer, in order: by inventory.changed, by usage, or by an assignment to them.
pub fn lines(account: &AccountImage) -> impl Iterator<Item = StandingLine> + use<> {
    let mut lines: BTreeMap<i64, StandingLine> = BTreeMap::new();
    for assignment in account.assignments.iter().filter_map(|row| row.assignment.as_ref()) {
        if assignment.level == Level::Inventory {
            lines.insert(assignment.scope, StandingLine { upi: assignment.scope, site: None, product: None });
        }
    }
    for row in &account.lines {
        let (site, product) = place_of(row).unzip();
        lines.insert(row.upi, StandingLine { upi: row.upi, site, product });
    }
    lines.into_values()
}

/// Site and product of a line that has a row.
pub(super) fn place_of(row: &LineRow) -> Option<(i64, i64)> {
    let of_fact = row.fact.map(|(_, fact)| (fact.site, fact.product));
    of_fact.or_else(|| row.last_usage.map(|usage| (usage.site, usage.product)))
}

/// Where a line stands: the instants in which a bucket that covers it may be drawn, without a gap. A bill run has a row of
/// the line when one of its instants is among them. Since the windows of an assignment leave no gap, this needs none of
/// them, and no bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingRow {
    /// The line.
    pub upi: i64,
    /// The first instant.
    pub from: Instant,
    /// The first instant that is not among them any more.
    pub until: Instant,
    /// Where the line stood last before that ends. A run that begins later has no row of the line by an earlier one of
    /// these, so it finds a line by one of them only.
    pub after: Option<Instant>,
    /// The line's site, if that is known.
    pub site: Option<i64>,
    /// Its product, if that is known and a plan that covers the line is for one product.
    pub product: Option<i64>,
    /// The billing cycle of its customer.
    pub cycle: i64,
    /// The contract owner of its customer.
    pub contract_owner: Option<i64>,
}

impl StandingRow {
    /// Whether a run of its cycle with this span has a row of the line by this one.
    pub fn stands_in(&self, span: (Instant, Instant)) -> bool {
        self.from < span.1 && span.0 < self.until && self.after.is_none_or(|after| after <= span.0)
    }
}

/// The instants in which a bucket of these assignments may be drawn by a line of this product, as spans with gaps between
/// them.
pub(super) fn spans<'a>(
    covering: impl IntoIterator<Item = &'a Assignment>,
    product: Option<i64>,
    calendar: &Calendar,
) -> Vec<(Instant, Instant)> {
    let mut all: Vec<(Instant, Instant)> = covering
        .into_iter()
        .filter(|assignment| is_for(assignment, product))
        .filter_map(|assignment| assignment.drawable(calendar))
        .collect();
    all.sort_unstable();
    let mut spans: Vec<(Instant, Instant)> = Vec::with_capacity(all.len());
    for (from, until) in all {
        match spans.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(until),
            _ => spans.push((from, until)),
        }
    }
    spans
}

/// Whether a plan is for lines of this product.
fn is_for(assignment: &Assignment, product: Option<i64>) -> bool {
    assignment.plan.product.is_none_or(|own| product.is_none_or(|product| product == own))
}

/// The assignments that cover a line and are not pruned.
fn covering<'a>(
    account: &'a AccountImage,
    line: StandingLine,
    pruning: &'a Pruning<'a>,
) -> impl Iterator<Item = &'a Assignment> {
    account.assignments.iter().filter_map(|row| row.assignment.as_ref()).filter(move |assignment| {
        let covers = match assignment.level {
            Level::Inventory => assignment.scope == line.upi,
            Level::Site => line.site == Some(assignment.scope),
            Level::Customer => true,
        };
        covers && is_for(assignment, line.product) && pruning.keeps(assignment.id, assignment.plan.id)
    })
}

/// Whether a run has a row of a line: whether a bucket that covers it, and is not pruned, may be drawn in the run's
/// usage dates. That the customer is in the run's cycle is the caller's to know.
pub fn stands(
    account: &AccountImage,
    line: StandingLine,
    calendar: &Calendar,
    span: (Instant, Instant),
    pruning: &Pruning<'_>,
) -> bool {
    covering(account, line, pruning).any(|assignment| {
        assignment.plan.components.iter().any(|component| pruning.keeps_component(component.id))
            && assignment.windows_between(calendar, span.0, span.1).next().is_some()
    })
}

/// An account, its own or another's, with what is left in its buckets at hand.
#[derive(Debug)]
pub struct Shelf<A> {
    account: A,
    remaining: FxHashMap<(AssignmentKey, i64, Instant), Quantity>,
}

impl<A: Borrow<AccountImage>> Shelf<A> {
    /// Of an account.
    pub fn new(account: A) -> Shelf<A> {
        let bucket = |row: &BucketRow| ((row.assignment, row.component, row.window_start), row.remaining);
        let remaining = account.borrow().buckets.iter().map(bucket).collect();
        Shelf { account, remaining }
    }

    /// What is nested in the row of a line: level by level, then by assignment, component and start.
    pub fn entries(
        &self,
        line: StandingLine,
        calendar: &Calendar,
        span: (Instant, Instant),
        pruning: &Pruning<'_>,
    ) -> Vec<AssignmentEntry> {
        let mut entries = Vec::new();
        for assignment in covering(self.account.borrow(), line, pruning) {
            let windows: Vec<Window> = assignment.windows_between(calendar, span.0, span.1).collect();
            let mut components = Vec::new();
            for component in assignment.plan.components.iter().filter(|c| pruning.keeps_component(c.id)) {
                components.extend(windows.iter().map(|window| {
                    let drawn = self.remaining.get(&(assignment.key(), component.id, window.start));
                    let last = Instant::from_micros(window.expiry.micros() - 1);
                    ComponentEntry {
                        component_id: component.id,
                        by_value: component.by_value,
                        charging_type: component.charging_type,
                        allowance: component.allowance,
                        remaining: drawn.copied().unwrap_or(component.allowance),
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

/// A row of a bill run as it was when the run closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The run.
    pub bill_run: i64,
    /// The customer.
    pub customer: i64,
    /// The line.
    pub upi: i64,
    /// Its site then.
    pub site: Option<i64>,
    /// The customer's contract owner then.
    pub contract_owner: Option<i64>,
    /// The run's first day then.
    pub period_start: Date,
    /// The run's last day then.
    pub period_end: Date,
    /// What was nested, as JSON: a list of [`AssignmentEntry`].
    pub entries: String,
    /// The same, as far as filters ask for it.
    pub parts: Vec<StoredPart>,
}

/// An assignment that is nested in a stored row, with one of its components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPart {
    /// The assignment.
    pub assignment: i64,
    /// Its plan.
    pub plan: i64,
    /// The component, once however many buckets it has.
    pub component: i64,
}

impl StoredPart {
    /// Of all that is nested.
    fn all_of(entries: &[AssignmentEntry]) -> Vec<StoredPart> {
        let of_entry = |entry: &AssignmentEntry| {
            let (assignment, plan) = (entry.assignment_id, entry.inclusive_usage_plan_id);
            let ids = entry.components.iter().map(|component| component.component_id);
            ids.map(move |component| StoredPart { assignment, plan, component }).collect::<Vec<StoredPart>>()
        };
        let mut parts: Vec<StoredPart> = entries.iter().flat_map(of_entry).collect();
        // Components come in order.
        parts.dedup();
        parts
    }
}

/// The rows that a run has of a customer now, to be stored.
pub fn rows_to_store(account: &AccountImage, run: &BillRun, calendar: &Calendar) -> Vec<StoredRow> {
    if account.billing_cycle() != run.billing_cycle {
        return Vec::new();
    }
    let span = usage_span(run, calendar);
    let (all, shelf) = (Pruning::default(), Shelf::new(account));
    let standing = lines(account).filter(|line| stands(account, *line, calendar, span, &all));
    standing
        .map(|line| {
            let entries = shelf.entries(line, calendar, span, &all);
            StoredRow {
                bill_run: run.id,
                customer: account.customer,
                upi: line.upi,
                site: line.site,
                contract_owner: account.contract_owner(),
                period_start: run.period_start,
                period_end: run.period_end,
                parts: StoredPart::all_of(&entries),
                entries: serde_json::to_string(&entries).expect("plain values always have a JSON form"),
            }
        })
        .collect()
}
