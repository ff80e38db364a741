//! Bytes of a Kafka record to facts of the domain, with every fault that a record can have by itself
//! (`domain.md sections 2 and 3`).
//!
//! `envelope` finds the CloudEvent in a record, `json` and `object` read JSON objects without copying them, `fields` judges
//! single values, `usage` and `reference` the types of the two topics, `refused` says whom a refused record is about. Faults that depend on what is known (`conflict`,
//! `finalized`) are found elsewhere.

mod envelope;
mod fields;
mod json;
mod object;
mod reference;
mod refused;
mod usage;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use crate::domain::{BillRun, Instant, Partitioner, Reason, Reference, Refusal};

pub(crate) use fields::shown;
pub use reference::decode as decode_assignment;
pub use refused::customer_of;
pub use usage::{Recorded, decode as decode_usage};

/// A Kafka record.
#[derive(Debug, Clone)]
pub struct Record<'a, H> {
    /// The partition it lies on.
    pub partition: i32,
    /// Its timestamp, in milliseconds since the Unix epoch, if it has one.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in their order: an iterator over names and values.
    pub headers: H,
}

/// What a deployment asks of its records.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How keys give partitions.
    pub partitioner: Partitioner,
    /// How many partitions each input has.
    pub partitions: i32,
    /// How long after the record's timestamp usage may begin.
    pub max_future: Duration,
    /// How long before it usage may have begun.
    pub retention: Duration,
}

/// What usage-events says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageFact<'a> {
    /// `usage.recorded`
    Recorded(Recorded<'a>),
    /// `usage.reversed`
    Reversed(Reversal<'a>),
}

/// A reversal, and the event that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversal<'a> {
    /// Whose usage.
    pub customer: i64,
    /// The event's source.
    pub source: Cow<'a, str>,
    /// The event's id.
    pub id: Cow<'a, str>,
    /// When the usage began.
    pub start: Instant,
}

/// What assignment-events says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentFact {
    /// A fact about a customer.
    Reference {
        /// Which customer.
        customer: i64,
        /// Its version.
        version: i64,
        /// What it says.
        fact: Reference,
    },
    /// A fact about a bill run.
    BillRun {
        /// Its version.
        version: i64,
        /// What it says.
        run: BillRun,
    },
}

impl Rules {
    /// Judges that a record has just this number as its key, and lies on the partition that the key gives.
    fn judge_key<H>(&self, record: &Record<'_, H>, field: &str, id: i64) -> Result<(), Refusal> {
        let mut digits = [0u8; 20];
        let expected = fields::decimal(id, &mut digits);
        if record.key != Some(expected) {
            let key = record.key.map_or("none".to_owned(), |key| fields::shown(&String::from_utf8_lossy(key)));
            return Err(Refusal::new(Reason::WrongKey, format!("key: {key} is not the {field}, {id}")));
        }
        let partition = self.partitioner.partition(expected, self.partitions);
        if partition != record.partition {
            let detail = format!(
                "key: {id} gives partition {partition} by {}, but the record lies on partition {}",
                self.partitioner.name(),
                record.partition
            );
            return Err(Refusal::new(Reason::WrongKey, detail));
        }
        Ok(())
    }
}
