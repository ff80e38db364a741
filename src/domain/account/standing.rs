//! Where the lines of an account stand, and what a batch changed of that (`domain.md section 8`).
//!
//! Only assignments, lines and the customer's own fact decide it, so for a batch of usage there is nothing to do. What was
//! before is made of what the batch noted when it changed those; no account keeps it.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::LineTurn;
use super::{Account, AssignmentState, Changes, Covering};
use crate::domain::calendar::Calendar;
use crate::domain::facts::{Assignment, CustomerFact, Level};
use crate::domain::image::LineRow;
use crate::domain::standing::{StandingRow, place_of, spans};

/// Before the batch at hand, or as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    Now,
}

impl Account {
    /// Where all its lines stand now.
    pub fn standing(&self, calendar: &Calendar) -> Vec<StandingRow> {
        let own = self.coverage.iter().filter(|covering| covering.level == Level::Inventory).map(|of| of.scope);
        let lines: BTreeSet<i64> = self.lines.rows().map(|row| row.upi).chain(own).collect();
        let rows = |upi: i64| self.rows_of(When::Now, upi, self.lines.get(upi), &[], calendar);
        lines.into_iter().flat_map(rows).collect()
    }

    /// Notes where lines stand otherwise than before the batch at hand.
    pub(super) fn finish_standing(&self, calendar: &Calendar, changes: &mut Changes) {
        let changed: Vec<&AssignmentState> = self.assignments.iter().filter(|state| state.before.is_some()).collect();
        if changed.is_empty() && self.fact_before.is_none() && !self.lines.are_touched() {
            return;
        }
        for turn in self.turns_to_judge(&changed) {
            let before = self.rows_of(When::Before, turn.upi, turn.before, &changed, calendar);
            let now = self.rows_of(When::Now, turn.upi, turn.now, &changed, calendar);
            let gone = before.iter().filter(|row| now.iter().all(|other| other.from != row.from));
            changes.removed_standing.extend(gone.map(|row| (self.customer, row.upi, row.from)));
            let news = now.iter().filter(|row| !before.contains(row));
            changes.standing.extend(news.map(|row| (self.customer, *row)));
        }
    }

    /// The lines that may stand otherwise now.
    fn turns_to_judge(&self, changed: &[&AssignmentState]) -> Vec<LineTurn> {
        let shared = changed.iter().any(|state| state.row.key.level != Level::Inventory);
        let all = shared || self.fact_before.is_some_and(|before| before.map(|of| of.1) != self.fact.map(|of| of.1));
        let mut turns: BTreeMap<i64, LineTurn> = BTreeMap::new();
        let judge = |turn: &LineTurn| all || turn.changed && (!changed.is_empty() || self.may_stand_otherwise(turn));
        turns.extend(self.lines.turns().filter(judge).map(|turn| (turn.upi, turn)));
        let own = changed.iter().flat_map(|state| {
            let before = state.before.as_ref().and_then(|before| before.assignment.as_ref());
            before.into_iter().chain(&state.row.assignment).filter(|assignment| assignment.level == Level::Inventory)
        });
        let known = self.coverage.iter().filter(|covering| all && covering.level == Level::Inventory);
        for upi in own.map(|assignment| assignment.scope).chain(known.map(|covering| covering.scope)) {
            turns.entry(upi).or_insert_with(|| {
                let row = self.lines.get(upi);
                LineTurn { upi, changed: false, before: row, now: row }
            });
        }
        turns.into_values().collect()
    }

    /// Whether a line may stand otherwise, while the assignments are as they were.
    fn may_stand_otherwise(&self, turn: &LineTurn) -> bool {
        let place = |line: Option<LineRow>| {
            let (site, product) = line.and_then(|line| place_of(&line)).unzip();
            (line.is_some(), site, product.filter(|_| self.any_for_a_product()))
        };
        place(turn.before) != place(turn.now)
    }

    /// Whether any plan is for one product only.
    fn any_for_a_product(&self) -> bool {
        let plans = self.assignments.iter().filter_map(|state| state.row.assignment.as_ref()).map(|of| &of.plan);
        plans.into_iter().any(|plan| plan.product.is_some())
    }

    /// Where a line stands or stood.
    fn rows_of(
        &self,
        when: When,
        upi: i64,
        line: Option<LineRow>,
        changed: &[&AssignmentState],
        calendar: &Calendar,
    ) -> Vec<StandingRow> {
        let (site, product) = line.and_then(|line| place_of(&line)).unzip();
        let covering = self.covering(when, upi, site, changed);
        if line.is_none() && covering.iter().all(|assignment| assignment.level != Level::Inventory) {
            // It is not known.
            return Vec::new();
        }
        let fact: Option<CustomerFact> = match (when, self.fact_before) {
            (When::Before, Some(before)) => before.map(|of| of.1),
            _ => self.fact.map(|of| of.1),
        };
        let cycle = fact.map_or(0, |fact| fact.billing_cycle);
        let contract_owner = fact.and_then(|fact| fact.contract_owner);
        // Which product a line has decides nothing while every plan is for all of them, and then it is not kept: usage may
        // change it often.
        let decides = covering.iter().any(|assignment| assignment.plan.product.is_some());
        let product = product.filter(|_| decides);
        let mut rows: Vec<StandingRow> = Vec::new();
        for (from, until) in spans(covering, product, calendar) {
            let after = rows.last().map(|row| row.until);
            rows.push(StandingRow { upi, from, until, after, site, product, cycle, contract_owner });
        }
        rows
    }

    /// The assignments to a line, to its site and to its customer, whatever their products.
    fn covering<'a>(
        &'a self,
        when: When,
        upi: i64,
        site: Option<i64>,
        changed: &[&'a AssignmentState],
    ) -> Vec<&'a Assignment> {
        let places = [Some((Level::Inventory, upi)), site.map(|site| (Level::Site, site)), Some((Level::Customer, 0))];
        let mut found = Vec::new();
        for (level, scope) in places.into_iter().flatten() {
            let begin = self.coverage.partition_point(|covering| (covering.level, covering.scope) < (level, scope));
            let here = |covering: &&Covering| (covering.level, covering.scope) == (level, scope);
            let states = self.coverage[begin..].iter().take_while(here).map(|of| &self.assignments[of.assignment]);
            let same = states.filter(|state| when == When::Now || state.before.is_none());
            found.extend(same.filter_map(|state| state.row.assignment.as_ref()));
            if when == When::Before {
                let before = changed.iter().filter_map(|state| state.before.as_ref()?.assignment.as_ref());
                found.extend(before.filter(|assignment| (assignment.level, assignment.scope) == (level, scope)));
            }
        }
        found
    }
}
