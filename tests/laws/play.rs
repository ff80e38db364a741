//! Plays a history to the worker, batch by batch, on a store in memory, and shows every commit beside the plain fold.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use headroom::domain::{self, Outcome, Partitioner, Quantity, Reason, UsageState};
use headroom::events::{Record, Rules};
use headroom::store::{CommitError, LedgerKey, LedgerRow, Store};
use headroom::worker::{Applied, Batch, Context, Input, Partition};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

use crate::both::{Both, Place, Real};
use crate::calendar::Calendar;
use crate::facts::{Fact, Threshold};
use crate::history::{Around, History};
use crate::json::{self, PRODUCED};
use crate::model::{self, Balances, Known, fold};
use crate::questions;
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
    /// Whether it ends a fold that another owner of the partition left unfinished.
    pub(crate) taken_up: bool,
    /// Whether the history is at its end, and all rows are stored: nothing was committed then.
    pub(crate) is_last: bool,
}

/// Somewhere to play.
struct Stage {
    context: Arc<Context>,
    memory: Arc<Memory>,
    /// The real store beside the one in memory, and what holds it.
    both: Option<(Arc<Both>, Place)>,
    /// The topic and offset of each record.
    places: Vec<(Input, i64)>,
    runtime: tokio::runtime::Runtime,
}

/// Plays a history, and shows `judge` each commit. Gives what the store holds in the end.
pub(crate) fn play(history: &History, real: Option<Real>, judge: impl FnMut(&Step<'_>) -> Result<()>) -> Result<Rows> {
    let stage = Stage::new(history, real)?;
    let until = history.records.iter().map(|(fact, _)| start_of(fact)).max().unwrap_or_default();
    let partition = stage.take()?;
    let (known, balances) = (Known::default(), Balances::default());
    let calendar = Calendar::of(history.zone);
    let mut game = Game {
        history,
        stage,
        calendar,
        until,
        partition,
        known,
        balances,
        read: 0,
        applied: Vec::new(),
        early: Vec::new(),
        steps: 0,
        left: BTreeSet::new(),
        is_over: false,
        judge,
    };
    let (mut commits, mut plan) = (0, history.batches.iter().cycle());
    while game.read < history.records.len() {
        let (size, around) = plan.next().expect("there is a plan");
        game.batch(*size, *around)?;
        for _ in 0..history.catching {
            game.catch_up()?;
        }
        commits += 1;
        if commits % 8 == 0 || game.partition.is_storing() {
            game.ask()?;
        }
        if commits % history.storing.1 == 0 {
            game.store_rows()?;
        }
    }
    while game.partition.can_catch_up() {
        game.catch_up()?;
    }
    while game.partition.is_storing() {
        game.store_rows()?;
    }
    if game.partition.is_behind() {
        return Err(TestCaseError::fail("a customer never catches up"));
    }
    game.applied.sort_unstable();
    prop_assert_eq!(&game.applied, &(0..history.records.len()).collect::<Vec<_>>(), "each record is applied once");
    game.ask()?;
    let rows = game.stage.memory.rows().clone();
    game.is_over = true;
    game.judge(&rows, &[], None)?;
    if let Some((both, _)) = &game.stage.both {
        game.stage.runtime.block_on(both.compare())?;
    }
    Ok(rows)
}

/// A history as far as it is played.
struct Game<'a, J> {
    history: &'a History,
    stage: Stage,
    calendar: Rc<Calendar>,
    until: i64,
    partition: Partition,
    known: Known,
    balances: Balances,
    /// How many records are read, whether or not they are applied.
    read: usize,
    /// Those that are applied, in their order.
    applied: Vec<usize>,
    /// New records of assignment-events that are applied though usage before them is to be read again.
    early: Vec<usize>,
    /// How often a customer behind went on without having caught up.
    steps: usize,
    /// Customers whose unfinished fold another owner left.
    left: BTreeSet<i64>,
    /// Whether all of it is played.
    is_over: bool,
    judge: J,
}

impl<J: FnMut(&Step<'_>) -> Result<()>> Game<'_, J> {
    /// Shows a commit that applied these records, and what there was before it.
    fn judge(&mut self, before: &Rows, records: &[usize], applied: Option<Applied>) -> Result<()> {
        let after = self.stage.memory.rows().clone();
        let facts: Vec<&Fact> = records.iter().map(|at| &self.history.records[*at].0).collect();
        let mut knows = self.known.clone();
        self.applied.extend(records);
        let outcomes = knows.take_all(&facts, &self.calendar, |customer| waits(customer, (before, &after), &facts));
        let becomes = fold(&knows, &self.calendar, self.until);
        let is_unfinished =
            |rows: &Rows, customer: &i64| rows.behind.get(customer).is_some_and(|behind| behind.unfinished.is_some());
        let ended = |customer: &i64| is_unfinished(before, customer) && !is_unfinished(&after, customer);
        let taken_up = self.left.iter().any(ended);
        self.left.retain(|customer| is_unfinished(&after, customer));
        note_runs(&self.known, &mut knows, &facts, &becomes, &self.calendar);
        (self.judge)(&Step {
            history: self.history,
            calendar: &self.calendar,
            facts,
            outcomes,
            known: (&self.known, &knows),
            balances: (&self.balances, &becomes),
            rows: (before, &after),
            applied,
            taken_up,
            is_last: self.is_over,
        })?;
        (self.known, self.balances) = (knows, becomes);
        Ok(())
    }

    /// Works the next records off as a batch, whatever happens around it.
    fn batch(&mut self, size: usize, around: Around) -> Result<()> {
        let records = &self.history.records;
        let end = until_run(records, self.read..records.len().min(self.read + size));
        let range: Vec<usize> = (self.read..end).collect();
        let mut batch = self.stage.read(self.history, &range);
        while self.partition.must_catch_up(&batch) {
            self.catch_up()?;
        }
        if around == Around::AnswerLost {
            // The batch's own answer is to be lost, not that of a step before it.
            while self.partition.is_storing() {
                self.store_rows()?;
            }
        }
        let before = self.stage.memory.rows().clone();
        let mut applied = None;
        let mut taken_anew = false;
        match around {
            Around::Nothing => applied = Some(self.apply(&mut batch)?),
            Around::Forget => {
                applied = Some(self.apply(&mut batch)?);
                self.partition.forget_accounts();
            }
            Around::Resume => {
                applied = Some(self.apply(&mut batch)?);
                let taken = self.stage.runtime.block_on(self.stage.context.store.take(0)).map_err(failed)?;
                taken_anew = !self.partition.resume(&taken);
                if taken_anew {
                    prop_assert!(self.partition.is_behind(), "own offsets are not known again");
                    self.partition = Partition::new(self.stage.context.clone(), 0, taken);
                }
            }
            Around::Restart => {
                let mut old = std::mem::replace(&mut self.partition, self.stage.take()?);
                match self.stage.apply(&mut old, &mut batch) {
                    Err(CommitError::Fenced(0)) => {}
                    other => {
                        return Err(TestCaseError::fail(format!("an owner of before wrote: {:?}", other.map(|_| ()))));
                    }
                }
                let is_here = self.facts_early(&range)?;
                batch = self.stage.read(self.history, &is_here);
                while self.partition.must_catch_up(&batch) {
                    self.catch_up()?;
                }
                let before = self.stage.memory.rows().clone();
                let applied = self.apply(&mut batch)?;
                self.read = end;
                self.early.clear();
                return self.judge(&before, &self.stage.applied(&batch), Some(applied));
            }
            Around::Refused => {
                // The worker tries again by itself, and nothing is written twice.
                self.stage.memory.fail_next(Mishap::Refused);
                applied = Some(self.apply(&mut batch)?);
            }
            Around::AnswerLost => {
                self.stage.memory.fail_next(Mishap::AnswerLost);
                match self.stage.apply(&mut self.partition, &mut batch) {
                    Err(CommitError::Unknown(_)) => {}
                    other => return Err(TestCaseError::fail(format!("a lost answer gave {:?}", other.map(|_| ())))),
                }
                self.partition = self.stage.take()?;
                taken_anew = true;
            }
        }
        self.read = end;
        self.judge(&before, &self.stage.applied(&batch), applied)?;
        if taken_anew { self.read_again(true) } else { Ok(()) }
    }

    fn apply(&mut self, batch: &mut Batch) -> Result<Applied> {
        self.stage.apply(&mut self.partition, batch).map_err(failed)
    }

    /// Reads what a new owner of the partition reads again. The topics come side by side: with customers behind, new facts
    /// of these records may come before usage that is read again, and something be caught up in between. Returns the
    /// records that are still to come.
    fn facts_early(&mut self, range: &[usize]) -> Result<Vec<usize>> {
        let is_fact = |at: &usize| self.stage.places[*at].0 == Input::Assignments;
        let is_run = |at: &usize| matches!(self.history.records[*at].0, Fact::BillRun { .. });
        let (early, late): (Vec<usize>, Vec<usize>) = range.iter().copied().partition(is_fact);
        let from = self.partition.offsets().assignments;
        let mut facts: Vec<usize> =
            (0..self.read).filter(is_fact).filter(|at| self.stage.places[*at].1 >= from).collect();
        facts.extend(&early);
        if !self.partition.is_behind() || early.is_empty() {
            self.read_again(true)?;
            return Ok(range.to_vec());
        }
        let epoch = self.partition.epoch();
        for records in facts.chunk_by(|a, b| !is_run(a) && !is_run(b)) {
            let mut batch = self.stage.read(self.history, records);
            while self.partition.must_catch_up(&batch) {
                self.catch_up()?;
            }
            if self.partition.epoch() != epoch {
                return Ok(range.to_vec());
            }
            let before = self.stage.memory.rows().clone();
            let applied = self.apply(&mut batch)?;
            if records.last() == facts.last() {
                self.early.clone_from(&early);
                self.judge(&before, &self.stage.applied(&batch), Some(applied))?;
            }
        }
        if self.partition.can_catch_up() {
            self.catch_up()?;
        }
        if self.partition.epoch() == epoch {
            self.read_again(false)?;
        }
        Ok(late)
    }

    /// Reads what a new owner of the partition reads again, with or without facts: nothing of it is applied at once.
    fn read_again(&mut self, with_facts: bool) -> Result<()> {
        let from = self.partition.offsets();
        let rows = self.stage.memory.rows().clone();
        self.left
            .extend(rows.behind.iter().filter(|(_, behind)| behind.unfinished.is_some()).map(|(customer, _)| customer));
        let [usage, assignments] = self.stage.offset(self.read);
        let told = [usage, assignments + self.early.len() as i64];
        if !self.partition.is_behind() {
            prop_assert_eq!([from.usage, from.assignments], told, "a place in the topics was lost");
            return Ok(());
        }
        let again = |at: &usize| {
            let (input, offset) = self.stage.places[*at];
            if input == Input::Usage { offset >= from.usage } else { with_facts && offset >= from.assignments }
        };
        let again: Vec<usize> = (0..self.read).chain(self.early.iter().copied()).filter(again).collect();
        let is_run = |at: &usize| matches!(self.history.records[*at].0, Fact::BillRun { .. });
        let chunks: Vec<Vec<usize>> = again.chunk_by(|a, b| !is_run(a) && !is_run(b)).map(<[usize]>::to_vec).collect();
        for records in chunks {
            let mut batch = self.stage.read(self.history, &records);
            let epoch = self.partition.epoch();
            while self.partition.must_catch_up(&batch) {
                self.catch_up()?;
            }
            if self.partition.epoch() != epoch {
                // Taken again meanwhile, and all was read again then.
                return Ok(());
            }
            let before = self.stage.memory.rows().clone();
            self.apply(&mut batch)?;
            prop_assert!(batch.is_empty(), "what is applied is applied again");
            prop_assert_eq!(&before, &*self.stage.memory.rows(), "reading again writes");
        }
        Ok(())
    }

    /// Lets a customer behind catch up for a while; until it has, nothing of it changes but draws in the ledger.
    fn catch_up(&mut self) -> Result<()> {
        let before = self.stage.memory.rows().clone();
        let caught_up = self.stage.runtime.block_on(self.partition.catch_up()).map_err(failed)?;
        if let Some((batch, applied)) = caught_up {
            return self.judge(&before, &self.stage.applied(&batch), Some(applied));
        }
        let without_draws = |rows: &Rows| {
            let mut rows = Rows { commits: 0, behind: Default::default(), sources: Vec::new(), ..rows.clone() };
            // A source gets its number, and rows of a closing run are stored, before the customer catches up.
            rows.stored_rows.clear();
            rows.stored_ahead.clear();
            rows.ledger.values_mut().for_each(|row| row.draws.clear());
            rows
        };
        let after = self.stage.memory.rows().clone();
        prop_assert_eq!(without_draws(&before), without_draws(&after), "a step is seen");
        self.steps += 1;
        if self.history.takings.contains(&self.steps) {
            self.partition = self.stage.take()?;
            self.read_again(true)?;
        }
        Ok(())
    }

    /// Asks the real store, if there is one, what a portal asks.
    fn ask(&self) -> Result<()> {
        let Some((both, _)) = &self.stage.both else { return Ok(()) };
        let asking = questions::check(both.as_ref(), self.history.zone, &self.known, &self.balances, &self.calendar);
        self.stage.runtime.block_on(asking)
    }

    fn store_rows(&mut self) -> Result<()> {
        self.stage.runtime.block_on(self.partition.store_rows()).map_err(failed)
    }
}

/// Whether usage of a customer that a run held is yet to be let in after a commit of these records: the steps of that have
/// not come to it. Records of its own do not wait for that, and all of it is let in at once.
fn waits(customer: i64, (before, after): (&Rows, &Rows), facts: &[&Fact]) -> bool {
    let comes = facts.iter().any(|fact| fact.customer() == Some(customer));
    let done = after.bill_runs.values().filter_map(|row| row.letting_in).min();
    let may_wait = done.is_some_and(|done| done < customer);
    let held = |(key, row): &(&LedgerKey, &LedgerRow)| key.customer == customer && row.state == UsageState::Held;
    let is_let_in = || before.ledger.iter().filter(held).any(|(key, _)| after.ledger[key].state == UsageState::Counted);
    may_wait && !comes && !is_let_in()
}

/// A fact about a bill run has a commit of its own.
pub(crate) fn until_run(records: &[(Fact, json::Style)], range: std::ops::Range<usize>) -> usize {
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
        let mut next = [0; 2];
        let places = history.records.iter().map(|(fact, _)| {
            let input = if fact.is_usage() { Input::Usage } else { Input::Assignments };
            let offset = &mut next[input as usize];
            *offset += 1;
            (input, *offset - 1)
        });
        Ok(Stage { context: Arc::new(context), memory, both, places: places.collect(), runtime })
    }

    fn take(&self) -> Result<Partition> {
        let taken = self.runtime.block_on(self.context.store.take(0)).map_err(failed)?;
        Ok(Partition::new(self.context.clone(), 0, taken))
    }

    fn apply(&self, partition: &mut Partition, batch: &mut Batch) -> std::result::Result<Applied, CommitError> {
        self.runtime.block_on(partition.apply(batch))
    }

    /// The next offsets after the first so many records.
    fn offset(&self, records: usize) -> [i64; 2] {
        let next = |input| self.places[..records].iter().filter(|place| place.0 == input).count() as i64;
        [next(Input::Usage), next(Input::Assignments)]
    }

    /// The records that a batch holds.
    fn applied(&self, batch: &Batch) -> Vec<usize> {
        let place = |(input, offset, _)| self.places.iter().position(|place| *place == (input, offset));
        batch.records().into_iter().map(|record| place(record).expect("a record of the history")).collect()
    }

    /// Reads records into a batch.
    fn read(&self, history: &History, records: &[usize]) -> Batch {
        let mut batch = Batch::new(0);
        for at in records {
            let (fact, style) = &history.records[*at];
            let record = json::record(fact, &format!("record-{at}"), *style);
            push(&mut batch, &record, self.places[*at], &self.context.rules);
        }
        batch
    }
}

/// Takes a record in from its topic and offset.
pub(crate) fn push(batch: &mut Batch, record: &json::Record, (input, offset): (Input, i64), rules: &Rules) {
    let produced: jiff::Timestamp = PRODUCED.parse().expect("an instant");
    let raw = Record {
        partition: 0,
        timestamp: Some(produced.as_millisecond()),
        key: Some(&record.key),
        value: record.value.as_deref(),
        headers: record.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))),
    };
    batch.push(input, offset, &raw, rules);
}

/// What a worker shares, for a history.
pub(crate) fn context(history: &History, store: Arc<dyn Store>) -> Context {
    let day = Duration::from_secs(86_400);
    Context {
        store,
        store_id: uuid::Uuid::nil(),
        calendar: domain::Calendar::new(history.zone).expect("a known zone"),
        partitions: 1,
        thresholds: history.thresholds.iter().copied().map(threshold).collect(),
        alert_source: "laws".to_owned(),
        topics: ["usage-events".to_owned(), "assignment-events".to_owned()],
        // Late enough that no usage is of times to come: 9999-12-31.
        now: history.now,
        cache_bytes: history.cache_bytes,
        accounts_bytes: usize::MAX,
        look_back: Duration::from_secs(history.look_back),
        replay_page: history.replay_page,
        replay_pause: if history.patient { Duration::from_secs(3_600) } else { Duration::ZERO },
        behind_bytes: history.behind_bytes,
        storing_customers: history.storing.0,
        let_in: history.storing.0,
        rules: Rules { partitioner: Partitioner::Murmur2, partitions: 1, max_future: day, retention: 400 * day },
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
