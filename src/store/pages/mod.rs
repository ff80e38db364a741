//! A page of the query's rows, read at one moment (`domain.md section 8`).
//!
//! Which lines stand for which dates is kept in a table by the worker, and rows of closed runs are stored, so that a page
//! is found, put in order and counted by indexes; windows and buckets are read for its own rows only. What is here is the
//! same for both databases, which bring a transaction and their words for a few things.

mod question;
mod sources;
mod sql;
mod terms;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

pub use question::{Answer, Filters, Found, Nested, Question, SortKey};
pub(super) use sql::Dialect;

use super::{Partitioned, Settled, StoreError};
use crate::domain::standing::usage_span;
use crate::domain::{
    AccountImage, Assignment, AssignmentKey, AssignmentRow, BillRun, BucketRow, Calendar, ChargingType, Date, Instant,
    Level, Partitioner, Quantity, RunStatus,
};
use sources::{Group, Kind, Source, Sources};
use sql::{Statements, Way, list, tuples};

/// The most customers that are named to find rows by.
const FEW: usize = 1_000;
/// The most customers by which rows are found rather than by their order, each counted for every plan that it had of those
/// asked for.
const MOST: i64 = 10_000;
/// The most rows that are read to learn which plans have a component.
const MOST_NAMED: usize = 10 * FEW;

/// The most groups that are looked into at once for the rows of a page.
const LONGEST_STRETCH: usize = 64;

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
        ways: ways(moment, question, by_customer, &partitions).await?,
    };
    drop_other_cycles(moment, &statements, &mut sources).await?;
    let groups = sources::groups(sources, &question.sort);
    fill(moment, &statements, &groups, question, &mut answer).await?;
    if question.nested {
        answer.accounts = accounts(moment, question.calendar, &answer.rows).await?;
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

/// By what live rows and stored ones are found.
async fn ways<M: Moment>(
    moment: &mut M,
    question: &Question<'_>,
    by_customer: Option<Vec<(i32, i64)>>,
    partitions: &[i32],
) -> Result<(Way, Way), StoreError> {
    let filters = &question.filters;
    if let Some(customers) = by_customer {
        return Ok((Way::Customers(customers.clone()), Way::Customers(customers)));
    }
    let rest = || if filters.sites.is_some() { Way::Sites } else { Way::Order };
    // An assignment's row stays where it is once it was ever heard of.
    if let Some(ids) = &filters.assignments
        && let Some(few) = few(moment, &format!("assignment WHERE assignment_id IN ({})", list(ids))).await?
    {
        return Ok((Way::Customers(few.clone()), Way::Customers(few)));
    }
    if filters.lines.is_some() || filters.sites.is_some() {
        return Ok((rest(), rest()));
    }
    // Who ever had a plan, or one with a component: rows of a closed run are as they were when it closed.
    let mut plans = filters.plans.clone();
    if let Some(ids) = filters.components.as_ref().filter(|_| plans.is_none()) {
        plans = plans_with(moment, ids, partitions).await?;
    }
    if plans.as_ref().is_some_and(Vec::is_empty) {
        return Ok((Way::Customers(Vec::new()), Way::Customers(Vec::new())));
    }
    if let Some(ids) = plans {
        let (partitions, plans) = (list(partitions), list(ids));
        let having =
            format!("plan_customer WHERE partition IN ({partitions}) AND inclusive_usage_plan_id IN ({plans})");
        if let Some(few) = few(moment, &having).await? {
            return Ok((Way::Customers(few.clone()), Way::Customers(few)));
        }
        let count = format!("SELECT CAST(count(*) AS bigint) FROM (SELECT 1 FROM {having} LIMIT {}) k", MOST + 1);
        let rows = moment.rows(count, 1, false).await?;
        let count = whole(rows.first().and_then(|row| row.numbers[0]))?;
        if count <= MOST {
            let named = format!("SELECT DISTINCT partition, customer_id FROM {having}");
            let many = Way::ManyCustomers { named, count };
            return Ok((many.clone(), many));
        }
    }
    // Owners of stored rows are those of when they were stored.
    if let Some(ids) = &question.owners
        && let Some(few) = few(moment, &format!("customer WHERE contract_owner_id IN ({})", list(ids))).await?
    {
        return Ok((Way::Customers(few), rest()));
    }
    Ok((rest(), rest()))
}

/// The plans that ever had one of these components, if those are few.
async fn plans_with<M: Moment>(
    moment: &mut M,
    components: &[i64],
    partitions: &[i32],
) -> Result<Option<Vec<i64>>, StoreError> {
    let statement = format!(
        "SELECT inclusive_usage_plan_id FROM component_plan WHERE partition IN ({}) AND component_id IN ({}) LIMIT {}",
        list(partitions),
        list(components),
        MOST_NAMED + 1
    );
    let rows = moment.rows(statement, 1, false).await?;
    let is_whole = rows.len() <= MOST_NAMED;
    // Each partition names its own.
    let plans = rows.into_iter().map(|row| whole(row.numbers[0])).collect::<Result<BTreeSet<i64>, _>>()?;
    Ok((is_whole && plans.len() <= FEW).then(|| plans.into_iter().collect()))
}

/// The customers of some rows, if those are few.
async fn few<M: Moment>(moment: &mut M, rows: &str) -> Result<Option<Vec<(i32, i64)>>, StoreError> {
    let statement = format!("SELECT CAST(partition AS bigint), customer_id FROM {rows} LIMIT {}", FEW + 1);
    let rows = moment.rows(statement, 2, false).await?;
    if rows.len() > FEW {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    for row in rows {
        found.insert((small(row.numbers[0])?, whole(row.numbers[1])?));
    }
    Ok(Some(found.into_iter().collect()))
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

/// Reads the rows of the page, and counts what must be counted: groups by the stretch, since where they are nearly empty each
/// of a thousand would take two statements.
async fn fill<M: Moment>(
    moment: &mut M,
    statements: &Statements<'_>,
    groups: &[Group],
    question: &Question<'_>,
    answer: &mut Answer,
) -> Result<(), StoreError> {
    let (first, mut skip) = if question.counted {
        let counts = counted(moment, statements, groups, None).await?;
        answer.total = Some(counts.iter().sum());
        begin(&counts, question.skip)
    } else {
        first_group(moment, statements, groups, question.skip).await?
    };
    // One more than asked for, to tell whether there is a further one.
    let mut open = question.limit + 1;
    for stretch in stretches(groups.get(first..).unwrap_or_default()) {
        if open == 0 {
            break;
        }
        let mut rows = Vec::new();
        if let Some(first) = statements.of_first(stretch, skip + open) {
            rows = moment.rows(first.page(stretch, skip, open), 6, true).await?;
        }
        // Fewer than asked for may be all that there are, or all among the first.
        if i64::try_from(rows.len()) != Ok(open) {
            rows = moment.rows(statements.page(stretch, skip, open), 6, true).await?;
        }
        let sources: Vec<&Source> = sources::places(stretch).map(|place| place.source).collect();
        for row in rows {
            answer.rows.push(found(&sources, row)?);
            open -= 1;
        }
        skip = 0;
    }
    answer.further = open == 0;
    if answer.further {
        answer.rows.pop();
    }
    Ok(())
}

/// One group, then two, then four, and so on: where groups are full the first has the page already. Never more than some, so
/// that full ones behind many empty ones are not all looked into for the rows of one page.
fn stretches(groups: &[Group]) -> impl Iterator<Item = &[Group]> {
    let (mut rest, mut length) = (groups, 1);
    std::iter::from_fn(move || {
        let (stretch, behind) = rest.split_at(length.min(rest.len()));
        (rest, length) = (behind, LONGEST_STRETCH.min(2 * length));
        (!stretch.is_empty()).then_some(stretch)
    })
}

/// In which group a page begins, and behind how many of its rows.
async fn first_group<M: Moment>(
    moment: &mut M,
    statements: &Statements<'_>,
    groups: &[Group],
    skip: i64,
) -> Result<(usize, i64), StoreError> {
    let mut counts = Vec::new();
    // Behind the last one is nothing, however many rows it has.
    for stretch in stretches(&groups[..groups.len().saturating_sub(1)]) {
        let left = skip - counts.iter().sum::<i64>();
        if left <= 0 {
            break;
        }
        // That there are more than are left to skip says that the page begins there.
        counts.extend(counted(moment, statements, stretch, Some(left)).await?);
    }
    Ok(begin(&counts, skip))
}

/// In which of these groups, or behind them, a page begins, and behind how many of its rows.
fn begin(counts: &[i64], skip: i64) -> (usize, i64) {
    let mut skip = skip;
    for (at, count) in counts.iter().enumerate() {
        if skip < *count {
            return (at, skip);
        }
        skip -= count;
    }
    (counts.len(), skip)
}

/// How many rows each of these groups has; where it has more than `most`, some number that is more, too.
async fn counted<M: Moment>(
    moment: &mut M,
    statements: &Statements<'_>,
    groups: &[Group],
    most: Option<i64>,
) -> Result<Vec<i64>, StoreError> {
    let mut counts = vec![0; groups.len()];
    if groups.is_empty() {
        return Ok(counts);
    }
    for row in moment.rows(statements.count(groups, most), 2, false).await? {
        let at = usize::try_from(whole(row.numbers[0])?).ok();
        *at.and_then(|at| counts.get_mut(at)).ok_or_else(broken)? = whole(row.numbers[1])?;
    }
    Ok(counts)
}

fn found(sources: &[&Source], row: Cells) -> Result<Found, StoreError> {
    let at = usize::try_from(whole(row.numbers[0])?).ok();
    let source = *at.and_then(|at| sources.get(at)).ok_or_else(broken)?;
    let nested = match source.kind {
        Kind::Live { span, .. } => Nested::Live { span, site: row.numbers[4], product: row.numbers[5] },
        Kind::Stored => Nested::Stored(row.text.ok_or_else(broken)?),
    };
    Ok(Found {
        partition: small(row.numbers[1])?,
        bill_run: source.bill_run,
        period: source.period,
        customer: whole(row.numbers[2])?,
        upi: whole(row.numbers[3])?,
        nested,
    })
}

/// Instants, half-open.
type Span = (Instant, Instant);

/// What covers the live rows: assignments to their lines, sites and customers, and the buckets of those that may be drawn
/// from in the usage dates of the customer's runs.
async fn accounts<M: Moment>(
    moment: &mut M,
    calendar: &Calendar,
    rows: &[Found],
) -> Result<Vec<Partitioned<AccountImage>>, StoreError> {
    let mut images: BTreeMap<(i32, i64), (AccountImage, BTreeSet<Span>)> = BTreeMap::new();
    let mut covering = BTreeSet::new();
    for row in rows {
        if let Nested::Live { span, site, .. } = row.nested {
            let image = || (AccountImage { customer: row.customer, ..AccountImage::default() }, BTreeSet::new());
            images.entry((row.partition, row.customer)).or_insert_with(image).1.insert(span);
            let mut cover = |level: Level, scope: i64| {
                covering.insert(list([i64::from(row.partition), row.customer, i64::from(level.number()), scope]));
            };
            cover(Level::Customer, 0);
            cover(Level::Inventory, row.upi);
            site.into_iter().for_each(|site| cover(Level::Site, site));
        }
    }
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let statement = format!(
        "SELECT CAST(a.partition AS bigint), a.customer_id, CAST(a.level AS bigint), a.assignment_id, a.version, a.fact \
         FROM (VALUES {}) c JOIN assignment a ON a.partition = c.column1 AND a.customer_id = c.column2 \
         AND a.level = c.column3 AND a.scope = c.column4 WHERE a.fact IS NOT NULL",
        tuples(&covering)
    );
    let mut asked = Vec::new();
    let mut take = |row: Cells| {
        let of = (small(row.numbers[0])?, whole(row.numbers[1])?);
        let Some((image, spans)) = images.get_mut(&of) else { return Ok(()) };
        let key = AssignmentKey {
            level: numbered(&Level::ALL, row.numbers[2], "assignment.level")?,
            id: whole(row.numbers[3])?,
        };
        let fact = row.text.ok_or_else(broken)?;
        let assignment: Assignment =
            serde_json::from_str(&fact).map_err(|error| StoreError::Failed(format!("assignment.fact: {error}")))?;
        for (from, until) in drawable_in(&assignment, calendar, spans) {
            let (partition, level) = (i64::from(of.0), i64::from(key.level.number()));
            asked.push(list([partition, of.1, level, key.id, from.micros(), until.micros()]));
        }
        image.assignments.push(AssignmentRow { key, version: whole(row.numbers[4])?, assignment: Some(assignment) });
        Ok(())
    };
    moment.each(statement, 5, true, &mut take).await?;
    if asked.is_empty() {
        return Ok(into_list(images));
    }
    let Dialect { micros, instant, .. } = moment.dialect();
    let statement = format!(
        "SELECT CAST(b.partition AS bigint), b.customer_id, CAST(b.slot AS bigint), CAST(b.level AS bigint), \
         b.assignment_id, b.component_id, {}, CAST(b.charging_type AS bigint), CAST(CAST(b.by_value AS int) AS bigint), \
         b.allowance, b.remaining FROM (VALUES {}) c JOIN bucket b ON b.partition = c.column1 \
         AND b.customer_id = c.column2 AND b.level = c.column3 AND b.assignment_id = c.column4 \
         AND b.window_start >= {} AND b.window_start < {}",
        micros("b.window_start"),
        tuples(&asked),
        instant("c.column5"),
        instant("c.column6")
    );
    let mut take = |row: Cells| {
        let of = (small(row.numbers[0])?, whole(row.numbers[1])?);
        let Some((image, _)) = images.get_mut(&of) else { return Ok(()) };
        image.buckets.push(BucketRow {
            slot: small(row.numbers[2])?,
            assignment: AssignmentKey {
                level: numbered(&Level::ALL, row.numbers[3], "bucket.level")?,
                id: whole(row.numbers[4])?,
            },
            component: whole(row.numbers[5])?,
            window_start: Instant::from_micros(whole(row.numbers[6])?),
            charging_type: numbered(&ChargingType::ALL, row.numbers[7], "bucket.charging_type")?,
            by_value: row.numbers[8] == Some(1),
            allowance: Quantity::from_millionths(whole(row.numbers[9])?),
            remaining: Quantity::from_millionths(whole(row.numbers[10])?),
            mark: None,
        });
        Ok(())
    };
    moment.each(statement, 11, false, &mut take).await?;
    Ok(into_list(images))
}

/// In which spans the windows of an assignment begin that may be drawn from in these, which are in order; none twice, or
/// its bucket would come twice.
fn drawable_in(assignment: &Assignment, calendar: &Calendar, spans: &BTreeSet<Span>) -> Vec<Span> {
    let Some((first, last)) = assignment.drawable(calendar) else { return Vec::new() };
    let mut begin: Vec<Span> = spans
        .iter()
        .filter(|(from, until)| *from < last && first < *until)
        .map(|(from, until)| {
            let open = assignment.windows_open_at(calendar, *from).map(|window| window.start);
            (open.fold(*from, Instant::min), *until)
        })
        .collect();
    begin.sort_unstable();
    begin.dedup_by(|next, last| {
        let touches = next.0 <= last.1;
        if touches {
            last.1 = last.1.max(next.1);
        }
        touches
    });
    begin
}

fn into_list(images: BTreeMap<(i32, i64), (AccountImage, BTreeSet<Span>)>) -> Vec<Partitioned<AccountImage>> {
    images.into_iter().map(|((partition, _), (value, _))| Partitioned { partition, value }).collect()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Component, Frequency, Plan};

    fn assignment(frequency: Frequency, rollover_periods: u16, start: i32, days: Option<i32>) -> Assignment {
        let component = Component {
            id: 1,
            by_value: false,
            charging_type: ChargingType::Megabytes,
            allowance: Quantity::ZERO,
            timebands: Vec::new(),
            charge_groups: Vec::new(),
            charge_group_categories: Vec::new(),
            dial_strings: Vec::new(),
        };
        let plan = Plan {
            id: 1,
            product: None,
            frequency,
            rollover_periods,
            min_qualifying_quantity: None,
            max_per_event_quantity: None,
            components: vec![component],
        };
        let (start_date, end_date) = (Date::from_days(start), days.map(|days| Date::from_days(start + days)));
        Assignment { id: 1, level: Level::Customer, scope: 0, start_date, end_date, plan, thresholds: None }
    }

    proptest! {
        #[test]
        fn the_buckets_of_all_spans_are_asked_for_once(
            frequency in prop_oneof![Just(Frequency::Daily), Just(Frequency::Weekly(1)), Just(Frequency::Monthly(1))],
            rollover in 0u16..4,
            start in 19_900..20_300,
            days in prop::option::of(0..400),
            spans in prop::collection::btree_set((20_000..20_200, 1..60), 1..6),
        ) {
            let calendar = Calendar::new("Europe/Amsterdam").expect("a zone");
            let assignment = assignment(frequency, rollover, start, days);
            let day = |day: i32| calendar.start_of(Date::from_days(day));
            let spans: BTreeSet<Span> = spans.into_iter().map(|(from, length)| (day(from), day(from + length))).collect();
            let asked = drawable_in(&assignment, &calendar, &spans);
            prop_assert!(asked.windows(2).all(|pair| pair[0].1 < pair[1].0), "apart and in order: {asked:?}");
            for (from, until) in &spans {
                for window in assignment.windows_between(&calendar, *from, *until) {
                    let times = asked.iter().filter(|span| span.0 <= window.start && window.start < span.1).count();
                    prop_assert_eq!(times, 1, "{:?} of {:?}", window, asked);
                }
            }
        }
    }

    #[test]
    fn stretches_are_all_groups_in_their_order() {
        for count in [0, 1, 2, 3, 4, 7, 8, 127, 128, 1_000] {
            let groups: Vec<Group> = (0..count).map(|_| Group { sources: Vec::new(), turned: false }).collect();
            let lengths: Vec<usize> = stretches(&groups).map(<[Group]>::len).collect();
            assert_eq!(lengths.iter().sum::<usize>(), count);
            assert!(lengths.first().is_none_or(|length| *length == 1) && lengths.iter().all(|length| *length <= 64));
        }
    }
}
