//! A fact about a bill run comes in on one partition; the others hear of it by the store, and late, of several versions at
//! once. Such a copy must end as if each fact that held where it came in had come in by its own topic, then and in that
//! order.

use std::collections::BTreeMap;
use std::sync::Arc;

use headroom::domain::{BillRun, Date, RunFact, RunStatus};
use headroom::store::Store as _;
use headroom::worker::{Batch, Input, Partition};
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;

use crate::facts::{Fact, Run};
use crate::history::{Around, History};
use crate::json::{self, Style};
use crate::play;
use crate::repairs::{View, now};
use crate::store::Memory;

type Result<T> = std::result::Result<T, TestCaseError>;

/// What a partition that no fact about a run comes in on is told.
struct Told {
    /// The history with the facts about runs where the partition applies them.
    history: History,
    /// For each of these records, how many facts about runs the partition has been told by then.
    heard: Vec<usize>,
    /// The facts, in the order in which they held where they came in.
    facts: Vec<RunFact>,
    /// How many of them were heard of together with a later version of the same run.
    overtaken: usize,
}

/// The same history, in which each run that closes opens for a while, two records later, and closes again two after that.
fn with_openings(history: &History) -> Vec<(Fact, Style)> {
    let mut records = Vec::new();
    let mut due: Vec<(usize, Fact)> = Vec::new();
    for (at, (fact, style)) in history.records.iter().enumerate() {
        records.push((fact.clone(), *style));
        if let Fact::BillRun { id, version, run } = fact
            && run.status == 1
        {
            for (after, by, status) in [(2, 1_000, 0), (4, 2_000, 1)] {
                due.push((at + after, Fact::BillRun { id: *id, version: version + by, run: Run { status, ..*run } }));
            }
        }
        let last = at + 1 == history.records.len();
        due.retain(|(when, fact)| {
            let is_due = last || *when <= at;
            if is_due {
                records.push((fact.clone(), Style(0)));
            }
            !is_due
        });
    }
    records
}

/// Of the facts about runs, the partition hears after every `every`th record, and last.
fn told(history: &History, every: usize) -> Told {
    let mut known: BTreeMap<i64, (i64, u8)> = BTreeMap::new();
    let mut news: Vec<(Fact, Style)> = Vec::new();
    let (mut records, mut heard, mut facts, mut overtaken) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let all = with_openings(history);
    for (at, (fact, style)) in all.iter().enumerate() {
        if let Fact::BillRun { id, version, run } = fact {
            let holds = known.get(id).is_none_or(|(held, status)| held < version && *status != 2);
            if holds {
                known.insert(*id, (*version, run.status));
                facts.push(RunFact { version: *version, run: domain(*id, run) });
                news.push((fact.clone(), *style));
            }
        } else {
            records.push((fact.clone(), *style));
            heard.push(facts.len() - news.len());
        }
        if at % every == 0 || at + 1 == all.len() {
            let runs: Vec<i64> = facts[facts.len() - news.len()..].iter().map(|fact| fact.run.id).collect();
            overtaken += runs.iter().enumerate().filter(|(at, run)| runs[at + 1..].contains(run)).count();
            heard.resize(heard.len() + news.len(), facts.len());
            records.append(&mut news);
        }
    }
    let batches = history.batches.iter().map(|(size, _)| (*size, Around::Nothing)).collect();
    Told { history: History { records, batches, takings: Vec::new(), ..history.clone() }, heard, facts, overtaken }
}

/// Plays both, and holds the copy against the partition that all came to by its topic. Gives how many facts a later version
/// overtook on their way.
pub(crate) fn check(history: &History, every: usize) -> Result<usize> {
    let told = told(history, every);
    let right = play::play(&told.history, None, |_| Ok(()))?;
    prop_assert_eq!(right.run_facts.iter().map(|row| row.fact).collect::<Vec<_>>(), told.facts.clone());
    let memory = Arc::new(Memory::default());
    let context = Arc::new(play::context(&told.history, memory.clone()));
    let mut partition = Partition::new(context.clone(), 0, now(memory.take(0)));
    let (mut read, mut offsets, mut applied) = (0, [0; 2], 0);
    let mut plan = told.history.batches.iter().cycle();
    while read < told.history.records.len() {
        let (size, _) = plan.next().expect("there is a plan");
        let end = play::until_run(&told.history.records, read..told.history.records.len().min(read + size));
        let facts = &told.facts[..told.heard[read]];
        let mut batch = if matches!(told.history.records[read].0, Fact::BillRun { .. }) {
            // All that were ever told are told again each time, and only those that are news are taken.
            let news = partition.news(facts);
            prop_assert_eq!(news.len(), facts.len() - applied);
            applied += 1;
            news.into_iter().next().expect("there is one for each record of a run")
        } else {
            prop_assert_eq!((partition.news(facts).len(), facts.len()), (0, applied));
            let mut batch = Batch::new(0);
            for (at, (fact, style)) in told.history.records.iter().enumerate().take(end).skip(read) {
                let record = json::record(fact, &format!("record-{at}"), *style);
                let input = if fact.is_usage() { Input::Usage } else { Input::Assignments };
                play::push(&mut batch, &record, (input, offsets[input as usize]), &context.rules);
                offsets[input as usize] += 1;
            }
            batch
        };
        while partition.must_catch_up(&batch) {
            now(partition.catch_up());
        }
        now(partition.apply(&mut batch));
        read = end;
        // In step with the other: what is held depends on what came before in the customer's order.
        for _ in 0..told.history.catching {
            now(partition.catch_up());
        }
    }
    while partition.can_catch_up() {
        now(partition.catch_up());
    }
    while partition.is_storing() {
        now(partition.store_rows());
    }
    let copy = memory.rows().clone();
    prop_assert_eq!(&copy.run_facts, &[]);
    prop_assert_eq!(View::of(&copy), View::of(&right));
    prop_assert_eq!(&copy.stored_rows, &right.stored_rows);
    let counts = |totals: &headroom::domain::Totals| (totals.counted, totals.held, totals.reversed, totals.quantity);
    prop_assert_eq!(counts(&copy.totals), counts(&right.totals));
    prop_assert_eq!(copy.totals.drawn, right.totals.drawn);
    Ok(told.overtaken)
}

/// The run in the product's words.
fn domain(id: i64, run: &Run) -> BillRun {
    let date = |date: jiff::civil::Date| Date::parse(&date.to_string()).expect("a date");
    BillRun {
        id,
        billing_cycle: run.cycle,
        period_start: date(run.period.0),
        period_end: date(run.period.1),
        usage_from: date(run.usage.0),
        usage_until: date(run.usage.1),
        status: RunStatus::ALL[usize::from(run.status)],
    }
}
