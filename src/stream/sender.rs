//! Puts records back on the input topics as they were: every byte of key, value and headers, each acknowledged by all
//! copies before it is said to be there.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::client::{self, Complaints};
use super::{Options, StreamError};

/// How long the brokers may take to acknowledge what is on its way; librdkafka gives a record up after less.
const WAIT: Duration = Duration::from_secs(60);

/// A record to send.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a> {
    /// To which topic.
    pub topic: &'a str,
    /// To which of its partitions.
    pub partition: i32,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in their order.
    pub headers: &'a [(String, Option<Vec<u8>>)],
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp: i64,
}

/// What came of the record at each place of the batch that is on its way.
#[derive(Default)]
struct Deliveries {
    complaints: Complaints,
    results: Mutex<Vec<Result<(), String>>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.complaints.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| fault(error));
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = results.get_mut(place) {
            *there = result;
        }
    }
}

/// A producer of whole records. All its calls block.
pub struct Sender {
    producer: ThreadedProducer<Deliveries>,
}

impl Sender {
    /// Makes the producer; asks nothing yet.
    pub fn new(options: &Options) -> Result<Sender, StreamError> {
        Ok(Sender { producer: client::create(&options.sender()?, Deliveries::default())? })
    }

    /// Sends records, in their order within each partition. Returns for each, in their order, whether the brokers
    /// acknowledged it, or in one line why not.
    pub fn send(&self, records: &[Whole<'_>]) -> Vec<Result<(), String>> {
        let context = self.producer.context();
        let unsaid = || Err("no acknowledgement came in time; it may be there or not".to_owned());
        *context.results.lock().unwrap_or_else(PoisonError::into_inner) = records.iter().map(|_| unsaid()).collect();
        for (place, record) in records.iter().enumerate() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in record.headers {
                headers = headers.insert(Header { key, value: value.as_deref() });
            }
            let mut sent = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, place)
                .partition(record.partition)
                .timestamp(record.timestamp)
                .headers(headers);
            (sent.key, sent.payload) = (record.key, record.value);
            if let Err((error, _)) = self.producer.send(sent) {
                let mut results = context.results.lock().unwrap_or_else(PoisonError::into_inner);
                results[place] = Err(fault(&error));
            }
        }
        // Time that runs out leaves its records unsaid.
        let _ = self.producer.flush(WAIT);
        std::mem::take(&mut *context.results.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn fault(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            "the broker refuses its size: raise the topic's max.message.bytes".to_owned()
        }
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}
