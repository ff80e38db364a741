//! Reference facts: the highest version holds (`domain.md section 3`).

use super::{Account, AssignmentState, Before};
use crate::domain::calendar::Calendar;
use crate::domain::facts::{Assignment, AssignmentKey, CustomerFact, Reference};
use crate::domain::image::AssignmentRow;
use crate::domain::time::{Date, Instant};

/// What became of a fact with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It holds now.
    Applied,
    /// It is the version that holds.
    Duplicate,
    /// A higher version holds.
    PassedOver,
    /// It is the version that holds, with other data.
    Conflict,
}

impl Taken {
    /// Judges a version against the known one; `same` tells whether the data of the two are equal.
    pub(in crate::domain) fn judge(known: Option<i64>, version: i64, same: impl FnOnce() -> bool) -> Taken {
        match known {
            Some(known) if version < known => Taken::PassedOver,
            Some(known) if version == known && same() => Taken::Duplicate,
            Some(known) if version == known => Taken::Conflict,
            _ => Taken::Applied,
        }
    }
}

impl Account {
    /// Takes a reference fact about this customer. Nothing draws by it before [`Account::settle`].
    pub fn take(&mut self, version: i64, fact: Reference) -> Taken {
        match fact {
            Reference::Assignment(assignment) => self.take_assignment(assignment.key(), version, Some(assignment)),
            Reference::AssignmentRemoved(key) => self.take_assignment(key, version, None),
            Reference::Inventory(inventory) => self.lines.take(version, inventory),
            Reference::Customer(fact) => self.take_customer(version, fact),
        }
    }

    fn take_customer(&mut self, version: i64, fact: CustomerFact) -> Taken {
        let known = self.fact;
        let taken = Taken::judge(known.map(|known| known.0), version, || known.is_some_and(|known| known.1 == fact));
        if taken == Taken::Applied {
            self.fact_before.get_or_insert(known);
            self.fact = Some((version, fact));
            self.row_changed = true;
        }
        taken
    }

    fn take_assignment(&mut self, key: AssignmentKey, version: i64, assignment: Option<Assignment>) -> Taken {
        let at = match self.assignments.binary_search_by_key(&key, |state| state.row.key) {
            Ok(at) => at,
            Err(at) => {
                let from = first_difference(None, assignment.as_ref());
                self.unsettled = self.unsettled.into_iter().chain(from).min();
                let row = AssignmentRow { key, version, assignment };
                let before = Some(Box::new(Before { assignment: None }));
                self.assignments.insert(at, AssignmentState { row, before, components: Vec::new() });
                self.unindexed = true;
                return Taken::Applied;
            }
        };
        let state = &mut self.assignments[at];
        let taken = Taken::judge(Some(state.row.version), version, || state.row.assignment == assignment);
        if taken == Taken::Applied {
            let known = state.row.assignment.take();
            state.before.get_or_insert_with(|| Box::new(Before { assignment: known.clone() }));
            let from = first_difference(known.as_ref(), assignment.as_ref());
            state.row = AssignmentRow { key, version, assignment };
            if from.is_some() {
                self.unindexed = true;
                self.unsettled = self.unsettled.into_iter().chain(from).min();
            }
        }
        taken
    }

    /// Lets the reference facts taken take effect. When they may change what known usage draws, it says from when on:
    /// then the batch must replay it.
    pub fn settle(&mut self, calendar: &Calendar) -> Option<Instant> {
        if std::mem::take(&mut self.unindexed) {
            assert!(self.reaches(None), "buckets of long ago may be others now, too");
            self.index(calendar);
        }
        let from = calendar.start_of(self.unsettled.take()?);
        self.latest_usage.filter(|latest| *latest >= from).map(|_| from)
    }
}

/// The first day on which usage may draw otherwise by one version of an assignment than by another; `None` where none does.
fn first_difference(one: Option<&Assignment>, other: Option<&Assignment>) -> Option<Date> {
    let (Some(one), Some(other)) = (one, other) else { return one.or(other).map(|only| only.start_date) };
    let mut like = one.clone();
    like.thresholds.clone_from(&other.thresholds);
    like.plan.id = other.plan.id;
    if like == *other {
        return None;
    }
    like.end_date = other.end_date;
    let first_end = one.end_date.into_iter().chain(other.end_date).min();
    match first_end {
        // Windows whose buckets may be drawn to their own end before either of these are the same.
        Some(end) if like == *other => {
            let frequency = one.plan.frequency;
            let period = frequency.period_of(end.plus(1)) - i32::from(one.plan.rollover_periods);
            Some(frequency.first_day(period).max(one.start_date))
        }
        _ => Some(one.start_date.min(other.start_date)),
    }
}
