//! A process of the service: the roles that it was asked for, side by side, from the config to a clean end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::info;
use uuid::Uuid;

use crate::config::{Config, ConfigError, Role, Roles};
use crate::domain::{Calendar, Instant};
use crate::events::Rules;
use crate::failpoint;
use crate::http::auth::Keys;
use crate::http::{self, AdminOptions, QueryOptions};
use crate::store::{self, Settled, Side, Store, StoreError};
use crate::stream::{self, Control, StreamError, topics};
use crate::telemetry::metrics::{BROKER, PARTITIONS, PrometheusHandle, REPLICA, STORE};
use crate::telemetry::{Health, metrics};
use crate::{probes, relay, worker};

/// Ledger rows that a replay reads at once.
const REPLAY_PAGE: usize = 5_000;
/// How long before their latest usage accounts in memory reach back.
const LOOK_BACK: Duration = Duration::from_secs(2 * 86_400);
/// Customers whose rows of a closing bill run are stored at once.
const STORING_CUSTOMERS: usize = 200;
/// Held usage that is let in at once when a bill run is opened; each customer's is a replay.
const LET_IN: usize = 64;
/// How long roles may take to end.
const FAREWELL: Duration = Duration::from_secs(9);

/// Why a process of the service ended, or did not start: one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Kafka.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A port.
    #[error(transparent)]
    Bind(#[from] http::BindError),
    /// The topics have another number of partitions than what the store was made with.
    #[error(
        "the topics have {topics} partitions, but the store was made with {settled}; set it back, or begin with an empty \
         store"
    )]
    Partitions {
        /// How many the topics have.
        topics: i32,
        /// How many the store was made with.
        settled: i32,
    },
    /// What the config says differs from what the store was made with.
    #[error("{key} is {configured}, but the store was made with {settled}; set it back, or begin with an empty store")]
    Settled {
        /// The config key.
        key: &'static str,
        /// What is asked for now.
        configured: String,
        /// What the store was made with.
        settled: String,
    },
    /// A file that the config names, of which only its content shows what is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A role ended by an error.
    #[error("{0}")]
    Role(String),
}

impl ServiceError {
    /// Whether the config is at fault.
    pub fn is_of_config(&self) -> bool {
        let of_stream = matches!(self, ServiceError::Stream(StreamError::Config(_)));
        of_stream || matches!(self, ServiceError::Config(_) | ServiceError::Settled { .. })
    }
}

/// The way to the store that a config names.
pub fn store_options(config: &Config) -> Result<store::Options, ConfigError> {
    let read_url = config.store.read_url.as_ref();
    for (key, url) in [("store.url", Some(config.store_url()?)), ("store.read_url", read_url)] {
        let checked = url.map_or(Ok(()), |url| store::check_url(url.expose()));
        checked.map_err(|why| ConfigError::new(format!("{key} {why}")))?;
    }
    Ok(store::Options {
        url: config.store_url()?.expose().to_owned(),
        read_url: read_url.map(|url| url.expose().to_owned()),
        connections: config.store.connections.get(),
        read_connections: config.store.read_connections.get(),
        timeout: config.store.timeout.duration(),
        read_timeout: config.store.read_timeout.duration(),
    })
}

/// The way to Kafka that a config names.
pub fn stream_options(config: &Config) -> Result<stream::Options, ConfigError> {
    let options = stream::Options {
        bootstrap_servers: config.bootstrap_servers()?.to_string(),
        group: config.kafka.group.to_string(),
        group_instance_id: config.kafka.group_instance_id.as_deref().map(str::to_owned),
        properties: config.kafka.properties.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        usage_topic: config.topics.usage.to_string(),
        assignments_topic: config.topics.assignments.to_string(),
        alerts_topic: config.topics.alerts.to_string(),
        fetch_ahead: stream::FetchAhead {
            bytes: config.kafka.fetch_bytes.bytes(),
            records: config.kafka.fetch_records.get().into(),
        },
    };
    options.check().map_err(|error| ConfigError::new(error.to_string()))?;
    Ok(options)
}

/// The parts of a process before it runs.
pub struct Service {
    config: Config,
    roles: Roles,
    store: Arc<dyn Store>,
    store_id: Uuid,
    /// How many partitions the topics have; for worker and relay.
    topics: Option<(stream::Options, topics::Checked)>,
    admin: TcpListener,
    /// For the reader: where the query is answered, and what tokens are held against.
    query: Option<(TcpListener, Keys)>,
    health: Health,
}

impl Service {
    /// Finds everything that the roles need, so that what is wrong shows at the start.
    pub async fn prepare(
        config: Config,
        roles: Roles,
        store: Arc<dyn Store>,
        stream: Option<stream::Options>,
    ) -> Result<Service, ServiceError> {
        let admin = http::bind("admin.listen", "--admin-listen", config.admin.listen.0).await?;
        let query = if roles.has(Role::Reader) {
            let listener = http::bind("http.listen", "--listen", config.http.listen.0).await?;
            Some((listener, keys(&config)?))
        } else {
            None
        };
        let health = Health::new();
        health.expect(STORE);
        if roles.has(Role::Worker) {
            health.expect(PARTITIONS);
        }
        failpoint::hit("start");
        store.migrate().await?;
        failpoint::hit("migrated");
        let deployment = store.deployment().await?;
        let store_id = deployment.store_id;
        health.ok(STORE);
        let topics = match stream {
            // What a worker finds different for itself.
            None => {
                let known = deployment.settled.map(|settled| settled.time_zone);
                if let Some(settled) = known.filter(|known| *known != config.time_zone.name()) {
                    let configured = config.time_zone.name().to_owned();
                    return Err(ServiceError::Settled { key: "time_zone", configured, settled });
                }
                None
            }
            Some(stream) => {
                let options = stream.clone();
                let checking = tokio::task::spawn_blocking(move || topics::check(&options));
                let checked = checking.await.map_err(|panic| ServiceError::Role(panic.to_string()))??;
                health.ok(BROKER);
                settle(&config, store.as_ref(), checked.partitions).await?;
                Some((stream, checked))
            }
        };
        Ok(Service { config, roles, store, store_id, topics, admin, query, health })
    }

    /// Where the query is answered, if it is.
    pub fn query_address(&self) -> Option<SocketAddr> {
        self.query.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Runs until `stop` turns true or a role fails. The worker ends first, so that the relay can still publish what it
    /// raised.
    pub async fn run(self, metrics: PrometheusHandle, mut stop: watch::Receiver<bool>) -> Result<(), ServiceError> {
        let Service { config, roles, store, store_id, topics, admin, query, health } = self;
        let (end_worker, (end_reader, reader), (end_rest, rest)) =
            (Control::new(), watch::channel(false), watch::channel(false));
        let raised = Arc::new(Notify::new());
        let mut running: JoinSet<(&'static str, Result<(), String>)> = JoinSet::new();
        let upkeep = tokio::spawn(metrics::upkeep(metrics.clone()));
        let options = AdminOptions { metrics: Box::new(move || metrics.render()), health: health.clone() };
        let serving = http::serve_admin(admin, options, rest.clone());
        running.spawn(async { (ADMIN, serving.await.map_err(|error| error.to_string())) });
        if let Some((listener, keys)) = query {
            let calendar = config.time_zone.calendar().clone();
            let (limits, patience) = (http_limits(&config), config.store.read_timeout.duration());
            let options =
                QueryOptions { store: store.clone(), calendar, keys, health: health.clone(), limits, patience };
            let serving = http::serve_query(listener, options, reader);
            running.spawn(async { (READER, serving.await.map_err(|error| error.to_string())) });
        }
        let mut asking = JoinSet::new();
        let writes = roles.has(Role::Worker) || roles.has(Role::Relay);
        if writes {
            asking.spawn(probes::ask_store(store.clone(), Side::Writing, STORE, health.clone()));
        }
        if roles.has(Role::Reader) {
            // A replica that is away says nothing about the store that the partitions wait for.
            let part = if writes && config.store.read_url.is_some() { REPLICA } else { STORE };
            asking.spawn(probes::ask_store(store.clone(), Side::Reading, part, health.clone()));
        }
        if let Some((stream, _)) = &topics {
            asking.spawn(probes::ask_brokers(stream.clone(), health.clone()));
        }
        let mut working = false;
        if let Some((stream, checked)) = topics {
            if roles.has(Role::Worker) {
                working = true;
                let options = worker_options(&config, &store, store_id, &stream, checked.partitions, &raised, &health);
                let control = end_worker.clone();
                running.spawn(async { (WORKER, worker::run(options, control).await) });
            }
            if roles.has(Role::Relay) {
                let options = relay::Options {
                    store: store.clone(),
                    store_id,
                    stream,
                    partitioner: config.kafka.partitioner,
                    alerts_partitions: checked.alerts_partitions,
                    raised,
                    worker_beside: working,
                    batch: size(config.alerts.batch.get()),
                    health,
                };
                running.spawn(async { (RELAY, relay::run(options, rest).await) });
            }
        }
        let stopped = async {
            // A sender that is gone means the same.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let mut result = Ok(());
        tokio::select! {
            () = stopped => info!("ending"),
            Some(ended) = running.join_next() => result = Err(failure(ended)),
            // They never end but by a panic, and then health would go on telling what they said last.
            Some(ended) = asking.join_next() => result = Err(failure(ended.map(|()| (PROBES, Ok(()))))),
        }
        end_worker.stop();
        // Whoever listens to it is gone already then.
        let _ = end_reader.send(true);
        let ending = async {
            while working && !running.is_empty() && result.is_ok() {
                match running.join_next().await {
                    Some(Ok((WORKER, Ok(())))) | None => break,
                    Some(Ok((READER, Ok(())))) => {}
                    Some(ended) => result = Err(failure(ended)),
                }
            }
            let _ = end_rest.send(true);
            while let Some(ended) = running.join_next().await {
                if !matches!(ended, Ok((_, Ok(())))) && result.is_ok() {
                    result = Err(failure(ended));
                }
            }
            result
        };
        let result = tokio::time::timeout(FAREWELL, ending).await;
        upkeep.abort();
        asking.abort_all();
        result.unwrap_or_else(|_| Err(ServiceError::Role(format!("not all ended within {FAREWELL:?}"))))
    }
}

const ADMIN: &str = "admin server";
const READER: &str = "reader";
const PROBES: &str = "probes";
const WORKER: &str = "worker";
const RELAY: &str = "relay";

/// What a role's end says, if the others did not ask for it.
fn failure(ended: Result<(&'static str, Result<(), String>), tokio::task::JoinError>) -> ServiceError {
    ServiceError::Role(match ended {
        Ok((role, Ok(()))) => format!("{role}: ended without being told to"),
        Ok((_, Err(line))) => line,
        Err(panic) => format!("a role failed: {panic}"),
    })
}

/// What the query's tokens are held against.
pub fn keys(config: &Config) -> Result<Keys, ConfigError> {
    let auth = &config.auth;
    let (audience, issuer) = (auth.audience.as_deref(), auth.issuer.as_deref());
    if let Some(path) = &auth.jwks_file {
        return Keys::jwks_file(path, audience, issuer).map_err(ConfigError::new);
    }
    if let Some(url) = &auth.jwks_url {
        return Ok(Keys::jwks_url(url, audience, issuer));
    }
    let secret = config.hs256_secret()?;
    Ok(Keys::hs256(secret.expose(), audience, issuer))
}

/// A number of a config as one of things in memory.
fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What a client of the query may take.
fn http_limits(config: &Config) -> http::Limits {
    let http = &config.http;
    http::Limits {
        url_bytes: size(http.url_bytes.get()),
        head_bytes: size(http.head_bytes.get()),
        head_time: http.head_time.duration(),
        write_time: http.write_time.duration(),
        answer_time: http.answer_time.duration(),
        connection_time: http.connection_time.duration(),
        connections: size(http.connections.get()),
        answers: size(http.answers.get()),
    }
}

/// What the partitions of a worker share, with a health of its own. What the store's rows depend on comes from `settled` and
/// `calendar`, which is that of its time zone, and not from the config.
pub fn worker_context(
    config: &Config,
    store: &Arc<dyn Store>,
    store_id: Uuid,
    settled: &Settled,
    calendar: Calendar,
) -> worker::Context {
    let cache_bytes = usize::try_from(config.worker.cache_bytes.bytes()).unwrap_or(usize::MAX);
    worker::Context {
        store: store.clone(),
        store_id,
        calendar,
        partitions: settled.partitions,
        thresholds: config.alerts.thresholds.0.clone(),
        alert_source: config.alerts.source.to_string(),
        topics: [config.topics.usage.to_string(), config.topics.assignments.to_string()],
        now,
        accounts_bytes: usize::try_from(config.worker.accounts_bytes.bytes()).unwrap_or(usize::MAX),
        cache_bytes: cache_bytes / usize::try_from(settled.partitions).unwrap_or(1).max(1),
        look_back: LOOK_BACK,
        replay_page: REPLAY_PAGE,
        replay_pause: Duration::from_millis(u64::from(config.worker.replay_pause_ms.get())),
        behind_bytes: usize::try_from(config.worker.behind_bytes.bytes()).unwrap_or(usize::MAX),
        storing_customers: STORING_CUSTOMERS,
        let_in: LET_IN,
        rules: Rules {
            partitioner: settled.partitioner,
            partitions: settled.partitions,
            max_future: config.max_future.duration(),
            retention: config.retention.duration(),
        },
        health: Health::default(),
    }
}

fn worker_options(
    config: &Config,
    store: &Arc<dyn Store>,
    store_id: Uuid,
    stream: &stream::Options,
    partitions: i32,
    raised: &Arc<Notify>,
    health: &Health,
) -> worker::Options {
    let settled =
        Settled { partitions, partitioner: config.kafka.partitioner, time_zone: config.time_zone.name().to_owned() };
    let calendar = config.time_zone.calendar().clone();
    let context =
        worker::Context { health: health.clone(), ..worker_context(config, store, store_id, &settled, calendar) };
    worker::Options {
        context: Arc::new(context),
        limits: worker::BatchLimits {
            records: size(config.worker.batch_records.get()),
            customers: size(config.worker.batch_customers.get()),
            bytes: usize::try_from(config.worker.batch_bytes.bytes()).unwrap_or(usize::MAX),
            batches: size(config.worker.batches.get()),
        },
        stream: stream.clone(),
        stall_after: config.worker.stall_after.duration(),
        audit_per_second: config.worker.audit_per_second.get(),
        raised: raised.clone(),
        health: health.clone(),
    }
}

/// The wall clock.
pub(crate) fn now() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Settles what the store's rows depend on, or holds the config against what was settled before.
async fn settle(config: &Config, store: &dyn Store, partitions: i32) -> Result<(), ServiceError> {
    let wanted =
        Settled { partitions, partitioner: config.kafka.partitioner, time_zone: config.time_zone.name().to_owned() };
    let settled = store.settle(&wanted).await?;
    if partitions != settled.partitions {
        return Err(ServiceError::Partitions { topics: partitions, settled: settled.partitions });
    }
    let differ = [
        ("kafka.partitioner", wanted.partitioner.name().to_owned(), settled.partitioner.name().to_owned()),
        ("time_zone", wanted.time_zone, settled.time_zone),
    ];
    match differ.into_iter().find(|(_, configured, settled)| configured != settled) {
        Some((key, configured, settled)) => Err(ServiceError::Settled { key, configured, settled }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_and_the_servers_have_the_same_defaults() {
        assert_eq!(http_limits(&Config::default()), http::Limits::default());
    }
}
