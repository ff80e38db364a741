//! The task of one partition pair: batches in, one commit each, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Instant as Clock;

use tokio::sync::{Notify, mpsc};
use tracing::{error, warn};

use super::batch::{Batch, Input};
use super::metrics::Metrics;
use super::partition::Partition;
use crate::domain::{BillRunRow, Instant};
use crate::store::{CommitError, Offsets};

/// What a partition's task and the consumer thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) partition: i32,
    /// Batches handed over that are not committed yet.
    in_hand: AtomicUsize,
    committed: [AtomicI64; 2],
}

impl Shared {
    pub(super) fn new(partition: i32, offsets: Offsets) -> Shared {
        let committed = [AtomicI64::new(offsets.usage), AtomicI64::new(offsets.assignments)];
        Shared { partition, in_hand: AtomicUsize::new(0), committed }
    }

    /// How many batches the task has in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Acquire)
    }

    /// Notes that a batch is handed over.
    pub(super) fn hand_over(&self) {
        self.in_hand.fetch_add(1, Ordering::AcqRel);
    }

    /// The next offsets of what is committed.
    pub(super) fn committed(&self) -> Offsets {
        Offsets {
            usage: self.committed[Input::Usage as usize].load(Ordering::Acquire),
            assignments: self.committed[Input::Assignments as usize].load(Ordering::Acquire),
        }
    }

    fn note(&self, offsets: Offsets) {
        self.committed[Input::Usage as usize].store(offsets.usage, Ordering::Release);
        self.committed[Input::Assignments as usize].store(offsets.assignments, Ordering::Release);
    }
}

/// What a partition's task is given to do.
pub(super) enum Work {
    /// Records, to be committed together.
    Batch(Batch),
    /// The bill runs of all home partitions; those that are news are applied.
    BillRuns(Arc<Vec<BillRunRow>>),
}

/// Why a task ended before it was told to.
#[derive(Debug)]
pub(super) enum TaskEnd {
    /// The partition may be another's: leave the group, join again, and take what it gives.
    Rejoin,
    /// Going on would not help.
    Fatal(String),
}

/// A partition's task: works until its channel closes, then gives the partition back, with what it knows.
pub(super) async fn work(
    mut partition: Partition,
    mut queue: mpsc::Receiver<Work>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    ended: mpsc::UnboundedSender<TaskEnd>,
    raised: Arc<Notify>,
    batches: Arc<AtomicUsize>,
) -> Option<Partition> {
    while let Some(work) = queue.recv().await {
        let (mut batch, handed) = match work {
            Work::Batch(batch) => (batch, true),
            Work::BillRuns(runs) => (news(&partition, &runs), false),
        };
        if !batch.is_empty() {
            let began = Clock::now();
            match partition.apply(&mut batch).await {
                Ok(applied) => {
                    metrics.committed(&batch, &applied, began.elapsed(), now());
                    shared.note(partition.offsets());
                    if applied.alerts > 0 {
                        raised.notify_one();
                    }
                }
                Err(error) => {
                    let end = match error {
                        CommitError::Fenced(_) | CommitError::Unknown(_) => {
                            warn!("partition {}: {error}; leaving the group to join it again", shared.partition);
                            TaskEnd::Rejoin
                        }
                        CommitError::Store(_) => {
                            error!("partition {}: {error}", shared.partition);
                            TaskEnd::Fatal(format!("partition {}: {error}", shared.partition))
                        }
                    };
                    // Nobody listens only while the whole worker ends.
                    let _ = ended.send(end);
                    return None;
                }
            }
        }
        drop(batch);
        if handed {
            batches.fetch_sub(1, Ordering::AcqRel);
            shared.in_hand.fetch_sub(1, Ordering::AcqRel);
        }
    }
    Some(partition)
}

/// A batch of the bill runs that the partition has not applied in these versions.
fn news(partition: &Partition, runs: &[BillRunRow]) -> Batch {
    let mut batch = Batch::new(partition.number());
    for row in runs {
        if partition.bill_runs().get(row.run.id).is_none_or(|known| known.version < row.version) {
            batch.push_bill_run(row.version, row.run);
        }
    }
    batch
}

/// The wall clock.
pub(super) fn now() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
