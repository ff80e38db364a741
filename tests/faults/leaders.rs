//! Partitions whose leader dies are led by another broker, and go back when it is here again: workers, relays and the
//! group follow, of inputs, alerts and what Kafka itself keeps of groups and transactions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataTopic;

use crate::broker::Broker;
use crate::check::ends_well;
use crate::database::Database;
use crate::dice::Dice;
use crate::feed::TOPICS;
use crate::scene::{ALERTS, Scene};
use crate::wait::{patience, until};
use crate::world::World;

/// How often the second broker dies.
const TURNS: usize = 2;
/// Kafka's own topics: of groups, and of transactions.
const KAFKAS: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// Asks who leads.
struct Leaders(BaseConsumer);

impl Leaders {
    /// How many brokers there are.
    fn brokers(&self) -> Option<usize> {
        Some(self.0.fetch_metadata(None, Duration::from_secs(5)).ok()?.brokers().len())
    }

    /// The topics of which a broker leads partitions; nothing while nobody tells.
    fn of(&self, broker: i32) -> Option<BTreeSet<String>> {
        let told = self.0.fetch_metadata(None, Duration::from_secs(5)).ok()?;
        let leads = |topic: &&MetadataTopic| topic.partitions().iter().any(|one| one.leader() == broker);
        Some(told.topics().iter().filter(leads).map(|topic| topic.name().to_owned()).collect())
    }
}

#[test]
fn leaders_that_move_lose_and_double_nothing() {
    let folder = crate::folder();
    let [first, mut second] = Broker::pair(&folder);
    let servers = format!("{},{}", first.address(), second.address());
    let asking = ClientConfig::new().set("bootstrap.servers", first.address()).create().unwrap();
    let leaders = Leaders(asking);
    until("the brokers know each other", patience(), || leaders.brokers() == Some(2));
    let mut scene = Scene::on(&folder, first, &servers, Database::start(&folder), World::new(Dice::new(14)), 500);
    let all: BTreeSet<String> = [TOPICS[0], TOPICS[1], ALERTS, KAFKAS[0], KAFKAS[1]].map(str::to_owned).into();
    for _ in 0..TURNS {
        scene.wait("the second broker leads partitions of every topic", |_| {
            leaders.of(second.node).as_ref() == Some(&all)
        });
        scene.settle("leaders on both", Instant::now());
        second.kill();
        let begun = Instant::now();
        scene.wait("the first broker leads all", |_| leaders.of(second.node).is_some_and(|topics| topics.is_empty()));
        println!("  the first leads all after {:.1} s", begun.elapsed().as_secs_f32());
        let recovery = scene.settle("the loss of leaders", begun);
        println!("  balances moved again after {:.1} s, alerts after {:.1} s", recovery.balances, recovery.alerts);
        second.restart();
    }
    scene.wait("the second broker leads again", |_| leaders.of(second.node).as_ref() == Some(&all));
    scene.settle("leaders that went back", Instant::now());
    assert!(scene.fleet.ended.is_empty(), "no process has a reason to end: {:?}", scene.fleet.ended);
    ends_well(scene, &folder, true);
}
