//! `headroom demo`: the whole product in one process, with a broker inside and SQLite in a temporary folder, playing a
//! made-up month or a user's own events, and telling a person what happens.
//!
//! Nothing here is simulated but the customers and the broker: worker, relay and reader are those of `headroom run`.

mod feed;
mod input;
mod story;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::{Config, LogLevel, Roles, Secret, Servers, StoreUrl};
use crate::domain::Calendar;
use crate::service::{self, Service, ServiceError, store_options, stream_options};
use crate::store::{self, Store, StoreError};
use crate::stream::StreamError;
use crate::stream::alerts::AlertsReader;
use crate::stream::embedded::EmbeddedBroker;
use crate::telemetry::metrics::{self, PrometheusHandle};

use feed::{Feeding, Pace};
use story::Sharers;

/// Partitions of each topic.
const PARTITIONS: i32 = 8;
/// The made-up company's size, and how long its month takes.
const CUSTOMERS: i64 = 40;
const EVENTS: usize = 24_000;
const MONTH: Duration = Duration::from_secs(60);
const SEED: u64 = 1;

/// Why a demo ended, or did not start: one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file that was to be played.
    #[error("--input {file}{place}: {why}")]
    Input {
        /// Its name.
        file: String,
        /// The line in it, such as ` line 7`; empty for the whole file.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The temporary folder.
    #[error("a temporary folder for the demo's store: {0}")]
    Folder(std::io::Error),
    /// A part of the product.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The broker.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The config.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Standard output went away.
    #[error("{0}")]
    Output(String),
}

/// A record to be sent.
#[derive(Debug, Clone)]
struct Line {
    /// The Kafka key.
    key: String,
    /// The CloudEvent; `None` for a null.
    value: Option<String>,
    /// The Kafka timestamp, in milliseconds since the Unix epoch.
    timestamp: i64,
    /// Whether it goes to the topic of usage.
    is_usage: bool,
}

/// What is played, and on what.
pub struct Demo {
    config: Config,
    lines: Vec<Line>,
    pace: Pace,
    // Both end with the demo.
    _broker: EmbeddedBroker,
    _folder: tempfile::TempDir,
}

/// How a demo talks to the person before it; an error ends it.
pub type Say<'a> = &'a dyn Fn(&str) -> Result<(), String>;

impl Demo {
    /// Makes broker and folder, and reads what is to be played: `input`, or else the month before this one.
    pub fn new(mut config: Config, input: Option<&Path>) -> Result<Demo, DemoError> {
        let (lines, pace) = match input {
            Some(file) => (input::read(file)?, Pace::AsFastAsItGoes),
            None => {
                let (first, days) = world::month_before(config.time_zone.calendar().date_of(service::now()));
                (world::month(SEED, CUSTOMERS, EVENTS, first, days), Pace::Within(MONTH))
            }
        };
        let folder = tempfile::Builder::new().prefix("headroom-demo-").tempdir().map_err(DemoError::Folder)?;
        let topics = [&config.topics.usage, &config.topics.assignments, &config.topics.alerts];
        let broker = EmbeddedBroker::start(&topics.map(|topic| (&**topic, PARTITIONS)))?;
        let url = format!("sqlite://{}", folder.path().join("headroom.db").display());
        config.store.url = Some(StoreUrl::try_from(url).map_err(|why| DemoError::Output(why.to_string()))?);
        config.store.read_url = None;
        let servers =
            Servers::try_from(broker.address().to_owned()).map_err(|why| DemoError::Output(why.to_string()))?;
        config.kafka.bootstrap_servers = Some(servers);
        if config.auth.hs256_secret.is_none() {
            let random = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
            config.auth.hs256_secret = Secret::new(random);
        }
        // A terminal is for the story; what goes wrong is still told.
        if config.log.level == LogLevel::Info {
            config.log.level = LogLevel::Warn;
        }
        Ok(Demo { config, lines, pace, _broker: broker, _folder: folder })
    }

    /// The config that is in effect.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Plays until `stop` turns true or `duration` is over, then sums up.
    pub async fn play(
        self,
        duration: Option<Duration>,
        token: &str,
        handle: PrometheusHandle,
        stop: watch::Receiver<bool>,
        say: Say<'_>,
    ) -> Result<(), DemoError> {
        let Demo { config, lines, pace, _broker, _folder } = self;
        metrics::register(Roles::ALL, &config.topics);
        let stream = stream_options(&config)?;
        let store = store::connect(&store_options(&config)?)?;
        let service = Service::prepare(config.clone(), Roles::ALL, store.clone(), Some(stream.clone())).await?;
        let url = service.query_address().map(|address| format!("http://{address}/inclusive-usage-balances"));
        let url = url.unwrap_or_default();
        welcome(&url, token, config.admin.listen.0, lines.len(), pace, say).map_err(DemoError::Output)?;

        let sharers = Sharers::of(&lines);
        let (end, ending) = watch::channel(false);
        let mut running = tokio::spawn(service.run(handle.clone(), ending));
        let over = Arc::new(AtomicBool::new(false));
        let (mut alerts, reading) = alerts_of(AlertsReader::new(&stream, &[])?, over.clone());
        let feeding = Feeding::start(&config, PARTITIONS, lines, pace, handle.clone(), over.clone())?;
        let mut stage =
            Stage { store, handle, feeding, sharers, calendar: config.time_zone.calendar().clone(), alerts: 0 };

        let told = stage.show(duration, stop, &mut alerts, &mut running, say).await;
        over.store(true, Ordering::Relaxed);
        // Nobody listens any more when the service ended by itself.
        let _ = end.send(true);
        if !matches!(told, Err(DemoError::Service(_))) {
            running.await.map_err(|panic| ServiceError::Role(panic.to_string()))??;
        }
        stage.feeding.join();
        if reading.join().is_err() {
            tracing::warn!("reading alerts ended with a panic");
        }
        told?;
        while let Ok(alert) = alerts.try_recv() {
            stage.alert(&alert, say)?;
        }
        say(&stage.summary().await?).map_err(DemoError::Output)
    }
}

/// What happens while a demo plays.
struct Stage {
    store: Arc<dyn Store>,
    handle: PrometheusHandle,
    feeding: Feeding,
    sharers: Sharers,
    calendar: Calendar,
    alerts: u64,
}

impl Stage {
    async fn show(
        &mut self,
        duration: Option<Duration>,
        mut stop: watch::Receiver<bool>,
        alerts: &mut mpsc::UnboundedReceiver<Vec<u8>>,
        running: &mut tokio::task::JoinHandle<Result<(), ServiceError>>,
        say: Say<'_>,
    ) -> Result<(), DemoError> {
        let begun = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.tick().await;
        let end = duration.map(|duration| begun + duration);
        let mut all_in = false;
        loop {
            tokio::select! {
                _ = stop.wait_for(|told| *told) => return Ok(()),
                () = async { tokio::time::sleep_until(end.unwrap_or(begun)).await }, if end.is_some() => return Ok(()),
                Some(alert) = alerts.recv() => self.alert(&alert, say)?,
                _ = tick.tick() => {
                    if let Some(why) = self.feeding.fault() {
                        return Err(DemoError::Output(why));
                    }
                    let applied = feed::applied(&self.handle);
                    if !all_in {
                        let line = self.status(begun.elapsed()).await?;
                        say(&line).map_err(DemoError::Output)?;
                    }
                    if !all_in && self.feeding.is_done() && applied >= self.feeding.sent() {
                        all_in = true;
                        say("All events are in. The balances stay to be read until Ctrl-C.").map_err(DemoError::Output)?;
                    }
                }
                ended = &mut *running => {
                    let ended = ended.map_err(|panic| ServiceError::Role(panic.to_string())).and_then(|result| result);
                    return Err(ended.err().unwrap_or(ServiceError::Role("the service ended by itself".into())).into());
                }
            }
        }
    }

    fn alert(&mut self, alert: &[u8], say: Say<'_>) -> Result<(), DemoError> {
        self.alerts += 1;
        say(&format!("          ! {}", self.sharers.in_words(alert))).map_err(DemoError::Output)
    }

    /// `[ 12 s] 2026-10-07: 5210 records in, 311 commits, 84 balances, 9 alerts`
    async fn status(&self, elapsed: Duration) -> Result<String, DemoError> {
        let day =
            self.feeding.instant().map(|instant| format!(" {}", self.calendar.date_of(instant))).unwrap_or_default();
        Ok(format!("[{:>4} s]{day}: {}", elapsed.as_secs(), self.figures().await?))
    }

    async fn figures(&self) -> Result<String, DemoError> {
        let balances = self.balances().await?;
        let commits = feed::sum(&self.handle, "headroom_commit_duration_seconds_count");
        let applied = feed::applied(&self.handle);
        let refused = match feed::sum(&self.handle, "headroom_dead_letters_total{") {
            0 => String::new(),
            refused => format!(", {refused} records REFUSED (see headroom_dead_letters_total in the metrics)"),
        };
        let alerts = self.alerts;
        Ok(format!("{applied} records in, {commits} commits, {balances} balances drawn on, {alerts} alerts{refused}"))
    }

    /// How many balances something drew on.
    async fn balances(&self) -> Result<usize, DemoError> {
        let mut snapshot = self.store.snapshot().await?;
        let mut balances = 0;
        for partition in 0..PARTITIONS {
            let mut after = None;
            loop {
                let customers = snapshot.customers(partition, after, 1_000).await?;
                after = customers.last().copied();
                if after.is_none() {
                    break;
                }
                for customer in customers {
                    let account = snapshot.account(partition, customer).await?;
                    balances += account.map_or(0, |account| account.buckets.len());
                }
            }
        }
        Ok(balances)
    }

    async fn summary(&self) -> Result<String, DemoError> {
        let totals = self.store.totals().await?;
        Ok(format!(
            "The end: {}; {} usage events count, {} were taken back.",
            self.figures().await?,
            totals.counted,
            totals.reversed
        ))
    }
}

fn welcome(
    url: &str,
    token: &str,
    admin: std::net::SocketAddr,
    lines: usize,
    pace: Pace,
    say: Say<'_>,
) -> Result<(), String> {
    match pace {
        Pace::Within(time) => {
            say(&format!("headroom plays a month of {CUSTOMERS} customers in {} s.", time.as_secs()))?
        }
        Pace::AsFastAsItGoes => say(&format!("headroom plays {lines} events."))?,
    }
    say(&format!("  balances: {url}"))?;
    say(&format!("  metrics:  http://{admin}/metrics   health: http://{admin}/health/ready"))?;
    say(&format!("  token:    {token}"))?;
    say(&format!("  try:      curl -s -H 'Authorization: Bearer {token}' '{url}?page=1&pageSize=3'"))?;
    say("Ctrl-C ends it.\n")
}

/// The alerts, as a reader of the topic sees them come.
fn alerts_of(mut reader: AlertsReader, over: Arc<AtomicBool>) -> (mpsc::UnboundedReceiver<Vec<u8>>, JoinHandle<()>) {
    let (sender, alerts) = mpsc::unbounded_channel();
    let thread = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            match reader.next_payload(Duration::from_millis(100)) {
                Ok(Some(alert)) => {
                    if sender.send(alert).is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("{error}");
                    return;
                }
            }
        }
    });
    (alerts, thread)
}
