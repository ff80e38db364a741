//! The consumer thread: both input topics, partition by partition, to a [`Sink`].
//!
//! Each partition of each topic has a queue of its own, and backpressure is not to look into one: what was fetched
//! stays there, bounded (pausing would drop it). The group's partitions are spread by the eager `range` protocol, which
//! gives partition n of both topics to one member; whenever they change, all go back first and positions are asked of
//! the sink anew. Leaving and joining again is done with a new client.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::damages::Damages;
use super::group::{Decision, Group, pairs};
use super::topics::{self, missing};
use super::turns::Turns;
use super::{Control, Gap, Input, Notices, Options, Sink, Start, StreamError, client};

/// How many events that are no records are served in a round.
const EVENTS: usize = 50;
/// How many records are taken from a queue before the next one's turn.
const VISIT: usize = 500;
/// A round that brought fewer records is followed by [`BREATH`]: looking into all queues for a record each is dear.
const FEW: usize = 200;
/// How long records may gather when few come.
const BREATH: Duration = Duration::from_millis(2);
/// How long the thread sleeps when nothing comes; records and [`Control`] wake it.
const IDLE: Duration = Duration::from_millis(100);
/// How often committed offsets are told to Kafka, and transaction markers at the end of an idle partition looked for.
const TELL: Duration = Duration::from_secs(1);
/// How often it is asked whether the brokers are back, and for how long.
const PROBE: Duration = Duration::from_secs(1);
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// How long to wait for the brokers' answer about what a partition holds.
const ASK: Duration = Duration::from_secs(5);
/// How long leaving the group may take.
const LEAVING: Duration = Duration::from_secs(3);
/// The pause before joining again, doubled each time up to the second; a membership that lasted starts anew.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
const LASTED: Duration = Duration::from_secs(30);

/// Consumes both input topics, which have `partitions` partitions each, until [`Control::stop`]; then gives the
/// partitions back and leaves the group. Blocks its thread.
///
/// Brokers that are away, a refused login or a refused topic are told to `notices` and waited for.
///
/// # Errors
///
/// A wrong property, topics that do not go together, or a client that is broken for good. The partitions were given back to the sink then.
pub fn consume(
    options: &Options,
    partitions: i32,
    mut sink: impl Sink,
    control: &Control,
    notices: &Arc<dyn Notices>,
) -> Result<(), StreamError> {
    control.is_this_thread();
    let mut pause = PAUSE.0;
    let mut damages = Damages::default();
    while !control.stopping() {
        damages.begin();
        let mut member = Member::join(options, partitions, &mut sink, &mut damages, notices.as_ref())?;
        let since = Instant::now();
        let ended = member.run(control);
        member.leave();
        ended?;
        if since.elapsed() > LASTED {
            pause = PAUSE.0;
        }
        control.pause(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
    Ok(())
}

/// A partition of a topic with its own queue.
struct Queue {
    partition: i32,
    input: Input,
    records: PartitionQueue<Group>,
    /// The offset after the last record given.
    next: i64,
    /// Whether the end was reached with nothing given since, and whether the sink knows the position there exactly.
    at_end: bool,
    exact: bool,
}

/// One membership of the group.
struct Member<'a, S> {
    options: &'a Options,
    /// Partitions of each topic.
    count: i32,
    sink: &'a mut S,
    damages: &'a mut Damages,
    notices: &'a dyn Notices,
    /// Given to the sink and not taken back; `None` between assignments.
    partitions: Option<Vec<i32>>,
    queues: Vec<Queue>,
    turns: Turns,
    // Queues hold the consumer, so they go before it.
    consumer: Arc<BaseConsumer<Group>>,
    /// Whether to join again: a position was not there, and the brokers did not say what is.
    astray: bool,
    away: bool,
    probed: Instant,
    told: Instant,
}

impl<'a, S: Sink> Member<'a, S> {
    fn join(
        options: &'a Options,
        partitions: i32,
        sink: &'a mut S,
        damages: &'a mut Damages,
        notices: &'a dyn Notices,
    ) -> Result<Self, StreamError> {
        let mut consumer: BaseConsumer<Group> = client::create(&options.consumer(partitions)?, Group::default())?;
        let thread = thread::current();
        consumer.set_nonempty_callback(move || thread.unpark());
        consumer
            .subscribe(&[&options.usage_topic, &options.assignments_topic])
            .map_err(|error| StreamError::Failed(format!("joining group {}: {error}", options.group)))?;
        let now = Instant::now();
        Ok(Member {
            options,
            count: partitions,
            sink,
            damages,
            notices,
            partitions: None,
            queues: Vec::new(),
            turns: Turns::default(),
            consumer: Arc::new(consumer),
            astray: false,
            away: false,
            probed: now,
            told: now,
        })
    }

    /// Consumes until it is to stop or to join again.
    fn run(&mut self, control: &Control) -> Result<(), StreamError> {
        while !control.stopping() && !control.take_rejoin() && !self.astray && !self.damage_is_due() {
            if !self.serve()? {
                return Ok(());
            }
            let given = self.look_into_queues();
            self.sink.round();
            self.tell();
            if self.away {
                self.probe();
            }
            if given == 0 {
                thread::park_timeout(IDLE);
            } else if given < FEW {
                thread::sleep(BREATH);
            }
        }
        Ok(())
    }

    /// Whether it is time to read damaged records of its partitions anew, by another client.
    fn damage_is_due(&self) -> bool {
        self.queues.iter().any(|queue| self.damages.are_due(queue.partition, queue.input))
    }

    /// Serves what is not a partition's: the group's decisions, errors, log lines. False: leave and join again.
    fn serve(&mut self) -> Result<bool, StreamError> {
        let consumer = Arc::clone(&self.consumer);
        // One poll serves one event. Brokers that are away send many, and what the group decides stands behind them.
        for _ in 0..EVENTS {
            match consumer.poll(Duration::ZERO) {
                None => continue,
                Some(Err(error)) => {
                    self.error(&error)?;
                    continue;
                }
                Some(Ok(message)) => {
                    // Every partition was given its queue before its first fetch, so this is a fault of ours or of
                    // librdkafka's. The positions in the store are right whatever came here.
                    tracing::warn!(
                        topic = message.topic(),
                        partition = message.partition(),
                        offset = message.offset(),
                        "a record came outside of its partition's queue; joining the group again"
                    );
                    return Ok(false);
                }
            }
        }
        while let Some(decision) = self.consumer.context().decision() {
            match decision {
                Decision::Assigned(list) => {
                    if !self.take(&list)? {
                        return Ok(false);
                    }
                }
                Decision::Revoked => {
                    self.give_back();
                    self.consumer.unassign().map_err(|error| self.failed("giving partitions back", &error))?;
                }
            }
        }
        Ok(true)
    }

    /// Begins with the partitions that the group gave. False: the sink could not take them.
    fn take(&mut self, list: &[(String, i32)]) -> Result<bool, StreamError> {
        self.give_back();
        self.count_partitions()?;
        let partitions = pairs(self.options, list)?;
        tracing::info!(group = self.options.group, ?partitions, "partitions assigned");
        self.partitions = Some(partitions.clone());
        let starts = match self.sink.assigned(&partitions) {
            Ok(starts) => starts,
            Err(why) => {
                tracing::warn!(group = self.options.group, "partitions not taken, joining the group again: {why}");
                return Ok(false);
            }
        };
        let starts: BTreeMap<i32, Start> = starts.into_iter().map(|start| (start.partition, start)).collect();
        let mut assignment = TopicPartitionList::new();
        for partition in partitions {
            let Some(start) = starts.get(&partition) else {
                return Err(StreamError::Failed(format!("no position for partition {partition}")));
            };
            for (input, next) in [(Input::Usage, start.usage), (Input::Assignments, start.assignments)] {
                let topic = self.options.topic(input);
                assignment
                    .add_partition_offset(topic, partition, Offset::Offset(next))
                    .map_err(|error| self.failed("assigning partitions", &error))?;
                // Before `assign`, so that no record goes to the consumer's own queue: once split, a partition's queue
                // is not joined to it again.
                let Some(mut records) = self.consumer.split_partition_queue(topic, partition) else {
                    return Err(StreamError::Failed(format!("no queue for topic {topic}, partition {partition}")));
                };
                let thread = thread::current();
                records.set_nonempty_callback(move || thread.unpark());
                self.queues.push(Queue { partition, input, records, next, at_end: false, exact: false });
            }
        }
        self.consumer.assign(&assignment).map_err(|error| self.failed("assigning partitions", &error))?;
        for queue in &self.queues {
            // Whoever takes a partition anew does not know it yet.
            if let Some(line) = self.damages.line(queue.partition, queue.input) {
                self.sink.unreadable(queue.partition, queue.input, Some(line.to_owned()));
            }
        }
        self.back();
        Ok(true)
    }

    /// That the topics have as many partitions as they had at the start: a rebalance comes of it when they have not.
    fn count_partitions(&self) -> Result<(), StreamError> {
        for topic in [&self.options.usage_topic, &self.options.assignments_topic] {
            let answer = match self.consumer.fetch_metadata(Some(topic), ASK) {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::warn!("how many partitions topic {topic} has is not known now: {error}");
                    continue;
                }
            };
            match topics::counted(&answer, topic)? {
                Some(count) if count == self.count => {}
                Some(count) => {
                    return Err(StreamError::Topic(format!(
                        "topic {topic} has {count} partitions now, but the store was made with {}: which customer is on \
                         which partition depends on it; set it back, or begin with an empty store",
                        self.count
                    )));
                }
                None => return Err(missing(topic, &self.options.bootstrap_servers)),
            }
        }
        Ok(())
    }

    /// Gives all partitions back to the sink.
    fn give_back(&mut self) {
        if let Some(partitions) = self.partitions.take() {
            self.sink.revoked(&partitions);
            tracing::info!(group = self.options.group, ?partitions, "partitions given back");
            self.tell_committed();
        }
        self.queues.clear();
    }

    /// Takes from each queue what the sink has room for. Returns how many records came.
    fn look_into_queues(&mut self) -> usize {
        let (mut given, mut began) = (0, None);
        for at in self.turns.order(self.queues.len()) {
            let queue = &mut self.queues[at];
            let (partition, input) = (queue.partition, queue.input);
            if self.damages.hold(partition, input) {
                continue;
            }
            for _ in 0..self.sink.room(queue.partition, queue.input).min(VISIT) {
                match queue.records.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => {
                        queue.next = message.offset() + 1;
                        queue.at_end = false;
                        if self.damages.whole(partition, input, message.offset()) {
                            self.sink.unreadable(partition, input, None);
                        }
                        let taken = self.sink.record(queue.input, &message);
                        given += 1;
                        if taken.begins {
                            began = Some(at);
                        }
                        if taken.fills {
                            break;
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => {
                        // Records that came later may stand behind it: each fetch that reached the end says so.
                        (queue.at_end, queue.exact) = (true, false);
                        if self.damages.gone(partition, input) {
                            self.sink.unreadable(partition, input, None);
                        }
                        self.sink.at_end(queue.partition, queue.input, queue.next);
                    }
                    Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                        let topic = self.options.topic(queue.input);
                        let held = self.consumer.fetch_watermarks(topic, queue.partition, ASK).ok();
                        let Queue { input, partition, next, .. } = *queue;
                        let gap = Gap { input, topic: topic.to_owned(), partition, next, held };
                        // Even if the topic has the offset by now: then it is another record's.
                        if gap.held.is_some() {
                            if self.damages.gone(partition, input) {
                                self.sink.unreadable(partition, input, None);
                            }
                            self.sink.gap(gap);
                        } else {
                            tracing::warn!("{error}; {gap}; joining the group again");
                            self.astray = true;
                        }
                        break;
                    }
                    Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_damage) => {
                        let (topic, next) = (self.options.topic(input), queue.next);
                        let why =
                            format!("topic {topic}, partition {partition}: records from offset {next} on are damaged");
                        let pause = self.damages.found(partition, input, next, &why);
                        tracing::error!("{why} ({error}); they are read anew in {pause:?}, and never passed over");
                        self.sink.unreadable(partition, input, Some(why));
                        // What librdkafka takes for the position is not it.
                        queue.at_end = false;
                        break;
                    }
                    Some(Err(error)) => {
                        let why =
                            format!("{}, partition {}: {error}", self.options.topic(queue.input), queue.partition);
                        tracing::warn!("{why}");
                        self.away = true;
                        self.notices.broker_away(&why);
                        break;
                    }
                }
            }
        }
        if let Some(at) = began {
            self.turns.began(at);
        }
        if given > 0 {
            self.back();
        }
        given
    }

    /// Once a second: what is committed to Kafka, and the exact position of idle ends to the sink.
    fn tell(&mut self) {
        if self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        self.tell_committed();
        if !self.queues.iter().any(|queue| queue.at_end && !queue.exact) {
            return;
        }
        // librdkafka's position goes past the markers of transactions, which are no records.
        let Ok(positions) = self.consumer.position() else { return };
        for queue in self.queues.iter_mut().filter(|queue| queue.at_end && !queue.exact) {
            queue.exact = true;
            let position = positions.find_partition(self.options.topic(queue.input), queue.partition);
            if let Some(Offset::Offset(position)) = position.map(|position| position.offset())
                && position > queue.next
            {
                queue.next = position;
                self.sink.at_end(queue.partition, queue.input, position);
            }
        }
    }

    fn tell_committed(&mut self) {
        if self.away {
            return;
        }
        let mut list = TopicPartitionList::new();
        for start in self.sink.committed() {
            for (input, next) in [(Input::Usage, start.usage), (Input::Assignments, start.assignments)] {
                if let Err(error) =
                    list.add_partition_offset(self.options.topic(input), start.partition, Offset::Offset(next))
                {
                    tracing::debug!("offset not told to Kafka: {error}");
                }
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!("offsets not told to Kafka: {error}");
        }
    }

    /// An error that is not a partition's.
    fn error(&mut self, error: &KafkaError) -> Result<(), StreamError> {
        let complaint = self.consumer.context().complaints.last();
        let why = complaint.unwrap_or_else(|| error.to_string());
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(StreamError::Failed(why));
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Err(StreamError::Topic(format!("{why}: make it with `headroom topics create`")))
            }
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::InconsistentGroupProtocol,
            ) => {
                tracing::warn!("{why}");
                self.away = true;
                self.notices.broker_away(&why);
                Ok(())
            }
            // One broker of several, or passing: librdkafka tries again by itself.
            _ => {
                tracing::debug!("{why}");
                Ok(())
            }
        }
    }

    /// While the brokers are away: asks whether they are back. Nothing else is to be done then.
    fn probe(&mut self) {
        if self.probed.elapsed() < PROBE {
            return;
        }
        // Between assignments the group itself may be what is refused; only an assignment says that it is not.
        if self.partitions.is_some()
            && self.consumer.fetch_metadata(Some(&self.options.usage_topic), PROBE_WAIT).is_ok()
        {
            self.back();
        }
        self.probed = Instant::now();
    }

    fn back(&mut self) {
        if self.away {
            self.away = false;
            tracing::info!("Kafka answers again");
            self.notices.broker_back();
        }
    }

    /// Gives partitions back and leaves the group, so that others need not wait for its session to end.
    /// The client waits for the answer to each offset that it told, which a broker that hangs never gives: others may have
    /// to wait for the session then, but nobody here does.
    fn leave(mut self) {
        self.give_back();
        self.consumer.context().leave();
        let Member { consumer, options, .. } = self;
        let (left, leaving) = mpsc::channel();
        thread::spawn(move || {
            drop(consumer);
            // Nobody listens any more after LEAVING.
            let _ = left.send(());
        });
        if leaving.recv_timeout(LEAVING).is_err() {
            tracing::warn!(group = options.group, "leaving the group takes longer than {LEAVING:?}: not waited for");
        }
    }

    fn failed(&self, what: &str, error: &KafkaError) -> StreamError {
        StreamError::Failed(format!("{what} of group {}: {error}", self.options.group))
    }
}

/// Whether an error says that the next records cannot be read as they are: a checksum, a size or a form that is none.
fn is_damage(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::BadCompression | RDKafkaErrorCode::NotImplemented)
}
