//! The plain fold: what balances must be, from `domain.md sections 2 to 5` alone. It collects every fact, keeps the
//! highest versions, drops what was reversed, sorts, and draws event by event through plain lists. It shares no code with
//! the product, keeps nothing from one fold to the next, and does not try to be fast.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::calendar::{Calendar, Window};
use crate::facts::{Assignment, AssignmentKey, Component, Fact, Name, Run, Threshold, Usage};
use crate::runs::StoredRows;

/// How an event stands in the order of section 5, with its customer first.
pub(crate) type EventKey = (i64, (i64, u128));

/// Everything that is known, after some records in their order of arrival.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) usage: BTreeMap<EventKey, Usage>,
    /// Every reversal, whether or not its event has come.
    pub(crate) reversals: BTreeMap<EventKey, Name>,
    pub(crate) assignments: BTreeMap<AssignmentKey, (i64, Option<Assignment>)>,
    /// By customer and line: version, then site and product.
    pub(crate) inventory: BTreeMap<(i64, i64), (i64, (i64, i64))>,
    /// By customer: version, then billing cycle and contract owner.
    pub(crate) customers: BTreeMap<i64, (i64, (i64, Option<i64>))>,
    /// By id: version and run.
    pub(crate) runs: BTreeMap<i64, (i64, Run)>,
    /// Usage that was first applied under a closed run and not let in since.
    pub(crate) held: BTreeSet<EventKey>,
    /// The rows of closed runs, as they were then.
    pub(crate) stored: StoredRows,
}

/// What became of a record (`domain.md section 9`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Counted,
    Held,
    Duplicate,
    Applied,
    PassedOver,
    /// With its reason.
    DeadLetter(&'static str),
}

/// Keeps the higher version.
fn keep<K: Ord, T: PartialEq>(known: &mut BTreeMap<K, (i64, T)>, key: K, version: i64, data: T) -> Outcome {
    match known.get(&key) {
        Some((held, _)) if *held > version => Outcome::PassedOver,
        Some((held, same)) if *held == version && *same == data => Outcome::Duplicate,
        Some((held, _)) if *held == version => Outcome::DeadLetter("conflict"),
        _ => {
            known.insert(key, (version, data));
            Outcome::Applied
        }
    }
}

impl Known {
    /// Takes the records of a commit in, and says what becomes of each. Facts about customers take effect before usage.
    /// Usage that a run held is let in, but for customers who have yet to `wait` for that.
    pub(crate) fn take_all(
        &mut self,
        facts: &[&Fact],
        calendar: &Calendar,
        waits: impl Fn(i64) -> bool,
    ) -> Vec<Outcome> {
        // What no run covered any more before these records came counts, whatever they say but that it is reversed.
        let reversed: BTreeSet<EventKey> = facts
            .iter()
            .filter_map(|fact| {
                if let Fact::Reversed(customer, name) = fact { Some((*customer, name.position())) } else { None }
            })
            .collect();
        self.let_in(calendar, |event| waits(event.0) || reversed.contains(&event));
        let mut outcomes = vec![Outcome::Applied; facts.len()];
        for usage in [false, true] {
            for (at, fact) in facts.iter().enumerate().filter(|(_, fact)| fact.is_usage() == usage) {
                outcomes[at] = self.take(fact, calendar);
            }
        }
        self.let_in(calendar, |event| waits(event.0));
        outcomes
    }

    /// Lets in the usage that no closed run covers, but for what waits.
    fn let_in(&mut self, calendar: &Calendar, waits: impl Fn(EventKey) -> bool) {
        let held: Vec<EventKey> = self.held.iter().filter(|key| !self.reversals.contains_key(key)).copied().collect();
        for key in held {
            if !self.is_closed_for(key, calendar) && !waits(key) {
                self.held.remove(&key);
            }
        }
    }

    /// Whether a closed run covers an event.
    fn is_closed_for(&self, event: EventKey, calendar: &Calendar) -> bool {
        self.closed_for(event, calendar).next().is_some()
    }

    /// The closed runs that cover an event.
    pub(crate) fn closed_for(&self, event: EventKey, calendar: &Calendar) -> impl Iterator<Item = &Run> {
        let (customer, (start, _)) = event;
        let cycle = self.customers.get(&customer).map_or(0, |(_, (cycle, _))| *cycle);
        self.runs.values().map(|(_, run)| run).filter(move |run| {
            let days = calendar.start_of(run.usage.0)..calendar.start_of(crate::calendar::next(run.usage.1));
            run.status != 0 && run.cycle == cycle && days.contains(&start)
        })
    }

    /// Whether an event counts.
    pub(crate) fn counts(&self, key: &EventKey) -> bool {
        !self.reversals.contains_key(key) && !self.held.contains(key)
    }

    /// Takes the next record in.
    fn take(&mut self, fact: &Fact, calendar: &Calendar) -> Outcome {
        match fact {
            Fact::Usage(usage) => {
                let key = (usage.customer, usage.name.position());
                match self.usage.get(&key) {
                    Some(first) if first == usage => Outcome::Duplicate,
                    Some(_) => Outcome::DeadLetter("conflict"),
                    None => {
                        self.usage.insert(key, usage.clone());
                        if self.reversals.contains_key(&key) {
                            Outcome::Applied
                        } else if self.is_closed_for(key, calendar) {
                            self.held.insert(key);
                            Outcome::Held
                        } else {
                            Outcome::Counted
                        }
                    }
                }
            }
            Fact::Reversed(customer, name) => match self.reversals.insert((*customer, name.position()), name.clone()) {
                Some(_) => Outcome::Duplicate,
                None => Outcome::Applied,
            },
            Fact::Assignment { key, version, assignment } => {
                keep(&mut self.assignments, *key, *version, assignment.clone())
            }
            Fact::Inventory { customer, version, upi, site, product } => {
                keep(&mut self.inventory, (*customer, *upi), *version, (*site, *product))
            }
            Fact::Customer { customer, version, cycle, owner } => {
                keep(&mut self.customers, *customer, *version, (*cycle, *owner))
            }
            Fact::BillRun { id, version, run } => match self.runs.get(id) {
                Some((held, known)) if known.status == 2 && version > held => Outcome::DeadLetter("finalized"),
                _ => keep(&mut self.runs, *id, *version, *run),
            },
            Fact::Faulty(fault) => Outcome::DeadLetter(fault.reason()),
        }
    }
}

/// How a bucket is known: assignment, component, start of its window as cut.
pub(crate) type BucketKey = (AssignmentKey, i64, i64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) window: Window,
    pub(crate) component: Component,
    pub(crate) remaining: i64,
    /// The last event that drew from it.
    pub(crate) last: Option<(i64, u128)>,
}

/// What the facts come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Balances {
    /// Every bucket that exists as far as usage goes, drawn or not.
    pub(crate) buckets: BTreeMap<BucketKey, Bucket>,
    /// The assignments that there are.
    pub(crate) assignments: BTreeMap<AssignmentKey, Assignment>,
    /// What each event that counts took, bucket by bucket.
    pub(crate) draws: BTreeMap<EventKey, Vec<(BucketKey, i64)>>,
    /// What was left of each event that counts: open and cost.
    pub(crate) left: HashMap<EventKey, (i64, i64)>,
    /// The lines known, by customer and line, with site and product.
    pub(crate) lines: BTreeMap<(i64, i64), Option<(i64, i64)>>,
}

/// Folds all that is known. Buckets are listed as far as `until`.
pub(crate) fn fold(known: &Known, calendar: &Calendar, until: i64) -> Balances {
    let mut balances = Balances::default();
    for (key, (_, assignment)) in &known.assignments {
        let Some(assignment) = assignment else { continue };
        balances.assignments.insert(*key, assignment.clone());
        for window in calendar.windows(assignment, until) {
            for component in &assignment.plan.components {
                let bucket =
                    Bucket { window, component: component.clone(), remaining: component.allowance, last: None };
                balances.buckets.insert((*key, component.id, window.start), bucket);
            }
        }
    }
    let counting: BTreeMap<_, _> = known.usage.iter().filter(|(key, _)| known.counts(key)).collect();
    for (key, usage) in &counting {
        balances.draw(**key, usage);
    }
    balances.lines = lines(known, &counting);
    balances
}

impl Balances {
    /// Draws one event.
    fn draw(&mut self, event: EventKey, usage: &Usage) {
        let mut fitting: Vec<BucketKey> =
            self.buckets.keys().filter(|key| self.qualifies(usage, key)).copied().collect();
        fitting.sort_by_key(|key| {
            let ((_, level, id), component, start) = *key;
            (level, self.buckets[key].window.expiry, self.assignments[&key.0].start, id, component, start)
        });
        let (mut open, mut cost) = (usage.quantity, usage.price);
        let mut taken_of: HashMap<AssignmentKey, i64> = HashMap::new();
        let mut draws = Vec::new();
        for key in fitting {
            let most = self.assignments[&key.0].plan.most.unwrap_or(i64::MAX);
            let bucket = self.buckets.get_mut(&key).expect("it was found there");
            let take = if bucket.component.by_value {
                let take = bucket.remaining.min(cost);
                if take == 0 {
                    continue;
                }
                open = share(open, cost - take, cost);
                cost -= take;
                take
            } else {
                let taken = taken_of.entry(key.0).or_default();
                let take = bucket.remaining.min(open).min(most - *taken);
                if take == 0 {
                    continue;
                }
                *taken += take;
                cost = share(cost, open - take, open);
                open -= take;
                take
            };
            bucket.remaining -= take;
            bucket.last = Some(event.1);
            draws.push((key, take));
        }
        self.draws.insert(event, draws);
        self.left.insert(event, (open, cost));
    }

    pub(crate) fn qualifies(&self, usage: &Usage, key: &BucketKey) -> bool {
        let (customer, level, _) = key.0;
        let (bucket, assignment) = (&self.buckets[key], &self.assignments[&key.0]);
        let (component, plan) = (&bucket.component, &assignment.plan);
        let covered = customer == usage.customer
            && match level {
                0 => assignment.scope == usage.upi,
                1 => assignment.scope == usage.site,
                _ => true,
            };
        covered
            && (bucket.window.start..bucket.window.expiry).contains(&usage.name.start)
            && plan.product.is_none_or(|product| product == usage.product)
            && component.unit == usage.unit
            && (component.by_value || plan.least.is_none_or(|least| usage.quantity >= least))
            && timeband_fits(component, usage)
            && destination_fits(component, usage)
    }

    /// The thresholds of an assignment as they take effect.
    pub(crate) fn thresholds(&self, key: &AssignmentKey, configured: &[Threshold]) -> Vec<Threshold> {
        let list = self.assignments[key].thresholds.as_deref().unwrap_or(configured);
        let mut seen = BTreeSet::new();
        list.iter().copied().filter(|threshold| seen.insert(*threshold)).collect()
    }
}

fn timeband_fits(component: &Component, usage: &Usage) -> bool {
    component.timebands.is_empty()
        || usage.timeband.as_ref().is_some_and(|timeband| component.timebands.contains(timeband))
}

fn destination_fits(component: &Component, usage: &Usage) -> bool {
    let Component { groups, categories, dial_strings, .. } = component;
    let destination = usage.destination.as_deref();
    let dialled = dial_strings.iter().any(|(digits, whole)| {
        destination.is_some_and(|to| if *whole { to == digits } else { to.starts_with(digits.as_str()) })
    });
    (groups.is_empty() && categories.is_empty() && dial_strings.is_empty())
        || usage.group.is_some_and(|group| groups.contains(&group))
        || usage.category.is_some_and(|category| categories.contains(&category))
        || dialled
}

/// `floor(amount * part / whole)`
fn share(amount: i64, part: i64, whole: i64) -> i64 {
    i64::try_from(i128::from(amount) * i128::from(part) / i128::from(whole)).expect("no more than the amount")
}

/// The lines known: by a fact, by usage that counts, by an assignment to them.
fn lines(known: &Known, counting: &BTreeMap<&EventKey, &Usage>) -> BTreeMap<(i64, i64), Option<(i64, i64)>> {
    let mut lines = BTreeMap::new();
    for ((customer, level, _), (_, assignment)) in &known.assignments {
        if let (0, Some(assignment)) = (level, assignment) {
            lines.insert((*customer, assignment.scope), None);
        }
    }
    for usage in counting.values() {
        lines.insert((usage.customer, usage.upi), Some((usage.site, usage.product)));
    }
    for (line, (_, site_and_product)) in &known.inventory {
        lines.insert(*line, Some(*site_and_product));
    }
    lines
}
