//! Reading the alerts topic as a read_committed reader: for the relay, which learns from it where to go on, and for
//! whoever wants to see alerts come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::client::{self, Complaints, Reader};
use super::{Options, StreamError, topics};

/// How long to wait for an answer about a partition.
const ASK: Duration = Duration::from_secs(5);
/// How long nothing may come before the end.
const SILENCE: Duration = Duration::from_secs(30);

/// A reader of the whole alerts topic, with no group.
pub struct AlertsReader {
    reader: Reader,
    servers: String,
    topic: String,
    /// For each partition the next offset.
    next: BTreeMap<i32, i64>,
    /// Partitions at whose end nothing came since.
    at_end: BTreeSet<i32>,
}

impl AlertsReader {
    /// Begins at these next offsets, by partition; a partition that is not named, and one that has no such offset any
    /// more, begins with what the topic still holds of it.
    pub fn new(options: &Options, from: &[(i32, i64)]) -> Result<AlertsReader, StreamError> {
        let mut config = options.reader()?;
        // librdkafka wants a group's name to assign; it is no member of it, as it never subscribes.
        config.set("group.id", &options.group).set("auto.offset.reset", "earliest");
        let reader: Reader = client::create(&config, Complaints::default())?;
        let partitions = topics::partitions(options, &reader, &options.alerts_topic)?;
        let mut next: BTreeMap<i32, i64> = (0..partitions).map(|partition| (partition, 0)).collect();
        let mut assignment = TopicPartitionList::new();
        for &(partition, offset) in from {
            if let Some(next) = next.get_mut(&partition) {
                *next = offset;
            }
        }
        for (&partition, &offset) in &next {
            let at = if offset == 0 { Offset::Beginning } else { Offset::Offset(offset) };
            assignment.add_partition_offset(&options.alerts_topic, partition, at).map_err(|error| failed(&error))?;
        }
        reader.assign(&assignment).map_err(|error| failed(&error))?;
        Ok(AlertsReader {
            reader,
            servers: options.bootstrap_servers.clone(),
            topic: options.alerts_topic.clone(),
            next,
            at_end: BTreeSet::new(),
        })
    }

    /// Waits up to `wait` for the next record and hands it over; false when none came.
    pub fn read(&mut self, wait: Duration, each: &mut impl FnMut(&BorrowedMessage<'_>)) -> Result<bool, StreamError> {
        match self.reader.poll(wait) {
            None => Ok(false),
            Some(Ok(message)) => {
                self.next.insert(message.partition(), message.offset() + 1);
                self.at_end.remove(&message.partition());
                each(&message);
                Ok(true)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.at_end.insert(partition);
                Ok(false)
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::TopicAuthorizationFailed,
                ) => Err(StreamError::Topic(format!("topic {}: {error}", self.topic))),
                // librdkafka goes on trying.
                _ => Ok(false),
            },
        }
    }

    /// Waits up to `wait` for the next alert and gives its CloudEvent; `None` when none came.
    pub fn next_payload(&mut self, wait: Duration) -> Result<Option<Vec<u8>>, StreamError> {
        let mut payload = None;
        self.read(wait, &mut |message| payload = message.payload().map(<[u8]>::to_vec))?;
        Ok(payload)
    }

    /// Hands over every record up to where each partition ends for a read_committed reader, in order within each.
    /// Returns the next offsets by partition. After `init_transactions` nothing of an earlier relay can come later.
    pub fn read_to_end(&mut self, mut each: impl FnMut(&BorrowedMessage<'_>)) -> Result<Vec<(i32, i64)>, StreamError> {
        let mut heard = Instant::now();
        let mut ended = self.at_end.len();
        while self.at_end.len() < self.next.len() {
            let came = self.read(Duration::from_millis(100), &mut each)?;
            if came || self.at_end.len() != ended {
                (heard, ended) = (Instant::now(), self.at_end.len());
            } else if heard.elapsed() > SILENCE {
                let error = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
                let what = format!("reading topic {}", self.topic);
                return Err(client::request_fault(&what, &error, self.reader.context(), &self.servers));
            }
        }
        self.next.iter().map(|(&partition, &next)| Ok((partition, self.end_of(partition, next)?))).collect()
    }
}

impl AlertsReader {
    /// Where a partition ends that was read to its end: a topic that was made again may end before where reading was to
    /// begin.
    fn end_of(&self, partition: i32, next: i64) -> Result<i64, StreamError> {
        if next == 0 {
            return Ok(0);
        }
        let asked = self.reader.fetch_watermarks(&self.topic, partition, ASK);
        let (_, high) = asked.map_err(|error| {
            let what = format!("asking where topic {} ends", self.topic);
            client::request_fault(&what, &error, self.reader.context(), &self.servers)
        })?;
        Ok(next.min(high))
    }
}

/// Reads the alerts topic from these next offsets to its end now; see [`AlertsReader`].
pub fn read_from(
    options: &Options,
    offsets: &[(i32, i64)],
    each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<Vec<(i32, i64)>, StreamError> {
    AlertsReader::new(options, offsets)?.read_to_end(each)
}

fn failed(error: &KafkaError) -> StreamError {
    StreamError::Failed(format!("reading alerts: {error}"))
}
