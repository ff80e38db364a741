//! What the database refuses for a while is tried again until it takes it, told meanwhile, and counts once.

use std::time::Duration;

use headroom::stream::alerts::AlertsReader;
use serde_json::json;
use uuid::Uuid;

use crate::deployment::{Deployment, on_postgres, until};

/// Faults that pass, by their SQLSTATEs and what PostgreSQL says with them.
const PASSING: [(&str, &str); 5] = [
    ("40001", "could not serialize access due to concurrent update"),
    ("40P01", "deadlock detected"),
    ("53100", "could not extend file: No space left on device"),
    ("53200", "out of memory"),
    ("58030", "could not read block: Input/output error"),
];

/// Has each write to a table refused.
fn refuse(store: &str, table: &str, code: &str, words: &str) {
    let raise = format!(
        "create or replace function refuse() returns trigger language plpgsql as \
         $$ begin raise exception '{words}' using errcode = '{code}'; end $$"
    );
    on_postgres(store, &raise);
    on_postgres(store, &format!("create trigger refused before insert or update on {table} execute function refuse()"));
}

fn accept(store: &str, table: &str) {
    on_postgres(store, &format!("drop trigger refused on {table}"));
}

#[test]
fn refused_commits_are_tried_again_and_count_once() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    let store = &deployment.environment["HEADROOM_STORE__URL"];
    for (done, (code, words)) in PASSING.iter().enumerate() {
        refuse(store, "ledger", code, words);
        deployment.call(&format!("call-{code}"), 60);
        until("it is told", || deployment.told("store").contains(words));
        assert_eq!(deployment.health("live").0, 200, "another start would not help");
        assert_eq!(on_postgres(store, "select count(*) from ledger"), Some(done as i64));
        accept(store, "ledger");
        until("it counts", || deployment.outcomes("counted") == (done + 1) as f64);
        until("it is well", || deployment.health("ready").0 == 200);
    }
    assert_eq!(on_postgres(store, "select count(*) from ledger"), Some(PASSING.len() as i64));
    assert_eq!(deployment.outcomes("duplicate"), 0.0);
    drop(running);
}

#[test]
fn an_alert_whose_number_cannot_be_noted_is_published_once() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    let store = &deployment.environment["HEADROOM_STORE__URL"];
    let assignment = json!({"version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17,
        "startDate": "2020-01-01", "plan": {"inclusiveUsagePlanId": 10, "components":
        [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 600}]}});
    deployment.send("assignment.changed", "/crm", "a", 17, &assignment);
    until("the bundle is in", || deployment.outcomes("applied") == 1.0);
    let (code, words) = PASSING[2];
    refuse(store, "relay_number", code, words);
    deployment.call("all of it", 600);
    until("it is told", || deployment.told("relay").contains(words));
    accept(store, "relay_number");
    until("it is well", || deployment.health("ready").0 == 200);
    let raised = on_postgres(store, "select sum(crossed)::int8 from progress").unwrap();
    assert!(raised > 0);
    let published = "select coalesce(sum(number), 0)::int8 from relay_number";
    until("all are noted as published", || on_postgres(store, published) == Some(raised));
    let mut reader = AlertsReader::new(&deployment.options(), &[]).unwrap();
    let mut alerts = 0;
    until("all can be read", || {
        alerts += i64::from(reader.next_payload(Duration::from_millis(200)).unwrap().is_some());
        alerts >= raised
    });
    while reader.next_payload(Duration::from_secs(1)).unwrap().is_some() {
        alerts += 1;
    }
    assert_eq!(alerts, raised);
}

#[test]
fn connections_that_run_out_are_waited_for() {
    let mut deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let admin = deployment.environment["HEADROOM_STORE__URL"].clone();
    // As a role of its own, since limits do not hold for those who may do everything.
    let role = format!("limited_{}", Uuid::new_v4().simple());
    on_postgres(&admin, &format!("create role {role} login"));
    let (server, database) = admin.rsplit_once('/').unwrap();
    on_postgres(&admin, &format!("alter database \"{database}\" owner to {role}"));
    on_postgres(&admin, &format!("grant all on schema public to {role}"));
    let own = format!("{}/{database}", server.replace("headroom@", &format!("{role}@")));
    assert_ne!(own, admin);
    deployment.environment.insert("HEADROOM_STORE__URL".to_owned(), own);
    let running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    on_postgres(&admin, &format!("alter role {role} connection limit 0"));
    let end_all = format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = '{role}'");
    on_postgres(&admin, &end_all);
    deployment.call("meanwhile", 60);
    until("it is told", || deployment.told("store").contains("too many connections for role"));
    assert_eq!(deployment.health("live").0, 200, "another start would not help");
    on_postgres(&admin, &format!("alter role {role} connection limit -1"));
    until("it counts", || deployment.outcomes("counted") == 1.0);
    until("it is well", || deployment.health("ready").0 == 200);
    drop(running);
}
