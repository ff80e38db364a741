//! What a worker reads but for accounts: its partition when it takes it, and usage of the ledger. One query for each table,
//! whatever the number of customers or events.

use std::io;

use sqlx::postgres::{PgExecutor, PgPool, PgRow};
use sqlx::{Error, Row};
use uuid::Uuid;

use super::progress::progress_of;
use super::types::{Timestamp, position, uuid_of};
use super::{behind, holder};
use crate::domain::{BillRun, BillRunRow, Date, Position, RunFact, RunStatus, Totals, UsageState};
use crate::store::{LedgerKey, LedgerRow, OfCustomer, Partitioned, Progress, RunFactRow, StoredAhead, Taken};

/// Raises the epoch of a partition pair, and reads what its new owner must know.
pub(super) async fn take(pool: &PgPool, partition: i32) -> Result<Taken, Error> {
    match try_take(pool, partition, "1s").await {
        Err(Error::Database(fault)) if fault.code().as_deref() == Some(LOCK_TIMEOUT) => {
            let holder = holder::end(pool, partition).await?;
            try_take(pool, partition, "5s").await.map_err(|error| match (holder, &error) {
                (Some(holder), Error::Database(fault)) if fault.code().as_deref() == Some(LOCK_TIMEOUT) => {
                    Error::Io(io::Error::other(format!("{holder} holds its row in progress; end that session")))
                }
                _ => error,
            })
        }
        taken => taken,
    }
}

/// The code of a statement that waited for a lock for too long.
const LOCK_TIMEOUT: &str = "55P03";

/// The same, for so long as whoever holds the row is waited for.
async fn try_take(pool: &PgPool, partition: i32, patience: &str) -> Result<Taken, Error> {
    let mut transaction = pool.begin_with(format!("BEGIN; SET LOCAL lock_timeout = '{patience}'")).await?;
    let raise = format!("UPDATE progress SET epoch = epoch + 1 WHERE partition = $1 RETURNING *, {SUMS}");
    let progress = sqlx::query(&raise)
        .bind(partition)
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| Error::Protocol(format!("progress has no row of partition {partition}")))?;
    let runs = sqlx::query(
        "SELECT bill_run_id, version, billing_cycle_id, status, storing_after, letting_in_after, \
         period_start_date - date '1970-01-01' period_start, period_end_date - date '1970-01-01' period_end, \
         usage_from_date - date '1970-01-01' usage_from, usage_until_date - date '1970-01-01' usage_until \
         FROM bill_run WHERE partition = $1",
    )
    .bind(partition)
    .fetch_all(&mut *transaction)
    .await?;
    let ahead = sqlx::query("SELECT bill_run_id, customer_id FROM stored_ahead WHERE partition = $1")
        .bind(partition)
        .fetch_all(&mut *transaction)
        .await?;
    let sources = sqlx::query("SELECT source FROM source WHERE partition = $1 ORDER BY number")
        .bind(partition)
        .fetch_all(&mut *transaction)
        .await?;
    let behind = behind::read(&mut transaction, partition).await?;
    transaction.commit().await?;
    let Progress { epoch, offsets, gaps, outbox_number, commits, .. } = progress_of(&progress)?;
    let source = |row: &PgRow| Ok::<_, Error>(String::from_utf8_lossy(row.try_get::<&[u8], _>("source")?).into_owned());
    Ok(Taken {
        epoch,
        offsets,
        gaps,
        outbox_number,
        commits,
        totals: totals_of(&progress)?,
        bill_runs: runs.iter().map(bill_run).collect::<Result<_, _>>()?,
        stored_ahead: ahead.iter().map(stored_ahead).collect::<Result<_, _>>()?,
        behind,
        sources: sources.iter().map(source).collect::<Result<_, _>>()?,
    })
}

/// Control totals over all partitions.
pub(super) async fn all_totals(pool: &PgPool) -> Result<Totals, Error> {
    let rows = sqlx::query(&format!("SELECT *, {SUMS} FROM progress")).fetch_all(pool).await?;
    let mut sum = Totals::default();
    for row in &rows {
        sum += totals_of(row)?;
    }
    Ok(sum)
}

/// The sums of control totals, as [`totals_of`] reads them beside the row: texts, since they pass 64 bits.
pub(super) const SUMS: &str =
    "quantity::text[] quantity_texts, drawn::text[] drawn_texts, drawn_by_value::text[] drawn_by_value_texts";

/// The control totals of a row of `progress` that has [`SUMS`] beside it.
pub(super) fn totals_of(row: &PgRow) -> Result<Totals, Error> {
    let sums = |column: &str| -> Result<[i128; 3], Error> {
        let texts: Vec<String> = row.try_get(column)?;
        let sums: Vec<i128> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        sums.try_into().map_err(|_| Error::Protocol(format!("progress.{column}: {texts:?}")))
    };
    Ok(Totals {
        counted: row.try_get("counted")?,
        held: row.try_get("held")?,
        reversed: row.try_get("reversed")?,
        crossed: row.try_get("crossed")?,
        recovered: row.try_get("recovered")?,
        quantity: sums("quantity_texts")?,
        drawn: sums("drawn_texts")?,
        drawn_by_value: sums("drawn_by_value_texts")?,
    })
}

/// The facts about bill runs that are not seen yet. They are read each second, and there are ever more of them.
pub(super) async fn run_facts(pool: &PgPool, seen: &[Partitioned<i64>]) -> Result<Vec<RunFactRow>, Error> {
    let rows = sqlx::query(
        "SELECT f.partition, f.number, bill_run_id, version, billing_cycle_id, status, \
         period_start_date - date '1970-01-01' period_start, period_end_date - date '1970-01-01' period_end, \
         usage_from_date - date '1970-01-01' usage_from, usage_until_date - date '1970-01-01' usage_until \
         FROM progress p LEFT JOIN unnest($1::int4[], $2::int8[]) seen(partition, number) USING (partition) \
         CROSS JOIN LATERAL (SELECT * FROM bill_run_fact f WHERE f.partition = p.partition \
         AND f.number > coalesce(seen.number, 0)) f ORDER BY f.partition, f.number",
    )
    .bind(seen.iter().map(|seen| seen.partition).collect::<Vec<i32>>())
    .bind(seen.iter().map(|seen| seen.value).collect::<Vec<i64>>())
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            let (partition, number) = (row.try_get("partition")?, row.try_get("number")?);
            Ok(RunFactRow { partition, number, fact: run_fact(row)? })
        })
        .collect()
}

fn run_fact(row: &PgRow) -> Result<RunFact, Error> {
    let date = |column: &str| Ok::<_, Error>(Date::from_days(row.try_get(column)?));
    let status: i16 = row.try_get("status")?;
    let run = BillRun {
        id: row.try_get("bill_run_id")?,
        billing_cycle: row.try_get("billing_cycle_id")?,
        period_start: date("period_start")?,
        period_end: date("period_end")?,
        usage_from: date("usage_from")?,
        usage_until: date("usage_until")?,
        status: numbered(&RunStatus::ALL, status, "bill_run.status")?,
    };
    Ok(RunFact { version: row.try_get("version")?, run })
}

fn bill_run(row: &PgRow) -> Result<BillRunRow, Error> {
    let RunFact { version, run } = run_fact(row)?;
    let (storing, letting_in) = (row.try_get("storing_after")?, row.try_get("letting_in_after")?);
    Ok(BillRunRow { version, run, storing, letting_in })
}

pub(super) fn stored_ahead(row: &PgRow) -> Result<StoredAhead, Error> {
    Ok(StoredAhead { bill_run: row.try_get("bill_run_id")?, customer: row.try_get("customer_id")? })
}

/// What stands at a small number.
pub(super) fn numbered<T: Copy>(all: &[T], number: i16, column: &str) -> Result<T, Error> {
    let known = usize::try_from(number).ok().and_then(|at| all.get(at)).copied();
    known.ok_or_else(|| Error::Protocol(format!("{column}: {number} is not known to this version")))
}

/// The ledger rows that are there under these keys. The limit has each looked up on its own: planned for a small table, a
/// join would go through all of the partition's rows for seconds once it has grown.
pub(super) async fn known_usage(
    pool: &PgPool,
    partition: i32,
    keys: &[LedgerKey],
) -> Result<Vec<OfCustomer<LedgerRow>>, Error> {
    let customers: Vec<i64> = keys.iter().map(|key| key.customer).collect();
    let starts: Vec<Timestamp> = keys.iter().map(|key| Timestamp(key.position.start)).collect();
    let events: Vec<Uuid> = keys.iter().map(|key| uuid_of(key.position.key)).collect();
    let rows = sqlx::query(
        "SELECT l.customer_id, l.start_time, l.event_key, l.source, l.state, l.body, l.draws \
         FROM unnest($2::int8[], $3::timestamptz[], $4::uuid[]) k(customer_id, start_time, event_key) \
         CROSS JOIN LATERAL (SELECT * FROM ledger l WHERE l.partition = $1 AND l.customer_id = k.customer_id \
         AND l.start_time = k.start_time AND l.event_key = k.event_key LIMIT 1) l",
    )
    .bind(partition)
    .bind(customers)
    .bind(starts)
    .bind(events)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok(OfCustomer { customer: row.try_get("customer_id")?, row: ledger_row(row)? })).collect()
}

/// Ledger rows of a customer before a position, the latest first.
pub(super) async fn usage_before(
    pool: &PgPool,
    partition: i32,
    customer: i64,
    before: Position,
    limit: usize,
) -> Result<Vec<LedgerRow>, Error> {
    let rows = sqlx::query(
        "SELECT start_time, event_key, source, state, body, draws FROM ledger \
         WHERE partition = $1 AND customer_id = $2 AND (start_time, event_key) < ($4, $5) \
         ORDER BY partition DESC, customer_id DESC, start_time DESC, event_key DESC LIMIT $3",
    )
    .bind(partition)
    .bind(customer)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(Timestamp(before.start))
    .bind(uuid_of(before.key))
    .fetch_all(pool)
    .await?;
    rows.iter().map(ledger_row).collect()
}

/// The customer of each event that is held and not reversed, after a customer, in order.
pub(super) async fn holders_after(pool: &PgPool, partition: i32, after: i64, limit: usize) -> Result<Vec<i64>, Error> {
    sqlx::query_scalar(
        "SELECT customer_id FROM ledger WHERE partition = $1 AND state = 1::int::\"char\" AND customer_id > $2 \
         ORDER BY customer_id LIMIT $3",
    )
    .bind(partition)
    .bind(after)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
}

/// The usage of customers that is held and not reversed.
pub(super) async fn held_usage(
    pool: &PgPool,
    partition: i32,
    customers: &[i64],
) -> Result<Vec<OfCustomer<LedgerRow>>, Error> {
    let rows = sqlx::query(
        "SELECT customer_id, start_time, event_key, source, state, body, draws FROM ledger \
         WHERE partition = $1 AND state = 1::int::\"char\" AND customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(customers)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|row| Ok(OfCustomer { customer: row.try_get("customer_id")?, row: ledger_row(row)? })).collect()
}

/// Customers of a billing cycle after a customer, in order.
pub(super) async fn customers_after(
    pool: &PgPool,
    partition: i32,
    cycle: i64,
    after: i64,
    limit: usize,
) -> Result<Vec<i64>, Error> {
    sqlx::query_scalar(
        "SELECT customer_id FROM customer WHERE partition = $1 AND customer_id > $2 \
         AND coalesce(billing_cycle_id, 0) = $3 ORDER BY customer_id LIMIT $4",
    )
    .bind(partition)
    .bind(after)
    .bind(cycle)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
}

/// Ledger rows of a customer after a position, in order.
pub(super) async fn usage_after(
    executor: impl PgExecutor<'_>,
    partition: i32,
    customer: i64,
    after: Option<Position>,
    limit: usize,
) -> Result<Vec<LedgerRow>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = match after {
        None => {
            sqlx::query(
                "SELECT start_time, event_key, source, state, body, draws FROM ledger \
                 WHERE partition = $1 AND customer_id = $2 ORDER BY start_time, event_key LIMIT $3",
            )
            .bind(partition)
            .bind(customer)
            .bind(limit)
            .fetch_all(executor)
            .await?
        }
        Some(after) => {
            sqlx::query(
                "SELECT start_time, event_key, source, state, body, draws FROM ledger \
                 WHERE partition = $1 AND customer_id = $2 AND (start_time, event_key) > ($4, $5) \
                 ORDER BY start_time, event_key LIMIT $3",
            )
            .bind(partition)
            .bind(customer)
            .bind(limit)
            .bind(Timestamp(after.start))
            .bind(uuid_of(after.key))
            .fetch_all(executor)
            .await?
        }
    };
    rows.iter().map(ledger_row).collect()
}

fn ledger_row(row: &PgRow) -> Result<LedgerRow, Error> {
    let state: i8 = row.try_get("state")?;
    Ok(LedgerRow {
        position: position(row.try_get("start_time")?, row.try_get("event_key")?),
        state: numbered(&UsageState::ALL, i16::from(state), "ledger.state")?,
        source: row.try_get("source")?,
        body: row.try_get("body")?,
        draws: row.try_get("draws")?,
    })
}
