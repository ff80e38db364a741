//! Everything that is read from SQLite.

use sqlx::sqlite::{SqliteConnection, SqliteExecutor, SqlitePool, SqliteRow};
use sqlx::{Error, Row};

use super::behind;
use super::progress::progress_of;
use crate::domain::{
    AccountImage, Assignment, AssignmentKey, AssignmentRow, BillRun, BillRunRow, BucketRow, ChargingType, CustomerFact,
    Date, EventKey, Instant, Inventory, LastUsage, Level, LineRow, Position, Quantity, RunFact, RunStatus, Totals,
    UsageState,
};
use crate::store::{
    AlertRow, AlertsOffset, LedgerKey, LedgerRow, OfCustomer, OutboxPart, Partitioned, Progress, RelayState,
    RunFactRow, StoredAhead, Taken, Wanted,
};

/// A key as its 16 bytes, big-endian, so that blobs are compared as the order wants it.
pub(super) fn key_bytes(key: EventKey) -> Vec<u8> {
    key.0.to_be_bytes().to_vec()
}

fn instant(row: &SqliteRow, column: &str) -> Result<Instant, Error> {
    Ok(Instant::from_micros(row.try_get(column)?))
}

pub(super) fn key(row: &SqliteRow, column: &str) -> Result<EventKey, Error> {
    let bytes: &[u8] = row.try_get(column)?;
    let bytes = bytes.try_into().map_err(|_| Error::Protocol(format!("{column}: a key of {} bytes", bytes.len())))?;
    Ok(EventKey(u128::from_be_bytes(bytes)))
}

pub(super) fn numbered<T: Copy>(all: &[T], row: &SqliteRow, column: &str) -> Result<T, Error> {
    let number: i64 = row.try_get(column)?;
    let known = usize::try_from(number).ok().and_then(|at| all.get(at)).copied();
    known.ok_or_else(|| Error::Protocol(format!("{column}: {number} is not known to this version")))
}

/// Raises the epoch of a partition pair, and reads what its new owner must know.
pub(super) async fn take(pool: &SqlitePool, partition: i32) -> Result<Taken, Error> {
    let mut transaction = pool.begin().await?;
    let progress = sqlx::query("UPDATE progress SET epoch = epoch + 1 WHERE partition = ? RETURNING *")
        .bind(partition)
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or_else(|| Error::Protocol(format!("progress has no row of partition {partition}")))?;
    let runs = sqlx::query("SELECT * FROM bill_run WHERE partition = ?").bind(partition);
    let runs = runs.fetch_all(&mut *transaction).await?;
    let ahead = sqlx::query("SELECT * FROM stored_ahead WHERE partition = ?").bind(partition);
    let ahead = ahead.fetch_all(&mut *transaction).await?;
    let sources = sqlx::query("SELECT source FROM source WHERE partition = ? ORDER BY number").bind(partition);
    let sources = sources.fetch_all(&mut *transaction).await?;
    let behind = behind::read(&mut transaction, partition).await?;
    transaction.commit().await?;
    let Progress { epoch, offsets, gaps, outbox_number, commits, .. } = progress_of(&progress)?;
    let source =
        |row: &SqliteRow| Ok::<_, Error>(String::from_utf8_lossy(row.try_get::<&[u8], _>("source")?).into_owned());
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

pub(super) async fn all_totals(pool: &SqlitePool) -> Result<Totals, Error> {
    let mut sum = Totals::default();
    for row in sqlx::query("SELECT * FROM progress").fetch_all(pool).await? {
        sum += totals_of(&row)?;
    }
    Ok(sum)
}

pub(super) fn totals_of(row: &SqliteRow) -> Result<Totals, Error> {
    let sums = |column: &str| -> Result<[i128; 3], Error> {
        let text: &str = row.try_get(column)?;
        let sums: Vec<i128> = text.split(',').filter_map(|sum| sum.parse().ok()).collect();
        sums.try_into().map_err(|_| Error::Protocol(format!("progress.{column}: \"{text}\"")))
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

/// The facts about bill runs that are not seen yet.
pub(super) async fn run_facts(pool: &SqlitePool, seen: &[Partitioned<i64>]) -> Result<Vec<RunFactRow>, Error> {
    let seen: Vec<(i32, i64)> = seen.iter().map(|seen| (seen.partition, seen.value)).collect();
    let seen = serde_json::to_string(&seen).map_err(|error| Error::Encode(error.into()))?;
    let rows = sqlx::query(
        "SELECT * FROM bill_run_fact f WHERE number > coalesce((SELECT value ->> 1 FROM json_each(?) \
         WHERE value ->> 0 = f.partition), 0) ORDER BY partition, number",
    );
    let rows = rows.bind(seen).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let (partition, number) = (row.try_get("partition")?, row.try_get("number")?);
            Ok(RunFactRow { partition, number, fact: run_fact(row)? })
        })
        .collect()
}

fn run_fact(row: &SqliteRow) -> Result<RunFact, Error> {
    let date = |column: &str| Ok::<_, Error>(Date::from_days(row.try_get(column)?));
    let run = BillRun {
        id: row.try_get("bill_run_id")?,
        billing_cycle: row.try_get("billing_cycle_id")?,
        period_start: date("period_start_date")?,
        period_end: date("period_end_date")?,
        usage_from: date("usage_from_date")?,
        usage_until: date("usage_until_date")?,
        status: numbered(&RunStatus::ALL, row, "status")?,
    };
    Ok(RunFact { version: row.try_get("version")?, run })
}

fn bill_run(row: &SqliteRow) -> Result<BillRunRow, Error> {
    let RunFact { version, run } = run_fact(row)?;
    let (storing, letting_in) = (row.try_get("storing_after")?, row.try_get("letting_in_after")?);
    Ok(BillRunRow { version, run, storing, letting_in })
}

fn stored_ahead(row: &SqliteRow) -> Result<StoredAhead, Error> {
    Ok(StoredAhead { bill_run: row.try_get("bill_run_id")?, customer: row.try_get("customer_id")? })
}

/// A customer's account, if it is known.
pub(super) async fn account(
    connection: &mut SqliteConnection,
    partition: i32,
    wanted: Wanted,
) -> Result<Option<AccountImage>, Error> {
    let Wanted { customer, since } = wanted;
    let own = sqlx::query("SELECT * FROM customer WHERE partition = ? AND customer_id = ?");
    let Some(row) = own.bind(partition).bind(customer).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    let fact = match row.try_get::<Option<i64>, _>("version")? {
        None => None,
        Some(version) => {
            let billing_cycle = row.try_get("billing_cycle_id")?;
            Some((version, CustomerFact { billing_cycle, contract_owner: row.try_get("contract_owner_id")? }))
        }
    };
    let mut image = AccountImage { customer, fact, next_slot: row.try_get("next_slot")?, ..AccountImage::default() };
    let rows = sqlx::query("SELECT * FROM assignment WHERE partition = ? AND customer_id = ?");
    for row in rows.bind(partition).bind(customer).fetch_all(&mut *connection).await? {
        image.assignments.push(assignment(&row)?);
    }
    let rows = sqlx::query("SELECT * FROM line WHERE partition = ? AND customer_id = ?");
    for row in rows.bind(partition).bind(customer).fetch_all(&mut *connection).await? {
        image.lines.push(line(&row)?);
    }
    match since {
        None => {
            let rows = sqlx::query("SELECT * FROM bucket WHERE partition = ? AND customer_id = ?");
            for row in rows.bind(partition).bind(customer).fetch_all(&mut *connection).await? {
                image.buckets.push(bucket(&row)?);
            }
        }
        Some(since) => add_buckets_since(connection, partition, &mut image, since).await?,
    }
    let rows = sqlx::query("SELECT * FROM reversal WHERE partition = ? AND customer_id = ? AND pending");
    for row in rows.bind(partition).bind(customer).fetch_all(&mut *connection).await? {
        image.pending_reversals.push(position(&row)?);
    }
    let latest: Option<i64> =
        sqlx::query_scalar("SELECT max(start_time) FROM ledger WHERE partition = ? AND customer_id = ?")
            .bind(partition)
            .bind(customer)
            .fetch_one(connection)
            .await?;
    image.latest_usage = latest.map(Instant::from_micros);
    Ok(Some(image))
}

/// Adds the buckets of an account, whose assignments are there, that may be drawn from at an instant or later.
async fn add_buckets_since(
    connection: &mut SqliteConnection,
    partition: i32,
    image: &mut AccountImage,
    since: Instant,
) -> Result<(), Error> {
    image.since = Some(since);
    for row in &image.assignments {
        let Some(start) = row.assignment.as_ref().and_then(|assignment| assignment.starts_from(since)) else {
            continue;
        };
        let rows = sqlx::query(
            "SELECT * FROM bucket WHERE partition = ? AND customer_id = ? AND level = ? AND assignment_id = ? \
             AND window_start >= ?",
        )
        .bind(partition)
        .bind(image.customer)
        .bind(row.key.level.number())
        .bind(row.key.id)
        .bind(start.micros());
        for row in rows.fetch_all(&mut *connection).await? {
            image.buckets.push(bucket(&row)?);
        }
    }
    let last: Option<i32> = sqlx::query_scalar("SELECT max(slot) FROM bucket WHERE partition = ? AND customer_id = ?")
        .bind(partition)
        .bind(image.customer)
        .fetch_one(connection)
        .await?;
    image.slots_are_given_up_to(last);
    Ok(())
}

fn position(row: &SqliteRow) -> Result<Position, Error> {
    Ok(Position { start: instant(row, "start_time")?, key: key(row, "event_key")? })
}

fn assignment(row: &SqliteRow) -> Result<AssignmentRow, Error> {
    let fact: Option<&str> = row.try_get("fact")?;
    let assignment: Option<Assignment> =
        fact.map(serde_json::from_str).transpose().map_err(|error| Error::Decode(error.into()))?;
    Ok(AssignmentRow {
        key: AssignmentKey { level: numbered(&Level::ALL, row, "level")?, id: row.try_get("assignment_id")? },
        version: row.try_get("version")?,
        assignment,
    })
}

fn line(row: &SqliteRow) -> Result<LineRow, Error> {
    let upi = row.try_get("usage_product_inventory_id")?;
    let fact = match row.try_get::<Option<i64>, _>("version")? {
        None => None,
        Some(version) => {
            let (site, product) = (row.try_get("site_id")?, row.try_get("usage_product_id")?);
            Some((version, Inventory { upi, site, product }))
        }
    };
    let last_usage = match row.try_get::<Option<i64>, _>("last_start_time")? {
        None => None,
        Some(start) => Some(LastUsage {
            position: Position { start: Instant::from_micros(start), key: key(row, "last_event_key")? },
            site: row.try_get("last_site_id")?,
            product: row.try_get("last_usage_product_id")?,
        }),
    };
    Ok(LineRow { upi, fact, last_usage })
}

fn bucket(row: &SqliteRow) -> Result<BucketRow, Error> {
    let mark = match row.try_get::<Option<i64>, _>("mark_start_time")? {
        None => None,
        Some(start) => Some(Position { start: Instant::from_micros(start), key: key(row, "mark_event_key")? }),
    };
    Ok(BucketRow {
        slot: row.try_get("slot")?,
        assignment: AssignmentKey { level: numbered(&Level::ALL, row, "level")?, id: row.try_get("assignment_id")? },
        component: row.try_get("component_id")?,
        window_start: instant(row, "window_start")?,
        charging_type: numbered(&ChargingType::ALL, row, "charging_type")?,
        by_value: row.try_get("by_value")?,
        // Less than nothing only somebody else wrote there; the audit tells of it.
        allowance: Quantity::from_millionths(row.try_get::<i64, _>("allowance")?.max(0)),
        remaining: Quantity::from_millionths(row.try_get::<i64, _>("remaining")?.max(0)),
        mark,
    })
}

/// The ledger rows that are there under these keys.
pub(super) async fn known_usage(
    pool: &SqlitePool,
    partition: i32,
    keys: &[LedgerKey],
) -> Result<Vec<OfCustomer<LedgerRow>>, Error> {
    let mut connection = pool.acquire().await?;
    let mut rows = Vec::new();
    for key in keys {
        let row = sqlx::query(
            "SELECT * FROM ledger WHERE partition = ? AND customer_id = ? AND start_time = ? AND event_key = ?",
        )
        .bind(partition)
        .bind(key.customer)
        .bind(key.position.start.micros())
        .bind(key_bytes(key.position.key))
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(row) = row {
            rows.push(OfCustomer { customer: key.customer, row: ledger_row(&row)? });
        }
    }
    Ok(rows)
}

/// Ledger rows of a customer before a position, the latest first.
pub(super) async fn usage_before(
    pool: &SqlitePool,
    partition: i32,
    customer: i64,
    before: Position,
    limit: usize,
) -> Result<Vec<LedgerRow>, Error> {
    let rows = sqlx::query(
        "SELECT * FROM ledger WHERE partition = ? AND customer_id = ? AND (start_time, event_key) < (?, ?) \
         ORDER BY start_time DESC, event_key DESC LIMIT ?",
    )
    .bind(partition)
    .bind(customer)
    .bind(before.start.micros())
    .bind(key_bytes(before.key))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await?;
    rows.iter().map(ledger_row).collect()
}

/// The customer of each event that is held and not reversed, after a customer, in order.
pub(super) async fn holders_after(
    pool: &SqlitePool,
    partition: i32,
    after: i64,
    limit: usize,
) -> Result<Vec<i64>, Error> {
    let statement = "SELECT customer_id FROM ledger WHERE partition = ? AND state = 1 AND customer_id > ? \
                     ORDER BY customer_id LIMIT ?";
    sqlx::query_scalar(statement)
        .bind(partition)
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await
}

/// The usage of customers that is held and not reversed.
pub(super) async fn held_usage(
    pool: &SqlitePool,
    partition: i32,
    customers: &[i64],
) -> Result<Vec<OfCustomer<LedgerRow>>, Error> {
    let mut found = Vec::new();
    for customer in customers {
        let rows = sqlx::query("SELECT * FROM ledger WHERE partition = ? AND state = 1 AND customer_id = ?")
            .bind(partition)
            .bind(customer)
            .fetch_all(pool)
            .await?;
        for row in &rows {
            found.push(OfCustomer { customer: *customer, row: ledger_row(row)? });
        }
    }
    Ok(found)
}

/// Customers of a billing cycle after a customer, in order.
pub(super) async fn customers_after(
    pool: &SqlitePool,
    partition: i32,
    cycle: i64,
    after: i64,
    limit: usize,
) -> Result<Vec<i64>, Error> {
    sqlx::query_scalar(
        "SELECT customer_id FROM customer WHERE partition = ? AND customer_id > ? \
         AND coalesce(billing_cycle_id, 0) = ? ORDER BY customer_id LIMIT ?",
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
    executor: impl SqliteExecutor<'_>,
    partition: i32,
    customer: i64,
    after: Option<Position>,
    limit: usize,
) -> Result<Vec<LedgerRow>, Error> {
    // No key is an empty blob, so every position of that instant comes after it.
    let (start, key) = after.map_or((i64::MIN, Vec::new()), |after| (after.start.micros(), key_bytes(after.key)));
    let rows = sqlx::query(
        "SELECT * FROM ledger WHERE partition = ? AND customer_id = ? AND (start_time, event_key) > (?, ?) \
         ORDER BY start_time, event_key LIMIT ?",
    )
    .bind(partition)
    .bind(customer)
    .bind(start)
    .bind(key)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(executor)
    .await?;
    rows.iter().map(ledger_row).collect()
}

fn ledger_row(row: &SqliteRow) -> Result<LedgerRow, Error> {
    Ok(LedgerRow {
        position: position(row)?,
        state: numbered(&UsageState::ALL, row, "state")?,
        source: row.try_get("source")?,
        body: row.try_get("body")?,
        draws: row.try_get("draws")?,
    })
}

pub(super) async fn relay_state(pool: &SqlitePool) -> Result<RelayState, Error> {
    let mut state = RelayState::default();
    for row in sqlx::query("SELECT * FROM relay_number").fetch_all(pool).await? {
        state.numbers.push(Partitioned { partition: row.try_get("partition")?, value: row.try_get("number")? });
    }
    for row in sqlx::query("SELECT * FROM relay_offset").fetch_all(pool).await? {
        state.offsets.push(AlertsOffset { partition: row.try_get("partition")?, next: row.try_get("next_offset")? });
    }
    Ok(state)
}

pub(super) async fn outbox_numbers(pool: &SqlitePool) -> Result<Vec<Partitioned<i64>>, Error> {
    let rows = sqlx::query("SELECT partition, outbox_number FROM progress ORDER BY partition").fetch_all(pool).await?;
    rows.iter()
        .map(|row| Ok(Partitioned { partition: row.try_get("partition")?, value: row.try_get("outbox_number")? }))
        .collect()
}

pub(super) async fn outbox(
    pool: &SqlitePool,
    parts: &[OutboxPart],
    bytes: usize,
) -> Result<Vec<Partitioned<AlertRow>>, Error> {
    let statement = "SELECT * FROM (SELECT *, sum(length(body)) OVER (ORDER BY number) - length(body) AS before FROM \
                     (SELECT * FROM outbox WHERE partition = ? AND number > ? ORDER BY number LIMIT ?)) \
                     WHERE before < ? ORDER BY number";
    let (mut alerts, mut room) = (Vec::new(), bytes);
    for part in parts {
        let rows = sqlx::query(statement)
            .bind(part.partition)
            .bind(part.after)
            .bind(i64::try_from(part.rows).unwrap_or(i64::MAX))
            .bind(i64::try_from(room).unwrap_or(i64::MAX))
            .fetch_all(pool)
            .await?;
        for row in &rows {
            let value = AlertRow {
                number: row.try_get("number")?,
                customer: row.try_get("customer_id")?,
                body: row.try_get("body")?,
            };
            room = room.saturating_sub(value.body.len());
            alerts.push(Partitioned { partition: part.partition, value });
        }
        if room == 0 {
            break;
        }
    }
    Ok(alerts)
}
