//! What a worker reads: its partition when it takes it, accounts, and usage of the ledger. One query for each table (for
//! buckets, one for all of an account and one for those since some time), whatever the number of customers or events.

use std::collections::BTreeMap;
use std::io;

use futures_util::TryStreamExt as _;
use rustc_hash::FxHashMap;
use sqlx::postgres::{PgConnection, PgExecutor, PgPool, PgRow};
use sqlx::{Error, Row};
use uuid::Uuid;

use super::progress::progress_of;
use super::types::{FIRST, Timestamp, position, uuid_of};
use super::{behind, holder};
use crate::domain::{
    AccountImage, Assignment, AssignmentKey, AssignmentRow, BillRun, BillRunRow, BucketRow, ChargingType, CustomerFact,
    Date, Instant, Inventory, LastUsage, Level, LineRow, Position, Quantity, RunFact, RunStatus, Totals, UsageState,
};
use crate::store::{LedgerKey, LedgerRow, OfCustomer, Partitioned, Progress, RunFactRow, StoredAhead, Taken, Wanted};

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
    let progress = sqlx::query("UPDATE progress SET epoch = epoch + 1 WHERE partition = $1 RETURNING *")
        .bind(partition)
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| Error::Protocol(format!("progress has no row of partition {partition}")))?;
    let totals = sqlx::query(
        "SELECT counted, held, reversed, crossed, recovered, \
         quantity::text[] quantity, drawn::text[] drawn, drawn_by_value::text[] drawn_by_value \
         FROM totals WHERE partition = $1",
    )
    .bind(partition)
    .fetch_one(&mut *transaction)
    .await?;
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
        totals: totals_of(&totals)?,
        bill_runs: runs.iter().map(bill_run).collect::<Result<_, _>>()?,
        stored_ahead: ahead.iter().map(stored_ahead).collect::<Result<_, _>>()?,
        behind,
        sources: sources.iter().map(source).collect::<Result<_, _>>()?,
    })
}

/// Control totals over all partitions.
pub(super) async fn all_totals(pool: &PgPool) -> Result<Totals, Error> {
    let rows = sqlx::query(
        "SELECT counted, held, reversed, crossed, recovered, \
         quantity::text[] quantity, drawn::text[] drawn, drawn_by_value::text[] drawn_by_value FROM totals",
    )
    .fetch_all(pool)
    .await?;
    let mut sum = Totals::default();
    for row in &rows {
        sum += totals_of(row)?;
    }
    Ok(sum)
}

pub(super) fn totals_of(row: &PgRow) -> Result<Totals, Error> {
    let sums = |column: &str| -> Result<[i128; 3], Error> {
        let texts: Vec<String> = row.try_get(column)?;
        let sums: Vec<i128> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        sums.try_into().map_err(|_| Error::Protocol(format!("totals.{column}: {texts:?}")))
    };
    Ok(Totals {
        counted: row.try_get("counted")?,
        held: row.try_get("held")?,
        reversed: row.try_get("reversed")?,
        crossed: row.try_get("crossed")?,
        recovered: row.try_get("recovered")?,
        quantity: sums("quantity")?,
        drawn: sums("drawn")?,
        drawn_by_value: sums("drawn_by_value")?,
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
fn numbered<T: Copy>(all: &[T], number: i16, column: &str) -> Result<T, Error> {
    let known = usize::try_from(number).ok().and_then(|at| all.get(at)).copied();
    known.ok_or_else(|| Error::Protocol(format!("{column}: {number} is not known to this version")))
}

/// Accounts by customer, while their parts are read.
type Images = BTreeMap<i64, AccountImage>;

/// The accounts of those customers that are known.
pub(super) async fn accounts(
    connection: &mut PgConnection,
    partition: i32,
    wanted: &[Wanted],
) -> Result<Vec<AccountImage>, Error> {
    let since: FxHashMap<i64, Instant> =
        wanted.iter().filter_map(|wanted| Some((wanted.customer, wanted.since?))).collect();
    let mut rows = sqlx::query(
        "SELECT c.customer_id, c.version, c.billing_cycle_id, c.contract_owner_id, c.next_slot, \
         (SELECT l.start_time FROM ledger l WHERE l.partition = $1 AND l.customer_id = c.customer_id \
          ORDER BY l.partition DESC, l.customer_id DESC, l.start_time DESC LIMIT 1) latest_usage, \
         (SELECT b.slot FROM bucket b WHERE b.partition = $1 AND b.customer_id = c.customer_id \
          ORDER BY b.partition DESC, b.customer_id DESC, b.slot DESC LIMIT 1) last_slot \
         FROM customer c WHERE c.partition = $1 AND c.customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(wanted.iter().map(|wanted| wanted.customer).collect::<Vec<i64>>())
    .fetch(&mut *connection);
    let mut images = Images::new();
    while let Some(row) = rows.try_next().await? {
        let mut image = customer(&row)?;
        image.since = since.get(&image.customer).copied();
        if image.since.is_some() {
            image.slots_are_given_up_to(row.try_get("last_slot")?);
        }
        images.insert(image.customer, image);
    }
    drop(rows);
    add_parts(connection, partition, &mut images).await?;
    Ok(images.into_values().collect())
}

/// A customer's own row; `latest_usage` is asked for where a worker needs it.
pub(super) fn customer(row: &PgRow) -> Result<AccountImage, Error> {
    let fact = match row.try_get::<Option<i64>, _>("version")? {
        None => None,
        Some(version) => Some((
            version,
            CustomerFact {
                billing_cycle: row.try_get("billing_cycle_id")?,
                contract_owner: row.try_get("contract_owner_id")?,
            },
        )),
    };
    Ok(AccountImage {
        customer: row.try_get("customer_id")?,
        fact,
        next_slot: row.try_get("next_slot")?,
        latest_usage: row.try_get::<Option<Timestamp>, _>("latest_usage")?.map(|latest| latest.0),
        ..AccountImage::default()
    })
}

/// Adds assignments, lines, buckets and pending reversals to the accounts of a partition.
async fn add_parts(connection: &mut PgConnection, partition: i32, images: &mut Images) -> Result<(), Error> {
    let customers: Vec<i64> = images.keys().copied().collect();
    let mut rows = sqlx::query(
        "SELECT customer_id, level, assignment_id, version, fact FROM assignment \
         WHERE partition = $1 AND customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(&customers)
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.assignments.push(assignment(&row)?);
    }
    drop(rows);
    let mut rows = sqlx::query(
        "SELECT customer_id, usage_product_inventory_id, version, site_id, usage_product_id, last_start_time, \
         last_event_key, last_site_id, last_usage_product_id FROM line WHERE partition = $1 AND customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(&customers)
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.lines.push(line(&row)?);
    }
    drop(rows);
    add_buckets(connection, partition, images).await?;
    let mut rows = sqlx::query(
        "SELECT customer_id, start_time, event_key FROM reversal \
         WHERE partition = $1 AND customer_id = ANY($2) AND pending",
    )
    .bind(partition)
    .bind(&customers)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let reversed = position(row.try_get("start_time")?, row.try_get("event_key")?);
        image(images, &row)?.pending_reversals.push(reversed);
    }
    Ok(())
}

/// Adds all buckets of those accounts that are wanted whole.
async fn add_buckets(connection: &mut PgConnection, partition: i32, images: &mut Images) -> Result<(), Error> {
    let whole: Vec<i64> = images.values().filter(|image| image.since.is_none()).map(|image| image.customer).collect();
    if whole.len() < images.len() {
        add_buckets_since(connection, partition, images).await?;
    }
    if whole.is_empty() {
        return Ok(());
    }
    let mut rows = sqlx::query(
        "SELECT customer_id, slot, level, assignment_id, component_id, window_start, charging_type, by_value, \
         allowance, remaining, mark_start_time, mark_event_key FROM bucket \
         WHERE partition = $1 AND customer_id = ANY($2)",
    )
    .bind(partition)
    .bind(whole)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.buckets.push(bucket(&row)?);
    }
    Ok(())
}

/// Adds to the others, whose assignments are there, the buckets that may be drawn from since when they are wanted.
async fn add_buckets_since(connection: &mut PgConnection, partition: i32, images: &mut Images) -> Result<(), Error> {
    let (mut customers, mut levels, mut ids, mut starts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for image in images.values() {
        let Some(since) = image.since else { continue };
        for row in &image.assignments {
            let Some(start) = row.assignment.as_ref().and_then(|assignment| assignment.starts_from(since)) else {
                continue;
            };
            customers.push(image.customer);
            levels.push(i16::from(row.key.level.number()));
            ids.push(row.key.id);
            starts.push(Timestamp(start.max(FIRST)));
        }
    }
    // The order makes a plan of any time, even one of an empty table, look into the index of that order.
    let mut rows = sqlx::query(
        "SELECT b.* FROM unnest($2::int8[], $3::int2[], $4::int8[], $5::timestamptz[]) \
         k(customer_id, level, assignment_id, start) CROSS JOIN LATERAL (SELECT customer_id, slot, level, assignment_id, \
         component_id, window_start, charging_type, by_value, allowance, remaining, mark_start_time, mark_event_key \
         FROM bucket b WHERE b.partition = $1 AND b.customer_id = k.customer_id AND b.level = k.level \
         AND b.assignment_id = k.assignment_id AND b.window_start >= k.start \
         ORDER BY b.partition, b.customer_id, b.level, b.assignment_id, b.window_start) b",
    )
    .bind(partition)
    .bind(customers)
    .bind(levels)
    .bind(ids)
    .bind(starts)
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        image(images, &row)?.buckets.push(bucket(&row)?);
    }
    Ok(())
}

fn image<'a>(images: &'a mut Images, row: &PgRow) -> Result<&'a mut AccountImage, Error> {
    let customer: i64 = row.try_get("customer_id")?;
    images.get_mut(&customer).ok_or_else(|| Error::Protocol(format!("customer {customer} has no row of its own")))
}

fn assignment(row: &PgRow) -> Result<AssignmentRow, Error> {
    let fact: Option<&str> = row.try_get("fact")?;
    let assignment: Option<Assignment> =
        fact.map(serde_json::from_str).transpose().map_err(|error| Error::Decode(error.into()))?;
    let level = numbered(&Level::ALL, row.try_get("level")?, "assignment.level")?;
    Ok(AssignmentRow {
        key: AssignmentKey { level, id: row.try_get("assignment_id")? },
        version: row.try_get("version")?,
        assignment,
    })
}

fn line(row: &PgRow) -> Result<LineRow, Error> {
    let upi = row.try_get("usage_product_inventory_id")?;
    let fact = match row.try_get::<Option<i64>, _>("version")? {
        None => None,
        Some(version) => {
            let (site, product) = (row.try_get("site_id")?, row.try_get("usage_product_id")?);
            Some((version, Inventory { upi, site, product }))
        }
    };
    let last_usage = match row.try_get::<Option<Timestamp>, _>("last_start_time")? {
        None => None,
        Some(start) => Some(LastUsage {
            position: position(start, row.try_get("last_event_key")?),
            site: row.try_get("last_site_id")?,
            product: row.try_get("last_usage_product_id")?,
        }),
    };
    Ok(LineRow { upi, fact, last_usage })
}

fn bucket(row: &PgRow) -> Result<BucketRow, Error> {
    let mark = match row.try_get::<Option<Timestamp>, _>("mark_start_time")? {
        None => None,
        Some(start) => Some(position(start, row.try_get("mark_event_key")?)),
    };
    let level = numbered(&Level::ALL, row.try_get("level")?, "bucket.level")?;
    Ok(BucketRow {
        slot: row.try_get("slot")?,
        assignment: AssignmentKey { level, id: row.try_get("assignment_id")? },
        component: row.try_get("component_id")?,
        window_start: row.try_get::<Timestamp, _>("window_start")?.0,
        charging_type: numbered(&ChargingType::ALL, row.try_get("charging_type")?, "bucket.charging_type")?,
        by_value: row.try_get("by_value")?,
        // Less than nothing only somebody else wrote there; the audit tells of it.
        allowance: Quantity::from_millionths(row.try_get::<i64, _>("allowance")?.max(0)),
        remaining: Quantity::from_millionths(row.try_get::<i64, _>("remaining")?.max(0)),
        mark,
    })
}

/// The ledger rows that are there under these keys.
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
         JOIN ledger l ON l.partition = $1 AND l.customer_id = k.customer_id AND l.start_time = k.start_time \
         AND l.event_key = k.event_key",
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
