//! The ends of what a record may say: the greatest quantities, prices, ids and versions, the first and last days that have
//! a name, all of it in a few buckets. Nothing panics and nothing wraps (tests are built with checks for overflow), and
//! the audit, which computes in 128 bits, finds what the worker made to be right.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use headroom::domain::{Partitioner, packed};
use headroom::events::{Record, Rules};
use headroom::store::Store;
use headroom::worker::{Batch, Context, Input, Partition, Parts};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::both::{Both, Real};
use crate::repairs;
use crate::store::{Memory, Rows};

/// A record of either topic: its type, its key and its data.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    kind: &'static str,
    id: u32,
    key: i64,
    data: Value,
}

/// Records, how many make a batch, and where local days begin.
pub(crate) type Extremes = (&'static str, Vec<(Sent, bool)>);

fn decimal() -> impl Strategy<Value = Value> {
    let text = [
        "0",
        "0.000001",
        "1",
        "1.5",
        "600",
        "4611686018427.387903",
        "4611686018427.387904",
        "9223372036854.775806",
        "9223372036854.775807",
    ];
    select(text.to_vec()).prop_map(|text| json!(text))
}

fn id() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..3i64, 1 => Just(i64::MAX)]
}

fn version() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..5i64, 1 => select(vec![i64::MIN, -1, i64::MAX])]
}

fn date() -> impl Strategy<Value = &'static str> {
    select(vec!["0000-01-01", "0000-02-29", "0001-01-01", "1969-12-31", "2026-11-01", "9999-11-30", "9999-12-31"])
}

fn instant() -> impl Strategy<Value = &'static str> {
    select(vec![
        "0000-01-01T00:00:00+23:59",
        "0000-01-01T00:00:00Z",
        "0000-02-29T23:59:59.999999Z",
        "0001-01-01T12:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "2026-11-01T00:00:00Z",
        "2026-11-30T12:00:00+01:00",
        "9999-11-30T00:00:00Z",
        "9999-12-31T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-23:59",
    ])
}

fn sent() -> impl Strategy<Value = Sent> {
    let customer = || prop_oneof![6 => Just(7i64), 1 => Just(i64::MAX)];
    let unit = || select(vec!["DURATION", "DURATION", "MB"]);
    let component = (0..3i64, any::<bool>(), unit(), decimal()).prop_map(|(id, by_value, unit, allowance)| {
        json!({"componentId": id, "byValue": by_value, "chargingType": unit, "allowance": allowance})
    });
    let threshold = (any::<bool>(), decimal())
        .prop_map(|(percent, at)| json!({if percent { "remainingPercent" } else { "remaining" }: at}));
    let plan = (
        select(vec![("DAILY", 1), ("WEEKLY", 7), ("MONTHLY", 1), ("MONTHLY", 28)]),
        select(vec![0, 1, 120]),
        option::weighted(0.2, decimal()),
        option::weighted(0.3, decimal()),
        vec(component, 1..4),
    );
    let level = select(vec!["CUSTOMER", "SITE", "INVENTORY"]);
    let assignment = (customer(), version(), id(), level.clone(), (date(), option::of(date())), plan, option::of(vec(threshold, 0..4)))
        .prop_map(|(customer, version, id, level, dates, (every, rollover, least, most, components), thresholds)| {
            let mut ids = std::collections::HashSet::new();
            let once = components.into_iter().filter(|one| ids.insert(one["componentId"].as_i64())).collect::<Vec<_>>();
            let data = json!({"version": version, "assignmentId": id, "assignmentLevel": level, "customerId": customer,
                "siteId": 1, "usageProductInventoryId": 1, "startDate": dates.0, "endDate": dates.1.max(Some(dates.0)),
                "plan": {"inclusiveUsagePlanId": id, "frequency": every.0, "anchorDay": every.1,
                    "rolloverPeriods": rollover, "minQualifyingQuantity": least, "maxPerEventQuantity": most,
                    "components": once},
                "thresholds": thresholds});
            ("assignment.changed", customer, data)
        });
    let removed = (customer(), version(), id(), level).prop_map(|(customer, version, id, level)| {
        let data = json!({"version": version, "assignmentId": id, "assignmentLevel": level, "customerId": customer});
        ("assignment.removed", customer, data)
    });
    let usage = (customer(), instant(), unit(), decimal(), decimal(), (1..3i64, 1..3i64)).prop_map(
        |(customer, start, unit, quantity, price, (site, upi))| {
            let data = json!({"customerId": customer, "siteId": site, "usageProductInventoryId": upi,
                "usageProductId": i64::MAX, "startTime": start, "chargingType": unit, "quantity": quantity,
                "price": price});
            ("usage.recorded", customer, data)
        },
    );
    let reversal = (customer(), instant(), 0..40u32).prop_map(|(customer, start, id)| {
        let reverses = json!({"source": "/extremes", "id": id.to_string(), "startTime": start});
        ("usage.reversed", customer, json!({"customerId": customer, "reverses": reverses}))
    });
    let fact = (customer(), version(), 0..2i64).prop_map(|(customer, version, cycle)| {
        ("customer.changed", customer, json!({"version": version, "customerId": customer, "billingCycleId": cycle}))
    });
    let run = (id(), version(), (date(), date()), select(vec!["OPEN", "CLOSED", "CLOSED", "FINALIZED"])).prop_map(
        |(id, version, (first, period), status)| {
            let data = json!({"version": version, "billRunId": id, "billingCycleId": 0, "periodStartDate": period,
                "periodEndDate": period, "usageFromDate": first, "usageUntilDate": first, "status": status});
            ("bill-run.changed", id, data)
        },
    );
    let any = prop_oneof![8 => usage, 4 => assignment, 1 => removed, 2 => reversal, 1 => fact, 1 => run];
    (any, 0..40u32).prop_map(|((kind, key, data), id)| Sent { kind, id, key, data })
}

pub(crate) fn extremes() -> impl Strategy<Value = Extremes> {
    let zones = vec!["UTC", "Europe/London", "America/Havana", "Pacific/Apia", "Asia/Kolkata"];
    (select(zones), vec((sent(), any::<bool>()), 1..40))
}

/// What was drawn at the ends, over all that was tried.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Draws in the first year, and in the last.
    first: Cell<u64>,
    last: Cell<u64>,
    /// Draws of the greatest quantity.
    most: Cell<u64>,
    /// Rows of closed runs.
    rows: Cell<usize>,
}

impl Ends {
    /// Fails when one of the ends was never met.
    pub(crate) fn show(&self) {
        println!("{self:?}");
        let all = [self.first.get(), self.last.get(), self.most.get(), self.rows.get() as u64];
        assert!(all.iter().all(|met| *met > 0), "never met: {self:?}");
    }

    fn note(&self, rows: &Rows) {
        for (key, row) in &rows.ledger {
            let start = key.position.start.to_string();
            let drew = !row.draws.is_empty();
            self.first.set(self.first.get() + u64::from(drew && start.starts_with("0000")));
            self.last.set(self.last.get() + u64::from(drew && start.starts_with("9999")));
            let draws = packed::unpack_draws(&row.draws).expect("draws can be read");
            let most = draws.iter().any(|draw| draw.amount.millionths() == i64::MAX);
            self.most.set(self.most.get() + u64::from(most));
        }
        self.rows.set(self.rows.get() + rows.stored_rows.len());
    }
}

/// Has a worker take them all in, on this store; then everything adds up.
pub(crate) fn check((zone, records): &Extremes, real: Option<Real>, ends: &Ends) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let memory = Arc::new(Memory::default());
    let both = match real {
        Some(real) => Some(runtime.block_on(Both::new(memory.clone(), real, zone))?),
        None => None,
    };
    let store: Arc<dyn Store> = match &both {
        Some((both, _)) => both.clone(),
        None => memory.clone(),
    };
    let failed = |error: &dyn std::fmt::Display| TestCaseError::fail(format!("the worker failed: {error}"));
    let year = Duration::from_secs(366 * 86_400);
    let rules = Rules { partitioner: Partitioner::Murmur2, partitions: 1, max_future: year, retention: year };
    let context = Arc::new(context(zone, store, rules));
    let taken = runtime.block_on(context.store.take(0)).map_err(|error| failed(&error))?;
    let mut partition = Partition::new(context.clone(), 0, taken);
    let (mut batch, mut offsets) = (Batch::new(0), [0; 2]);
    for (at, (sent, ends)) in records.iter().enumerate() {
        let value = json!({"specversion": "1.0", "type": sent.kind, "source": "/extremes", "id": sent.id.to_string(),
            "data": sent.data})
        .to_string();
        let key = sent.key.to_string();
        // Without a timestamp no time is too early or too late.
        let raw = Record {
            partition: 0,
            timestamp: None,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: std::iter::empty(),
        };
        let input = if sent.kind.starts_with("usage.") { Input::Usage } else { Input::Assignments };
        batch.push(input, offsets[input as usize], &raw, &rules);
        offsets[input as usize] += 1;
        if *ends || at + 1 == records.len() {
            let mut parts = Parts::of(std::mem::replace(&mut batch, Batch::new(0)));
            while let Some(mut part) = partition.next_part(&mut parts) {
                while partition.must_catch_up(&part) {
                    runtime.block_on(partition.catch_up()).map_err(|error| failed(&error))?;
                }
                runtime.block_on(partition.apply(&mut part)).map_err(|error| failed(&error))?;
            }
        }
    }
    while partition.can_catch_up() {
        runtime.block_on(partition.catch_up()).map_err(|error| failed(&error))?;
    }
    while partition.is_storing() {
        runtime.block_on(partition.store_rows()).map_err(|error| failed(&error))?;
    }
    let rows = memory.rows().clone();
    ends.note(&rows);
    repairs::nothing_differs(&rows, &context.calendar)?;
    if let Some((both, _)) = &both {
        runtime.block_on(both.compare())?;
    }
    Ok(())
}

fn context(zone: &str, store: Arc<dyn Store>, rules: Rules) -> Context {
    let percent = |percent: i64| headroom::domain::Threshold::RemainingPercent(crate::play::quantity(percent));
    Context {
        store,
        store_id: uuid::Uuid::nil(),
        calendar: headroom::domain::Calendar::new(zone).expect("a known zone"),
        partitions: 1,
        thresholds: vec![percent(20_000_000), percent(i64::MAX)],
        alert_source: "laws".to_owned(),
        topics: ["usage-events".to_owned(), "assignment-events".to_owned()],
        // Late enough that no usage is of times to come: 9999-12-31.
        // 9999-12-31: no usage is of times to come.
        now: || headroom::domain::Instant::from_micros(253_402_214_400_000_000),
        cache_bytes: 1 << 20,
        accounts_bytes: 4_000,
        look_back: Duration::ZERO,
        replay_page: 3,
        replay_pause: Duration::from_secs(3_600),
        behind_bytes: 0,
        storing_customers: 1,
        let_in: 1,
        rules,
        health: headroom::telemetry::Health::default(),
    }
}
