//! The relay: alerts from the outbox to Kafka, each seen once by a read_committed reader (`domain.md section 7`).
//!
//! One relay is active: it holds the store's lease and the deployment's one transactional id. The lease only says who
//! may begin; Kafka's fencing is what protects. The alerts topic is the truth of what is published: a relay that begins
//! reads on from where the store last knew it to be, and goes on after the highest number found there for each
//! partition. Whatever fails ends its term; the next one begins by reading again.

mod term;

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};
use uuid::Uuid;

use crate::domain::Partitioner;
use crate::store::{Store, StoreError};
use crate::stream;
use crate::telemetry::{Health, metrics as names};
use term::{Term, TermEnd};

/// How long a lease holds, in seconds. It is kept up every third of that.
const LEASE: u32 = 3;
/// How long a waiting relay waits before it asks again, and one whose term ended before it begins anew.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a log line says what it waits for.
const SAY: Duration = Duration::from_secs(10);

/// What is wrong when a lease is not renewed in time.
const LATE: &str = "the store did not renew the lease in time";
/// Its name in health.
const PART: &str = "relay";

/// How a relay is set up.
pub struct Options {
    /// Where the outbox is.
    pub store: Arc<dyn Store>,
    /// The identity of that store.
    pub store_id: Uuid,
    /// Its way to Kafka.
    pub stream: stream::Options,
    /// How customers give partitions.
    pub partitioner: Partitioner,
    /// How many partitions the alerts topic has.
    pub alerts_partitions: i32,
    /// Told by a worker in the same process when it raised alerts.
    pub raised: Arc<Notify>,
    /// Whether a worker runs in the same process. While the topic holds alerts that the store has yet to raise, it waits
    /// for that worker; else it ends.
    pub worker_beside: bool,
    /// The most alerts of one transaction of Kafka.
    pub batch: usize,
    /// Where it says how it is.
    pub health: Health,
}

/// Runs until `stop` turns true or going on would do harm; the error is one line.
pub async fn run(options: Options, mut stop: watch::Receiver<bool>) -> Result<(), String> {
    let holder = Uuid::new_v4();
    let options = Arc::new(options);
    let began = Instant::now();
    let mut said: Option<Instant> = None;
    // Whether the last term ended by a late lease: one may, by a store that is away, which others tell.
    let mut is_late = false;
    while !*stop.borrow() {
        // A store that hangs must not keep it from ending.
        let leased = tokio::select! {
            leased = options.store.lease(holder, LEASE) => leased,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match leased {
            Ok(true) => {
                info!("relay: active");
                match Term::serve(&options, holder, &mut stop).await {
                    TermEnd::Stopped => break,
                    TermEnd::Harmful(line) => return Err(line),
                    TermEnd::Ahead(line) if !options.worker_beside => return Err(line),
                    TermEnd::Ahead(line) => {
                        options.health.fault(PART, &line);
                        if said.is_none_or(|said| said.elapsed() >= SAY) {
                            warn!("{line}; waiting until the workers have raised them again");
                            said = Some(Instant::now());
                        }
                    }
                    TermEnd::Late => {
                        warn!("relay: {LATE}; beginning again");
                        if std::mem::replace(&mut is_late, true) {
                            options.health.fault(PART, LATE);
                        }
                        show_waiting(&options).await;
                    }
                    TermEnd::Failed(line) => {
                        warn!("relay: {line}; beginning again");
                        options.health.fault(PART, &line);
                        is_late = false;
                        show_waiting(&options).await;
                    }
                }
            }
            Ok(false) => {
                options.health.ok(PART);
                // Only the active relay speaks of the outbox. But the lease may be a dead one's until it ran out once.
                let alone = began.elapsed() < Duration::from_secs(u64::from(LEASE));
                let asked = tokio::time::timeout(PAUSE, waiting(options.store.as_ref()));
                let waiting = if alone { asked.await.ok().and_then(Result::ok).unwrap_or(0) } else { 0 };
                gauge!(names::OUTBOX).set(waiting as f64);
            }
            Err(error) => options.health.fault(PART, &error.to_string()),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.changed() => {}
        }
    }
    Ok(())
}

/// Shows how much waits: what cannot be published now waits all the same.
async fn show_waiting(options: &Options) {
    if let Ok(Ok(waiting)) = tokio::time::timeout(PAUSE, waiting(options.store.as_ref())).await {
        gauge!(names::OUTBOX).set(waiting as f64);
    }
}

/// How many alerts the store does not know to be published.
async fn waiting(store: &dyn Store) -> Result<i64, StoreError> {
    let published = store.relay_state().await?.numbers;
    let of =
        |partition: i32| published.iter().find(|known| known.partition == partition).map_or(0, |known| known.value);
    Ok(store.outbox_numbers().await?.iter().map(|last| (last.value - of(last.partition)).max(0)).sum())
}
