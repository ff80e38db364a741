//! The audit beside the worker's way: at a low rate, and in no more than a tenth of the time, customer after customer of the
//! partitions owned here, every balance is held against a plain fold of its usage. While usage waits the machine is the
//! worker's, but for a customer now and then, so that a worker that is always busy is audited too. Drift is told and never
//! mended: `headroom rebuild` does that when asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use tracing::{error, warn};

use super::intake::{Owned, Watched, lock};
use super::partition::Context;
use crate::audit;
use crate::domain::Totals;
use crate::store::{Snapshot, StoreError};
use crate::telemetry::metrics as names;

/// How often a log line says that it cannot go on.
const SAY: Duration = Duration::from_secs(60);
/// How long one customer, or a partition's totals, may take.
const LONGEST: Duration = Duration::from_secs(3_600);
/// How many times as long as an audit took the next one waits, ...
const REST: u32 = 9;
/// ... and at most; and for how long usage that waits comes first.
const LONGEST_REST: Duration = Duration::from_secs(600);
/// How many records of one partition wait where it does not keep up.
const WAITING: usize = 1_000;
/// A worker that has just begun does not know yet whether usage waits.
const BEGIN: Duration = Duration::from_secs(10);
/// Customers looked for at once.
const PAGE: usize = 500;

/// The audit of a worker.
pub(super) struct Audits {
    context: Arc<Context>,
    owned: Owned,
    /// For each partition where it goes on, and the customers that come next.
    rounds: BTreeMap<i32, (Option<i64>, Vec<i64>)>,
    customers: Counter,
    drift: Counter,
}

impl Audits {
    pub(super) fn new(context: Arc<Context>, owned: Owned) -> Audits {
        let (customers, drift) = (counter!(names::AUDIT_CUSTOMERS), counter!(names::AUDIT_DRIFT));
        Audits { context, owned, rounds: BTreeMap::new(), customers, drift }
    }

    /// Audits so many customers a second until it is aborted.
    pub(super) async fn run(mut self, per_second: u32) {
        if per_second == 0 {
            return;
        }
        tokio::time::sleep(BEGIN).await;
        let mut last = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said: Option<Instant> = None;
        for turn in 0usize.. {
            pace.tick().await;
            let begun = Instant::now();
            let (partitions, usage_waits) = {
                let owned = lock(&self.owned);
                let to_come = |one: &Watched| one.shared.usage_to_come(one.shared.committed().usage);
                (owned.keys().copied().collect::<Vec<i32>>(), owned.values().any(|one| to_come(one) >= WAITING))
            };
            if usage_waits && last.elapsed() < LONGEST_REST {
                continue;
            }
            let Some(partition) = partitions.get(turn % partitions.len().max(1)) else { continue };
            // A connection that falls silent would keep it waiting for ever.
            let audited = tokio::time::timeout(LONGEST, self.next_of(*partition)).await;
            let audited = audited.unwrap_or_else(|_| {
                Err(StoreError::Unavailable(format!("partition {partition}: nothing came of it in {LONGEST:?}")))
            });
            if let Err(why) = audited {
                if said.is_none_or(|said| said.elapsed() >= SAY) {
                    warn!("the audit waits: {why}");
                    said = Some(Instant::now());
                }
                continue;
            }
            // A customer with much usage takes longer than its turn, and so do the totals of a partition.
            last = Instant::now();
            tokio::time::sleep((begun.elapsed() * REST).min(LONGEST_REST)).await;
        }
    }

    /// Audits the next customer of a partition, if it has any.
    async fn next_of(&mut self, partition: i32) -> Result<(), StoreError> {
        let mut snapshot = self.context.store.snapshot().await?;
        let (after, next) = self.rounds.entry(partition).or_default();
        if next.is_empty() {
            let is_round = after.is_some();
            *next = snapshot.customers(partition, *after, PAGE).await?;
            *after = next.last().copied();
            next.reverse();
            if is_round && after.is_none() {
                return self.totals_of(partition, snapshot.as_mut()).await;
            }
        }
        let Some(customer) = next.pop() else { return Ok(()) };
        let found = audit::customer(snapshot.as_mut(), &self.context.calendar, partition, customer).await?;
        if found.is_unfinished {
            return Ok(());
        }
        self.customers.increment(1);
        self.drift.increment(found.drift_count);
        for drift in &found.drifts {
            error!("audit: customer {customer}, {drift}; headroom rebuild --customer {customer} repairs it");
        }
        Ok(())
    }

    /// Holds a partition's control totals against the sums of its rows, once all its customers were audited. What the
    /// quantities sum up to is in the bodies of all its usage: `headroom audit` reads those.
    async fn totals_of(&self, partition: i32, snapshot: &mut dyn Snapshot) -> Result<(), StoreError> {
        let kept = snapshot.totals(partition).await?;
        let Totals { quantity, crossed, recovered, .. } = kept;
        let summed = Totals { quantity, crossed, recovered, ..snapshot.sums(partition).await? };
        if kept != summed {
            self.drift.increment(1);
            error!(
                "audit: partition {partition}, control totals: stored {kept}, summed {summed}; headroom rebuild --partition \
                 {partition} repairs them"
            );
        }
        Ok(())
    }
}
