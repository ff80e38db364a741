//! Moving in (`docs/moving-in.md`): balances that another system has half used are taken over in the middle of a month.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::deployment::{Deployment, now, until};

/// Customers of the old system, which live on all partitions.
const CUSTOMERS: std::ops::Range<i64> = 1..121;

/// A bucket by customer, level, assignmentId and first day.
type Bucket = (i64, &'static str, i64, String);

/// What there is of a bucket, in the old system.
struct Old {
    allowance: i64,
    drawn: i64,
}

/// The month at hand and the two before, by their first days.
struct Months {
    before_last: String,
    last: String,
    this: String,
}

fn months() -> Months {
    let today = jiff::Timestamp::from_millisecond(now()).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let this = today.first_of_month();
    let before = |month: jiff::civil::Date| month.yesterday().unwrap().first_of_month();
    let last = before(this);
    Months { before_last: before(last).to_string(), last: last.to_string(), this: this.to_string() }
}

/// The balances of the old system: minutes of the customer, which roll over, money of the site, megabytes of the line.
/// Minutes of this month are drawn once those of the last are used up. Those of the month before the last can be drawn no
/// more, and nobody tells what was left of them.
fn old_balances(months: &Months) -> BTreeMap<Bucket, Old> {
    let mut old = BTreeMap::new();
    for customer in CUSTOMERS {
        let minutes = customer % 7 * 7_000;
        let mut bucket = |level, id, month: &str, allowance, drawn| {
            old.insert((customer, level, id, month.to_owned()), Old { allowance, drawn });
        };
        bucket("CUSTOMER", 10, &months.last, 30_000, minutes.min(30_000));
        bucket("CUSTOMER", 10, &months.this, 30_000, (minutes - 30_000).max(0));
        bucket("SITE", 20, &months.this, 2_000, customer % 5 * 500);
        bucket("INVENTORY", 30, &months.this, 1_000, customer % 3 * 400);
    }
    old
}

/// The line and the assignments of a customer.
fn facts(deployment: &Deployment, customer: i64, months: &Months) {
    let line = json!({"version": 1, "customerId": customer, "usageProductInventoryId": customer * 10,
        "siteId": customer * 10 + 1, "usageProductId": 1});
    deployment.queue("inventory.changed", "/old", &format!("line-{customer}"), customer, &line);
    let assign = |level: &str, id: i64, start: &str, rollover: i64, component: Value| {
        let fact = json!({"version": 1, "assignmentId": id, "assignmentLevel": level, "customerId": customer,
            "siteId": customer * 10 + 1, "usageProductInventoryId": customer * 10, "startDate": start,
            "plan": {"inclusiveUsagePlanId": id, "rolloverPeriods": rollover, "components": [component]}});
        deployment.queue("assignment.changed", "/old", &format!("a-{customer}-{id}"), customer, &fact);
    };
    let minutes = json!({"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 30_000});
    assign("CUSTOMER", 10, &months.before_last, 1, minutes);
    let money = json!({"componentId": 1, "byValue": true, "chargingType": "DURATION", "allowance": 2_000});
    assign("SITE", 20, &months.this, 0, money);
    let megabytes = json!({"componentId": 1, "byValue": false, "chargingType": "MB", "allowance": 1_000});
    assign("INVENTORY", 30, &months.this, 0, megabytes);
}

/// Usage of a customer's one line.
fn usage(customer: i64, kind: &str, start: &str, quantity: i64, price: i64) -> Value {
    json!({"customerId": customer, "siteId": customer * 10 + 1, "usageProductInventoryId": customer * 10,
        "usageProductId": 1, "startTime": start, "chargingType": kind, "quantity": quantity, "price": price})
}

/// What is left in each bucket by the query.
fn left(deployment: &Deployment) -> BTreeMap<Bucket, i64> {
    let mut left = BTreeMap::new();
    for row in deployment.rows("") {
        let customer = row["usageProductInventoryId"].as_i64().unwrap() / 10;
        for assignment in row["inclusiveUsageBalanceAssignments"].as_array().unwrap() {
            let level = ["CUSTOMER", "SITE", "INVENTORY"].into_iter().find(|one| assignment["assignmentLevel"] == *one);
            for component in assignment["components"].as_array().unwrap() {
                let day = component["startDate"].as_str().unwrap()[..10].to_owned();
                let id = assignment["assignmentId"].as_i64().unwrap();
                let bucket = (customer, level.unwrap(), id, day);
                assert_eq!(left.insert(bucket, component["remaining"].as_i64().unwrap()), None);
            }
        }
    }
    left
}

#[test]
fn half_used_balances_are_taken_over_by_one_opening_for_each_bucket() {
    let months = months();
    let old = old_balances(&months);
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();

    // The facts first: no usage is known, so none of them has anything folded.
    for customer in CUSTOMERS {
        facts(&deployment, customer, &months);
    }
    let facts = 4.0 * CUSTOMERS.count() as f64;
    until("the facts are in", || deployment.outcomes("applied") == facts && deployment.lag() == 0.0);
    assert_eq!(deployment.metrics()["headroom_replays_total"], 0.0);
    assert_eq!(deployment.outcomes("dead_letter"), 0.0);

    // One opening for each bucket that something was drawn from, at the first instant of the month at hand.
    let at = format!("{}T00:00:00Z", months.this);
    let openings: Vec<_> = old.iter().filter(|(_, old)| old.drawn > 0).collect();
    for ((customer, level, assignment, day), Old { drawn, .. }) in &openings {
        let opening = match *level {
            "SITE" => usage(*customer, "DURATION", &at, 0, *drawn),
            "INVENTORY" => usage(*customer, "MB", &at, *drawn, 0),
            _ => usage(*customer, "DURATION", &at, *drawn, 0),
        };
        let id = format!("{customer}/{level}/{assignment}/1/{day}");
        deployment.queue("usage.recorded", "takeover", &id, *customer, &opening);
    }
    let counted = || deployment.totals()["usageEvents"].clone();
    until("the openings are in", || counted()["counted"] == openings.len());

    // The totals against the old system's sums.
    let sum = |levels: &str| -> i64 {
        old.iter().filter(|((_, level, ..), _)| *level == levels).map(|(_, old)| old.drawn).sum()
    };
    let drawn = json!({"DURATION": sum("CUSTOMER"), "MB": sum("INVENTORY"), "ONE_OFF": 0});
    let totals = deployment.totals();
    assert_eq!(totals["usageEvents"], json!({"counted": openings.len(), "held": 0, "reversed": 0}));
    assert_eq!(totals["drawn"], drawn);
    assert_eq!(totals["quantity"], drawn, "all of it found room");
    assert_eq!(totals["drawnByValue"], json!({"DURATION": sum("SITE"), "MB": 0, "ONE_OFF": 0}));
    let audited = deployment.say(&["audit"]);
    assert_eq!(audited, format!("{} customers, {} events, 0 differences", CUSTOMERS.count(), openings.len()));

    // Bill runs after the openings, and then bucket by bucket against the old system's own list.
    let last_day = months.this.parse::<jiff::civil::Date>().unwrap().last_of_month().to_string();
    let run = json!({"version": 1, "billRunId": 1, "billingCycleId": 0, "periodStartDate": months.this,
        "periodEndDate": last_day, "status": "OPEN"});
    deployment.send("bill-run.changed", "/old", "run-1", 1, &run);
    until("there are rows of all", || deployment.rows("").len() == CUSTOMERS.count());
    let expected: BTreeMap<Bucket, i64> =
        old.iter().map(|(bucket, old)| (bucket.clone(), old.allowance - old.drawn)).collect();
    assert_eq!(left(&deployment), expected);

    // Usage from the cut on draws what the old system left, and a wrong opening is reversed and given anew.
    let start = jiff::Timestamp::from_millisecond(now()).unwrap().to_string();
    deployment.send("usage.recorded", "/switch", "call-1", 5, &usage(5, "DURATION", &start, 1_000, 0));
    let wrong = json!({"customerId": 1, "reverses": {"source": "takeover", "id": format!("1/INVENTORY/30/1/{}", months.this),
        "startTime": at}});
    deployment.send("usage.reversed", "takeover", "correction-1", 1, &wrong);
    let right = usage(1, "MB", &at, 399, 0);
    deployment.send("usage.recorded", "takeover", &format!("1/INVENTORY/30/1/{}/2", months.this), 1, &right);
    until("all of it is in", || counted() == json!({"counted": openings.len() + 1, "held": 0, "reversed": 1}));
    let mut expected = expected;
    // Customer 5 had used up the last month's minutes, and 5,000 of this one's.
    assert_eq!(expected.insert((5, "CUSTOMER", 10, months.this.clone()), 24_000), Some(25_000));
    assert_eq!(expected.insert((1, "INVENTORY", 30, months.this.clone()), 601), Some(600));
    until("the query says so", || left(&deployment) == expected);
}
