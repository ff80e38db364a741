//! When a balance is low (`domain.md section 7`).

use serde::{Deserialize, Serialize};

use super::quantity::Quantity;

/// A mark on the way down of a bucket's remaining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Threshold {
    /// Holds while remaining x 100 <= percent x allowance. May pass 100.
    RemainingPercent(Quantity),
    /// Holds while remaining <= this.
    Remaining(Quantity),
}

impl Threshold {
    /// Whether it holds for a bucket with this much left of this allowance.
    pub fn holds(self, remaining: Quantity, allowance: Quantity) -> bool {
        let wide = |q: Quantity| i128::from(q.millionths());
        match self {
            // Both sides in millionths of millionths: percent is in millionths, so remaining is scaled as well.
            Threshold::RemainingPercent(percent) => {
                wide(remaining) * 100 * 1_000_000 <= wide(percent) * wide(allowance)
            }
            Threshold::Remaining(mark) => remaining <= mark,
        }
    }

    /// The remaining at and below which it holds, in units in which thresholds of one bucket can be compared.
    fn height(self, allowance: Quantity) -> i128 {
        let wide = |q: Quantity| i128::from(q.millionths());
        match self {
            Threshold::RemainingPercent(percent) => wide(percent) * wide(allowance),
            Threshold::Remaining(mark) => wide(mark) * 100 * 1_000_000,
        }
    }
}

/// A list as it takes effect: in its order, without repeats.
pub fn effective(list: &[Threshold]) -> Vec<Threshold> {
    let mut distinct = Vec::with_capacity(list.len());
    for threshold in list {
        if !distinct.contains(threshold) {
            distinct.push(*threshold);
        }
    }
    distinct
}

/// What became of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Turn {
    /// It began to hold.
    Crossed,
    /// It ceased to hold.
    Recovered,
}

impl Turn {
    /// `crossed` or `recovered`.
    pub const fn name(self) -> &'static str {
        match self {
            Turn::Crossed => "crossed",
            Turn::Recovered => "recovered",
        }
    }
}

/// The thresholds of an effective `list` that turn between two states of a bucket, each (remaining, allowance), in the
/// order in which their alerts are published: recovered from the lowest to the highest, crossed from the highest to the
/// lowest, equal ones in the order of the list.
pub fn turns(list: &[Threshold], before: (Quantity, Quantity), after: (Quantity, Quantity)) -> Vec<(Turn, Threshold)> {
    let mut turned: Vec<(Turn, Threshold)> = Vec::new();
    for threshold in list {
        match (threshold.holds(before.0, before.1), threshold.holds(after.0, after.1)) {
            (false, true) => turned.push((Turn::Crossed, *threshold)),
            (true, false) => turned.push((Turn::Recovered, *threshold)),
            _ => {}
        }
    }
    turned.sort_by_key(|(turn, threshold)| match turn {
        Turn::Recovered => (0, threshold.height(after.1)),
        Turn::Crossed => (1, -threshold.height(after.1)),
    });
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(units: i64) -> Quantity {
        Quantity::from_millionths(units * 1_000_000)
    }

    #[test]
    fn a_percentage_is_compared_exactly() {
        let twenty = Threshold::RemainingPercent(q(20));
        assert!(twenty.holds(q(100), q(500)));
        assert!(!twenty.holds(Quantity::from_millionths(100_000_001), q(500)));
        let most = Quantity::from_millionths(i64::MAX);
        assert!(Threshold::RemainingPercent(most).holds(most, most));
    }

    #[test]
    fn crossed_ones_come_from_the_highest_down_and_recovered_ones_the_other_way() {
        let (zero, half, fifty) =
            (Threshold::Remaining(q(0)), Threshold::RemainingPercent(q(50)), Threshold::Remaining(q(50)));
        let list = [zero, fifty, half];
        let down = turns(&list, (q(100), q(100)), (q(0), q(100)));
        assert_eq!(down, [(Turn::Crossed, fifty), (Turn::Crossed, half), (Turn::Crossed, zero)]);
        let up = turns(&list, (q(0), q(100)), (q(100), q(100)));
        assert_eq!(up, [(Turn::Recovered, zero), (Turn::Recovered, fifty), (Turn::Recovered, half)]);
    }

    #[test]
    fn repeats_count_once() {
        assert_eq!(effective(&[Threshold::Remaining(q(1)), Threshold::Remaining(q(1))]).len(), 1);
    }
}
