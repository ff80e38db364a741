//! Several consumers, one after the other, and brokers that go away.

use headroom::stream::Input;
use rdkafka::mocking::MockCluster;

use crate::kafka::{options, produce, scene};
use crate::sink::{Consumer, Shared};

#[test]
fn partitions_move_between_consumers_and_every_record_is_given_once_in_order() {
    let options = scene();
    let shared = Shared::default();
    let mut made = 0;
    let mut more = || {
        for partition in 0..4 {
            produce(&options, &options.usage_topic, partition, made..made + 500);
            produce(&options, &options.assignments_topic, partition, made..made + 500);
        }
        made += 500;
    };
    more();
    let one = Consumer::start("one", &options, &shared);
    shared.until("one has all", |seen| seen.owned("one") == 4);
    more();
    let two = Consumer::start("two", &options, &shared);
    shared.until("each has half", |seen| seen.owned("one") == 2 && seen.owned("two") == 2);
    more();
    one.stop().unwrap();
    shared.until("the other has all", |seen| seen.owned("two") == 4);
    more();
    shared.until("all came", |seen| {
        (0..4).all(|partition| {
            seen.next(partition, Input::Usage) == 2_000 && seen.next(partition, Input::Assignments) == 2_000
        })
    });
    two.stop().unwrap();
    assert_eq!(shared.lock().records, 4 * 2 * 2_000);
}

#[test]
fn a_rejoin_gives_all_back_and_goes_on_from_the_store() {
    let options = scene();
    produce(&options, &options.usage_topic, 0, 0..1_000);
    let shared = Shared::default();
    shared.lock().refuse = 2;
    let consumer = Consumer::start("one", &options, &shared);
    shared.until("the third try is taken", |seen| seen.owned("one") == 4);
    shared.until("all came", |seen| seen.next(0, Input::Usage) == 1_000);
    // As after a commit that another owner's had overtaken.
    consumer.control.rejoin();
    shared.lock().next.insert((0, Input::Usage), 990);
    shared.until("taken again", |seen| seen.assignments.get("one") == Some(&2));
    shared.until("all came again", |seen| seen.next(0, Input::Usage) == 1_000);
    consumer.stop().unwrap();
    assert_eq!(shared.lock().refuse, 0);
}

#[test]
fn brokers_that_are_away_are_told_and_waited_for() {
    let cluster = MockCluster::new(1).unwrap();
    let options = options(cluster.bootstrap_servers());
    cluster.create_topic(&options.usage_topic, 4, 1).unwrap();
    cluster.create_topic(&options.assignments_topic, 4, 1).unwrap();
    let shared = Shared::default();
    let consumer = Consumer::start("one", &options, &shared);
    produce(&options, &options.usage_topic, 0, 0..1);
    shared.until("a record came", |seen| seen.records == 1);
    cluster.broker_down(-1).unwrap();
    shared.until("it is told", |seen| !seen.away.is_empty());
    assert_eq!(shared.lock().back, 0);
    cluster.broker_up(-1).unwrap();
    shared.until("it is back", |seen| seen.back == 1);
    produce(&options, &options.usage_topic, 0, 1..2);
    shared.until("another record came", |seen| seen.records == 2);
    consumer.stop().unwrap();
}

#[test]
fn a_broker_that_never_answers_is_told_and_does_not_hold_up_the_end() {
    let shared = Shared::default();
    let consumer = Consumer::start("one", &options("127.0.0.1:1".into()), &shared);
    shared.until("it is told", |seen| seen.away.iter().any(|why| why.contains("127.0.0.1:1")));
    consumer.stop().unwrap();
}
