//! `Headroom-Applied`: up to what time all is in an answer.

use headroom::domain::Partitioner;
use jiff::Timestamp;
use serde_json::json;
use sqlx::Connection as _;

use crate::deployment::{Deployment, PARTITIONS, now, on_postgres, until};

/// Up to what time all is in what a query answers.
fn asked(deployment: &Deployment, token: &str, query: &str) -> Option<Timestamp> {
    let url = format!("http://{}/inclusive-usage-balances?page=1&pageSize=10{query}", deployment.query);
    let answer = ureq::get(&url).header("Authorization", format!("Bearer {token}")).call().ok()?;
    answer.headers().get("headroom-applied").map(|value| value.to_str().unwrap().parse().unwrap())
}

fn instant() -> Timestamp {
    Timestamp::from_millisecond(now()).unwrap()
}

#[test]
fn an_answer_says_up_to_what_time_all_is_in_it() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    let token = deployment.say(&["token"]);
    let on = |home: i32| (1..).filter(move |customer| Partitioner::Murmur2.partition_of(*customer, PARTITIONS) == home);
    let mut of_one = on(3);
    let (one, same, other) = (of_one.next().unwrap(), of_one.next().unwrap(), on(4).next().unwrap());
    let of = |customer: i64| format!("&customerId={customer}");
    let at_last = |begun: Timestamp| {
        let later = |query: &str| asked(&deployment, &token, query).is_some_and(|at| at > begun);
        until("all is applied", || later("") && later(&of(one)) && later(&of(other)));
    };
    at_last(instant());

    // A partition that cannot load an account lags. Its time stands still, and with it that of all; the other one's goes
    // on. No reader needs that table.
    let url = deployment.environment["HEADROOM_STORE__URL"].clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut holder = runtime.block_on(sqlx::PgConnection::connect(&url)).unwrap();
    let lock = "begin; lock table reversal in access exclusive mode";
    runtime.block_on(sqlx::raw_sql(lock).execute(&mut holder)).unwrap();
    let usage = json!({"customerId": same, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1,
        "startTime": instant().to_string(), "chargingType": "DURATION", "quantity": 60, "price": 0});
    deployment.send("usage.recorded", "/switch", "call-1", same, &usage);
    let sent = instant();
    for _ in 0..3 {
        let now = instant();
        until("the other partition goes on", || asked(&deployment, &token, &of(other)).is_some_and(|at| at > now));
        for query in ["", &of(one)] {
            let applied = asked(&deployment, &token, query);
            assert!(applied.is_some_and(|at| at <= sent), "{applied:?} is later than {sent}, and the call is not in");
        }
    }
    runtime.block_on(sqlx::raw_sql("commit").execute(&mut holder)).unwrap();

    // An answer that says a later time has the call in it.
    until("the call is in", || {
        let later = asked(&deployment, &token, &of(one)).is_some_and(|at| at > sent);
        let is_in = on_postgres(&url, "select count(*) from ledger") == Some(1);
        assert!(!later || is_in, "the call is not in");
        later
    });
    at_last(instant());

    // A bill run that its home partition cannot apply yet is missing in the rows of all partitions, so that the time of all
    // stands still.
    let lock = "begin; lock table bill_run in share mode";
    runtime.block_on(sqlx::raw_sql(lock).execute(&mut holder)).unwrap();
    let run = (1..).find(|run| Partitioner::Murmur2.partition_of(*run, PARTITIONS) == 6).unwrap();
    let fact = json!({"version": 1, "billRunId": run, "billingCycleId": 3, "periodStartDate": "2026-09-01",
        "periodEndDate": "2026-09-30", "usageFromDate": "2026-09-01", "usageUntilDate": "2026-09-30", "status": "OPEN"});
    deployment.send("bill-run.changed", "/billing", "run", run, &fact);
    let sent = instant();
    until("its home partition tries", || {
        let waits = "select count(*) from pg_locks where relation = 'bill_run'::regclass and not granted";
        on_postgres(&url, waits) >= Some(1)
    });
    let usage = json!({"customerId": other, "siteId": 1, "usageProductInventoryId": 12, "usageProductId": 1,
        "startTime": instant().to_string(), "chargingType": "DURATION", "quantity": 60, "price": 0});
    deployment.send("usage.recorded", "/switch", "call-2", other, &usage);
    until("the other partition goes on", || on_postgres(&url, "select count(*) from ledger") == Some(2));
    let seen = instant();
    while instant().duration_since(seen).as_secs() < 3 {
        let applied = asked(&deployment, &token, &of(other));
        assert!(applied.is_some_and(|at| at <= sent), "{applied:?} is later than {sent}, and the run is not in");
    }
    runtime.block_on(sqlx::raw_sql("commit").execute(&mut holder)).unwrap();
    until("the run is in", || {
        let later = asked(&deployment, &token, &of(other)).is_some_and(|at| at > sent);
        let home = Partitioner::Murmur2.partition_of(other, PARTITIONS);
        let of_run = format!("select count(*) from bill_run where partition = {home}");
        assert!(!later || on_postgres(&url, &of_run) == Some(1), "the run is not in");
        later
    });
    at_last(instant());
}
