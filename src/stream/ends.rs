//! Where the input topics begin and end, for lag and for gaps.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Complaints, Reader};
use super::{Options, Start, StreamError};

/// How long the brokers may take to answer.
const ASK: Duration = Duration::from_secs(5);

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

    /// The offsets after the last records that a read_committed reader is given, of these partition pairs and in their
    /// order. Blocks for up to five seconds.
    pub fn of(&self, partitions: &[i32]) -> Result<Vec<Start>, StreamError> {
        self.at(partitions, Offset::End)
    }

    /// The offsets of the first records that are there. Blocks for up to five seconds.
    pub fn begins(&self, partitions: &[i32]) -> Result<Vec<Start>, StreamError> {
        self.at(partitions, Offset::Beginning)
    }

    fn at(&self, partitions: &[i32], place: Offset) -> Result<Vec<Start>, StreamError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let topics = [&self.options.usage_topic, &self.options.assignments_topic];
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in partitions {
                list.add_partition_offset(topic, *partition, place).map_err(|error| self.fault(&error))?;
            }
        }
        let answer = self.reader.offsets_for_times(list, ASK);
        client::serve(&self.reader);
        let answer = answer.map_err(|error| self.fault(&error))?;
        let offset = |topic: &str, partition: i32| -> Result<i64, StreamError> {
            let element = answer.find_partition(topic, partition).ok_or_else(|| untold(topic, partition))?;
            element.error().map_err(|error| self.fault(&error))?;
            match element.offset() {
                Offset::Offset(offset) => Ok(offset),
                _ => Err(untold(topic, partition)),
            }
        };
        partitions
            .iter()
            .map(|&partition| {
                let [usage, assignments] = topics.map(|topic| offset(topic, partition));
                Ok(Start { partition, usage: usage?, assignments: assignments? })
            })
            .collect()
    }

    fn fault(&self, error: &rdkafka::error::KafkaError) -> StreamError {
        client::request_fault(
            "asking what the topics hold",
            error,
            self.reader.context(),
            &self.options.bootstrap_servers,
        )
    }
}

fn untold(topic: &str, partition: i32) -> StreamError {
    StreamError::Away(format!("topic {topic}, partition {partition}: the broker did not say what it holds"))
}
