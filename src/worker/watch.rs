//! Beside the worker's way: lag, partitions that stand still, and facts about bill runs on their way from the partitions
//! that they came in on to all others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, info, warn};

use super::batch::Input;
use super::intake::{Owned, Watched, lock};
use super::metrics::Metrics;
use super::partition::Context;
use super::stall::{Look, Stalls};
use super::task::Work;
use crate::domain::{self, RunFact};
use crate::store::{AppliedUpTo, Offsets, Partitioned, RunFactRow, StoreError};
use crate::stream::{self, Control, Ends, Start};
use crate::telemetry::{Health, metrics as names};

/// How often it looks, unless it is told of a bill run.
const PERIOD: Duration = Duration::from_secs(1);
/// How often a log line says that something does not work.
const SAY: Duration = Duration::from_secs(10);
/// How long it waits for the store.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is watched, and who is told.
pub(super) struct Watch {
    pub(super) context: Arc<Context>,
    pub(super) stream: stream::Options,
    /// Asked to join the group again when a gap was accepted.
    pub(super) control: Control,
    pub(super) owned: Owned,
    /// Told when a bill run came in here.
    pub(super) bill_runs: Arc<Notify>,
    pub(super) metrics: Arc<Metrics>,
    /// How long a partition may stand still with something to do.
    pub(super) stall_after: Duration,
    pub(super) health: Health,
}

/// The facts about bill runs of all partitions, and a time up to which all that came in on any are among them.
#[derive(Default)]
struct KnownRuns {
    /// Those of one partition in their order.
    facts: Arc<Vec<RunFact>>,
    /// The last version of each run.
    versions: BTreeMap<i64, i64>,
    /// The last number of each partition that any came in on.
    seen: BTreeMap<i32, i64>,
    until: Option<domain::Instant>,
}

impl KnownRuns {
    /// Takes in what was not seen yet.
    fn add(&mut self, rows: &[RunFactRow]) {
        if rows.is_empty() {
            return;
        }
        Arc::make_mut(&mut self.facts).extend(rows.iter().map(|row| row.fact));
        for RunFactRow { partition, number, fact } in rows {
            self.seen.insert(*partition, *number);
            let version = self.versions.entry(fact.run.id).or_insert(fact.version);
            *version = fact.version.max(*version);
        }
    }
}

impl Watch {
    /// Watches until it is aborted.
    pub(super) async fn run(self) {
        let mut shown: BTreeSet<i32> = BTreeSet::new();
        let mut runs = KnownRuns::default();
        let mut ends: Option<Ends> = None;
        let mut stalls = Stalls::default();
        let mut said: Option<Instant> = None;
        let leaders = self.health.reporter(names::PARTITIONS);
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let on_time = tokio::select! {
                _ = period.tick() => true,
                () = self.bill_runs.notified() => false,
            };
            let watched: BTreeMap<i32, Watched> = lock(&self.owned).clone();
            self.tell_stops(&watched);
            // A store that is away or hangs is told by others, and must not keep this from seeing what stands still.
            match tokio::time::timeout(PATIENCE, self.bring(&watched, &mut runs)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.warn(&mut said, &format!("bill runs and repairs wait: {error}")),
                Err(_) => self.warn(&mut said, "bill runs and repairs wait: the store does not answer"),
            }
            self.metrics.behind.set(watched.values().map(|one| one.shared.behind()).sum::<usize>() as f64);
            self.metrics.held.set(watched.values().map(|one| one.shared.held()).sum::<i64>() as f64);
            let stood: BTreeMap<i32, Offsets> =
                watched.iter().map(|(partition, one)| (*partition, one.shared.committed())).collect();
            let partitions: Vec<i32> = watched.keys().copied().collect();
            let asked_at = (self.context.now)();
            let options = self.stream.clone();
            let asking = tokio::task::spawn_blocking(move || {
                let asked = ends.map_or_else(|| Ends::new(&options), Ok);
                asked.and_then(|ends| ends.of(&partitions).map(|found| (ends, found)))
            });
            ends = match asking.await {
                Ok(Ok((ends, found))) => {
                    match found.fault() {
                        Some(fault) => {
                            self.warn(&mut said, &format!("lag is not known where there is none who tells: {fault}"));
                            leaders.fault(&fault);
                        }
                        None => leaders.ok(),
                    }
                    let (looks, applied) = self.show(&watched, &stood, &found.starts, &runs, asked_at);
                    if on_time {
                        self.note_applied(&applied).await;
                    }
                    self.tell_stalls(&mut stalls, &looks);
                    Some(ends)
                }
                Ok(Err(error)) => {
                    self.warn(&mut said, &format!("lag is not known now: {error}"));
                    stalls.forget();
                    None
                }
                Err(_) => None,
            };
            // One that was taken again meanwhile has told its lag anew.
            let owned: BTreeSet<i32> = lock(&self.owned).keys().copied().collect();
            for partition in shown.iter().filter(|one| !watched.contains_key(one) && !owned.contains(one)) {
                self.metrics.lag(Input::Usage, *partition).set(0.0);
                self.metrics.lag(Input::Assignments, *partition).set(0.0);
                self.metrics.stopped(Input::Usage, *partition).set(0.0);
                self.metrics.stopped(Input::Assignments, *partition).set(0.0);
            }
            shown = watched.into_keys().collect();
        }
    }

    /// Says what does not work now, not more often than every ten seconds.
    fn warn(&self, said: &mut Option<Instant>, line: &str) {
        if said.is_none_or(|said| said.elapsed() >= SAY) {
            warn!("{line}");
            *said = Some(Instant::now());
        }
    }

    /// Brings facts about bill runs and repairs to the partitions, and to the store which partitions stand still.
    async fn bring(&self, watched: &BTreeMap<i32, Watched>, known: &mut KnownRuns) -> Result<(), StoreError> {
        // First the time: what a partition had applied by then is among the facts that are read after it.
        let until = self.context.store.facts_at().await?;
        let seen = known.seen.iter().map(|(partition, number)| Partitioned { partition: *partition, value: *number });
        let rows = self.context.store.run_facts(&seen.collect::<Vec<Partitioned<i64>>>()).await?;
        known.add(&rows);
        known.until = until;
        for one in watched.values().filter(|one| one.shared.runs_to_come(&known.versions) > 0) {
            one.give(Work::BillRuns(known.facts.clone()));
        }
        for request in self.context.store.repair_requests().await? {
            if let Some(one) = watched.get(&request.partition) {
                one.give(Work::Repair(request));
            }
        }
        for one in watched.values() {
            if one.shared.note_stop(&self.context).await? {
                info!("partition {}: its gap was accepted; joining the group again", one.shared.partition);
                self.control.rejoin();
            }
        }
        Ok(())
    }

    /// Says which partitions stand still.
    fn tell_stops(&self, watched: &BTreeMap<i32, Watched>) {
        let mut lines = Vec::new();
        for (partition, one) in watched {
            let stop = one.shared.stop();
            let unreadable = one.shared.unreadable();
            for input in [Input::Usage, Input::Assignments] {
                let stopped = stop.as_ref().is_some_and(|stop| stop.is_of(input));
                let stands = stopped || unreadable[input as usize].is_some();
                self.metrics.stopped(input, *partition).set(if stands { 1.0 } else { 0.0 });
            }
            lines.extend(stop.as_ref().map(|stop| stop.line.clone()));
            lines.extend(unreadable.iter().flatten().cloned());
        }
        if lines.is_empty() {
            self.health.ok(names::PARTITIONS);
        } else {
            self.health.fault(names::PARTITIONS, &lines.join("; "));
        }
    }

    /// Says which partitions have not moved for too long, though they have something to do and nothing is away.
    fn tell_stalls(&self, stalls: &mut Stalls, looks: &[Look]) {
        if !self.health.is_well(names::STORE) {
            stalls.forget();
        }
        let stood = stalls.look(Instant::now(), looks);
        let long = stood.iter().filter(|(_, stood)| **stood >= self.stall_after);
        let lines: Vec<String> = long
            .map(|(partition, stood)| format!("partition {partition} has not moved for {} s", stood.as_secs()))
            .collect();
        if lines.is_empty() {
            self.health.stuck(names::PARTITIONS, None);
            return;
        }
        let line = format!("{}, though records wait and the store answers", lines.join(", "));
        if self.health.is_live() {
            error!("{line}");
        }
        self.health.stuck(names::PARTITIONS, Some(line));
    }

    /// Writes up to what times partitions have applied things.
    async fn note_applied(&self, applied: &[AppliedUpTo]) {
        match tokio::time::timeout(PATIENCE, self.context.store.note_applied(applied)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("how far all is applied is not told now: {error}"),
            Err(_) => debug!("how far all is applied is not told now: the store does not answer"),
        }
    }

    /// Sets the gauges of lag: records up to where a read_committed reader is at the end, and bill runs yet to apply.
    /// Returns how the partitions are that are to move, and up to what times they have applied things: nothing is known of
    /// those whose topics end before where they `stood` already, made again or cut off as they are. One that lags is told where
    /// its topics ended at `asked_at`.
    fn show(
        &self,
        watched: &BTreeMap<i32, Watched>,
        stood: &BTreeMap<i32, Offsets>,
        ends: &[Start],
        known: &KnownRuns,
        asked_at: domain::Instant,
    ) -> (Vec<Look>, Vec<AppliedUpTo>) {
        let (mut looks, mut applied) = (Vec::new(), Vec::new());
        for end in ends {
            let Some(one) = watched.get(&end.partition) else { continue };
            one.shared.note_usage_end(end.usage);
            let committed = one.shared.committed();
            let reached = *lock(&one.ends);
            let lag_of = |input: Input, committed: i64, end: i64| {
                // What lies between the last record and the end there was no record, and a gap is no lag.
                let position = match reached[input as usize] {
                    Some((at, given)) if committed >= given => at.max(committed),
                    _ => committed,
                };
                (end - position).max(0)
            };
            let runs_to_come = one.shared.runs_to_come(&known.versions);
            let usage = lag_of(Input::Usage, committed.usage, end.usage);
            let assignments = lag_of(Input::Assignments, committed.assignments, end.assignments) + runs_to_come;
            self.metrics.lag(Input::Usage, end.partition).set(usage as f64);
            self.metrics.lag(Input::Assignments, end.partition).set(assignments as f64);
            let is_cut = stood
                .get(&end.partition)
                .is_none_or(|stood| end.usage < stood.usage || end.assignments < stood.assignments);
            if one.shared.stop().is_none() && !is_cut {
                let (partition, epoch, lag) = (end.partition, one.shared.epoch, usage + assignments);
                let has_facts = lag_of(Input::Assignments, one.shared.next_fact(), end.assignments) == 0;
                let facts = has_facts.then_some(asked_at);
                let runs = known.until.filter(|_| runs_to_come == 0);
                one.shared.ends.note_seen(facts, runs);
                applied.push(AppliedUpTo { partition, epoch, all: (lag == 0).then_some(asked_at), facts, runs });
                if one.shared.unreadable().iter().all(Option::is_none) {
                    looks.push(Look { partition, committed, steps: one.shared.steps(), lag });
                }
                if lag > 0 && runs_to_come == 0 {
                    one.shared.ends.push(asked_at, Offsets { usage: end.usage, assignments: end.assignments });
                }
            }
        }
        (looks, applied)
    }
}
