//! A topic that does not have what comes next: its partition stops, tells it, and goes on when an operator says so.

use headroom::domain::Partitioner;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;

use crate::deployment::{Deployment, PARTITIONS, now, until};

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
    let accept = |partition: i32, yes: &[&str]| {
        let partition = partition.to_string();
        let arguments = ["progress", "accept-gap", "--topic", &topic, "--partition", &partition];
        deployment.say(&[&arguments, yes].concat())
    };
    assert!(accept(other_partition, &["--yes"]).contains("has no gap"));
    let asked = accept(partition, &[]);
    assert!(asked.contains("3 records are gone, 1 to 3") && asked.contains("Nothing was done"), "{asked}");
    assert_eq!(stopped(&deployment, &topic, partition), Some(1.0));
    let accepted = accept(partition, &["--yes"]);
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
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (kafka, limits) = (admin(&deployment), AdminOptions::new());
    runtime.block_on(kafka.delete_topics(&[&topic], &limits)).unwrap()[0].as_ref().unwrap();
    let made = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    until("it is made again", || runtime.block_on(kafka.create_topics([&made], &limits)).unwrap()[0].is_ok());

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
    deployment.say(&["progress", "accept-gap", "--topic", &topic, "--partition", &partition, "--yes"]);
    until("all of the new topic is in", || {
        deployment.outcomes("counted") == 3.0 && deployment.outcomes("dead_letter") == 2.0
    });
    assert_eq!(deployment.totals()["usageEvents"]["counted"], 6);
    // Place 3 is taken twice, and both records are kept.
    let letters = deployment.say(&["dead-letters", "list"]);
    assert!(letters.contains(&format!("{topic}/{partition}/3")) && letters.contains(&format!("{topic}~")), "{letters}");
}
