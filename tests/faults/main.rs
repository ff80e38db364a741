//! Nothing is lost and nothing doubled, whatever dies.
//!
//! A deployment of its own (Kafka, PostgreSQL, three workers, two relays, two readers; roles apart and together) works off a
//! steady stream of records while a seeded schedule of faults goes over it: kill -9 and SIGSTOP of processes, kill -9 of
//! broker and database, workers that come and go, two at once, and processes that die or stop at named places
//! (`src/failpoint.rs`). Afterwards all that is stored and published is held against a plain fold of what was sent.
//!
//! `make chaos FAULTS=1000 SEED=7` makes it long. The variables: `FAULTS`; `SEED`; `RATE`, records a second; `PART`, faults
//! of one deployment, after which all is checked and the next part has a new one; `STATE`, a file that keeps the parts
//! done, so that the same command goes on after a break; `PARTS=11-20`, only these parts, so that several machines or
//! processes share the work; `ONLY`, one kind of fault, by its name in the table at the end; `HEADROOM_TEST_PROGRAM`,
//! another build of the program, which needs the feature `failpoints` too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../laws/calendar.rs"]
mod calendar;
#[path = "../laws/facts.rs"]
mod facts;
#[path = "../laws/json.rs"]
mod json;
#[path = "../laws/model.rs"]
#[expect(dead_code, reason = "the laws use more of it")]
mod model;

mod answers;
mod broker;
mod check;
mod damaged;
mod database;
mod dice;
mod disk;
mod feed;
mod fleet;
mod leaders;
#[path = "../support/ports.rs"]
mod ports;
mod report;
mod restore;
mod runs;
mod scene;
mod schedule;
mod wait;
mod world;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

use dice::Dice;
use report::{Part, State};
use scene::Scene;
use schedule::Fault;
use world::World;

/// A number from the environment.
fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// The first and the last part to do.
fn parts() -> (u32, u32) {
    let Ok(parts) = std::env::var("PARTS") else { return (1, u32::MAX) };
    let bounds = parts.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    bounds.unwrap_or_else(|| panic!("PARTS is no range like 11-20: {parts}"))
}

#[test]
fn nothing_is_lost_or_doubled_whatever_dies() {
    let (faults, seed) = (number("FAULTS", 7) as usize, number("SEED", 1));
    let (part, rate) = (number("PART", 10) as usize, number("RATE", 2_000));
    let only = std::env::var("ONLY").ok();
    let mut dice = Dice::new(seed);
    let schedule = schedule::schedule(dice.apart(), faults, only.as_deref());
    let mut state = State::open(format!("SEED={seed} PART={part} RATE={rate} ONLY={only:?}"));
    let (first, last) = parts();
    for (number, faults) in (1..).zip(schedule.chunks(part)) {
        let world = World::new(dice.apart());
        if !(first..=last).contains(&number) {
            continue;
        }
        if state.has(number, faults.len()) {
            println!("part {number} is done");
            continue;
        }
        println!("part {number}: SEED={seed}, {} faults", faults.len());
        state.add(number, play(world, rate, faults));
    }
    let found = state.report();
    assert_eq!(found, 0, "things that are not as they must be, with SEED={seed}");
}

/// A folder for a deployment. It is kept when something fails: the logs tell why.
fn folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("headroom-faults-").tempdir().unwrap().keep();
    // PostgreSQL may run as another user and must find its way in.
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    println!("  its logs are in {}", folder.display());
    folder
}

/// Does some faults to a deployment, and checks what came of it.
fn play(world: World, rate: u64, faults: &[Fault]) -> Part {
    let begun = Instant::now();
    let folder = folder();
    let mut scene = Scene::start(&folder, world, rate);
    let mut part = Part::new(faults.len());
    for (number, fault) in (1..).zip(faults) {
        println!("{:6.1} s  {number}: {fault}", begun.elapsed().as_secs_f32());
        let recovery = scene.suffer(fault);
        println!(
            "          balances moved again after {:.1} s, alerts after {:.1} s",
            recovery.balances, recovery.alerts
        );
        part.add(fault.kind(), recovery);
    }
    let sent = scene.end();
    part.checked(check::check(&mut scene, &sent, true), scene.fleet.ended.clone());
    println!("{:6.1} s  {}", begun.elapsed().as_secs_f32(), part.sum());
    if part.is_clean() {
        drop(scene);
        fs::remove_dir_all(&folder).unwrap();
    }
    part
}
