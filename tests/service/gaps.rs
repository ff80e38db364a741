//! A topic that does not have what comes next: its partition stops, tells it, and goes on when an operator says so.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use headroom::domain::Partitioner;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;

use crate::deployment::{Deployment, PARTITIONS, Running, now, until};

/// How long the brokers may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn admin(deployment: &Deployment) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", deployment.options().bootstrap_servers).create().unwrap()
}

/// Lets a partition begin at an offset, as retention does.
fn delete_records(deployment: &Deployment, topic: &str, partition: i32, first: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(first)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(admin(deployment).delete_records(&list, &AdminOptions::new())).unwrap();
}

fn delete_topic(deployment: &Deployment, topic: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deleted = runtime.block_on(admin(deployment).delete_topics(&[topic], &AdminOptions::new()));
    deleted.unwrap()[0].as_ref().unwrap();
}

/// A usage event of a customer.
fn use_of(deployment: &Deployment, customer: i64, id: &str) {
    let data = json!({
        "customerId": customer, "siteId": 1, "usageProductInventoryId": 11, "usageProductId": 1, "quantity": 1,
        "chargingType": "DURATION", "startTime": jiff::Timestamp::from_millisecond(now()).unwrap().to_string(),
    });
    deployment.send("usage.recorded", "/switch", id, customer, &data);
}

/// Two customers of two partitions, with those.
fn two_customers() -> [(i64, i32); 2] {
    let of = |customer: i64| (customer, Partitioner::Murmur2.partition_of(customer, PARTITIONS));
    let first = of(1);
    let second = (2..).map(of).find(|(_, partition)| *partition != first.1).unwrap();
    [first, second]
}

fn stopped(deployment: &Deployment, topic: &str, partition: i32) -> Option<f64> {
    let series = format!("headroom_partition_stopped{{topic=\"{topic}\",partition=\"{partition}\"}}");
    deployment.metrics().get(&series).copied()
}

#[test]
fn a_partition_whose_records_are_gone_stops_alone_until_that_is_accepted() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let topic = deployment.options().usage_topic;
    let [(customer, partition), (other, other_partition)] = two_customers();
    let running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    use_of(&deployment, customer, "a-0");
    until("one is in", || deployment.outcomes("counted") == 1.0);
    until("its gauge is there", || stopped(&deployment, &topic, partition) == Some(0.0));
    drop(running);
    for n in 1..6 {
        use_of(&deployment, customer, &format!("a-{n}"));
    }
    use_of(&deployment, other, "b-0");
    delete_records(&deployment, &topic, partition, 4);

    let _running = deployment.run();
    until("the other partition goes on, this one tells", || {
        deployment.outcomes("counted") == 1.0 && stopped(&deployment, &topic, partition) == Some(1.0)
    });
    assert_eq!(stopped(&deployment, &topic, other_partition), Some(0.0));
    let (code, body) = deployment.health("ready");
    let told = body["parts"]["partitions"]["message"].as_str().unwrap().to_owned();
    let gone =
        format!("topic {topic}, partition {partition}: offset 1, where to go on, is gone; the topic begins at 4: 3");
    let way_out = format!("`headroom progress accept-gap --topic {topic} --partition {partition}`");
    assert!(code == 503 && told.contains(&gone) && told.contains(&way_out), "{told}");
    assert_eq!(deployment.health("live").0, 200, "another start would not help");

    let shown = deployment.say(&["progress", "show"]);
    assert!(shown.contains(&format!("{topic} {partition}: next 1, first 4, end 6, waiting 2")), "{shown}");
    assert!(shown.contains(&way_out), "{shown}");
    let accept = |partition: i32, flags: &[&str]| {
        let partition = partition.to_string();
        let arguments = ["progress", "accept-gap", "--topic", &topic, "--partition", &partition];
        deployment.say(&[&arguments, flags].concat())
    };
    assert!(accept(other_partition, &[]).contains("has no gap"));
    let asked = accept(partition, &["--dry-run"]);
    assert!(asked.contains("3 records are gone, 1 to 3") && asked.contains("Nothing was done"), "{asked}");
    assert_eq!(stopped(&deployment, &topic, partition), Some(1.0));
    let accepted = accept(partition, &[]);
    assert!(accepted.contains("accepted: it goes on at 4"), "{accepted}");
    until("it goes on by itself", || {
        deployment.outcomes("counted") == 3.0 && stopped(&deployment, &topic, partition) == Some(0.0)
    });
    until("and all is well", || deployment.health("ready").0 == 200 && deployment.lag() == 0.0);
}

#[test]
fn a_topic_that_was_made_again_stops_its_partitions_even_when_it_has_grown_past_them() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let topic = deployment.options().usage_topic;
    let [(customer, partition), _] = two_customers();
    let running = deployment.run();
    for n in 0..3 {
        use_of(&deployment, customer, &format!("a-{n}"));
    }
    deployment.send("usage.recorded", "/switch", "bad", customer, &json!({"customerId": customer, "quantity": -1}));
    until("all are in", || deployment.outcomes("counted") == 3.0 && deployment.outcomes("dead_letter") == 1.0);
    drop(running);
    delete_topic(&deployment, &topic);
    // It waits until the new one can be seen.
    until("it is made again", || {
        deployment.command(&["topics", "create", "--partitions", "8"]).status().unwrap().success()
    });

    let running = deployment.run();
    until("it stops", || stopped(&deployment, &topic, partition) == Some(1.0));
    until("the store knows", || {
        deployment.say(&["progress", "show"]).contains("offset 4, where to go on, is not there yet; the topic is empty")
    });
    drop(running);
    for n in 0..3 {
        use_of(&deployment, customer, &format!("b-{n}"));
    }
    for n in 0..2 {
        let data = json!({"customerId": customer, "quantity": -1});
        deployment.send("usage.recorded", "/switch", &format!("bad-{n}"), customer, &data);
    }
    // The topic has an offset 4 again, of another record.
    let _running = deployment.run();
    until("it stands still as before", || stopped(&deployment, &topic, partition) == Some(1.0));
    assert!(deployment.say(&["progress", "show"]).contains("offset 4, where to go on, was not there for a time"));
    assert_eq!(deployment.outcomes("dead_letter"), 0.0);
    let partition = partition.to_string();
    deployment.say(&["progress", "accept-gap", "--topic", &topic, "--partition", &partition]);
    until("all of the new topic is in", || {
        deployment.outcomes("counted") == 3.0 && deployment.outcomes("dead_letter") == 2.0
    });
    assert_eq!(deployment.totals()["usageEvents"]["counted"], 6);
    // Place 3 is taken twice, and both records are kept.
    let letters = deployment.say(&["dead-letters", "list"]);
    assert!(letters.contains(&format!("{topic}/{partition}/3")) && letters.contains(&format!("{topic}~")), "{letters}");
}

/// Runs until the change of its topics ends it, and gives its one line.
fn line_of_the_end(deployment: &Deployment, change: impl FnOnce()) -> String {
    let mut running = Running(deployment.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap());
    until("it runs", || deployment.health("ready").0 == 200);
    change();
    until("it ends", || running.0.try_wait().unwrap().is_some());
    let mut said = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    println!("{said}");
    assert_eq!(running.0.wait().unwrap().code(), Some(1));
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("headroom: ")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].to_owned()
}

#[test]
fn an_input_topic_that_vanishes_ends_the_worker_with_a_line() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let topic = deployment.options().usage_topic;
    let line = line_of_the_end(&deployment, || delete_topic(&deployment, &topic));
    assert!(line.contains(&topic) && line.contains("`headroom topics create`"), "{line}");
}

#[test]
fn topics_that_grow_end_the_worker_with_a_line() {
    for both in [false, true] {
        let deployment = Deployment::new();
        deployment.say(&["topics", "create", "--partitions", "8"]);
        let topics = [deployment.options().usage_topic, deployment.options().assignments_topic];
        let line = line_of_the_end(&deployment, || {
            let grown: Vec<NewPartitions<'_>> = topics.iter().map(|topic| NewPartitions::new(topic, 9)).collect();
            let grown = if both { &grown[..] } else { &grown[..1] };
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let answers = runtime.block_on(admin(&deployment).create_partitions(grown, &AdminOptions::new())).unwrap();
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        });
        let told = format!("topic {} has 9 partitions now, but the store was made with 8", topics[0]);
        assert!(line.contains(&told), "{line}");
    }
}

/// Makes customer 17 use up all that there is at once.
fn use_all(deployment: &Deployment) {
    let assignment = json!({
        "version": 1, "assignmentId": 5, "assignmentLevel": "CUSTOMER", "customerId": 17, "startDate": "2020-01-01",
        "plan": {"inclusiveUsagePlanId": 10, "components":
            [{"componentId": 1, "byValue": false, "chargingType": "DURATION", "allowance": 100}]},
    });
    deployment.send("assignment.changed", "/crm", "assignment-5", 17, &assignment);
    until("the facts are in", || deployment.outcomes("applied") == 1.0);
    deployment.call("call", 100);
}

#[test]
fn an_alerts_topic_that_comes_back_smaller_ends_the_relay_with_a_line() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let topic = deployment.options().alerts_topic;
    let of_alert = Partitioner::Murmur2.partition_of(17, 8);
    assert!(of_alert > 0, "a smaller topic lacks the partition of its alerts");
    let line = line_of_the_end(&deployment, || {
        delete_topic(&deployment, &topic);
        let smaller = ["topics", "create", "--partitions", "8", "--alerts-partitions", &of_alert.to_string()];
        until("it is made again", || deployment.command(&smaller).status().unwrap().success());
        use_all(&deployment);
    });
    let told = format!("topic {topic} has {of_alert} partitions now and had 8 when this process started");
    assert!(line.contains(&told), "{line}");
    let _running = deployment.run();
    until("started again it goes by those", || {
        deployment.metrics().get("headroom_alerts_published_total{type=\"crossed\"}") == Some(&2.0)
    });
}

#[test]
fn alerts_wait_for_their_topic_to_come_back() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let _running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    let topic = deployment.options().alerts_topic;
    delete_topic(&deployment, &topic);
    use_all(&deployment);
    until("the relay tells", || deployment.health("ready").1["parts"]["relay"]["status"] == "fault");
    let told = deployment.health("ready").1["parts"]["relay"]["message"].as_str().unwrap().to_owned();
    assert!(told.contains(&topic), "{told}");
    until("the usage counts all the same", || deployment.outcomes("counted") == 1.0);
    until("the topic is made again", || {
        deployment.command(&["topics", "create", "--partitions", "8"]).status().unwrap().success()
    });
    until("both alerts are published", || {
        deployment.metrics().get("headroom_alerts_published_total{type=\"crossed\"}") == Some(&2.0)
    });
    until("all is well", || deployment.health("ready").0 == 200);
}

#[test]
fn markers_of_transactions_that_retention_took_are_no_gap() {
    let deployment = Deployment::new();
    deployment.say(&["topics", "create", "--partitions", "8"]);
    let topic = deployment.options().usage_topic;
    let [(customer, partition), _] = two_customers();
    let running = deployment.run();
    until("it runs", || deployment.health("ready").0 == 200);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", deployment.options().bootstrap_servers)
        .set("transactional.id", format!("of-{topic}"))
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    let record = BaseRecord::to(&topic).partition(partition).key("no customer").payload("no event");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
    until("the record is in", || deployment.outcomes("dead_letter") == 1.0);
    until("its position is beyond the marker", || {
        deployment.say(&["progress", "show"]).contains(&format!("{topic} {partition}: next 2, first 0, end 2"))
    });
    drop(running);
    delete_records(&deployment, &topic, partition, 2);
    use_of(&deployment, customer, "a-0");
    let _running = deployment.run();
    until("it goes on", || {
        deployment.outcomes("counted") == 1.0 && stopped(&deployment, &topic, partition) == Some(0.0)
    });
}
