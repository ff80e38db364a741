//! What one consumer is given.

use std::time::Duration;

use headroom::stream::{Ends, Gap, Input, Options, Start};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::Producer;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::kafka::{delete_records, open_transaction, produce, scene};
use crate::sink::{Consumer, Shared};

#[test]
fn goes_on_where_the_sink_says_and_tells_kafka_what_is_committed() {
    let options = scene();
    produce(&options, &options.usage_topic, 1, 0..10);
    produce(&options, &options.assignments_topic, 1, 0..5);
    let shared = Shared::default();
    shared.lock().next.extend([((1, Input::Usage), 4), ((1, Input::Assignments), 2)]);
    let consumer = Consumer::start("one", &options, &shared);
    shared.until("both ends are reached", |seen| {
        seen.at_end.get(&(1, Input::Usage)) == Some(&10) && seen.at_end.get(&(1, Input::Assignments)) == Some(&5)
    });
    assert_eq!(shared.lock().records, 6 + 3);
    shared.until("empty partitions are at their ends", |seen| seen.at_end.len() == 8);
    // A record that comes to an idle consumer.
    produce(&options, &options.usage_topic, 1, 10..11);
    shared.until("it came", |seen| seen.next(1, Input::Usage) == 11);
    consumer.stop().unwrap();
    assert_eq!(shared.lock().owner.len(), 0);

    let asked: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap_servers)
        .set("group.id", &options.group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&options.usage_topic, 1);
    list.add_partition(&options.assignments_topic, 1);
    let committed = asked.committed_offsets(list, Duration::from_secs(10)).unwrap();
    let of = |topic: &str| committed.find_partition(topic, 1).unwrap().offset();
    assert_eq!((of(&options.usage_topic), of(&options.assignments_topic)), (Offset::Offset(11), Offset::Offset(5)));
}

#[test]
fn no_room_holds_records_back_and_loses_none() {
    let options = scene();
    let shared = Shared::default();
    shared.lock().usage_room = Some(0);
    for partition in 0..4 {
        produce(&options, &options.usage_topic, partition, 0..20_000);
    }
    produce(&options, &options.assignments_topic, 0, 0..1);
    let consumer = Consumer::start("one", &options, &shared);
    shared.until("the other input goes on", |seen| seen.next(0, Input::Assignments) == 1);
    assert_eq!(shared.lock().records, 1);
    for room in [1, 7, 10_000] {
        shared.lock().usage_room = Some(room);
        consumer.control.wake();
        let now = shared.lock().records;
        shared.until("some came", |seen| seen.records > now);
    }
    shared.until("all came", |seen| (0..4).all(|partition| seen.next(partition, Input::Usage) == 20_000));
    consumer.stop().unwrap();
    assert_eq!(shared.lock().records, 80_001);
}

#[test]
fn a_full_batch_takes_no_more_of_the_same_visit() {
    let options = scene();
    let shared = Shared::default();
    shared.lock().each_fills = true;
    for partition in 0..4 {
        produce(&options, &options.usage_topic, partition, 0..20);
    }
    let consumer = Consumer::start("one", &options, &shared);
    shared.until("all came", |seen| (0..4).all(|partition| seen.next(partition, Input::Usage) == 20));
    consumer.stop().unwrap();
}

/// A steady stream has the consumer at the end again and again. What came after an end must not wait for another round each.
#[test]
fn an_end_that_was_passed_meanwhile_ends_no_visit() {
    let options = scene();
    let shared = Shared::default();
    shared.lock().usage_room = Some(0);
    let consumer = Consumer::start("one", &options, &shared);
    shared.until("it has its partitions", |seen| seen.owner.len() == 4);
    for at in 0..10 {
        produce(&options, &options.usage_topic, 1, at..at + 1);
        // A fetch that finds nothing says where the end is; it is answered after 100 ms.
        std::thread::sleep(Duration::from_millis(250));
    }
    shared.lock().usage_room = None;
    consumer.control.wake();
    shared.until("all came", |seen| seen.next(1, Input::Usage) == 10);
    let rounds = shared.lock().rounds;
    assert!(rounds <= 2, "{rounds} rounds for 10 records that were all there");
    consumer.stop().unwrap();
}

#[test]
fn the_end_is_where_a_read_committed_reader_is() {
    let options = scene();
    produce(&options, &options.usage_topic, 0, 0..3);
    let shared = Shared::default();
    let consumer = Consumer::start("one", &options, &shared);
    let ends = Ends::new(&options).unwrap();
    let usage_end = || ends.of(&[0]).unwrap().starts[0].usage;

    // Three records, then two of an open transaction: the end is before them.
    let open = open_transaction(&options, &options.usage_topic, 0, 2);
    shared.until("the end is reached", |seen| seen.at_end.get(&(0, Input::Usage)) == Some(&3));
    assert_eq!(usage_end(), 3);
    assert_eq!(shared.lock().records, 3);

    // Taken back: two records that are never given, and a marker.
    open.abort_transaction(Duration::from_secs(30)).unwrap();
    shared.until("the end moves past them", |seen| seen.at_end.get(&(0, Input::Usage)) == Some(&6));
    assert_eq!(usage_end(), 6);
    assert_eq!(shared.lock().records, 3);

    // Committed: one record at 6, and a marker.
    let open = open_transaction(&options, &options.usage_topic, 0, 1);
    open.commit_transaction(Duration::from_secs(30)).unwrap();
    shared.until("the end moves past the marker", |seen| seen.at_end.get(&(0, Input::Usage)) == Some(&8));
    assert_eq!(shared.lock().records, 4);
    assert_eq!(
        ends.of(&[3, 0]).unwrap().all().unwrap(),
        [Start { partition: 3, usage: 0, assignments: 0 }, Start { partition: 0, usage: 8, assignments: 0 }]
    );
    consumer.stop().unwrap();
}

/// What is told of a start at an offset of partition 2 that is not there, while another partition, which has so many
/// records, goes on.
fn gap_of_a_start_at(options: &Options, usage: i64, there: usize) -> Gap {
    let shared = Shared::default();
    shared.lock().next.insert((2, Input::Usage), usage);
    let consumer = Consumer::start("one", options, &shared);
    shared.until("the gap is told", |seen| !seen.gaps.is_empty());
    produce(options, &options.usage_topic, 3, there..there + 5);
    shared.until("the other partition goes on", |seen| seen.next(3, Input::Usage) == i64::try_from(there + 5).unwrap());
    consumer.stop().unwrap();
    let seen = shared.lock();
    assert_eq!((seen.gaps.len(), seen.next(2, Input::Usage)), (1, usage));
    seen.gaps[0].clone()
}

#[test]
fn a_position_that_the_topic_does_not_hold_is_told_and_the_other_partitions_go_on() {
    let options = scene();
    produce(&options, &options.usage_topic, 2, 0..10);
    let topic = options.usage_topic.clone();
    let gap = |next, held| Gap { input: Input::Usage, topic: topic.clone(), partition: 2, next, held: Some(held) };
    // The topic was made anew.
    assert_eq!(gap_of_a_start_at(&options, 11, 0), gap(11, (0, 10)));
    // Retention has passed it.
    delete_records(&options, &topic, 2, 4);
    assert_eq!(gap_of_a_start_at(&options, 3, 5), gap(3, (4, 10)));
    let ends = Ends::new(&options).unwrap();
    assert_eq!(ends.begins(&[2]).unwrap().all().unwrap(), [Start { partition: 2, usage: 4, assignments: 0 }]);
}
