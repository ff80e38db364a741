//! Kafka as the program uses it, on a real broker (and the demo's in `embedded`).
//!
//! Its address comes from `HEADROOM_TEST_KAFKA`. Each test has topics and a group of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod consume;
mod embedded;
mod group;
mod headers;
mod kafka;
mod leaders;
mod relay;
mod sink;
mod topics;
