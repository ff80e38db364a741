//! The producer of the stream: its own idempotent client, which remembers all that it sent.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headroom::domain::Partitioner;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message as _};

use crate::facts::Fact;
use crate::wait::patience;
use crate::world::{Saying, World, produced};

/// How many partitions each input has.
pub(crate) const PARTITIONS: i32 = 6;
/// The inputs: usage, assignments.
pub(crate) const TOPICS: [&str; 2] = ["usage-events", "assignment-events"];
/// How many records may be on their way to Kafka, and how far the deployment may be behind: where a machine is too slow for
/// the rate, the feed is slower too.
const UNDER_WAY: usize = 20_000;
const BEHIND: usize = 30_000;

/// The header that says which of all records one is.
pub(crate) const NUMBER: &str = "feed-number";

/// All facts that were sent, by their numbers.
pub(crate) type Sent = Vec<Fact>;

/// What the feed's thread and the run share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// How many records Kafka has, by input and partition.
    counts: Mutex<[Vec<i64>; 2]>,
    delivered: AtomicUsize,
    applied: AtomicUsize,
    fault: Mutex<Option<String>>,
}

struct Deliveries(Arc<Shared>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(record) => {
                self.0.delivered.fetch_add(1, Ordering::AcqRel);
                let input = usize::from(record.topic() != TOPICS[0]);
                self.0.counts.lock().unwrap()[input][record.partition() as usize] += 1;
            }
            Err((error, _)) => drop(self.0.fault.lock().unwrap().get_or_insert(error.to_string())),
        }
    }
}

/// A feed that runs.
pub(crate) struct Feed {
    shared: Arc<Shared>,
    thread: JoinHandle<Sent>,
}

impl Feed {
    /// Starts to send so many records a second.
    pub(crate) fn start(broker: &str, world: World, rate: u64) -> Feed {
        let shared = Arc::new(Shared {
            counts: Mutex::new([(); 2].map(|()| vec![0; PARTITIONS as usize])),
            ..Shared::default()
        });
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker).set("enable.idempotence", "true").set("linger.ms", "5");
        // Whatever happens to the broker, nothing that was sent is given up.
        config.set("message.timeout.ms", "0").set("reconnect.backoff.max.ms", "1000");
        let producer: ThreadedProducer<Deliveries> =
            config.create_with_context(Deliveries(shared.clone())).expect("a producer");
        let sender = Sender { producer, shared: shared.clone(), sent: Vec::new() };
        let thread = std::thread::spawn(move || sender.run(world, rate));
        Feed { shared, thread }
    }

    /// How many records Kafka has taken so far, by input and partition.
    pub(crate) fn counts(&self) -> [Vec<i64>; 2] {
        let counts = self.shared.counts.lock().unwrap().clone();
        assert!(!self.thread.is_finished(), "the feed failed: {:?}", self.shared.fault.lock().unwrap());
        counts
    }

    /// Takes note of how many records the deployment has applied.
    pub(crate) fn note_applied(&self, records: i64) {
        self.shared.applied.fetch_max(usize::try_from(records).unwrap(), Ordering::AcqRel);
    }

    /// Ends it: all that was sent is in Kafka. What that is, and how many records of each input and partition.
    pub(crate) fn end(self) -> (Sent, [Vec<i64>; 2]) {
        self.shared.stop.store(true, Ordering::Release);
        let sent = self.thread.join().expect("the feed ended well");
        (sent, self.shared.counts.lock().unwrap().clone())
    }
}

/// The thread.
struct Sender {
    producer: ThreadedProducer<Deliveries>,
    shared: Arc<Shared>,
    sent: Sent,
}

impl Sender {
    fn run(mut self, mut world: World, rate: u64) -> Sent {
        let begun = Instant::now();
        let (mut count, mut paused) = (0u64, Duration::ZERO);
        while !self.shared.stop.load(Ordering::Acquire) {
            let due = (begun.elapsed() - paused).as_millis() as u64 * rate / 1_000;
            while count < due {
                count += 1;
                self.send(world.next());
            }
            let late = Instant::now();
            while (count as usize > self.shared.delivered.load(Ordering::Acquire) + UNDER_WAY
                || count as usize > self.shared.applied.load(Ordering::Acquire) + BEHIND)
                && !self.shared.stop.load(Ordering::Acquire)
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            // What it did not send then is not sent in a heap afterwards.
            paused += late.elapsed();
            std::thread::sleep(Duration::from_millis(10));
        }
        for saying in world.last() {
            self.send(saying);
        }
        self.producer.flush(patience()).expect("Kafka takes all that was sent");
        let fault = self.shared.fault.lock().unwrap().take();
        assert_eq!(fault, None, "Kafka refused a record of the feed");
        self.sent
    }

    fn send(&mut self, saying: Saying) {
        let Saying { fact, record } = saying;
        let input = usize::from(!fact.is_usage());
        let partition = Partitioner::Murmur2.partition(&record.key, PARTITIONS);
        let number = self.sent.len().to_string();
        let mut headers = OwnedHeaders::new().insert(Header { key: NUMBER, value: Some(&number) });
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut out = BaseRecord::<[u8], [u8]>::to(TOPICS[input])
            .partition(partition)
            .key(&record.key)
            .timestamp(produced().as_millisecond())
            .headers(headers);
        out.payload = record.value.as_deref();
        while let Err((error, back)) = self.producer.send(out) {
            assert!(
                matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                "the feed cannot send: {error}"
            );
            out = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        self.sent.push(fact);
    }
}
