//! Inclusive usage balances, exact: usage and assignment events come in over Kafka, balances follow in the store in one
//! transaction, alerts go out, a query answers.
//!
//! Imports run one way: main, then the roles (`worker`, `relay`, `http`), then `store`, `stream` and `events`, then
//! [`domain`].

pub mod audit;
pub mod config;
pub mod demo;
pub mod domain;
pub mod events;
mod failpoint;
pub mod http;
mod probes;
pub mod relay;
pub mod service;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod worker;
