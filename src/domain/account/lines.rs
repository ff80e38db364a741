//! The lines (UPIs) of a customer: which are known, and their site and product (`domain.md section 3`).
//!
//! Site and product are those of inventory.changed, else those of the last usage that counts. A line whose usage keeps
//! site and product is not written again for each event, so the last usage that a store knows may be an earlier one
//! with the same site and product. Where the difference could matter, the answer is "replay": the ledger knows.

use super::finish::Changes;
use super::make_room;
use super::references::Taken;
use crate::domain::facts::{Inventory, Position, Usage};
use crate::domain::image::{LastUsage, LineRow};
use crate::domain::time::Instant;

/// Lines by their ids.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Vec<Line>,
    /// Whether [`Lines::finish`] has something to look for.
    touched: bool,
}

#[derive(Debug)]
struct Line {
    row: LineRow,
    /// Whether `last_usage` is the very last, rather than one with the same site and product as the last.
    exact: bool,
    /// Once the batch at hand touched it.
    touched: Option<Box<Touched>>,
}

/// What a batch that touched a line must know at its end.
#[derive(Debug)]
struct Touched {
    /// What a store has of it.
    before: Option<LineRow>,
    /// While usage of it is folded again: its last usage and `exact` as they were.
    replayed: Option<(Option<LastUsage>, bool)>,
}

/// A line before a batch and after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineTurn {
    pub(super) upi: i64,
    /// Whether the batch may have changed it.
    pub(super) changed: bool,
    pub(super) before: Option<LineRow>,
    pub(super) now: Option<LineRow>,
}

impl Line {
    fn new(row: LineRow, stored: bool) -> Line {
        let touched = (!stored).then(|| Box::new(Touched { before: None, replayed: None }));
        Line { row, exact: false, touched }
    }

    fn touch(&mut self) -> &mut Touched {
        let row = self.row;
        self.touched.get_or_insert_with(|| Box::new(Touched { before: Some(row), replayed: None }))
    }

    fn replayed(&self) -> Option<(Option<LastUsage>, bool)> {
        self.touched.as_ref()?.replayed
    }
}

/// Whether two usages leave a line with the same site and product.
fn alike(last: &LastUsage, usage: &Usage<'_>) -> bool {
    last.site == usage.site && last.product == usage.product
}

impl Lines {
    pub(super) fn restore(rows: Vec<LineRow>) -> Lines {
        let mut lines: Vec<Line> = rows.into_iter().map(|row| Line::new(row, true)).collect();
        lines.sort_unstable_by_key(|line| line.row.upi);
        Lines { lines, touched: false }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &LineRow> {
        self.lines.iter().map(|line| &line.row)
    }

    /// The line of this id, if it has a row.
    pub(super) fn get(&self, upi: i64) -> Option<LineRow> {
        self.find_at(upi).ok().map(|at| self.lines[at].row)
    }

    /// Each line as it was before the batch at hand and as it is now, where it was or is known.
    pub(super) fn turns(&self) -> impl Iterator<Item = LineTurn> {
        self.lines.iter().map(|line| {
            let known = line.row.fact.is_some() || line.row.last_usage.is_some();
            LineTurn {
                upi: line.row.upi,
                changed: line.touched.is_some(),
                before: line.touched.as_ref().map_or(Some(line.row), |touched| touched.before),
                now: known.then_some(line.row),
            }
        })
    }

    /// Whether the batch at hand may have changed any.
    pub(super) fn are_touched(&self) -> bool {
        self.touched
    }

    pub(super) fn size(&self) -> usize {
        self.lines.capacity() * Lines::line_size()
    }

    /// Bytes that one line takes in memory.
    pub(super) const fn line_size() -> usize {
        size_of::<Line>()
    }

    fn find_at(&self, upi: i64) -> Result<usize, usize> {
        self.lines.binary_search_by_key(&upi, |line| line.row.upi)
    }

    fn find(&mut self, upi: i64) -> Result<&mut Line, usize> {
        match self.find_at(upi) {
            Ok(at) => Ok(&mut self.lines[at]),
            Err(at) => Err(at),
        }
    }

    /// The line of this id, made known if it is not.
    fn entry(&mut self, upi: i64) -> &mut Line {
        let at = match self.find_at(upi) {
            Ok(at) => at,
            Err(at) => {
                self.touched = true;
                make_room(&mut self.lines);
                self.lines.insert(at, Line::new(LineRow { upi, fact: None, last_usage: None }, false));
                at
            }
        };
        &mut self.lines[at]
    }

    /// Takes `inventory.changed`.
    pub(super) fn take(&mut self, version: i64, fact: Inventory) -> Taken {
        let line = self.entry(fact.upi);
        let known = line.row.fact;
        let taken = Taken::judge(known.map(|known| known.0), version, || known.is_some_and(|known| known.1 == fact));
        if taken == Taken::Applied {
            line.touch();
            line.row.fact = Some((version, fact));
            self.touched = true;
        }
        taken
    }

    /// Whether the line's site and product after counting this usage follow from what is known here.
    pub(super) fn can_count(&mut self, usage: &Usage<'_>, latest_usage: Option<Instant>) -> bool {
        let Ok(line) = self.find(usage.upi) else { return true };
        match &line.row.last_usage {
            Some(last) if line.row.fact.is_none() => {
                line.exact
                    || alike(last, usage)
                    || usage.position <= last.position
                    || latest_usage.is_none_or(|latest| usage.position.start > latest)
            }
            _ => true,
        }
    }

    /// Counts usage of a line, for which [`Lines::can_count`] holds or which comes in order.
    pub(super) fn count(&mut self, usage: &Usage<'_>, latest_usage: Option<Instant>) {
        let latest = latest_usage.is_none_or(|latest| usage.position.start > latest);
        let line = self.entry(usage.upi);
        if line.row.fact.is_some() {
            return;
        }
        let now = LastUsage { position: usage.position, site: usage.site, product: usage.product };
        match &mut line.row.last_usage {
            Some(last) if usage.position <= last.position => {}
            Some(last) if alike(last, usage) => {
                // Not worth a write: site and product stay.
                last.position = usage.position;
                line.exact |= latest;
            }
            _ => {
                line.touch();
                line.row.last_usage = Some(now);
                line.exact = true;
                self.touched = true;
            }
        }
    }

    /// Counts, in a replay, usage that counted before it, too: that changes only lines whose last usage was forgotten for
    /// it. Others know theirs, and the replay may end before it comes to that.
    pub(super) fn count_again(&mut self, usage: &Usage<'_>, latest_usage: Option<Instant>) {
        if self.find(usage.upi).is_ok_and(|line| line.replayed().is_some()) {
            self.count(usage, latest_usage);
        }
    }

    /// Whether the line's site and product after this usage counts no more follow from what is known here.
    pub(super) fn can_reverse(&mut self, usage: &Usage<'_>) -> bool {
        let Ok(line) = self.find(usage.upi) else { return true };
        match &line.row.last_usage {
            Some(last) if line.row.fact.is_none() => line.exact && usage.position < last.position,
            _ => true,
        }
    }

    /// Forgets the last usage of those of these lines, which are sorted, that have it at `from` or later, or that are not
    /// sure of it: it is about to be counted again, in order, but for what ceases to count, or to be looked for. No other
    /// line is changed by the replay.
    pub(super) fn begin_replay(&mut self, from: Position, lines: &[i64]) {
        let changed = |line: &&mut Line| line.row.fact.is_none() && lines.binary_search(&line.row.upi).is_ok();
        for line in self.lines.iter_mut().filter(changed) {
            let was = (line.row.last_usage, line.exact);
            line.touch().replayed = Some(was);
            self.touched = true;
            // One that is not exact may have been reversed: only its site and product were those of the last.
            if line.row.last_usage.is_some_and(|last| !line.exact || last.position >= from) {
                line.row.last_usage = None;
            }
        }
    }

    /// Whether the last usage of each changed line is known once all up to `at` is folded.
    pub(super) fn can_end_replay(&self, at: Position) -> bool {
        self.lines.iter().all(|line| match line.replayed() {
            None | Some((None, _)) => true,
            Some((Some(last), exact)) => exact || last.position > at,
        })
    }

    /// Ends a replay at such a place: the last usage of lines that have it later is as it was.
    pub(super) fn end_replay(&mut self, at: Position) {
        for line in &mut self.lines {
            if let Some((Some(last), exact)) = line.replayed()
                && last.position > at
            {
                (line.row.last_usage, line.exact) = (Some(last), exact);
            }
        }
    }

    /// The lines of which nothing was folded that counts, though something of them counted before.
    pub(super) fn to_find(&self) -> Vec<i64> {
        let to_find = |line: &&Line| line.row.last_usage.is_none() && matches!(line.replayed(), Some((Some(_), _)));
        self.lines.iter().filter(to_find).map(|line| line.row.upi).collect()
    }

    /// Takes the last usage of such a line.
    pub(super) fn found(&mut self, usage: &Usage<'_>) {
        if let Ok(line) = self.find(usage.upi) {
            let last = LastUsage { position: usage.position, site: usage.site, product: usage.product };
            (line.row.last_usage, line.exact) = (Some(last), true);
        }
    }

    /// Hands over the lines that a store must write, and drops those that are not known any more.
    pub(super) fn finish(&mut self, customer: i64, changes: &mut Changes) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        self.lines.retain_mut(|line| {
            let Some(touched) = line.touched.take() else { return true };
            let before = touched.before;
            let known = line.row.fact.is_some() || line.row.last_usage.is_some();
            if !known {
                if before.is_some() {
                    changes.removed_lines.push((customer, line.row.upi));
                }
                return false;
            }
            match before {
                None => changes.new_lines.push((customer, line.row)),
                Some(before) if before != line.row => changes.changed_lines.push((customer, line.row)),
                Some(_) => {}
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::facts::ChargingType;
    use crate::domain::quantity::Quantity;

    fn at(micros: i64) -> Position {
        Position::first_at(Instant::from_micros(micros))
    }

    /// A store knows a line's first usage, since the second left site and product alone, and then the first was reversed
    /// without a write. What it knows must not outlive the second.
    #[test]
    fn a_last_usage_that_may_be_reversed_itself_is_not_relied_upon() {
        let last_usage = Some(LastUsage { position: at(1), site: 2, product: 2 });
        let mut lines = Lines::restore(vec![LineRow { upi: 3, fact: None, last_usage }]);
        lines.begin_replay(at(2), &[3]);
        assert!(!lines.can_end_replay(at(2)));
        assert_eq!(lines.to_find(), [3]);
        let mut changes = Changes::default();
        lines.finish(1, &mut changes);
        assert_eq!(changes.removed_lines, [(1, 3)]);
    }

    /// A store knows a line's first usage, and not the later ones at the same site, of which one in between was at another.
    /// A replay of other lines that ends before the last of them must not take that one in between for the last.
    #[test]
    fn a_replay_of_other_lines_leaves_a_line_alone() {
        let last_usage = Some(LastUsage { position: at(10), site: 1, product: 1 });
        let mut lines = Lines::restore(vec![LineRow { upi: 7, fact: None, last_usage }]);
        lines.begin_replay(at(12), &[8]);
        let usage = Usage {
            position: at(15),
            site: 2,
            upi: 7,
            product: 1,
            charging_type: ChargingType::Duration,
            quantity: Quantity::ZERO,
            price: Quantity::ZERO,
            timeband: None,
            charge_group: None,
            charge_group_category: None,
            destination: None,
            id: "",
        };
        lines.count_again(&usage, Some(Instant::from_micros(30)));
        lines.end_replay(at(16));
        let mut changes = Changes::default();
        lines.finish(1, &mut changes);
        assert_eq!(lines.get(7).and_then(|row| row.last_usage), last_usage);
        assert!(changes.changed_lines.is_empty());
    }
}
