//! What must hold after all faults: balances, outcomes and alerts are those of the records that were sent, each once. The
//! expectation is the plain fold of tests/laws over what the feed sent; it knows nothing of faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use headroom::domain::Quantity;
use headroom::stream::Options;
use headroom::stream::alerts::read_from;
use headroom::stream::record::header;
use rdkafka::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::answers;
use crate::calendar::Calendar;
use crate::facts::{Fact, LEVELS, Threshold, UNITS};
use crate::feed::{NUMBER, PARTITIONS, Sent, TOPICS};
use crate::model::{self, BucketKey, Known, Outcome};
use crate::scene::Scene;
use crate::world::produced;

/// The thresholds of assignments without their own: the default of `alerts.thresholds`.
const CONFIGURED: [Threshold; 2] = [Threshold::Percent(20_000_000), Threshold::Percent(0)];

/// How many of each were found as they must be.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) records: u64,
    pub(crate) dead_letters: u64,
    pub(crate) usage: u64,
    pub(crate) buckets: u64,
    pub(crate) alerts: u64,
    /// Balances in the query's answers.
    pub(crate) answers: u64,
}

impl Figures {
    /// Adds those of another part.
    pub(crate) fn add(&mut self, other: &Figures) {
        self.records += other.records;
        self.dead_letters += other.dead_letters;
        self.usage += other.usage;
        self.buckets += other.buckets;
        self.alerts += other.alerts;
        self.answers += other.answers;
    }
}

/// What the facts come to.
#[derive(Default)]
struct Must {
    /// Topic, partition, offset and reason.
    dead_letters: BTreeSet<(String, i32, i64, String)>,
    /// Allowance and remaining of each bucket, in millionths.
    buckets: BTreeMap<BucketKey, (i64, i64)>,
    /// Counted and reversed usage of each customer.
    usage: BTreeMap<i64, (i64, i64)>,
    quantity: [i128; 3],
    drawn: [i128; 3],
    drawn_by_value: [i128; 3],
    /// The same by the buckets' names.
    named: BTreeMap<String, (i64, i64)>,
    /// Which thresholds hold, by bucket and threshold as alerts name them.
    low: BTreeSet<(String, String)>,
}

/// Ends a deployment that must be as it should be, and takes its folder away; `whole` as for [`check`].
pub(crate) fn ends_well(mut scene: Scene, folder: &Path, whole: bool) {
    let sent = scene.end();
    let (figures, found) = check(&mut scene, &sent, whole);
    println!("{figures:?}");
    assert!(found.is_empty(), "{found:#?}");
    drop(scene);
    fs::remove_dir_all(folder).unwrap();
}

/// Holds all of it against what was sent. The faults that were found, each in a line. Where commits were lost whose alerts
/// are published, the alerts are not `whole`: they have their numbers, each once, but were raised by other commits.
pub(crate) fn check(scene: &mut Scene, sent: &Sent, whole: bool) -> (Figures, Vec<String>) {
    let mut found = Findings::default();
    let records = records(scene, sent, &mut found);
    let must = fold(sent, &records);
    offsets(scene, &records, &mut found);
    let (alerts, turns) = alerts(scene, &must, whole, &mut found);
    let figures = Figures {
        records: records.iter().flatten().map(|records| records.len() as u64).sum(),
        dead_letters: dead_letters(scene, &must, &mut found),
        usage: usage(scene, &must, &mut found),
        buckets: buckets(scene, &must, &mut found),
        alerts,
        answers: answers(scene, &must, &mut found),
    };
    totals(scene, &must, whole.then_some(turns), &mut found);
    let audit = scene.fleet.command(&["audit"]).output().unwrap();
    if !audit.status.success() {
        found.add(|| format!("headroom audit: {}", String::from_utf8_lossy(&audit.stdout)));
    }
    (figures, found.lines())
}

/// The first findings, and how many there were.
#[derive(Default)]
pub(crate) struct Findings {
    lines: Vec<String>,
    count: usize,
}

impl Findings {
    fn add(&mut self, line: impl FnOnce() -> String) {
        self.count += 1;
        if self.lines.len() < 20 {
            self.lines.push(line());
        }
    }

    fn unless(&mut self, holds: bool, line: impl FnOnce() -> String) {
        if !holds {
            self.add(line);
        }
    }

    fn lines(mut self) -> Vec<String> {
        if self.count > self.lines.len() {
            self.lines.push(format!("and {} more", self.count - self.lines.len()));
        }
        self.lines
    }
}

/// The numbers of the facts in Kafka, by input, partition and offset.
pub(crate) type Records = [Vec<Vec<usize>>; 2];

/// What Kafka has of what was sent: all of it. A broker that is killed may make its producer send a record again; both
/// are records then, and the second one a duplicate like any other.
pub(crate) fn records(scene: &Scene, sent: &Sent, found: &mut Findings) -> Records {
    let mut records: Records = [(); 2].map(|()| vec![Vec::new(); PARTITIONS as usize]);
    let mut times = vec![0u32; sent.len()];
    for (input, topic) in TOPICS.into_iter().enumerate() {
        let options = Options { alerts_topic: topic.to_owned(), ..scene.options() };
        let read = read_from(&options, &[], |message| {
            let number: usize = header(message, NUMBER).and_then(|text| text.parse().ok()).expect("it is the feed's");
            times[number] += 1;
            let records = &mut records[input][message.partition() as usize];
            assert_eq!(message.offset(), records.len() as i64, "the inputs have no gaps");
            records.push(number);
        });
        read.expect("the inputs can be read");
    }
    let again = times.iter().filter(|times| **times > 1).count();
    if again > 0 {
        println!("  the feed's producer sent {again} records again when the broker died");
    }
    for (number, _) in times.iter().enumerate().filter(|(_, times)| **times == 0) {
        found.add(|| format!("Kafka lost record {number} of the feed: the run says nothing"));
    }
    records
}

fn fold(sent: &Sent, records: &Records) -> Must {
    let mut must = Must::default();
    let calendar = Calendar::of("UTC");
    for partition in 0..PARTITIONS {
        // One order that the two topics may have been worked off in. It matters to no outcome here: all bill runs are
        // open at the end.
        let mut of_customers: BTreeMap<Option<i64>, Vec<(usize, i64, &Fact)>> = BTreeMap::new();
        for input in [1, 0] {
            for (offset, number) in (0..).zip(&records[input][partition as usize]) {
                let fact = &sent[*number];
                of_customers.entry(fact.customer()).or_default().push((input, offset, fact));
            }
        }
        for (customer, records) in of_customers {
            let facts: Vec<&Fact> = records.iter().map(|(_, _, fact)| *fact).collect();
            let mut known = Known::default();
            for ((input, offset, _), outcome) in records.iter().zip(known.take_all(&facts, &calendar, |_| false)) {
                if let Outcome::DeadLetter(reason) = outcome {
                    must.dead_letters.insert((TOPICS[*input].to_owned(), partition, *offset, reason.to_owned()));
                }
            }
            if let Some(customer) = customer {
                must.add(customer, &known, &calendar);
            }
        }
    }
    must
}

impl Must {
    fn add(&mut self, customer: i64, known: &Known, calendar: &Calendar) {
        let balances = model::fold(known, calendar, produced().as_microsecond());
        let (mut counted, mut reversed) = (0, 0);
        for (key, usage) in &known.usage {
            if known.reversals.contains_key(key) {
                reversed += 1;
            } else {
                counted += 1;
                self.quantity[usage.unit] += i128::from(usage.quantity);
            }
        }
        self.usage.insert(customer, (counted, reversed));
        for (key, bucket) in &balances.buckets {
            let component = &bucket.component;
            let (allowance, remaining) = (component.allowance, bucket.remaining);
            let sums = if component.by_value { &mut self.drawn_by_value } else { &mut self.drawn };
            sums[component.unit] += i128::from(allowance - remaining);
            self.buckets.insert(*key, (allowance, remaining));
            let ((customer, level, assignment), component, _) = *key;
            let start = calendar.wall_clock(bucket.window.start);
            self.named.insert(name(customer, LEVELS[level], assignment, component, &start), (allowance, remaining));
            for threshold in balances.thresholds(&key.0, &CONFIGURED) {
                let (holds, named) = match threshold {
                    Threshold::Percent(percent) => (
                        i128::from(remaining) * 100_000_000 <= i128::from(percent) * i128::from(allowance),
                        json!({"remainingPercent": percent / 1_000_000}),
                    ),
                    Threshold::Remaining(at) => (remaining <= at, json!({"remaining": at / 1_000_000})),
                };
                if holds {
                    self.low.insert((name(customer, LEVELS[level], assignment, component, &start), named.to_string()));
                }
            }
        }
    }
}

/// A bucket's name for a person, and for comparing.
fn name(customer: i64, level: &str, assignment: i64, component: i64, start: &str) -> String {
    format!("{customer}/{level}/{assignment}/{component}/{start}")
}

/// Every record of the inputs was consumed, and no customer is behind.
fn offsets(scene: &mut Scene, records: &Records, found: &mut Findings) {
    for row in scene.database.rows("SELECT partition, customer_id, usage_offset FROM behind") {
        let (partition, customer, offset): (i32, i64, i64) = (row.get(0), row.get(1), row.get(2));
        found.add(|| format!("customer {customer} of partition {partition} is behind from usage {offset} on"));
    }
    for row in scene.database.rows("SELECT partition, usage_offset, assignments_offset FROM progress") {
        let partition: i32 = row.get(0);
        for input in [0, 1] {
            let (next, count) = (row.get::<i64, _>(1 + input), records[input][partition as usize].len() as i64);
            let topic = TOPICS[input];
            found.unless(next == count, || {
                format!("{topic}/{partition}: {count} records are there, {next} are consumed")
            });
        }
    }
}

fn dead_letters(scene: &mut Scene, must: &Must, found: &mut Findings) -> u64 {
    let rows = scene.database.rows("SELECT topic, partition, \"offset\", reason FROM dead_letter");
    let stored: BTreeSet<_> = rows
        .iter()
        .map(|row| (row.get::<String, _>(0), row.get::<i32, _>(1), row.get::<i64, _>(2), row.get::<String, _>(3)))
        .collect();
    for letter in must.dead_letters.difference(&stored) {
        found.add(|| format!("no dead letter {letter:?}"));
    }
    for letter in stored.difference(&must.dead_letters) {
        found.add(|| format!("a dead letter that must not be: {letter:?}"));
    }
    stored.len() as u64
}

/// Each customer's usage is in the ledger, all of it and no more.
fn usage(scene: &mut Scene, must: &Must, found: &mut Findings) -> u64 {
    let rows = scene.database.rows(
        "SELECT customer_id, count(*) FILTER (WHERE state::int = 0), count(*) FILTER (WHERE state::int IN (2, 3)), \
         count(*) FROM ledger GROUP BY customer_id",
    );
    let stored: BTreeMap<i64, (i64, i64, i64)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect();
    for (customer, (counted, reversed)) in &must.usage {
        let must = (*counted, *reversed, counted + reversed);
        let has = stored.get(customer).copied().unwrap_or_default();
        found.unless(has == must, || {
            format!("customer {customer}: counted, reversed and all usage must be {must:?}, and is {has:?}")
        });
    }
    stored.values().map(|(_, _, all)| *all as u64).sum()
}

fn buckets(scene: &mut Scene, must: &Must, found: &mut Findings) -> u64 {
    let rows = scene.database.rows(
        "SELECT customer_id, level, assignment_id, component_id, (extract(epoch FROM window_start) * 1000000)::int8, \
         allowance, remaining FROM bucket",
    );
    let mut stored: BTreeMap<BucketKey, (i64, i64)> = BTreeMap::new();
    for row in &rows {
        let level = usize::try_from(row.get::<i16, _>(1)).unwrap();
        let key = ((row.get(0), level, row.get(2)), row.get(3), row.get(4));
        let before = stored.insert(key, (row.get(5), row.get(6)));
        found.unless(before.is_none(), || format!("two rows of bucket {key:?}"));
    }
    for (key, must) in &must.buckets {
        let full = (must.0, must.0);
        let has = stored.get(key).copied().unwrap_or(full);
        found.unless(has == *must, || {
            format!("bucket {key:?}: allowance and remaining must be {must:?}, and are {has:?}")
        });
    }
    for key in stored.keys().filter(|key| !must.buckets.contains_key(key)) {
        found.add(|| format!("a row of no bucket: {key:?}"));
    }
    stored.len() as u64
}

/// What the query says of every bucket is what it must hold, and it speaks of no bucket that there is not.
fn answers(scene: &Scene, must: &Must, found: &mut Findings) -> u64 {
    let answered = answers::answered(scene, must.usage.keys().copied());
    found.unless(!answered.is_empty(), || "the query answers no balance".to_owned());
    for (bucket, said) in &answered {
        for (allowance, remaining) in said {
            let must = must.named.get(bucket).copied();
            let is = (millionths(allowance), millionths(remaining));
            // One that nothing drew from yet may lie beyond what is folded here.
            let holds = must.map_or(is.0 == is.1, |must| is == must);
            found.unless(holds, || format!("the query says of {bucket} {is:?}, and must say {must:?}"));
        }
    }
    answered.values().map(|said| said.len() as u64).sum()
}

/// A quantity on the wire.
fn millionths(number: &Value) -> i64 {
    Quantity::parse(&number.to_string()).map_or(-1, Quantity::millionths)
}

/// What a read_committed reader sees of the alerts topic: numbers without a gap, a second copy or a place out of order,
/// and for each bucket a last alert that says how it stands. How many crossed and recovered there are.
fn alerts(scene: &mut Scene, must: &Must, whole: bool, found: &mut Findings) -> (u64, [i64; 2]) {
    let store: String = scene.database.rows("SELECT store_id::text FROM deployment")[0].get(0);
    let rows = scene.database.rows("SELECT partition, outbox_number FROM progress");
    let raised: BTreeMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut seen: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    let mut last: BTreeMap<(i32, i32), i64> = BTreeMap::new();
    let mut low: BTreeMap<(String, String), bool> = BTreeMap::new();
    let (mut count, mut turns) = (0, [0, 0]);
    let read = read_from(&scene.options(), &[], |message| {
        count += 1;
        let event: Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("an alert is JSON");
        let number = |name: &str| header(message, name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(-1);
        let (partition, number) = (number("headroom-partition") as i32, number("headroom-number"));
        let id = format!("{store}-{partition}-{number}");
        found.unless(event["id"] == id, || format!("an alert {} that says it is {id}", event["id"]));
        found.unless(seen.entry(partition).or_default().insert(number), || format!("alert {id} is there twice"));
        let before = last.insert((message.partition(), partition), number).unwrap_or(0);
        found.unless(number > before, || format!("alert {id} comes after number {before}"));
        let crossed = event["type"] == "balance.threshold.crossed";
        turns[usize::from(!crossed)] += 1;
        let data = &event["data"];
        let of = |name: &str| data[name].as_i64().unwrap_or(-1);
        let (level, start) = (data["assignmentLevel"].as_str().unwrap_or(""), data["startDate"].as_str().unwrap_or(""));
        let bucket = name(of("customerId"), level, of("assignmentId"), of("componentId"), start);
        let key = (bucket, data["threshold"].to_string());
        let was = low.insert(key.clone(), crossed).unwrap_or(false);
        found.unless(!whole || was != crossed, || format!("alert {id} says of {key:?} what was said before"));
    });
    if let Err(error) = read {
        found.add(|| format!("the alerts topic cannot be read: {error}"));
    }
    for (partition, last) in &raised {
        let numbers = seen.remove(partition).unwrap_or_default();
        let whole = numbers.iter().copied().eq(1..=*last);
        let gap = || (1..=*last).find(|number| !numbers.contains(number));
        let count = numbers.len();
        found.unless(whole, || format!("partition {partition}: {count} alerts of {last}; the first gap: {:?}", gap()));
    }
    found.unless(seen.is_empty(), || format!("alerts of partitions that are not: {:?}", seen.keys()));
    if !whole {
        return (count, turns);
    }
    for (key, is_low) in &low {
        found.unless(*is_low == must.low.contains(key), || format!("the last alert of {key:?} says low: {is_low}"));
    }
    for key in must.low.iter().filter(|key| !low.contains_key(key)) {
        found.add(|| format!("no alert of {key:?}"));
    }
    (count, turns)
}

fn totals(scene: &Scene, must: &Must, alerts: Option<[i64; 2]>, found: &mut Findings) {
    let stored: Value = serde_json::from_str(&scene.fleet.say(&["totals"])).unwrap();
    let sums = |sums: &[i128; 3]| -> BTreeMap<&str, String> {
        UNITS.into_iter().zip(sums).map(|(unit, sum)| (unit, decimal(*sum))).collect()
    };
    let said = |name: &str| -> BTreeMap<&str, String> {
        UNITS.into_iter().map(|unit| (unit, stored[name][unit].to_string())).collect()
    };
    for (name, must) in [("quantity", &must.quantity), ("drawn", &must.drawn), ("drawnByValue", &must.drawn_by_value)] {
        let (must, has) = (sums(must), said(name));
        found.unless(must == has, || format!("totals, {name}: must be {must:?}, and is {has:?}"));
    }
    let (counted, reversed) = must.usage.values().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    let usage = json!({"counted": counted, "held": 0, "reversed": reversed});
    found.unless(stored["usageEvents"] == usage, || format!("totals: must be {usage}, are {}", stored["usageEvents"]));
    let Some(alerts) = alerts else { return };
    let alerts = json!({"crossed": alerts[0], "recovered": alerts[1]});
    found.unless(stored["alerts"] == alerts, || format!("totals: seen {alerts}, raised {}", stored["alerts"]));
}

/// Millionths as serde_json shows the number that `totals` prints.
fn decimal(millionths: i128) -> String {
    let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    serde_json::from_str::<Value>(text).unwrap().to_string()
}
