//! A balance that somebody spoiled in the store is found and mended, whether or not a worker runs.

use headroom::domain::Partitioner;
use serde_json::json;

use crate::deployment::{Deployment, PARTITIONS, now, on_postgres, until};

/// Runs `headroom rebuild`; gives its exit code and what it printed.
fn rebuild(deployment: &Deployment, arguments: &[&str]) -> (Option<i32>, String) {
    command(deployment, &[&["rebuild"], arguments].concat())
}

fn command(deployment: &Deployment, arguments: &[&str]) -> (Option<i32>, String) {
    let output = deployment.command(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_spoiled_balance_is_reported_and_repaired_without_an_alert() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();
    let assignment = json!({"version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17,
        "startDate": "2026-01-01", "plan": {"inclusiveUsagePlanId": 10, "components":
        [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 30000}]}});
    deployment.send("assignment.changed", "/crm", "assignment-5", 17, &assignment);
    deployment.call("call-1", 1_000);
    until("the call is in", || deployment.totals()["drawn"]["DURATION"] == 1_000);
    let right = deployment.totals();
    assert_eq!(rebuild(&deployment, &["--all"]), (Some(0), "nothing differs\n".to_owned()));

    let url = &deployment.environment["HEADROOM_STORE__URL"];
    let remaining = || on_postgres(url, "select remaining from bucket where customer_id = 17");
    let spoil = || on_postgres(url, "update bucket set remaining = 1 where customer_id = 17 returning remaining");
    let mended = || {
        assert_eq!(remaining(), Some(29_000_000_000));
        assert_eq!(deployment.totals(), right, "the control totals are right, and no alert was raised");
    };
    assert_eq!(spoil(), Some(1));
    let (code, said) = rebuild(&deployment, &["--customer", "17", "--dry-run"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stored 0.000001 of 30000, folded 29000 of 30000"), "{said}");
    assert_eq!(remaining(), Some(1), "a dry run only reads");

    let (code, audited) = command(&deployment, &["audit"]);
    assert_eq!(code, Some(1), "{audited}");
    assert!(audited.contains("stored remaining 0.000001 of 30000, folded remaining 29000 of 30000"), "{audited}");
    assert!(audited.contains("partition ") && audited.contains("control totals"), "{audited}");
    until("the worker's own audit finds it", || deployment.metrics()["headroom_audit_drift_total"] >= 1.0);
    assert_eq!(remaining(), Some(1), "an audit only reads");

    let explained = deployment.say(&["explain", "--customer", "17"]);
    let mut lines = explained.lines();
    let (event, bucket) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(
        event.contains(" /switch call-1: 1000: drew 1000 of CUSTOMER/5/1/") && event.ends_with("left 29000"),
        "{event}"
    );
    assert!(bucket.contains(": 29000 of 30000; the store has 0.000001 of 30000"), "{bucket}");
    assert_eq!(lines.next(), None);

    // The owner does it, and goes on from the right balance.
    let (code, said) = rebuild(&deployment, &["--customer", "17"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("control totals"), "they are right in the very commit: {said}");
    mended();
    let epochs = || on_postgres(url, "select sum(epoch)::bigint from progress");
    let epoch = epochs();
    spoil();
    assert_eq!(rebuild(&deployment, &["--all"]).0, Some(0));
    mended();
    assert_eq!(epochs(), epoch, "the owner did it");

    // A line's last usage, and quantities that only the ledger's bodies tell.
    on_postgres(url, "update line set last_site_id = 9 where customer_id = 17 returning last_site_id");
    on_postgres(url, "update progress set quantity[1] = quantity[1] + 5000000 where counted > 0 returning counted");
    let (code, audited) = command(&deployment, &["audit"]);
    assert_eq!(code, Some(1), "{audited}");
    assert!(audited.contains("customer 17, line 11: stored site 9 and product 1 by usage at "), "{audited}");
    assert!(audited.contains("quantity DURATION 1005 MB 0") && audited.contains("quantity DURATION 1000 MB 0"));
    let (code, said) = rebuild(&deployment, &["--all"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("customer 17: line 11: stored site 9 and product 1 by usage at "), "{said}");
    assert!(said.contains("repaired 0 buckets, 1 lines and the draws of 0 usage events"), "{said}");
    mended();
    assert_eq!(on_postgres(url, "select last_site_id from line where customer_id = 17"), Some(1));
    assert_eq!(epochs(), epoch, "the owner did it");

    // Nobody runs: the command takes the partition.
    drop(running);
    spoil();
    on_postgres(url, "update progress set counted = counted + 1 where counted > 0 returning counted");
    on_postgres(url, "update ledger set draws = '' where customer_id = 17 returning 1::bigint");
    let (code, said) = rebuild(&deployment, &["--all"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the draws of 1 usage events differ"), "{said}");
    mended();
    assert_eq!(rebuild(&deployment, &["--all", "--dry-run"]), (Some(0), "nothing differs\n".to_owned()));
    let audited = command(&deployment, &["audit"]);
    assert_eq!(audited, (Some(0), "1 customers, 1 events, 0 differences\n".to_owned()));

    // A worker that comes then goes on from there.
    let _running = deployment.run();
    deployment.call("call-2", 500);
    until("the next call is in", || remaining() == Some(28_500_000_000));
    assert_eq!(deployment.totals()["alerts"], json!({"crossed": 0, "recovered": 0}));
    let (code, said) = rebuild(&deployment, &["--partition", "8"]);
    assert_eq!(code, Some(2), "{said}");
    for command in [rebuild(&deployment, &["--customer", "18"]), command(&deployment, &["audit", "--customer", "18"])] {
        assert_eq!(command, (Some(1), "headroom: --customer 18: nothing is known of this customer\n".to_owned()));
    }
}

#[test]
fn repairs_without_a_worker_keep_the_stores_time_zone_and_take_the_partition_once() {
    let mut deployment = Deployment::new();
    deployment.environment.insert("HEADROOM_TIME_ZONE".to_owned(), "Pacific/Auckland".to_owned());
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();
    let partition = |customer: i64| Partitioner::Murmur2.partition(customer.to_string().as_bytes(), PARTITIONS);
    let beside = (18..).find(|customer| partition(*customer) == partition(17)).unwrap();
    for customer in [17, beside] {
        let assignment = json!({"version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": customer,
            "startDate": "2026-01-01", "plan": {"inclusiveUsagePlanId": 10, "frequency": "DAILY", "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 30000}]}});
        deployment.send("assignment.changed", "/crm", &format!("assignment-{customer}"), customer, &assignment);
        let start = jiff::Timestamp::from_millisecond(now()).unwrap().to_string();
        let call = json!({"customerId": customer, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1,
            "chargingType": "DURATION", "quantity": 1000, "price": 0, "startTime": start});
        deployment.send("usage.recorded", "/switch", "call", customer, &call);
    }
    until("the calls are in", || deployment.totals()["drawn"]["DURATION"] == 2_000);
    drop(running);

    let url = deployment.environment["HEADROOM_STORE__URL"].clone();
    let one = |statement: &str| on_postgres(&url, statement);
    let state = || {
        let remaining = one("select sum(remaining)::bigint from bucket");
        (remaining, one("select sum(extract(epoch from window_start))::bigint from bucket"))
    };
    let (right, epochs) = (state(), one("select sum(epoch)::bigint from progress").unwrap());
    one("update bucket set remaining = 1 returning remaining");
    // Whoever repairs knows where the store is, and nothing more.
    deployment.environment.remove("HEADROOM_TIME_ZONE");
    let (code, said) = rebuild(&deployment, &["--all"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("repaired 1 buckets, 0 lines and the draws of 0 usage events").count(), 2, "{said}");
    assert_eq!(state(), right);
    assert_eq!(one("select sum(epoch)::bigint from progress"), Some(epochs + 1), "{said}");
    assert_eq!(rebuild(&deployment, &["--all", "--dry-run"]), (Some(0), "nothing differs\n".to_owned()));
}
