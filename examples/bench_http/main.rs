//! The query at size: loads lines through Kafka and the worker, then asks the reader and prints what it took.
//! `make bench-http` runs it; `UPIS` says how many lines (1,000,000), `REUSE=postgres://…` asks a database of an earlier
//! run again.

#![expect(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

mod ask;
#[expect(dead_code, reason = "the other benchmark reads alerts too")]
mod deployment;
mod load;

use std::time::Instant;

use deployment::Deployment;

/// Lines of a customer.
pub(crate) const LINES: i64 = 5;

fn main() {
    let upis: i64 = std::env::var("UPIS").map_or(1_000_000, |upis| upis.parse().expect("UPIS is a number"));
    let deployment = Deployment::new();
    println!("{upis} lines of {} customers, 3 assignments each; {}", upis / LINES, deployment.url);
    if std::env::var("REUSE").is_err() {
        let begun = Instant::now();
        load::load(&deployment, upis);
        println!("loaded through Kafka and the worker in {:.0} s", begun.elapsed().as_secs_f64());
    }
    ask::ask(&deployment, upis);
}
