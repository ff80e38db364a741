//! Partitions that have something to do and do not move, though the store answers: what only another start mends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::store::Offsets;

/// A partition pair as it is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) partition: i32,
    /// At which it was taken.
    pub(super) epoch: i64,
    pub(super) committed: Offsets,
    /// Steps of catching up taken.
    pub(super) steps: u64,
    /// Records and bill runs yet to apply.
    pub(super) lag: i64,
}

/// Since when each partition has stood where it stands, with something to do.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<i32, (Instant, Look)>);

impl Stalls {
    /// Looks at all partitions that are to move. Returns how long those have not moved that should have: those that
    /// are not named, or have nothing to do, or have moved, begin anew.
    pub(super) fn look(&mut self, now: Instant, looks: &[Look]) -> BTreeMap<i32, Duration> {
        let before = std::mem::take(&mut self.0);
        for look in looks.iter().filter(|look| look.lag > 0) {
            let stands = |then: &Look| {
                let moved = then.committed != look.committed || then.steps != look.steps || look.lag < then.lag;
                then.epoch == look.epoch && !moved
            };
            let since = before.get(&look.partition).filter(|(_, then)| stands(then)).map_or(now, |(since, _)| *since);
            self.0.insert(look.partition, (since, *look));
        }
        self.0.iter().map(|(partition, (since, _))| (*partition, now.duration_since(*since))).collect()
    }

    /// None could move.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_should_move_and_does_not_stands_still() {
        let begun = Instant::now();
        let mut stalls = Stalls::default();
        let look = |partition, epoch, usage, lag| Look {
            partition,
            epoch,
            committed: Offsets { usage, assignments: 0 },
            steps: 0,
            lag,
        };
        let mut after = |seconds: u64, looks: &[Look]| {
            let found = stalls.look(begun + Duration::from_secs(seconds), looks);
            found.into_iter().map(|(partition, stood)| (partition, stood.as_secs())).collect::<Vec<_>>()
        };
        assert_eq!(after(0, &[look(1, 1, 5, 3), look(2, 1, 5, 3), look(3, 1, 5, 0)]), [(1, 0), (2, 0)]);
        // One stands while more comes, one moves, one has nothing to do.
        assert_eq!(after(10, &[look(1, 1, 5, 9), look(2, 1, 6, 9), look(3, 1, 5, 0)]), [(1, 10), (2, 0)]);
        // Work comes to one that had none: it has stood there for long, but not with something to do.
        assert_eq!(after(20, &[look(1, 1, 5, 9), look(2, 1, 6, 9), look(3, 1, 5, 1)]), [(1, 20), (2, 10), (3, 0)]);
        // A bill run is applied, a partition is taken anew, and one is another's for a time.
        assert_eq!(after(30, &[look(1, 1, 5, 8), look(2, 2, 6, 9)]), [(1, 0), (2, 0)]);
        assert_eq!(after(40, &[look(3, 1, 5, 1)]), [(3, 0)]);
    }
}
