//! A position that a topic does not hold, and how that is told.

use std::fmt;

use super::Input;

/// The offset to go on from is not in the topic: retention passed it, or the topic was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Of which input.
    pub input: Input,
    /// The topic, by name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset to go on from.
    pub next: i64,
    /// The first offset that the partition holds, and the one after its last; `None` when the brokers did not say.
    pub held: Option<(i64, i64)>,
}

impl Gap {
    /// Whether the partition does not hold the offset.
    pub fn is_real(&self) -> bool {
        self.held.is_none_or(|(first, end)| !(first..=end).contains(&self.next))
    }

    /// The command that lets the partition go on.
    pub fn way_out(&self) -> String {
        format!("headroom progress accept-gap --topic {} --partition {}", self.topic, self.partition)
    }
}

impl fmt::Display for Gap {
    /// What is missing, in one line, without the way out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { topic, partition, next, .. } = self;
        write!(f, "topic {topic}, partition {partition}: ")?;
        match self.held {
            None => write!(f, "offset {next}, where to go on, was not there"),
            Some((first, _)) if *next < first => {
                let (gone, first_gone) = (first - next, next);
                write!(f, "offset {next}, where to go on, is gone; the topic begins at {first}: ")?;
                write!(f, "{gone} records are gone, {first_gone} to {}", first - 1)
            }
            Some((first, end)) if *next > end => {
                write!(f, "offset {next}, where to go on, is not there yet; the topic ")?;
                held(f, first, end)?;
                write!(
                    f,
                    ": it was made again or cut off, and what it had from {next} on is gone, nobody can say how much"
                )
            }
            Some((first, end)) => {
                write!(f, "offset {next}, where to go on, was not there for a time; the topic ")?;
                held(f, first, end)?;
                write!(
                    f,
                    " now: it was made again or cut off, and what it had from {next} on then is gone, nobody can say how much"
                )
            }
        }
    }
}

fn held(f: &mut fmt::Formatter<'_>, first: i64, end: i64) -> fmt::Result {
    if first == end { write!(f, "is empty and goes on at {end}") } else { write!(f, "holds {first} to {}", end - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_missing_is_one_line() {
        let line = |next, held| {
            let gap = Gap { input: Input::Usage, topic: "u".to_owned(), partition: 2, next, held };
            (gap.is_real(), gap.to_string())
        };
        for (next, held, real, said) in [
            (3, Some((7, 10)), true, "is gone; the topic begins at 7: 4 records are gone, 3 to 6"),
            (11, Some((0, 10)), true, "is not there yet; the topic holds 0 to 9: it was made again or cut off, and"),
            (11, Some((0, 0)), true, "is not there yet; the topic is empty and goes on at 0: it was made again"),
            (11, Some((0, 20)), false, "was not there for a time; the topic holds 0 to 19 now: it was made again"),
            (10, Some((0, 10)), false, "was not there for a time"),
            (11, None, true, "where to go on, was not there"),
        ] {
            let (is_real, line) = line(next, held);
            assert_eq!(is_real, real, "{line}");
            assert!(line.starts_with("topic u, partition 2: offset ") && line.contains(said), "{line}");
        }
    }
}
