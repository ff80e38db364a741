//! `headroom explain` tells how each bucket came to what is left in it: what drew, and what was turned away, not included,
//! reversed or held.

use serde_json::{Value, json};

use crate::deployment::{Deployment, now, on_postgres, until};

/// A customer's line with 30 seconds of its own, money for its site, and 100 seconds for all of its lines.
fn assign(deployment: &Deployment, first: &str) {
    for (level, id, by_value, allowance) in
        [("INVENTORY", 5, false, 30), ("SITE", 6, true, 10), ("CUSTOMER", 7, false, 100)]
    {
        let component =
            json!({"componentId": 1, "byValue": by_value, "chargingType": "DURATION", "allowance": allowance});
        let component = if by_value { with(component, "timebands", json!(["PEAK"])) } else { component };
        let fact = json!({"version": 1, "assignmentId": id, "assignmentLevel": level, "customerId": 17, "siteId": 1,
            "usageProductInventoryId": 11, "startDate": first,
            "plan": {"inclusiveUsagePlanId": id, "components": [component]}});
        deployment.send("assignment.changed", "/crm", &format!("a-{id}"), 17, &fact);
    }
}

fn with(mut value: Value, name: &str, what: Value) -> Value {
    value[name] = what;
    value
}

#[test]
fn a_balance_is_explained_event_by_event() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    let today = jiff::Timestamp::from_millisecond(now()).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let month = today.first_of_month().yesterday().unwrap();
    let (first, last) = (month.first_of_month().to_string(), month.to_string());
    let at = |day: u32| format!("{}-{day:02}T10:00:00Z", &first[..7]);
    assign(&deployment, &first);
    let usage = |day, id: &str, kind: &str, quantity: i64, price: i64| {
        let usage = json!({"customerId": 17, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1,
            "startTime": at(day), "chargingType": kind, "quantity": quantity, "price": price});
        let usage = if id == "peak" { with(usage, "timeband", json!("PEAK")) } else { usage };
        deployment.send("usage.recorded", "/switch", id, 17, &usage);
    };
    usage(2, "one", "DURATION", 50, 5);
    usage(3, "peak", "DURATION", 20, 40);
    usage(4, "megabytes", "MB", 7, 0);
    usage(5, "taken back", "DURATION", 10, 0);
    usage(6, "too much", "DURATION", 90, 9);
    let reverses = json!({"source": "/switch", "id": "taken back", "startTime": at(5)});
    deployment.send("usage.reversed", "/billing", "r", 17, &json!({"customerId": 17, "reverses": reverses}));
    let events = || deployment.totals()["usageEvents"].clone();
    until("usage is in", || events() == json!({"counted": 4, "held": 0, "reversed": 1}));
    let run = json!({"version": 1, "billRunId": 1, "billingCycleId": 0, "periodStartDate": first, "periodEndDate": last,
        "status": "CLOSED"});
    deployment.send("bill-run.changed", "/billing", "run", 1, &run);
    until("the run is closed everywhere", || {
        let url = &deployment.environment["HEADROOM_STORE__URL"];
        on_postgres(url, "select count(*) from bill_run where status <> 0") == Some(8)
    });
    usage(7, "late", "DURATION", 15, 0);
    until("it is held", || events() == json!({"counted": 4, "held": 1, "reversed": 1}));

    let months = |text: &str| text.replace("MM", &first[..7]);
    let explain = |more: &[&str]| deployment.say(&[&["explain", "--customer", "17"], more].concat());
    let all = months(
        "\
MM-02T10:00:00Z /switch one: 50 at 5: drew 30 of INVENTORY/5/1/MM-01T00:00:00Z, left 0
MM-02T10:00:00Z /switch one: 50 at 5: drew 20 of CUSTOMER/7/1/MM-01T00:00:00Z, left 80
MM-02T10:00:00Z /switch one: 50 at 5: turned away with 20 by INVENTORY/5/1/MM-01T00:00:00Z
MM-03T10:00:00Z /switch peak: 20 at 40: drew 10 of SITE/6/1/MM-01T00:00:00Z, left 0
MM-03T10:00:00Z /switch peak: 20 at 40: drew 15 of CUSTOMER/7/1/MM-01T00:00:00Z, left 65
MM-03T10:00:00Z /switch peak: 20 at 40: turned away with 20 by INVENTORY/5/1/MM-01T00:00:00Z
MM-03T10:00:00Z /switch peak: 20 at 40: turned away with 30 by SITE/6/1/MM-01T00:00:00Z
MM-04T10:00:00Z /switch megabytes: 7: not included 7
MM-05T10:00:00Z /switch taken back: 10: reversed
MM-06T10:00:00Z /switch too much: 90 at 9: drew 65 of CUSTOMER/7/1/MM-01T00:00:00Z, left 0
MM-06T10:00:00Z /switch too much: 90 at 9: turned away with 90 by INVENTORY/5/1/MM-01T00:00:00Z
MM-06T10:00:00Z /switch too much: 90 at 9: turned away with 25 by CUSTOMER/7/1/MM-01T00:00:00Z
MM-06T10:00:00Z /switch too much: 90 at 9: not included 25 at 2.5
MM-07T10:00:00Z /switch late: 15: held
INVENTORY/5/1/MM-01T00:00:00Z: 0 of 30
SITE/6/1/MM-01T00:00:00Z: 0 of 10
CUSTOMER/7/1/MM-01T00:00:00Z: 0 of 100",
    );
    // Buckets come by the slots that they were given: in the order in which they were drawn first.
    let sorted = |text: &str| {
        let (events, buckets): (Vec<String>, Vec<String>) =
            text.lines().map(str::to_owned).partition(|line| line.contains("/switch"));
        let mut buckets = buckets;
        buckets.sort();
        (events, buckets)
    };
    assert_eq!(sorted(&explain(&[])), sorted(&all));

    // A bucket's own: what has nothing to do with it is left out.
    let site = months("SITE/6/1/MM-01T00:00:00Z");
    let of_site = months(
        "\
MM-03T10:00:00Z /switch peak: 20 at 40: drew 10 of SITE/6/1/MM-01T00:00:00Z, left 0
MM-03T10:00:00Z /switch peak: 20 at 40: turned away with 30 by SITE/6/1/MM-01T00:00:00Z
SITE/6/1/MM-01T00:00:00Z: 0 of 10",
    );
    assert_eq!(explain(&["--bucket", &site]), of_site);
    let line = months("INVENTORY/5/1/MM-01T00:00:00Z");
    let of_line: Vec<&str> = all
        .lines()
        .filter(|told| told.contains(&line) || ["reversed", "held"].iter().any(|end| told.ends_with(end)))
        .collect();
    let not_included = months("MM-06T10:00:00Z /switch too much: 90 at 9: not included 25 at 2.5");
    let explained = explain(&["--bucket", &line]);
    assert_eq!(explained.lines().filter(|told| *told != not_included).collect::<Vec<_>>(), of_line);
    assert!(explained.contains(&not_included));
    let this_month = format!("SITE/6/1/{}T00:00:00Z", today.first_of_month());
    assert_eq!(explain(&["--bucket", &this_month]), format!("{this_month}: 10 of 10"), "nothing drew from it");
    let refused = |bucket: &str, code| {
        let output = deployment.command(&["explain", "--customer", "17", "--bucket", bucket]).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(bucket), "{said}");
    };
    refused("SITE/9/1/2026-01-01T00:00:00Z", 1);
    refused("SITE/9/1", 2);

    // The same in JSON.
    let json: Vec<Value> = explain(&["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = |id: &str, day, quantity: i64, price: i64| json!({"source": "/switch", "id": id, "startTime": at(day), "quantity": quantity, "price": price});
    let customer = months("CUSTOMER/7/1/MM-01T00:00:00Z");
    assert_eq!(json.len(), all.lines().count());
    assert_eq!(
        json[4],
        json!({"event": event("peak", 3, 20, 40), "what": "drew", "amount": 15, "bucket": customer, "remaining": 65})
    );
    assert_eq!(
        json[11],
        json!({"event": event("too much", 6, 90, 9), "what": "turned away", "amount": 25, "bucket": customer})
    );
    assert_eq!(
        json[12],
        json!({"event": event("too much", 6, 90, 9), "what": "not included", "amount": 25, "cost": 2.5})
    );
    assert_eq!(json[8], json!({"event": event("taken back", 5, 10, 0), "what": "reversed"}));
    assert_eq!(json[13], json!({"event": event("late", 7, 15, 0), "what": "held"}));
    let bucket = json!({"bucket": customer, "byValue": false, "allowance": 100, "remaining": 0, "differs": false,
        "storedAllowance": null, "storedRemaining": null});
    assert!(json[14..].contains(&bucket), "{json:#?}");
}
