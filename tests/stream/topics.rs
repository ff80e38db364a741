//! Checking and making topics.

use std::time::Duration;

use headroom::stream::topics::{Checked, Created, Shape, check, create as create_async};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::kafka::{SHAPE, create, options, servers};

#[test]
fn missing_topics_are_named_made_once_and_checked() {
    let options = options(servers());
    let line = check(&options).unwrap_err().to_string();
    let expected = format!(
        "topic {} is not there at {}: make it with `headroom topics create`",
        options.usage_topic, options.bootstrap_servers
    );
    assert_eq!(line, expected);

    let shape = Shape { retention: Some(Duration::from_secs(86_400)), ..SHAPE };
    let made = create(&options, shape);
    let [usage, assignments, alerts] =
        [&options.usage_topic, &options.assignments_topic, &options.alerts_topic].map(Clone::clone);
    assert_eq!(made, Created { made: vec![usage.clone(), assignments.clone(), alerts.clone()], there: vec![] });
    assert_eq!(check(&options).unwrap(), Checked { partitions: 4, alerts_partitions: 2 });
    assert_eq!(retention(&options.bootstrap_servers, &usage), "86400000");

    let mut options = options;
    options.alerts_topic.push_str("-2");
    let made = create(&options, SHAPE);
    assert_eq!(made, Created { made: vec![options.alerts_topic.clone()], there: vec![(usage, 4), (assignments, 4)] });
    assert_eq!(retention(&options.bootstrap_servers, &options.alerts_topic), "-1");
}

#[test]
fn different_numbers_of_partitions_are_told() {
    let mut options = options(servers());
    create(&options, SHAPE);
    let four = options.usage_topic.clone();
    options.usage_topic = format!("{four}-3");
    create(&options, Shape { partitions: 3, ..SHAPE });
    assert_eq!(
        check(&options).unwrap_err().to_string(),
        format!(
            "topic {four}-3 has 3 partitions and topic {} has 4: both need the same number",
            options.assignments_topic
        )
    );
}

#[test]
fn a_topic_that_is_refused_is_told() {
    let options = options(servers());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let line = runtime.block_on(create_async(&options, &Shape { replication: 7, ..SHAPE })).unwrap_err().to_string();
    assert!(line.contains("could not be made with 4 partitions or replication 7"), "{line}");
}

#[test]
fn a_broker_that_does_not_answer_is_told_with_the_cause() {
    let line = check(&options("127.0.0.1:1".into())).unwrap_err().to_string();
    assert!(line.contains("no answer from 127.0.0.1:1") && line.contains("Connection refused"), "{line}");
    assert_eq!(line.lines().count(), 1);
}

fn retention(servers: &str, topic: &str) -> String {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let resource = ResourceSpecifier::Topic(topic);
    let options = AdminOptions::new();
    let asked = admin.describe_configs([&resource], &options);
    let answer = tokio::runtime::Runtime::new().unwrap().block_on(asked).unwrap().remove(0).unwrap();
    answer.get("retention.ms").unwrap().value.clone().unwrap()
}
