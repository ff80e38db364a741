//! Dead letters as an operator looks for them, reads them and puts them back.

use super::DeadLetterRow;
use crate::domain::{Instant, Reason};

/// Where a record lay that was refused; no two lay in the same place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic, by name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Place {
    /// The topic's name on Kafka: places of a topic that was made again since have another here, `<topic>~<epoch>`.
    pub fn topic_now(&self) -> &str {
        self.topic.split('~').next().unwrap_or(&self.topic)
    }
}

impl std::fmt::Display for Place {
    /// As commands take it: `usage-events/3/120`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// Which dead letters are meant; what is not said fits all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LetterSelection {
    /// Refused for this reason.
    pub reason: Option<Reason>,
    /// From this topic, or from one of this name before it was made again.
    pub topic: Option<String>,
    /// The one from here.
    pub place: Option<Place>,
    /// About this customer, as far as could be told when it was refused.
    pub customer: Option<i64>,
    /// Refused at this moment or later.
    pub from: Option<Instant>,
    /// Refused before this moment.
    pub until: Option<Instant>,
    /// Only those that were put back, or only those that were not.
    pub put_back: Option<bool>,
}

/// A part of a list of dead letters, in the order in which they were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterPage {
    /// Whether the last refused one comes first.
    pub newest_first: bool,
    /// Those that come after this one.
    pub after: Option<Place>,
    /// No more than so many.
    pub limit: u32,
}

/// A dead letter in a list: all but its value and its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLetter {
    /// Where the record lay.
    pub place: Place,
    /// When it was refused.
    pub refused_at: Instant,
    /// When it was last put back, if it was.
    pub put_back_at: Option<Instant>,
    /// [`Reason::name`].
    pub reason: String,
    /// What is wrong, for a person.
    pub detail: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// How many bytes its value has.
    pub value_bytes: Option<i64>,
}

/// A dead letter, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeLetter {
    /// The partition that the record lay on.
    pub partition: i32,
    /// When it was refused.
    pub refused_at: Instant,
    /// When it was last put back, if it was.
    pub put_back_at: Option<Instant>,
    /// The record and its refusal.
    pub row: DeadLetterRow,
}
