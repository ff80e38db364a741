//! Bill runs over all partitions, as billing sees them (`domain.md section 6`).

use std::process::Command;

use headroom::domain::Partitioner;
use serde_json::{Value, json};

use crate::deployment::{Deployment, PARTITIONS, on_postgres, until};

/// Customers, which live on many of the partitions.
const CUSTOMERS: std::ops::Range<i64> = 100..140;

fn run(version: i64, status: &str, more: &[(&str, Value)]) -> Value {
    let mut run = json!({"version": version, "billRunId": 1, "billingCycleId": 3, "periodStartDate": "2026-09-01",
        "periodEndDate": "2026-09-30", "usageFromDate": "2026-08-01", "usageUntilDate": "2026-08-31", "status": status});
    for (name, value) in more {
        run[name] = value.clone();
    }
    run
}

fn usage(deployment: &Deployment, customer: i64, id: &str, day: &str) {
    let data = json!({"customerId": customer, "siteId": 1, "usageProductInventoryId": customer * 10,
        "usageProductId": 1, "startTime": format!("{day}T10:00:00Z"), "chargingType": "DURATION", "quantity": 60});
    deployment.send("usage.recorded", "/switch", id, customer, &data);
}

/// What is left in each customer's bundle of the run's first month.
fn left(rows: &[Value]) -> Vec<(i64, i64)> {
    let of = |row: &Value| {
        let components = &row["inclusiveUsageBalanceAssignments"][0]["components"];
        (row["usageProductInventoryId"].as_i64().unwrap() / 10, components[0]["remaining"].as_i64().unwrap())
    };
    rows.iter().map(of).collect()
}

#[test]
fn a_run_holds_usage_and_keeps_its_rows_until_it_opens_again() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();
    deployment.send("bill-run.changed", "/billing", "run-1", 1, &run(1, "OPEN", &[]));
    for customer in CUSTOMERS {
        let fact = json!({"version": 1, "customerId": customer, "billingCycleId": 3, "contractOwnerId": customer % 2});
        deployment.send("customer.changed", "/crm", &format!("c-{customer}"), customer, &fact);
        let assignment = json!({"version": 1, "assignmentId": customer, "assignmentLevel": "CUSTOMER",
            "customerId": customer, "startDate": "2026-08-01", "plan": {"inclusiveUsagePlanId": 10, "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 600}]}});
        deployment.send("assignment.changed", "/crm", &format!("a-{customer}"), customer, &assignment);
        usage(&deployment, customer, "first", "2026-08-05");
    }
    let all = |remaining: i64| CUSTOMERS.map(|customer| (customer, remaining)).collect::<Vec<_>>();
    until("usage is in and the run is known to all", || left(&deployment.rows("")) == all(540));

    deployment.send("bill-run.changed", "/billing", "run-2", 1, &run(2, "CLOSED", &[]));
    until("the run is closed everywhere", || deployment.rows("").is_empty() && deployment.lag() == 0.0);
    assert_eq!(left(&deployment.rows("&billRunId=1")), all(540));
    for customer in CUSTOMERS {
        usage(&deployment, customer, "late", "2026-08-20");
        usage(&deployment, customer, "of another month", "2026-09-20");
        let reversal = json!({"customerId": customer, "reverses":
            {"source": "/switch", "id": "first", "startTime": "2026-08-05T10:00:00Z"}});
        deployment.send("usage.reversed", "/billing", &format!("r-{customer}"), customer, &reversal);
    }
    let customers = CUSTOMERS.count() as f64;
    until("late usage is held", || deployment.outcomes("held") == customers && deployment.lag() == 0.0);
    until("the gauge says so", || deployment.metrics()["headroom_held_events"] == customers);
    let events = deployment.totals()["usageEvents"].clone();
    assert_eq!(events, json!({"counted": 40, "held": 40, "reversed": 40}));
    assert_eq!(left(&deployment.rows("&billRunId=1")), all(540), "rows stay as they were");

    // Whoever takes over knows what is held and what is stored.
    drop(running);
    let mut running = deployment.run();
    until("it is up again", || deployment.metrics().contains_key("headroom_held_events"));
    assert_eq!(left(&deployment.rows("&billRunId=1")), all(540));

    // Opened and finalized at once: what was held counts, and the rows are stored anew.
    deployment.send("bill-run.changed", "/billing", "run-3", 1, &run(3, "OPEN", &[]));
    deployment.send("bill-run.changed", "/billing", "run-4", 1, &run(4, "FINALIZED", &[]));
    until("held usage counts", || deployment.totals()["usageEvents"]["held"] == 0);
    until("all have applied the run", || deployment.lag() == 0.0 && left(&deployment.rows("&billRunId=1")) == all(540));
    assert_eq!(deployment.totals()["quantity"]["DURATION"], 80 * 60);
    deployment.send("bill-run.changed", "/billing", "run-5", 1, &run(5, "OPEN", &[]));
    until("a later version is refused", || {
        deployment.metrics().iter().any(|(name, n)| name.contains("finalized") && *n == 1.0)
    });
    let told = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

/// Versions that come at once: what only the one in between lets in counts on every partition, not just where it came in.
#[test]
fn a_version_that_another_follows_at_once_takes_effect_on_all_partitions() {
    const RUNS: i64 = 20;
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();
    let send = |id: i64, version: i64, more: &[(&str, Value)]| {
        let mut more = more.to_vec();
        more.extend([("billRunId", json!(id)), ("billingCycleId", json!(id))]);
        let run = run(version, "CLOSED", &more);
        deployment.send("bill-run.changed", "/billing", &format!("{id}-{version}"), id, &run);
    };
    (1..=RUNS).for_each(|id| send(id, 1, &[]));
    for customer in CUSTOMERS {
        let fact = json!({"version": 1, "customerId": customer, "billingCycleId": 1 + customer % RUNS});
        deployment.send("customer.changed", "/crm", &format!("c-{customer}"), customer, &fact);
    }
    let store = &deployment.environment["HEADROOM_STORE__URL"];
    let applied_by_all = |version: i64| {
        let runs = format!("select count(*) from bill_run where version = {version}");
        on_postgres(store, &runs) == Some(RUNS * i64::from(PARTITIONS)) && deployment.lag() == 0.0
    };
    until("the runs are closed everywhere", || applied_by_all(1));
    CUSTOMERS.for_each(|customer| usage(&deployment, customer, "late", "2026-08-20"));
    let customers = CUSTOMERS.count() as f64;
    until("usage is held", || deployment.outcomes("held") == customers);
    drop(running);

    // Billed by mistake for another month, and put right: the usage of August came in meanwhile, and stays.
    let september = [("usageFromDate", json!("2026-09-01")), ("usageUntilDate", json!("2026-09-30"))];
    for id in 1..=RUNS {
        send(id, 2, &september);
        send(id, 3, &[]);
    }
    let _running = deployment.run();
    until("the last versions are applied everywhere", || applied_by_all(3));
    assert_eq!(deployment.totals()["usageEvents"], json!({"counted": 40, "held": 0, "reversed": 0}));
}

/// A worker that died while a customer was behind: its usage was passed over for the others' sake, and is read again. A run that
/// closed since comes after it, as it would have without the death, whether it comes in on this partition or on another.
#[test]
fn a_run_comes_after_records_of_customers_behind_that_are_read_again() {
    const CUSTOMER: i64 = 17;
    let partition = Partitioner::Murmur2.partition_of(CUSTOMER, PARTITIONS);
    let lives_here = |run: &i64| Partitioner::Murmur2.partition_of(*run, PARTITIONS) == partition;
    let [here, elsewhere] = [true, false].map(|here| (1..).find(|run| lives_here(run) == here).unwrap());
    for id in [here, elsewhere] {
        let deployment = Deployment::new();
        deployment.say(&["topics", "create", "--partitions", "8"]);
        let running = deployment.run();
        until("it runs", || deployment.health("ready").0 == 200);
        let run = |version, status| run(version, status, &[("billRunId", json!(id))]);
        deployment.send("bill-run.changed", "/billing", "run-1", id, &run(1, "OPEN"));
        let fact = json!({"version": 1, "customerId": CUSTOMER, "billingCycleId": 3});
        deployment.send("customer.changed", "/crm", "c", CUSTOMER, &fact);
        let assignment = json!({"version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER",
            "customerId": CUSTOMER, "startDate": "2026-08-01", "plan": {"inclusiveUsagePlanId": 10, "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 600}]}});
        deployment.send("assignment.changed", "/crm", "a", CUSTOMER, &assignment);
        usage(&deployment, CUSTOMER, "first", "2026-08-05");
        until("all is in", || left(&deployment.rows("")) == [(CUSTOMER, 540)] && deployment.lag() == 0.0);
        drop(running);

        usage(&deployment, CUSTOMER, "passed over", "2026-08-06");
        let store = &deployment.environment["HEADROOM_STORE__URL"];
        let behind = format!(
            "insert into behind (partition, customer_id, usage_offset, assignments_offset) \
             select partition, {CUSTOMER}, usage_offset, assignments_offset from progress where partition = {partition}"
        );
        on_postgres(store, &behind);
        on_postgres(
            store,
            &format!("update progress set usage_offset = usage_offset + 1 where partition = {partition}"),
        );
        deployment.send("bill-run.changed", "/billing", "run-2", id, &run(2, "CLOSED"));
        let _running = deployment.run();
        until("it runs again", || deployment.health("ready").0 == 200);
        // Had the run come first, the usage behind it would be held, and stay so.
        let counted = json!({"counted": 2, "held": 0, "reversed": 0});
        until("all is counted", || deployment.totals()["usageEvents"] == counted && deployment.lag() == 0.0);
        assert_eq!(left(&deployment.rows(&format!("&billRunId={id}"))), [(CUSTOMER, 480)]);
    }
}
