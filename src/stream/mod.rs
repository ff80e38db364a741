//! Kafka, by librdkafka: the two input topics to a [`Sink`], alerts to their topic and back, and the topics themselves.
//!
//! Everything here blocks its thread (only [`topics::create`] is async) and knows nothing of the store, of accounts or
//! of what a record holds. Positions come from the caller: no offset is ever taken from Kafka's group, nor by default.

pub mod alerts;
mod client;
mod consumer;
mod control;
mod damages;
pub mod embedded;
mod ends;
pub mod feeder;
mod gap;
mod group;
mod options;
mod probe;
pub mod producer;
pub mod record;
pub mod sender;
mod sink;
pub mod topics;
mod turns;
mod watchdog;

pub use consumer::consume;
pub use control::Control;
pub use ends::{Ends, Told};
pub use gap::Gap;
pub use options::{FetchAhead, Options};
pub use probe::Probe;
pub use sink::{Sink, Start, Taken};

/// Which of a partition pair's two topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// `usage-events`, whatever its name is.
    Usage,
    /// `assignment-events`, whatever its name is.
    Assignments,
}

/// Told how the brokers are, so that health can say it.
pub trait Notices: Send + Sync + 'static {
    /// Nothing can be consumed for now, and why; librdkafka goes on trying. May be told again with another reason.
    fn broker_away(&self, why: &str);
    /// It can again.
    fn broker_back(&self);
}

/// What can go wrong with Kafka, in one line for a person. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A property or its value is wrong; trying again does not help.
    #[error("kafka.properties: {0}")]
    Config(String),
    /// No broker answers, or not in time; trying again may help.
    #[error("kafka: {0}")]
    Away(String),
    /// A topic is not there, or is not as it must be.
    #[error("{0}")]
    Topic(String),
    /// Trying again does not help.
    #[error("kafka: {0}")]
    Failed(String),
}
