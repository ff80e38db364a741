//! The program as it is deployed: the environment of `docker-compose.yml` against real Kafka and PostgreSQL, events in,
//! balances, alerts, metrics and dead letters out, and a `kill -9` in between.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod applied;
mod bill_runs;
mod causes;
mod certificates;
mod dead_letters;
mod deployment;
mod ends;
mod explain;
mod fairness;
mod gaps;
mod health;
mod keys;
mod lock;
mod moving_in;
#[path = "../support/ports.rs"]
mod ports;
mod processes;
mod proxy;
mod rebuild;
mod refusals;
mod secured;

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use headroom::stream::alerts::AlertsReader;
use serde_json::{Value, json};

use crate::deployment::{Deployment, now, on_postgres, until};

#[test]
fn events_become_balances_and_alerts_whatever_is_killed() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();

    // Facts of a customer with 500 minutes, in a month that a bill run covers.
    let month = jiff::Timestamp::from_millisecond(now()).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    let (first, last) = (month.first_of_month().to_string(), month.last_of_month().to_string());
    let run = json!({"version": 1, "billRunId": 1, "billingCycleId": 1, "periodStartDate": first, "periodEndDate": last,
        "status": "OPEN"});
    deployment.send("bill-run.changed", "/billing", "run-1", 1, &run);
    let customer = json!({"version": 1, "customerId": 17, "billingCycleId": 1, "contractOwnerId": 1});
    deployment.send("customer.changed", "/crm", "customer-17", 17, &customer);
    let line = json!({"version": 1, "usageProductInventoryId": 11, "siteId": 1, "customerId": 17, "usageProductId": 1});
    deployment.send("inventory.changed", "/crm", "line-11", 17, &line);
    let assignment = json!({
        "version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17, "startDate": first,
        "plan": {"inclusiveUsagePlanId": 10, "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 30000}]},
    });
    deployment.send("assignment.changed", "/crm", "assignment-5", 17, &assignment);
    until("the facts are in", || {
        deployment
            .metrics()
            .iter()
            .filter(|(name, _)| name.starts_with("headroom_records_total"))
            .map(|(_, n)| n)
            .sum::<f64>()
            >= 4.0
    });

    // Killed between two calls: what was committed stays, what was not comes again.
    deployment.call("call-1", 20_000);
    drop(running);
    deployment.call("call-2", 5_000);
    deployment.send("usage.recorded", "/switch", "call-3", 17, &json!({"customerId": 17, "quantity": -1}));
    let mut running = deployment.run();
    until("all three are in", || {
        deployment.totals()["usageEvents"]["counted"] == 2
            && on_postgres(&deployment.environment["HEADROOM_STORE__URL"], "select count(*) from dead_letter")
                == Some(1)
    });
    assert_eq!(deployment.totals()["drawn"]["DURATION"], 25_000);
    assert_eq!(deployment.totals()["alerts"], json!({"crossed": 1, "recovered": 0}));

    // The query.
    let url = format!("http://{}/inclusive-usage-balances?page=1&pageSize=10&customerId=17", deployment.query);
    let refused = ureq::get(&url).config().http_status_as_error(false).build().call().unwrap();
    assert_eq!(refused.status(), 401);
    let left = |row: &Value| row["inclusiveUsageBalanceAssignments"][0]["components"][0]["remaining"].clone();
    until("the run's row is there", || !deployment.rows("&customerId=17").is_empty());
    assert_eq!(deployment.rows("&customerId=17").iter().map(left).collect::<Vec<_>>(), [json!(5_000)]);

    // The alert, once.
    let mut reader = AlertsReader::new(&deployment.options(), &[]).unwrap();
    let mut alerts: Vec<Value> = Vec::new();
    until("the alert is published", || {
        if let Some(alert) = reader.next_payload(Duration::from_millis(200)).unwrap() {
            alerts.push(serde_json::from_slice(&alert).unwrap());
        }
        !alerts.is_empty()
    });
    while let Some(alert) = reader.next_payload(Duration::from_secs(1)).unwrap() {
        alerts.push(serde_json::from_slice(&alert).unwrap());
    }
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["type"], "balance.threshold.crossed");
    assert_eq!(alerts[0]["data"]["remainingAfter"], 5_000);
    assert_eq!(alerts[0]["data"]["cause"]["id"], "call-2");

    // A clean end.
    let told = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

/// Runs to the end of a start that cannot succeed, and gives its one line.
pub(crate) fn refused(deployment: &Deployment, arguments: &[&str], code: i32) -> String {
    let output = deployment.command(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("headroom: ")).collect();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].to_owned()
}

#[test]
fn what_is_missing_at_the_start_is_one_line() {
    let with = |changes: &[(&str, Option<&str>)]| {
        let mut deployment = Deployment::new();
        for (key, value) in changes {
            match value {
                Some(value) => deployment.environment.insert((*key).to_owned(), (*value).to_owned()),
                None => deployment.environment.remove(*key),
            };
        }
        deployment
    };
    let store = "HEADROOM_STORE__URL";
    for (changes, code, names) in [
        (vec![(store, None)], 2, vec!["store.url"]),
        (vec![(store, Some("mysql://db/x"))], 2, vec!["store.url", "mysql"]),
        (vec![("HEADROOM_KAFKA__GRUOP", Some("x"))], 2, vec!["kafka.gruop"]),
        (vec![("HEADROOM_STORE__CONNECTIONS", Some("many"))], 2, vec!["store.connections", "many"]),
        (vec![("HEADROOM_AUTH__HS256_SECRET", None)], 2, vec!["auth.hs256_secret"]),
        (vec![(store, Some("postgres://headroom@127.0.0.1:1/headroom"))], 1, vec!["127.0.0.1:1", "connection refused"]),
        (vec![("HEADROOM_KAFKA__BOOTSTRAP_SERVERS", Some("127.0.0.1:1"))], 1, vec!["127.0.0.1:1"]),
    ] {
        let line = refused(&with(&changes), &["run"], code);
        for name in names {
            assert!(line.to_lowercase().contains(name), "{changes:?} gave: {line}");
        }
    }
    let deployment = Deployment::new();
    let line = refused(&deployment, &["run"], 1);
    assert!(line.contains(&deployment.environment["HEADROOM_TOPICS__USAGE"]), "topics are missing: {line}");
    assert!(line.contains("topics create"), "and the way out is named: {line}");

    let no_database = with(&[]);
    let url = format!("{}-not", no_database.environment[store]);
    let mut no_database = no_database;
    no_database.environment.insert(store.to_owned(), url);
    let line = refused(&no_database, &["run"], 1);
    assert!(line.contains("does not exist"), "{line}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = refused(&with(&[("HEADROOM_HTTP__LISTEN", Some(&address))]), &["run"], 1);
    assert!(line.contains(&address) && line.contains("--listen"), "{line}");
}
