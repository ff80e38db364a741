//! A page of the query's rows, read at one moment (`domain.md section 8`).
//!
//! Which lines stand for which dates is kept in a table by the worker, and rows of closed runs are stored, so that a page
//! is found, put in order and counted by indexes; windows and buckets are read for its own rows only. What is here is the
//! same for both databases, which bring a transaction and their words for a few things.

mod accounts;
mod fill;
mod question;
mod sources;
mod sql;
mod terms;
mod ways;

use std::collections::BTreeSet;

use async_trait::async_trait;

pub use question::{Answer, Filters, Found, Nested, Question, SortKey};
pub(super) use sql::Dialect;

use super::{Settled, StoreError};
use crate::domain::standing::usage_span;
use crate::domain::{BillRun, Date, Instant, Partitioner, RunStatus};
use sources::{Kind, Source, Sources};
use sql::{Statements, Way, list};

/// A row that a statement gives: numbers, and behind them a text if that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cells {
    pub(super) numbers: Vec<Option<i64>>,
    pub(super) text: Option<String>,
}

/// One moment of a database.
#[async_trait]
pub(super) trait Moment: Send {
    /// How it says what databases say in different words.
    fn dialect(&self) -> &'static Dialect;

    /// Hands over each row of a statement that gives so many numbers, and a text behind them if `text`, as it comes.
    async fn each(
        &mut self,
        statement: String,
        numbers: usize,
        text: bool,
        take: &mut (dyn FnMut(Cells) -> Result<(), StoreError> + Send),
    ) -> Result<(), StoreError>;

    /// All rows of such a statement, of one that gives few.
    async fn rows(&mut self, statement: String, numbers: usize, text: bool) -> Result<Vec<Cells>, StoreError> {
        let mut rows = Vec::new();
        let mut take = |row| {
            rows.push(row);
            Ok(())
        };
        self.each(statement, numbers, text, &mut take).await?;
        Ok(rows)
    }
}

/// Answers a question.
pub(super) async fn answer<M: Moment>(moment: &mut M, question: &Question<'_>) -> Result<Answer, StoreError> {
    let Some(settled) = settled(moment).await? else {
        return Ok(Answer { total: question.counted.then_some(0), ..Answer::default() });
    };
    if !question.calendar.is_of(&settled.time_zone) {
        let zone = settled.time_zone;
        return Err(StoreError::Failed(format!(
            "time_zone is another here; the store was made with {zone}: set it so"
        )));
    }
    let home = |customer: i64| settled.partitioner.partition_of(customer, settled.partitions);
    let by_customer: Option<Vec<(i32, i64)>> = question.filters.customers.as_ref().map(|ids| {
        // Each once, or its rows would come twice.
        let each: BTreeSet<(i32, i64)> = ids.iter().map(|id| (home(*id), *id)).collect();
        each.into_iter().collect()
    });
    let partitions: Vec<i32> = match by_customer.as_deref() {
        // That there is nothing at all is true of all partitions.
        None | Some([]) => (0..settled.partitions).collect(),
        Some(customers) => customers.iter().map(|(home, _)| *home).collect::<BTreeSet<i32>>().into_iter().collect(),
    };
    let mut answer = Answer { applied_at: applied_at(moment, &partitions).await?, ..Answer::default() };
    if question.filters.pass_nothing() || question.owners.as_ref().is_some_and(Vec::is_empty) {
        answer.total = question.counted.then_some(0);
        return Ok(answer);
    }
    let mut sources = sources(moment, question, &partitions).await?;
    let statements = Statements {
        dialect: moment.dialect(),
        filters: &question.filters,
        owners: question.owners.as_deref(),
        partitions: partitions.len(),
        ways: ways::ways(moment, question, by_customer, &partitions).await?,
    };
    drop_other_cycles(moment, &statements, &mut sources).await?;
    let groups = sources::groups(sources, &question.sort);
    fill::fill(moment, &statements, &groups, question, &mut answer).await?;
    if question.nested {
        answer.accounts = accounts::accounts(moment, question.calendar, &answer.rows).await?;
    }
    Ok(answer)
}

/// What the store was made for; nothing before a worker was there.
async fn settled<M: Moment>(moment: &mut M) -> Result<Option<Settled>, StoreError> {
    let statement = "SELECT CAST(partitions AS bigint), partitioner || ' ' || time_zone FROM deployment WHERE id = 1";
    let rows = moment.rows(statement.to_owned(), 1, true).await?;
    let Some(Cells { numbers, text: Some(names) }) = rows.into_iter().next() else { return Ok(None) };
    let (name, time_zone) = names.split_once(' ').unwrap_or((&names, ""));
    let partitioner = Partitioner::from_name(name).ok_or_else(|| {
        StoreError::Failed(format!("deployment.partitioner: \"{name}\" is not known to this version"))
    })?;
    Ok(Some(Settled { partitions: small(numbers[0])?, partitioner, time_zone: time_zone.to_owned() }))
}

/// When each of these partitions was last at the ends of its topics, and had all bill runs, which come in on any: the
/// earliest of them, if all have been.
async fn applied_at<M: Moment>(moment: &mut M, partitions: &[i32]) -> Result<Option<Instant>, StoreError> {
    let micros = moment.dialect().micros;
    let statement = format!(
        "SELECT CAST(count(CASE WHEN applied_at IS NOT NULL AND runs_at IS NOT NULL THEN 1 END) AS bigint), {}, {} \
         FROM progress WHERE partition IN ({})",
        micros("min(applied_at)"),
        micros("min(runs_at)"),
        list(partitions)
    );
    let rows = moment.rows(statement, 3, false).await?;
    let Some([Some(known), Some(applied), Some(runs)]) = rows.first().map(|row| row.numbers.as_slice()) else {
        return Ok(None);
    };
    let all = usize::try_from(*known).ok() == Some(partitions.len());
    Ok(all.then(|| Instant::from_micros(*applied.min(runs))))
}

/// Where rows of the bill runs that are asked for come from.
async fn sources<M: Moment>(
    moment: &mut M,
    question: &Question<'_>,
    partitions: &[i32],
) -> Result<Vec<Source>, StoreError> {
    let days = moment.dialect().days;
    let of_runs = match &question.filters.bill_runs {
        None => "b.status = 0".to_owned(),
        Some(ids) => format!("b.bill_run_id IN ({})", list(ids)),
    };
    let dates = ["period_start_date", "period_end_date", "usage_from_date", "usage_until_date"];
    let dates: Vec<String> =
        dates.iter().map(|name| format!("CAST({} AS bigint)", days(&format!("b.{name}")))).collect();
    let statement = format!(
        "SELECT CAST(b.partition AS bigint), b.bill_run_id, b.billing_cycle_id, CAST(b.status AS bigint), \
         b.storing_after, {} FROM bill_run b WHERE b.partition IN ({}) AND {of_runs}",
        dates.join(", "),
        list(partitions)
    );
    let mut sources = Sources::default();
    let mut any_closed = false;
    for row in moment.rows(statement, 9, false).await? {
        let status = numbered(&RunStatus::ALL, row.numbers[3], "bill_run.status")?;
        let storing = row.numbers[4];
        any_closed |= status.is_closed();
        if status.is_closed() && storing.is_none() {
            continue;
        }
        let date = |at: usize| small(row.numbers[at]).map(Date::from_days);
        let run = BillRun {
            id: whole(row.numbers[1])?,
            billing_cycle: whole(row.numbers[2])?,
            period_start: date(5)?,
            period_end: date(6)?,
            usage_from: date(7)?,
            usage_until: date(8)?,
            status,
        };
        let span = usage_span(&run, question.calendar);
        if span.0 >= span.1 {
            // Of days alone that its zone skipped: no bucket can be drawn in it.
            continue;
        }
        let kind = Kind::Live { cycle: run.billing_cycle, span, storing };
        sources.add(run.id, (run.period_start, run.period_end), kind, small(row.numbers[0])?);
    }
    if let Some(ids) = question.filters.bill_runs.as_ref().filter(|_| any_closed) {
        add_stored(moment, ids, partitions, &mut sources).await?;
    }
    Ok(sources.into_list())
}

/// Adds the stored rows of runs. All that a partition has of a run were stored with one period.
async fn add_stored<M: Moment>(
    moment: &mut M,
    runs: &[i64],
    partitions: &[i32],
    sources: &mut Sources,
) -> Result<(), StoreError> {
    let days = moment.dialect().days;
    let first = |column: &str| {
        format!(
            "(SELECT CAST({} AS bigint) FROM stored_row s WHERE s.partition = b.partition \
             AND s.bill_run_id = b.bill_run_id ORDER BY s.customer_id LIMIT 1)",
            days(column)
        )
    };
    let statement = format!(
        "SELECT CAST(b.partition AS bigint), b.bill_run_id, {}, {} FROM bill_run b \
         WHERE b.partition IN ({}) AND b.bill_run_id IN ({}) AND b.status <> 0",
        first("s.period_start_date"),
        first("s.period_end_date"),
        list(partitions),
        list(runs)
    );
    for row in moment.rows(statement, 4, false).await? {
        // Without a date there is no row.
        let (Some(_), Some(_)) = (row.numbers[2], row.numbers[3]) else { continue };
        let period = (Date::from_days(small(row.numbers[2])?), Date::from_days(small(row.numbers[3])?));
        sources.add(whole(row.numbers[1])?, period, Kind::Stored, small(row.numbers[0])?);
    }
    Ok(())
}

/// Where few rows are looked for, leaves out the live sources of cycles that none of them is in.
async fn drop_other_cycles<M: Moment>(
    moment: &mut M,
    statements: &Statements<'_>,
    sources: &mut Vec<Source>,
) -> Result<(), StoreError> {
    let nobody = |way: &Way| matches!(way, Way::Customers(customers) if customers.is_empty());
    let (live, stored) = (nobody(&statements.ways.0), nobody(&statements.ways.1));
    sources.retain(|source| if source.kind == Kind::Stored { !stored } else { !live });
    let cycle_of = |source: &Source| match source.kind {
        Kind::Live { cycle, .. } => Some(cycle),
        Kind::Stored => None,
    };
    let cycles: BTreeSet<i64> = sources.iter().filter_map(cycle_of).collect();
    let is_order = statements.ways.0 == Way::Order && statements.filters.lines.is_none();
    if cycles.len() < 2 || is_order {
        return Ok(());
    }
    let cycles: Vec<i64> = cycles.into_iter().collect();
    let mut of_rows = BTreeSet::new();
    for row in moment.rows(statements.cycles(&cycles), 1, false).await? {
        of_rows.extend(row.numbers[0]);
    }
    sources.retain(|source| cycle_of(source).is_none_or(|cycle| of_rows.contains(&cycle)));
    Ok(())
}

fn broken() -> StoreError {
    StoreError::Failed("a row of the query lacks what it must have".to_owned())
}

fn whole(number: Option<i64>) -> Result<i64, StoreError> {
    number.ok_or_else(broken)
}

fn small(number: Option<i64>) -> Result<i32, StoreError> {
    i32::try_from(whole(number)?).map_err(|_| broken())
}

/// What stands at a small number.
fn numbered<T: Copy>(all: &[T], number: Option<i64>, column: &str) -> Result<T, StoreError> {
    let number = whole(number)?;
    let known = usize::try_from(number).ok().and_then(|at| all.get(at)).copied();
    known.ok_or_else(|| StoreError::Failed(format!("{column}: {number} is not known to this version")))
}
