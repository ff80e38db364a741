//! Lets the store keep its statistics, beside the worker's way: what it plans must fit what it has grown to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::partition::Context;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps them until it is aborted.
pub(super) async fn keep(context: Arc<Context>) {
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        if let Err(error) = context.store.keep_statistics().await {
            debug!("the store's statistics wait: {error}");
        }
    }
}
