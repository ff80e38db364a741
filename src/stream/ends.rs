//! Where the input topics begin and end, for lag and for gaps.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Complaints, Reader};
use super::{Options, Start, StreamError};

/// How long the brokers may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// How long they may take to say which partitions have a leader.
const ASK_OF_LEADERS: Duration = Duration::from_secs(2);

/// A broker answered, and left the partition out.
const UNTOLD: KafkaError = KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition);

/// Where topics begin or end, as far as the brokers can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Of the partition pairs whose partitions both have a leader, in the order asked for.
    pub starts: Vec<Start>,
    /// Topics and partitions without a leader, which nobody can tell of.
    pub leaderless: BTreeSet<(String, i32)>,
}

impl Told {
    /// What the partitions without a leader are, in one line; `None` when there are none.
    pub fn fault(&self) -> Option<String> {
        let named: Vec<String> =
            self.leaderless.iter().map(|(topic, partition)| format!("{topic}, partition {partition}")).collect();
        (!named.is_empty()).then(|| format!("without a leader: {}", named.join("; ")))
    }

    /// Of all partition pairs.
    ///
    /// # Errors
    ///
    /// One that has no leader.
    pub fn all(self) -> Result<Vec<Start>, StreamError> {
        match self.fault() {
            Some(fault) => Err(StreamError::Away(fault)),
            None => Ok(self.starts),
        }
    }
}

/// Asks where the input topics end, with a client of its own: the consumer thread waits for nobody.
pub struct Ends {
    options: Options,
    reader: Reader,
}

impl Ends {
    /// Makes the client; asks nothing yet.
    pub fn new(options: &Options) -> Result<Ends, StreamError> {
        let reader = client::create(&options.reader()?, Complaints::default())?;
        Ok(Ends { options: options.clone(), reader })
    }

    /// The offsets after the last records that a read_committed reader is given, of these partition pairs. Blocks for up
    /// to nine seconds.
    ///
    /// # Errors
    ///
    /// Brokers that do not answer.
    pub fn of(&self, partitions: &[i32]) -> Result<Told, StreamError> {
        self.at(partitions, Offset::End)
    }

    /// The offsets of the first records that are there. Blocks as [`Ends::of`] does.
    ///
    /// # Errors
    ///
    /// Brokers that do not answer.
    pub fn begins(&self, partitions: &[i32]) -> Result<Told, StreamError> {
        self.at(partitions, Offset::Beginning)
    }

    // librdkafka gives no answer at all while one of those asked about has no leader, so these are left out.
    fn at(&self, partitions: &[i32], place: Offset) -> Result<Told, StreamError> {
        let leaderless = self.leaderless(partitions)?;
        let led = |partition: &i32| leaderless.iter().all(|(_, without)| without != partition);
        let led: Vec<i32> = partitions.iter().copied().filter(led).collect();
        let starts = self.ask(&led, place).map_err(|error| self.fault(&error))?;
        Ok(Told { starts, leaderless })
    }

    fn topics(&self) -> [&String; 2] {
        [&self.options.usage_topic, &self.options.assignments_topic]
    }

    fn ask(&self, partitions: &[i32], place: Offset) -> Result<Vec<Start>, KafkaError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::new();
        for topic in self.topics() {
            for partition in partitions {
                list.add_partition_offset(topic, *partition, place)?;
            }
        }
        let answer = self.reader.offsets_for_times(list, ASK);
        client::serve(&self.reader);
        let answer = answer?;
        let offset = |topic: &str, partition: i32| -> Result<i64, KafkaError> {
            let element = answer.find_partition(topic, partition).ok_or(UNTOLD)?;
            element.error()?;
            match element.offset() {
                Offset::Offset(offset) => Ok(offset),
                _ => Err(UNTOLD),
            }
        };
        let start = |&partition: &i32| {
            let [usage, assignments] = self.topics().map(|topic| offset(topic, partition));
            Ok(Start { partition, usage: usage?, assignments: assignments? })
        };
        partitions.iter().map(start).collect()
    }

    /// Which of the partitions have no leader now.
    fn leaderless(&self, partitions: &[i32]) -> Result<BTreeSet<(String, i32)>, StreamError> {
        let mut leaderless = BTreeSet::new();
        for topic in self.topics() {
            let answer = self.reader.fetch_metadata(Some(topic), ASK_OF_LEADERS).map_err(|error| self.fault(&error))?;
            for found in answer.topics().iter().flat_map(|found| found.partitions()) {
                if found.leader() < 0 && partitions.contains(&found.id()) {
                    leaderless.insert((topic.clone(), found.id()));
                }
            }
        }
        Ok(leaderless)
    }

    fn fault(&self, error: &KafkaError) -> StreamError {
        client::request_fault(
            "asking what the topics hold",
            error,
            self.reader.context(),
            &self.options.bootstrap_servers,
        )
    }
}
