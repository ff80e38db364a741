//! The broker, and plain clients to set scenes with.

use std::collections::BTreeMap;
use std::time::Duration;

use headroom::stream::topics::{self, Shape};
use headroom::stream::{FetchAhead, Options};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use uuid::Uuid;

/// The address of the broker for tests.
pub(crate) fn servers() -> String {
    std::env::var("HEADROOM_TEST_KAFKA").expect(
        "HEADROOM_TEST_KAFKA is not set: run `make test`, or `scripts/services up` and \
         `eval \"$(scripts/services env)\"`",
    )
}

/// Names that no other test has; nothing is made yet.
pub(crate) fn options(servers: String) -> Options {
    let test = Uuid::new_v4();
    Options {
        bootstrap_servers: servers,
        group: format!("group-{test}"),
        group_instance_id: None,
        properties: BTreeMap::new(),
        usage_topic: format!("usage-{test}"),
        assignments_topic: format!("assignments-{test}"),
        alerts_topic: format!("alerts-{test}"),
        fetch_ahead: FetchAhead::default(),
    }
}

pub(crate) const SHAPE: Shape = Shape { partitions: 4, alerts_partitions: 2, replication: 1, retention: None };

pub(crate) fn create(options: &Options, shape: Shape) -> topics::Created {
    tokio::runtime::Runtime::new().unwrap().block_on(topics::create(options, &shape)).unwrap()
}

/// Topics of 4, 4 and 2 partitions that no other test has.
pub(crate) fn scene() -> Options {
    let options = options(servers());
    create(&options, SHAPE);
    options
}

/// A producer as others have it.
pub(crate) fn producer(options: &Options) -> ThreadedProducer<DefaultProducerContext> {
    ClientConfig::new().set("bootstrap.servers", &options.bootstrap_servers).create().unwrap()
}

/// Adds records to a partition; the value of each is its place, counted from `from`.
pub(crate) fn produce(options: &Options, topic: &str, partition: i32, values: std::ops::Range<usize>) {
    let producer = producer(options);
    for value in values {
        let value = value.to_string();
        producer.send(BaseRecord::<(), _>::to(topic).partition(partition).payload(&value)).map_err(|e| e.0).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

/// A transactional producer that has begun a transaction and put `count` records into a partition.
pub(crate) fn open_transaction(options: &Options, topic: &str, partition: i32, count: usize) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap_servers)
        .set("transactional.id", Uuid::new_v4().to_string())
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..count {
        producer.send(BaseRecord::<(), _>::to(topic).partition(partition).payload("x")).map_err(|e| e.0).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    producer
}

/// Lets a partition begin at an offset, as retention does.
pub(crate) fn delete_records(options: &Options, topic: &str, partition: i32, first: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &options.bootstrap_servers).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(first)).unwrap();
    let deleted = admin.delete_records(&list, &AdminOptions::new());
    tokio::runtime::Runtime::new().unwrap().block_on(deleted).unwrap();
}
