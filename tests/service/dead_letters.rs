//! Refused records, from the topic to the table and back.

use std::time::Duration;

use headroom::domain::Partitioner;
use serde_json::{Value, json};

use crate::deployment::{Deployment, PARTITIONS, now, on_postgres, until};

/// A record as any producer may send it.
fn raw(deployment: &Deployment, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
    let options = deployment.options();
    let producer: ThreadedProducer<DefaultProducerContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &options.bootstrap_servers).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some(&[0u8, 0xff][..]) })
        .insert(Header::<&[u8]> { key: "none", value: None })
        .insert(Header { key: "trace", value: Some(&b"2"[..]) });
    let mut record = BaseRecord::<[u8], [u8]>::to(&options.usage_topic).partition(partition).headers(headers);
    (record.key, record.payload) = (key, value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
}

#[test]
fn dead_letters_are_put_back_whole_and_count_once_their_cause_is_mended() {
    let mut deployment = Deployment::new();
    deployment.environment.insert("HEADROOM_MAX_FUTURE".to_owned(), "1s".to_owned());
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    let database = deployment.environment["HEADROOM_STORE__URL"].clone();
    let count = |condition: &str| {
        on_postgres(&database, &format!("select count(*) from dead_letter where {condition}")).unwrap()
    };
    let begins = now() + 15_000;
    let data = json!({
        "customerId": 17, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1, "chargingType": "DURATION",
        "quantity": 60, "startTime": jiff::Timestamp::from_millisecond(begins).unwrap().to_string(),
    });
    until("the schema is there", || !deployment.metrics().is_empty());
    deployment.send("usage.recorded", "/switch", "early", 17, &data);
    raw(&deployment, 3, None, None);
    let large: Vec<u8> = (0..900_000u32).map(|n| (n % 251) as u8).collect();
    let home = Partitioner::Murmur2.partition(b"17", PARTITIONS);
    raw(&deployment, home, Some(b"17"), Some(&large));
    until("all three are refused", || count("true") == 3);

    // What can be seen.
    let topic = deployment.options().usage_topic;
    let list = deployment.say(&["dead-letters", "list", "--customer", "17", "--reason", "too_far_ahead", "--json"]);
    let listed: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&listed["key"], &listed["putBackAt"]), (&json!("17"), &Value::Null), "{list}");
    let place = format!("{topic}/3/0");
    let shown: Value = serde_json::from_str(&deployment.say(&["dead-letters", "show", &place, "--json"])).unwrap();
    assert_eq!((&shown["key"], &shown["value"], &shown["reason"]), (&Value::Null, &Value::Null, &json!("unreadable")));
    let headers = json!([{"name": "trace", "value": {"hex": "00ff"}}, {"name": "none", "value": null},
        {"name": "trace", "value": "2"}]);
    assert_eq!(shown["headers"], headers);

    // Nothing is done before it is meant.
    let put_back = ["dead-letters", "put-back", "--reason", "unreadable"];
    assert_eq!(deployment.say(&put_back), "2 dead letters to put back; nothing was done: add --yes");
    assert_eq!(count("put_back_at is not null"), 0);

    // What is still at fault comes back, byte for byte, to where it belongs.
    let first = deployment.say(&[&put_back[..], &["--yes"]].concat());
    assert_eq!(first, "2 dead letters to put back\n2 put back");
    until("both are refused again", || count("reason = 'unreadable'") == 4);
    assert_eq!(count("put_back_at is not null"), 2);
    assert_eq!(count("partition = 3 and key is null and value is null"), 2);
    assert_eq!(count(&format!("partition = {home} and key = '17' and length(value) = {}", large.len())), 2);
    assert_eq!(
        on_postgres(&database, "select count(distinct (headers, value)) from dead_letter where reason = 'unreadable'"),
        Some(2)
    );
    let again = deployment.say(&["dead-letters", "put-back", "--place", &place, "--yes"]);
    assert_eq!(again, "0 dead letters to put back; 1 were put back before and are skipped (--again takes them too)");

    // Time mends this one.
    until("the call began", || now() > begins);
    assert_eq!(deployment.totals()["usageEvents"]["counted"], 0);
    deployment.say(&["dead-letters", "put-back", "--customer", "17", "--reason", "too_far_ahead", "--yes"]);
    until("it counts", || deployment.totals()["usageEvents"]["counted"] == 1);
    assert_eq!(count("reason = 'too_far_ahead'"), 1);
}

#[test]
fn what_a_sender_wrote_is_one_line_that_no_terminal_obeys() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    let start = jiff::Timestamp::from_millisecond(now()).unwrap().to_string();
    for quantity in [60, 61] {
        let data = json!({"customerId": 17, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1,
            "chargingType": "DURATION", "quantity": quantity, "startTime": start});
        deployment.send("usage.recorded", "/switch", "a\nb\u{1b}[2J", 17, &data);
    }
    until("the second is refused", || deployment.outcomes("dead_letter") == 1.0);
    for command in [&["dead-letters", "list"][..], &["explain", "--customer", "17"]] {
        let said = deployment.say(command);
        let line = said.lines().find(|line| line.contains("/switch")).unwrap();
        assert!(!said.contains('\u{1b}') && line.contains("\\u{1b}[2J"), "{said}");
    }
}
