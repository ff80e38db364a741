//! How a process ends: with its work done, at once when it is told twice, and loudly when a part of it fails.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use headroom::config::Config;
use headroom::domain::{Calendar, Instant, Partitioner};
use headroom::store::{self, Settled};
use headroom::stream::Control;
use headroom::telemetry::Health;
use headroom::worker::{self, BatchLimits, Context};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::json;

use crate::deployment::{Deployment, PARTITIONS, Running, now, on_postgres, until, until_within};
use crate::lock::Lock;
use crate::proxy::Proxy;

fn run(deployment: &Deployment) -> Running {
    Running(deployment.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap())
}

fn said(child: &mut Child) -> String {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

/// A deployment whose commit cannot end, since another holds the row.
fn with_a_commit_that_hangs() -> (Deployment, Running, Lock) {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = run(&deployment);
    until("it runs", || deployment.health("ready").0 == 200);
    let mut lock = Lock::take(&deployment, Partitioner::Murmur2.partition_of(17, PARTITIONS));
    deployment.call("call", 1);
    until("its commit waits", || lock.is_waited_for());
    (deployment, running, lock)
}

#[test]
fn the_batch_in_hand_is_committed_before_the_end() {
    let (deployment, mut running, lock) = with_a_commit_that_hangs();
    running.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(running.0.try_wait().unwrap(), None, "it waits for its commit");
    lock.let_go();
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    assert_eq!(deployment.totals()["usageEvents"]["counted"], 1);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (deployment, mut running, lock) = with_a_commit_that_hangs();
    running.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(running.0.try_wait().unwrap(), None, "it waits for its commit");
    running.signal("INT");
    assert_eq!(running.0.wait().unwrap().code(), Some(1));
    let said = said(&mut running.0);
    assert_eq!(said.lines().last(), Some("headroom: a second signal: ending at once"), "{said}");
    assert!(!said.contains("was not done in"), "{said}");
    drop(lock);
    // What it had in hand comes again.
    let _running = deployment.run();
    until("the event counts", || deployment.totals()["usageEvents"]["counted"] == 1);
}

#[test]
fn what_cannot_be_finished_does_not_keep_it() {
    let (deployment, mut running, lock) = with_a_commit_that_hangs();
    running.signal("TERM");
    until_within(Duration::from_secs(30), "it ends all the same", || running.0.try_wait().unwrap().is_some());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    let said = said(&mut running.0);
    assert!(said.contains("was not done in"), "{said}");
    drop(lock);
    let _running = deployment.run();
    until("the event counts", || deployment.totals()["usageEvents"]["counted"] == 1);
}

/// Ends it, which must come to a clean end though something hangs.
fn end_cleanly(running: &mut Running) {
    running.signal("TERM");
    until_within(Duration::from_secs(30), "it ends all the same", || running.0.try_wait().unwrap().is_some());
    assert_eq!(running.0.wait().unwrap().code(), Some(0), "{}", said(&mut running.0));
}

#[test]
fn a_database_that_hangs_does_not_keep_it() {
    let mut deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let proxy = Proxy::to_database_of(&mut deployment);
    let mut running = run(&deployment);
    until("it runs", || deployment.health("ready").0 == 200);
    proxy.hang(true);
    deployment.call("call", 1);
    until("it is told", || deployment.health("ready").0 == 503);
    end_cleanly(&mut running);
    proxy.hang(false);
    let _running = deployment.run();
    until("the event counts", || deployment.totals()["usageEvents"]["counted"] == 1);
}

/// A deployment that runs on brokers which can be made to hang.
fn on_brokers(cluster: &MockCluster<'_, DefaultProducerContext>) -> (Deployment, Running) {
    let mut deployment = Deployment::new();
    deployment.environment.insert("HEADROOM_KAFKA__BOOTSTRAP_SERVERS".to_owned(), cluster.bootstrap_servers());
    let options = deployment.options();
    for topic in [&options.usage_topic, &options.assignments_topic, &options.alerts_topic] {
        cluster.create_topic(topic, PARTITIONS, 1).unwrap();
    }
    let running = run(&deployment);
    until("it runs", || deployment.health("ready").0 == 200);
    (deployment, running)
}

#[test]
fn brokers_that_hang_while_offsets_are_told_do_not_keep_it() {
    let cluster = MockCluster::new(1).unwrap();
    let (deployment, mut running) = on_brokers(&cluster);
    deployment.call("call", 1);
    until("the event counts", || deployment.totals()["usageEvents"]["counted"] == 1);
    cluster.broker_round_trip_time(-1, Duration::from_secs(3600)).unwrap();
    // Within a second its offset is told, and no answer comes.
    std::thread::sleep(Duration::from_secs(2));
    end_cleanly(&mut running);
}

#[test]
fn brokers_that_hang_while_an_alert_waits_do_not_keep_it() {
    let cluster = MockCluster::new(1).unwrap();
    let (deployment, mut running) = on_brokers(&cluster);
    cluster.broker_round_trip_time(-1, Duration::from_secs(3600)).unwrap();
    let url = &deployment.environment["HEADROOM_STORE__URL"];
    on_postgres(url, "INSERT INTO outbox (partition, number, customer_id, body) VALUES (0, 1, 7, '{}')");
    on_postgres(url, "UPDATE progress SET outbox_number = 1 WHERE partition = 0");
    until("the alert waits", || deployment.metrics()["headroom_outbox_alerts"] == 1.0);
    end_cleanly(&mut running);
}

#[test]
fn a_start_that_hangs_can_be_ended() {
    let mut deployment = Deployment::new();
    let url = deployment.environment["HEADROOM_STORE__URL"].clone();
    let (before, rest) = url.split_once("127.0.0.1:").expect("the test's database is at 127.0.0.1");
    let (port, database) = rest.split_once('/').unwrap();
    let proxy = Proxy::to(&format!("127.0.0.1:{port}"));
    proxy.hang(true);
    deployment.environment.insert("HEADROOM_STORE__URL".to_owned(), format!("{before}{}/{database}", proxy.address));
    let mut running = run(&deployment);
    until("it has begun", || TcpStream::connect(&deployment.admin).is_ok());
    running.signal("TERM");
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_partitions_task_that_panics_ends_the_worker_with_a_line() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let stream = deployment.options();
    let partition = Partitioner::Murmur2.partition_of(17, PARTITIONS);
    deployment.send("usage.recorded", "/switch", "call", 17, &json!({}));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(async {
        let store = store::connect(&store::Options {
            url: deployment.environment["HEADROOM_STORE__URL"].clone(),
            read_url: None,
            connections: 3,
            read_connections: 1,
            timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
        })
        .unwrap();
        store.migrate().await.unwrap();
        let settled =
            Settled { partitions: PARTITIONS, partitioner: Partitioner::Murmur2, time_zone: "UTC".to_owned() };
        store.settle(&settled).await.unwrap();
        let (config, calendar) = (Config::default(), Calendar::new("UTC").unwrap());
        let context = headroom::service::worker_context(&config, &store, uuid::Uuid::nil(), &settled, calendar);
        let options = worker::Options {
            context: Arc::new(Context { now: a_clock_that_fails, ..context }),
            limits: BatchLimits { records: 100, customers: 100, bytes: 1 << 20, batches: 8 },
            stream,
            stall_after: Duration::from_secs(3600),
            audit_per_second: 0,
            raised: Arc::default(),
            health: Health::new(),
        };
        let control = Control::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), worker::run(options, control.clone())).await;
        control.stop();
        ended
    });
    let line = ended.expect("it ends by itself").unwrap_err();
    assert!(line.starts_with(&format!("partition {partition}: its task panicked")), "{line}");
}

/// Fails in a partition's task only.
fn a_clock_that_fails() -> Instant {
    let asks = std::backtrace::Backtrace::force_capture().to_string();
    assert!(!asks.contains("worker::task::"), "the test's clock fails");
    Instant::from_micros(now() * 1_000)
}
