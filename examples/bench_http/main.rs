//! The query at size: loads lines through Kafka and the worker, then asks the reader and prints what it took.
//! `make bench-http` runs it; `UPIS` says how many lines (1,000,000), `REUSE=postgres://…` asks a database of an earlier
//! run again.

#![expect(clippy::unwrap_used, reason = "a benchmark ends by panicking")]

mod ask;
mod load;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection as _;

/// Partitions of the inputs.
pub(crate) const PARTITIONS: i32 = 8;
/// Lines of a customer.
pub(crate) const LINES: i64 = 5;

/// A running program.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A deployment of its own.
pub(crate) struct Deployment {
    environment: BTreeMap<String, String>,
    pub(crate) url: String,
    pub(crate) kafka: String,
    pub(crate) topics: [String; 2],
    pub(crate) query: String,
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Deployment {
    fn new() -> Deployment {
        let of = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run make bench-http"));
        let (kafka, server) = (of("HEADROOM_TEST_KAFKA"), of("HEADROOM_TEST_POSTGRES"));
        let name = format!("bench-{}", std::process::id());
        let url = std::env::var("REUSE").unwrap_or_else(|_| {
            on_postgres(&format!("{server}/postgres"), &format!("create database \"{name}\""));
            format!("{server}/{name}")
        });
        let topics = [format!("{name}-usage"), format!("{name}-assignments")];
        let query = free_address();
        let environment = [
            ("HEADROOM_KAFKA__BOOTSTRAP_SERVERS", kafka.clone()),
            ("HEADROOM_KAFKA__GROUP", name.clone()),
            ("HEADROOM_TOPICS__USAGE", topics[0].clone()),
            ("HEADROOM_TOPICS__ASSIGNMENTS", topics[1].clone()),
            ("HEADROOM_TOPICS__ALERTS", format!("{name}-alerts")),
            ("HEADROOM_STORE__URL", url.clone()),
            ("HEADROOM_HTTP__LISTEN", query.clone()),
            ("HEADROOM_ADMIN__LISTEN", free_address()),
            ("HEADROOM_AUTH__HS256_SECRET", "a secret of thirty-two bytes or more".to_owned()),
            ("HEADROOM_LOG__LEVEL", "warn".to_owned()),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value)).into();
        Deployment { environment, url, kafka, topics, query }
    }

    fn command(&self, arguments: &[&str], more: &[(&str, &str)]) -> Command {
        let mut command = Command::new("target/release/headroom");
        command.args(arguments).env_clear().envs(&self.environment).envs(more.iter().copied());
        command
    }

    pub(crate) fn say(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments, &[]).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "headroom {arguments:?} failed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn run(&self, role: &str, more: &[(&str, &str)]) -> Running {
        Running(self.command(&["run", "--role", role], more).spawn().unwrap())
    }
}

/// The first number that a statement gives.
pub(crate) fn on_postgres(url: &str, statement: &str) -> Option<i64> {
    use sqlx::{Executor as _, Row as _};
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let row = connection.fetch_optional(statement).await;
        row.unwrap().and_then(|row| row.try_get(0).ok())
    })
}

/// Waits until this is so.
pub(crate) fn until(so: impl Fn() -> bool) {
    while !so() {
        std::thread::sleep(Duration::from_millis(200));
    }
}

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
