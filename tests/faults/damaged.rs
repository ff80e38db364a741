//! Records that lie damaged on the broker's disk are never passed over: the service reads them anew until they are whole,
//! and meanwhile all other partitions go on.

use std::time::{Duration, Instant};

use sqlx::Row as _;

use crate::check::ends_well;
use crate::dice::Dice;
use crate::feed::TOPICS;
use crate::scene::Scene;
use crate::world::World;

/// The partition whose records are damaged.
const PARTITION: i32 = 0;

/// How long nobody may join the group again, for it to be at rest.
const REST: Duration = Duration::from_secs(10);

fn usage_offset(scene: &mut Scene) -> i64 {
    scene.database.rows("SELECT usage_offset FROM progress WHERE partition = 0")[0].get(0)
}

/// What the other partitions have applied of their usage, together.
fn others_offset(scene: &mut Scene) -> i64 {
    scene.database.rows("SELECT sum(usage_offset)::int8 FROM progress WHERE partition <> 0")[0].get(0)
}

#[test]
fn damaged_records_are_never_passed_over() {
    let folder = crate::folder();
    let mut scene = Scene::start(&folder, World::new(Dice::new(13)), 500);
    let workers = scene.steady("worker");
    for seat in &workers {
        scene.fleet.kill(*seat);
    }
    let committed = usage_offset(&mut scene);
    scene.wait("some records wait", |scene| {
        let sent = scene.feed.as_ref().unwrap().counts();
        sent[0][PARTITION as usize] > committed + 200
    });
    let first = scene.broker.flip(TOPICS[0], PARTITION, committed + 100);
    assert!(first > committed && first <= committed + 100, "{first} is not after {committed}");
    for seat in workers {
        scene.fleet.start(seat);
    }
    let line = format!("topic {}, partition {PARTITION}: records from offset {first} on are damaged", TOPICS[0]);
    scene.wait("the damage is told", |scene| scene.fleet.times_said(&line) > 0);
    scene.wait("what lies before it is applied", |scene| usage_offset(scene) == first);
    scene.wait("the others go on, and nobody joins the group again for it", |scene| {
        let before = (scene.fleet.times_said("partitions given back"), others_offset(scene));
        scene.fleet.pause(REST);
        before.0 == scene.fleet.times_said("partitions given back") && before.1 < others_offset(scene)
    });
    assert_eq!(usage_offset(&mut scene), first);

    assert_eq!(scene.broker.flip(TOPICS[0], PARTITION, committed + 100), first);
    scene.settle("the records are whole", Instant::now());
    ends_well(scene, &folder, true);
}
