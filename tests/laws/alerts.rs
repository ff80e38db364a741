//! The laws of alerts (`domain.md section 7`): each commit raises just the alerts that its change of balances calls for.

use std::collections::{BTreeMap, BTreeSet};

use headroom::domain::Instant;
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::facts::{LEVELS, Threshold, UNITS};
use crate::model::{Balances, BucketKey, EventKey};
use crate::play::{Step, quantity};

type Result<T> = std::result::Result<T, TestCaseError>;

/// What a bucket's thresholds are judged by.
#[derive(Debug, Clone, Copy)]
struct State {
    remaining: i64,
    allowance: i64,
}

impl State {
    fn holds(self, threshold: Threshold) -> bool {
        match threshold {
            Threshold::Percent(percent) => {
                i128::from(self.remaining) * 100_000_000 <= i128::from(percent) * i128::from(self.allowance)
            }
            Threshold::Remaining(at) => self.remaining <= at,
        }
    }
}

/// The remaining quantity from which down a threshold holds, in 100 millionths of a millionth.
fn height(threshold: Threshold, allowance: i64) -> i128 {
    match threshold {
        Threshold::Percent(percent) => i128::from(percent) * i128::from(allowance),
        Threshold::Remaining(at) => i128::from(at) * 100_000_000,
    }
}

/// The commit's alerts are, bucket by bucket and in their order there, those that must be.
pub(crate) fn check(step: &Step<'_>) -> Result<()> {
    let mut found: BTreeMap<[i64; 4], BTreeMap<&str, Vec<Value>>> = BTreeMap::new();
    let bodies = &step.rows.1.alerts[step.rows.0.alerts.len()..];
    for row in bodies {
        let event: Value = serde_json::from_str(&row.body).expect("an alert is JSON");
        let data = event["data"].clone();
        let level = LEVELS.iter().position(|name| data["assignmentLevel"] == *name).expect("a level");
        let number = |name: &str| data[name].as_i64().expect("a number");
        prop_assert_eq!(number("customerId"), row.customer);
        let bucket = [row.customer, level as i64, number("assignmentId"), number("componentId")];
        let turn = match event["type"].as_str() {
            Some("balance.threshold.crossed") => "crossed",
            Some("balance.threshold.recovered") => "recovered",
            other => return Err(TestCaseError::fail(format!("an alert of type {other:?}"))),
        };
        prop_assert_eq!(&event["time"], &data["committedAt"]);
        found.entry(bucket).or_default().entry(turn).or_default().push(data);
    }
    let mut must: BTreeMap<[i64; 4], BTreeMap<&str, Vec<Value>>> = BTreeMap::new();
    for key in step.balances.1.buckets.keys() {
        let ((customer, level, assignment), component, _) = *key;
        for (turn, alerts) in of_bucket(step, key) {
            let bucket = [customer, level as i64, assignment, component];
            must.entry(bucket).or_default().entry(turn).or_default().extend(alerts);
        }
    }
    // Several windows of one component may turn in one commit: within a window the order is the law, between them none.
    for turns in found.values_mut().chain(must.values_mut()) {
        for alerts in turns.values_mut() {
            alerts.sort_by_key(|data| data["startDate"].to_string());
        }
    }
    for turns in found.values_mut() {
        for alert in turns.values_mut().flatten() {
            alert.as_object_mut().expect("an object").remove("committedAt");
        }
    }
    prop_assert_eq!(found, must, "the alerts of {:?}", step.facts);
    Ok(())
}

/// The alerts that a bucket must raise, by turn, in their order.
fn of_bucket(step: &Step<'_>, key: &BucketKey) -> BTreeMap<&'static str, Vec<Value>> {
    let (old, new) = step.balances;
    let bucket = &new.buckets[key];
    let now = State { remaining: bucket.remaining, allowance: bucket.component.allowance };
    let full = State { remaining: now.allowance, allowance: now.allowance };
    let thresholds = new.thresholds(&key.0, &step.history.thresholds);
    let listed = |balances: &Balances| balances.thresholds(&key.0, &step.history.thresholds);
    if old.assignments.contains_key(&key.0) && listed(old) != thresholds {
        return BTreeMap::new();
    }
    let before = match old.buckets.get(key) {
        Some(before) if before.remaining != before.component.allowance => {
            State { remaining: before.remaining, allowance: before.component.allowance }
        }
        // What nothing is drawn from has no state but the full allowance, as it is now.
        _ => full,
    };
    let mut turned: Vec<Threshold> = thresholds;
    turned.retain(|threshold| before.holds(*threshold) != now.holds(*threshold));
    let (mut crossed, mut recovered): (Vec<_>, Vec<_>) =
        turned.into_iter().partition(|threshold| now.holds(*threshold));
    crossed.sort_by_key(|threshold| std::cmp::Reverse(height(*threshold, now.allowance)));
    recovered.sort_by_key(|threshold| height(*threshold, now.allowance));
    let mut alerts = BTreeMap::new();
    for (turn, thresholds) in [("crossed", crossed), ("recovered", recovered)] {
        let of_turn: Vec<_> = thresholds.iter().map(|threshold| data(step, key, before, *threshold)).collect();
        if !of_turn.is_empty() {
            alerts.insert(turn, of_turn);
        }
    }
    alerts
}

/// What an alert says, but for the time of its commit.
fn data(step: &Step<'_>, key: &BucketKey, before: State, threshold: Threshold) -> Value {
    let ((customer, level, id), component, _) = *key;
    let (bucket, assignment) = (&step.balances.1.buckets[key], &step.balances.1.assignments[&key.0]);
    let decimal = |millionths: i64| serde_json::to_value(quantity(millionths)).expect("a number");
    json!({
        "customerId": customer,
        "assignmentLevel": LEVELS[level],
        "assignmentId": id,
        "siteId": (level == 1).then_some(assignment.scope),
        "usageProductInventoryId": (level == 0).then_some(assignment.scope),
        "inclusiveUsagePlanId": assignment.plan.id,
        "componentId": component,
        "startDate": step.calendar.wall_clock(bucket.window.start),
        "endDate": step.calendar.wall_clock(bucket.window.expiry - 1),
        "chargingType": UNITS[bucket.component.unit],
        "byValue": bucket.component.by_value,
        "allowance": decimal(bucket.component.allowance),
        "remainingBefore": decimal(before.remaining),
        "remainingAfter": decimal(bucket.remaining),
        "threshold": match threshold {
            Threshold::Percent(percent) => json!({"remainingPercent": decimal(percent)}),
            Threshold::Remaining(remaining) => json!({"remaining": decimal(remaining)}),
        },
        "cause": cause(step, key),
    })
}

/// The last event in the order of section 5 that began or ceased to count and whose draw on this bucket changed.
fn cause(step: &Step<'_>, key: &BucketKey) -> Option<Value> {
    let (old, new) = step.balances;
    let drawn = |draws: &BTreeMap<EventKey, Vec<(BucketKey, i64)>>, event: &EventKey| {
        let draws = draws.get(event)?;
        draws.iter().find(|(bucket, _)| bucket == key).map(|(_, amount)| *amount)
    };
    let events: BTreeSet<&EventKey> = old.draws.keys().chain(new.draws.keys()).collect();
    let event = events.into_iter().rev().find(|event| {
        old.draws.contains_key(event) != new.draws.contains_key(event)
            && drawn(&old.draws, event) != drawn(&new.draws, event)
    })?;
    let name = &step.known.1.usage[event].name;
    Some(json!({
        "source": name.source,
        "id": name.id,
        "startTime": Instant::from_micros(name.start).to_string(),
    }))
}
