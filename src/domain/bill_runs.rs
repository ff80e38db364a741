//! The bill runs that a partition has applied (`domain.md sections 3 and 6`).

use super::account::Taken;
use super::facts::{BillRun, RunStatus};
use super::image::BillRunRow;

/// Bill runs by their ids.
#[derive(Debug, Clone, Default)]
pub struct BillRuns {
    rows: Vec<BillRunRow>,
}

/// What became of a fact about a bill run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunTaken {
    /// As any fact with a version.
    Fact(Taken),
    /// The run is finalized, and the fact is a later version of it.
    Finalized,
}

impl BillRuns {
    /// Those a partition has applied so far.
    pub fn restore(mut rows: Vec<BillRunRow>) -> BillRuns {
        rows.sort_unstable_by_key(|row| row.run.id);
        BillRuns { rows }
    }

    /// The run of this id as applied.
    pub fn get(&self, id: i64) -> Option<&BillRunRow> {
        self.rows.binary_search_by_key(&id, |row| row.run.id).ok().map(|at| &self.rows[at])
    }

    /// The id and version of each run, by id.
    pub fn versions(&self) -> impl Iterator<Item = (i64, i64)> {
        self.rows.iter().map(|row| (row.run.id, row.version))
    }

    /// Takes a fact about a run.
    pub fn take(&mut self, version: i64, run: BillRun) -> RunTaken {
        let row = BillRunRow { version, run };
        match self.rows.binary_search_by_key(&run.id, |row| row.run.id) {
            Err(at) => {
                self.rows.insert(at, row);
                RunTaken::Fact(Taken::Applied)
            }
            Ok(at) => {
                let known = &mut self.rows[at];
                if version > known.version && known.run.status == RunStatus::Finalized {
                    return RunTaken::Finalized;
                }
                let taken = Taken::judge(Some(known.version), version, || known.run == run);
                if taken == Taken::Applied {
                    *known = row;
                }
                RunTaken::Fact(taken)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Date;

    fn run(status: RunStatus) -> BillRun {
        let day = Date::from_days(20_000);
        BillRun {
            id: 7,
            billing_cycle: 1,
            period_start: day,
            period_end: day,
            usage_from: day,
            usage_until: day,
            status,
        }
    }

    #[test]
    fn a_finalized_run_takes_no_later_version() {
        let mut runs = BillRuns::default();
        assert_eq!(runs.take(3, run(RunStatus::Finalized)), RunTaken::Fact(Taken::Applied));
        assert_eq!(runs.take(3, run(RunStatus::Finalized)), RunTaken::Fact(Taken::Duplicate));
        assert_eq!(runs.take(3, run(RunStatus::Open)), RunTaken::Fact(Taken::Conflict));
        assert_eq!(runs.take(2, run(RunStatus::Open)), RunTaken::Fact(Taken::PassedOver));
        assert_eq!(runs.take(4, run(RunStatus::Open)), RunTaken::Finalized);
    }
}
