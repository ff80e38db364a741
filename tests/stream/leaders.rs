//! Partitions without a leader keep nothing of the others back. One broker always leads, so librdkafka's own plays here.

use headroom::stream::{Ends, Start};
use rdkafka::mocking::MockCluster;

use crate::kafka::{options, produce};

#[test]
fn a_partition_without_a_leader_hides_the_ends_of_no_other() {
    let brokers = MockCluster::new(1).unwrap();
    let options = options(brokers.bootstrap_servers());
    let topics = [&options.usage_topic, &options.assignments_topic];
    for topic in topics {
        brokers.create_topic(topic, 3, 1).unwrap();
    }
    produce(&options, &options.usage_topic, 2, 0..7);
    produce(&options, &options.assignments_topic, 0, 0..2);
    let first = Start { partition: 0, usage: 0, assignments: 2 };
    let last = Start { partition: 2, usage: 7, assignments: 0 };
    let ends = Ends::new(&options).unwrap();
    let lead = |broker| brokers.partition_leader(&options.assignments_topic, 1, broker).unwrap();

    lead(None);
    for _ in 0..2 {
        let told = ends.of(&[2, 1, 0]).unwrap();
        assert_eq!(told.starts, [last, first]);
        let fault = format!("without a leader: {}, partition 1", options.assignments_topic);
        assert_eq!(told.fault().as_deref(), Some(&*fault));
        assert!(told.all().unwrap_err().to_string().contains(&fault));
    }
    assert_eq!(ends.begins(&[0, 1]).unwrap().starts, [Start { partition: 0, usage: 0, assignments: 0 }]);

    lead(Some(1));
    let all = ends.of(&[0, 1, 2]).unwrap().all().unwrap();
    assert_eq!(all, [first, Start { partition: 1, usage: 0, assignments: 0 }, last]);
}
