//! What operators see: metrics and the log.

pub mod health;
pub mod logging;
pub mod metrics;

pub use health::{Health, Reporter};
