//! The context of the group's consumer: it notes what the group decides, for the consumer's own loop to carry out.
//!
//! A rebalance is carried out outside of librdkafka's callback, which its event interface allows: so the sink lives in
//! the loop alone, and each partition gets its own queue before its first record is fetched. The group waits for the
//! answer, `assign` or `unassign`, for `max.poll.interval.ms`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::Complaints;
use super::{Options, StreamError};

/// What the group decided. With the eager protocol each list is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// These partitions of these topics are ours.
    Assigned(Vec<(String, i32)>),
    /// None is.
    Revoked,
}

/// The context of the group's consumer.
#[derive(Default)]
pub(super) struct Group {
    pub(super) complaints: Complaints,
    decisions: Mutex<VecDeque<Decision>>,
    leaving: AtomicBool,
}

impl Group {
    /// The oldest decision that was not carried out.
    pub(super) fn decision(&self) -> Option<Decision> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on decisions are answered here, as nobody carries them out: closing waits for the answers.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.complaints.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.leaving.load(Ordering::Acquire) {
            if let Err(error) = consumer.unassign() {
                tracing::warn!("leaving the group: {error}");
            }
            return;
        }
        let decision = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Decision::Assigned(list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect())
        } else {
            Decision::Revoked
        };
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).push_back(decision);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        // They are for lag displays only.
        if let Err(error) = result {
            tracing::debug!("offsets not told to Kafka: {error}");
        }
    }
}

/// The partition pairs of an assignment. Both topics must come with the same partitions.
pub(super) fn pairs(options: &Options, assigned: &[(String, i32)]) -> Result<Vec<i32>, StreamError> {
    let of = |topic: &str| -> BTreeSet<i32> {
        assigned.iter().filter(|(name, _)| name == topic).map(|(_, partition)| *partition).collect()
    };
    let (usage, assignments) = (of(&options.usage_topic), of(&options.assignments_topic));
    if usage != assignments {
        return Err(StreamError::Topic(format!(
            "group {} gave partitions {usage:?} of {} with {assignments:?} of {}: both topics need the same number of \
             partitions, and all members of the group the same two topics",
            options.group, options.usage_topic, options.assignments_topic
        )));
    }
    Ok(usage.into_iter().collect())
}
