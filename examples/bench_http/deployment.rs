//! A deployment of its own on the test services, with the program as it is built for release.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection as _;

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
    pub(crate) alerts: String,
    pub(crate) query: String,
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Deployment {
    pub(crate) fn new() -> Deployment {
        let of = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the make target of the benchmark"))
        };
        let (kafka, server) = (of("HEADROOM_TEST_KAFKA"), of("HEADROOM_TEST_POSTGRES"));
        let name = format!("bench-{}", std::process::id());
        let url = std::env::var("REUSE").unwrap_or_else(|_| {
            on_postgres(&format!("{server}/postgres"), &format!("create database \"{name}\""));
            format!("{server}/{name}")
        });
        let topics = [format!("{name}-usage"), format!("{name}-assignments")];
        let alerts = format!("{name}-alerts");
        let query = free_address();
        let environment = [
            ("HEADROOM_KAFKA__BOOTSTRAP_SERVERS", kafka.clone()),
            ("HEADROOM_KAFKA__GROUP", name.clone()),
            ("HEADROOM_TOPICS__USAGE", topics[0].clone()),
            ("HEADROOM_TOPICS__ASSIGNMENTS", topics[1].clone()),
            ("HEADROOM_TOPICS__ALERTS", alerts.clone()),
            ("HEADROOM_STORE__URL", url.clone()),
            ("HEADROOM_HTTP__LISTEN", query.clone()),
            ("HEADROOM_ADMIN__LISTEN", free_address()),
            ("HEADROOM_AUTH__HS256_SECRET", "a secret of thirty-two bytes or more".to_owned()),
            ("HEADROOM_LOG__LEVEL", "warn".to_owned()),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value)).into();
        Deployment { environment, url, kafka, topics, alerts, query }
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

/// Waits until this is so, half an hour at most.
pub(crate) fn until(so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(1_800), "what is waited for has not come in half an hour");
        std::thread::sleep(Duration::from_millis(200));
    }
}
