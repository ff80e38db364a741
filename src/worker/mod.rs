//! The worker: Kafka to balances. A consumer thread, a task for each partition pair, one transaction for each batch.
//!
//! `batch` holds records as they come, `partition` makes commits of them (`usage` says what is new, `draw` what it
//! draws, `replay` what known usage draws then, `behind` how that goes on while others are served, `runs` what bill runs
//! do), `task` runs one partition, `intake` stands between the consumer thread and the tasks, `stop` and `stall` are what
//! stands still, `watch` looks on, `audit` and `statistics` work beside it. This module starts it all and watches over it.

mod accounts;
mod alerts;
mod audit;
mod batch;
mod behind;
mod cache;
mod draw;
mod ends;
mod filling;
mod intake;
mod limits;
mod metrics;
mod outcomes;
mod partition;
mod patience;
mod portion;
mod refold;
mod repair;
mod replay;
mod runs;
mod spares;
mod stall;
mod statistics;
mod stop;
mod task;
mod usage;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

pub use batch::{Batch, Input, Parts};
pub use limits::BatchLimits;
pub use outcomes::Outcomes;
pub use partition::{Applied, Context, Partition};
pub use refold::{Differences, refold};

use crate::stream::{self, Control, Notices};
use crate::telemetry::metrics::BROKER;
use crate::telemetry::{Health, Reporter};
use audit::Audits;
use intake::{Intake, Owned};
use metrics::Metrics;
use task::{TaskEnd, Tools};
use watch::Watch;

/// How a worker is set up.
pub struct Options {
    /// What its partitions share.
    pub context: Arc<Context>,
    /// Limits of its batches.
    pub limits: BatchLimits,
    /// Its way to Kafka.
    pub stream: stream::Options,
    /// How long a partition may stand still with something to do before it hangs.
    pub stall_after: Duration,
    /// Customers that are audited in a second; none at 0.
    pub audit_per_second: u32,
    /// Told when alerts were raised, for a relay in the same process.
    pub raised: Arc<Notify>,
    /// Where it says how it is.
    pub health: Health,
}

/// Runs until `control` stops it or going on would not help; the error is one line.
pub async fn run(options: Options, control: Control) -> Result<(), String> {
    let Options { context, limits, stream, stall_after, audit_per_second, raised, health } = options;
    let owned = Owned::default();
    let metrics = Arc::new(Metrics::new(&context.topics));
    let bill_runs = Arc::new(Notify::new());
    let (ended, mut ends) = mpsc::unbounded_channel();
    let tools = Tools {
        metrics: metrics.clone(),
        ended,
        raised,
        bill_runs: bill_runs.clone(),
        batches: Arc::default(),
        spares: Arc::default(),
        control: control.clone(),
    };
    let partitions = context.partitions;
    let intake = Intake::new(context.clone(), limits, stream.clone(), owned.clone(), tools);
    let notices: Arc<dyn Notices> = Arc::new(Told(health.reporter(BROKER)));
    let (thread_stream, thread_control) = (stream.clone(), control.clone());
    let mut thread = tokio::task::spawn_blocking(move || {
        stream::consume(&thread_stream, partitions, intake, &thread_control, &notices)
            .map_err(|error| error.to_string())
    });
    let mut auditing = tokio::spawn(Audits::new(context.clone(), owned.clone()).run(audit_per_second));
    let mut keeping = tokio::spawn(statistics::keep(context.clone()));
    let mut watching = tokio::spawn(
        Watch { context, stream, control: control.clone(), owned, bill_runs, metrics, stall_after, health }.run(),
    );
    let result = loop {
        tokio::select! {
            end = ends.recv() => match end {
                Some(TaskEnd::Rejoin) => control.rejoin(),
                Some(TaskEnd::Fatal(line)) => {
                    control.stop();
                    break Err(line);
                }
                None => {}
            },
            // None of these ends but by a panic.
            ended = &mut watching => {
                control.stop();
                break Err(format!("watching the partitions failed: {}", panic_of(ended)));
            }
            ended = &mut keeping => {
                control.stop();
                break Err(format!("keeping statistics failed: {}", panic_of(ended)));
            }
            ended = &mut auditing, if audit_per_second > 0 => {
                control.stop();
                break Err(format!("auditing failed: {}", panic_of(ended)));
            }
            ended = &mut thread => {
                break ended.unwrap_or_else(|panic| Err(format!("the consumer thread failed: {panic}")));
            }
        }
    };
    watching.abort();
    auditing.abort();
    keeping.abort();
    result
}

/// Why a task ended that does not end.
fn panic_of(ended: Result<(), tokio::task::JoinError>) -> String {
    ended.map_or_else(|panic| panic.to_string(), |()| "it ended".to_owned())
}

/// What the consumer thread says of the brokers, told to health.
struct Told(Reporter);

impl Notices for Told {
    fn broker_away(&self, why: &str) {
        self.0.fault(why);
    }

    fn broker_back(&self) {
        self.0.ok();
    }
}
