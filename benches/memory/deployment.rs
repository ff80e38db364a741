//! A deployment on real Kafka and PostgreSQL with topics and a database of its own, which go when it does.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command};

use headroom::stream::feeder::Feeder;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use sqlx::Connection as _;
use uuid::Uuid;

use super::Sending;

/// Where Kafka and PostgreSQL are, and names that nobody else has.
pub(super) struct Deployment {
    environment: BTreeMap<String, String>,
    postgres: String,
    database: String,
}

/// A worker with its relay; it is killed at the end of its stage.
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// What of its memory is resident, and the most that ever was, in MiB.
    pub(super) fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let of = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Deployment {
    pub(super) fn new(partitions: i32) -> Deployment {
        let of = |name: &str| {
            let hint = "run `make bench-memory`, or `scripts/services up` and `eval \"$(scripts/services env)\"`";
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: {hint}"))
        };
        let (kafka, postgres) = (of("HEADROOM_TEST_KAFKA"), of("HEADROOM_TEST_POSTGRES"));
        let name = format!("memory-{}", Uuid::new_v4().simple());
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let environment = [
            ("KAFKA__BOOTSTRAP_SERVERS", kafka),
            ("KAFKA__GROUP", name.clone()),
            ("TOPICS__USAGE", format!("{name}-usage")),
            ("TOPICS__ASSIGNMENTS", format!("{name}-assignments")),
            ("TOPICS__ALERTS", format!("{name}-alerts")),
            ("STORE__URL", format!("{postgres}/{name}")),
            ("ADMIN__LISTEN", admin),
        ];
        let environment = environment.into_iter().map(|(key, value)| (format!("HEADROOM_{key}"), value)).collect();
        let deployment = Deployment { environment, postgres, database: name };
        deployment.statement("postgres", &format!("create database \"{}\"", deployment.database));
        let made = deployment.command(&["topics", "create", "--partitions", &partitions.to_string()]).status().unwrap();
        assert!(made.success());
        deployment
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let built = env!("CARGO_BIN_EXE_headroom").to_owned();
        let mut command = Command::new(std::env::var("HEADROOM_BIN").unwrap_or(built));
        command.args(arguments).envs(&self.environment).env("RUST_LOG", "warn");
        command
    }

    pub(super) fn run(&self) -> Running {
        let mut command = self.command(&["run", "--role", "worker,relay"]);
        let settings = std::env::var("SET").unwrap_or_default();
        command.args(settings.split_whitespace().flat_map(|setting| ["--set", setting]));
        Running(command.spawn().unwrap())
    }

    pub(super) fn sending(&self, topic: &str) -> Sending<'_> {
        let feeder = Feeder::new(&self.environment["HEADROOM_KAFKA__BOOTSTRAP_SERVERS"]).unwrap();
        Sending { feeder, topic: &self.environment[&format!("HEADROOM_TOPICS__{topic}")], sent: 0 }
    }

    /// Records that the running process has committed.
    pub(super) fn records(&self) -> u64 {
        let url = format!("http://{}/metrics", self.environment["HEADROOM_ADMIN__LISTEN"]);
        let Ok(mut answer) = ureq::get(url).call() else { return 0 };
        let text = answer.body_mut().read_to_string().unwrap();
        let series = text.lines().filter(|line| line.starts_with("headroom_records_total{"));
        series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    /// From now on each commit waits in the database, with its transaction open.
    pub(super) fn slow_down(&self) {
        let body = "begin perform pg_sleep(0.5); return null; end";
        self.statement(
            &self.database,
            &format!("create function slow() returns trigger language plpgsql as $${body}$$"),
        );
        let trigger = "create trigger slow before update on progress for each statement execute function slow()";
        self.statement(&self.database, trigger);
    }

    fn statement(&self, database: &str, statement: &str) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let url = format!("{}/{database}", self.postgres);
            let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        });
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.statement("postgres", &format!("drop database if exists \"{}\" with (force)", self.database));
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.environment["HEADROOM_KAFKA__BOOTSTRAP_SERVERS"])
            .create()
            .unwrap();
        let topics =
            ["USAGE", "ASSIGNMENTS", "ALERTS"].map(|topic| &*self.environment[&format!("HEADROOM_TOPICS__{topic}")]);
        let gone = admin.delete_topics(&topics, &AdminOptions::new());
        tokio::runtime::Runtime::new().unwrap().block_on(gone).unwrap();
    }
}
