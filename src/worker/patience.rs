//! Waiting for a store that is away: what failed is tried again, ever more seldom, and never silently.

use std::future::Future;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::partition::Context;
use crate::store::{CommitError, StoreError};
use crate::telemetry::Reporter;
use crate::telemetry::metrics::STORE;

/// The first and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often a log line says that it still waits.
const SAY: Duration = Duration::from_secs(10);

/// An error of which trying again may get rid.
pub(super) trait Passing {
    /// Whether nothing was done and the store may answer the next time; the sentence to show.
    fn passing(&self) -> Option<String>;
}

impl Passing for StoreError {
    fn passing(&self) -> Option<String> {
        matches!(self, StoreError::Unavailable(_)).then(|| self.to_string())
    }
}

impl Passing for CommitError {
    fn passing(&self) -> Option<String> {
        match self {
            CommitError::Store(error) => error.passing(),
            CommitError::Fenced(_) | CommitError::Unknown(_) => None,
        }
    }
}

impl Context {
    /// Tries until the store answers, or says something that trying again does not change. Whoever calls can be
    /// aborted while it waits.
    pub(super) async fn patiently<T, E, F>(&self, operation: impl Fn() -> F) -> Result<T, E>
    where
        E: Passing,
        F: Future<Output = Result<T, E>>,
    {
        let mut pause = PAUSE.0;
        let mut waiting: Option<(Instant, Instant)> = None;
        let mut reporter: Option<Reporter> = None;
        loop {
            let result = operation().await;
            let Some(line) = result.as_ref().err().and_then(Passing::passing) else {
                if let Some((since, _)) = waiting {
                    info!("the store answers again after {:.1} s", since.elapsed().as_secs_f32());
                }
                return result;
            };
            reporter.get_or_insert_with(|| self.health.reporter(STORE)).fault(&line);
            let now = Instant::now();
            let (since, said) = waiting.unwrap_or((now, now));
            if waiting.is_none() || said.elapsed() > SAY {
                warn!("{line}; trying again");
                waiting = Some((since, now));
            }
            // Not all at once: each waits between half of the pause and all of it.
            let part = uuid::Uuid::new_v4().as_u128() % 512;
            tokio::time::sleep(pause.mul_f64(0.5 + part as f64 / 1024.0)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}
