//! Drawing: finding the buckets that usage qualifies for, and taking out of them or putting back.

use super::{Account, Bucket, ComponentState, Touched, make_room};
use crate::domain::calendar::Calendar;
use crate::domain::facts::{Assignment, Component, Level, Position, Usage};
use crate::domain::image::{BucketRow, Draw};
use crate::domain::quantity::Quantity;
use crate::domain::time::Instant;
use crate::domain::waterfall::{Candidate, Order, Waterfall};
use crate::domain::window::Window;

impl Account {
    /// Counts usage that is not known yet by the fast path: `draws` gets what it took. False, with nothing changed,
    /// when its place in the order matters: then the batch must replay. `cause` is the caller's number for the event.
    pub fn count(
        &mut self,
        calendar: &Calendar,
        usage: &Usage<'_>,
        cause: u32,
        waterfall: &mut Waterfall,
        draws: &mut Vec<Draw>,
    ) -> bool {
        if !self.lines.can_count(usage, self.latest_usage) {
            return false;
        }
        let drawn = self.draw(calendar, usage, Order::Unknown, Some(cause), waterfall, draws);
        if drawn {
            self.lines.count(usage, self.latest_usage);
        }
        drawn
    }

    /// Takes back usage that drew this by the fast path. False, with nothing changed, when others might take its
    /// place: then the batch must replay.
    pub fn reverse(&mut self, usage: &Usage<'_>, draws: &[Draw], cause: u32) -> bool {
        let fast = self.lines.can_reverse(usage)
            && draws.iter().all(|draw| {
                self.slot(draw.slot).is_some_and(|place| {
                    let bucket = &self.buckets[place];
                    bucket.window.is_some() && !bucket.row.remaining.is_zero()
                })
            });
        if !fast {
            return false;
        }
        for draw in draws {
            let Some(place) = self.slot(draw.slot) else { continue };
            self.touch(place).note(usage.position, cause);
            let bucket = &mut self.buckets[place];
            let remaining = bucket.row.remaining.millionths().saturating_add(draw.amount.millionths());
            bucket.row.remaining = Quantity::from_millionths(remaining);
            if bucket.row.remaining == bucket.row.allowance {
                bucket.row.mark = None;
            }
        }
        true
    }

    /// Remembers what a bucket was before the batch at hand.
    pub(super) fn touch(&mut self, place: usize) -> &mut Touched {
        let bucket = &mut self.buckets[place];
        let at = *bucket.touched.get_or_insert_with(|| {
            let at = u32::try_from(self.touched.len()).expect("an account has fewer buckets");
            self.touched.push(Touched { place, before: bucket.row, cause: None });
            at
        });
        &mut self.touched[at as usize]
    }

    /// The place of the bucket with this slot. Slots are given in rising order, and buckets keep theirs.
    pub(super) fn slot(&self, slot: i32) -> Option<usize> {
        self.buckets.binary_search_by_key(&slot, |bucket| bucket.row.slot).ok()
    }

    /// Takes what usage draws out of the buckets. False, with nothing changed, when its place in the order matters.
    pub(super) fn draw(
        &mut self,
        calendar: &Calendar,
        usage: &Usage<'_>,
        order: Order,
        cause: Option<u32>,
        waterfall: &mut Waterfall,
        draws: &mut Vec<Draw>,
    ) -> bool {
        draws.clear();
        assert!(self.reaches(Some(usage.position.start)), "usage draws from no bucket that is left out");
        self.qualify(calendar, usage, waterfall);
        if !waterfall.run(usage, order) {
            return false;
        }
        for take in &waterfall.takes {
            let candidate = &waterfall.candidates[take.candidate];
            let place = candidate.bucket.unwrap_or_else(|| self.give_slot(candidate));
            let touched = self.touch(place);
            if let Some(cause) = cause {
                touched.note(usage.position, cause);
            }
            let bucket = &mut self.buckets[place];
            bucket.row.remaining = bucket.row.remaining.less(take.amount);
            bucket.row.mark = bucket.row.mark.max(Some(usage.position));
            draws.push(Draw { slot: bucket.row.slot, amount: take.amount });
        }
        true
    }

    /// Finds the buckets that usage qualifies for, and draws nothing.
    pub(in crate::domain) fn qualify(&self, calendar: &Calendar, usage: &Usage<'_>, waterfall: &mut Waterfall) {
        waterfall.candidates.clear();
        self.find_candidates(calendar, usage, &mut waterfall.candidates);
    }

    /// Finds the buckets that may be drawn by this usage.
    fn find_candidates(&self, calendar: &Calendar, usage: &Usage<'_>, candidates: &mut Vec<Candidate>) {
        for (level, scope) in [(Level::Inventory, usage.upi), (Level::Site, usage.site), (Level::Customer, 0)] {
            let first = self.coverage.partition_point(|c| (c.level, c.scope) < (level, scope));
            let covering = self.coverage[first..].iter().take_while(|c| (c.level, c.scope) == (level, scope));
            for place in covering.map(|covering| covering.assignment) {
                let state = &self.assignments[place];
                let Some(assignment) = &state.row.assignment else { continue };
                if !assignment.takes_product(usage) {
                    continue;
                }
                for (at, component) in assignment.plan.components.iter().enumerate() {
                    if component.takes(usage) && component.large_enough(assignment, usage) {
                        let buckets = Buckets { account: self, assignment, component, at: (place, at) };
                        buckets.open_at(calendar, usage.position.start, &state.components[at], candidates);
                    }
                }
            }
        }
    }

    /// Makes a bucket of a candidate that nothing ever drew from.
    fn give_slot(&mut self, candidate: &Candidate) -> usize {
        let state = &mut self.assignments[candidate.component.0];
        let component = state.row.assignment.as_ref().map(|a| &a.plan.components[candidate.component.1]);
        let row = BucketRow {
            slot: self.next_slot,
            assignment: candidate.assignment,
            component: candidate.component_id,
            window_start: candidate.window.start,
            charging_type: component.expect("a candidate's assignment is there").charging_type,
            by_value: candidate.by_value,
            allowance: candidate.remaining,
            remaining: candidate.remaining,
            mark: None,
        };
        self.next_slot += 1;
        let place = self.buckets.len();
        self.first_expiry = self.first_expiry.min(candidate.window.expiry);
        make_room(&mut self.buckets);
        self.buckets.push(Bucket::new(row, Some(candidate.window), false));
        let buckets = &mut state.components[candidate.component.1].buckets;
        make_room(buckets);
        let at = buckets.partition_point(|(start, _)| *start < candidate.window.start);
        buckets.insert(at, (candidate.window.start, place));
        place
    }
}

/// The buckets of a component.
struct Buckets<'a> {
    account: &'a Account,
    assignment: &'a Assignment,
    component: &'a Component,
    at: (usize, usize),
}

impl Buckets<'_> {
    /// Adds those that may be drawn at an instant.
    fn open_at(&self, calendar: &Calendar, at: Instant, state: &ComponentState, candidates: &mut Vec<Candidate>) {
        if self.assignment.plan.rollover_periods == 0 {
            // At most one is open, and most often it is the one whose window began last.
            let next = state.buckets.partition_point(|(start, _)| *start <= at);
            let last = next.checked_sub(1).map(|last| state.buckets[last].1);
            let window = last.and_then(|place| self.account.buckets[place].window);
            if let Some(window) = window.filter(|window| window.is_open_at(at)) {
                candidates.push(self.candidate(window, last));
                return;
            }
        }
        for window in self.assignment.windows_open_at(calendar, at) {
            let known = state.buckets.binary_search_by_key(&window.start, |(start, _)| *start).ok();
            candidates.push(self.candidate(window, known.map(|known| state.buckets[known].1)));
        }
    }

    fn candidate(&self, window: Window, bucket: Option<usize>) -> Candidate {
        let row = bucket.map(|place| &self.account.buckets[place].row);
        Candidate {
            bucket,
            component: self.at,
            window,
            start_date: self.assignment.start_date,
            assignment: self.assignment.key(),
            component_id: self.component.id,
            by_value: self.component.by_value,
            cap: self.assignment.plan.max_per_event_quantity,
            remaining: row.map_or(self.component.allowance, |row| row.remaining),
            mark: row.and_then(|row| row.mark),
        }
    }
}

impl Touched {
    /// Notes the last event whose own draws on the bucket changed.
    pub(super) fn note(&mut self, position: Position, cause: u32) {
        self.cause = self.cause.max(Some((position, cause)));
    }
}
