//! Beside the worker's way: lag, and bill runs on their way from their home partitions to all others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::gauge;
use tracing::debug;

use super::batch::Input;
use super::intake::{Owned, Watched, lock};
use super::metrics::Metrics;
use super::partition::Context;
use super::task::Work;
use crate::domain::BillRunRow;
use crate::stream;
use crate::telemetry::{Health, names};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Watches until it is aborted.
pub(super) async fn watch(
    context: Arc<Context>,
    stream: stream::Options,
    owned: Owned,
    metrics: Arc<Metrics>,
    health: Health,
) {
    let mut shown: BTreeMap<i32, ()> = BTreeMap::new();
    let mut ends = stream::EndOffsets::new(stream);
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let watched: BTreeMap<i32, Watched> = lock(&owned).clone();
        let runs = match context.store.home_bill_runs().await {
            Ok(runs) => {
                health.ok("store");
                Arc::new(runs.into_iter().map(|run| run.row).collect::<Vec<BillRunRow>>())
            }
            Err(error) => {
                health.fault("store", &error.to_string());
                continue;
            }
        };
        for one in watched.values() {
            // A full queue means a busy task; it is told again next time.
            let _ = one.queue.try_send(Work::BillRuns(runs.clone()));
        }
        let partitions: Vec<i32> = watched.keys().copied().collect();
        let found = tokio::task::spawn_blocking(move || {
            let found = ends.get(&partitions);
            (ends, found)
        });
        let Ok((returned, found)) = found.await else { return };
        ends = returned;
        match found {
            Ok(found) => show(&watched, &found, &metrics),
            Err(error) => debug!("lag is not known now: {error}"),
        }
        shown.retain(|partition, ()| {
            let gone = !watched.contains_key(partition);
            if gone {
                metrics.lag(Input::Usage, *partition).set(0);
                metrics.lag(Input::Assignments, *partition).set(0);
            }
            !gone
        });
        shown.extend(watched.keys().map(|partition| (*partition, ())));
        gauge!(names::HELD).set(0);
    }
}
