//! A deployment under faults: broker, database, processes and feed, and how each deed is done to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use headroom::stream::{FetchAhead, Options};
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use crate::broker::Broker;
use crate::database::Database;
use crate::feed::{Feed, PARTITIONS, Sent, TOPICS};
use crate::fleet::{Fleet, Seat};
use crate::schedule::{Action, Deed, Fault, Place, Way};
use crate::wait::patience;
use crate::world::World;

/// Beyond the group's session timeout (6 s) and a relay's lease (3 s).
const LONG: Duration = Duration::from_millis(7_500);
/// How many partitions the alerts topic has.
const ALERTS_PARTITIONS: i32 = 4;
/// The alerts topic.
pub(crate) const ALERTS: &str = "balance-alerts";

/// All of it.
pub(crate) struct Scene {
    pub(crate) broker: Broker,
    pub(crate) database: Database,
    pub(crate) fleet: Fleet,
    pub(crate) feed: Option<Feed>,
    /// A worker that comes and goes; down between storms.
    flapping: Seat,
}

/// How many seconds it took to move again after a fault: the balances, then the alerts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) balances: f32,
    pub(crate) alerts: f32,
}

/// What a deed left behind, to be put right at its end.
enum Wound {
    None,
    Down(Seat),
    /// Since when.
    Stopped(Vec<Seat>, Instant),
    Broker,
    Database,
}

impl Scene {
    /// Starts everything, in roles apart and together, and the feed.
    pub(crate) fn start(folder: &Path, world: World, rate: u64) -> Scene {
        let broker = Broker::start(folder);
        let servers = broker.address();
        Scene::on(folder, broker, &servers, Database::start(folder), world, rate)
    }

    /// The same on brokers that run, at these addresses, and a database that does.
    pub(crate) fn on(
        folder: &Path,
        broker: Broker,
        servers: &str,
        database: Database,
        world: World,
        rate: u64,
    ) -> Scene {
        let environment = [
            ("PATH", std::env::var("PATH").unwrap_or_default()),
            ("HEADROOM_KAFKA__BOOTSTRAP_SERVERS", servers.to_owned()),
            ("HEADROOM_STORE__URL", database.url()),
            ("HEADROOM_HTTP__LISTEN", "127.0.0.1:0".to_owned()),
            ("HEADROOM_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
            ("HEADROOM_AUTH__HS256_SECRET", "a secret of thirty-two bytes or more".to_owned()),
            // So short that faults meet customers behind too.
            ("HEADROOM_WORKER__REPLAY_PAUSE_MS", "10".to_owned()),
        ];
        let mut environment: BTreeMap<String, String> = environment.map(|(key, value)| (key.to_owned(), value)).into();
        // For looking closer: HEADROOM_KAFKA__PROPERTIES__DEBUG=fetch,cgrp, say.
        environment.extend(std::env::vars().filter(|(key, _)| key.starts_with("HEADROOM_KAFKA__PROPERTIES__")));
        let mut fleet = Fleet::new(folder, environment);
        let (inputs, alerts) = (PARTITIONS.to_string(), ALERTS_PARTITIONS.to_string());
        fleet.say(&["topics", "create", "--partitions", &inputs, "--alerts-partitions", &alerts]);
        for roles in ["worker,relay,reader", "worker", "worker", "relay", "reader"] {
            fleet.add(roles);
        }
        let flapping = fleet.add("worker");
        fleet.kill(flapping);
        let feed = Some(Feed::start(&broker.address(), world, rate));
        let mut scene = Scene { broker, database, fleet, feed, flapping };
        scene.settle("the start", Instant::now());
        scene
    }

    /// The way to Kafka.
    pub(crate) fn options(&self) -> Options {
        Options {
            bootstrap_servers: self.broker.address(),
            group: "headroom".to_owned(),
            group_instance_id: None,
            properties: BTreeMap::new(),
            usage_topic: TOPICS[0].to_owned(),
            assignments_topic: TOPICS[1].to_owned(),
            alerts_topic: ALERTS.to_owned(),
            fetch_ahead: FetchAhead::default(),
        }
    }

    /// Does a fault, and waits until all that Kafka had by its end is applied and its alerts are published. Others must
    /// take over from what is stopped before it wakes; how long that took is told then.
    pub(crate) fn suffer(&mut self, fault: &Fault) -> Recovery {
        self.fleet.pause(fault.before);
        let first = self.begin(fault.deed, fault);
        let second = fault.second.map(|second| {
            self.fleet.pause(fault.between);
            self.begin(second, fault)
        });
        let taken_over = match (&first, &second) {
            (Wound::Stopped(_, since), None) => Some(self.settle(&fault.kind(), *since)),
            _ => None,
        };
        for wound in [Some(&first), second.as_ref()].into_iter().flatten() {
            if let Wound::Stopped(_, since) = wound {
                self.fleet.pause(LONG.saturating_sub(since.elapsed()));
            }
        }
        self.fleet.pause(fault.down);
        for wound in [Some(first), second].into_iter().flatten() {
            self.heal(wound);
        }
        let recovery = self.settle(&fault.kind(), Instant::now());
        taken_over.unwrap_or(recovery)
    }

    /// Waits until all that Kafka has by now is applied and its alerts are published.
    pub(crate) fn settle(&mut self, what: &str, begun: Instant) -> Recovery {
        // Something new must come too, so that more than what was there before the fault is asked for.
        let count = |sent: &[Vec<i64>; 2]| sent.iter().flatten().sum::<i64>();
        let mut sent = self.feed.as_ref().expect("it runs").counts();
        let least = count(&sent) + 100;
        self.wait("Kafka takes records again", |scene| {
            // The feed waits for those that are behind, so it must be told.
            scene.applied(&sent);
            sent = scene.feed.as_ref().expect("it runs").counts();
            count(&sent) >= least
        });
        self.wait(&format!("balances move again after {what}"), |scene| scene.applied(&sent));
        let balances = begun.elapsed().as_secs_f32();
        let raised = self.database.rows("SELECT partition, outbox_number FROM progress");
        let raised: Vec<(i32, i64)> = raised.iter().map(|row| (row.get(0), row.get(1))).collect();
        self.wait(&format!("alerts move again after {what}"), |scene| scene.published(&raised));
        Recovery { balances, alerts: begun.elapsed().as_secs_f32() }
    }

    pub(crate) fn wait(&mut self, what: &str, mut so: impl FnMut(&mut Scene) -> bool) {
        let begun = Instant::now();
        while !so(self) {
            assert!(begun.elapsed() < patience(), "waited in vain for {:?} until {what}", patience());
            self.fleet.pause(Duration::from_millis(100));
        }
    }

    /// Whether so many records of each partition are applied, those of customers behind too.
    fn applied(&mut self, sent: &[Vec<i64>; 2]) -> bool {
        let rows = self.database.try_rows(
            "SELECT partition, least(p.usage_offset, min(b.usage_offset)), \
             least(p.assignments_offset, min(b.assignments_offset)) \
             FROM progress p LEFT JOIN behind b USING (partition) \
             GROUP BY partition, p.usage_offset, p.assignments_offset",
        );
        rows.is_ok_and(|rows| {
            if let Some(feed) = &self.feed {
                feed.note_applied(rows.iter().map(|row| row.get::<i64, _>(1) + row.get::<i64, _>(2)).sum());
            }
            rows.len() == PARTITIONS as usize
                && rows.iter().all(|row| {
                    let partition = row.get::<i32, _>(0) as usize;
                    row.get::<i64, _>(1) >= sent[0][partition] && row.get::<i64, _>(2) >= sent[1][partition]
                })
        })
    }

    fn published(&mut self, raised: &[(i32, i64)]) -> bool {
        let Ok(rows) = self.database.try_rows("SELECT partition, number FROM relay_number") else { return false };
        let known: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        raised.iter().all(|(partition, number)| known.get(partition).copied().unwrap_or(0) >= *number)
    }

    fn begin(&mut self, deed: Deed, fault: &Fault) -> Wound {
        let pick = |seats: Vec<Seat>| seats[usize::try_from(fault.choice).unwrap() % seats.len()];
        match deed {
            Deed::Kill(role) => {
                let seat = pick(self.steady(role));
                self.fleet.kill(seat);
                Wound::Down(seat)
            }
            Deed::End(role) => {
                let seat = pick(self.steady(role));
                if self.fleet.is_up(seat) {
                    let code = self.fleet.end(seat);
                    assert_eq!(code, Some(0), "{} was told to end", self.fleet.name(seat));
                }
                Wound::Down(seat)
            }
            Deed::Stop(role) => {
                let seat = pick(self.steady(role));
                self.fleet.signal(seat, "-STOP");
                Wound::Stopped(vec![seat], Instant::now())
            }
            Deed::KillBroker => {
                self.broker.kill();
                Wound::Broker
            }
            Deed::KillDatabase => {
                self.database.kill();
                Wound::Database
            }
            Deed::Storm => {
                self.storm(fault.choice);
                Wound::None
            }
            Deed::At(place, action) => self.aim(place, action, fault.choice),
        }
    }

    /// Those with a role, but for the one that comes and goes.
    pub(crate) fn steady(&self, role: &str) -> Vec<Seat> {
        self.fleet.with(role).into_iter().filter(|seat| *seat != self.flapping).collect()
    }

    fn storm(&mut self, choice: i64) {
        for turn in 0..4 {
            self.fleet.start(self.flapping);
            let stay = (choice * 7 + turn * 613) % 2_500;
            self.fleet.pause(Duration::from_millis(200 + stay.unsigned_abs()));
            if (choice + turn) % 2 == 0 {
                self.fleet.kill(self.flapping);
            } else {
                self.fleet.end(self.flapping);
            }
        }
    }

    /// Has a process come by a place and die or stop there.
    fn aim(&mut self, place: &Place, action: Action, choice: i64) -> Wound {
        let mut aimed = self.steady(place.role);
        // Every worker comes by, and one is meant. Only one relay does, and which is theirs to know.
        if place.role == "worker" {
            aimed = vec![aimed[usize::try_from(choice).unwrap() % aimed.len()]];
        }
        let word = if action == Action::Kill { "kill" } else { "stop" };
        if place.way == Way::Restart {
            aimed.iter().for_each(|seat| self.fleet.kill(*seat));
        }
        self.fleet.arm(&aimed, word, place.name);
        match place.way {
            Way::Itself => {}
            Way::Restart => aimed.iter().for_each(|seat| self.fleet.start(*seat)),
            Way::Rebalance => self.fleet.start(self.flapping),
        }
        let mut turned = Instant::now();
        self.wait(&format!("a process comes by {}", place.name), |scene| {
            // One that was just joining itself is in the round with the newcomer, and gives nothing back: once more then.
            if place.way == Way::Rebalance && turned.elapsed() > LONG {
                scene.fleet.kill(scene.flapping);
                scene.fleet.start(scene.flapping);
                turned = Instant::now();
            }
            scene.fleet.came_by(&aimed).is_some()
        });
        if place.way == Way::Rebalance {
            self.fleet.kill(self.flapping);
        }
        let came = self.fleet.disarm(&aimed);
        if action == Action::Stop {
            return Wound::Stopped(came, Instant::now());
        }
        // Whoever watches over the processes starts it again.
        Wound::None
    }

    fn heal(&mut self, wound: Wound) {
        match wound {
            Wound::None => {}
            Wound::Down(seat) => {
                if !self.fleet.is_up(seat) {
                    self.fleet.start(seat);
                }
            }
            Wound::Stopped(seats, _) => seats.iter().for_each(|seat| self.fleet.signal(*seat, "-CONT")),
            Wound::Broker => self.broker.restart(),
            Wound::Database => self.database.restart(),
        }
    }

    /// Ends the feed, waits until all of it is worked off, and ends the processes. What was sent.
    pub(crate) fn end(&mut self) -> Sent {
        let (sent, counts) = self.feed.take().expect("it runs").end();
        self.wait("everything is applied", |scene| scene.applied(&counts));
        // The bill runs that opened last go from their partitions to all others.
        self.wait("no usage is held", |scene| {
            let held = scene.database.try_rows("SELECT sum(held)::int8 FROM progress");
            held.is_ok_and(|rows| rows[0].get::<i64, _>(0) == 0)
        });
        self.wait("every partition has the bill runs", |scene| {
            let most = "SELECT count(*) FROM bill_run b WHERE status <> 0 OR storing_after IS NOT NULL OR version <> \
                        (SELECT max(version) FROM bill_run o WHERE o.bill_run_id = b.bill_run_id)";
            scene.database.try_rows(most).is_ok_and(|rows| rows[0].get::<i64, _>(0) == 0)
        });
        let raised = self.database.rows("SELECT partition, outbox_number FROM progress");
        let raised: Vec<(i32, i64)> = raised.iter().map(|row| (row.get(0), row.get(1))).collect();
        self.wait("all alerts are published", |scene| scene.published(&raised));
        for seat in self.steady("worker").into_iter().chain([3, 4]) {
            if self.fleet.is_up(seat) {
                let code = self.fleet.end(seat);
                assert_eq!(code, Some(0), "{} was told to end", self.fleet.name(seat));
            }
        }
        sent
    }
}
