//! HTTP: the query for portals and billing, and the endpoints for operators. Two servers on two addresses.

mod admin;
mod answer;
pub mod auth;
mod body;
mod docs;
mod fetch;
mod grammar;
mod keys;
mod keyset;
mod limits;
mod openapi;
mod pace;
mod patterns;
mod query;
mod rows;
mod server;

pub use admin::{AdminOptions, serve_admin};
pub use limits::Limits;
pub use query::{QueryOptions, serve_query};
pub use server::{BindError, bind};
