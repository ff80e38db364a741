//! The worker's metrics: counted from commits only, once a batch (`domain.md section 9`).

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::batch::{Batch, Input};
use super::partition::Applied;
use crate::domain::{Instant, Outcome, Reason};
use crate::telemetry::metrics as names;

/// The upper bounds, in milliseconds, between which records are as fresh as one another for the histogram.
const FRESHNESS_BOUNDS: [i64; 20] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    30_000,
    60_000,
    300_000,
    1_800_000,
    3_600_000,
    86_400_000,
    i64::MAX,
];

/// Handles made once, so that counting costs no look-up.
pub(super) struct Metrics {
    topics: [String; 2],
    records: [[Counter; Outcome::ALL.len()]; 2],
    dead_letters: [[Counter; Reason::ALL.len()]; 2],
    replays: Counter,
    replayed_events: Counter,
    commit_duration: Histogram,
    commit_records: Histogram,
    freshness: Histogram,
    /// Usage held and not reversed.
    pub(super) held: Gauge,
    /// Customers behind.
    pub(super) behind: Gauge,
}

impl Metrics {
    pub(super) fn new(topics: &[String; 2]) -> Metrics {
        let of_topic = |topic: &String| {
            Outcome::ALL.map(|outcome| counter!(names::RECORDS, "topic" => topic.clone(), "outcome" => outcome.name()))
        };
        let refused = |topic: &String| {
            Reason::ALL.map(|reason| counter!(names::DEAD_LETTERS, "topic" => topic.clone(), "reason" => reason.name()))
        };
        Metrics {
            topics: topics.clone(),
            records: [of_topic(&topics[0]), of_topic(&topics[1])],
            dead_letters: [refused(&topics[0]), refused(&topics[1])],
            replays: counter!(names::REPLAYS),
            replayed_events: counter!(names::REPLAYED_EVENTS),
            commit_duration: histogram!(names::COMMIT_DURATION),
            commit_records: histogram!(names::COMMIT_RECORDS),
            freshness: histogram!(names::FRESHNESS),
            held: gauge!(names::HELD),
            behind: gauge!(names::BEHIND),
        }
    }

    /// Counts a batch that is committed.
    pub(super) fn committed(&self, batch: &Batch, applied: &Applied, took: Duration, now: Instant) {
        for input in [Input::Usage, Input::Assignments] {
            for outcome in Outcome::ALL {
                let count = applied.outcomes.count(input, outcome);
                if count > 0 {
                    self.records[input as usize][outcome as usize].increment(count);
                }
            }
        }
        for (input, reason) in applied.outcomes.reasons() {
            self.dead_letters[*input as usize][*reason as usize].increment(1);
        }
        self.replays.increment(applied.replays);
        self.replayed_events.increment(applied.replayed_events);
        self.commit_duration.record(took);
        self.commit_records.record(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        self.fresh(batch, now);
    }

    /// Records how old the records were, grouped, since a histogram call for each would cost more than the rest.
    fn fresh(&self, batch: &Batch, now: Instant) {
        let now = now.micros() / 1_000;
        let mut groups = [(0usize, 0i64); FRESHNESS_BOUNDS.len()];
        for timestamp in batch.timestamps() {
            let age = now.saturating_sub(timestamp).max(0);
            let group = &mut groups[FRESHNESS_BOUNDS.partition_point(|bound| *bound < age)];
            group.0 += 1;
            group.1 = group.1.saturating_add(age);
        }
        for (count, sum) in groups.into_iter().filter(|(count, _)| *count > 0) {
            let mean = Duration::from_millis(sum.unsigned_abs()).div_f64(count as f64);
            self.freshness.record_many(mean.as_secs_f64(), count);
        }
    }

    /// The gauge of whether a partition of a topic is not read.
    pub(super) fn stopped(&self, input: Input, partition: i32) -> Gauge {
        let topic = self.topics[input as usize].clone();
        gauge!(names::STOPPED, "topic" => topic, "partition" => partition.to_string())
    }

    /// The gauge of a partition's lag.
    pub(super) fn lag(&self, input: Input, partition: i32) -> Gauge {
        let topic = self.topics[input as usize].clone();
        gauge!(names::LAG, "topic" => topic, "partition" => partition.to_string())
    }
}
