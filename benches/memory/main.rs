//! How much memory a worker takes: `make bench-memory CUSTOMERS=1000000 EVENTS=5000000`.
//!
//! Against the Kafka and PostgreSQL of `scripts/services`, in four stages, each in a process of its own (worker and
//! relay) from its first record to its last: the customers become known, a backlog of usage is taken in, and a smaller
//! one by a database that holds every commit for half a second; then, in a deployment of their own, that of customers who have
//! a bucket of each day of a year. It prints RSS over time and the peak of each stage, and fails
//! where one passes `LIMIT_MIB` (381, which are 400 MB). `SET` has further settings, with blanks between, such as `worker.cache_bytes=64MiB`; `HEADROOM_BIN` names another program to run.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod deployment;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use deployment::{Deployment, Running};
use headroom::domain::Partitioner;
use headroom::stream::feeder::{Feed, Feeder};
use serde_json::json;

/// Partitions of the input topics.
const PARTITIONS: i32 = 8;
/// Midnight of 2026-11-01, in milliseconds.
const BEGIN: i64 = 1_793_491_200_000;
/// Of a hundred records of usage, how many repeat an earlier one, and how many come up to an hour late.
const DUPLICATES: u64 = 1;
const LATE: u64 = 2;

/// Customers with a bucket of each day, and how many days.
const DAILY: u64 = 4_000;
const DAYS: u64 = 365;

/// A number of the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} wants a number")))
}

/// A number that looks random and is the same each time.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Sends records of one topic.
struct Sending<'a> {
    feeder: Feeder,
    topic: &'a str,
    sent: u64,
}

impl Sending<'_> {
    fn send(&mut self, kind: &str, id: &str, key: u64, timestamp: i64, data: &serde_json::Value) {
        let value = json!({"specversion": "1.0", "type": kind, "source": "/bench", "id": id, "data": data}).to_string();
        let key = key.to_string();
        let partition = Partitioner::Murmur2.partition(key.as_bytes(), PARTITIONS);
        self.feeder.send(&Feed { topic: self.topic, partition, key: &key, value: Some(&value), timestamp }).unwrap();
        self.sent += 1;
    }
}

fn customers(deployment: &Deployment, count: u64) -> u64 {
    let mut sending = deployment.sending("ASSIGNMENTS");
    let run = json!({"version": 1, "billRunId": 1, "billingCycleId": 0, "periodStartDate": "2026-11-01",
        "periodEndDate": "2026-11-30", "status": "OPEN"});
    sending.send("bill-run.changed", "run", 1, BEGIN, &run);
    for customer in 1..=count {
        let fact = json!({
            "version": 1, "assignmentId": 1, "assignmentLevel": "CUSTOMER", "customerId": customer,
            "startDate": "2026-11-01", "plan": {"inclusiveUsagePlanId": 10, "components":
                [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 400}]},
        });
        sending.send("assignment.changed", &format!("a-{customer}"), customer, BEGIN, &fact);
    }
    sending.feeder.flush().unwrap();
    sending.sent
}

/// Usage `from` the so-manieth event on, over all customers alike.
fn usage(deployment: &Deployment, customers: u64, from: u64, count: u64) -> u64 {
    let mut sending = deployment.sending("USAGE");
    for place in from..from + count {
        let dice = mix(place);
        let event = if dice % 100 < DUPLICATES { place.saturating_sub(mix(dice) % 10_000) } else { place };
        let dice = mix(event);
        let customer = 1 + mix(dice) % customers;
        let late = if (dice >> 8) % 100 < LATE { i64::try_from(mix(dice) % 3_600_000).unwrap() } else { 0 };
        // A day's usage for a million events, and nothing before the month.
        let start = BEGIN + 3_600_000 + i64::try_from(event).unwrap() * 86 - late;
        let data = json!({
            "customerId": customer, "siteId": customer, "usageProductInventoryId": customer, "usageProductId": 1,
            "startTime": jiff::Timestamp::from_millisecond(start).unwrap().to_string(), "chargingType": "DURATION",
            "quantity": 60, "price": 12, "timeband": "PEAK", "destination": "447700900123",
        });
        sending.send("usage.recorded", &format!("u-{event}"), customer, start + 1_000, &data);
    }
    sending.feeder.flush().unwrap();
    sending.sent
}

/// A plan by the day for some customers, and usage of each of them on each day.
fn daily(deployment: &Deployment) -> u64 {
    let begin = BEGIN - i64::try_from(DAYS).unwrap() * 86_400_000;
    let date = |at: i64| jiff::Timestamp::from_millisecond(at).unwrap().to_string();
    let mut facts = deployment.sending("ASSIGNMENTS");
    for customer in 1..=DAILY {
        let fact = json!({
            "version": 1, "assignmentId": 1, "assignmentLevel": "CUSTOMER", "customerId": customer,
            "startDate": date(begin)[..10], "plan": {"inclusiveUsagePlanId": 10, "frequency": "DAILY", "components":
                [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 400}]},
        });
        facts.send("assignment.changed", &format!("a-{customer}"), customer, begin, &fact);
    }
    facts.feeder.flush().unwrap();
    let mut sending = deployment.sending("USAGE");
    for day in 0..DAYS {
        let start = begin + i64::try_from(day).unwrap() * 86_400_000 + 3_600_000;
        for customer in 1..=DAILY {
            let data = json!({
                "customerId": customer, "siteId": customer, "usageProductInventoryId": customer, "usageProductId": 1,
                "startTime": date(start), "chargingType": "DURATION", "quantity": 60,
            });
            sending.send("usage.recorded", &format!("u-{day}-{customer}"), customer, start + 1_000, &data);
        }
    }
    sending.feeder.flush().unwrap();
    facts.sent + sending.sent
}

/// The peak of a stage, in MiB, from its first record to its last.
fn stage(name: &str, deployment: &Deployment, running: &Running, records: u64) -> u64 {
    let (begun, mut told) = (Instant::now(), Instant::now());
    loop {
        let done = deployment.records();
        let (rss, peak) = running.memory();
        if done >= records || told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            println!("{name}  {:>5} s  {done:>9} records  RSS {rss:>4} MiB", begun.elapsed().as_secs());
        }
        if done >= records {
            let seconds = begun.elapsed().as_secs_f64();
            println!("{name}  peak {peak} MiB, {records} records in {seconds:.1} s\n");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn main() -> ExitCode {
    let (known, events) = (number("CUSTOMERS", 1_000_000), number("EVENTS", 5_000_000));
    let limit = number("LIMIT_MIB", 381);
    let deployment = Deployment::new(PARTITIONS);
    let mut peaks = Vec::new();

    println!("{known} customers with a plan each");
    let records = customers(&deployment, known);
    peaks.push(stage("customers", &deployment, &deployment.run(), records));

    println!("a backlog of {events} usage events");
    let records = usage(&deployment, known, 0, events);
    peaks.push(stage("usage    ", &deployment, &deployment.run(), records));

    println!("a backlog of {} usage events, and a database that holds every commit for half a second", events / 10);
    let records = usage(&deployment, known, events, events / 10);
    deployment.slow_down();
    peaks.push(stage("slow     ", &deployment, &deployment.run(), records));

    drop(deployment);

    println!("{DAILY} customers with a bucket of each of {DAYS} days");
    let deployment = Deployment::new(PARTITIONS);
    let records = daily(&deployment);
    peaks.push(stage("daily    ", &deployment, &deployment.run(), records));

    let most = peaks.iter().copied().max().unwrap_or_default();
    println!("peak: {most} MiB; the limit is {limit} MiB");
    if most <= limit { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
