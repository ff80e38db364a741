//! Alerts to their topic and back.

use headroom::stream::Options;
use headroom::stream::alerts::read_from;
use headroom::stream::producer::{Alert, AlertsProducer, PublishError};
use headroom::stream::record;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Message};

use crate::kafka::{open_transaction, scene};

pub(crate) fn alert(partition: i32, number: i64) -> Alert {
    Alert {
        partition,
        key: "17".into(),
        payload: format!("alert {number}"),
        headers: vec![("headroom-number", number.to_string())],
    }
}

/// A partition with an alert's number or an offset.
type Placed = (i32, i64);

/// What a reader sees from these offsets: partition and number, and where it ends.
pub(crate) fn read(options: &Options, from: &[Placed]) -> (Vec<Placed>, Vec<Placed>) {
    let mut seen = Vec::new();
    let next = read_from(options, from, |message| {
        assert_eq!(message.key(), Some(&b"17"[..]));
        assert_eq!(record::header(message, "content-type"), Some("application/cloudevents+json"));
        let number = record::header(message, "headroom-number").unwrap();
        assert_eq!(message.payload(), Some(format!("alert {number}").as_bytes()));
        seen.push((message.partition(), number.parse().unwrap()));
    })
    .unwrap();
    seen.sort_unstable();
    (seen, next)
}

#[test]
fn what_is_published_is_read_back_from_any_offset() {
    let options = scene();
    assert_eq!(read(&options, &[]), (vec![], vec![(0, 0), (1, 0)]));
    let mut producer = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    assert_eq!(producer.publish(&[]).unwrap(), []);
    assert_eq!(producer.publish(&[alert(0, 1), alert(1, 2), alert(0, 3)]).unwrap(), [(0, 2), (1, 1)]);
    // After two records and a marker.
    assert_eq!(producer.publish(&[alert(0, 4)]).unwrap(), [(0, 4)]);
    let all = vec![(0, 1), (0, 3), (0, 4), (1, 2)];
    let (seen, next) = read(&options, &[]);
    assert_eq!(seen, all);
    assert_eq!(next, [(0, 4), (1, 1)]);
    assert_eq!(read(&options, &next), (vec![], next.clone()));
    assert_eq!(read(&options, &[(0, 2)]).0, [(0, 4), (1, 2)]);
    // Offsets of another life of the topic.
    assert_eq!(read(&options, &[(0, 1_000), (1, 1_000), (7, 1)]), (all, next));
}

#[test]
fn many_alerts_are_one_transaction() {
    let options = scene();
    let mut producer = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    // More than librdkafka's queue holds at once.
    let batch: Vec<Alert> = (0..120_000).map(|number| alert(i32::from(number % 2 == 1), number)).collect();
    assert_eq!(producer.publish(&batch).unwrap(), [(0, 60_000), (1, 60_000)]);
    let (seen, _) = read(&options, &[(0, 59_999), (1, 59_998)]);
    assert_eq!(seen, [(0, 119_998), (1, 119_997), (1, 119_999)]);
}

#[test]
fn a_relay_whose_place_was_taken_can_publish_nothing_more() {
    let options = scene();
    let mut zombie = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    zombie.publish(&[alert(0, 1)]).unwrap();
    let mut active = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    active.publish(&[alert(0, 2)]).unwrap();
    let error = zombie.publish(&[alert(0, 2)]).unwrap_err();
    assert!(matches!(&error, PublishError::Lost(why) if why.ends_with("another relay took over")), "{error}");
    assert!(matches!(zombie.publish(&[alert(0, 2)]).unwrap_err(), PublishError::Lost(_)));
    active.publish(&[alert(0, 3)]).unwrap();
    assert_eq!(read(&options, &[]).0, [(0, 1), (0, 2), (0, 3)]);
}

#[test]
fn a_batch_that_cannot_be_delivered_is_taken_back_whole() {
    let options = scene();
    let mut producer = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    producer.publish(&[alert(0, 1)]).unwrap();
    let error = producer.publish(&[alert(0, 2), alert(9, 3)]).unwrap_err();
    assert!(matches!(&error, PublishError::Aborted(why) if why.starts_with("partition 9: ")), "{error}");
    producer.publish(&[alert(0, 4)]).unwrap();
    assert_eq!(read(&options, &[]).0, [(0, 1), (0, 4)]);
}

#[test]
fn what_the_broker_refuses_is_told_and_taken_back() {
    let options = scene();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &options.bootstrap_servers).create().unwrap();
    let small = AlterConfig::new(ResourceSpecifier::Topic(&options.alerts_topic)).set("max.message.bytes", "1000");
    let limits = AdminOptions::new();
    let altered = admin.alter_configs([&small], &limits);
    tokio::runtime::Runtime::new().unwrap().block_on(altered).unwrap().remove(0).unwrap();
    let mut producer = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    let large = Alert { payload: "x".repeat(2_000), ..alert(1, 2) };
    let error = producer.publish(&[alert(0, 1), large]).unwrap_err();
    assert!(
        matches!(&error, PublishError::Aborted(why) if why.starts_with("partition 1: ") && why.contains("too large")),
        "{error}"
    );
    producer.publish(&[alert(0, 3)]).unwrap();
    assert_eq!(read(&options, &[]).0, [(0, 3)]);
}

#[test]
fn reading_ends_before_the_open_transaction_of_a_stranger() {
    let options = scene();
    let mut producer = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    producer.publish(&[alert(0, 1)]).unwrap();
    let open = open_transaction(&options, &options.alerts_topic, 0, 1);
    assert_eq!(read(&options, &[]).0, [(0, 1)]);
    drop(open);
}
