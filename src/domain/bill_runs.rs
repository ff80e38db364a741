//! The bill runs that a partition has applied, and what they hold back (`domain.md sections 3 and 6`).

use std::collections::{BTreeMap, BTreeSet};

use super::account::Taken;
use super::facts::{BillRun, RunStatus};
use super::image::BillRunRow;
use super::time::Date;

/// Bill runs by their ids.
#[derive(Debug, Clone, Default)]
pub struct BillRuns {
    rows: Vec<BillRunRow>,
    /// By billing cycle, the days that closed runs cover: the first and the last of each span, in order, none touching
    /// another. Every usage event is held against them, and there are ever more runs.
    closed: BTreeMap<i64, Vec<(Date, Date)>>,
}

/// A fact about a bill run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFact {
    /// Its version.
    pub version: i64,
    /// What it says.
    pub run: BillRun,
}

/// What became of a fact about a bill run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunTaken {
    /// It holds now.
    Applied(RunChange),
    /// It is the version that holds.
    Duplicate,
    /// A higher version holds.
    PassedOver,
    /// It is the version that holds, with other data.
    Conflict,
    /// The run is finalized, and the fact is a later version of it.
    Finalized,
}

/// What a fact that was applied changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunChange {
    /// The run is open again: its stored rows go.
    pub reopened: bool,
}

impl RunStatus {
    /// Whether rows are answered from the store.
    pub fn is_closed(self) -> bool {
        self != RunStatus::Open
    }
}

impl BillRun {
    /// Whether it is closed and covers all that another one covers.
    pub fn covers_all_of(&self, other: &BillRun) -> bool {
        let same_cycle = self.billing_cycle == other.billing_cycle;
        let whole = self.usage_from <= other.usage_from && other.usage_until <= self.usage_until;
        self.status.is_closed() && same_cycle && whole
    }
}

impl BillRuns {
    /// Those a partition has applied so far.
    pub fn restore(mut rows: Vec<BillRunRow>) -> BillRuns {
        rows.sort_unstable_by_key(|row| row.run.id);
        let mut runs = BillRuns { rows, closed: BTreeMap::new() };
        let cycles: BTreeSet<i64> = runs.rows.iter().map(|row| row.run.billing_cycle).collect();
        cycles.into_iter().for_each(|cycle| runs.cover(cycle));
        runs
    }

    /// Finds anew which days of a cycle closed runs cover.
    fn cover(&mut self, cycle: i64) {
        let of_cycle = self.rows.iter().map(|row| &row.run).filter(|run| run.billing_cycle == cycle);
        let mut days: Vec<(Date, Date)> = of_cycle
            .filter(|run| run.status.is_closed() && run.usage_from <= run.usage_until)
            .map(|run| (run.usage_from, run.usage_until))
            .collect();
        days.sort_unstable();
        let mut spans: Vec<(Date, Date)> = Vec::new();
        for (from, until) in days {
            match spans.last_mut() {
                Some(last) if from.days() - 1 <= last.1.days() => last.1 = last.1.max(until),
                _ => spans.push((from, until)),
            }
        }
        self.closed.insert(cycle, spans);
    }

    /// The run of this id as applied.
    pub fn get(&self, id: i64) -> Option<&BillRunRow> {
        self.rows.binary_search_by_key(&id, |row| row.run.id).ok().map(|at| &self.rows[at])
    }

    /// The id and version of each run, by id, but for those whose held usage is yet to be let in.
    pub fn settled(&self) -> impl Iterator<Item = (i64, i64)> {
        self.rows.iter().filter(|row| row.letting_in.is_none()).map(|row| (row.run.id, row.version))
    }

    /// Whether any run is closed, so that usage may have to be held.
    pub fn any_closed(&self) -> bool {
        self.rows.iter().any(|row| row.run.status.is_closed())
    }

    /// Whether usage of this day, of a customer of this cycle, is covered by a closed run.
    pub fn hold(&self, cycle: i64, date: Date) -> bool {
        let spans = self.closed.get(&cycle).map_or(&[][..], Vec::as_slice);
        let before = spans.partition_point(|(from, _)| *from <= date);
        before > 0 && date <= spans[before - 1].1
    }

    /// The runs whose rows are being stored.
    pub fn storing(&self) -> impl Iterator<Item = &BillRunRow> {
        self.rows.iter().filter(|row| row.storing.is_some())
    }

    /// Notes how far the storing of a run's rows came; `None`: it is done. Returns the run's row.
    pub fn note_storing(&mut self, id: i64, storing: Option<i64>) -> Option<BillRunRow> {
        let at = self.rows.binary_search_by_key(&id, |row| row.run.id).ok()?;
        self.rows[at].storing = storing;
        Some(self.rows[at])
    }

    /// The run whose held usage is being let in, and up to which customer that is done.
    pub fn letting_in(&self) -> Option<(i64, i64)> {
        self.rows.iter().find_map(|row| row.letting_in.map(|customer| (row.run.id, customer)))
    }

    /// Notes up to which customer the held usage of a run is let in; `None`: it is done. Returns the run's row.
    pub fn note_letting_in(&mut self, id: i64, letting_in: Option<i64>) -> Option<BillRunRow> {
        let at = self.rows.binary_search_by_key(&id, |row| row.run.id).ok()?;
        self.rows[at].letting_in = letting_in;
        Some(self.rows[at])
    }

    /// Takes a fact about a run.
    pub fn take(&mut self, fact: &RunFact) -> RunTaken {
        let place = self.rows.binary_search_by_key(&fact.run.id, |row| row.run.id);
        let known = place.ok().map(|at| self.rows[at]);
        if known.is_some_and(|row| fact.version > row.version && row.run.status == RunStatus::Finalized) {
            return RunTaken::Finalized;
        }
        let same = || known.is_some_and(|row| row.run == fact.run);
        match Taken::judge(known.map(|row| row.version), fact.version, same) {
            Taken::Applied => {}
            Taken::Duplicate => return RunTaken::Duplicate,
            Taken::PassedOver => return RunTaken::PassedOver,
            Taken::Conflict => return RunTaken::Conflict,
        }
        let was_closed = known.is_some_and(|row| row.run.status.is_closed());
        let closes = fact.run.status.is_closed();
        let change = RunChange { reopened: was_closed && !closes };
        let storing = match known {
            Some(row) if was_closed => row.storing.filter(|_| closes),
            _ => closes.then_some(-1),
        };
        let lets_in = known.is_some_and(|row| row.run.status.is_closed() && !fact.run.covers_all_of(&row.run));
        let letting_in = if lets_in { Some(-1) } else { known.and_then(|row| row.letting_in) };
        let row = BillRunRow { version: fact.version, run: fact.run, storing, letting_in };
        match place {
            Ok(at) => self.rows[at] = row,
            Err(at) => self.rows.insert(at, row),
        }
        if let Some(known) = known {
            self.cover(known.run.billing_cycle);
        }
        self.cover(row.run.billing_cycle);
        RunTaken::Applied(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(version: i64, status: RunStatus) -> RunFact {
        let day = Date::from_days(20_000);
        let run = BillRun {
            id: 7,
            billing_cycle: 1,
            period_start: day,
            period_end: day,
            usage_from: day,
            usage_until: day,
            status,
        };
        RunFact { version, run }
    }

    #[test]
    fn a_finalized_run_takes_no_later_version() {
        let mut runs = BillRuns::default();
        assert_eq!(runs.take(&fact(3, RunStatus::Finalized)), RunTaken::Applied(RunChange::default()));
        assert_eq!(runs.get(7).expect("it is known").storing, Some(-1));
        assert_eq!(runs.take(&fact(3, RunStatus::Finalized)), RunTaken::Duplicate);
        assert_eq!(runs.take(&fact(3, RunStatus::Open)), RunTaken::Conflict);
        assert_eq!(runs.take(&fact(2, RunStatus::Open)), RunTaken::PassedOver);
        assert_eq!(runs.take(&fact(4, RunStatus::Open)), RunTaken::Finalized);
    }

    #[test]
    fn days_are_held_that_any_closed_run_of_the_cycle_covers() {
        let mut runs = BillRuns::default();
        let mut take = |id: i64, version: i64, cycle: i64, days: (i32, i32), status: RunStatus| {
            let (usage_from, usage_until) = (Date::from_days(days.0), Date::from_days(days.1));
            let run = BillRun { id, billing_cycle: cycle, usage_from, usage_until, status, ..fact(1, status).run };
            assert!(matches!(runs.take(&RunFact { version, run }), RunTaken::Applied(_)));
            let held = |cycle: i64| {
                let days = (0..20).filter(|day| runs.hold(cycle, Date::from_days(*day))).collect::<Vec<i32>>();
                let again = BillRuns::restore(runs.rows.clone());
                assert!((0..20).all(|day| again.hold(cycle, Date::from_days(day)) == days.contains(&day)));
                days
            };
            (held(1), held(2))
        };
        assert_eq!(take(1, 1, 1, (3, 4), RunStatus::Open), (vec![], vec![]));
        assert_eq!(take(1, 2, 1, (3, 4), RunStatus::Closed), (vec![3, 4], vec![]));
        assert_eq!(take(2, 1, 1, (5, 6), RunStatus::Finalized), (vec![3, 4, 5, 6], vec![]));
        assert_eq!(take(3, 1, 2, (5, 5), RunStatus::Closed), (vec![3, 4, 5, 6], vec![5]));
        assert_eq!(take(4, 1, 1, (4, 5), RunStatus::Closed), (vec![3, 4, 5, 6], vec![5]));
        assert_eq!(take(5, 1, 1, (9, 9), RunStatus::Closed), (vec![3, 4, 5, 6, 9], vec![5]));
        assert_eq!(take(1, 3, 2, (3, 4), RunStatus::Closed), (vec![4, 5, 6, 9], vec![3, 4, 5]));
        assert_eq!(take(4, 2, 1, (4, 5), RunStatus::Open), (vec![5, 6, 9], vec![3, 4, 5]));
    }
}
