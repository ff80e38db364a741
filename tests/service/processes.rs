//! Several processes of one deployment: who dies is replaced, who was stopped writes nothing when it wakes, and who is too
//! old is refused.

use std::time::Duration;

use headroom::domain::Partitioner;
use serde_json::json;

use crate::deployment::{Deployment, PARTITIONS, now, on_postgres, until, until_within};
use crate::lock::Lock;
use crate::refused;

/// Less than the session of a client that nobody set up (45 s), and more than a slow machine needs for one of 6 s.
const MOVED: Duration = Duration::from_secs(30);

fn ready(deployment: &Deployment) -> bool {
    deployment.health("ready").0 == 200
}

/// How many partitions a process has had.
fn owned(deployment: &Deployment) -> usize {
    let metrics = deployment.metrics();
    metrics.keys().filter(|name| name.starts_with("headroom_partition_stopped")).count() / 2
}

/// A usage event of each of these customers.
fn use_of(deployment: &Deployment, customers: &[i64], id: &str) {
    for customer in customers {
        let data = json!({
            "customerId": customer, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1, "quantity": 1,
            "chargingType": "DURATION", "startTime": jiff::Timestamp::from_millisecond(now()).unwrap().to_string(),
        });
        deployment.send("usage.recorded", "/switch", id, *customer, &data);
    }
}

/// A customer of every partition.
fn one_of_each() -> Vec<i64> {
    let of = |partition: i32| (0..).find(|c| Partitioner::Murmur2.partition_of(*c, PARTITIONS) == partition).unwrap();
    (0..PARTITIONS).map(of).collect()
}

#[test]
fn the_partitions_of_a_worker_that_is_killed_move_to_the_others() {
    let one = Deployment::new();
    one.say(&["topics", "create", "--partitions", "8"]);
    let other = one.beside();
    let dying = one.run_roles("worker");
    until("the first runs", || ready(&one) && owned(&one) == 8);
    let _other = other.run_roles("worker");
    until("they share", || ready(&other) && owned(&other) == 4);
    let customers = one_of_each();
    use_of(&one, &customers, "a");
    until("each has counted its half", || one.outcomes("counted") == 4.0 && other.outcomes("counted") == 4.0);
    dying.signal("KILL");
    use_of(&one, &customers, "b");
    until_within(MOVED, "the other has all", || other.outcomes("counted") == 12.0);
    assert_eq!(one.totals()["usageEvents"]["counted"], 16);
}

#[test]
fn a_worker_with_a_name_has_its_partitions_at_once_after_a_restart() {
    let mut one = Deployment::new();
    one.say(&["topics", "create", "--partitions", "8"]);
    let session = "HEADROOM_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS";
    // Whoever comes as a stranger waits that long for the one who died.
    one.environment.insert(session.to_owned(), "55000".to_owned());
    one.environment.insert("HEADROOM_KAFKA__GROUP_INSTANCE_ID".to_owned(), "one".to_owned());
    let dying = one.run_roles("worker");
    until("it runs", || ready(&one));
    dying.signal("KILL");
    drop(dying);
    let _again = one.run_roles("worker");
    until_within(MOVED, "it has its partitions again", || ready(&one) && owned(&one) == 8);
    use_of(&one, &one_of_each(), "a");
    until("it counts", || one.outcomes("counted") == 8.0);
}

#[test]
fn a_worker_that_was_stopped_within_a_commit_and_wakes_writes_nothing() {
    let one = Deployment::new();
    one.say(&["topics", "create", "--partitions", "8"]);
    let other = one.beside();
    let stopped = one.run_roles("worker");
    until("it runs", || ready(&one));
    let assignment = json!({
        "version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17, "startDate": "2020-01-01",
        "plan": {"inclusiveUsagePlanId": 10, "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 100}]},
    });
    one.send("assignment.changed", "/crm", "assignment-5", 17, &assignment);
    until("the facts are in", || one.outcomes("applied") == 1.0);

    // It waits for the row with a commit, is stopped, and has the row when it can do nothing with it.
    let mut lock = Lock::take(&one, Partitioner::Murmur2.partition_of(17, PARTITIONS));
    one.call("call", 100);
    until("its commit waits", || lock.is_waited_for());
    stopped.signal("STOP");
    lock.let_go();
    let _other = other.run_roles("worker");
    until_within(MOVED, "the other counts what it had in hand", || other.outcomes("counted") == 1.0);
    stopped.signal("CONT");
    until("it is back and they share", || {
        use_of(&one, &[17], "more");
        ready(&one) && one.outcomes("counted") + other.outcomes("counted") > 3.0
    });
    until("all is in", || other.lag() + one.lag() == 0.0);
    let totals = one.totals();
    assert_eq!(totals["drawn"]["DURATION"], 100);
    assert_eq!(totals["alerts"], json!({"crossed": 2, "recovered": 0}), "each once");
    let calls = "select count(*) from ledger where draws <> ''";
    assert_eq!(on_postgres(&one.environment["HEADROOM_STORE__URL"], calls), Some(1));
    one.say(&["audit"]);
}

#[test]
fn a_program_that_is_older_than_the_schema_is_refused() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    deployment.say(&["migrate"]);
    on_postgres(
        &deployment.environment["HEADROOM_STORE__URL"],
        "insert into _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
         values (9999, 'of a later version', now(), true, '\\x00', 0)",
    );
    let line = refused(&deployment, &["run"], 1);
    assert!(line.contains("migration 9999") && line.contains("newer than this program"), "{line}");
}

#[test]
fn topics_with_another_number_of_partitions_are_refused() {
    let mut deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    drop(running);
    for key in ["USAGE", "ASSIGNMENTS"] {
        deployment.environment.get_mut(&format!("HEADROOM_TOPICS__{key}")).unwrap().push_str("-anew");
    }
    deployment.say(&["topics", "create", "--partitions", "4"]);
    let line = refused(&deployment, &["run"], 1);
    assert!(line.contains("the topics have 4 partitions, but the store was made with 8"), "{line}");
}

/// Dates and windows are those of the zone that balances are kept by: by another one, a reader would find no bucket.
#[test]
fn a_reader_goes_by_the_time_zone_that_balances_are_kept_by() {
    let deployment = Deployment::new();
    let zone = "HEADROOM_TIME_ZONE".to_owned();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    // One that was there before any worker, so that nothing was settled yet.
    let _early = deployment.run_roles("reader");
    until("it answers", || deployment.answer("").is_some_and(|rows| rows.is_empty()));
    let mut worker = deployment.beside();
    worker.environment.insert(zone.clone(), "Europe/London".to_owned());
    let _worker = worker.run_roles("worker");
    until("it answers no more", || deployment.answer("").is_none());
    let line = refused(&deployment.beside(), &["run", "--role", "reader"], 2);
    assert!(line.contains("time_zone is UTC, but the store was made with Europe/London"), "{line}");
    let mut reader = deployment.beside();
    reader.environment.insert(zone, "Europe/London".to_owned());
    let _reader = reader.run_roles("reader");
    until("one with the same zone answers", || reader.answer("").is_some());
}
