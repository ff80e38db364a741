//! One customer's facts and buckets, and what new facts change (`domain.md sections 3 to 5 and 7`).
//!
//! An account is driven in batches. In each: [`Account::take`] every reference fact, then [`Account::settle`]; then
//! usage and reversals, each by its fast path ([`Account::count`], [`Account::reverse`]) as long as those hold; else
//! [`Account::begin_replay`] and [`Account::fold`] for all usage from the first changed place in the order on; last
//! [`Account::finish`], which says what a store must write and which alerts the batch raised. An account never reads: usage it needs is
//! handed to it. After a failed commit it is dropped and restored anew.
//!
//! An account need not hold the buckets of long ago. What it takes must then lie within its reach
//! ([`Account::reaches`]), and in its assignments nothing may change.
//!
//! Left out: identity of usage (the ledger's business), and bill runs, which say from outside what is held.

mod draw;
mod finish;
mod lines;
mod references;
mod replay;
mod shed;
mod standing;

pub use finish::Changes;
pub use references::Taken;
pub use replay::SlotSums;

use rustc_hash::FxHashSet;

use super::calendar::Calendar;
use super::facts::{Assignment, AssignmentKey, Component, CustomerFact, Level, Position};
use super::image::{AccountImage, AssignmentRow, BucketKey, BucketRow, LineRow};
use super::time::{Date, Instant};
use super::window::Window;
use lines::Lines;

/// One customer.
#[derive(Debug)]
pub struct Account {
    customer: i64,
    fact: Option<(i64, CustomerFact)>,
    next_slot: i32,
    /// What held of the customer before the batch at hand, once that changed it.
    fact_before: Option<Option<(i64, CustomerFact)>>,
    /// Whether the customer's own row must be written.
    row_changed: bool,
    /// Every assignment ever heard of, by key.
    assignments: Vec<AssignmentState>,
    /// Where to find what covers an event.
    coverage: Vec<Covering>,
    lines: Lines,
    /// Buckets that have a slot. Those that nothing ever drew from have none and are worth their allowance.
    buckets: Vec<Bucket>,
    /// The buckets that the batch at hand touched.
    touched: Vec<Touched>,
    /// Buckets that may not be drawn from at this instant or later may be left out; `None`: none is.
    since: Option<Instant>,
    /// The earliest expiry of its buckets.
    first_expiry: Instant,
    /// Whether there are buckets that no fact gives any more.
    gone: bool,
    pending_reversals: FxHashSet<Position>,
    latest_usage: Option<Instant>,
    /// Whether the batch at hand changed which buckets there are.
    unindexed: bool,
    /// The first day from which on the batch at hand changed what draws what.
    unsettled: Option<Date>,
    /// About how many bytes the plans' components take in memory.
    components_size: usize,
}

/// An assignment, what the batch at hand made of it, and where its buckets are.
#[derive(Debug)]
struct AssignmentState {
    row: AssignmentRow,
    /// What held before the batch at hand, once that changed.
    before: Option<Box<Before>>,
    /// The buckets of each component of the plan, in the plan's order.
    components: Vec<ComponentState>,
}

impl AssignmentState {
    /// About how many bytes its plan's components take in memory.
    fn components_size(&self) -> usize {
        let lists: usize = self.row.assignment.iter().flat_map(|of| &of.plan.components).map(Component::size).sum();
        lists + self.components.len() * (size_of::<ComponentState>() + ALLOCATION)
    }
}

/// What held of an assignment before a batch.
#[derive(Debug)]
struct Before {
    /// The assignment, if there was one.
    assignment: Option<Assignment>,
}

/// The buckets of a component, by the starts of their windows.
#[derive(Debug, Default)]
struct ComponentState {
    buckets: Vec<(Instant, usize)>,
}

/// A line of the coverage index.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Covering {
    level: Level,
    scope: i64,
    /// The place of the assignment.
    assignment: usize,
}

/// A bucket with a slot.
#[derive(Debug)]
struct Bucket {
    row: BucketRow,
    /// Its dates; `None` once no fact gives such a bucket any more.
    window: Option<Window>,
    /// Whether a store has a row of it.
    stored: bool,
    /// Once the batch at hand touched it: its place among those.
    touched: Option<u32>,
}

/// What a batch that touched a bucket must know at its end.
#[derive(Debug)]
struct Touched {
    /// The bucket's place.
    place: usize,
    /// The bucket before the batch.
    before: BucketRow,
    /// The last event of the batch whose own draws on it changed, with the caller's number for it.
    cause: Option<(Position, u32)>,
}

impl Bucket {
    fn new(row: BucketRow, window: Option<Window>, stored: bool) -> Bucket {
        Bucket { row, window, stored, touched: None }
    }
}

impl Account {
    /// A customer that nothing is known of.
    pub fn new(customer: i64) -> Account {
        Account { row_changed: true, ..Account::empty(customer) }
    }

    fn empty(customer: i64) -> Account {
        Account {
            customer,
            fact: None,
            fact_before: None,
            next_slot: 0,
            row_changed: false,
            assignments: Vec::new(),
            coverage: Vec::new(),
            lines: Lines::default(),
            buckets: Vec::new(),
            touched: Vec::new(),
            since: None,
            first_expiry: Instant::MAX,
            gone: false,
            pending_reversals: FxHashSet::default(),
            latest_usage: None,
            unindexed: false,
            unsettled: None,
            components_size: 0,
        }
    }

    /// An account as a store kept it.
    pub fn restore(image: AccountImage, calendar: &Calendar) -> Account {
        let mut account = Account::empty(image.customer);
        account.fact = image.fact;
        account.lines = Lines::restore(image.lines);
        account.pending_reversals = image.pending_reversals.into_iter().collect();
        account.latest_usage = image.latest_usage;
        account.assignments = image
            .assignments
            .into_iter()
            .map(|row| AssignmentState { row, before: None, components: Vec::new() })
            .collect();
        account.assignments.sort_unstable_by_key(|state| state.row.key);
        let mut rows = image.buckets;
        rows.sort_unstable_by_key(|row| row.slot);
        account.next_slot = rows.last().map_or(0, |last| last.slot.saturating_add(1)).max(image.next_slot);
        account.buckets = rows.into_iter().map(|row| Bucket::new(row, None, true)).collect();
        account.index(calendar);
        // It reaches back to when something of it expired last; where nothing did it is whole, for no store keeps a bucket that
        // no fact gives.
        let assignments = account.assignments.iter().filter_map(|state| state.row.assignment.as_ref());
        let last = |since| assignments.filter_map(|assignment| assignment.last_expiry_by(calendar, since)).max();
        account.since = image.since.and_then(last);
        account
    }

    /// The same, as a store kept it with more of its buckets. Of its lines it knows more than a store.
    pub fn reaching_back(self, image: AccountImage, calendar: &Calendar) -> Account {
        Account { lines: self.lines, ..Account::restore(image, calendar) }
    }

    /// The customer.
    pub fn customer(&self) -> i64 {
        self.customer
    }

    /// The billing cycle known now; customers without one are in cycle 0 (`domain.md section 3`).
    pub fn billing_cycle(&self) -> i64 {
        self.fact.map_or(0, |(_, fact)| fact.billing_cycle)
    }

    /// The latest start time of all usage known, held and reversed usage included. Usage later than that cannot be
    /// known already.
    pub fn latest_usage(&self) -> Option<Instant> {
        self.latest_usage
    }

    /// Notes that usage of this start time is in the ledger now.
    pub fn note_usage(&mut self, start: Instant) {
        self.latest_usage = self.latest_usage.max(Some(start));
    }

    /// Notes a reversal whose event has not come; false when it is there already.
    pub fn add_pending_reversal(&mut self, position: Position) -> bool {
        self.pending_reversals.insert(position)
    }

    /// Whether a reversal of this event waits for it.
    pub fn has_pending_reversal(&self, position: Position) -> bool {
        self.pending_reversals.contains(&position)
    }

    /// Takes the waiting reversal of an event that came; false when there is none.
    pub fn take_pending_reversal(&mut self, position: Position) -> bool {
        self.pending_reversals.remove(&position)
    }

    /// The buckets that have a slot and still exist, in no order.
    pub fn buckets(&self) -> impl Iterator<Item = &BucketRow> {
        self.buckets.iter().filter(|bucket| bucket.window.is_some()).map(|bucket| &bucket.row)
    }

    /// The slot that the next new bucket gets.
    pub(in crate::domain) fn next_slot(&self) -> i32 {
        self.next_slot
    }

    /// The lines, with those that nothing makes known any more until the batch ends.
    pub(in crate::domain) fn lines(&self) -> impl Iterator<Item = &LineRow> {
        self.lines.rows()
    }

    /// The component and the window that a bucket is of; `None` when the facts give no such bucket. It need not have a
    /// slot.
    pub(in crate::domain) fn bucket_of(&self, calendar: &Calendar, key: BucketKey) -> Option<(&Component, Window)> {
        let at = self.assignments.binary_search_by_key(&key.assignment, |state| state.row.key).ok()?;
        let assignment = self.assignments[at].row.assignment.as_ref()?;
        let component = assignment.plan.components.iter().find(|known| known.id == key.component)?;
        Some((component, window_starting(assignment, key.window_start, calendar)?))
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        const LISTS: usize = 4 * ALLOCATION;
        size_of::<Account>()
            + LISTS
            + self.components_size
            + self.assignments.capacity() * (size_of::<AssignmentState>() + size_of::<Covering>() + 2 * ALLOCATION)
            + self.lines.size()
            + self.buckets.capacity() * BUCKET
            + self.pending_reversals.capacity() * 2 * size_of::<Position>()
    }

    /// About how many bytes more it would take with the buckets that are left out.
    pub fn size_left_out(&self) -> usize {
        let slots = self.since.map_or(0, |_| usize::try_from(self.next_slot).unwrap_or(0));
        slots.saturating_sub(self.buckets.len()) * BUCKET
    }

    /// Whether it holds every bucket that may be drawn from at `since` or later; with `None`, every bucket that has a slot.
    pub fn reaches(&self, since: Option<Instant>) -> bool {
        self.since <= since
    }

    /// Builds the indexes over assignments and buckets, and finds out which buckets still exist.
    fn index(&mut self, calendar: &Calendar) {
        self.coverage.clear();
        self.coverage.reserve_exact(self.assignments.len());
        for (place, state) in self.assignments.iter_mut().enumerate() {
            state.components.clear();
            if let Some(assignment) = &mut state.row.assignment {
                assignment.plan.components.shrink_to_fit();
                state.components.reserve_exact(assignment.plan.components.len());
                state.components.resize_with(assignment.plan.components.len(), ComponentState::default);
                self.coverage.push(Covering { level: assignment.level, scope: assignment.scope, assignment: place });
            }
        }
        self.components_size = self.assignments.iter().map(AssignmentState::components_size).sum();
        self.coverage.sort_unstable();
        for (place, bucket) in self.buckets.iter_mut().enumerate() {
            let state = find_mut(&mut self.assignments, bucket.row.assignment);
            bucket.window = state.and_then(|state| attach(state, &bucket.row, place, calendar));
            self.gone |= bucket.window.is_none();
        }
        self.first_expiry = first_expiry(&self.buckets);
        for state in &mut self.assignments {
            for component in &mut state.components {
                component.buckets.sort_unstable();
            }
        }
    }
}

/// What an allocation takes beside what it was asked for, about.
const ALLOCATION: usize = 16;
/// What a bucket takes, with its place in its component.
const BUCKET: usize = size_of::<Bucket>() + size_of::<(Instant, usize)>();

/// The earliest expiry of some buckets.
fn first_expiry(buckets: &[Bucket]) -> Instant {
    let windows = buckets.iter().filter_map(|bucket| bucket.window);
    windows.map(|window| window.expiry).min().unwrap_or(Instant::MAX)
}

/// Makes room for one more where there is none. Most customers have one or two of a kind, and many customers are in memory
/// at a time, so there is less room to spare than a vector takes by itself.
fn make_room<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(1 + vec.len() / 2);
    }
}

/// The assignment of this key, if it was ever heard of.
fn find_mut(assignments: &mut [AssignmentState], key: AssignmentKey) -> Option<&mut AssignmentState> {
    let at = assignments.binary_search_by_key(&key, |state| state.row.key).ok()?;
    Some(&mut assignments[at])
}

/// Gives a bucket its place in its component; `None` when the facts give no such bucket.
fn attach(state: &mut AssignmentState, row: &BucketRow, place: usize, calendar: &Calendar) -> Option<Window> {
    let assignment = state.row.assignment.as_ref()?;
    let at = assignment.plan.components.iter().position(|component| component.id == row.component)?;
    let window = window_starting(assignment, row.window_start, calendar)?;
    make_room(&mut state.components[at].buckets);
    state.components[at].buckets.push((row.window_start, place));
    Some(window)
}

/// The window of an assignment that starts at just this instant, if there is one.
fn window_starting(assignment: &Assignment, start: Instant, calendar: &Calendar) -> Option<Window> {
    let date: Date = calendar.date_of(start);
    let period = assignment.plan.frequency.period_of(date);
    assignment.window(calendar, period).filter(|window| window.start == start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker has tens of thousands of accounts in memory, so what they are made of must stay small; what only a batch at
    /// hand needs stands apart.
    #[test]
    fn what_accounts_are_made_of_is_small() {
        assert!(size_of::<Bucket>() <= 128, "{}", size_of::<Bucket>());
        assert!(size_of::<AssignmentState>() <= 240, "{}", size_of::<AssignmentState>());
        assert!(size_of::<Account>() <= 320, "{}", size_of::<Account>());
        assert!(Lines::line_size() <= 112, "{}", Lines::line_size());
    }
}
