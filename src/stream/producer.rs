//! The relay's way to the alerts topic: each batch is one transaction, and one producer at a time can commit.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::client::{self, Complaints};
use super::options::TRANSACTION_TIMEOUT;
use super::watchdog::Watchdog;
use super::{Options, StreamError};
use crate::failpoint;

/// How long one call to the transaction coordinator may take.
const CALL: Duration = Duration::from_secs(10);
/// How long a commit whose answer does not come is asked for again.
const COMMIT: Duration = Duration::from_secs(30);
/// Beyond this a call hangs; librdkafka's own limits are long past.
const HANG: Duration = Duration::from_secs(90);

/// An alert on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The partition of the alerts topic.
    pub partition: i32,
    /// The record's key.
    pub key: String,
    /// The CloudEvent, in JSON.
    pub payload: String,
    /// Headers besides the content type.
    pub headers: Vec<(&'static str, String)>,
}

/// How publishing can fail.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Nothing of the batch can be seen by a read_committed reader, now or later; the same producer may try again.
    #[error("kafka: publishing alerts was taken back: {0}")]
    Aborted(String),
    /// The batch may be published or not, and this producer is of no more use: another one took its place, or it is
    /// broken. Make a new one, and read the topic to learn what is there.
    #[error("kafka: publishing alerts: {0}")]
    Lost(String),
}

/// What came of the records of the open transaction.
#[derive(Default)]
struct Delivered {
    /// For each partition the offset after the last record.
    next: BTreeMap<i32, i64>,
    /// How many records reported themselves, well or not.
    reported: usize,
    fault: Option<String>,
}

#[derive(Default)]
struct Deliveries {
    complaints: Complaints,
    delivered: Mutex<Delivered>,
    /// Told when a record reported itself.
    reported: Condvar,
}

impl Deliveries {
    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many records reported themselves, or one of them a fault. The client's own flush would wait in steps
    /// of 100 ms for reports that another thread takes.
    fn wait_for(&self, records: usize, deadline: Instant) -> Result<(), String> {
        let mut delivered = self.lock();
        while delivered.reported < records && delivered.fault.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{} of {records} alerts had no answer in time", records - delivered.reported));
            }
            delivered = self.reported.wait_timeout(delivered, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        delivered.fault.take().map_or(Ok(()), Err)
    }
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
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut delivered = self.lock();
        delivered.reported += 1;
        self.reported.notify_all();
        match result {
            Ok(message) => {
                let next = delivered.next.entry(message.partition()).or_default();
                *next = (*next).max(message.offset() + 1);
            }
            Err((error, message)) => {
                let fault = || format!("partition {}: {error}", message.partition());
                delivered.fault.get_or_insert_with(fault);
            }
        }
    }
}

/// A transactional producer. All its calls block.
pub struct AlertsProducer {
    // Polled by a thread of its own: taking a transaction back waits for records that report themselves only then.
    producer: ThreadedProducer<Deliveries>,
    watchdog: Watchdog,
    topic: String,
}

impl AlertsProducer {
    /// Makes a producer and fences every earlier one with the same transactional id: what they have not committed by
    /// then is never seen. Blocks for up to ten seconds.
    pub fn new(options: &Options, transactional_id: &str) -> Result<AlertsProducer, StreamError> {
        let producer: ThreadedProducer<Deliveries> =
            client::create(&options.producer(transactional_id)?, Deliveries::default())?;
        let watchdog = Watchdog::start();
        let begun = {
            let _watched = watchdog.watch("init_transactions", HANG);
            producer.init_transactions(CALL)
        };
        begun.map_err(|error| {
            let what = format!("beginning as {transactional_id}");
            client::request_fault(&what, &error, &producer.context().complaints, &options.bootstrap_servers)
        })?;
        Ok(AlertsProducer { producer, watchdog, topic: options.alerts_topic.clone() })
    }

    /// Publishes a batch, all of it or nothing, in its order within each partition. Returns for each partition of the
    /// alerts topic that got some the offset after the last of them.
    pub fn publish(&mut self, batch: &[Alert]) -> Result<Vec<(i32, i64)>, PublishError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        *self.producer.context().lock() = Delivered::default();
        self.producer.begin_transaction().map_err(|error| self.lost("begin_transaction", &error))?;
        failpoint::hit("relay-transaction-begun");
        self.produce(batch)?;
        failpoint::hit("relay-before-commit");
        self.commit()?;
        failpoint::hit("relay-after-commit");
        let delivered = std::mem::take(&mut *self.producer.context().lock());
        Ok(delivered.next.into_iter().collect())
    }

    fn produce(&self, batch: &[Alert]) -> Result<(), PublishError> {
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        for alert in batch {
            let mut headers = OwnedHeaders::new_with_capacity(1 + alert.headers.len())
                .insert(Header { key: "content-type", value: Some("application/cloudevents+json") });
            for (key, value) in &alert.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut record = BaseRecord::to(&self.topic)
                .partition(alert.partition)
                .key(&alert.key)
                .payload(&alert.payload)
                .headers(headers);
            while let Err((error, back)) = self.producer.send(record) {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                if !full || Instant::now() > deadline {
                    return Err(self.abort(&format!("partition {}: {error}", alert.partition)));
                }
                record = back;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.producer.context().wait_for(batch.len(), deadline).map_err(|fault| self.abort(&fault))?;
        // The last one reported itself, and leaves the client a moment later; a commit that comes first waits for 100 ms.
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    fn commit(&self) -> Result<(), PublishError> {
        let deadline = Instant::now() + COMMIT;
        loop {
            let done = {
                let _watched = self.watchdog.watch("commit_transaction", HANG);
                self.producer.commit_transaction(CALL)
            };
            match done {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                    return Err(self.abort(&error.to_string()));
                }
                // The same call goes on where it was.
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                Err(error) => return Err(self.lost("commit_transaction", &error)),
            }
        }
    }

    /// Takes the open transaction back.
    fn abort(&self, why: &str) -> PublishError {
        let done = {
            let _watched = self.watchdog.watch("abort_transaction", HANG);
            self.producer.abort_transaction(CALL)
        };
        match done {
            Ok(()) => PublishError::Aborted(why.to_owned()),
            Err(error) => PublishError::Lost(format!("{why}; abort_transaction: {error}{}", self.cause())),
        }
    }

    fn lost(&self, call: &str, error: &KafkaError) -> PublishError {
        PublishError::Lost(format!("{call}: {error}{}", self.cause()))
    }

    fn cause(&self) -> String {
        match self.producer.client().fatal_error() {
            Some((RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced, _)) => {
                "; another relay took over".to_owned()
            }
            Some((_, why)) => format!("; {why}"),
            None => String::new(),
        }
    }
}
