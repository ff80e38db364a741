//! A store that lost commits: restored from a copy of an earlier moment, or taken over by a replica that was behind. Kafka
//! still has the records, so balances come to what they must be by themselves; of the alerts those that are published
//! already are not published again, and a relay without a worker beside it stops with one line while the topic is ahead of
//! the store.

use std::time::{Duration, Instant};

use sqlx::Row as _;

use crate::check::ends_well;
use crate::dice::Dice;
use crate::scene::Scene;
use crate::world::World;

/// What a relay says while the topic is ahead of the store.
const AHEAD: &str = "the store is older than the topic";

/// Waits until some more alerts are raised and published than are now.
fn more_alerts(scene: &mut Scene) {
    let raised = "SELECT sum(outbox_number)::int8 FROM progress";
    let now: i64 = scene.database.rows(raised)[0].get(0);
    scene.wait("more alerts are raised", |scene| scene.database.rows(raised)[0].get::<i64, _>(0) > now + 50);
    scene.settle("more alerts", Instant::now());
}

#[test]
fn a_store_restored_to_an_earlier_moment_comes_to_the_same_balances() {
    let folder = crate::folder();
    let mut scene = Scene::start(&folder, World::new(Dice::new(11)), 500);
    more_alerts(&mut scene);
    scene.database.copy("copy", false);
    more_alerts(&mut scene);
    let relays = scene.steady("relay");
    for seat in scene.steady("worker").into_iter().chain(relays.clone()) {
        scene.fleet.kill(seat);
    }
    scene.database.kill();
    scene.database.replace("copy");

    // The relay alone: it says so, and ends.
    let relay = relays[1];
    scene.fleet.start(relay);
    scene.wait("the relay ends", |scene| scene.fleet.ended.iter().any(|line| line.contains(AHEAD)));
    let said = &scene.fleet.ended[0];
    assert!(said.contains("exit status: 1") && said.contains("headroom: relay: balance-alerts holds alert"), "{said}");
    scene.fleet.kill(relay);

    // One with a worker beside it waits for that.
    let workers = scene.steady("worker");
    let both = *workers.iter().find(|seat| relays.contains(seat)).unwrap();
    scene.fleet.start(both);
    scene.settle("the restore", Instant::now());
    assert_eq!(scene.fleet.ended.len(), 1, "{:?}", scene.fleet.ended);
    for seat in workers.into_iter().chain([relay]).filter(|seat| *seat != both) {
        scene.fleet.start(seat);
    }
    ends_well(scene, &folder, false);
}

#[test]
fn a_replica_that_lost_commits_takes_over_under_running_workers() {
    let folder = crate::folder();
    let mut scene = Scene::start(&folder, World::new(Dice::new(12)), 500);
    more_alerts(&mut scene);
    scene.database.copy("replica", true);
    more_alerts(&mut scene);
    scene.database.stream_once("replica");
    more_alerts(&mut scene);
    let before: i64 = scene.database.rows("SELECT sum(usage_offset)::int8 FROM progress")[0].get(0);
    scene.database.kill();
    scene.fleet.pause(Duration::from_secs(1));
    scene.database.replace("replica");
    let after: i64 = scene.database.rows("SELECT sum(usage_offset)::int8 FROM progress")[0].get(0);
    println!("  the replica had {after} records of usage, and the primary {before}");
    scene.settle("the failover", Instant::now());
    ends_well(scene, &folder, false);
}
