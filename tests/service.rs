//! The program as it is deployed: the environment of `docker-compose.yml` against real Kafka and PostgreSQL, events in,
//! balances, alerts, metrics and dead letters out, and a `kill -9` in between.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headroom::domain::Partitioner;
use headroom::stream::Options;
use headroom::stream::alerts::AlertsReader;
use headroom::stream::feeder::{Feed, Feeder};
use serde_json::{Value, json};
use uuid::Uuid;

const HINT: &str = "run `make test`, or `scripts/services up` and `eval \"$(scripts/services env)\"`";
const PARTITIONS: i32 = 8;

/// A deployment with topics and a database of its own.
struct Deployment {
    environment: BTreeMap<String, String>,
    query: String,
    admin: String,
}

/// What docker-compose.yml gives the service headroom.
fn compose_environment() -> BTreeMap<String, String> {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml")).unwrap();
    let (_, after) = file.split_once("environment: &headroom\n").expect("the anchor");
    let lines = after.lines().take_while(|line| line.trim_start().starts_with("HEADROOM_"));
    let pairs = lines.map(|line| line.trim().split_once(": ").expect("a key and a value"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn on_postgres(url: &str, statement: &str) -> Option<i64> {
    use sqlx::{Connection as _, Row as _};
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let row = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).fetch_optional(&mut connection).await.unwrap();
        row.map(|row| row.get(0))
    })
}

impl Deployment {
    fn new() -> Deployment {
        let kafka =
            std::env::var("HEADROOM_TEST_KAFKA").unwrap_or_else(|_| panic!("HEADROOM_TEST_KAFKA is not set: {HINT}"));
        let postgres = std::env::var("HEADROOM_TEST_POSTGRES")
            .unwrap_or_else(|_| panic!("HEADROOM_TEST_POSTGRES is not set: {HINT}"));
        let test = Uuid::new_v4().simple().to_string();
        on_postgres(&format!("{postgres}/postgres"), &format!("create database \"service-{test}\""));
        let (query, admin) = (free_address(), free_address());
        let mut environment = compose_environment();
        // The compose file's own network, ports and secrets have other values here; its keys are what is tried.
        for (key, value) in [
            ("HEADROOM_KAFKA__BOOTSTRAP_SERVERS", kafka),
            ("HEADROOM_STORE__URL", format!("{postgres}/service-{test}")),
            ("HEADROOM_HTTP__LISTEN", query.clone()),
            ("HEADROOM_ADMIN__LISTEN", admin.clone()),
            ("HEADROOM_AUTH__HS256_SECRET", "a secret of thirty-two bytes or more".to_owned()),
        ] {
            assert!(environment.insert(key.to_owned(), value).is_some(), "docker-compose.yml sets no {key}");
        }
        for (key, topic) in [("USAGE", "usage"), ("ASSIGNMENTS", "assignments"), ("ALERTS", "alerts")] {
            environment.insert(format!("HEADROOM_TOPICS__{key}"), format!("{topic}-{test}"));
        }
        environment.insert("HEADROOM_KAFKA__GROUP".to_owned(), format!("group-{test}"));
        Deployment { environment, query, admin }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
        command.args(arguments).env_clear().envs(&self.environment);
        command
    }

    fn say(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn run(&self) -> Running {
        Running(self.command(&["run"]).stderr(Stdio::inherit()).spawn().unwrap())
    }

    fn options(&self) -> Options {
        let of = |key: &str| self.environment[key].clone();
        Options {
            bootstrap_servers: of("HEADROOM_KAFKA__BOOTSTRAP_SERVERS"),
            group: of("HEADROOM_KAFKA__GROUP"),
            properties: BTreeMap::new(),
            usage_topic: of("HEADROOM_TOPICS__USAGE"),
            assignments_topic: of("HEADROOM_TOPICS__ASSIGNMENTS"),
            alerts_topic: of("HEADROOM_TOPICS__ALERTS"),
        }
    }

    fn send(&self, kind: &str, source: &str, id: &str, key: i64, data: &Value) {
        let options = self.options();
        let value = json!({"specversion": "1.0", "type": kind, "source": source, "id": id, "data": data}).to_string();
        let topic = if kind.starts_with("usage.") { &options.usage_topic } else { &options.assignments_topic };
        let key = key.to_string();
        let feeder = Feeder::new(&options.bootstrap_servers).unwrap();
        let partition = Partitioner::Murmur2.partition(key.as_bytes(), PARTITIONS);
        feeder.send(&Feed { topic, partition, key: &key, value: Some(&value), timestamp: now() }).unwrap();
        feeder.flush().unwrap();
    }

    fn call(&self, id: &str, seconds: i64) {
        let data = json!({
            "customerId": 17, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1, "chargingType": "DURATION",
            "quantity": seconds, "price": 0, "startTime": jiff::Timestamp::from_millisecond(now()).unwrap().to_string(),
        });
        // The start time is part of the event's identity, so the same id is another event a moment later.
        self.send("usage.recorded", "/switch", id, 17, &data);
    }

    /// Metrics by series.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let Ok(mut answer) = ureq::get(format!("http://{}/metrics", self.admin)).call() else { return BTreeMap::new() };
        let text = answer.body_mut().read_to_string().unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    fn totals(&self) -> Value {
        serde_json::from_str(&self.say(&["totals"])).unwrap()
    }
}

/// A running program; it is killed when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Waits until this is so; how long it may take is no law, only an end to waiting.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(90), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

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
    let token = deployment.say(&["token"]);
    let url = format!("http://{}/inclusive-usage-balances?page=1&pageSize=10&customerId=17", deployment.query);
    let refused = ureq::get(&url).config().http_status_as_error(false).build().call().unwrap();
    assert_eq!(refused.status(), 401);
    let mut answer = ureq::get(&url).header("Authorization", format!("Bearer {token}")).call().unwrap();
    let page: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let text = page.to_string();
    assert!(text.contains("\"remaining\":5000") || text.contains("5000"), "{text}");

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
fn refused(deployment: &Deployment, arguments: &[&str], code: i32) -> String {
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
        (vec![(store, Some("postgres://headroom@127.0.0.1:1/headroom"))], 1, vec!["127.0.0.1:1"]),
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
