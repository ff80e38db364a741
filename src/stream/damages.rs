//! Records that lie damaged on the broker's disk, or were damaged on the way: read anew until they are whole.
//!
//! librdkafka says of them once that they are, and then goes on behind them, or from anywhere. So from then on nothing is taken
//! from their partition's queue, and after a pause they are asked for by a new client, which begins where the sink says.
//! Meanwhile all other partitions go on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Input;

/// The pause before that, four times as long each time up to the second: joining the group again holds all partitions up for
/// a moment.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Partitions of topics whose next records were damaged when they were read last.
#[derive(Debug, Default)]
pub(super) struct Damages(BTreeMap<(i32, Input), Damage>);

#[derive(Debug)]
struct Damage {
    pause: Duration,
    /// When they are to be read anew; `None` once that is under way.
    again: Option<Instant>,
    /// What is damaged, in one line.
    line: String,
}

impl Damages {
    /// Notes that the next records are damaged, as this line says. Returns how long they are left alone.
    pub(super) fn found(&mut self, partition: i32, input: Input, line: &str) -> Duration {
        let before = self.0.get(&(partition, input)).map(|damage| damage.pause);
        let pause = before.map_or(PAUSE.0, |before| (before * 4).min(PAUSE.1));
        self.0.insert((partition, input), Damage { pause, again: Some(Instant::now() + pause), line: line.to_owned() });
        pause
    }

    /// Notes that what comes next is whole, or gone. True: it was not before.
    pub(super) fn mended(&mut self, partition: i32, input: Input) -> bool {
        self.0.remove(&(partition, input)).is_some()
    }

    /// Why nothing may be taken from a queue, if so.
    pub(super) fn hold(&self, partition: i32, input: Input) -> Option<&str> {
        self.0.get(&(partition, input)).filter(|damage| damage.again.is_some()).map(|damage| damage.line.as_str())
    }

    /// Whether it is time to read those of a queue anew.
    pub(super) fn are_due(&self, partition: i32, input: Input) -> bool {
        let again = self.0.get(&(partition, input)).and_then(|damage| damage.again);
        again.is_some_and(|again| again <= Instant::now())
    }

    /// Reads all of them anew.
    pub(super) fn begin(&mut self) {
        self.0.values_mut().for_each(|damage| damage.again = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_left_alone_ever_longer_until_it_is_whole() {
        let mut damages = Damages::default();
        let (input, other) = (Input::Usage, Input::Assignments);
        assert!(damages.hold(3, input).is_none() && !damages.mended(3, input));
        let pauses: Vec<u64> = (0..5)
            .map(|_| {
                let pause = damages.found(3, input, "why").as_secs();
                assert_eq!(damages.hold(3, input), Some("why"));
                assert!(damages.hold(3, other).is_none() && damages.hold(4, input).is_none());
                assert!(!damages.are_due(3, input), "its pause has only begun");
                damages.begin();
                assert!(damages.hold(3, input).is_none());
                pause
            })
            .collect();
        assert_eq!(pauses, [1, 4, 16, 60, 60]);
        assert!(damages.mended(3, input) && !damages.mended(3, input));
        assert_eq!(damages.found(3, input, "why"), PAUSE.0);
    }
}
