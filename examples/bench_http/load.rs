//! Lines, customers, assignments and usage, by way of the topics.

use std::time::Instant;

use headroom::domain::Partitioner;
use headroom::stream::feeder::{Feed, Feeder};

use crate::LINES;
use crate::deployment::{Deployment, on_postgres, until};

/// Partitions of the inputs.
const PARTITIONS: i32 = 8;
/// When all of it happens: 2026-11-20T12:00:00Z.
const NOW: i64 = 1_795_176_000_000;

struct Feeding<'a> {
    deployment: &'a Deployment,
    feeder: Feeder,
    sent: i64,
}

impl Feeding<'_> {
    fn send(&mut self, kind: &str, key: i64, data: &str) {
        let topic = usize::from(!kind.starts_with("usage."));
        let value = format!(
            "{{\"specversion\":\"1.0\",\"type\":\"{kind}\",\"source\":\"/bench\",\"id\":\"{}\",\"data\":{data}}}",
            self.sent
        );
        let key = key.to_string();
        let partition = Partitioner::Murmur2.partition(key.as_bytes(), PARTITIONS);
        let topic = &self.deployment.topics[topic];
        self.feeder.send(&Feed { topic, partition, key: &key, value: Some(&value), timestamp: NOW }).unwrap();
        self.sent += 1;
    }

    fn bill_run(&mut self, version: i64, id: i64, month: i64, status: &str) {
        let data = format!(
            "{{\"version\":{version},\"billRunId\":{id},\"billingCycleId\":1,\"periodStartDate\":\"2026-{month}-01\",\
             \"periodEndDate\":\"2026-{month}-30\",\"status\":\"{status}\"}}"
        );
        self.send("bill-run.changed", id, &data);
    }

    fn customer(&mut self, customer: i64) {
        let owner = customer % 2_000;
        self.send(
            "customer.changed",
            customer,
            &format!("{{\"version\":1,\"customerId\":{customer},\"billingCycleId\":1,\"contractOwnerId\":{owner}}}"),
        );
        for line in 0..LINES {
            let data = format!(
                "{{\"version\":1,\"usageProductInventoryId\":{},\"siteId\":{},\"customerId\":{customer},\
                 \"usageProductId\":1}}",
                customer * 10 + line,
                customer * 10 + line % 2
            );
            self.send("inventory.changed", customer, &data);
        }
        let first = customer * 10;
        for (at, level, plan) in [
            (0, "\"CUSTOMER\"".to_owned(), 1),
            (1, format!("\"SITE\",\"siteId\":{first}"), 2 + customer % 100),
            (2, format!("\"INVENTORY\",\"usageProductInventoryId\":{first}"), 200 + customer % 10_000),
        ] {
            // The plans of few lines have a component that no other plan has.
            let own = match at {
                2 => format!(
                    ",{{\"componentId\":{},\"byValue\":false,\"chargingType\":\"ONE_OFF\",\"allowance\":5}}",
                    1_000 + plan
                ),
                _ => String::new(),
            };
            let data = format!(
                "{{\"version\":1,\"assignmentId\":{},\"customerId\":{customer},\"startDate\":\"2026-01-01\",\
                 \"assignmentLevel\":{level},\"plan\":{{\"inclusiveUsagePlanId\":{plan},\"components\":[\
                 {{\"componentId\":1,\"byValue\":false,\"chargingType\":\"DURATION\",\"allowance\":30000}},\
                 {{\"componentId\":2,\"byValue\":false,\"chargingType\":\"MB\",\"allowance\":10000}}{own}]}}}}",
                first + at
            );
            self.send("assignment.changed", customer, &data);
        }
    }

    fn usage(&mut self, customer: i64) {
        for line in 0..LINES {
            let data = format!(
                "{{\"customerId\":{customer},\"siteId\":{},\"usageProductInventoryId\":{},\"usageProductId\":1,\
                 \"startTime\":\"2026-1{}-05T10:00:0{line}Z\",\"chargingType\":\"DURATION\",\"quantity\":60}}",
                customer * 10 + line % 2,
                customer * 10 + line,
                line % 2
            );
            self.send("usage.recorded", customer, &data);
        }
    }
}

/// Brings all of it in, and closes one of the two runs.
pub(crate) fn load(deployment: &Deployment, upis: i64) {
    deployment.say(&["topics", "create", "--partitions", &PARTITIONS.to_string()]);
    let _worker = deployment.run("worker", &[]);
    let mut feeding = Feeding { deployment, feeder: Feeder::new(&deployment.kafka).unwrap(), sent: 0 };
    let begun = Instant::now();
    feeding.bill_run(1, 1, 10, "OPEN");
    feeding.bill_run(1, 2, 11, "OPEN");
    let customers = upis / LINES;
    for customer in 1..=customers {
        feeding.customer(customer);
    }
    feeding.feeder.flush().unwrap();
    let progress = |column: &str| format!("select sum({column})::bigint from progress");
    let facts = feeding.sent;
    until(|| on_postgres(&deployment.url, &progress("assignments_offset")) >= Some(facts));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{facts} facts in {seconds:.0} s, {:.0} a second", facts as f64 / seconds);
    let begun = Instant::now();
    for customer in 1..=customers {
        feeding.usage(customer);
    }
    feeding.feeder.flush().unwrap();
    let usage = feeding.sent - facts;
    until(|| on_postgres(&deployment.url, &progress("usage_offset")) >= Some(usage));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{usage} usage events in {seconds:.0} s, {:.0} a second", usage as f64 / seconds);
    let begun = Instant::now();
    feeding.bill_run(2, 1, 10, "CLOSED");
    feeding.feeder.flush().unwrap();
    let stored = "select count(*) from bill_run where bill_run_id = 1 and status = 1 and storing_after is null";
    until(|| on_postgres(&deployment.url, stored) == Some(i64::from(PARTITIONS)));
    println!("{upis} rows of a closed run stored in {:.0} s", begun.elapsed().as_secs_f64());
    on_postgres(&deployment.url, "vacuum analyze");
}
