//! Asks store and brokers every second whether they answer, whatever the roles do meanwhile: who waits for one that hangs
//! says nothing.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::store::{Side, Store};
use crate::stream::{self, Probe};
use crate::telemetry::Health;
use crate::telemetry::metrics::BROKER;

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// Asks the store, one side of it, until it is aborted, and says how this `part` is.
pub(crate) async fn ask_store(store: Arc<dyn Store>, side: Side, part: &'static str, health: Health) {
    let reporter = health.reporter(part);
    let mut away = false;
    loop {
        match store.ping(side).await {
            Ok(()) => {
                if std::mem::take(&mut away) {
                    info!("the store answers again");
                }
                reporter.ok();
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    warn!("{error}");
                }
                reporter.fault(&error.to_string());
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Asks the brokers, until it is aborted.
pub(crate) async fn ask_brokers(options: stream::Options, health: Health) {
    let reporter = health.reporter(BROKER);
    let mut probe: Option<Probe> = None;
    let mut away = false;
    loop {
        let options = options.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let probe = probe.map_or_else(|| Probe::new(&options), Ok)?;
            let answer = probe.ask();
            Ok::<_, stream::StreamError>((probe, answer))
        });
        let answer = match asking.await {
            Ok(Ok((asked, answer))) => {
                probe = Some(asked);
                answer.map_err(|error| error.to_string())
            }
            Ok(Err(error)) => {
                probe = None;
                Err(error.to_string())
            }
            // The runtime ends.
            Err(_) => return,
        };
        match answer {
            Ok(()) => {
                if std::mem::take(&mut away) {
                    info!("Kafka answers again");
                }
                reporter.ok();
            }
            Err(line) => {
                if !std::mem::replace(&mut away, true) {
                    warn!("{line}");
                }
                reporter.fault(&line);
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}
