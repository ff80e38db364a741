//! The topics: whether they are as they must be, and making those that are missing.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaRespErr;

use super::client::{self, Complaints, Reader};
use super::{Options, StreamError};

/// How long the brokers may take to answer.
const ASK: Duration = Duration::from_secs(10);
/// How long the first question may take.
const FIRST_ASK: Duration = Duration::from_secs(1);
/// How long until all brokers know a new topic.
const VISIBLE: Duration = Duration::from_secs(30);

/// Topics that are as they must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Partitions of each input topic.
    pub partitions: i32,
    /// Partitions of the alerts topic.
    pub alerts_partitions: i32,
}

/// What [`create`] found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Created {
    /// Topics that were made.
    pub made: Vec<String>,
    /// Topics that were there already, with their numbers of partitions.
    pub there: Vec<(String, i32)>,
}

/// How new topics are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Partitions of each input topic.
    pub partitions: i32,
    /// Partitions of the alerts topic.
    pub alerts_partitions: i32,
    /// Copies of each partition.
    pub replication: i32,
    /// How long records are kept; `None` for ever.
    pub retention: Option<Duration>,
}

/// Asks the brokers about the three topics. Blocks for up to ten seconds for each.
///
/// # Errors
///
/// Brokers that do not answer, a topic that is missing, input topics whose numbers of partitions differ.
pub fn check(options: &Options) -> Result<Checked, StreamError> {
    let reader: Reader = client::create(&options.reader()?, Complaints::default())?;
    let usage = partitions(options, &reader, &options.usage_topic)?;
    let assignments = partitions(options, &reader, &options.assignments_topic)?;
    let alerts_partitions = partitions(options, &reader, &options.alerts_topic)?;
    if usage != assignments {
        return Err(StreamError::Topic(format!(
            "topic {} has {usage} partitions and topic {} has {assignments}: both need the same number",
            options.usage_topic, options.assignments_topic
        )));
    }
    Ok(Checked { partitions: usage, alerts_partitions })
}

/// Makes those of the three topics that are missing, and waits until they can be seen.
///
/// # Errors
///
/// As [`check`], and a topic that the brokers refuse to make. Topics made before it stay.
pub async fn create(options: &Options, shape: &Shape) -> Result<Created, StreamError> {
    let reader: Reader = client::create(&options.reader()?, Complaints::default())?;
    let mut created = Created::default();
    let mut missing = Vec::new();
    for (topic, partitions) in [
        (&options.usage_topic, shape.partitions),
        (&options.assignments_topic, shape.partitions),
        (&options.alerts_topic, shape.alerts_partitions),
    ] {
        match count(options, &reader, topic)? {
            Some(there) => created.there.push((topic.clone(), there)),
            None => missing.push((topic, partitions)),
        }
    }
    if !missing.is_empty() {
        make(options, shape, &missing).await?;
    }
    let deadline = Instant::now() + VISIBLE;
    for (topic, _) in missing {
        while count(options, &reader, topic)?.is_none() {
            if Instant::now() > deadline {
                return Err(StreamError::Away(format!("topic {topic} was made but cannot be seen yet")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        created.made.push(topic.clone());
    }
    Ok(created)
}

async fn make(options: &Options, shape: &Shape, topics: &[(&String, i32)]) -> Result<(), StreamError> {
    let admin: AdminClient<Complaints> = client::create(&options.admin()?, Complaints::default())?;
    let retention = shape.retention.map_or_else(|| "-1".to_owned(), |retention| retention.as_millis().to_string());
    let topics: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|(topic, partitions)| {
            NewTopic::new(topic, *partitions, TopicReplication::Fixed(shape.replication))
                .set("retention.ms", &retention)
        })
        .collect();
    let limits = AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK));
    let answers = admin.create_topics(&topics, &limits).await.map_err(|error| {
        client::request_fault("making topics", &error, admin.inner().context(), &options.bootstrap_servers)
    })?;
    for answer in answers {
        match answer {
            // Another was faster: as good.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(StreamError::Topic(format!(
                    "topic {topic} could not be made with {} partitions or replication {}: {code}",
                    topics.iter().find(|made| made.name == topic).map_or(0, |made| made.num_partitions),
                    shape.replication
                )));
            }
        }
    }
    Ok(())
}

/// The number of partitions of a topic that must be there.
pub(super) fn partitions(options: &Options, reader: &Reader, topic: &str) -> Result<i32, StreamError> {
    count(options, reader, topic)?.ok_or_else(|| missing(topic, &options.bootstrap_servers))
}

/// A topic that is not there.
pub(super) fn missing(topic: &str, servers: &str) -> StreamError {
    StreamError::Topic(format!("topic {topic} is not there at {servers}: make it with `headroom topics create`"))
}

/// What the brokers know of a topic. Ends early when they refuse us, which librdkafka would try again and again.
fn ask(reader: &Reader, topic: &str) -> KafkaResult<Metadata> {
    let deadline = Instant::now() + ASK;
    let mut patience = FIRST_ASK;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = reader.fetch_metadata(Some(topic), patience.min(left));
        client::serve(reader);
        if answer.is_ok() || left <= patience || reader.context().refused() {
            return answer;
        }
        // Each ask may take longer than the one before, so that slow brokers are heard too.
        patience *= 2;
    }
}

/// The number of a topic's partitions; `None` when there is no such topic.
fn count(options: &Options, reader: &Reader, topic: &str) -> Result<Option<i32>, StreamError> {
    let answer = ask(reader, topic).map_err(|error| {
        client::request_fault(
            &format!("asking about topic {topic}"),
            &error,
            reader.context(),
            &options.bootstrap_servers,
        )
    })?;
    counted(&answer, topic)
}

/// The number of a topic's partitions, as the brokers answered; `None` when there is no such topic.
pub(super) fn counted(answer: &Metadata, topic: &str) -> Result<Option<i32>, StreamError> {
    let Some(found) = answer.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error() {
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
        // Just made.
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => Ok(None),
        Some(error) => Err(StreamError::Topic(format!("topic {topic}: {}", RDKafkaErrorCode::from(error)))),
        None => Ok(Some(i32::try_from(found.partitions().len()).expect("Kafka counts partitions in 31 bits"))),
    }
}
