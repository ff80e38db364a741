//! The replay: usage is folded again from the first place in the order at which something changed (`domain.md section
//! 5`).
//!
//! The ledger keeps what each event drew, so what every bucket held just before any place follows from what it holds now
//! and the draws from there on. A replay therefore costs as much as the usage from that place on, however long the ledger
//! is, and it may end before the end: once nothing that comes later can draw otherwise.

use rustc_hash::FxHashMap;

use super::{Account, Bucket, Touched};
use crate::domain::calendar::Calendar;
use crate::domain::facts::{Component, Position, Usage};
use crate::domain::image::{BucketRow, Draw};
use crate::domain::quantity::Quantity;
use crate::domain::waterfall::{Order, Waterfall};

/// Sums of draws, in millionths, by slot.
pub type SlotSums = FxHashMap<i32, i64>;

impl Account {
    /// Goes back to just before `from`: `drawn_since` is what known usage from there on drew of each bucket. `lines` are
    /// the lines, sorted, of the usage that begins or ceases to count. All usage from `from` on that counts is folded
    /// next, in its order.
    pub fn begin_replay(&mut self, from: Position, drawn_since: &SlotSums, lines: &[i64]) {
        assert!(self.reaches(Some(from.start)), "usage from a place on draws from no bucket that is left out");
        self.lines.begin_replay(from, lines);
        for place in 0..self.buckets.len() {
            let touched = self.touch(place);
            touched.cause = None;
            let before = touched.before;
            let component = self.component_of(&self.buckets[place]).map(|c| (c.by_value, c.charging_type, c.allowance));
            let bucket = &mut self.buckets[place];
            let Some((by_value, charging_type, allowance)) = component else { continue };
            // What is drawn before the replay begins: nothing, where the bucket is another one now.
            let since = drawn_since.get(&before.slot).copied().unwrap_or(0);
            // Of a row that somebody damaged more may be left than its draws can tell; that is the audit's to say.
            let drawn = before.allowance.millionths() - before.remaining.millionths() - since;
            let drawn = Quantity::from_millionths(drawn.clamp(0, allowance.millionths()));
            bucket.row.by_value = by_value;
            bucket.row.charging_type = charging_type;
            bucket.row.allowance = allowance;
            bucket.row.remaining = allowance.less(drawn);
            bucket.row.mark = before.mark.filter(|_| !drawn.is_zero()).min(from.before());
        }
    }

    /// What a bucket was before the batch at hand, once that touched it.
    fn before(&self, bucket: &Bucket) -> Option<BucketRow> {
        bucket.touched.map(|at| self.touched[at as usize].before)
    }

    /// The component that a bucket is of, if there still is such a bucket.
    fn component_of(&self, bucket: &Bucket) -> Option<&Component> {
        bucket.window?;
        let at = self.assignments.binary_search_by_key(&bucket.row.assignment, |state| state.row.key).ok()?;
        let plan = &self.assignments[at].row.assignment.as_ref()?.plan;
        plan.components.iter().find(|component| component.id == bucket.row.component)
    }

    /// Folds the next usage, which did not count before; `draws` gets what it took. `cause` is the caller's number for
    /// it in a replay.
    pub fn fold(
        &mut self,
        calendar: &Calendar,
        usage: &Usage<'_>,
        cause: Option<u32>,
        waterfall: &mut Waterfall,
        draws: &mut Vec<Draw>,
    ) {
        let drawn = self.draw(calendar, usage, Order::Kept, cause, waterfall, draws);
        debug_assert!(drawn, "in order every draw is exact");
        self.lines.count(usage, self.latest_usage);
    }

    /// Folds the next usage of a replay that counted before it, too.
    pub fn fold_again(
        &mut self,
        calendar: &Calendar,
        usage: &Usage<'_>,
        waterfall: &mut Waterfall,
        draws: &mut Vec<Draw>,
    ) {
        let drawn = self.draw(calendar, usage, Order::Kept, None, waterfall, draws);
        debug_assert!(drawn, "in order every draw is exact");
        self.lines.count_again(usage, self.latest_usage);
    }

    /// Notes, in a replay, that an event which drew this counts no more.
    pub fn note_reversed(&mut self, position: Position, draws: &[Draw], cause: u32) {
        for draw in draws {
            if let Some(place) = self.slot(draw.slot) {
                self.touch(place).note(position, cause);
            }
        }
    }

    /// Whether a replay that has folded all up to `at`, and all that changed, may end there. `more` says how much more
    /// each bucket has now than it had at this place before. Where that is something, nobody may draw from the bucket any
    /// more, or it must have room at the end both ways: then everyone that comes later takes all that it wants of it, as
    /// before.
    pub fn can_end_replay(&self, at: Position, more: &SlotSums) -> bool {
        let is_settled = |slot: i32, more: i64| {
            let Some(bucket) = self.slot(slot).map(|place| &self.buckets[place]) else { return false };
            let is_past = bucket.window.is_some_and(|window| window.expiry <= at.start);
            let end = self.before(bucket).map(|before| before.remaining.millionths());
            end.is_some_and(|end| is_past || (end > 0 && end.saturating_add(more) > 0))
        };
        more.iter().all(|(slot, more)| *more == 0 || is_settled(*slot, *more)) && self.lines.can_end_replay(at)
    }

    /// Ends a replay at such a place: what comes later draws as before.
    pub fn end_replay(&mut self, at: Position, more: &SlotSums) {
        self.lines.end_replay(at);
        for Touched { place, before, .. } in &self.touched {
            let bucket = &mut self.buckets[*place];
            if bucket.window.is_none() {
                continue;
            }
            let more = more.get(&before.slot).copied().unwrap_or(0);
            let remaining = before.remaining.millionths().saturating_add(more).max(0);
            bucket.row.remaining = Quantity::from_millionths(remaining);
            let full = bucket.row.remaining == bucket.row.allowance;
            bucket.row.mark = bucket.row.mark.max(before.mark).filter(|_| !full);
        }
    }

    /// The lines, sorted, whose last usage must be looked for before the place where the replay began.
    pub fn lines_to_find(&self) -> Vec<i64> {
        self.lines.to_find()
    }

    /// Takes usage of such a line that counts, the latest before the replay.
    pub fn found_line(&mut self, usage: &Usage<'_>) {
        self.lines.found(usage);
    }
}
