//! The demo's broker carries what the demo needs; no other broker is needed here.

use headroom::stream::embedded::EmbeddedBroker;
use headroom::stream::producer::AlertsProducer;
use headroom::stream::topics::{Checked, check};
use headroom::stream::{Ends, Input, Start};

use crate::kafka::{options, produce};
use crate::relay::{alert, read};
use crate::sink::{Consumer, Shared};

#[test]
fn the_demos_broker_takes_the_same_clients() {
    let mut options = options(String::new());
    let topics = [(&*options.usage_topic, 4), (&*options.assignments_topic, 4), (&*options.alerts_topic, 2)];
    let broker = EmbeddedBroker::start(&topics).unwrap();
    options.bootstrap_servers = broker.address().to_owned();
    assert_eq!(check(&options).unwrap(), Checked { partitions: 4, alerts_partitions: 2 });

    produce(&options, &options.usage_topic, 3, 0..1_000);
    produce(&options, &options.assignments_topic, 3, 0..10);
    let shared = Shared::default();
    shared.lock().next.insert((3, Input::Usage), 100);
    let consumer = Consumer::start("one", &options, &shared);
    shared.until("all came", |seen| {
        seen.next(3, Input::Usage) == 1_000
            && seen.next(3, Input::Assignments) == 10
            && seen.at_end.get(&(3, Input::Usage)) == Some(&1_000)
    });
    let ends = Ends::new(&options).unwrap();
    assert_eq!(ends.of(&[3]).unwrap().all().unwrap(), [Start { partition: 3, usage: 1_000, assignments: 10 }]);

    let mut producer = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    producer.publish(&[alert(0, 1)]).unwrap();
    drop(producer);
    let mut producer = AlertsProducer::new(&options, &options.relay_id()).unwrap();
    producer.publish(&[alert(0, 2), alert(1, 3)]).unwrap();
    assert_eq!(read(&options, &[]).0, [(0, 1), (0, 2), (1, 3)]);
    assert_eq!(read(&options, &[(0, 1)]).0, [(0, 2), (1, 3)]);
    consumer.stop().unwrap();
}
