//! What the clients are made with: the caller's options, what was measured to be good, and what correctness needs.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::{Input, StreamError};

/// How much the consumer fetches ahead, over all its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchAhead {
    /// Bytes of records.
    pub bytes: u64,
    /// Records; librdkafka keeps about 400 bytes for each besides its own.
    pub records: u64,
}

impl Default for FetchAhead {
    fn default() -> FetchAhead {
        FetchAhead { bytes: 64 << 20, records: 200_000 }
    }
}

/// How long the broker leaves a transaction open whose producer says nothing more. Readers wait that long for a relay
/// that died, unless another takes over first.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Properties that are not the user's, with the reason.
const FIXED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is set by kafka.bootstrap_servers"),
    ("metadata.broker.list", "it is set by kafka.bootstrap_servers"),
    ("group.id", "it is set by kafka.group"),
    ("group.instance.id", "it is set by kafka.group_instance_id"),
    ("transactional.id", "it is made from kafka.group"),
    ("transaction.timeout.ms", "the relay's own timeouts go with it"),
    ("enable.auto.commit", "positions are kept in the store"),
    ("auto.commit.enable", "positions are kept in the store"),
    ("enable.auto.offset.store", "positions are kept in the store"),
    ("offset.store.method", "positions are kept in the store"),
    ("auto.offset.reset", "a position that is gone must never be passed over"),
    ("isolation.level", "an aborted transaction must never be read"),
    ("partition.assignment.strategy", "a customer's two topics must come to one worker"),
    ("group.protocol", "a customer's two topics must come to one worker"),
    ("enable.partition.eof", "lag is told by it"),
    ("enable.idempotence", "alerts are published once"),
    ("acks", "alerts are published once"),
    ("request.required.acks", "alerts are published once"),
    ("log.queue", "log lines go where the program's own go"),
    ("test.mock.num.brokers", "it would replace the broker"),
];

/// Properties that name files, of which librdkafka only says that they failed.
const FILES: [&str; 4] = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location"];

/// Where Kafka is, and the names of what is used there.
#[derive(Clone)]
pub struct Options {
    /// `host:port`, several divided by commas.
    pub bootstrap_servers: String,
    /// The consumer group; the relay's transactional id is made from it too.
    pub group: String,
    /// The name of this process in the group, kept over its restarts; without one it is a stranger each time.
    pub group_instance_id: Option<String>,
    /// Handed to librdkafka: `security.protocol`, `sasl.*`, `ssl.*` and what else is not fixed. Holds secrets.
    pub properties: BTreeMap<String, String>,
    /// The topic of usage events.
    pub usage_topic: String,
    /// The topic of assignment events.
    pub assignments_topic: String,
    /// The topic of alerts.
    pub alerts_topic: String,
    /// How much the consumer fetches ahead.
    pub fetch_ahead: FetchAhead,
}

impl Options {
    /// Refuses a property that is not the user's, or that librdkafka does not know or take.
    pub fn check(&self) -> Result<(), StreamError> {
        self.base()?
            .create_native_config()
            .map(drop)
            .map_err(|error| StreamError::Config(super::client::config_fault(&error)))
    }

    /// The topic of an input.
    pub fn topic(&self, input: Input) -> &str {
        match input {
            Input::Usage => &self.usage_topic,
            Input::Assignments => &self.assignments_topic,
        }
    }

    /// The transactional id of the deployment's relay.
    pub fn relay_id(&self) -> String {
        format!("{}-relay", self.group)
    }

    /// For asking about topics and offsets, and for reading the alerts topic: no group.
    pub(super) fn reader(&self) -> Result<ClientConfig, StreamError> {
        let mut config = self.base()?;
        config
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true");
        Ok(config)
    }

    /// For the consumer thread, where `partitions` pairs could come to it at most.
    pub(super) fn consumer(&self, partitions: i32) -> Result<ClientConfig, StreamError> {
        let mut config = self.reader()?;
        config
            .set("group.id", &self.group)
            .set("auto.offset.reset", "error")
            .set("partition.assignment.strategy", "range");
        if let Some(name) = &self.group_instance_id {
            config.set("group.instance.id", name);
        }
        // The bounds are for each queue, and each partition of each topic has a queue of its own. A fetch may go over
        // the bound by its own size, so each has half of the share.
        let queues = 2 * u64::try_from(partitions.max(1)).expect("at least 1");
        let share = (self.fetch_ahead.bytes / queues / 2).clamp(64 << 10, 4 << 20);
        let records = (self.fetch_ahead.records / queues).clamp(1_000, 50_000);
        self.unless_set(
            &mut config,
            &[
                ("queued.max.messages.kbytes", (share >> 10).to_string()),
                ("queued.min.messages", records.to_string()),
                ("fetch.message.max.bytes", share.to_string()),
                // A full queue waits this long for its next fetch; the default of a second leaves the CPU idle.
                ("fetch.queue.backoff.ms", "5".into()),
                // A partition whose queue was full when the last fetch went out waits for that fetch to come back.
                ("fetch.wait.max.ms", "100".into()),
                ("check.crcs", "true".into()),
                // A topic that is gone, or has more partitions, shows within that time.
                ("topic.metadata.refresh.interval.ms", "5000".into()),
                // After a kill the group waits this long; 6 s is the least that brokers allow by default.
                ("session.timeout.ms", "6000".into()),
                ("heartbeat.interval.ms", "1000".into()),
                // How long a rebalance waits for a member that is busy with its store.
                ("max.poll.interval.ms", "60000".into()),
            ],
        );
        Ok(config)
    }

    /// For the relay.
    pub(super) fn producer(&self, transactional_id: &str) -> Result<ClientConfig, StreamError> {
        let mut config = self.base()?;
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        self.unless_set(
            &mut config,
            &[
                ("allow.auto.create.topics", "false".into()),
                // What a topic takes is the topic's to say.
                ("message.max.bytes", "1000000000".into()),
                // All of a transaction's alerts are there at once; nothing more is to be waited for.
                ("linger.ms", "1".into()),
            ],
        );
        Ok(config)
    }

    /// For putting records back: of any size that the topic takes, each once and acknowledged by all copies.
    pub(super) fn sender(&self) -> Result<ClientConfig, StreamError> {
        let mut config = self.base()?;
        config.set("enable.idempotence", "true").set("acks", "all");
        self.unless_set(
            &mut config,
            &[
                ("allow.auto.create.topics", "false".into()),
                ("message.max.bytes", "1000000000".into()),
                // Less than the sender waits, so that each record has an answer.
                ("message.timeout.ms", "30000".into()),
            ],
        );
        Ok(config)
    }

    /// For making topics.
    pub(super) fn admin(&self) -> Result<ClientConfig, StreamError> {
        self.base()
    }

    fn base(&self) -> Result<ClientConfig, StreamError> {
        for (name, why) in FIXED {
            if self.properties.contains_key(*name) {
                return Err(StreamError::Config(format!("{name} cannot be set: {why}")));
            }
        }
        for (name, path) in self.properties.iter().filter(|(name, _)| FILES.contains(&name.as_str())) {
            // A word that librdkafka knows, and several places.
            if path == "probe" || path.contains(',') {
                continue;
            }
            std::fs::metadata(path).map_err(|error| StreamError::Config(format!("{name} = \"{path}\": {error}")))?;
        }
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        self.unless_set(
            &mut config,
            &[
                ("client.id", "headroom".into()),
                ("socket.keepalive.enable", "true".into()),
                // Back within a second once a broker is.
                ("reconnect.backoff.max.ms", "1000".into()),
            ],
        );
        Ok(config)
    }

    fn unless_set(&self, config: &mut ClientConfig, defaults: &[(&str, String)]) {
        for (name, value) in defaults {
            if !self.properties.contains_key(*name) {
                config.set(*name, value);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> Options {
        Options {
            bootstrap_servers: "127.0.0.1:9092".into(),
            group: "headroom".into(),
            group_instance_id: None,
            properties: properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            usage_topic: "usage-events".into(),
            assignments_topic: "assignment-events".into(),
            alerts_topic: "balance-alerts".into(),
            fetch_ahead: FetchAhead::default(),
        }
    }

    #[test]
    fn what_correctness_needs_is_refused_by_name() {
        for (name, _) in FIXED {
            let line = options(&[(name, "x")]).check().unwrap_err().to_string();
            assert!(line.starts_with(&format!("kafka.properties: {name} cannot be set: ")), "{line}");
        }
    }

    #[test]
    fn what_librdkafka_refuses_is_told_without_the_value() {
        let line = options(&[("no.such.thing", "secret")]).check().unwrap_err().to_string();
        assert_eq!(line, "kafka.properties: no.such.thing: No such configuration property: \"no.such.thing\"");
        let line = options(&[("socket.timeout.ms", "secret")]).check().unwrap_err().to_string();
        assert!(line.starts_with("kafka.properties: socket.timeout.ms: ") && !line.contains("secret"), "{line}");
    }

    #[test]
    fn the_users_value_holds_where_correctness_allows() {
        let config = options(&[("session.timeout.ms", "9000")]).consumer(4).unwrap();
        assert_eq!(config.get("session.timeout.ms"), Some("9000"));
        assert_eq!(config.get("client.id"), Some("headroom"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
    }

    #[test]
    fn fetching_ahead_is_bounded_over_all_partitions() {
        for partitions in [1, 4, 64, 256] {
            let config = options(&[]).consumer(partitions).unwrap();
            let number = |name: &str| config.get(name).unwrap().parse::<u64>().unwrap();
            let queue = number("queued.max.messages.kbytes") * 1024 + number("fetch.message.max.bytes");
            assert!(queue * 2 * u64::try_from(partitions).unwrap() <= FetchAhead::default().bytes, "{partitions}");
        }
    }
}
