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
    /// Of the first of them.
    offset: i64,
    pause: Duration,
    /// When they are to be read anew; `None` once that is under way.
    again: Option<Instant>,
    /// What is damaged, in one line.
    line: String,
}

impl Damages {
    /// Notes that the records from an offset on are damaged, as this line says. Returns how long they are left alone.
    pub(super) fn found(&mut self, partition: i32, input: Input, offset: i64, line: &str) -> Duration {
        let before = self.0.get(&(partition, input)).map(|damage| damage.pause);
        let pause = before.map_or(PAUSE.0, |before| (before * 4).min(PAUSE.1));
        let again = Some(Instant::now() + pause);
        self.0.insert((partition, input), Damage { offset, pause, again, line: line.to_owned() });
        pause
    }

    /// Notes that the record at an offset is whole. True: it was not before, or one before it was not. Those before the
    /// damaged ones, which may be read again, tell nothing.
    pub(super) fn whole(&mut self, partition: i32, input: Input, offset: i64) -> bool {
        let is_whole = self.0.get(&(partition, input)).is_some_and(|damage| damage.offset <= offset);
        is_whole && self.gone(partition, input)
    }

    /// Notes that what was damaged is no more there. True: something was.
    pub(super) fn gone(&mut self, partition: i32, input: Input) -> bool {
        self.0.remove(&(partition, input)).is_some()
    }

    /// Whether nothing may be taken from a queue.
    pub(super) fn hold(&self, partition: i32, input: Input) -> bool {
        self.0.get(&(partition, input)).is_some_and(|damage| damage.again.is_some())
    }

    /// What is damaged of a queue, as far as is known.
    pub(super) fn line(&self, partition: i32, input: Input) -> Option<&str> {
        self.0.get(&(partition, input)).map(|damage| damage.line.as_str())
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
        assert!(!damages.hold(3, input) && !damages.whole(3, input, 70) && !damages.gone(3, input));
        let pauses: Vec<u64> = (0..5)
            .map(|_| {
                let pause = damages.found(3, input, 70, "why").as_secs();
                assert!(damages.hold(3, input) && !damages.hold(3, other) && !damages.hold(4, input));
                assert!(!damages.are_due(3, input), "its pause has only begun");
                damages.begin();
                assert!(!damages.hold(3, input));
                assert!(!damages.whole(3, input, 69), "what is before it is read again");
                assert_eq!(damages.line(3, input), Some("why"), "it may be so still");
                pause
            })
            .collect();
        assert_eq!(pauses, [1, 4, 16, 60, 60]);
        assert!(damages.whole(3, input, 70) && !damages.whole(3, input, 71));
        assert_eq!(damages.found(3, input, 70, "why"), PAUSE.0);
        assert!(damages.gone(3, input) && !damages.gone(3, input));
        assert_eq!(damages.line(3, input), None);
    }
}
