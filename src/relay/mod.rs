//! The relay: alerts from the outbox to Kafka, each seen once by a read_committed reader (`domain.md section 7`).
//!
//! One relay is active: it holds the store's lease and the deployment's one transactional id. The lease only says who
//! may begin; Kafka's fencing is what protects. The alerts topic is the truth of what is published: a relay that begins
//! reads on from where the store last knew it to be, and goes on after the highest number found there for each
//! partition. Whatever fails ends its term; the next one begins by reading again.

mod term;

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};
use uuid::Uuid;

use crate::domain::Partitioner;
use crate::store::Store;
use crate::stream;
use crate::telemetry::{Health, metrics as names};
use term::{Term, TermEnd};

/// How long a lease holds, in seconds. It is kept up every third of that.
const LEASE: u32 = 9;
/// How long a waiting relay waits before it asks again, and one whose term ended before it begins anew.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// Where it says how it is.
    pub health: Health,
}

/// Runs until `stop` turns true or going on would do harm; the error is one line.
pub async fn run(options: Options, mut stop: watch::Receiver<bool>) -> Result<(), String> {
    let holder = Uuid::new_v4();
    let options = Arc::new(options);
    while !*stop.borrow() {
        match options.store.lease(holder, LEASE).await {
            Ok(true) => {
                info!("relay: active");
                match Term::serve(&options, holder, &mut stop).await {
                    TermEnd::Stopped => break,
                    TermEnd::Harmful(line) => return Err(line),
                    TermEnd::Failed(line) => {
                        warn!("relay: {line}; beginning again");
                        options.health.fault(PART, &line);
                    }
                }
            }
            Ok(false) => options.health.ok(PART),
            Err(error) => options.health.fault(PART, &error.to_string()),
        }
        // Only the active relay speaks of the outbox.
        gauge!(names::OUTBOX).set(0);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stop.changed() => {}
        }
    }
    Ok(())
}
