//! A database whose disk is full, and one that dies of it: nothing moves, everybody waits and says why, and goes on once
//! there is room.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::check::ends_well;
use crate::database::Database;
use crate::dice::Dice;
use crate::scene::Scene;
use crate::world::World;

/// How often the disk fills up.
const TURNS: usize = 3;
/// How long it stays full.
const FULL: Duration = Duration::from_secs(10);

/// Fills the disk to its last byte.
fn fill(filler: &Path) {
    let mut file = File::create(filler).unwrap();
    let mut block = 1 << 20;
    while block > 0 {
        if file.write_all(&vec![1; block]).is_err() {
            block /= 2;
        }
    }
}

#[test]
#[ignore = "the database needs a small disk of its own: make full-disk"]
fn a_full_disk_of_the_database_loses_and_doubles_nothing() {
    let disk = std::env::var("HEADROOM_TEST_DISK").expect("HEADROOM_TEST_DISK is a folder on a disk of its own");
    let (disk, folder) = (Path::new(&disk), crate::folder());
    let broker = Broker::start(&folder);
    let servers = broker.address();
    let mut scene = Scene::on(&folder, broker, &servers, Database::start(disk), World::new(Dice::new(15)), 500);
    let filler = disk.join("filler");
    for turn in 1..=TURNS {
        fill(&filler);
        scene.wait("somebody says that the disk is full", |scene| {
            scene.fleet.times_said("No space left on device") >= turn || !scene.database.is_up()
        });
        if turn == TURNS {
            // So that its log needs a new file: it cannot go on without one, and dies.
            while scene.database.try_rows("SELECT pg_switch_wal()").is_ok() {
                scene.fleet.pause(Duration::from_millis(100));
            }
        }
        scene.fleet.pause(FULL);
        println!("  {turn}: the database is {}", if scene.database.is_up() { "up" } else { "down" });
        std::fs::remove_file(&filler).unwrap();
        if !scene.database.is_up() {
            scene.database.restart();
        }
        let recovery = scene.settle("a full disk", Instant::now());
        println!("  balances moved again after {:.1} s, alerts after {:.1} s", recovery.balances, recovery.alerts);
    }
    assert!(scene.fleet.times_said("No space left on device") > 0, "no statement was refused");
    assert!(scene.fleet.ended.is_empty(), "no process has a reason to end: {:?}", scene.fleet.ended);
    ends_well(scene, &folder, true);
}
