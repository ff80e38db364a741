//! One transaction for a batch. Its first statement is the fence: nothing is written by whoever lost the partition.

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgPool};
use sqlx::query::Query;
use sqlx::{Connection as _, Error, Postgres};
use uuid::Uuid;

use super::types::{Timestamp, uuid_of};
use super::{behind, copy, repair};
use crate::domain::{BucketRow, Instant, Inventory, LastUsage, LineRow, Position, StandingRow, StoredPart, StoredRow};
use crate::failpoint;
use crate::store::plans::Plans;
use crate::store::{Commit, CommitError, OfCustomer, StoreError, hex};

/// A connection that goes back to its pool only once what was begun on it came to its end. Of a COPY that nobody waits for
/// any more, since the partition was taken away, sqlx 0.8 forgets that an answer is yet to come: it gives the connection for a
/// ready one, and whoever asks next takes that answer for his own, and his own goes to the one after him.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            // Closed without a word: the database takes back what was not committed.
            drop(connection.detach());
        }
    }
}

/// Writes a commit, all of it or nothing.
pub(super) async fn write(
    pool: &PgPool,
    commit: &Commit,
    describe: impl Fn(&Error) -> StoreError,
) -> Result<(), CommitError> {
    failpoint::hit("before-fence");
    let connection = pool.acquire().await.map_err(|error| CommitError::Store(describe(&error)))?;
    let mut lent = Lent(Some(connection));
    let written = write_on(lent.0.as_mut().expect("it was lent just now"), commit, describe).await;
    if matches!(written, Ok(()) | Err(CommitError::Fenced(_))) {
        lent.give_back();
    }
    written
}

async fn write_on(
    connection: &mut PgConnection,
    commit: &Commit,
    describe: impl Fn(&Error) -> StoreError,
) -> Result<(), CommitError> {
    let failed = |error: Error| CommitError::Store(describe(&error));
    let mut transaction = connection.begin().await.map_err(failed)?;
    if !fence(&mut transaction, commit).await.map_err(failed)? {
        return Err(CommitError::Fenced(commit.partition));
    }
    failpoint::hit("after-fence");
    write_usage(&mut transaction, commit).await.map_err(failed)?;
    write_facts(&mut transaction, commit).await.map_err(failed)?;
    write_buckets(&mut transaction, commit).await.map_err(failed)?;
    write_rest(&mut transaction, commit).await.map_err(failed)?;
    behind::write(&mut transaction, commit).await.map_err(failed)?;
    if let Some((request, repaired)) = &commit.repaired {
        repair::answer(&mut transaction, request, repaired).await.map_err(failed)?;
    }
    failpoint::hit("before-commit");
    let committed = transaction.commit().await;
    failpoint::hit("after-commit");
    committed.map_err(|error| match describe(&error) {
        // The database said no, so nothing is written.
        StoreError::Failed(line) => CommitError::Store(StoreError::Failed(line)),
        StoreError::Unavailable(line) => CommitError::Unknown(line),
    })
}

/// Moves the progress row on, if it is still this owner's and has all its commits: a store that went back to an earlier state
/// may have lost some that left the offsets where they were.
async fn fence(connection: &mut PgConnection, commit: &Commit) -> Result<bool, Error> {
    let moved = sqlx::query(
        "UPDATE progress SET commits = commits + 1, usage_offset = $4, assignments_offset = $5, outbox_number = $6, \
         applied_at = greatest(applied_at, $7), facts_at = greatest(facts_at, $8), runs_at = greatest(runs_at, $9) \
         WHERE partition = $1 AND epoch = $2 AND commits = $3",
    )
    .bind(commit.partition)
    .bind(commit.epoch)
    .bind(commit.commits)
    .bind(commit.next.usage)
    .bind(commit.next.assignments)
    .bind(commit.outbox_number)
    .bind(commit.applied_at.map(Timestamp))
    .bind(commit.facts_at.map(Timestamp))
    .bind(commit.runs_at.map(Timestamp))
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

async fn write_usage(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.usage.is_empty() {
        copy::send(connection, commit).await?;
    }
    if !commit.usage_changes.is_empty() {
        let changes = &commit.usage_changes;
        let positions = changes.iter().map(|change| change.key.position);
        let (starts, keys) = columns(positions);
        sqlx::query(
            "UPDATE ledger l SET state = u.state, draws = u.draws \
             FROM unnest($2::int8[], $3::timestamptz[], $4::uuid[], $5::\"char\"[], $6::bytea[]) \
             u(customer_id, start_time, event_key, state, draws) WHERE l.partition = $1 \
             AND l.customer_id = u.customer_id AND l.start_time = u.start_time AND l.event_key = u.event_key",
        )
        .bind(commit.partition)
        .bind(changes.iter().map(|change| change.key.customer).collect::<Vec<i64>>())
        .bind(starts)
        .bind(keys)
        .bind(changes.iter().map(|change| change.state.number().cast_signed()).collect::<Vec<i8>>())
        .bind(changes.iter().map(|change| change.draws.as_slice()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.reversals.is_empty() {
        let (starts, keys) = columns(commit.reversals.iter().map(|row| row.key.position));
        sqlx::query(
            "INSERT INTO reversal (partition, customer_id, start_time, event_key, pending) \
             SELECT $1, * FROM unnest($2::int8[], $3::timestamptz[], $4::uuid[], $5::bool[]) \
             ON CONFLICT (partition, customer_id, start_time, event_key) DO UPDATE SET pending = excluded.pending",
        )
        .bind(commit.partition)
        .bind(commit.reversals.iter().map(|row| row.key.customer).collect::<Vec<i64>>())
        .bind(starts)
        .bind(keys)
        .bind(commit.reversals.iter().map(|row| row.pending).collect::<Vec<bool>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.sources.is_empty() {
        sqlx::query("INSERT INTO source (partition, number, source) SELECT $1, * FROM unnest($2::int4[], $3::bytea[])")
            .bind(commit.partition)
            .bind(commit.sources.iter().map(|(number, _)| *number).collect::<Vec<i32>>())
            .bind(commit.sources.iter().map(|(_, source)| source.as_bytes()).collect::<Vec<_>>())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Positions as two columns.
fn columns(positions: impl Iterator<Item = Position>) -> (Vec<Timestamp>, Vec<Uuid>) {
    positions.map(|position| (Timestamp(position.start), uuid_of(position.key))).unzip()
}

async fn write_facts(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.customers.is_empty() {
        let rows = &commit.customers;
        sqlx::query(
            "INSERT INTO customer (partition, customer_id, version, billing_cycle_id, contract_owner_id, next_slot) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int4[]) \
             ON CONFLICT (partition, customer_id) DO UPDATE SET version = excluded.version, \
             billing_cycle_id = excluded.billing_cycle_id, contract_owner_id = excluded.contract_owner_id, \
             next_slot = excluded.next_slot",
        )
        .bind(commit.partition)
        .bind(rows.iter().map(|row| row.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.fact.map(|fact| fact.0)).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.fact.map(|fact| fact.1.billing_cycle)).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.fact.and_then(|fact| fact.1.contract_owner)).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.next_slot).collect::<Vec<i32>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.assignments.is_empty() {
        let rows = &commit.assignments;
        let facts: Vec<Option<String>> = rows.iter().map(|of| of.row.fact_text()).collect();
        let plans = || rows.iter().map(|of| of.row.assignment.as_ref().map(|assignment| &assignment.plan));
        let spans = &commit.assignment_spans;
        sqlx::query(
            "INSERT INTO assignment (partition, customer_id, level, assignment_id, version, scope, fact, from_micros, \
             until_micros, inclusive_usage_plan_id, usage_product_id, component_ids) \
             SELECT $1, customer_id, level, assignment_id, version, scope, fact, from_micros, until_micros, plan, \
             product, component_ids::int8[] FROM unnest($2::int8[], $3::int2[], $4::int8[], $5::int8[], $6::int8[], \
             $7::text[], $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::text[]) u(customer_id, level, \
             assignment_id, version, scope, fact, from_micros, until_micros, plan, product, component_ids) \
             ON CONFLICT (partition, customer_id, level, assignment_id) \
             DO UPDATE SET version = excluded.version, scope = excluded.scope, fact = excluded.fact, \
             from_micros = excluded.from_micros, until_micros = excluded.until_micros, \
             inclusive_usage_plan_id = excluded.inclusive_usage_plan_id, \
             usage_product_id = excluded.usage_product_id, component_ids = excluded.component_ids",
        )
        .bind(commit.partition)
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| i16::from(of.row.key.level.number())).collect::<Vec<i16>>())
        .bind(rows.iter().map(|of| of.row.key.id).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.version).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.assignment.as_ref().map(|a| a.scope)).collect::<Vec<Option<i64>>>())
        .bind(facts)
        .bind(spans.iter().map(|span| span.map(|span| span.0.micros())).collect::<Vec<Option<i64>>>())
        .bind(spans.iter().map(|span| span.map(|span| span.1.micros())).collect::<Vec<Option<i64>>>())
        .bind(plans().map(|plan| plan.map(|plan| plan.id)).collect::<Vec<Option<i64>>>())
        .bind(plans().map(|plan| plan.and_then(|plan| plan.product)).collect::<Vec<Option<i64>>>())
        .bind(plans().map(|plan| plan.map(|plan| format!("{{{}}}", plan.component_ids()))).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    write_plans(connection, commit).await?;
    write_lines(connection, commit).await?;
    write_standing(connection, commit).await?;
    write_bill_runs(connection, commit).await
}

async fn write_plans(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    let Plans { customers, components } = Plans::of(commit);
    for (pairs, statement) in [
        (
            customers,
            "INSERT INTO plan_customer (partition, inclusive_usage_plan_id, customer_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[]) ON CONFLICT DO NOTHING",
        ),
        (
            components,
            "INSERT INTO component_plan (partition, component_id, inclusive_usage_plan_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[]) ON CONFLICT DO NOTHING",
        ),
    ] {
        if pairs.is_empty() {
            continue;
        }
        let (firsts, seconds): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
        sqlx::query(statement).bind(commit.partition).bind(firsts).bind(seconds).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_lines(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.changed_lines.is_empty() {
        let query = sqlx::query(
            "UPDATE line l SET version = u.version, site_id = u.site_id, usage_product_id = u.usage_product_id, \
             last_start_time = u.last_start_time, last_event_key = u.last_event_key, last_site_id = u.last_site_id, \
             last_usage_product_id = u.last_usage_product_id \
             FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::timestamptz[], $8::uuid[], \
             $9::int8[], $10::int8[]) u(customer_id, upi, version, site_id, usage_product_id, last_start_time, \
             last_event_key, last_site_id, last_usage_product_id) WHERE l.partition = $1 \
             AND l.customer_id = u.customer_id AND l.usage_product_inventory_id = u.upi",
        );
        bind_lines(query.bind(commit.partition), &commit.changed_lines).execute(&mut *connection).await?;
    }
    if !commit.new_lines.is_empty() {
        let query = sqlx::query(
            "INSERT INTO line (partition, customer_id, usage_product_inventory_id, version, site_id, \
             usage_product_id, last_start_time, last_event_key, last_site_id, last_usage_product_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::timestamptz[], \
             $8::uuid[], $9::int8[], $10::int8[])",
        );
        bind_lines(query.bind(commit.partition), &commit.new_lines).execute(&mut *connection).await?;
    }
    if !commit.removed_lines.is_empty() {
        sqlx::query(
            "DELETE FROM line l USING unnest($2::int8[], $3::int8[]) g(customer_id, upi) WHERE l.partition = $1 \
             AND l.customer_id = g.customer_id AND l.usage_product_inventory_id = g.upi",
        )
        .bind(commit.partition)
        .bind(commit.removed_lines.iter().map(|line| line.0).collect::<Vec<i64>>())
        .bind(commit.removed_lines.iter().map(|line| line.1).collect::<Vec<i64>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Where lines stand.
async fn write_standing(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.standing_anew.is_empty() {
        sqlx::query("DELETE FROM standing_row WHERE partition = $1 AND customer_id = ANY($2)")
            .bind(commit.partition)
            .bind(&commit.standing_anew)
            .execute(&mut *connection)
            .await?;
    }
    if !commit.removed_standing.is_empty() {
        let gone = &commit.removed_standing;
        sqlx::query(
            "DELETE FROM standing_row s USING unnest($2::int8[], $3::int8[], $4::int8[]) g(customer_id, upi, from_micros) \
             WHERE s.partition = $1 AND s.customer_id = g.customer_id AND s.usage_product_inventory_id = g.upi \
             AND s.from_micros = g.from_micros",
        )
        .bind(commit.partition)
        .bind(gone.iter().map(|place| place.0).collect::<Vec<i64>>())
        .bind(gone.iter().map(|place| place.1).collect::<Vec<i64>>())
        .bind(gone.iter().map(|place| place.2.micros()).collect::<Vec<i64>>())
        .execute(&mut *connection)
        .await?;
    }
    if !commit.standing.is_empty() {
        let rows = &commit.standing;
        let optional = |pick: fn(&StandingRow) -> Option<i64>| -> Vec<Option<i64>> {
            rows.iter().map(|of| pick(&of.row)).collect()
        };
        sqlx::query(
            "INSERT INTO standing_row (partition, customer_id, usage_product_inventory_id, from_micros, until_micros, \
             after_micros, billing_cycle_id, site_id, usage_product_id, contract_owner_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], \
             $8::int8[], $9::int8[], $10::int8[]) \
             ON CONFLICT (partition, customer_id, usage_product_inventory_id, from_micros) DO UPDATE SET \
             until_micros = excluded.until_micros, after_micros = excluded.after_micros, \
             billing_cycle_id = excluded.billing_cycle_id, site_id = excluded.site_id, \
             usage_product_id = excluded.usage_product_id, contract_owner_id = excluded.contract_owner_id",
        )
        .bind(commit.partition)
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.upi).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.from.micros()).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.until.micros()).collect::<Vec<i64>>())
        .bind(optional(|row| row.after.map(Instant::micros)))
        .bind(rows.iter().map(|of| of.row.cycle).collect::<Vec<i64>>())
        .bind(optional(|row| row.site))
        .bind(optional(|row| row.product))
        .bind(optional(|row| row.contract_owner))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Binds lines: customers, lines, what inventory.changed says of them, and their last usage.
fn bind_lines<'q>(
    query: Query<'q, Postgres, PgArguments>,
    rows: &[OfCustomer<LineRow>],
) -> Query<'q, Postgres, PgArguments> {
    let fact = |pick: fn(&Inventory) -> i64| -> Vec<Option<i64>> {
        rows.iter().map(|of| of.row.fact.as_ref().map(|fact| pick(&fact.1))).collect()
    };
    let last = |pick: fn(&LastUsage) -> i64| -> Vec<Option<i64>> {
        rows.iter().map(|of| of.row.last_usage.as_ref().map(pick)).collect()
    };
    let positions = || rows.iter().map(|of| of.row.last_usage.map(|usage| usage.position));
    query
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.upi).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.fact.map(|fact| fact.0)).collect::<Vec<Option<i64>>>())
        .bind(fact(|inventory| inventory.site))
        .bind(fact(|inventory| inventory.product))
        .bind(positions().map(|last| last.map(|last| Timestamp(last.start))).collect::<Vec<Option<Timestamp>>>())
        .bind(positions().map(|last| last.map(|last| uuid_of(last.key))).collect::<Vec<Option<Uuid>>>())
        .bind(last(|usage| usage.site))
        .bind(last(|usage| usage.product))
}

async fn write_bill_runs(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    for (row, home) in &commit.bill_runs {
        let run = &row.run;
        sqlx::query(
            "INSERT INTO bill_run (partition, bill_run_id, version, billing_cycle_id, period_start_date, \
             period_end_date, usage_from_date, usage_until_date, status, home, closings, storing_after, \
             letting_in_after) \
             SELECT $1, $2, $3, $4, date '1970-01-01' + $5::int4, date '1970-01-01' + $6::int4, \
             date '1970-01-01' + $7::int4, date '1970-01-01' + $8::int4, $9, $10, $11, $12, $13 \
             ON CONFLICT (partition, bill_run_id) DO UPDATE SET version = excluded.version, \
             billing_cycle_id = excluded.billing_cycle_id, period_start_date = excluded.period_start_date, \
             period_end_date = excluded.period_end_date, usage_from_date = excluded.usage_from_date, \
             usage_until_date = excluded.usage_until_date, status = excluded.status, \
             home = bill_run.home OR excluded.home, closings = excluded.closings, \
             storing_after = excluded.storing_after, letting_in_after = excluded.letting_in_after",
        )
        .bind(commit.partition)
        .bind(run.id)
        .bind(row.version)
        .bind(run.billing_cycle)
        .bind(run.period_start.days())
        .bind(run.period_end.days())
        .bind(run.usage_from.days())
        .bind(run.usage_until.days())
        .bind(i16::from(run.status.number()))
        .bind(home)
        .bind(row.closings)
        .bind(row.storing)
        .bind(row.letting_in)
        .execute(&mut *connection)
        .await?;
    }
    write_stored(connection, commit).await
}

/// The rows of closing bill runs, and what goes with them.
async fn write_stored(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    for (table, runs) in [
        ("stored_row", &commit.reopened_runs),
        ("stored_ahead", &commit.reopened_runs),
        ("stored_ahead", &commit.stored_runs),
    ] {
        if !runs.is_empty() {
            let statement = format!("DELETE FROM {table} WHERE partition = $1 AND bill_run_id = ANY($2)");
            sqlx::query(&statement).bind(commit.partition).bind(runs).execute(&mut *connection).await?;
        }
    }
    if !commit.stored_rows.is_empty() {
        let rows = &commit.stored_rows;
        let column = |pick: fn(&StoredRow) -> i64| rows.iter().map(pick).collect::<Vec<i64>>();
        let lists = |pick: fn(&StoredPart) -> i64| -> Vec<String> {
            let list = |row: &StoredRow| row.parts.iter().map(|part| pick(part).to_string()).collect::<Vec<_>>();
            rows.iter().map(|row| format!("{{{}}}", list(row).join(","))).collect()
        };
        sqlx::query(
            "INSERT INTO stored_row (partition, bill_run_id, customer_id, usage_product_inventory_id, site_id, \
             contract_owner_id, entries, period_start_date, period_end_date, assignment_ids, inclusive_usage_plan_ids, \
             component_ids) SELECT $1, run, customer, upi, site, owner, entries, date '1970-01-01' + period_start, \
             date '1970-01-01' + period_end, assignments::int8[], plans::int8[], components::int8[] \
             FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::text[], $8::int4[], $9::int4[], \
             $10::text[], $11::text[], $12::text[]) \
             u(run, customer, upi, site, owner, entries, period_start, period_end, assignments, plans, components)",
        )
        .bind(commit.partition)
        .bind(column(|row| row.bill_run))
        .bind(column(|row| row.customer))
        .bind(column(|row| row.upi))
        .bind(rows.iter().map(|row| row.site).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.contract_owner).collect::<Vec<Option<i64>>>())
        .bind(rows.iter().map(|row| row.entries.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.period_start.days()).collect::<Vec<i32>>())
        .bind(rows.iter().map(|row| row.period_end.days()).collect::<Vec<i32>>())
        .bind(lists(|part| part.assignment))
        .bind(lists(|part| part.plan))
        .bind(lists(|part| part.component))
        .execute(&mut *connection)
        .await?;
    }
    if !commit.stored_ahead.is_empty() {
        sqlx::query(
            "INSERT INTO stored_ahead (partition, bill_run_id, customer_id) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[])",
        )
        .bind(commit.partition)
        .bind(commit.stored_ahead.iter().map(|ahead| ahead.bill_run).collect::<Vec<i64>>())
        .bind(commit.stored_ahead.iter().map(|ahead| ahead.customer).collect::<Vec<i64>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn write_buckets(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.changed_buckets.is_empty() {
        let query = sqlx::query(
            "UPDATE bucket b SET allowance = u.allowance, remaining = u.remaining, charging_type = u.charging_type, \
             by_value = u.by_value, mark_start_time = u.mark_start_time, mark_event_key = u.mark_event_key \
             FROM unnest($2::int8[], $3::int4[], $4::int8[], $5::int8[], $6::timestamptz[], $7::uuid[], $8::int2[], \
             $9::bool[]) u(customer_id, slot, allowance, remaining, mark_start_time, mark_event_key, charging_type, \
             by_value) WHERE b.partition = $1 AND b.customer_id = u.customer_id AND b.slot = u.slot",
        );
        bind_state(query.bind(commit.partition), &commit.changed_buckets).execute(&mut *connection).await?;
    }
    if !commit.new_buckets.is_empty() {
        let rows = &commit.new_buckets;
        let query = sqlx::query(
            "INSERT INTO bucket (partition, customer_id, slot, allowance, remaining, mark_start_time, mark_event_key, \
             charging_type, by_value, level, assignment_id, component_id, window_start) \
             SELECT $1, * FROM unnest($2::int8[], $3::int4[], $4::int8[], $5::int8[], $6::timestamptz[], $7::uuid[], \
             $8::int2[], $9::bool[], $10::int2[], $11::int8[], $12::int8[], $13::timestamptz[])",
        );
        bind_state(query.bind(commit.partition), rows)
            .bind(rows.iter().map(|of| i16::from(of.row.assignment.level.number())).collect::<Vec<i16>>())
            .bind(rows.iter().map(|of| of.row.assignment.id).collect::<Vec<i64>>())
            .bind(rows.iter().map(|of| of.row.component).collect::<Vec<i64>>())
            .bind(rows.iter().map(|of| Timestamp(of.row.window_start)).collect::<Vec<Timestamp>>())
            .execute(&mut *connection)
            .await?;
    }
    if !commit.removed_buckets.is_empty() {
        sqlx::query(
            "DELETE FROM bucket b USING unnest($2::int8[], $3::int4[]) g(customer_id, slot) \
             WHERE b.partition = $1 AND b.customer_id = g.customer_id AND b.slot = g.slot",
        )
        .bind(commit.partition)
        .bind(commit.removed_buckets.iter().map(|bucket| bucket.0).collect::<Vec<i64>>())
        .bind(commit.removed_buckets.iter().map(|bucket| bucket.1).collect::<Vec<i32>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Binds what changes of buckets: customers, slots, allowances, remainings, marks, and how they are counted.
fn bind_state<'q>(
    query: Query<'q, Postgres, PgArguments>,
    rows: &[OfCustomer<BucketRow>],
) -> Query<'q, Postgres, PgArguments> {
    let marks = || rows.iter().map(|of| of.row.mark);
    query
        .bind(rows.iter().map(|of| of.customer).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.slot).collect::<Vec<i32>>())
        .bind(rows.iter().map(|of| of.row.allowance.millionths()).collect::<Vec<i64>>())
        .bind(rows.iter().map(|of| of.row.remaining.millionths()).collect::<Vec<i64>>())
        .bind(marks().map(|mark| mark.map(|mark| Timestamp(mark.start))).collect::<Vec<Option<Timestamp>>>())
        .bind(marks().map(|mark| mark.map(|mark| uuid_of(mark.key))).collect::<Vec<Option<Uuid>>>())
        .bind(rows.iter().map(|of| i16::from(of.row.charging_type.number())).collect::<Vec<i16>>())
        .bind(rows.iter().map(|of| of.row.by_value).collect::<Vec<bool>>())
}

async fn write_rest(connection: &mut PgConnection, commit: &Commit) -> Result<(), Error> {
    if !commit.alerts.is_empty() {
        sqlx::query(
            "INSERT INTO outbox (partition, number, customer_id, body) \
             SELECT $1, * FROM unnest($2::int8[], $3::int8[], $4::text[])",
        )
        .bind(commit.partition)
        .bind(commit.alerts.iter().map(|alert| alert.number).collect::<Vec<i64>>())
        .bind(commit.alerts.iter().map(|alert| alert.customer).collect::<Vec<i64>>())
        .bind(commit.alerts.iter().map(|alert| alert.body.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    for letter in &commit.dead_letters {
        sqlx::query(
            "INSERT INTO dead_letter (partition, topic, \"offset\", record_timestamp, reason, detail, key, value, \
             headers, customer_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(commit.partition)
        .bind(&letter.topic)
        .bind(letter.offset)
        .bind(letter.timestamp)
        .bind(letter.reason)
        .bind(letter.detail.replace('\0', "\\0"))
        .bind(letter.key.as_deref())
        .bind(letter.value.as_deref())
        .bind(hex::headers_text(&letter.headers))
        .bind(letter.customer)
        .execute(&mut *connection)
        .await?;
    }
    let totals = &commit.totals;
    let sums = |sums: &[i128; 3]| sums.iter().map(i128::to_string).collect::<Vec<String>>();
    sqlx::query(
        "UPDATE totals SET counted = $2, held = $3, reversed = $4, crossed = $5, recovered = $6, \
         quantity = $7::text[]::numeric[], drawn = $8::text[]::numeric[], drawn_by_value = $9::text[]::numeric[] \
         WHERE partition = $1",
    )
    .bind(commit.partition)
    .bind(totals.counted)
    .bind(totals.held)
    .bind(totals.reversed)
    .bind(totals.crossed)
    .bind(totals.recovered)
    .bind(sums(&totals.quantity))
    .bind(sums(&totals.drawn))
    .bind(sums(&totals.drawn_by_value))
    .execute(connection)
    .await?;
    Ok(())
}
