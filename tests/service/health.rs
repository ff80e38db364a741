//! Health tells the truth: what hangs as well as what is gone, each by its name.

use std::time::Duration;

use headroom::domain::Partitioner;
use rdkafka::mocking::MockCluster;

use crate::deployment::{Deployment, PARTITIONS, until};
use crate::lock::Lock;
use crate::proxy::Proxy;

#[test]
fn a_broker_that_hangs_is_told_and_so_is_that_it_is_back() {
    let cluster = MockCluster::new(1).unwrap();
    let mut deployment = Deployment::new();
    let servers = cluster.bootstrap_servers();
    deployment.environment.insert("HEADROOM_KAFKA__BOOTSTRAP_SERVERS".to_owned(), servers.clone());
    let options = deployment.options();
    for topic in [&options.usage_topic, &options.assignments_topic, &options.alerts_topic] {
        cluster.create_topic(topic, PARTITIONS, 1).unwrap();
    }
    for role in ["worker", "relay"] {
        let _running = deployment.run_roles(role);
        until("it runs", || deployment.health("ready").0 == 200);
        cluster.broker_round_trip_time(-1, Duration::from_secs(3600)).unwrap();
        until("it is told", || deployment.health("ready").0 == 503);
        let line = deployment.told("broker");
        assert!(line.contains("no answer from") && line.contains(&servers), "{role}: {line}");
        assert_eq!(deployment.metrics()["headroom_part_up{part=\"broker\"}"], 0.0);
        assert_eq!(deployment.health("live").0, 200, "another start would not help");
        cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
        until("it is back", || deployment.health("ready").0 == 200);
        assert_eq!(deployment.metrics()["headroom_part_up{part=\"broker\"}"], 1.0);
    }
}

#[test]
fn a_database_that_hangs_is_told_and_so_is_that_it_is_back() {
    let mut deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let proxy = Proxy::to_database_of(&mut deployment);
    for role in ["worker,relay,reader", "reader"] {
        let _running = deployment.run_roles(role);
        until("it runs", || deployment.health("ready").0 == 200);
        proxy.hang(true);
        until("it is told", || deployment.health("ready").0 == 503);
        let line = deployment.told("store");
        assert!(line.contains(&proxy.address) || line.contains(proxy.address.split_once(':').unwrap().1), "{line}");
        assert_eq!(deployment.metrics()["headroom_part_up{part=\"store\"}"], 0.0);
        assert_eq!(deployment.health("live").0, 200, "another start would not help");
        proxy.hang(false);
        until("it is back", || deployment.health("ready").0 == 200);
    }
}

#[test]
fn lag_is_told_once_it_is_ready() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    let told = deployment.metrics().into_keys().filter(|name| name.starts_with("headroom_lag_records")).count();
    assert_eq!(told, 2 * usize::try_from(PARTITIONS).unwrap());
}

#[test]
fn a_partition_that_hangs_though_the_store_answers_is_not_live() {
    let mut deployment = Deployment::new();
    deployment.environment.insert("HEADROOM_WORKER__STALL_AFTER".to_owned(), "2s".to_owned());
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    let partition = Partitioner::Murmur2.partition_of(17, PARTITIONS);
    let lock = Lock::take(&deployment, partition);
    deployment.call("call", 1);
    until("it is told", || deployment.health("live").0 == 503);
    let line = deployment.told("partitions");
    assert!(line.contains(&format!("partition {partition} has not moved for")), "{line}");
    assert_eq!(deployment.health("ready").1["parts"]["store"]["status"], "ok");
    lock.let_go();
    until("it moves", || deployment.health("live").0 == 200 && deployment.health("ready").0 == 200);
    until("and the event counts", || deployment.outcomes("counted") == 1.0);
    drop(running);

    let lock = Lock::take(&deployment, partition);
    let _running = deployment.run();
    let why = format!("partition {partition} cannot be taken: store: ");
    until("that it cannot be taken is told", || deployment.told("partitions").contains(&why));
    assert_eq!((deployment.health("ready").0, deployment.health("live").0), (503, 200));
    lock.let_go();
    until("it is taken", || deployment.health("ready").0 == 200);
}

#[test]
fn a_replica_that_is_away_hides_no_partition_that_hangs() {
    let mut deployment = Deployment::new();
    deployment.environment.insert("HEADROOM_WORKER__STALL_AFTER".to_owned(), "2s".to_owned());
    let nowhere = "postgres://nobody@127.0.0.1:1/none".to_owned();
    deployment.environment.insert("HEADROOM_STORE__READ_URL".to_owned(), nowhere);
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    let status = |part: &str| deployment.health("ready").1["parts"][part]["status"].clone();
    until("it runs", || status("partitions") == "ok");
    let line = "store: store.read_url: database \"none\" at 127.0.0.1:1 as nobody: Connection refused";
    until("the replica is told", || deployment.told("replica").starts_with(line));
    assert_eq!((status("store"), deployment.metrics()["headroom_part_up{part=\"replica\"}"]), ("ok".into(), 0.0));
    let partition = Partitioner::Murmur2.partition_of(17, PARTITIONS);
    let lock = Lock::take(&deployment, partition);
    deployment.call("call", 1);
    until("it is told", || deployment.health("live").0 == 503);
    lock.let_go();
    until("it moves", || deployment.health("live").0 == 200 && deployment.outcomes("counted") == 1.0);
}

#[test]
fn connections_that_fall_silent_are_given_up() {
    let mut deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let proxy = Proxy::to_database_of(&mut deployment);
    deployment.environment.insert("HEADROOM_STORE__TIMEOUT".to_owned(), "1s".to_owned());
    let _running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    deployment.call("before", 1);
    until("it counts", || deployment.outcomes("counted") == 1.0);
    deployment.rows("");
    proxy.silence();
    deployment.call("after", 1);
    until("the query answers on a new connection", || deployment.answer("").is_some());
    until("it counts on a new connection", || deployment.outcomes("counted") == 2.0);
}
