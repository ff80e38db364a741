//! How late a balance and an alert are: usage comes in at a steady rate, and now and then an event of a customer who is
//! watched, until it is in the query's answer, and until its alert is there for a read_committed reader.
//!
//! `make bench-latency` runs it; `EVENTS_PER_SECOND` (10,000); `DURATION`, how many seconds (30); `BACKLOG`, events that wait
//! when the service starts (0): it prints how long those take, and the latencies are those after it; `PARTITIONS` of each
//! input (8).

#![expect(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

#[path = "../bench_http/deployment.rs"]
mod deployment;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headroom::domain::Partitioner;
use headroom::stream::feeder::{Feed, Feeder};
use jiff::ToSpan as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;

use deployment::{Deployment, on_postgres, until};

/// Customers whose usage makes the rate.
const CUSTOMERS: i64 = 20_000;
/// Customers who are watched; the first of them.
const WATCHED: std::ops::Range<i64> = 1_000_001..1_000_101;
/// Between two events of theirs.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a balance may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

fn millis() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn number(name: &str, usual: i64) -> i64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Who sends.
struct Sender {
    feeder: Feeder,
    partitions: i32,
    topics: [String; 2],
    sent: AtomicI64,
}

impl Sender {
    fn send(&self, kind: &str, id: &str, customer: i64, data: &str) {
        let topic = &self.topics[usize::from(!kind.starts_with("usage."))];
        let value = format!(
            "{{\"specversion\":\"1.0\",\"type\":\"{kind}\",\"source\":\"/bench\",\"id\":\"{id}\",\"data\":{data}}}"
        );
        let key = customer.to_string();
        let partition = Partitioner::Murmur2.partition(key.as_bytes(), self.partitions);
        self.feeder.send(&Feed { topic, partition, key: &key, value: Some(&value), timestamp: millis() }).unwrap();
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// A plan, and for the watched a threshold that each event crosses.
    fn customer(&self, customer: i64) {
        let thresholds = match WATCHED.contains(&customer) {
            true => (0..1_000).map(|at| format!("{{\"remaining\":{at}}}")).collect::<Vec<String>>().join(","),
            false => String::new(),
        };
        let allowance = if WATCHED.contains(&customer) { 1_000 } else { 1_000_000_000 };
        self.send(
            "customer.changed",
            "c",
            customer,
            &format!("{{\"version\":1,\"customerId\":{customer},\"billingCycleId\":1}}"),
        );
        self.send("assignment.changed", "a", customer, &format!(
            "{{\"version\":1,\"assignmentId\":{customer},\"customerId\":{customer},\"startDate\":\"2026-01-01\",\
             \"assignmentLevel\":\"CUSTOMER\",\"thresholds\":[{thresholds}],\"plan\":{{\"inclusiveUsagePlanId\":1,\
             \"components\":[{{\"componentId\":1,\"byValue\":false,\"chargingType\":\"ONE_OFF\",\"allowance\":{allowance}}}]}}}}"));
    }

    fn usage(&self, id: &str, customer: i64) {
        let now = jiff::Timestamp::from_millisecond(millis()).unwrap();
        self.send(
            "usage.recorded",
            id,
            customer,
            &format!(
                "{{\"customerId\":{customer},\"siteId\":{customer},\"usageProductInventoryId\":{customer},\
             \"usageProductId\":1,\"startTime\":\"{now}\",\"chargingType\":\"ONE_OFF\",\"quantity\":1,\"price\":0}}"
            ),
        );
    }
}

/// Times by the id of the event that was sent then.
type Times = Arc<Mutex<HashMap<String, Instant>>>;

fn shown(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    println!("{name:<24} p50 {:6.1} ms  p99 {:6.1} ms  worst {:6.1} ms  of {}", at(0.5), at(0.99), at(1.0), took.len());
}

/// Ends the sender and the reader of alerts, also when a balance does not come.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Notes when alerts of the watched come, until all of them are there.
fn read_alerts(deployment: &Deployment, sent: Times, is_over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &deployment.kafka).set("group.id", format!("{}-reader", deployment.alerts));
    config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
    config.set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&deployment.alerts]).unwrap();
    let (mut took, mut idle) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) || idle < 20 {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            idle += 1;
            continue;
        };
        let (now, message) = (Instant::now(), message.unwrap());
        idle = 0;
        let alert: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let id = alert["data"]["cause"]["id"].as_str().unwrap();
        took.extend(sent.lock().unwrap().remove(id).map(|begun| now - begun));
    }
    took
}

fn main() {
    let (rate, seconds, backlog) = (number("EVENTS_PER_SECOND", 10_000), number("DURATION", 30), number("BACKLOG", 0));
    let partitions = number("PARTITIONS", 8);
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", &partitions.to_string()]);
    deployment.say(&["migrate"]);
    let token = deployment.say(&["token"]);
    let sender = Arc::new(Sender {
        feeder: Feeder::new(&deployment.kafka).unwrap(),
        partitions: i32::try_from(partitions).unwrap(),
        topics: deployment.topics.clone(),
        sent: AtomicI64::new(0),
    });
    let today = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date();
    let (from, until_date) = (today.saturating_sub(6.months()), today.saturating_add(6.months()));
    let run = format!(
        "{{\"version\":1,\"billRunId\":1,\"billingCycleId\":1,\"periodStartDate\":\"{from}\",\
         \"periodEndDate\":\"{until_date}\",\"status\":\"OPEN\"}}"
    );
    sender.send("bill-run.changed", "r", 1, &run);
    (1..=CUSTOMERS).chain(WATCHED).for_each(|customer| sender.customer(customer));
    (0..backlog).for_each(|at| sender.usage(&format!("l-{at}"), at * 7_919 % CUSTOMERS + 1));
    sender.feeder.flush().unwrap();
    let applied = || {
        on_postgres(&deployment.url, "select sum(usage_offset + assignments_offset)::int8 from progress").unwrap_or(0)
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let steady = thread::spawn({
        let (sender, is_over) = (sender.clone(), is_over.clone());
        move || {
            let (begun, mut at) = (Instant::now(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let due = (begun.elapsed().as_secs_f64() * rate as f64) as i64;
                (at..due).for_each(|at| sender.usage(&format!("u-{at}"), at * 7_919 % CUSTOMERS + 1));
                at = due;
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let started = Instant::now();
    let running = deployment.run("worker,relay,reader", &[]);
    until(|| applied() + rate >= sender.sent.load(Ordering::Relaxed));
    println!("{rate} events a second of {CUSTOMERS} customers over {partitions} partitions");
    println!("the start, {} records: {:.1} s", 2 * CUSTOMERS + backlog, started.elapsed().as_secs_f64());

    let sent: Times = Arc::default();
    let agent = ureq::Agent::new_with_defaults();
    let remaining = |customer: i64| {
        let url =
            format!("http://{}/inclusive-usage-balances?page=1&pageSize=1&customerId={customer}", deployment.query);
        let mut answer = agent.get(&url).header("Authorization", format!("Bearer {token}")).call().unwrap();
        let rows: serde_json::Value = serde_json::from_slice(&answer.body_mut().read_to_vec().unwrap()).unwrap();
        // The run is a year's: whichever of its months is drawn from. Before its first usage a line has no row, which is 0.
        let months =
            rows[0]["inclusiveUsageBalanceAssignments"][0]["components"].as_array().cloned().unwrap_or_default();
        months.iter().filter_map(|month| month["remaining"].as_i64()).sum::<i64>()
    };
    let (mut seen, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(seconds.unsigned_abs()));
    let alerts = thread::scope(|scope| {
        let reading = scope.spawn({
            let (deployment, sent, is_over) = (&deployment, sent.clone(), is_over.clone());
            move || read_alerts(deployment, sent, is_over)
        });
        let ending = Ending(is_over.clone());
        // Past the reader's joining of its group.
        thread::sleep(Duration::from_secs(5));
        let mut at = 0;
        while Instant::now() < deadline + Duration::from_secs(5) {
            let customer = WATCHED.start + at % (WATCHED.end - WATCHED.start);
            let (id, before) = (format!("w-{at}"), remaining(customer));
            let begun = Instant::now();
            sent.lock().unwrap().insert(id.clone(), begun);
            sender.usage(&id, customer);
            while remaining(customer) == before {
                assert!(begun.elapsed() < PATIENCE, "event {id} of customer {customer} has no balance yet");
            }
            seen.push(begun.elapsed());
            at += 1;
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
        }
        drop(ending);
        reading.join().unwrap()
    });
    steady.join().unwrap();
    shown("event to HTTP answer", seen);
    shown("event to alert read", alerts);
    assert!(sent.lock().unwrap().is_empty(), "each event of the watched has its alert");
    drop(running);
}
