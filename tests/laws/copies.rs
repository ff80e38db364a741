//! A bill run comes in on one partition, its home; the others copy it, and may hear of it late, of several versions the last
//! one only. A copy must end as if each fact that it applies had come in by its own topic; and where the run was open for a
//! while between two of them, as if that had.

use std::collections::BTreeMap;
use std::sync::Arc;

use headroom::domain::{BillRun, BillRunRow, BillRuns, Date, RunFact, RunStatus};
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

/// What a partition that is not home to any run is told.
struct Told {
    /// The history with each fact about a run where the partition applies it, an opening that it missed included.
    history: History,
    /// For each record what the home partition holds, where the partition is told that; it is told of no opening it missed.
    rows: Vec<Option<BillRunRow>>,
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
fn told(history: &History, every: usize) -> (Told, usize) {
    let mut home = BillRuns::default();
    // By run: what it was told last, and whether the run was open since.
    let mut heard: BTreeMap<i64, (i64, Run, bool)> = BTreeMap::new();
    let mut news: BTreeMap<i64, (i64, Run)> = BTreeMap::new();
    let mut known: BTreeMap<i64, (i64, Run)> = BTreeMap::new();
    let (mut records, mut rows, mut missed) = (Vec::new(), Vec::new(), 0);
    let all = with_openings(history);
    for (at, (fact, style)) in all.iter().enumerate() {
        if let Fact::BillRun { id, version, run } = fact {
            let applies = known.get(id).is_none_or(|(held, run)| held < version && run.status != 2);
            if applies {
                known.insert(*id, (*version, *run));
                news.insert(*id, (*version, *run));
                home.take(&RunFact { version: *version, run: domain(*id, run), closings: None });
                if let Some((_, _, was_open)) = heard.get_mut(id) {
                    *was_open |= run.status == 0;
                }
            }
        } else {
            records.push((fact.clone(), *style));
            rows.push(None);
        }
        if at % every != 0 && at + 1 < all.len() {
            continue;
        }
        for (id, (version, run)) in std::mem::take(&mut news) {
            if let Some((_, before, true)) = heard.get(&id)
                && before.status != 0
                && run.status != 0
            {
                missed += 1;
                let run = Run { status: 0, ..*before };
                records.push((Fact::BillRun { id, version: version - 1, run }, Style(0)));
                rows.push(None);
            }
            records.push((Fact::BillRun { id, version, run }, Style(0)));
            rows.push(home.get(id).copied());
            heard.insert(id, (version, run, false));
        }
    }
    let batches = history.batches.iter().map(|(size, _)| (*size, Around::Nothing)).collect();
    (Told { history: History { records, batches, takings: Vec::new(), ..history.clone() }, rows }, missed)
}

/// Plays both, and holds the copy against the partition that all came to by its topic. Gives how many openings were missed.
pub(crate) fn check(history: &History, every: usize) -> Result<usize> {
    let (told, missed) = told(history, every);
    let right = play::play(&told.history, None, |_| Ok(()))?;
    let memory = Arc::new(Memory::default());
    let context = Arc::new(play::context(&told.history, memory.clone()));
    let mut partition = Partition::new(context.clone(), 0, now(memory.take(0)));
    let (mut read, mut offsets) = (0, [0; 2]);
    let mut plan = told.history.batches.iter().cycle();
    while read < told.history.records.len() {
        let (size, _) = plan.next().expect("there is a plan");
        let end = play::until_run(&told.history.records, read..told.history.records.len().min(read + size));
        let mut batches = Vec::new();
        if matches!(told.history.records[read].0, Fact::BillRun { .. }) {
            batches = partition.news(told.rows[read].as_slice());
        } else {
            let mut batch = Batch::new(0);
            for (at, (fact, style)) in told.history.records.iter().enumerate().take(end).skip(read) {
                let record = json::record(fact, &format!("record-{at}"), *style);
                let input = if fact.is_usage() { Input::Usage } else { Input::Assignments };
                play::push(&mut batch, &record, (input, offsets[input as usize]), &context.rules);
                offsets[input as usize] += 1;
            }
            batches.push(batch);
        }
        for mut batch in batches {
            while partition.must_catch_up(&batch) {
                now(partition.catch_up());
            }
            now(partition.apply(&mut batch));
        }
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
    prop_assert_eq!(View::of(&copy), View::of(&right));
    prop_assert_eq!(&copy.stored_rows, &right.stored_rows);
    let counts = |totals: &headroom::domain::Totals| (totals.counted, totals.held, totals.reversed, totals.quantity);
    prop_assert_eq!(counts(&copy.totals), counts(&right.totals));
    prop_assert_eq!(copy.totals.drawn, right.totals.drawn);
    Ok(missed)
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
