//! The plain fold of `domain.md section 5`: event after event through all buckets it qualifies for, found anew each time
//! and sorted. Nothing is indexed and nothing is skipped; only calendar and windows are the product's own.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::{
    Assignment, AssignmentKey, BucketRow, Calendar, ChargingType, Component, Date, Instant, Level, Position, Usage,
    Window,
};

/// How a bucket is known within its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    assignment: AssignmentKey,
    component: i64,
    window_start: Instant,
}

impl Name {
    pub(super) fn of(row: &BucketRow) -> Name {
        Name { assignment: row.assignment, component: row.component, window_start: row.window_start }
    }
}

impl fmt::Display for Name {
    /// As `--bucket` of the commands takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AssignmentKey { level, id } = self.assignment;
        write!(f, "bucket {}/{id}/{}/{}", level.name(), self.component, self.window_start)
    }
}

/// What a bucket comes to, in millionths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    pub(super) charging_type: ChargingType,
    pub(super) by_value: bool,
    pub(super) allowance: i64,
    pub(super) drawn: i64,
    /// The last event that drew from it.
    pub(super) last: Option<Position>,
}

impl Bucket {
    fn full(component: &Component) -> Bucket {
        let Component { charging_type, by_value, allowance, .. } = *component;
        Bucket { charging_type, by_value, allowance: allowance.millionths(), drawn: 0, last: None }
    }
}

/// A bucket that an event qualifies for.
struct Choice {
    rank: (Level, Instant, Date, i64, i64, Instant),
    name: Name,
    /// As it is before anything is drawn.
    full: Bucket,
    cap: Option<i64>,
}

/// A customer's usage, folded in its order.
pub(super) struct PlainFold<'a> {
    calendar: &'a Calendar,
    assignments: Vec<Assignment>,
    buckets: BTreeMap<Name, Bucket>,
}

impl<'a> PlainFold<'a> {
    pub(super) fn new(calendar: &'a Calendar, assignments: Vec<Assignment>) -> PlainFold<'a> {
        PlainFold { calendar, assignments, buckets: BTreeMap::new() }
    }

    /// Takes a bucket up that a row is of, if the facts give such a bucket: it may be that nothing draws from it.
    pub(super) fn know(&mut self, name: Name) {
        let next = Instant::from_micros(name.window_start.micros().saturating_add(1));
        let given = |assignment: &&Assignment| assignment.key() == name.assignment;
        let Some(assignment) = self.assignments.iter().find(given) else { return };
        let Some(component) = assignment.plan.components.iter().find(|c| c.id == name.component) else { return };
        let mut windows = assignment.windows_between(self.calendar, name.window_start, next);
        if windows.any(|window| window.start == name.window_start) {
            self.buckets.insert(name, Bucket::full(component));
        }
    }

    /// Draws what the next event takes; says from which buckets, in order.
    pub(super) fn draw(&mut self, usage: &Usage<'_>) -> Vec<(Name, i64)> {
        let mut choices = self.choices(usage);
        choices.sort_by_key(|choice| choice.rank);
        let (mut open, mut cost) = (i128::from(usage.quantity.millionths()), i128::from(usage.price.millionths()));
        let mut taken_of: BTreeMap<AssignmentKey, i128> = BTreeMap::new();
        let mut draws = Vec::new();
        for choice in choices {
            let fresh = choice.full;
            let left = self.buckets.get(&choice.name).map_or(fresh.allowance, |bucket| bucket.allowance - bucket.drawn);
            let left = i128::from(left);
            let taken = taken_of.entry(choice.name.assignment).or_default();
            let take = if fresh.by_value {
                left.min(cost)
            } else {
                let cap = choice.cap.map_or(open, |cap| (i128::from(cap) - *taken).max(0));
                left.min(open).min(cap)
            };
            if take <= 0 {
                continue;
            }
            if fresh.by_value {
                open = open * (cost - take) / cost;
                cost -= take;
            } else {
                cost = cost * (open - take) / open;
                open -= take;
                *taken += take;
            }
            let Ok(amount) = i64::try_from(take) else { continue };
            let bucket = self.buckets.entry(choice.name).or_insert(fresh);
            bucket.drawn += amount;
            bucket.last = Some(usage.position);
            draws.push((choice.name, amount));
        }
        draws
    }

    /// What each bucket that is known or was drawn from comes to.
    pub(super) fn into_drawn(self) -> BTreeMap<Name, Bucket> {
        self.buckets
    }

    fn choices(&self, usage: &Usage<'_>) -> Vec<Choice> {
        let mut choices = Vec::new();
        for assignment in self.assignments.iter().filter(|assignment| covers(assignment, usage)) {
            let plan = &assignment.plan;
            for component in plan.components.iter().filter(|component| fits(component, usage)) {
                let least = plan.min_qualifying_quantity;
                if !component.by_value && least.is_some_and(|least| usage.quantity < least) {
                    continue;
                }
                for window in assignment.windows_open_at(self.calendar, usage.position.start) {
                    choices.push(choice(assignment, component, window));
                }
            }
        }
        choices
    }
}

fn choice(assignment: &Assignment, component: &Component, window: Window) -> Choice {
    let key = assignment.key();
    Choice {
        rank: (key.level, window.expiry, assignment.start_date, key.id, component.id, window.start),
        name: Name { assignment: key, component: component.id, window_start: window.start },
        full: Bucket::full(component),
        cap: assignment.plan.max_per_event_quantity.map(|cap| cap.millionths()),
    }
}

fn covers(assignment: &Assignment, usage: &Usage<'_>) -> bool {
    let scope = match assignment.level {
        Level::Inventory => usage.upi,
        Level::Site => usage.site,
        Level::Customer => assignment.scope,
    };
    scope == assignment.scope && assignment.plan.product.is_none_or(|product| product == usage.product)
}

fn fits(component: &Component, usage: &Usage<'_>) -> bool {
    let band = component.timebands.is_empty()
        || usage.timeband.is_some_and(|band| component.timebands.iter().any(|own| own == band));
    let anything = component.charge_groups.is_empty()
        && component.charge_group_categories.is_empty()
        && component.dial_strings.is_empty();
    let group = usage.charge_group.is_some_and(|group| component.charge_groups.contains(&group));
    let category = usage.charge_group_category.is_some_and(|one| component.charge_group_categories.contains(&one));
    let dialled = usage.destination.is_some_and(|digits| {
        let begins = |dial: &crate::domain::DialString| {
            if dial.whole { digits == dial.digits } else { digits.starts_with(dial.digits.as_str()) }
        };
        component.dial_strings.iter().any(begins)
    });
    component.charging_type == usage.charging_type && band && (anything || group || category || dialled)
}
