//! Sends records to the input topics: for the demo. What it leaves out: transactions, and waiting for what was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::StreamError;
use super::client::{self, Complaints};

/// How long to wait for room in the queue, and for the last records to go.
const WAIT: Duration = Duration::from_secs(10);

impl ProducerContext for Complaints {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            tracing::error!("a record to {} was not sent: {error}", record.topic());
        }
    }
}

/// A plain producer.
pub struct Feeder {
    producer: ThreadedProducer<Complaints>,
}

/// A record to send.
#[derive(Debug, Clone, Copy)]
pub struct Feed<'a> {
    /// To which topic.
    pub topic: &'a str,
    /// To which of its partitions.
    pub partition: i32,
    /// Its key.
    pub key: &'a str,
    /// Its value, a CloudEvent in structured mode; `None` for a null.
    pub value: Option<&'a str>,
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp: i64,
}

impl Feeder {
    /// A producer for this broker.
    pub fn new(bootstrap_servers: &str) -> Result<Feeder, StreamError> {
        Feeder::with(bootstrap_servers, &BTreeMap::new())
    }

    /// A producer for this broker, with librdkafka's properties: how it is logged in, say.
    pub fn with(bootstrap_servers: &str, properties: &BTreeMap<String, String>) -> Result<Feeder, StreamError> {
        let mut config = ClientConfig::new();
        config.extend(properties.clone());
        config.set("bootstrap.servers", bootstrap_servers).set("enable.idempotence", "true").set("linger.ms", "5");
        Ok(Feeder { producer: client::create(&config, Complaints::default())? })
    }

    /// Queues a record; waits while the queue is full.
    pub fn send(&self, feed: &Feed<'_>) -> Result<(), StreamError> {
        let content_type = Header { key: "content-type", value: Some("application/cloudevents+json") };
        let mut record = BaseRecord::<str, str>::to(feed.topic)
            .partition(feed.partition)
            .key(feed.key)
            .timestamp(feed.timestamp)
            .headers(OwnedHeaders::new().insert(content_type));
        record.payload = feed.value;
        let until = std::time::Instant::now() + WAIT;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if std::time::Instant::now() < until =>
                {
                    record = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => {
                    return Err(StreamError::Failed(format!("sending to {}: {error}", feed.topic)));
                }
            }
        }
    }

    /// Waits until all that was queued is sent.
    pub fn flush(&self) -> Result<(), StreamError> {
        self.producer.flush(WAIT).map_err(|error| StreamError::Failed(format!("sending: {error}")))
    }
}
