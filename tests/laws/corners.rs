//! Which corners the histories reached: a law that was never tried where it is hard proves little. Each clause of
//! `domain.md sections 4 to 7` that has a corner is counted, and a run that met one of them never fails.

mod drawing;
mod meetings;

use std::collections::{BTreeMap, BTreeSet};

use crate::calendar::next;
use crate::facts::{Assignment, Fact, Run, Threshold, Usage};
use crate::model::{Balances, BucketKey, EventKey, Known, Outcome};
use crate::play::Step;
use meetings::Meetings;

/// An hour, in microseconds.
const HOUR: i64 = 3_600_000_000;

/// Every corner.
const CORNERS: [&str; 90] = [
    "4: a window cut by its assignment was drawn",
    "4: a day of less than 24 hours was drawn",
    "4: a day of more than 24 hours was drawn",
    "4: a bucket was drawn after its window",
    "4: a day's window was drawn",
    "4: a week's window was drawn",
    "4: a month's window with another anchor was drawn",
    "5: two levels in one event",
    "5: the earlier expiry first",
    "5: of one expiry, the earlier assignment first",
    "5: of one expiry and start, the lower assignment first",
    "5: of one assignment, the lower component first",
    "5: two events of one instant and bucket",
    "5: a plan for one product",
    "5: by timeband",
    "5: by charge group",
    "5: by charge group category",
    "5: by how the number begins",
    "5: by the whole number",
    "5: one alternative of several",
    "5: fast, nothing had drawn from the bucket",
    "5: fast, after all that had drawn from it",
    "5: fast, late and with room",
    "5: fast, the bucket was empty before it",
    "5: late, into a bucket emptied by later usage",
    "5: replay",
    "5: replay that ended before the end",
    "5: known usage displaced into another bucket",
    "5: a customer left behind",
    "5: others served while a customer was behind",
    "5: a customer caught up",
    "5: a fold left unfinished, and taken up by another owner",
    "5: known usage displaced into a later bucket with room",
    "5: a bucket emptied by a late event",
    "5: between the late event that emptied a bucket and its last",
    "5: fast reversal",
    "5: slow reversal",
    "5: reversal before its event",
    "5: usage reversed already when it came",
    "5: drawn by quantity and by value at once",
    "5: by value, with usage left over",
    "5: a cap over several buckets",
    "5: a cap that left usage over",
    "5: too little to qualify",
    "5: backdated or changed assignment redrew usage",
    "5: an end alone changed, what lies before it was not folded",
    "5: assignment removed",
    "5: assignment back after it was removed",
    "6: held",
    "6: let in",
    "6: let in in steps",
    "6: let in with other records of the customer, before its step",
    "6: held, then reversed",
    "6: held by two runs at once",
    "6: held by a run in arrears",
    "6: let in by another billing cycle",
    "6: let in, while another run that covers it is open",
    "6: counted usage under a run that closed later",
    "6: a closed run known before its customer",
    "6: a run closed with rows",
    "6: a run opened again",
    "6: a run finalized",
    "6: a version after FINALIZED",
    "6: a customer stored ahead",
    "6: rows of a closed run stayed while balances changed",
    "7: crossed",
    "7: recovered",
    "7: several thresholds of a bucket at once",
    "7: a percentage",
    "7: a quantity",
    "7: a changed list",
    "7: a drawn bucket went and came back",
    "7: crossed by usage let in",
    "7: recovered by a larger allowance",
    "7: recovered by a reversal",
    "7: no cause",
    "7: a threshold of more than all of it, which always holds",
    "7: a list with repeats",
    "7: an empty list",
    "3: counted",
    "3: duplicate",
    "3: conflict",
    "3: passed over",
    "3: a version that holds again",
    "3: refused by itself",
    "3: a line moved by its usage",
    "3: a line not moved by late usage",
    "3: a line where inventory.changed tells",
    "3: a line known no more",
    "3: a line known by an assignment only",
];

/// How often each was met.
#[derive(Debug, Default)]
pub(crate) struct Corners {
    counts: BTreeMap<&'static str, u64>,
    meetings: Meetings,
}

impl Corners {
    fn met(&mut self, corner: &'static str, so: bool) {
        assert!(CORNERS.contains(&corner), "a corner without a name: {corner}");
        *self.counts.entry(corner).or_default() += u64::from(so);
    }

    /// The corners that were never met.
    pub(crate) fn never_met(&self) -> Vec<&'static str> {
        CORNERS.into_iter().filter(|corner| self.counts.get(corner).is_none_or(|n| *n == 0)).collect()
    }

    /// Shows the counts; fails when a corner was never met.
    pub(crate) fn show(&self) {
        for corner in CORNERS {
            println!("{:>8}  {corner}", self.counts.get(corner).copied().unwrap_or(0));
        }
        let never: Vec<_> =
            CORNERS.into_iter().filter(|corner| self.counts.get(corner).is_none_or(|n| *n == 0)).collect();
        assert!(never.is_empty(), "never met: {never:?}");
    }

    /// Notes what a commit met.
    pub(crate) fn note(&mut self, step: &Step<'_>) {
        self.note_outcomes(step);
        self.note_runs(step);
        self.note_alerts(step);
        self.note_behind(step);
        self.note_lines(step);
        self.note_meetings(step);
        let (old, new) = step.balances;
        for (event, draws) in &new.draws {
            if !old.draws.contains_key(event) {
                self.note_new(step, *event, draws);
            } else if old.draws[event] != *draws {
                let before: BTreeSet<_> = old.draws[event].iter().map(|(bucket, _)| bucket).collect();
                let displaced = draws.iter().any(|(bucket, _)| !before.contains(bucket));
                self.met("5: known usage displaced into another bucket", displaced);
                let room = draws.iter().any(|(bucket, _)| {
                    let later = before.iter().all(|known| {
                        new.buckets
                            .get(*known)
                            .is_none_or(|known| known.window.expiry < new.buckets[bucket].window.expiry)
                    });
                    !before.contains(bucket) && later && new.buckets[bucket].remaining > 0
                });
                self.met("5: known usage displaced into a later bucket with room", room && !before.is_empty());
                let facts = step.facts.iter().all(|fact| matches!(fact, Fact::Assignment { .. }));
                self.met("5: backdated or changed assignment redrew usage", facts);
            }
        }
        let Some(applied) = &step.applied else { return };
        let replayed = applied.replays > 0;
        for fact in &step.facts {
            let Fact::Assignment { key, assignment: Some(now), .. } = fact else { continue };
            let Some((_, Some(was))) = step.known.0.assignments.get(key) else { continue };
            let alone = now.end != was.end && Assignment { end: was.end, ..now.clone() } == *was;
            let from = step.calendar.start_of(now.start);
            let since = |event: &&EventKey| event.0 == key.0 && event.1.0 >= from && step.known.1.counts(event);
            let known = step.known.1.usage.keys().filter(since).count() as u64;
            let short = alone && replayed && applied.replayed_events < known;
            self.met("5: an end alone changed, what lies before it was not folded", short);
        }
        self.met("5: replay", replayed);
        let gone = old.draws.iter().any(|(event, draws)| !new.draws.contains_key(event) && !draws.is_empty());
        self.met("5: fast reversal", gone && !replayed);
        self.met("5: slow reversal", gone && replayed);
        let changed = old.draws.keys().chain(new.draws.keys());
        let first = changed.filter(|event| old.draws.contains_key(event) != new.draws.contains_key(event)).min();
        let changed = old.draws.keys().chain(new.draws.keys());
        let whose: BTreeSet<i64> =
            changed.filter(|event| old.draws.get(*event) != new.draws.get(*event)).map(|event| event.0).collect();
        if let (1, Some(first), 1) = (applied.replays, first, whose.len()) {
            let later = new.draws.keys().filter(|event| event.0 == first.0 && *event >= first).count() as u64;
            self.met("5: replay that ended before the end", applied.replayed_events < later);
        }
    }

    /// Usage that counts since this commit.
    fn note_new(&mut self, step: &Step<'_>, event: EventKey, draws: &[(BucketKey, i64)]) {
        let (old, new) = step.balances;
        let usage = &step.known.1.usage[&event];
        let fast = step.applied.as_ref().is_some_and(|applied| applied.replays == 0);
        self.note_drawing(step, event, usage, draws);
        for (key, _) in draws {
            let bucket = &new.buckets[key];
            let (length, day) = (bucket.window.end - bucket.window.start, 24 * HOUR);
            self.met("4: a window cut by its assignment was drawn", bucket.window.cut);
            self.met("4: a day of less than 24 hours was drawn", !bucket.window.cut && length < day);
            self.met("4: a day of more than 24 hours was drawn", (day + 1..day + 3 * HOUR).contains(&length));
            self.met("4: a bucket was drawn after its window", usage.name.start >= bucket.window.end);
            let last = old.buckets.get(key).and_then(|bucket| bucket.last);
            self.met("5: fast, nothing had drawn from the bucket", fast && last.is_none());
            self.met("5: fast, after all that had drawn from it", fast && last.is_some_and(|last| last < event.1));
            self.met("5: fast, late and with room", fast && last.is_some_and(|last| last > event.1));
        }
        for (key, bucket) in old.buckets.iter().filter(|(key, bucket)| bucket.remaining == 0 && key.0.0 == event.0) {
            if new.buckets.contains_key(key) && new.qualifies(usage, key) {
                // What it wanted of this one it took of a later one, or nothing had it.
                let (open, cost) = new.left[&event];
                let expiry = new.buckets[key].window.expiry;
                let later = draws.iter().any(|(other, _)| new.buckets[other].window.expiry > expiry);
                let wanted = later || if bucket.component.by_value { cost > 0 } else { open > 0 };
                let drawn = wanted && bucket.component.allowance > 0;
                self.met("5: fast, the bucket was empty before it", drawn && fast && bucket.last < Some(event.1));
                self.met("5: late, into a bucket emptied by later usage", drawn && bucket.last > Some(event.1));
            }
        }
        let by_value = |key: &BucketKey| new.buckets[key].component.by_value;
        let (open, _) = new.left[&event];
        let paid = draws.iter().any(|(key, _)| by_value(key));
        self.met("5: drawn by quantity and by value at once", paid && draws.iter().any(|(key, _)| !by_value(key)));
        self.met("5: by value, with usage left over", paid && open > 0);
        for key in draws.iter().map(|(key, _)| key).filter(|key| !by_value(key)) {
            let Some(most) = new.assignments[&key.0].plan.most else { continue };
            let of_it: Vec<i64> = draws
                .iter()
                .filter(|(other, _)| other.0 == key.0 && !by_value(other))
                .map(|(_, amount)| *amount)
                .collect();
            self.met("5: a cap over several buckets", of_it.len() > 1);
            self.met("5: a cap that left usage over", of_it.iter().sum::<i64>() == most && open > 0);
        }
        let enough = Usage { quantity: i64::MAX, ..usage.clone() };
        let small = new.buckets.keys().any(|key| !new.qualifies(usage, key) && new.qualifies(&enough, key));
        self.met("5: too little to qualify", small);
    }

    fn note_outcomes(&mut self, step: &Step<'_>) {
        let known = step.known.0;
        for (fact, outcome) in step.facts.iter().zip(&step.outcomes) {
            let usage = matches!(fact, Fact::Usage(_));
            self.met("3: counted", *outcome == Outcome::Counted);
            self.met("3: duplicate", usage && *outcome == Outcome::Duplicate);
            self.met("3: conflict", *outcome == Outcome::DeadLetter("conflict"));
            self.met("3: passed over", *outcome == Outcome::PassedOver);
            self.met("3: a version that holds again", !usage && *outcome == Outcome::Duplicate);
            self.met("3: refused by itself", matches!(fact, Fact::Faulty(_)));
            self.met("5: usage reversed already when it came", usage && *outcome == Outcome::Applied);
            self.met("6: held", *outcome == Outcome::Held);
            self.met("6: a version after FINALIZED", *outcome == Outcome::DeadLetter("finalized"));
            match fact {
                Fact::Reversed(customer, name) => {
                    let key = (*customer, name.position());
                    self.met("5: reversal before its event", !known.usage.contains_key(&key));
                    let held = known.held.contains(&key) && *outcome == Outcome::Applied;
                    self.met("6: held, then reversed", held);
                }
                Fact::Assignment { key, assignment, .. } if *outcome == Outcome::Applied => {
                    self.met("5: assignment removed", assignment.is_none());
                    let back = known.assignments.get(key).is_some_and(|(_, known)| known.is_none());
                    self.met("5: assignment back after it was removed", back && assignment.is_some());
                }
                _ => {}
            }
        }
    }

    fn note_runs(&mut self, step: &Step<'_>) {
        let (old, new) = step.known;
        let let_in = old.held.iter().any(|key| !new.held.contains(key) && new.counts(key));
        self.met("6: let in", let_in);
        let steps = |rows: &crate::store::Rows| rows.bill_runs.values().find_map(|row| row.letting_in);
        let (before, after) = (steps(step.rows.0), steps(step.rows.1));
        self.met("6: let in in steps", let_in && before < after && after >= Some(0));
        let ahead = let_in && before.is_some() && before == after && !step.facts.is_empty();
        self.met("6: let in with other records of the customer, before its step", ahead);
        let customers = step.facts.iter().any(|fact| matches!(fact, Fact::Customer { .. }));
        self.met("6: let in by another billing cycle", let_in && customers);
        let let_in_now = || old.held.iter().filter(|key| !new.held.contains(key) && new.counts(key));
        let open =
            new.runs.values().any(|(_, run)| run.status == 0 && let_in_now().any(|key| covers(run, new, key, step)));
        self.met("6: let in, while another run that covers it is open", open);
        let counts = |key: &&EventKey| old.usage.contains_key(key) && new.counts(key);
        let closed_over = new.usage.keys().filter(counts).any(|key| {
            new.closed_for(*key, step.calendar).next().is_some() && old.closed_for(*key, step.calendar).next().is_none()
        });
        self.met("6: counted usage under a run that closed later", closed_over);
        let known = |rows: &crate::store::Rows, customer: i64| rows.customers.contains_key(&customer);
        let late = step.rows.1.customers.keys().any(|customer| {
            let cycle = new.customers.get(customer).map_or(0, |(_, (cycle, _))| *cycle);
            let closed = old.runs.values().any(|(_, run)| run.status != 0 && run.cycle == cycle);
            closed && !known(step.rows.0, *customer)
        });
        self.met("6: a closed run known before its customer", late);
        let arrears = new
            .held
            .iter()
            .filter(|key| !old.held.contains(key))
            .any(|key| new.closed_for(*key, step.calendar).any(|run| run.usage != run.period));
        self.met("6: held by a run in arrears", arrears);
        let covering = |key: &EventKey| new.closed_for(*key, step.calendar).count();
        let twice = new.held.iter().filter(|key| !old.held.contains(key)).any(|key| covering(key) > 1);
        self.met("6: held by two runs at once", twice);
        for (id, (_, run)) in &new.runs {
            let was = old.runs.get(id).map(|(_, run)| run.status);
            let has_rows = new.stored.keys().any(|key| key.0 == *id);
            self.met("6: a run closed with rows", run.status != 0 && was.is_none_or(|was| was == 0) && has_rows);
            self.met("6: a run opened again", run.status == 0 && was.is_some_and(|was| was != 0));
            self.met("6: a run finalized", run.status == 2 && was != Some(2));
        }
        self.met("6: a customer stored ahead", !step.rows.1.stored_ahead.is_empty());
        // A bucket that nests in a row of the run.
        let differs = |key: &&BucketKey| {
            let remaining = |balances: &Balances| balances.buckets.get(*key).map(|bucket| bucket.remaining);
            remaining(step.balances.0) != remaining(step.balances.1)
        };
        let changed = step.balances.0.buckets.keys().filter(differs).any(|key| {
            let window = &step.balances.0.buckets[key].window;
            old.stored.keys().any(|(run, customer, _)| {
                let (_, run) = &old.runs[run];
                let span = step.calendar.start_of(run.usage.0)..step.calendar.start_of(next(run.usage.1));
                *customer == key.0.0 && run.status != 0 && window.start < span.end && window.expiry > span.start
            })
        });
        self.met("6: rows of a closed run stayed while balances changed", changed);
    }

    fn note_behind(&mut self, step: &Step<'_>) {
        let (before, after) = step.rows;
        self.met(
            "5: a customer left behind",
            after.behind.keys().any(|customer| !before.behind.contains_key(customer)),
        );
        let moved = !step.facts.is_empty() && before.behind == after.behind;
        self.met("5: others served while a customer was behind", moved && !after.behind.is_empty());
        self.met("5: a customer caught up", before.behind.keys().any(|customer| !after.behind.contains_key(customer)));
        self.met("5: a fold left unfinished, and taken up by another owner", step.taken_up);
    }

    fn note_alerts(&mut self, step: &Step<'_>) {
        let bodies: Vec<_> = step.rows.1.alerts[step.rows.0.alerts.len()..].iter().map(|row| &row.body).collect();
        let any = |text: &str| bodies.iter().any(|body| body.contains(text));
        self.met("7: crossed", any("threshold.crossed"));
        self.met("7: recovered", any("threshold.recovered"));
        self.met("7: a percentage", any("\"threshold\":{\"remainingPercent\""));
        self.met("7: a quantity", any("\"threshold\":{\"remaining\""));
        let bucket_of = |body: &str| {
            let event: serde_json::Value = serde_json::from_str(body).expect("an alert is JSON");
            let data = &event["data"];
            ["customerId", "assignmentLevel", "assignmentId", "componentId", "startDate"]
                .map(|name| data[name].to_string())
        };
        let buckets: BTreeSet<_> = bodies.iter().map(|body| bucket_of(body)).collect();
        self.met("7: several thresholds of a bucket at once", buckets.len() < bodies.len());
        let (old, new) = step.balances;
        let configured = &step.history.thresholds;
        let list = |balances: &Balances, key| -> Vec<Threshold> { balances.thresholds(key, configured) };
        let both = new.assignments.keys().filter(|key| old.assignments.contains_key(key));
        let changed = both.filter(|key| list(old, key) != list(new, key)).count();
        self.met("7: a changed list", changed > 0);
        let recovered = any("threshold.recovered");
        let assignments = step.facts.iter().all(|fact| matches!(fact, Fact::Assignment { .. }));
        let larger = new.buckets.iter().any(|(key, now)| {
            old.buckets.get(key).is_some_and(|was| was.component.allowance < now.component.allowance)
        });
        self.met("7: recovered by a larger allowance", recovered && assignments && larger);
        let reversals = step.facts.iter().all(|fact| matches!(fact, Fact::Reversed(..)));
        self.met("7: recovered by a reversal", recovered && reversals);
        self.met("7: no cause", any("\"cause\":null"));
        let held = &step.known.0.held;
        let let_in = held.iter().any(|key| !step.known.1.held.contains(key) && step.known.1.counts(key));
        let runs = step.facts.iter().all(|fact| matches!(fact, Fact::BillRun { .. }));
        self.met("7: crossed by usage let in", runs && let_in && any("threshold.crossed"));
        for key in new.buckets.keys() {
            let Some(own) = &new.assignments[&key.0].thresholds else { continue };
            let drew = old.buckets.get(key).is_some_and(|was| was.remaining > new.buckets[key].remaining);
            let repeats = own.iter().collect::<BTreeSet<_>>().len() < own.len();
            self.met("7: a list with repeats", drew && repeats && !bodies.is_empty());
            self.met("7: an empty list", drew && own.is_empty());
            let beyond = own.iter().any(|one| matches!(one, Threshold::Percent(percent) if *percent > 100_000_000));
            self.met("7: a threshold of more than all of it, which always holds", drew && beyond);
        }
    }

    fn note_lines(&mut self, step: &Step<'_>) {
        let (old, new) = step.balances;
        for (line, was) in &old.lines {
            let told = step.known.1.inventory.contains_key(line);
            let now = new.lines.get(line);
            let moved = was.is_some() && now.is_some_and(|now| now.is_some() && now != was);
            self.met("3: a line moved by its usage", moved && !told);
            self.met("3: a line known no more", now.is_none());
        }
        for (line, now) in &new.lines {
            let told = step.known.1.inventory.contains_key(line);
            let elsewhere = |event: &EventKey| {
                let usage = &step.known.1.usage[event];
                (usage.customer, usage.upi) == *line && now.is_some_and(|now| now != (usage.site, usage.product))
            };
            let came = new.draws.keys().filter(|event| !old.draws.contains_key(event)).any(elsewhere);
            self.met("3: a line not moved by late usage", came && !told && old.lines.get(line) == Some(now));
            self.met("3: a line where inventory.changed tells", came && told);
            self.met("3: a line known by an assignment only", now.is_none());
        }
    }
}

/// Whether a run covers an event, be it closed or not.
fn covers(run: &Run, known: &Known, event: &EventKey, step: &Step<'_>) -> bool {
    let cycle = known.customers.get(&event.0).map_or(0, |(_, (cycle, _))| *cycle);
    let days = step.calendar.start_of(run.usage.0)..step.calendar.start_of(next(run.usage.1));
    run.cycle == cycle && days.contains(&event.1.0)
}
