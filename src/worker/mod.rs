//! The worker: Kafka to balances. A consumer thread, a task for each partition pair, one transaction for each batch.
//!
//! `batch` holds records as they come, `partition` makes commits of them (`usage` says what is new, `draw` what it
//! draws), `task` runs one partition, `intake` stands between the consumer thread and the tasks. This module starts it
//! all and watches over it.

mod alerts;
mod batch;
mod cache;
mod draw;
mod intake;
mod metrics;
mod partition;
mod task;
mod usage;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::error;

pub use batch::{Batch, Input, Outcomes};
pub use intake::BatchLimits;
pub use partition::{Applied, Context, Partition};

use crate::events::Rules;
use crate::stream::{self, Control};
use crate::telemetry::Health;
use intake::{Intake, Owned};
use metrics::Metrics;
use task::TaskEnd;

/// How a worker is set up.
pub struct Options {
    /// What its partitions share.
    pub context: Arc<Context>,
    /// What a record must keep.
    pub rules: Rules,
    /// Limits of its batches.
    pub limits: BatchLimits,
    /// Its way to Kafka.
    pub stream: stream::Options,
    /// Told when alerts were raised, for a relay in the same process.
    pub raised: Arc<Notify>,
    /// Where it says how it is.
    pub health: Health,
}

/// Runs until `control` stops it or going on would not help; the error is one line.
pub async fn run(options: Options, control: Control) -> Result<(), String> {
    let owned = Owned::default();
    let metrics = Arc::new(Metrics::new(&options.context.topics));
    let (ended, mut ends) = mpsc::unbounded_channel();
    let intake = Intake::new(
        options.context.clone(),
        options.rules,
        options.limits,
        metrics.clone(),
        tokio::runtime::Handle::current(),
        owned.clone(),
        ended,
        options.raised,
    );
    let (stream_options, thread_control) = (options.stream.clone(), control.clone());
    let notices = options.health.clone();
    let mut thread = tokio::task::spawn_blocking(move || {
        stream::consume(&stream_options, intake, &notices, &thread_control).map_err(|error| error.to_string())
    });
    let watching = tokio::spawn(watch::watch(options.context, options.stream, owned, metrics, options.health));
    let result = loop {
        tokio::select! {
            end = ends.recv() => match end {
                Some(TaskEnd::Rejoin) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    control.rejoin();
                }
                Some(TaskEnd::Fatal(line)) => {
                    error!("{line}");
                    control.stop();
                    break Err(line);
                }
                None => {}
            },
            ended = &mut thread => break ended.unwrap_or_else(|panic| Err(format!("the consumer thread failed: {panic}"))),
        }
    };
    watching.abort();
    result
}
