//! Partitions share the batches that may exist at a time, and none of them can hold all.

use headroom::domain::Partitioner;

use crate::deployment::{Deployment, PARTITIONS, now, until};
use crate::lock::Lock;

#[test]
fn a_partition_that_cannot_commit_leaves_batches_to_the_others() {
    let mut deployment = Deployment::new();
    for (key, value) in [("HEADROOM_WORKER__BATCHES", "3"), ("HEADROOM_WORKER__BATCH_RECORDS", "1")] {
        deployment.environment.insert(key.to_owned(), value.to_owned());
    }
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    let partition_of = |customer: i64| Partitioner::Murmur2.partition_of(customer, PARTITIONS);
    let mut lock = Lock::take(&deployment, partition_of(17));
    for n in 0..10 {
        deployment.call(&format!("call-{n}"), 1);
    }
    until("its commit waits", || lock.is_waited_for());
    let other = (1..).find(|customer| partition_of(*customer) != partition_of(17)).unwrap();
    for n in 0..10 {
        let data = serde_json::json!({
            "customerId": other, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1, "quantity": 1,
            "chargingType": "DURATION", "startTime": jiff::Timestamp::from_millisecond(now()).unwrap().to_string(),
        });
        deployment.send("usage.recorded", "/switch", &format!("other-{n}"), other, &data);
    }
    until("the other's events count", || deployment.outcomes("counted") == 10.0);
    drop(lock);
    until("and then its own", || deployment.outcomes("counted") == 20.0);
}
