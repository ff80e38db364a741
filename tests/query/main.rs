//! The query as a portal meets it: a service with known balances, asked over HTTP (`domain.md section 8`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod described;
mod doors;
mod generated;
mod portal;
#[path = "../support/ports.rs"]
mod ports;
mod reads;
mod slow;
