//! An alert names the event that caused it, however large the name is, as long as the topic takes it; nothing that a record
//! can hold stops the alerts after it.

use std::time::Duration;

use headroom::domain::Partitioner;
use headroom::stream::alerts::AlertsReader;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::deployment::{Deployment, PARTITIONS, now, until};

#[test]
fn an_event_with_an_id_as_large_as_a_record_stops_no_alert() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let options = deployment.options();
    let _running = deployment.run();
    let start = jiff::Timestamp::from_millisecond(now()).unwrap().to_string();
    let assignment = json!({
        "version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17, "startDate": "2020-01-01",
        "thresholds": [{"remaining": 3}, {"remaining": 2}, {"remaining": 1}],
        "plan": {"inclusiveUsagePlanId": 10, "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 4}]},
    });
    deployment.send("assignment.changed", "/crm", "assignment-5", 17, &assignment);
    until("the assignment is in", || deployment.outcomes("applied") == 1.0);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap_servers)
        .set("message.max.bytes", "2000000")
        .create()
        .unwrap();
    let partition = Partitioner::Murmur2.partition_of(17, PARTITIONS);
    let use_one = |id: &str| {
        let value = json!({"specversion": "1.0", "type": "usage.recorded", "source": "/switch", "id": id, "data": {
            "customerId": 17, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1, "quantity": 1,
            "chargingType": "DURATION", "startTime": start,
        }});
        let (key, value) = ("17", value.to_string());
        let record = BaseRecord::to(&options.usage_topic).partition(partition).key(key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(20)).unwrap();
    };
    let mut reader = AlertsReader::new(&options, &[]).unwrap();
    for (id, cause) in [("x".repeat(900_000), true), ("y".repeat(1_040_000), false), ("z".to_owned(), true)] {
        use_one(&id);
        let mut alert = None;
        until("its alert is published", || {
            alert = reader.next_payload(Duration::from_millis(200)).unwrap();
            alert.is_some()
        });
        let alert: Value = serde_json::from_slice(&alert.unwrap()).unwrap();
        let told = alert["data"]["cause"]["id"].as_str();
        assert_eq!(told.map(str::len), cause.then_some(id.len()));
    }
}
