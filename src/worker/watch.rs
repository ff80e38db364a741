//! Beside the worker's way: lag, and bill runs on their way from their home partitions to all others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::batch::Input;
use super::intake::{Owned, Watched, lock};
use super::metrics::Metrics;
use super::partition::Context;
use super::task::Work;
use crate::domain::{BillRunRow, Instant};
use crate::store::Offsets;
use crate::stream::{self, Ends, Start};
use crate::telemetry::{Health, metrics as names};

/// How often it looks, unless it is told of a bill run.
const PERIOD: Duration = Duration::from_secs(1);

/// What is watched, and who is told.
pub(super) struct Watch {
    pub(super) context: Arc<Context>,
    pub(super) stream: stream::Options,
    pub(super) owned: Owned,
    /// Told when a bill run came in here.
    pub(super) bill_runs: Arc<Notify>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Health,
}

impl Watch {
    /// Watches until it is aborted.
    pub(super) async fn run(self) {
        let mut shown: BTreeSet<i32> = BTreeSet::new();
        let mut ends: Option<Ends> = None;
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let on_time = tokio::select! {
                _ = period.tick() => true,
                () = self.bill_runs.notified() => false,
            };
            let watched: BTreeMap<i32, Watched> = lock(&self.owned).clone();
            let runs = match self.context.store.home_bill_runs().await {
                Ok(runs) => {
                    self.health.ok(names::STORE);
                    Arc::new(runs.into_iter().map(|run| run.row).collect::<Vec<BillRunRow>>())
                }
                Err(error) => {
                    self.health.fault(names::STORE, &error.to_string());
                    continue;
                }
            };
            for one in watched.values() {
                // A full queue means a busy task; it is told again next time.
                let _ = one.queue.try_send(Work::BillRuns(runs.clone()));
            }
            match self.context.store.repair_requests().await {
                Ok(requests) => {
                    for request in requests {
                        if let Some(one) = watched.get(&request.partition) {
                            let _ = one.queue.try_send(Work::Repair(request));
                        }
                    }
                }
                Err(error) => self.health.fault(names::STORE, &error.to_string()),
            }
            self.metrics.behind.set(watched.values().map(|one| one.shared.behind()).sum::<usize>() as f64);
            self.metrics.held.set(watched.values().map(|one| one.shared.held()).sum::<i64>() as f64);
            let partitions: Vec<i32> = watched.keys().copied().collect();
            let asked_at = (self.context.now)();
            let options = self.stream.clone();
            let asking = tokio::task::spawn_blocking(move || {
                let asked = ends.map_or_else(|| Ends::new(&options), Ok);
                asked.and_then(|ends| ends.of(&partitions).map(|found| (ends, found)))
            });
            ends = match asking.await {
                Ok(Ok((ends, found))) => {
                    let idle = self.show(&watched, &found, &runs, asked_at);
                    if on_time && let Err(error) = self.context.store.note_applied(&idle, asked_at).await {
                        self.health.fault(names::STORE, &error.to_string());
                    }
                    Some(ends)
                }
                Ok(Err(error)) => {
                    debug!("lag is not known now: {error}");
                    None
                }
                Err(_) => None,
            };
            for partition in shown.iter().filter(|partition| !watched.contains_key(partition)) {
                self.metrics.lag(Input::Usage, *partition).set(0.0);
                self.metrics.lag(Input::Assignments, *partition).set(0.0);
            }
            shown = watched.into_keys().collect();
        }
    }

    /// Sets the gauges of lag: records up to where a read_committed reader is at the end, and bill runs yet to apply.
    /// Gives the partitions, each with its epoch, that have applied all that there was at `asked_at`; the others are told
    /// how far that is.
    fn show(
        &self,
        watched: &BTreeMap<i32, Watched>,
        ends: &[Start],
        runs: &[BillRunRow],
        asked_at: Instant,
    ) -> Vec<(i32, i64)> {
        let mut idle = Vec::new();
        for end in ends {
            let Some(one) = watched.get(&end.partition) else { continue };
            let committed = one.shared.committed();
            let reached = *lock(&one.ends);
            let lag = |input: Input, committed: i64, end: i64| {
                // What lies between the last record and the end there was no record, and a gap is no lag.
                let position = match reached[input as usize] {
                    Some((at, given)) if committed >= given => at.max(committed),
                    _ => committed,
                };
                (end - position).max(0)
            };
            let runs_to_come = one.shared.runs_to_come(runs);
            let usage = lag(Input::Usage, committed.usage, end.usage);
            let assignments = lag(Input::Assignments, committed.assignments, end.assignments) + runs_to_come;
            self.metrics.lag(Input::Usage, end.partition).set(usage as f64);
            self.metrics.lag(Input::Assignments, end.partition).set(assignments as f64);
            if usage + assignments == 0 {
                idle.push((end.partition, one.shared.epoch));
            } else if runs_to_come == 0 {
                one.shared.ends.push(asked_at, Offsets { usage: end.usage, assignments: end.assignments });
            }
        }
        idle
    }
}
