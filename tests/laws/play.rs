//! Plays a history to the worker, batch by batch, on a store in memory, and shows every commit beside the plain fold.

use std::rc::Rc;
use std::sync::Arc;

use headroom::domain::{self, Instant, Outcome, Partitioner, Quantity, Reason};
use headroom::events::{Record, Rules};
use headroom::store::{CommitError, Store};
use headroom::worker::{Applied, Batch, Context, Input, Partition};
use proptest::test_runner::TestCaseError;

use crate::both::{Both, Place, Real};
use crate::calendar::Calendar;
use crate::facts::{Fact, Threshold};
use crate::history::{Around, History};
use crate::json::{self, PRODUCED};
use crate::model::{self, Balances, Known, fold};
use crate::runs;
use crate::store::{Memory, Mishap, Rows};

type Result<T> = std::result::Result<T, TestCaseError>;

/// A commit: what there was before and after it, by the plain fold and in the store.
pub(crate) struct Step<'a> {
    pub(crate) history: &'a History,
    pub(crate) calendar: &'a Calendar,
    /// The batch's records.
    pub(crate) facts: Vec<&'a Fact>,
    /// What must become of them, in their order.
    pub(crate) outcomes: Vec<model::Outcome>,
    pub(crate) known: (&'a Known, &'a Known),
    pub(crate) balances: (&'a Balances, &'a Balances),
    pub(crate) rows: (&'a Rows, &'a Rows),
    /// What the worker says; `None` when the answer to its commit was lost.
    pub(crate) applied: Option<Applied>,
    /// Whether the history is at its end, and all rows are stored: nothing was committed then.
    pub(crate) is_last: bool,
}

/// Somewhere to play.
struct Stage {
    context: Arc<Context>,
    memory: Arc<Memory>,
    /// The real store beside the one in memory, and what holds it.
    both: Option<(Arc<Both>, Place)>,
    rules: Rules,
    runtime: tokio::runtime::Runtime,
}

/// Plays a history, and shows `judge` each commit. Gives what the store holds in the end.
pub(crate) fn play(
    history: &History,
    real: Option<Real>,
    mut judge: impl FnMut(&Step<'_>) -> Result<()>,
) -> Result<Rows> {
    let stage = Stage::new(history, real)?;
    let calendar: Rc<Calendar> = Calendar::of(history.zone);
    let until = history.records.iter().map(|(fact, _)| start_of(fact)).max().unwrap_or_default();
    let mut partition = stage.take()?;
    let (mut known, mut balances) = (Known::default(), Balances::default());
    let mut offsets = [0; 2];
    let (mut at, mut commits, mut plan) = (0, 0, history.batches.iter().cycle());
    while at < history.records.len() {
        let (size, around) = plan.next().expect("there is a plan");
        let end = until_run(&history.records, at..history.records.len().min(at + size));
        let before = stage.memory.rows().clone();
        let applied = stage.batch(&mut partition, *around, history, at..end, &mut offsets)?;
        let after = stage.memory.rows().clone();
        let facts: Vec<&Fact> = history.records[at..end].iter().map(|(fact, _)| fact).collect();
        let mut knows = known.clone();
        let outcomes = knows.take_all(&facts, &calendar);
        let becomes = fold(&knows, &calendar, until);
        note_runs(&known, &mut knows, &facts, &becomes, &calendar);
        judge(&Step {
            history,
            calendar: &calendar,
            facts,
            outcomes,
            known: (&known, &knows),
            balances: (&balances, &becomes),
            rows: (&before, &after),
            applied,
            is_last: false,
        })?;
        (known, balances) = (knows, becomes);
        at = end;
        commits += 1;
        if commits % history.storing.1 == 0 {
            stage.store_rows(&mut partition)?;
        }
    }
    while partition.is_storing() {
        stage.store_rows(&mut partition)?;
    }
    let rows = stage.memory.rows().clone();
    let (same, facts) = (&rows, Vec::new());
    let (known, balances) = ((&known, &known), (&balances, &balances));
    let last = Step {
        history,
        calendar: &calendar,
        facts,
        outcomes: Vec::new(),
        known,
        balances,
        rows: (same, same),
        applied: None,
        is_last: true,
    };
    judge(&last)?;
    if let Some((both, _)) = &stage.both {
        stage.runtime.block_on(both.compare())?;
    }
    Ok(stage.memory.rows().clone())
}

/// A fact about a bill run has a commit of its own.
fn until_run(records: &[(Fact, json::Style)], range: std::ops::Range<usize>) -> usize {
    let is_run = |at: &usize| matches!(records[*at].0, Fact::BillRun { .. });
    match range.clone().find(is_run) {
        Some(at) if at == range.start => at + 1,
        Some(at) => at,
        None => range.end,
    }
}

/// Keeps the rows of a run that closed, and drops those of one that opened.
fn note_runs(known: &Known, knows: &mut Known, facts: &[&Fact], balances: &Balances, calendar: &Calendar) {
    let [Fact::BillRun { id, .. }] = facts else { return };
    let was_closed = known.runs.get(id).is_some_and(|(_, run)| run.status != 0);
    let (_, run) = knows.runs[id];
    if run.status == 0 {
        knows.stored.retain(|key, _| key.0 != *id);
    } else if !was_closed {
        let rows = runs::rows_of(*id, &run, knows, balances, calendar);
        knows.stored.extend(rows);
    }
}

impl Stage {
    fn store_rows(&self, partition: &mut Partition) -> Result<()> {
        self.runtime.block_on(partition.store_rows()).map_err(failed)
    }

    fn new(history: &History, real: Option<Real>) -> Result<Stage> {
        let memory = Arc::new(Memory::default());
        let mut builder = tokio::runtime::Builder::new_current_thread();
        // A store in memory never waits, and a clock that stands still makes waiting to try again cost nothing.
        let runtime = builder.enable_all().start_paused(real.is_none()).build().expect("a runtime");
        let both = match real {
            None => None,
            Some(real) => Some(runtime.block_on(Both::new(memory.clone(), real, history.zone))?),
        };
        let store: Arc<dyn Store> = match &both {
            None => memory.clone(),
            Some((both, _)) => both.clone(),
        };
        let context = context(history, store);
        let day = std::time::Duration::from_secs(86_400);
        let rules = Rules { partitioner: Partitioner::Murmur2, partitions: 1, max_future: day, retention: 400 * day };
        Ok(Stage { context: Arc::new(context), memory, both, rules, runtime })
    }

    fn take(&self) -> Result<Partition> {
        let taken = self.runtime.block_on(self.context.store.take(0)).map_err(failed)?;
        Ok(Partition::new(self.context.clone(), 0, taken))
    }

    fn apply(&self, partition: &mut Partition, batch: &mut Batch) -> std::result::Result<Applied, CommitError> {
        self.runtime.block_on(partition.apply(batch))
    }

    /// Works a batch off, whatever happens around it.
    fn batch(
        &self,
        partition: &mut Partition,
        around: Around,
        history: &History,
        records: std::ops::Range<usize>,
        offsets: &mut [i64; 2],
    ) -> Result<Option<Applied>> {
        let from = *offsets;
        let batch = || {
            let mut next = from;
            (self.read(history, records.clone(), &mut next), next)
        };
        let (mut first, next) = batch();
        *offsets = next;
        match around {
            Around::Nothing => self.apply(partition, &mut first).map(Some).map_err(failed),
            Around::Forget => {
                let applied = self.apply(partition, &mut first).map_err(failed)?;
                partition.forget_accounts();
                Ok(Some(applied))
            }
            Around::Resume => {
                let applied = self.apply(partition, &mut first).map_err(failed)?;
                let taken = self.runtime.block_on(self.context.store.take(0)).map_err(failed)?;
                if partition.resume(&taken) {
                    Ok(Some(applied))
                } else {
                    Err(TestCaseError::fail("own offsets are not known again"))
                }
            }
            Around::Restart => {
                let mut old = std::mem::replace(partition, self.take()?);
                match self.apply(&mut old, &mut first) {
                    Err(CommitError::Fenced(0)) => {}
                    other => {
                        return Err(TestCaseError::fail(format!("an owner of before wrote: {:?}", other.map(|_| ()))));
                    }
                }
                self.apply(partition, &mut batch().0).map(Some).map_err(failed)
            }
            Around::Refused => {
                // The worker tries again by itself, and nothing is written twice.
                self.memory.fail_next(Mishap::Refused);
                self.apply(partition, &mut first).map(Some).map_err(failed)
            }
            Around::AnswerLost => {
                // The batch's own answer is to be lost, not that of a step before it.
                while partition.is_storing() {
                    self.store_rows(partition)?;
                }
                self.memory.fail_next(Mishap::AnswerLost);
                match self.apply(partition, &mut first) {
                    Err(CommitError::Unknown(_)) => {}
                    other => return Err(TestCaseError::fail(format!("a lost answer gave {:?}", other.map(|_| ())))),
                }
                *partition = self.take()?;
                let told = partition.offsets();
                if [told.usage, told.assignments] == next {
                    Ok(None)
                } else {
                    Err(TestCaseError::fail("a place in the topics was lost"))
                }
            }
        }
    }

    /// Reads records into a batch.
    fn read(&self, history: &History, records: std::ops::Range<usize>, offsets: &mut [i64; 2]) -> Batch {
        let mut batch = Batch::new(0);
        let produced: jiff::Timestamp = PRODUCED.parse().expect("an instant");
        for at in records {
            let (fact, style) = &history.records[at];
            let record = json::record(fact, &format!("record-{at}"), *style);
            let input = if record.is_usage { Input::Usage } else { Input::Assignments };
            let offset = &mut offsets[input as usize];
            let raw = Record {
                partition: 0,
                timestamp: Some(produced.as_millisecond()),
                key: Some(&record.key),
                value: record.value.as_deref(),
                headers: record.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))),
            };
            batch.push(input, *offset, &raw, &self.rules);
            *offset += 1;
        }
        batch
    }
}

/// What a worker shares, for a history.
pub(crate) fn context(history: &History, store: Arc<dyn Store>) -> Context {
    Context {
        store,
        store_id: uuid::Uuid::nil(),
        calendar: domain::Calendar::new(history.zone).expect("a known zone"),
        partitions: 1,
        thresholds: history.thresholds.iter().copied().map(threshold).collect(),
        alert_source: "laws".to_owned(),
        topics: ["usage-events".to_owned(), "assignment-events".to_owned()],
        now: || Instant::from_micros(0),
        cache_bytes: history.cache_bytes,
        replay_page: history.replay_page,
        storing_customers: history.storing.0,
        health: headroom::telemetry::Health::default(),
    }
}

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(format!("the worker failed: {error}"))
}

/// A quantity of the product.
pub(crate) fn quantity(millionths: i64) -> Quantity {
    Quantity::from_millionths(millionths)
}

fn threshold(threshold: Threshold) -> domain::Threshold {
    match threshold {
        Threshold::Percent(percent) => domain::Threshold::RemainingPercent(quantity(percent)),
        Threshold::Remaining(remaining) => domain::Threshold::Remaining(quantity(remaining)),
    }
}

fn start_of(fact: &Fact) -> i64 {
    if let Fact::Usage(usage) = fact { usage.name.start } else { 0 }
}

/// The product's word for an outcome.
pub(crate) fn outcome(outcome: model::Outcome) -> Outcome {
    match outcome {
        model::Outcome::Counted => Outcome::Counted,
        model::Outcome::Held => Outcome::Held,
        model::Outcome::Duplicate => Outcome::Duplicate,
        model::Outcome::Applied => Outcome::Applied,
        model::Outcome::PassedOver => Outcome::PassedOver,
        model::Outcome::DeadLetter(_) => Outcome::DeadLetter,
    }
}

/// The product's word for a reason.
pub(crate) fn reason(outcome: &model::Outcome) -> Option<Reason> {
    let model::Outcome::DeadLetter(name) = outcome else { return None };
    Reason::ALL.into_iter().find(|reason| reason.name() == *name)
}
