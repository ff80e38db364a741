//! The end of a batch: what a store must write of an account, and the alerts it raised (`domain.md section 7`).

use super::{Account, AssignmentState, Touched};
use crate::domain::alert::Alert;
use crate::domain::calendar::Calendar;
use crate::domain::facts::Assignment;
use crate::domain::image::{AssignmentRow, BucketRow, CustomerRow, LineRow};
use crate::domain::quantity::Quantity;
use crate::domain::standing::StandingRow;
use crate::domain::threshold::{Threshold, effective, turns};
use crate::domain::time::Instant;
use crate::domain::window::Window;

/// What a batch changed of the accounts in it, each with its customer.
#[derive(Debug, Default)]
pub struct Changes {
    /// The customers' own rows.
    pub customers: Vec<CustomerRow>,
    /// Assignments, new or changed.
    pub assignments: Vec<(i64, AssignmentRow)>,
    /// Lines that no store has a row of.
    pub new_lines: Vec<(i64, LineRow)>,
    /// Lines of which something changed.
    pub changed_lines: Vec<(i64, LineRow)>,
    /// Lines that are not known any more.
    pub removed_lines: Vec<(i64, i64)>,
    /// Buckets that no store has a row of.
    pub new_buckets: Vec<(i64, BucketRow)>,
    /// Buckets whose allowance, remaining or mark changed.
    pub changed_buckets: Vec<(i64, BucketRow)>,
    /// Slots of buckets that are gone.
    pub removed_buckets: Vec<(i64, i32)>,
    /// Alerts raised, in order within each bucket.
    pub alerts: Vec<Alert>,
    /// Where lines stand, new or changed.
    pub standing: Vec<(i64, StandingRow)>,
    /// Where they stand no more: by customer, line and first instant.
    pub removed_standing: Vec<(i64, i64, Instant)>,
    /// How much more is drawn from buckets not by value, in millionths, by charging type's number.
    pub drawn: [i128; 3],
    /// How much more is drawn from buckets by value.
    pub drawn_by_value: [i128; 3],
}

impl Changes {
    /// Adds what is drawn of a bucket, or takes it off. A row that somebody damaged may have more left than there ever was.
    fn add_drawn(&mut self, row: &BucketRow, sign: i128) {
        let sums = if row.by_value { &mut self.drawn_by_value } else { &mut self.drawn };
        let drawn = i128::from(row.allowance.millionths()) - i128::from(row.remaining.millionths());
        sums[usize::from(row.charging_type.number())] += sign * drawn;
    }
}

impl Account {
    /// Ends a batch. `configured` are the thresholds of assignments without their own.
    pub fn finish(&mut self, calendar: &Calendar, configured: &[Threshold], changes: &mut Changes) {
        let customer = self.customer;
        self.finish_standing(calendar, changes);
        self.fact_before = None;
        // Only the customer's row tells of slots whose buckets are gone; they are never given again.
        self.row_changed |= self.gone;
        if std::mem::take(&mut self.row_changed) {
            changes.customers.push(CustomerRow { customer, fact: self.fact, next_slot: self.next_slot });
        }
        self.lines.finish(customer, changes);
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable_by_key(|touched| touched.place);
        for touched in touched {
            self.finish_bucket(touched, configured, changes);
        }
        for state in self.assignments.iter_mut().filter(|state| state.before.is_some()) {
            state.before = None;
            changes.assignments.push((customer, state.row.clone()));
        }
        if std::mem::take(&mut self.gone) {
            self.keep_buckets(|bucket| bucket.window.is_some());
        }
    }

    fn finish_bucket(&mut self, touched: Touched, configured: &[Threshold], changes: &mut Changes) {
        let Touched { place, before, cause } = touched;
        let (bucket, cause) = (&mut self.buckets[place], cause.map(|(_, cause)| cause));
        bucket.touched = None;
        let row = bucket.row;
        if bucket.stored && bucket.window.is_some() && row == before {
            return;
        }
        if bucket.stored {
            changes.add_drawn(&before, -1);
        }
        let Some(window) = bucket.window else {
            if bucket.stored {
                changes.removed_buckets.push((self.customer, row.slot));
            }
            return;
        };
        changes.add_drawn(&row, 1);
        // A bucket that nothing drew from was worth its allowance, as it is now, whether or not it had a row.
        let untouched = !bucket.stored || before.remaining == before.allowance;
        let before = if untouched { (row.allowance, row.allowance) } else { (before.remaining, before.allowance) };
        if bucket.stored {
            changes.changed_buckets.push((self.customer, row));
        } else {
            bucket.stored = true;
            changes.new_buckets.push((self.customer, row));
        }
        if before == (row.remaining, row.allowance) {
            return;
        }
        let at = self.assignments.binary_search_by_key(&row.assignment, |state| state.row.key);
        let state = at.ok().map(|at| &self.assignments[at]);
        if let Some((state, assignment)) = state.and_then(|s| s.row.assignment.as_ref().map(|a| (s, a))) {
            let raised = Raised { customer: self.customer, assignment, row, window, before, cause };
            raised.alerts(state, configured, &mut changes.alerts);
        }
    }
}

/// A bucket that a batch changed.
struct Raised<'a> {
    customer: i64,
    assignment: &'a Assignment,
    row: BucketRow,
    window: Window,
    before: (Quantity, Quantity),
    cause: Option<u32>,
}

impl Raised<'_> {
    fn alerts(&self, state: &AssignmentState, configured: &[Threshold], alerts: &mut Vec<Alert>) {
        let own = self.assignment.thresholds.as_deref();
        let list = effective(own.unwrap_or(configured));
        if let Some(before) = state.before.as_ref().and_then(|before| before.assignment.as_ref()) {
            // A changed list has a new baseline: the state on what remains now.
            if effective(before.thresholds.as_deref().unwrap_or(configured)) != list {
                return;
            }
        }
        let Raised { row, before, .. } = self;
        for (turn, threshold) in turns(&list, *before, (row.remaining, row.allowance)) {
            alerts.push(Alert {
                customer: self.customer,
                turn,
                assignment: row.assignment,
                scope: self.assignment.scope,
                plan: self.assignment.plan.id,
                component: row.component,
                window: self.window,
                charging_type: row.charging_type,
                by_value: row.by_value,
                allowance: row.allowance,
                remaining_before: before.0,
                remaining_after: row.remaining,
                threshold,
                cause: self.cause,
            });
        }
    }
}
