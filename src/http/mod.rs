//! HTTP: the query for portals and billing, and the endpoints for operators. Two servers on two addresses.

mod admin;
mod server;

pub use admin::{AdminOptions, serve_admin};
pub use server::{BindError, bind};
