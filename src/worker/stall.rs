//! Partitions that have something to do and do not move, though the store answers: what only another start mends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::store::Offsets;

/// A partition pair as it is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) partition: i32,
    pub(super) committed: Offsets,
    /// Steps of catching up taken.
    pub(super) steps: u64,
    /// Records and bill runs yet to apply.
    pub(super) lag: i64,
}

/// How long a partition may be given back and not yet taken again and still be the one that stood. A worker that finds that
/// its commits come to nothing joins the group again, and must not look like another one for that.
const ABSENCE: Duration = Duration::from_secs(30);

/// Where a partition stands, with something to do.
#[derive(Debug)]
struct Stand {
    since: Instant,
    /// When it was looked at last.
    seen: Instant,
    look: Look,
}

/// Since when each partition has stood where it stands, with something to do.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<i32, Stand>);

impl Stalls {
    /// Looks at all partitions that are to move. Returns how long those have not moved that should have: those that
    /// are not named for a while, or have nothing to do, or have moved, begin anew.
    pub(super) fn look(&mut self, now: Instant, looks: &[Look]) -> BTreeMap<i32, Duration> {
        let mut stood = BTreeMap::new();
        self.0.retain(|_, stand| now.duration_since(stand.seen) <= ABSENCE);
        for look in looks {
            let before = self.0.remove(&look.partition);
            if look.lag == 0 {
                continue;
            }
            // Who takes a partition anew counts its steps anew.
            let stands =
                |then: &Look| then.committed == look.committed && look.steps <= then.steps && look.lag >= then.lag;
            let since = before.filter(|before| stands(&before.look)).map_or(now, |before| before.since);
            stood.insert(look.partition, now.duration_since(since));
            self.0.insert(look.partition, Stand { since, seen: now, look: *look });
        }
        stood
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
        let look =
            |partition, steps, usage, lag| Look { partition, committed: Offsets { usage, assignments: 0 }, steps, lag };
        let mut after = |seconds: u64, looks: &[Look]| {
            let found = stalls.look(begun + Duration::from_secs(seconds), looks);
            found.into_iter().map(|(partition, stood)| (partition, stood.as_secs())).collect::<Vec<_>>()
        };
        assert_eq!(after(0, &[look(1, 0, 5, 3), look(2, 0, 5, 3), look(3, 0, 5, 0)]), [(1, 0), (2, 0)]);
        // One stands while more comes, one moves, one has nothing to do.
        assert_eq!(after(10, &[look(1, 0, 5, 9), look(2, 0, 6, 9), look(3, 0, 5, 0)]), [(1, 10), (2, 0)]);
        // Work comes to one that had none: it has stood there for long, but not with something to do.
        assert_eq!(after(20, &[look(1, 0, 5, 9), look(2, 0, 6, 9), look(3, 0, 5, 1)]), [(1, 20), (2, 10), (3, 0)]);
        // A bill run is applied, one catches up a step, and one is given back.
        assert_eq!(after(30, &[look(1, 0, 5, 8), look(2, 1, 6, 9)]), [(1, 0), (2, 0)]);
        // It is taken again and stands where it stood; then it was another's for long.
        assert_eq!(after(40, &[look(2, 0, 6, 9), look(3, 0, 5, 1)]), [(2, 10), (3, 20)]);
        assert_eq!(after(50, &[look(2, 0, 6, 9)]), [(2, 20)]);
        assert_eq!(after(80, &[look(2, 0, 6, 9), look(3, 0, 5, 1)]), [(2, 50), (3, 0)]);
    }
}
