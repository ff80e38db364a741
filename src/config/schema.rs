//! Every key with its type and its default: the table of `domain.md section 9`, and the limits beside it.

use serde::{Deserialize, Serialize};

use super::{
    Listen, Properties, Secret, Servers, Size, Span, StoreUrl, Text, Thresholds, TopicName, WebUrl, Whole, Zone,
};
use crate::domain::Partitioner;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whose days count (`domain.md section 2`).
    pub time_zone: Zone,
    /// How far ahead of its record's timestamp usage may begin.
    pub max_future: Span,
    /// How far before its record's timestamp usage may begin.
    pub retention: Span,
    /// Where events come from and alerts go to.
    pub kafka: Kafka,
    /// Their topics.
    pub topics: Topics,
    /// Where balances are kept.
    pub store: Store,
    /// Where the query is answered.
    pub http: Http,
    /// Where metrics and health are told.
    pub admin: Admin,
    /// Whose tokens are good.
    pub auth: Auth,
    /// When a balance is low.
    pub alerts: Alerts,
    /// How much the worker takes on at once.
    pub worker: Worker,
    /// What is written to standard error.
    pub log: Log,
}

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Required by the worker and the relay: see [`Config::bootstrap_servers`].
    pub bootstrap_servers: Option<Servers>,
    /// The consumer group; the relay's transactional id begins with it.
    pub group: Text,
    /// The name of this process in the group, kept over its restarts.
    pub group_instance_id: Option<Text>,
    /// How keys give partitions.
    pub partitioner: Partitioner,
    /// How many bytes of records are fetched ahead, over all partitions.
    pub fetch_bytes: Size<64>,
    /// How many records are fetched ahead, over all partitions.
    pub fetch_records: Whole<1_000, 100_000_000>,
    /// Handed to librdkafka.
    pub properties: Properties,
}

/// `[topics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    /// Usage and its reversals.
    pub usage: TopicName,
    /// Assignments, inventory, customers and bill runs.
    pub assignments: TopicName,
    /// Alerts.
    pub alerts: TopicName,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Required by all that use the store: see [`Config::store_url`].
    pub url: Option<StoreUrl>,
    /// A file that holds `url`.
    pub url_file: Option<Text>,
    /// A replica for the reader; without one it reads from `url`.
    pub read_url: Option<StoreUrl>,
    /// A file that holds `read_url`.
    pub read_url_file: Option<Text>,
    /// A file that holds the password of both.
    pub password_file: Option<Text>,
    /// The most connections that the worker opens.
    pub connections: Whole<1, 1000>,
    /// The most connections that the reader opens.
    pub read_connections: Whole<1, 1000>,
    /// How long to wait for a connection; a statement may take twelve times as long.
    pub timeout: Span,
    /// How long the reader waits for the store before it answers 503.
    pub read_timeout: Span,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where the query and `/openapi.json` are served.
    pub listen: Listen,
    /// The most bytes of a URL.
    pub url_bytes: Whole<1024, 65_534>,
    /// The most bytes of the URL and the headers together.
    pub head_bytes: Whole<8192, 2_097_152>,
    /// How long a client may take to send them, and from one request to the next.
    pub head_time: Span,
    /// How long a client may be waited for to take in each 256 KiB of what was written for it.
    pub write_time: Span,
    /// How long an answer may take.
    pub answer_time: Span,
    /// How long a connection lives.
    pub connection_time: Span,
    /// The most connections at a time; those beyond wait.
    pub connections: Whole<1, 100_000>,
    /// The most requests that are answered at a time; those beyond are refused.
    pub answers: Whole<1, 10_000>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where `/metrics` and `/health/*` are served.
    pub listen: Listen,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Signs and checks HS256 tokens.
    pub hs256_secret: Option<Secret>,
    /// A file that holds it.
    pub hs256_secret_file: Option<Text>,
    /// A JWKS in a file.
    pub jwks_file: Option<Text>,
    /// A JWKS on the web.
    pub jwks_url: Option<WebUrl>,
    /// A file that holds this address.
    pub jwks_url_file: Option<Text>,
    /// What `aud` must hold, if anything.
    pub audience: Option<Text>,
    /// What `iss` must be, if anything.
    pub issuer: Option<Text>,
}

impl Auth {
    /// The keys of the config that say by what tokens are checked, of those that are set.
    pub(super) fn keys(&self) -> Vec<&'static str> {
        let set = [
            ("auth.hs256_secret", self.hs256_secret.is_some()),
            ("auth.jwks_file", self.jwks_file.is_some()),
            ("auth.jwks_url", self.jwks_url.is_some()),
        ];
        set.into_iter().filter_map(|(key, set)| set.then_some(key)).collect()
    }
}

/// `[alerts]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// The `source` of every alert.
    pub source: Text,
    /// For assignments that bring no list of their own.
    pub thresholds: Thresholds,
    /// The most alerts that are published at once.
    pub batch: Whole<1, 100_000>,
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// The most records of one commit.
    pub batch_records: Whole<1, 100_000>,
    /// The most customers whose records one commit brings.
    pub batch_customers: Whole<1, 100_000>,
    /// The most bytes of records of one commit; the last one may pass it.
    pub batch_bytes: Size<1>,
    /// The most batches in memory at a time, over all partitions.
    pub batches: Whole<1, 10_000>,
    /// About how many bytes of accounts one commit works on; one account may pass it.
    pub accounts_bytes: Size<1>,
    /// How much of the accounts is kept at hand, over all partitions.
    pub cache_bytes: Size<64>,
    /// How long known usage is folded again at a time while the records of other customers wait, in milliseconds.
    pub replay_pause_ms: Whole<1, 60_000>,
    /// The most bytes of records that wait with their customers behind, in each partition.
    pub behind_bytes: Size<1>,
    /// How long a partition may stand still with something to do, though the store answers, before `/health/live` says so.
    pub stall_after: Span,
    /// Customers whose balances are held against their usage in a second; 0: none.
    pub audit_per_second: Whole<0, 1_000>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// From which level on lines are written; `RUST_LOG` says it more finely.
    pub level: LogLevel,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// From which level on lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What a person should look at.
    Warn,
    /// What happens now and then.
    #[default]
    Info,
    /// What happens all the time.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// A default, which is good by the same rule as what is set.
fn good<T: TryFrom<String>>(text: &str) -> T {
    T::try_from(text.to_owned()).unwrap_or_else(|_| panic!("the default \"{text}\" keeps its own rule"))
}

impl Default for Config {
    fn default() -> Config {
        Config {
            time_zone: good("UTC"),
            max_future: Span::hours(24),
            retention: Span::hours(400 * 24),
            kafka: Kafka::default(),
            topics: Topics::default(),
            store: Store::default(),
            http: Http::default(),
            admin: Admin::default(),
            auth: Auth::default(),
            alerts: Alerts::default(),
            worker: Worker::default(),
            log: Log::default(),
        }
    }
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka {
            bootstrap_servers: None,
            group: good("headroom"),
            group_instance_id: None,
            partitioner: Partitioner::default(),
            fetch_bytes: Size::mebibytes(64),
            fetch_records: Whole::new(200_000),
            properties: Properties::default(),
        }
    }
}

impl Default for Topics {
    fn default() -> Topics {
        Topics { usage: good("usage-events"), assignments: good("assignment-events"), alerts: good("balance-alerts") }
    }
}

impl Default for Store {
    fn default() -> Store {
        Store {
            url: None,
            url_file: None,
            read_url: None,
            read_url_file: None,
            password_file: None,
            connections: Whole::new(4),
            read_connections: Whole::new(4),
            timeout: Span::seconds(5),
            read_timeout: Span::seconds(5),
        }
    }
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: good("127.0.0.1:8080"),
            url_bytes: Whole::new(32 * 1024),
            head_bytes: Whole::new(64 * 1024),
            head_time: Span::seconds(15),
            write_time: Span::seconds(30),
            answer_time: Span::seconds(30),
            connection_time: Span::seconds(600),
            connections: Whole::new(1_000),
            answers: Whole::new(100),
        }
    }
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: good("127.0.0.1:9464") }
    }
}

impl Default for Alerts {
    fn default() -> Alerts {
        Alerts { source: good("headroom"), thresholds: Thresholds::default(), batch: Whole::new(2_000) }
    }
}

impl Default for Worker {
    fn default() -> Worker {
        Worker {
            batch_records: Whole::new(20_000),
            batch_customers: Whole::new(8_000),
            batch_bytes: Size::mebibytes(16),
            batches: Whole::new(4),
            accounts_bytes: Size::mebibytes(40),
            cache_bytes: Size::mebibytes(48),
            replay_pause_ms: Whole::new(100),
            behind_bytes: Size::mebibytes(16),
            stall_after: Span::minutes(2),
            audit_per_second: Whole::new(1),
        }
    }
}
